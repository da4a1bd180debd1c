"""What an agent carries from step to step, the noise a step is given, and what comes out of it."""

from typing import Any, NamedTuple

import flax.struct
from jaxtyping import Array, Bool, Float, Int

from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.modules import Distribution


@flax.struct.dataclass
class Carry:
    """What an agent remembers between steps; acting, replay and evaluation keep it and do not look into it.

    Attributes:
      latent: z of the last step.
      age: steps since it was drawn, modulo the latent period.
      memory: of the modules that remember, by their names; of the others nothing.
    """

    latent: Float[Array, "*batch latent"]
    age: Int[Array, "*batch"]
    memory: dict[str, Any]


class Noise(NamedTuple):
    """The random numbers of a step; all zero for the most likely latent and action.

    Attributes:
      start: z before an episode's first step, N(0, 1).
      latent: ε of z = f^H(x, ε) (B.1).
      action: of the action's distribution, see its `draw`.
      default: what a default low level needs to remember the step.
    """

    start: Float[Array, "*batch latent"]
    latent: Float[Array, "*batch latent"]
    action: Float[Array, "*batch action"]
    default: Float[Array, "*batch default"]


class Latents(NamedTuple):
    """Latents of a step or of a window: the distribution π^H, z, the z_{t−1} it saw, whether z is new."""

    distribution: Gaussian
    latent: Float[Array, "*batch latent"]
    latent_tm1: Float[Array, "*batch latent"]
    drawn: Bool[Array, "*batch 1"]


class Step(NamedTuple):
    """What an agent does in a step.

    Attributes:
      latents: z_t and how it came about.
      prior: π0^H(z_t | z_{t−1}), or g(z_t | τ).
      distribution: π^L of a_t, before clipping.
      action: a_t.
    """

    latents: Latents
    prior: Gaussian
    distribution: Distribution
    action: Array
