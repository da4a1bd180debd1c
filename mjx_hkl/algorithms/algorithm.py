"""What an algorithm is: a kind of a recipe's `[algorithm]`, with the numbers that all of them share."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.algorithms.hierarchy import Target
from mjx_hkl.algorithms.window import Window
from mjx_hkl.config import Fraction, Many, NonNegative, NonNegativeFloat, Positive, PositiveFloat
from mjx_hkl.models.agent import Agent

Loss = tuple[Float[Array, ""], dict[str, Float[Array, ""]]]
Factor = Annotated[float, Ge(0.01), Le(100)]


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """The numbers of Algorithm 2 that all algorithms share; defaults are Appendix G's where it has one.

    Attributes:
      state_values: whether the critic is V(z, x) instead of Q(a, z, x).
      action_kinds: distributions of actions that it can learn.
    """

    state_values: ClassVar[bool] = False
    action_kinds: ClassVar[tuple[str, ...]] = ("gaussian", "categorical")

    discount: Fraction = 0.99
    """γ; not in the paper."""
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
    learning_rate_decay: Fraction = 0.0
    """Share of the run's updates over which all learning rates fall linearly to a tenth; 0: they do not fall.
    A policy that still changes fast at the end is worse than its average, whenever it is stopped."""
    distillation_cost: PositiveFloat = 1.0
    """Weight of distillation, the default policy's loss. It matters only where another loss moves the same
    parameters, as the policy's loss does with two columns."""
    optimizer: str = "adam"
    """Name of an optax optimizer, used with its defaults but for the learning rate."""
    max_gradient_norm: PositiveFloat = 40.0
    """Each optimizer's gradients are clipped to this norm; not in the paper."""
    target_update_period: Positive = 100
    """Updates between moves of the target parameters."""
    target_update_rate: Annotated[float, Gt(0), Le(1)] = 1.0
    """Each move takes the target parameters this share of the way to the online ones: 1 copies them; a Polyak
    average has period 1 and a rate like 0.005."""
    policy_average_updates: NonNegative = 0
    """Updates over which the agent that is evaluated and exported is a moving average, of its policy and
    default policy (Polyak averaging): between updates a policy swings more than its average does. Acting and
    learning do not see it. 0: it is the last."""
    unroll_length: Many = 10
    """K: steps of a window."""
    batch_size: NonNegative = 512
    """Windows per update; 0: as many as environments, which with replay_capacity 0 is on-policy."""
    replay_ratio: Annotated[float, Gt(0), Le(10_000)] = 16.0
    """Transitions learned from for each environment step. Where Algorithm 2 updates once after each K steps,
    replay_ratio x num_envs / batch_size updates follow an unroll of all worlds, as a whole number."""
    latents: Literal["redrawn", "stored_noise"] = "redrawn"
    """Latents of a window come from the policy as it is now and fresh noise (B.2), or the noise that the
    behaviour drew, which replay then keeps: so a stored action and its latent belong together."""
    symmetries: bool = False
    """Whether each window of a batch is seen through a random symmetry that the world declares: its targets
    in another order, and the instruction with them."""
    exploration_scale: tuple[Factor, Factor] = (1.0, 1.0)
    """While training acts, worlds multiply the standard deviation of their actions: the first world by the
    first number, the last by the second, those between in equal ratios. Gaussian actions only."""
    exploration_correlation: Annotated[float, Ge(0), Lt(1)] = 0.0
    """While training acts, the correlation of an action's noise with that of the step before, in the same
    episode. Gaussian actions only."""

    relabelled: Fraction = 0.0
    """Share of the windows of each batch that are seen as if the world had given another instruction
    (Andrychowicz et al. 2017)."""

    def parameters(self, agent: Agent, key: PRNGKeyArray) -> dict[str, Any]:
        """What the algorithm learns beside the agent, by name: pytrees of arrays, such as a temperature."""
        return {}

    def learning_rates(self) -> dict[str, float]:
        """Of each part of the agent and each of `parameters`, which have an optimizer of their own."""
        return {
            "policy": self.policy_learning_rate,
            "default_policy": self.default_policy_learning_rate,
            "critic": self.critic_learning_rate,
            "encoders": self.critic_learning_rate,
        }

    def costs(self, own: Mapping[str, Any]) -> tuple[Any, Any]:
        """α and α_H, the weights of KL and entropy; `own` are the algorithm's parameters."""
        return self.kl_cost, self.entropy_cost

    def loss(
        self, agent: Agent, target: Target, window: Window, key: PRNGKeyArray, own: Mapping[str, Any]
    ) -> Loss:
        """The loss that one update descends, and scalar metrics.

        Args:
          agent: θ, φ, ψ, differentiated.
          target: φ', ψ'.
          window: a time-major batch.
          key: consumed.
          own: the algorithm's `parameters`, differentiated.
        """
        raise NotImplementedError
