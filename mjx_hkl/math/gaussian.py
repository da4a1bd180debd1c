"""Diagonal Gaussians; the last axis is the event."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_LOG_2PI = 1.8378770664093453


class Gaussian(NamedTuple):
    """Mean and standard deviation of independent normal variables. Of size 0, entropy and KL are 0."""

    mean: Float[Array, "*batch n"]
    scale: Float[Array, "*batch n"]

    @staticmethod
    def noise(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*batch n"]:
        """What `draw` turns into samples: standard normal; zeros give the mode."""
        return jax.random.normal(key, shape)

    def draw(self, noise: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
        """A sample f(x, ε) = μ + σ ε (B.1), reparameterized: the gradient flows through it."""
        return self.mean + self.scale * noise

    def log_prob(self, value: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """Log N(value; μ, σ²), summed over the event."""
        normalized = (value - self.mean) / self.scale
        return -(0.5 * normalized**2 + jnp.log(self.scale) + 0.5 * _LOG_2PI).sum(-1)

    def entropy(self) -> Float[Array, "*batch"]:
        """H = Σ ½ (1 + log 2π) + log σ, in closed form so that its gradient is real."""
        return (0.5 * (1.0 + _LOG_2PI) + jnp.log(self.scale)).sum(-1)

    def kl_divergence(self, other: "Gaussian") -> Float[Array, "*batch"]:
        """KL(p‖q) = Σ log σq/σp + (σp² + (μp − μq)²) / 2σq² − ½."""
        ratio = jnp.square(self.scale / other.scale)
        distance = jnp.square((self.mean - other.mean) / other.scale)
        return 0.5 * (ratio + distance - 1.0 - jnp.log(ratio)).sum(-1)
