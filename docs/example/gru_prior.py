"""A prior that remembers: a GRU over all latents of the episode."""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from mjx_hkl.config import Positive
from mjx_hkl.models.modules import PREVIOUS_LATENT, Module
from mjx_hkl.models.networks import GaussianHead
from mjx_hkl.models.priors import PriorFields


@dataclasses.dataclass(frozen=True)
class GRU(PriorFields):
    """Its fields are the recipe's [default_policy.high_level] table."""

    size: Positive = 16
    """Numbers that are remembered."""

    def build(self, place):
        """The module; `place` says what it is made for."""
        return GRUPrior(place, self.size)


class GRUPrior(Module):
    """It is called for one step after the other; memory and latents may have any batch axes."""

    remembers = True
    sees = (PREVIOUS_LATENT,)

    def __init__(self, place, size):
        self.size = size
        self.cell = nnx.GRUCell(place.latent_size, size, rngs=place.rngs)
        self.head = GaussianHead(size, place.latent_size, (0.05, 1.0), rngs=place.rngs)

    def start(self, batch):
        """The memory when an episode begins."""
        return jnp.zeros((*batch, self.size))

    def step(self, memory, latent_tm1):
        """The memory after a step, and the distribution of z_t."""
        memory, features = self.cell(memory, latent_tm1)
        return memory, self.head(features)
