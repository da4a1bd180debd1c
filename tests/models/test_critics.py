"""Critics: several, clipped actions, distributions of values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from small_agents import (
    ACTIONS,
    EVERYTHING,
    GROUPS,
    SMALL,
    SPECS,
    build,
    observe,
)

from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.critics import MLPCriticFields


def test_of_twin_critics_the_least_counts():
    agent = build(information=EVERYTHING, critic={"sizes": [16, 16], "num_critics": 2})
    inputs = observe(), jnp.ones((6, 10)), jnp.ones((6, ACTIONS))
    each = agent.critic.each(*inputs)
    assert each.shape == (2, 6)
    assert (each[0] != each[1]).all()
    np.testing.assert_array_equal(agent.critic(*inputs), np.min(each, axis=0))


def test_several_critics_may_count_by_their_mean():
    critic = {"sizes": [16, 16], "num_critics": 3, "value_of_several": "mean"}
    agent = build(information=EVERYTHING, critic=critic)
    inputs = observe(), jnp.ones((6, 10)), jnp.ones((6, ACTIONS))
    np.testing.assert_allclose(agent.critic(*inputs), np.mean(agent.critic.each(*inputs), 0), rtol=1e-6)


@pytest.mark.parametrize("clips", [False, True])
def test_a_critic_that_clips_actions_is_flat_where_the_world_is(clips):
    agent = build(information=EVERYTHING, critic={"sizes": [16, 16], "clip_actions": clips})
    slope = jax.grad(lambda action: agent.critic(observe(), jnp.ones((6, 10)), action).sum())
    inside, outside = slope(jnp.full((6, ACTIONS), 0.5)), slope(jnp.full((6, ACTIONS), -1.5))
    assert inside.all()
    assert (not outside.any()) == clips


def test_an_hl_gauss_critic_learns_a_distribution_whose_mean_is_its_value():
    """Values, and cross entropies to a Gaussian cut to the range, of logits read from the network's parts."""
    low, high, count = -4.0, 8.0, 24
    fields = {"kind": "hl_gauss", "value_range": [low, high], "num_bins": count, "num_critics": 2}
    agent = build(information=EVERYTHING, critic={"sizes": [16, 16], **fields})
    inputs = observe(), jnp.ones((6, 10)), jnp.ones((6, ACTIONS))
    target = np.array([-9.0, -4.0, 0.2, 3.0, 7.9, 30.0])
    errors, values = agent.critic.errors(jnp.asarray(target), *inputs)
    seen = np.concatenate([*(inputs[0][name] for name in GROUPS), *inputs[1:]], axis=-1)
    edges = np.linspace(low, high, count + 1)
    for member, error, value in zip(agent.critic.members, errors, values, strict=True):
        p = scipy.special.softmax(np.asarray(member(jnp.asarray(seen))), axis=-1)
        np.testing.assert_allclose(value, p @ (edges[1:] + edges[:-1]) / 2, atol=1e-4)
        assert np.abs(value).max() < 1.0  # it starts near 0, not in the middle of the range
        centre = np.clip(target, low, high)
        mass = np.array([np.diff(scipy.stats.norm.cdf(edges, x, 0.75 * 0.5)) for x in centre])
        mass /= mass.sum(-1, keepdims=True)
        np.testing.assert_allclose(error, -(mass * np.log(p)).sum(-1), rtol=1e-4)
    np.testing.assert_allclose(agent.critic(*inputs), np.min(values, axis=0), rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class RememberingCritic(MLPCriticFields):
    def build(self, place, state_values):
        critic = super().build(place, state_values)
        critic.remembers = True  # pyright: ignore[reportAttributeAccessIssue]
        return critic


def test_a_critic_that_remembers_is_refused():
    config = from_table(ModelConfig, SMALL | {"information": EVERYTHING}, "test")
    with pytest.raises(UserError, match="Critic remembers: a critic or an encoder cannot"):
        Agent(SPECS, ACTIONS, dataclasses.replace(config, critic=RememberingCritic()), jax.random.key(0))
