"""What every low level of the default policy π0^L is, and what it costs a policy to differ from it."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array, Float, Shaped

from mjx_hkl.models.modules import Distribution, Module, Observation, Place


@dataclasses.dataclass(frozen=True)
class DefaultLowLevelFields:
    """What every kind says.

    Attributes:
      flat: whether it is beneath a flat policy (True) or one with a latent (False); None: either.
    """

    flat: ClassVar[bool | None] = None

    def build(self, place: Place, low_level: Any) -> "DefaultLowLevel":
        """The module; `low_level` is the policy's."""
        raise NotImplementedError


class Given(NamedTuple):
    """What a bound is estimated with.

    Attributes:
      action: one that the policy takes, a sample through which gradients flow.
      noise: standard normal, `noise_size` numbers.
    """

    action: Shaped[Array, "..."]
    noise: Float[Array, "*batch noise"]


class Cost(NamedTuple):
    """Of a step.

    Attributes:
      kl: KL(π ‖ π0) of a_t, nats, or an estimate of a bound on it (eq. 15).
      parts: what it consists of, as metrics.
    """

    kl: Float[Array, "*batch"]
    parts: dict[str, Float[Array, "*batch"]]


class DefaultLowLevel(Module):
    """π0^L. This class itself is that of an agent without one: it adds no KL.

    Attributes:
      adds_kl: whether it is another distribution than the policy's. If so, it is called with the policy's low
        level, observation and z_t, and gives the distribution of a_t.
      noise_size: random numbers that it needs in each step to remember the step.
    """

    adds_kl: ClassVar[bool] = False
    noise_size: int = 0

    def policy_action(
        self, low_level: Any, memory: Any, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> tuple[Any, Distribution]:
        """The low level's memory after a step, and the policy's π^L(a_t | z_t, x_t)."""
        return low_level.step(memory, observation, latent)

    def remembered(
        self,
        memory: Any,
        low_level: Any,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        taken: Shaped[Array, "..."],
        noise: Float[Array, "*batch noise"],
    ) -> Any:
        """The memory after a step in which an action was taken; `noise` is standard normal."""
        return self.step(memory, low_level, observation, latent)[0]

    def cost(
        self,
        memory: Any,
        low_level: Any,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        policy: Distribution,
        given: Given,
    ) -> Cost:
        """The KL of the policy to it, in steps whose memories before are known: so at once along a window.

        Args:
          memory: before the step.
          low_level: the policy's.
          observation: groups by name.
          latent: z_t.
          policy: π(a_t | x_t, z_t).
          given: what an estimate needs.
        """
        _, own = self.step(memory, low_level, observation, latent)
        return Cost(policy.kl_divergence(own), {})
