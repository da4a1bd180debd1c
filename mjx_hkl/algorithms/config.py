"""The `[algorithm]` table of a recipe; defaults are Appendix G's, with a note where it is silent."""

import dataclasses
from typing import Annotated, Literal

from annotated_types import Gt, Le

from mjx_hkl.config import Fraction, NonNegative, NonNegativeFloat, Positive, PositiveFloat


@dataclasses.dataclass(frozen=True)
class AlgorithmConfig:
    """Numbers of Algorithm 2, and of the actor-critic of B.3."""

    kind: Literal["svg", "v_trace"] = "svg"
    """svg: action values, whose gradient moves the policy (Algorithms 1 and 2). v_trace: state values and the
    policy gradient (B.3), for discrete actions, on fresh windows."""
    discount: Fraction = 0.99
    """γ; not in the paper."""
    returns: Literal["retrace", "n_step"] = "retrace"
    """Q targets of svg: retrace (Algorithm 2), or n-step returns (Algorithm 1), off-policy without a
    correction."""
    retrace_lambda: Fraction = 1.0
    """λ of Retrace's traces."""
    rho_clip: PositiveFloat = 1.0
    """ρ̄ of V-trace."""
    trace_clip: PositiveFloat = 1.0
    """c̄ of V-trace."""
    kl_cost: NonNegativeFloat = 1e-3
    """α, the weight of the KL to the default policy."""
    entropy_cost: NonNegativeFloat = 1e-4
    """α_H, the weight of the low level's entropy."""
    reward_scale: PositiveFloat = 1.0
    """Multiplies rewards before they are learned from; returns are reported without it."""
    policy_learning_rate: PositiveFloat = 1e-4
    """β_π."""
    critic_learning_rate: PositiveFloat = 1e-4
    """β_Q."""
    default_policy_learning_rate: PositiveFloat = 1e-4
    """β_π0, where the default policy learns."""
    learning_rate_decay: NonNegative = 0
    """Updates over which all learning rates fall linearly to a tenth; 0: they stay. A policy that moves fast
    to the end is a poor one whenever it is stopped."""
    distillation_cost: PositiveFloat = 1.0
    """Weight of the default policy's loss, beside what else moves its parameters: with two columns the
    policy's loss does."""
    optimizer: str = "adam"
    """Name of an optax optimizer, used with its defaults but for the learning rate."""
    max_gradient_norm: PositiveFloat = 40.0
    """Each optimizer's gradients are clipped to this norm; not in the paper."""
    target_update_period: Positive = 100
    """Updates between moves of the target parameters."""
    target_update_rate: Annotated[float, Gt(0), Le(1)] = 1.0
    """Share of the way to the online parameters a move goes: 1 copies them; a Polyak average has period 1
    and a rate like 0.005."""
    policy_average_updates: NonNegative = 0
    """Updates over which the agent that is evaluated and exported is a moving average, of its policy and
    default policy (Polyak averaging): between updates a policy swings more than its average does. Acting and
    learning do not see it. 0: it is the last."""
    action_samples: Positive = 1
    """M of eq. 18: samples of a in svg's E_π Q."""
    unroll_length: Positive = 10
    """K: steps of a window."""
    batch_size: NonNegative = 512
    """Windows per update; 0: as many as environments, which with replay_capacity 0 is on-policy."""
    updates_per_unroll: Positive = 8
    """Updates after each unroll of all environments; sets the replay ratio."""

    def __post_init__(self):
        ignored = _SVG_ALONE if self.kind == "v_trace" else _V_TRACE_ALONE
        for field in dataclasses.fields(self):
            if field.name in ignored and getattr(self, field.name) != field.default:
                raise ValueError(f"{field.name} does nothing where kind is {self.kind}")


_SVG_ALONE = ("returns", "retrace_lambda", "action_samples")
_V_TRACE_ALONE = ("rho_clip", "trace_clip")
