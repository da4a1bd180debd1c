"""How actions are drawn while training acts, beyond what the policy says; evaluation does not explore."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mjx_hkl.errors import UserError
from mjx_hkl.math.autoregressive import ar1
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.steps import Noise, Step


@dataclasses.dataclass(frozen=True)
class Exploration:
    """Scale, and correlation in time, of the noise of Gaussian actions; by default they are the policy's.

    Attributes:
      scale: factors of the standard deviation in the first and in the last world, in equal ratios between.
      correlation: c of ε_t = c ε_{t−1} + √(1 − c²) η_t, whose marginal is N(0, 1); the AR(1) of §3.1.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    correlation: float = 0.0

    def start(self, shape: tuple[int, ...]) -> Any:
        """What is kept of actions' noise before the first step; () where steps are independent."""
        return jnp.zeros(shape) if self.correlation else ()

    def correlated(self, noise_tm1: Any, fresh: Noise, is_first: Bool[Array, " envs"]) -> tuple[Any, Noise]:
        """What is kept of a step's noise, and that noise: fresh at an episode's start, else with memory.

        Args:
          noise_tm1: of `start`, or kept of the step before.
          fresh: whose part for actions is η_t.
          is_first: whether an episode begins with the step.
        """
        if not self.correlation:
            return noise_tm1, fresh
        following = ar1(noise_tm1, self.correlation).draw(fresh.action)
        noise = jnp.where(is_first[:, None], fresh.action, following)
        return noise, fresh._replace(action=noise)

    def scaled(self, step: Step, noise: Float[Array, "envs action"]) -> Step:
        """The step with each world's own distribution of actions, and the action drawn from it.

        Raises:
          UserError: the low level, a user's own, gives another distribution than `Gaussian`.
        """
        if self.scale == (1.0, 1.0):
            return step
        policy = step.distribution
        if not isinstance(policy, Gaussian):
            raise UserError(
                f"algorithm.exploration_scale changes a Gaussian's scale, and {type(policy).__name__} is none"
            )
        factor = jnp.asarray(np.geomspace(*self.scale, len(noise), dtype=np.float32))[:, None]
        behaviour = Gaussian(policy.mean, factor * policy.scale)
        return step._replace(distribution=behaviour, action=behaviour.draw(noise))
