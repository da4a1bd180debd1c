"""The `[algorithm]` table of a recipe; defaults are Appendix G's, with a note where it is silent."""

import dataclasses

from mjx_hkl.config import Fraction, NonNegative, NonNegativeFloat, Positive, PositiveFloat


@dataclasses.dataclass(frozen=True)
class AlgorithmConfig:
    """Numbers of Algorithm 2."""

    discount: Fraction = 0.99
    """γ; not in the paper."""
    retrace_lambda: Fraction = 1.0
    """λ of the traces."""
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
    max_gradient_norm: PositiveFloat = 40.0
    """Each optimizer's gradients are clipped to this norm; not in the paper."""
    target_update_period: Positive = 100
    """Updates between copies of the online parameters to the target."""
    action_samples: Positive = 1
    """M of eq. 18: samples of a in E_π Q."""
    unroll_length: Positive = 10
    """K: steps of a window."""
    batch_size: Positive = 512
    """Windows per update."""
    updates_per_unroll: Positive = 8
    """Updates after each unroll of all environments; sets the replay ratio."""
