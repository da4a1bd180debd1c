"""A prior of its own: an AR(1) process whose coefficients are learned, one for each number of the latent."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from mjx_hkl.config import Fraction
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.modules import PREVIOUS_LATENT, Module
from mjx_hkl.models.priors import PriorFields


@dataclasses.dataclass(frozen=True)
class LearnedCoefficient(PriorFields):
    """Its fields are the recipe's [default_policy.high_level] table."""

    start: Fraction = 0.9
    """The coefficients before training."""

    def build(self, place):
        """The module; `place` says what it is made for."""
        return CoefficientPrior(place.latent_size, self.start)


class CoefficientPrior(Module):
    """N(a z_{t-1}, 1 - a^2): the marginal is N(0, 1) whatever the coefficients a are."""

    sees = (PREVIOUS_LATENT,)

    def __init__(self, latent_size, start):
        self.logit = nnx.Param(jnp.full(latent_size, jnp.log(start / (1 - start))))

    def __call__(self, latent_tm1):
        """The distribution of z_t."""
        coefficient = jax.nn.sigmoid(self.logit[...])
        scale = jnp.broadcast_to(jnp.sqrt(1 - coefficient**2), latent_tm1.shape)
        return Gaussian(coefficient * latent_tm1, scale)
