"""The agent: policy, default policy and critic, each seeing only its own observation groups.

A flat policy is a hierarchical one whose latent has size 0: the latent Gaussian, its KL and z_{t−1} are
all empty arrays, and one algorithm serves both.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx_hkl.math.autoregressive import ar1
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.config import DefaultPolicyConfig, ModelConfig
from mjx_hkl.models.networks import MLP, GaussianHead, Observation, concatenate


class HighLevel(nnx.Module):
    """π^H(z_t | x_t): with an autoregressive prior z_{t−1} is part of the history x_t."""

    def __init__(
        self, sizes: Mapping[str, int], groups: tuple[str, ...], config: ModelConfig, *, rngs: nnx.Rngs
    ):
        self.groups = groups
        self.sees_latent = config.default_policy.high_level in ("ar1", "ar_learned")
        *hidden, latent_size = config.policy.high_level
        inputs = sum(sizes[name] for name in groups) + self.sees_latent * latent_size
        self.torso = MLP(inputs, tuple(hidden), rngs=rngs)
        self.head = GaussianHead(
            hidden[-1] if hidden else inputs, latent_size, config.policy.latent_scale, rngs=rngs
        )

    def __call__(self, observation: Observation, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """The distribution of z_t."""
        history = (latent_tm1,) if self.sees_latent else ()
        return self.head(self.torso(concatenate(observation, self.groups, *history)))


class LowLevel(nnx.Module):
    """π^L(a_t | z_t, x_t), its mean squashed by tanh."""

    def __init__(
        self,
        sizes: Mapping[str, int],
        groups: tuple[str, ...],
        action_size: int,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
    ):
        self.groups = groups
        hidden = config.policy.low_level
        inputs = sum(sizes[name] for name in groups) + config.policy.latent_size
        self.torso = MLP(inputs, hidden, rngs=rngs)
        self.head = GaussianHead(
            hidden[-1] if hidden else inputs, action_size, config.policy.action_scale, rngs=rngs
        )

    def __call__(self, observation: Observation, latent: Float[Array, "*batch latent"]) -> Gaussian:
        """The distribution of a_t, before clipping."""
        action = self.head(self.torso(concatenate(observation, self.groups, latent)))
        return Gaussian(jnp.tanh(action.mean), action.scale)


class Policy(nnx.Module):
    """π(a, z | x) = π^H(z | x) π^L(a | z, x) (§3)."""

    def __init__(self, sizes: Mapping[str, int], action_size: int, config: ModelConfig, *, rngs: nnx.Rngs):
        seen = config.information
        self.latent_size = config.policy.latent_size
        self.high_level = HighLevel(sizes, seen.high_level, config, rngs=rngs) if self.latent_size else None
        self.low_level = LowLevel(sizes, seen.low_level, action_size, config, rngs=rngs)

    @property
    def is_autoregressive(self) -> bool:
        """Whether z_t depends on z_{t−1}."""
        return self.high_level is not None and self.high_level.sees_latent

    def latent(self, observation: Observation, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """π^H(z_t | x_t); empty for a flat policy."""
        if self.high_level is None:
            return Gaussian(latent_tm1, latent_tm1)
        return self.high_level(observation, latent_tm1)

    def action(self, observation: Observation, latent: Float[Array, "*batch latent"]) -> Gaussian:
        """π^L(a_t | z_t, x_t)."""
        return self.low_level(observation, latent)


class LearnedPrior(nnx.Module):
    """The learned AR process of §3.1: N(z_t; μ_φ(z_{t−1}), σ_φ²(z_{t−1}))."""

    def __init__(self, latent_size: int, config: ModelConfig, *, rngs: nnx.Rngs):
        hidden = config.default_policy.high_level_sizes
        self.torso = MLP(latent_size, hidden, rngs=rngs)
        self.head = GaussianHead(
            hidden[-1] if hidden else latent_size, latent_size, config.policy.latent_scale, rngs=rngs
        )

    def __call__(self, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """The prior of z_t."""
        return self.head(self.torso(latent_tm1))


class DefaultPolicy(nnx.Module):
    """π0: its high level is a prior over latents, its low level the policy's own (eq. 10)."""

    def __init__(self, latent_size: int, config: ModelConfig, *, rngs: nnx.Rngs):
        self.config: DefaultPolicyConfig = config.default_policy
        learned = self.config.high_level == "ar_learned"
        self.high_level = LearnedPrior(latent_size, config, rngs=rngs) if learned else None

    def latent(self, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """π0^H(z_t | z_{t−1})."""
        if self.high_level is not None:
            return self.high_level(latent_tm1)
        coefficient = self.config.ar_coefficient if self.config.high_level == "ar1" else 0.0
        return ar1(latent_tm1, coefficient)


class Critic(nnx.Module):
    """Q(a, z, x); the first layer is followed by LayerNorm and tanh."""

    def __init__(self, sizes: Mapping[str, int], action_size: int, config: ModelConfig, *, rngs: nnx.Rngs):
        self.groups = config.information.critic
        first, *rest = config.critic.sizes
        inputs = sum(sizes[name] for name in self.groups) + config.policy.latent_size + action_size
        self.first = nnx.Linear(inputs, first, rngs=rngs)
        self.norm = nnx.LayerNorm(first, rngs=rngs)
        self.rest = MLP(first, tuple(rest), rngs=rngs)
        self.value = nnx.Linear((first, *rest)[-1], 1, rngs=rngs)

    def __call__(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        action: Float[Array, "*batch action"],
    ) -> Float[Array, "*batch"]:
        """The action value."""
        features = self.first(concatenate(observation, self.groups, latent, action))
        return self.value(self.rest(jnp.tanh(self.norm(features))))[..., 0]


class Agent(nnx.Module):
    """All modules of one agent: a pytree of parameters that is called where it is needed."""

    def __init__(
        self, observation_size: Mapping[str, int], action_size: int, config: ModelConfig, key: jax.Array
    ):
        rngs = nnx.Rngs(key)
        self.policy = Policy(observation_size, action_size, config, rngs=rngs)
        self.default_policy = DefaultPolicy(self.policy.latent_size, config, rngs=rngs)
        self.critic = Critic(observation_size, action_size, config, rngs=rngs)
