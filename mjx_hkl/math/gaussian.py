"""Diagonal Gaussians; the last axis is the event."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

_LOG_2PI = 1.8378770664093453


class Gaussian(NamedTuple):
    """Mean and standard deviation of independent normal variables; size 0 is a valid, certain event."""

    mean: Float[Array, "*batch n"]
    scale: Float[Array, "*batch n"]


def sample(gaussian: Gaussian, noise: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """Reparameterized sample f(x, ε) = μ + σ ε (B.1); `noise` is standard normal."""
    return gaussian.mean + gaussian.scale * noise


def log_prob(gaussian: Gaussian, value: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
    """Log N(value; μ, σ²), summed over the event."""
    normalized = (value - gaussian.mean) / gaussian.scale
    return -(0.5 * normalized**2 + jnp.log(gaussian.scale) + 0.5 * _LOG_2PI).sum(-1)


def entropy(gaussian: Gaussian) -> Float[Array, "*batch"]:
    """H = Σ ½ (1 + log 2π) + log σ, in closed form so that its gradient is real."""
    return (0.5 * (1.0 + _LOG_2PI) + jnp.log(gaussian.scale)).sum(-1)


def kl_divergence(p: Gaussian, q: Gaussian) -> Float[Array, "*batch"]:
    """KL(p‖q) = Σ log σq/σp + (σp² + (μp − μq)²) / 2σq² − ½."""
    ratio = jnp.square(p.scale / q.scale)
    distance = jnp.square((p.mean - q.mean) / q.scale)
    return 0.5 * (ratio + distance - 1.0 - jnp.log(ratio)).sum(-1)
