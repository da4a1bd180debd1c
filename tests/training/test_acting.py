import copy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from mjx_hkl.algorithms.hierarchy import policy_actions, redraw_latents
from mjx_hkl.algorithms.window import time_major
from mjx_hkl.config import from_table
from mjx_hkl.environments import VectorEnvironment
from mjx_hkl.errors import UserError
from mjx_hkl.math.categorical import Categorical
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import Information, ModelConfig, PolicyConfig
from mjx_hkl.models.high_levels import MLPHighLevelFields
from mjx_hkl.models.steps import Noise, Step
from mjx_hkl.training import acting
from mjx_hkl.training.exploration import Exploration

ENVS, LENGTH, EPISODE = 3, 7, 9  # the second window of each environment is cut inside by the time limit


def make_agent(ball, **high_level):
    everything = tuple(ball.observation_specs)
    information = Information(everything, ball.low_level_information, everything, everything)
    config = ModelConfig(information, PolicyConfig(MLPHighLevelFields(**high_level), actions="gaussian"))
    return Agent(ball.observation_specs, ball.action_size, config, jax.random.key(0))


@pytest.fixture(scope="module")
def windows(ball):
    environment = VectorEnvironment(ball, ENVS, EPISODE)
    agent = make_agent(ball)
    actor = acting.init(environment, agent, jax.random.key(1))
    unroll = jax.jit(lambda actor, key: acting.unroll(environment, agent, actor, key, LENGTH))
    pairs = []
    for i in range(3):
        after, window, sums = unroll(actor, jax.random.key(2 + i))
        pairs.append((actor, after, window, sums))
        actor = after
    return environment, agent, pairs


def test_windows_follow_each_other_without_a_gap(windows):
    _, _, pairs = windows
    for (_, after, window, _), (before, _, following, _) in pairwise(pairs):
        for name, group in window.observation.items():
            np.testing.assert_array_equal(after.env.observation[name], following.observation[name][:, 0])
            goes_on = window.is_last[:, -1] == 0
            np.testing.assert_array_equal(group[goes_on, -2], following.observation[name][goes_on, 0])
        np.testing.assert_array_equal(following.carry.latent, before.carry.latent)
        np.testing.assert_array_equal(following.is_first, window.is_last[:, -1])


def test_the_observation_after_a_cut_is_the_true_one(windows):
    environment, _, pairs = windows
    before, _, window, _ = pairs[1]
    cut = EPISODE - LENGTH - 1  # step of the second window at which the first episode is truncated
    assert (window.is_last[:, cut] == 1).all()
    assert (window.discount[:, cut] == 1).all()
    state, step = before.env.env, jax.jit(jax.vmap(environment.env.step))
    for t in range(cut + 1):
        for name, group in state.obs.items():
            np.testing.assert_allclose(window.observation[name][:, t], group, atol=1e-4)
        state = step(state, window.action[:, t])
    for name, group in state.obs.items():
        np.testing.assert_allclose(window.observation[name][:, -1], group, atol=1e-4)
        # while the next episode has begun elsewhere
        assert np.abs(window.observation["targets"][:, cut + 1] - state.obs["targets"]).max() > 0.1


def test_log_probs_are_those_of_scipy_at_the_latents_that_were_drawn(windows):
    """The first step of an unroll, drawn again from its key."""
    _, agent, pairs = windows
    for i, (before, _, window, _) in enumerate(pairs):
        step_key = jax.random.split(jax.random.key(2 + i), LENGTH)[0]
        noise_key, _ = jax.random.split(step_key)
        noise = agent.noise(noise_key, (ENVS,))
        observation = jax.tree.map(lambda x: x[:, 0], window.observation)
        high_level = agent.policy.high_level(observation, before.carry.latent)
        latent = high_level.mean + high_level.scale * noise.latent
        action = agent.policy.low_level(observation, latent)
        drawn = action.mean + action.scale * noise.action
        np.testing.assert_allclose(window.action[:, 0], drawn, atol=1e-5)
        mean, scale = np.asarray(action.mean, float), np.asarray(action.scale, float)
        expected = stats.norm.logpdf(window.action[:, 0], mean, scale).sum(-1)
        np.testing.assert_allclose(window.behaviour_log_prob[:, 0], expected, atol=1e-3)


def test_the_behaviour_is_the_mean_over_its_own_and_further_latents(windows):
    """The first step of an unroll, with the noise of its key; what is done does not change."""
    environment, agent, pairs = windows
    actor, _, plain, _ = pairs[0]
    unroll = jax.jit(
        lambda actor, key: acting.unroll(environment, agent, actor, key, LENGTH, behaviour_samples=5)
    )
    _, window, _ = unroll(actor, jax.random.key(2))
    np.testing.assert_allclose(window.action, plain.action, atol=1e-5)
    noise_key, _ = jax.random.split(jax.random.split(jax.random.key(2), LENGTH)[0])
    own = agent.noise(noise_key, (ENVS,)).latent
    others = jax.random.normal(jax.random.fold_in(noise_key, 3), (5, *own.shape))
    observation = jax.tree.map(lambda x: x[:, 0], window.observation)
    high_level, log_probs = agent.policy.high_level(observation, actor.carry.latent), []
    for noise in (own, *others):
        action = agent.policy.low_level(observation, high_level.mean + high_level.scale * noise)
        mean, scale = np.asarray(action.mean, float), np.asarray(action.scale, float)
        log_probs.append(stats.norm.logpdf(window.action[:, 0], mean, scale).sum(-1))
    expected = special.logsumexp(log_probs, axis=0) - np.log(6)
    np.testing.assert_allclose(window.behaviour_log_prob[:, 0], expected, atol=1e-3)


def test_episode_sums_count_what_ended(windows):
    _, _, pairs = windows
    for _, _, window, sums in pairs:
        assert sums["episodes"] == window.is_last.sum()
        assert sums["faults"] == 0
        np.testing.assert_allclose(sums["success"], (1 - window.discount).sum())


def test_a_latent_is_kept_for_its_period_and_drawn_anew_in_a_new_episode(ball):
    environment = VectorEnvironment(ball, ENVS, EPISODE + 2)
    agent = make_agent(ball, latent_period=4)
    actor = acting.init(environment, agent, jax.random.key(1))
    unroll = jax.jit(lambda actor, key: acting.unroll(environment, agent, actor, key, 1))
    for t in range(2 * (EPISODE + 2)):
        step = t % (EPISODE + 2)
        after, window, _ = unroll(actor, jax.random.key(t))
        np.testing.assert_array_equal(window.is_first, step == 0)
        changed = (after.carry.latent != actor.carry.latent).any(-1)
        np.testing.assert_array_equal(changed, step % 4 == 0)
        actor = after


GRU = f"{Path(__file__).parents[2] / 'docs' / 'example' / 'gru_prior.py'}:GRU"
KEPT = [("isotropic", {}), ("isotropic", {"latent_period": 3}), ("ar1", {}), ("ar_learned", {}), (GRU, {})]


@pytest.mark.parametrize(("prior", "high_level"), [*KEPT, ("isotropic", "none")])
def test_from_kept_noise_an_unchanged_policy_draws_the_latents_it_acted_with(ball, prior, high_level):
    """So every ratio of policy to behaviour is 1, also where an episode begins inside the window."""
    environment = VectorEnvironment(ball, ENVS, EPISODE)
    agent = agent_with(ball, prior, high_level)
    unroll = jax.jit(
        lambda actor, key: acting.unroll(environment, agent, actor, key, LENGTH, keeps_noise=True)
    )
    actor = acting.init(environment, agent, jax.random.key(1))
    begins = False
    for i in range(3):
        actor, window, _ = unroll(actor, jax.random.key(2 + i))
        begins |= (window.is_last[:, :-1] > 0).any()
        window = time_major(window)
        log_prob, latent = recomputed(agent, window)
        np.testing.assert_allclose(log_prob, window.behaviour_log_prob, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(latent, actor.carry.latent, rtol=1e-5, atol=1e-5)
    assert begins


def agent_with(ball, prior, high_level):
    """An agent with ordinary heads, so that actions depend on latents."""
    everything = tuple(ball.observation_specs)
    flat = high_level == "none"
    low_level = everything if flat else ball.low_level_information
    table = {
        "information": {
            "high_level": everything,
            "low_level": low_level,
            "critic": everything,
            "default": low_level,
        },
        "policy": {"high_level": high_level, "actions": "gaussian"},
        "default_policy": {
            "high_level": "none" if flat else {"kind": prior},
            "low_level": {"kind": "none" if flat else "shared"},
        },
    }
    agent = Agent(
        ball.observation_specs,
        ball.action_size,
        from_table(ModelConfig, table, "an agent"),
        jax.random.key(0),
    )
    return jax.tree.map(lambda x: x + 0.05 * jax.random.normal(jax.random.key(x.size), x.shape), agent)


@jax.jit
def recomputed(agent, window):
    """Log π of the stored actions at the latents the learner takes, and the last of the stored steps'."""
    action, latent = of_the_learner(agent, window)
    return action.log_prob(window.action), latent


@jax.jit
def of_the_learner(agent, window):
    """Distributions of the stored steps' actions at the latents the learner takes, and their last latent."""
    latents = redraw_latents(agent, window.observation, window, jax.random.key(9))
    action = policy_actions(agent, window.observation, window, latents)
    return jax.tree.map(lambda x: x[:LENGTH], action), latents.latent[LENGTH - 1]


def test_windows_keep_no_noise_unless_they_are_asked_to(windows):
    _, _, pairs = windows
    assert not jax.tree.leaves(pairs[0][2].noise)


SCALE, CORRELATION = (0.5, 2.0), 0.8


@pytest.mark.parametrize("prior", ["isotropic", "ar1"])
@pytest.mark.parametrize("explored", [{"scale": SCALE}, {"correlation": CORRELATION}, None])
def test_exploration_is_that_of_a_loop(ball, prior, explored):
    """Actions and their μ along two windows in which episodes end, from each step's own random numbers.

    The policy's distributions are the learner's, at the latents that the behaviour acted with.
    """
    exploration = Exploration(**(explored or {"scale": SCALE, "correlation": CORRELATION}))
    environment = VectorEnvironment(ball, ENVS, EPISODE)
    agent = agent_with(ball, prior, {})
    actor = acting.init(environment, agent, jax.random.key(1), exploration)
    unroll = jax.jit(
        lambda actor, key: acting.unroll(environment, agent, actor, key, LENGTH, True, exploration)
    )
    factors = np.array([0.5, 1.0, 2.0])[:, None] if exploration.scale == SCALE else np.ones((ENVS, 1))
    c, noise, firsts = exploration.correlation, np.zeros((ENVS, ball.action_size)), 0
    for i in range(2):
        is_first = np.asarray(actor.is_first)
        actor, window, _ = unroll(actor, jax.random.key(2 + i))
        policy = jax.tree.map(np.asarray, of_the_learner(agent, time_major(window))[0])
        for t, key in enumerate(jax.random.split(jax.random.key(2 + i), LENGTH)):
            fresh = np.asarray(agent.noise(jax.random.split(key)[0], (ENVS,)).action)
            following = c * noise + np.sqrt(1 - c**2) * fresh
            noise = np.where(is_first[:, None], fresh, following)
            mean, scale = policy.mean[t].astype(float), factors * policy.scale[t]
            np.testing.assert_allclose(window.action[:, t], mean + scale * noise, atol=1e-4)
            log_prob = stats.norm.logpdf(window.action[:, t], mean, scale).sum(-1)
            np.testing.assert_allclose(window.behaviour_log_prob[:, t], log_prob, rtol=1e-3, atol=1e-3)
            is_first = np.asarray(window.is_last[:, t])
            firsts += is_first.any()
    assert firsts
    assert bool(jax.tree.leaves(actor.noise)) == (c > 0)


def test_correlated_noise_is_standard_normal_at_each_step_and_correlated_in_an_episode_alone():
    worlds, steps, begins = 20_000, 8, (0, 5)
    exploration, seen = Exploration(correlation=CORRELATION), []
    kept = exploration.start((worlds, 1))
    for t in range(steps):
        fresh = Noise(
            jnp.zeros(0), jnp.zeros(0), jax.random.normal(jax.random.key(t), (worlds, 1)), jnp.zeros(0)
        )
        kept, noise = exploration.correlated(kept, fresh, jnp.full(worlds, t in begins))
        seen.append(np.asarray(noise.action)[:, 0])
        assert stats.kstest(seen[-1], "norm").pvalue > 1e-3
    episode = np.array([0] * 5 + [1] * 3)
    apart = np.abs(np.subtract.outer(np.arange(steps), np.arange(steps)))
    expected = np.where(np.equal.outer(episode, episode), CORRELATION**apart, 0.0)
    np.testing.assert_allclose(np.corrcoef(seen), expected, atol=5 / np.sqrt(worlds))


def test_factors_of_scale_are_in_equal_ratios_over_worlds():
    policy = Gaussian(jnp.ones((5, 2)), jnp.full((5, 2), 0.3))
    step = Step(None, policy, policy, policy.mean)  # pyright: ignore[reportArgumentType]
    for scale, factors in (((0.25, 4.0), [0.25, 0.5, 1, 2, 4]), ((4.0, 0.25), [4, 2, 1, 0.5, 0.25])):
        explored = Exploration(scale=scale).scaled(step, jnp.ones((5, 2)))
        expected = np.repeat(0.3 * np.array(factors)[:, None], 2, axis=1)
        np.testing.assert_allclose(explored.distribution.scale, expected, rtol=1e-6)
        np.testing.assert_allclose(explored.action, 1 + expected, rtol=1e-6)
    assert Exploration().scaled(step, jnp.ones((5, 2))) is step


def test_a_scale_of_exploration_needs_gaussian_actions():
    """As of a user's own low level, whose distribution the world does not choose."""
    step: Any = SimpleNamespace(distribution=Categorical(jnp.zeros((ENVS, 3))))
    with pytest.raises(
        UserError, match="exploration_scale changes a Gaussian's scale, and Categorical is none"
    ):
        Exploration(scale=(0.5, 2.0)).scaled(step, jnp.zeros((ENVS, 1)))


def test_a_window_with_a_number_that_is_not_finite_is_not_learned_from(ball):
    """As where a task observes NaN: none of its numbers are kept, no step is valid, all are faults."""

    class SeesNothing(type(ball)):
        def step(self, state, action):
            state = super().step(state, action)
            hidden = jnp.where(state.info["hides"] > 0, jnp.nan, 0.0)
            return state.replace(obs=state.obs | {"targets": state.obs["targets"] + hidden})

        def reset(self, rng):
            state = super().reset(rng)
            return state.replace(info=state.info | {"hides": jax.random.uniform(rng) < 0.5})

    world = copy.copy(ball)
    world.__class__ = SeesNothing
    environment, agent = VectorEnvironment(world, 8, 100), make_agent(ball)
    actor = acting.init(environment, agent, jax.random.key(1))
    hides = np.asarray(actor.env.env.info["hides"])
    assert 0 < hides.sum() < 8
    _, windows, sums = acting.unroll(environment, agent, actor, jax.random.key(2), 4)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(windows))
    np.testing.assert_array_equal(windows.valid, np.broadcast_to(~hides[:, None], (8, 4)))
    assert not windows.observation["proprioception"][hides].any()
    assert windows.observation["proprioception"][~hides].any()
    assert sums["faults"] == 4 * hides.sum()
    # Statistics of what is seen are those of the other windows: broken ones count as their mean.
    of_others = jax.tree.map(lambda x: np.asarray(x[~hides, :4]), windows.observation)
    for name, x in acting.seen(windows, 4).items():
        np.testing.assert_allclose(x.mean((0, 1)), of_others[name].mean((0, 1)), rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(x[~hides], of_others[name])
