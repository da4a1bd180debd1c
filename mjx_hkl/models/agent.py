"""The agent: policy, default policy and critic, each seeing only its own observation groups."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.critic import Critic
from mjx_hkl.models.default_policy import DefaultPolicy
from mjx_hkl.models.networks import Distribution, Observation
from mjx_hkl.models.policy import Policy


class Agent(nnx.Module):
    """All modules of one agent: a pytree of parameters that is called where it is needed."""

    def __init__(
        self, observation_size: Mapping[str, int], action_size: int, config: ModelConfig, key: jax.Array
    ):
        rngs = nnx.Rngs(key)
        self.policy = Policy(observation_size, action_size, config, rngs=rngs)
        self.default_policy = DefaultPolicy(observation_size, action_size, self.policy, config, rngs=rngs)
        self.critic = Critic(observation_size, action_size, config, rngs=rngs)

    def action(self, observation: Observation, latent: Float[Array, "*batch latent"]) -> Distribution:
        """π^L(a_t | z_t, x_t); of two columns (F.2) the default policy's is added to the policy's own."""
        low_level = self.policy.low_level
        column = self.default_policy.column(observation, latent)
        if column is None:
            return low_level(observation, latent)
        own = low_level.head.linear(low_level.features(observation, latent))
        return low_level.head.bounded(own + column)


def module_at(agent: nnx.Module, name: str) -> Any:
    """The module of that name, like "policy.high_level"."""
    return functools.reduce(getattr, name.split("."), agent)


def with_modules(agent: Agent, modules: Mapping[str, Any]) -> Agent:
    """The agent with some of its modules exchanged, leaving the given agent as it is."""
    copy = jax.tree.map(lambda x: x, agent)
    for name, module in modules.items():
        *path, last = name.split(".")
        setattr(functools.reduce(getattr, path, copy), last, module)
    return copy
