"""Low levels of a user's own: those that remember, and those that lack what others ask of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agents import (
    ACTIONS,
    EVERYTHING,
    SMALL,
    SPECS,
    observe,
)

from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.low_levels import LowLevelFields, MLPLowLevelFields
from mjx_hkl.models.modules import Module
from mjx_hkl.models.networks import action_head


@dataclasses.dataclass(frozen=True)
class Remembering(MLPLowLevelFields):
    def build(self, place):
        low_level = super().build(place)
        low_level.remembers = True  # pyright: ignore[reportAttributeAccessIssue]
        return low_level


@pytest.mark.parametrize("own", ["distral_two_column", "distral_shared"])
def test_what_asks_for_features_refuses_a_low_level_that_remembers(own):
    tables = {
        "information": EVERYTHING,
        "policy": {"high_level": "none"},
        "default_policy": {"low_level": own},
    }
    config = from_table(ModelConfig, tables, "test")
    policy = dataclasses.replace(config.policy, low_level=Remembering())
    with pytest.raises(UserError, match="features and remembers nothing; MLPLowLevel cannot be used"):
        Agent(SPECS, ACTIONS, dataclasses.replace(config, policy=policy), jax.random.key(0))


@dataclasses.dataclass(frozen=True)
class Torsoless(MLPLowLevelFields):
    def build(self, place):
        low_level = super().build(place)
        del low_level.torso
        return low_level


def test_what_asks_for_features_says_what_a_low_level_lacks():
    tables = {
        "information": EVERYTHING,
        "policy": {"high_level": "none"},
        "default_policy": {"low_level": "distral_shared"},
    }
    config = from_table(ModelConfig, tables, "test")
    policy = dataclasses.replace(config.policy, low_level=Torsoless())
    with pytest.raises(UserError, match=r"MLPLowLevel has no torso\.size and cannot be used"):
        Agent(SPECS, ACTIONS, dataclasses.replace(config, policy=policy), jax.random.key(0))


class CountingLowLevel(Module):
    """Its actions depend on the number of steps since the episode began, and on nothing else."""

    remembers = True

    def __init__(self, place):
        self.head = action_head(1, place, (0.05, 1.0))

    def start(self, batch):
        return jnp.zeros((*batch, 1))

    def step(self, memory, *inputs):
        return memory + 1.0, self.head(memory)


@dataclasses.dataclass(frozen=True)
class Counting(LowLevelFields):
    def build(self, place):
        return CountingLowLevel(place)


@pytest.mark.parametrize("own", ["shared", "separate"])
def test_a_low_level_that_remembers_acts(own):
    default = {"default_policy": {"low_level": {"kind": own}}, "information": EVERYTHING}
    config = from_table(ModelConfig, SMALL | default, "test")
    policy = dataclasses.replace(config.policy, low_level=Counting())
    agent = Agent(SPECS, ACTIONS, dataclasses.replace(config, policy=policy), jax.random.key(0))
    carry = agent.start((6,))
    for steps, first in enumerate([True, False, False, True]):
        carry, step = agent.step(carry, observe(), jnp.full(6, first), agent.no_noise((6,)))
        since = 0.0 if first else float(steps)
        expected = agent.policy.low_level.head(jnp.full((6, 1), since))
        np.testing.assert_allclose(step.action, expected.mean, atol=1e-6)
