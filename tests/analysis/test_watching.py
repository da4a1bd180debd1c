"""A session does what hands on it ask, and tells what the agent itself would compute."""

import dataclasses
import shutil
import socket
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_hkl.analysis.panel import Panel
from mjx_hkl.analysis.viewer import serving
from mjx_hkl.analysis.watching import Follower, Session
from mjx_hkl.environments import many
from mjx_hkl.experiments.agent_format import KnownAgent
from mjx_hkl.experiments.players import Player, find_player
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import DefaultPolicyConfig
from mjx_hkl.models.default_low_levels import Separate
from mjx_hkl.models.priors import AR1

FORMATS = Path(__file__).parents[1] / "formats"


def player_of(recipe, world):
    agent = Agent(world.observation_specs, world.action_size, recipe.model, jax.random.key(0))
    known = KnownAgent(agent, recipe, WorldSpecs.of(world))
    return Player(agent, many(world, 1), "ball-go-to-target", known=known)


@pytest.fixture(scope="module")
def player(tiny_recipe, ball):
    default = DefaultPolicyConfig(AR1(0.5), Separate(sizes=(8,)))
    return player_of(dataclasses.replace(tiny_recipe, default_policy=default), ball)


@pytest.fixture(scope="module")
def shared(player):
    """Compiled once for all tests of this file."""
    return Session(player, 0, mean=True)


@pytest.fixture
def session(shared):
    shared.hold(None)
    shared.choose("target", None)
    shared.mean, shared.episodes, shared.successes = True, 0, 0
    shared.restart()
    return shared


def observation_of(session):
    return jax.tree.map(lambda x: x[None], session.state.obs)


def mean_action(session, latent):
    low_level = session.agent.policy.low_level
    return low_level(observation_of(session), jnp.asarray(latent, jnp.float32)[None]).mean[0]


def test_a_held_latent_is_what_the_low_level_receives(session):
    held = np.array([1.5, -0.5], np.float32)
    session.hold(held)
    for _ in range(3):
        expected = mean_action(session, held)
        told = session.step()
        np.testing.assert_array_equal(told.latent, held)
        np.testing.assert_allclose(told.action, expected, rtol=1e-5)
        np.testing.assert_array_equal(session._moment.carry.latent[0], held)


def test_numbers_that_are_not_held_are_the_policys(session):
    free = session.step().latent
    session._key = jax.device_put(jax.random.key(0), jax.local_devices()[0])
    session.restart()
    start = session._moment
    free = session.step().latent
    session._moment = start
    session.hold(np.array([2.0, np.nan], np.float32))
    assert session.step().latent.tolist() == [2.0, free[1]]
    session._moment = start
    session.hold(None)
    np.testing.assert_array_equal(session.step().latent, free)


def test_an_agent_acts_the_same_with_nothing_held(player):
    agent, batch = player.agent, (3,)
    observation = {name: jnp.ones((3, *spec.shape)) for name, spec in player.known.world.observation.items()}
    given = agent.start(batch), observation, jnp.ones(batch, bool), agent.noise(jax.random.key(1), batch)
    one, other = jax.jit(agent.step)(*given), jax.jit(agent.step)(*given, jnp.full((3, 2), jnp.nan))
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_push_changes_the_velocity_by_what_was_asked(session):
    session.step()
    before = session.state.pipeline_state.physics
    session.push(2.0, np.pi / 2)
    after = session.state.pipeline_state.physics
    np.testing.assert_allclose(after.qvel[:2] - before.qvel[:2], [0.0, 2.0], atol=1e-6)
    np.testing.assert_array_equal(after.qvel[2:], before.qvel[2:])
    np.testing.assert_array_equal(after.qpos, before.qpos)
    change = session.push(0.5)
    assert np.linalg.norm(change) == pytest.approx(0.5)
    session.step()
    assert session.state.pipeline_state.physics.qpos[1] > before.qpos[1] + 0.01


def test_a_chosen_target_is_observed_and_rewarded(session):
    for target in range(3):
        session.choose("target", target)
        assert session.state.obs["instruction"].tolist() == np.eye(3)[target].tolist()
        assert session.chosen() == {"target": target}
        state = session.state
        world, ball = state.pipeline_state, session.world
        physics = world.physics
        qpos = ball.body.place(physics.qpos, world.task.positions[1], jnp.zeros(()))
        there = world.replace(physics=physics.replace(qpos=qpos))
        session._moment = session._moment.replace(state=state.replace(pipeline_state=there))
        told = session.step()
        assert told.success == (target == 1)
        assert told.reward == 60.0 * (target == 1)
        session.restart()
    assert (session.episodes, session.successes) == (1, 1)


def test_what_is_chosen_stays_until_it_is_let_go(session):
    session.choose("target", 2)
    seen = []
    for _ in range(5):
        session.restart()
        session.step()
        seen.append(session.chosen()["target"])
    assert seen == [2.0] * 5
    session.choose("target", None)
    for _ in range(8):
        session.restart()
        seen.append(session.chosen()["target"])
    assert len(set(seen)) > 1


def kl(p, q):
    """Of diagonal Gaussians, by the textbook."""
    p_mean, p_scale, q_mean, q_scale = (np.asarray(x, np.float64) for x in (*p, *q))
    return np.sum(np.log(q_scale / p_scale) + (p_scale**2 + (p_mean - q_mean) ** 2) / (2 * q_scale**2) - 0.5)


def test_kl_and_q_are_those_of_the_agents_own_modules(session):
    session.mean = False
    session.step()
    for _ in range(3):
        agent, seen = session.agent, observation_of(session)
        before = session._moment.carry.latent
        told = session.step()
        latent, action = jnp.asarray(told.latent)[None], jnp.asarray(told.action)[None]
        high, low, value = told.judgement
        prior = (0.5 * before, np.full_like(before, np.sqrt(0.75)))
        assert high == pytest.approx(kl(agent.policy.high_level(seen, before), prior), rel=1e-4)
        own = agent.default_policy.low_level.step((), agent.policy.low_level, seen, latent)[1]
        assert low == pytest.approx(kl(agent.policy.low_level(seen, latent), own), rel=1e-4)
        assert value == pytest.approx(float(agent.critic(seen, latent, action)[0]), rel=1e-4)
        assert low > 0


def test_an_episode_ends_at_the_time_limit_and_another_begins(player):
    (environment,) = player.environment.tasks.values()
    short = dataclasses.replace(environment, episode_length=2)
    session = Session(dataclasses.replace(player, environment=short), 3, mean=True)
    assert [session.step().is_last for _ in range(5)] == [False, True, False, True, False]
    assert session.episodes == 2
    assert (session.steps, session.seconds) == (1, session.world.control_seconds)


def test_each_step_is_compiled_once(shared):
    shared.restart()
    for _ in range(2):
        shared.step()
    assert shared._advance._cache_size() == 1


def test_a_flat_policy_has_no_latent_and_still_a_critic(flat_recipe, ball):
    session = Session(player_of(flat_recipe, ball), 0, mean=True)
    told = session.step()
    assert (session.latent_size, session.value_name) == (0, "Q")
    assert told.judgement.kl_high == told.judgement.kl_low == 0.0
    assert np.isfinite(told.judgement.value)
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
    with serving("localhost", port) as server:  # its page has no sliders, and no KL
        panel = Panel(server.gui, session, "flat", None, lambda change: None)
        panel.show_numbers(None)
        assert "<td>0.00</td>" in panel._numbers.content
        assert "KL" not in panel._numbers.content
        assert panel._sliders == []


def test_a_random_agent_only_acts():
    session = Session(find_player("random:grid-1-step", 1), 0, mean=True)
    told = session.step()
    assert (told.latent, told.judgement, session.value_name, session.latent_size) == (None, None, "", 0)
    assert not session.can_push
    session.choose("goal's row", 4)
    assert session.state.pipeline_state.goal[1] == 4


def test_an_onnx_policy_acts_by_its_mean(player, ball, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from mjx_hkl.experiments.onnx.export import write_policy

    write_policy(tmp_path / "carried", player.known, ball, stochastic=False)
    session = Session(find_player(str(tmp_path / "carried" / "policy.onnx"), 1), 0, mean=True)
    seen = observation_of(session)
    told = session.step()
    agent = player.agent
    expected = agent.step(agent.start((1,)), seen, jnp.ones(1, bool), agent.no_noise((1,)))[1].action[0]
    np.testing.assert_allclose(told.action, expected, atol=1e-5)
    assert (told.judgement, session.can_sample, session.latent_size) == (None, False, 0)


def test_a_follower_takes_whole_checkpoints_alone(tmp_path):
    shutil.copytree(FORMATS / "run-2", tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert Follower(run, 0, 320).newer() is None
    follower = Follower(run, 0, 0)
    known = follower.newer()
    assert known is not None
    assert (known.environment_steps, follower.environment_steps, follower.trouble) == (320, 320, "")
    (run.checkpoints / "640").mkdir()  # as one that is just being removed
    assert follower.newer() is None
    assert "640" in follower.trouble
    assert follower.environment_steps == 320
    (run.checkpoints / "640").rmdir()
    shutil.copytree(run.checkpoints / "320", run.checkpoints / "960")
    known = follower.newer()
    assert known is not None
    assert (known.environment_steps, follower.trouble) == (960, "")
