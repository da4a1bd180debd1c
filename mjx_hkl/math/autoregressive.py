"""The AR(1) process of §3.1: a prior with temporal correlation and marginal N(0, 1)."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx_hkl.math.gaussian import Gaussian


def ar1(latent_tm1: Float[Array, "*batch n"], coefficient: float) -> Gaussian:
    """p(z_t | z_{t−1}) = N(α z_{t−1}, √(1 − α²)) with 0 <= α < 1 (§3.1).

    If z_{t−1} ~ N(0, 1), so is z_t; α = 0 is the isotropic Gaussian.
    """
    scale = jnp.full_like(latent_tm1, (1.0 - coefficient**2) ** 0.5)
    return Gaussian(coefficient * latent_tm1, scale)
