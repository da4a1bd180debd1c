"""Directional walking: paid for the velocity asked for, which changes once, half-way."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import physics_environment
from scipy import stats
from worlds import SEEDS, load, observe, reset

from mjx_hkl.environments import PhysicsWorld, VectorEnvironment

WALKS = ("ant-walk", "quadruped-walk", "humanoid-walk")
FORWARD, BACK, LEFT, RIGHT = range(4)
WAYS = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])


def reward(name, direction, heading, velocity, **changes):
    """Of a step that ended with the torso upright at that velocity in the world, m/s."""
    world, state = load(name), reset(name, 0)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    qpos = world.body.place(physics.qpos, jnp.array([1.0, 2.0]), jnp.asarray(heading))
    physics = physics.replace(qpos=qpos, qvel=physics.qvel.at[:2].set(jnp.asarray(velocity)))
    scene = world.scene(physics, qpos[None])
    kind: Any = dataclasses.replace(cast(Any, world.task), **changes)
    return float(kind.reward(task.replace(direction=jnp.asarray(direction)), scene).reward)


@pytest.mark.parametrize("name", WALKS)
def test_exact_velocity_earns_all_and_standing_a_tenth(name):
    """By hand, of a body that faces +y: its left is -x, its right +x."""
    facing = np.pi / 2
    for direction, velocity in [(FORWARD, (0, 1)), (BACK, (0, -1)), (LEFT, (-1, 0)), (RIGHT, (1, 0))]:
        assert reward(name, direction, facing, velocity) == pytest.approx(0.15, rel=1e-5)
        assert reward(name, direction, facing, (0.0, 0.0)) == pytest.approx(0.015, rel=1e-4)
        opposite = -np.array(velocity, float)
        assert reward(name, direction, facing, opposite) == pytest.approx(0.15e-4, rel=1e-3)


def test_coarse_walking_earns_as_much_in_a_quarter_of_the_steps():
    """0.6 in each of 100 steps, as docs/worlds.md says."""
    assert load("ant-coarse-walk").episode_length == 100
    assert reward("ant-coarse-walk", FORWARD, 0.0, (1.0, 0.0)) == pytest.approx(0.6, rel=1e-5)
    assert reward("ant-coarse-walk", FORWARD, 0.0, (0.0, 0.0)) == pytest.approx(0.06, rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(
    st.integers(0, 3),
    st.floats(-3, 3),
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    st.floats(0.1, 2.0),
    st.floats(0.5, 2.0),
)
def test_reward_is_dm_controls_gaussian_tolerance_of_the_error(direction, heading, velocity, speed, margin):
    """`tolerance(error, margin=margin)`: exp(-(scale error / margin)^2 / 2), scale^2 = -2 log 0.1."""
    cos, sin = np.cos(heading), np.sin(heading)
    wanted = np.array([[cos, -sin], [sin, cos]]) @ (speed * WAYS[direction])
    error = np.linalg.norm(np.array(velocity) - wanted)
    expected = 2.0 * np.exp(-0.5 * (np.sqrt(-2 * np.log(0.1)) * error / margin) ** 2)
    got = reward("ant-walk", direction, heading, velocity, speed=speed, margin=margin, reward_per_step=2.0)
    assert got == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(("length", "half"), [(8, 4), (7, 3)])
def test_the_direction_changes_once_exactly_half_way(length, half):
    """Through the end of an episode and the next one, in one scan; what was seen is what is paid for."""
    config = dataclasses.replace(physics_environment("ant-walk"), episode_length=length)
    environment = VectorEnvironment(PhysicsWorld(config, "mujoco"), 5, length)
    start = jax.jit(environment.reset)(jax.random.key(0))

    def step(state, key):
        after, timestep = environment.step(state, jnp.zeros((5, 8)), key)
        return after, (state.observation["instruction"], state.env.pipeline_state.task, timestep)

    keys = jax.random.split(jax.random.key(1), 2 * length)
    seen, task, timestep = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(start, keys)[1]
    directions = np.argmax(seen, -1).reshape(2, length, 5)
    assert (directions[:, :half] == directions[:, :1]).all()
    assert (directions[:, half:] == directions[:, half : half + 1]).all()
    assert (directions[:, half] != directions[:, 0]).all()
    assert (directions[0] != directions[1]).any()  # drawn anew
    np.testing.assert_array_equal(task.direction, np.argmax(seen, -1))
    np.testing.assert_array_equal(timestep.is_last.reshape(2, length, 5)[:, -1], np.ones((2, 5)))
    np.testing.assert_array_equal(timestep.discount, np.ones((2 * length, 5)))  # never solved
    # a body at rest earns nearly a tenth, whatever it is told
    np.testing.assert_allclose(timestep.reward[0], 0.015, rtol=0.3)


@settings(deadline=None, max_examples=10)
@given(SEEDS)
def test_what_a_step_pays_for_is_what_was_seen_before_it(seed):
    state = reset("ant-walk", seed)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    last = task.replace(steps_left=jnp.ones_like(task.steps_left))
    world = load("ant-walk")
    ways = jnp.asarray(WAYS, jnp.float32)
    heading = world.body.frame(physics).heading
    cos, sin = jnp.cos(heading), jnp.sin(heading)
    velocity = jnp.array([[cos, -sin], [sin, cos]]) @ ways[task.direction]
    physics = physics.replace(qvel=physics.qvel.at[:2].set(velocity))
    outcome = world.task.reward(last, world.scene(physics, physics.qpos[None]))
    assert float(outcome.reward) == pytest.approx(0.15, rel=1e-4)
    assert int(outcome.state.direction) == int(task.next_direction) != int(task.direction)
    instruction = observe("ant-walk", physics, outcome.state)["instruction"]
    np.testing.assert_array_equal(instruction, np.eye(4)[int(task.next_direction)])


def test_both_directions_are_uniform_and_the_second_is_another_one():
    """All twelve pairs of different directions are equally likely (chi-squared): Appendix A."""
    draw = jax.vmap(lambda key: load("ant-walk").task.reset(key, load("ant-walk").stage).state)
    task = jax.jit(draw)(jax.random.split(jax.random.key(0), 6000))
    pairs = np.bincount(np.asarray(4 * task.direction + task.next_direction), minlength=16).reshape(4, 4)
    assert (np.diag(pairs) == 0).all()
    assert stats.chisquare(pairs[~np.eye(4, dtype=bool)]).pvalue > 1e-3
    for axis in range(2):
        assert stats.chisquare(pairs.sum(axis)).pvalue > 1e-3
    np.testing.assert_array_equal(task.steps_left, np.full(6000, 200))


@pytest.mark.parametrize("name", WALKS)
def test_a_low_level_does_not_see_the_instruction(name):
    world = load(name)
    assert world.low_level_information == ("proprioception",)
    assert world.observation_size["instruction"] == 4
    assert set(world.observation_size) == {"proprioception", "instruction"}


def test_the_mark_is_where_the_body_should_be_in_a_second():
    world, state = load("ant-walk"), reset("ant-walk", 0).pipeline_state
    qpos = world.body.place(state.physics.qpos, jnp.array([1.0, 2.0]), jnp.asarray(np.pi / 2))
    task = state.task.replace(direction=jnp.asarray(LEFT))
    marks = world.marks(state.replace(physics=state.physics.replace(qpos=qpos), task=task))
    np.testing.assert_allclose(marks.position[0, :2], [0.0, 2.0], atol=1e-5)
