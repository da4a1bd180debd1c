"""The policy π: a high level over latents and a low level over actions.

A flat policy is a hierarchical one whose latent has size 0: the latent Gaussian, its KL and z_{t−1} are
all empty arrays, and one algorithm serves both.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from mjx_hkl.math.categorical import Categorical
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.networks import MLP, Distribution, GaussianHead, Inputs, Observation, small_kernel


class HighLevel(nnx.Module):
    """π^H(z_t | x_t): with an autoregressive prior z_{t−1} is part of the history x_t."""

    def __init__(
        self, sizes: Mapping[str, int], groups: tuple[str, ...], config: ModelConfig, *, rngs: nnx.Rngs
    ):
        self.inputs = Inputs(sizes, groups, config, rngs=rngs)
        self.sees_latent = config.default_policy.high_level in ("ar1", "ar_learned")
        *hidden, latent_size = config.policy.high_level
        inputs = self.inputs.size + self.sees_latent * latent_size
        self.torso = MLP(inputs, tuple(hidden), rngs=rngs)
        self.head = GaussianHead(
            hidden[-1] if hidden else inputs, latent_size, config.policy.latent_scale, rngs=rngs
        )

    def __call__(self, observation: Observation, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """The distribution of z_t."""
        history = (latent_tm1,) if self.sees_latent else ()
        return self.head(self.torso(self.inputs(observation, *history)))


class LowLevel(nnx.Module):
    """A distribution of a_t given z_t and x_t: π^L, or a π0^L of its own."""

    def __init__(
        self,
        sizes: Mapping[str, int],
        groups: tuple[str, ...],
        hidden: tuple[int, ...],
        action_size: int,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
    ):
        self.inputs = Inputs(sizes, groups, config, rngs=rngs)
        inputs = self.inputs.size + config.policy.latent_size
        self.torso = MLP(inputs, hidden, rngs=rngs)
        self.head = action_head(hidden[-1] if hidden else inputs, action_size, config, rngs=rngs)

    def __call__(self, observation: Observation, latent: Float[Array, "*batch latent"]) -> Distribution:
        """The distribution of a_t, before clipping."""
        return self.head(self.features(observation, latent))

    def features(
        self, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> Float[Array, "*batch n"]:
        """What the head sees."""
        return self.torso(self.inputs(observation, latent))


class SquashedHead(GaussianHead):
    """A Gaussian head whose mean is squashed by tanh."""

    def bounded(self, raw: Float[Array, "*batch raw"]) -> Gaussian:
        """The distribution that outputs of the linear map stand for."""
        action = super().bounded(raw)
        return Gaussian(jnp.tanh(action.mean), action.scale)


class CategoricalHead(nnx.Module):
    """A linear map to the logits of discrete actions; it starts near the uniform distribution."""

    def __init__(self, inputs: int, size: int, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(inputs, size, kernel_init=small_kernel, rngs=rngs)

    def __call__(self, x: Float[Array, "*batch n"]) -> Categorical:
        """The distribution for each input."""
        return self.bounded(self.linear(x))

    def bounded(self, raw: Float[Array, "*batch raw"]) -> Categorical:
        """The distribution that outputs of the linear map stand for."""
        return Categorical(raw)


ActionHead = SquashedHead | CategoricalHead


def action_head(inputs: int, size: int, config: ModelConfig, *, rngs: nnx.Rngs) -> ActionHead:
    """The head that suits the environment's actions."""
    if config.policy.actions == "categorical":
        return CategoricalHead(inputs, size, rngs=rngs)
    return SquashedHead(inputs, size, config.policy.action_scale, rngs=rngs)


class Policy(nnx.Module):
    """π(a, z | x) = π^H(z | x) π^L(a | z, x) (§3)."""

    def __init__(self, sizes: Mapping[str, int], action_size: int, config: ModelConfig, *, rngs: nnx.Rngs):
        seen = config.information
        self.latent_size = config.policy.latent_size
        self.latent_period = config.policy.latent_period
        self.high_level = HighLevel(sizes, seen.high_level, config, rngs=rngs) if self.latent_size else None
        self.low_level = LowLevel(
            sizes, seen.low_level, config.policy.low_level, action_size, config, rngs=rngs
        )

    @property
    def is_autoregressive(self) -> bool:
        """Whether z_t depends on z_{t−1}."""
        return self.high_level is not None and self.high_level.sees_latent

    @property
    def remembers(self) -> bool:
        """Whether a step's latent needs the one before: autoregressive, or kept for several steps."""
        return self.is_autoregressive or self.latent_period > 1

    def latent(self, observation: Observation, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """π^H(z_t | x_t); empty for a flat policy."""
        if self.high_level is None:
            return Gaussian(latent_tm1, latent_tm1)
        return self.high_level(observation, latent_tm1)

    def draws(self, episode_step: Array) -> Bool[Array, "*batch 1"]:
        """1_p(t) of eq. 27: whether a latent is drawn this many steps after the episode's start."""
        return (episode_step % self.latent_period == 0)[..., None]
