"""Categorical distributions over discrete actions; the last axis of the logits is the choices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray


class Categorical(NamedTuple):
    """Unnormalized log-probabilities of each choice."""

    logits: Float[Array, "*batch choices"]

    @staticmethod
    def noise(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float[Array, "*batch choices"]:
        """What `draw` turns into samples: standard Gumbel; zeros give the mode."""
        return jax.random.gumbel(key, shape)

    def draw(self, noise: Float[Array, "*batch choices"]) -> Int[Array, "*batch"]:
        """A choice, by the Gumbel-max trick; no gradient flows through it."""
        return jnp.argmax(self.logits + noise, -1)

    def log_prob(self, value: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Log p(value)."""
        return jnp.take_along_axis(self._log_probs, value[..., None], -1)[..., 0]

    def entropy(self) -> Float[Array, "*batch"]:
        """H = −Σ p log p."""
        return -(jnp.exp(self._log_probs) * self._log_probs).sum(-1)

    def kl_divergence(self, other: "Categorical") -> Float[Array, "*batch"]:
        """KL(p‖q) = Σ p (log p − log q)."""
        return (jnp.exp(self._log_probs) * (self._log_probs - other._log_probs)).sum(-1)

    @property
    def _log_probs(self) -> Float[Array, "*batch choices"]:
        return jax.nn.log_softmax(self.logits)
