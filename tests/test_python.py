"""The names of `mjx_hkl` itself, as a notebook uses them."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import mjx_hkl
from mjx_hkl.models.config import DefaultPolicyConfig
from mjx_hkl.models.default_low_levels import NoDefault

SMALL = {
    "num_envs": 4,
    "total_env_steps": 200,
    "log_interval": 40,
    "evaluation_episodes": 4,
    "algorithm": {"batch_size": 4, "replay_ratio": 1.0},
    "policy": {"high_level": {"sizes": [8], "latent_size": 2}},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A recipe that was loaded and changed, its run, and the rows that the callback got."""
    out, rows = str(tmp_path_factory.mktemp("python") / "run"), []
    recipe = mjx_hkl.change(mjx_hkl.load_recipe("grid-1-step"), **SMALL)
    result = mjx_hkl.train(recipe, out, callback=rows.extend)
    return recipe, result, rows


def test_all_names_are_there():
    assert all(callable(getattr(mjx_hkl, name)) for name in mjx_hkl.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mjx_hkl.nothing  # noqa: B018


def test_a_recipe_is_changed_as_one_that_extends_it():
    recipe = mjx_hkl.load_recipe("grid-1-step")
    changed = mjx_hkl.change(recipe, **SMALL)
    assert (changed.num_envs, changed.policy.latent_size, changed.policy.low_level) == (
        4,
        2,
        recipe.policy.low_level,
    )
    assert changed.algorithm.discount == recipe.algorithm.discount
    critic = dataclasses.replace(recipe.critic, sizes=(8,))
    assert mjx_hkl.change(recipe, critic=critic).critic == critic
    with pytest.raises(mjx_hkl.UserError, match="does not suit a policy with a latent"):
        mjx_hkl.change(recipe, default_policy=DefaultPolicyConfig(low_level=NoDefault()))
    with pytest.raises(mjx_hkl.UserError, match="unknown field 'num_env'; did you mean num_envs"):
        mjx_hkl.change(recipe, num_env=4)


def test_training_calls_back_at_each_interval(trained):
    _, result, rows = trained
    assert [row["environment_steps"] for row in rows] == [80, 160, 240]
    assert result.finished
    assert len(result.evaluations) == 1


def test_an_agent_acts_in_worlds(trained):
    """The evaluation of the agent, step by step by its `start` and `step`."""
    recipe, result, _ = trained
    known = mjx_hkl.load_agent(str(result.run))
    worlds = mjx_hkl.make_worlds(known.recipe.environment, num_envs=4)
    assert mjx_hkl.evaluate(worlds, known.agent) == result.evaluations[0]
    agent, key = known.agent, jax.random.key(0)
    state, carry = worlds.reset(key), agent.start((4,))
    first = jnp.ones(4, bool)
    step = jax.jit(worlds.step)
    for _ in range(3):
        carry, acted = agent.step(carry, state.observation, first, agent.noise(key, (4,)))
        assert acted.latents.latent.shape == (4, recipe.policy.latent_size)
        state, timestep = step(state, acted.action, key)
        first = timestep.is_last > 0
