"""What people may choose of an instruction, and that choosing changes nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from worlds import load

from mjx_hkl.environments import PhysicsWorld, make_world
from mjx_hkl.environments.cameras import CameraConfig
from mjx_hkl.environments.randomization import RandomizationConfig
from mjx_hkl.environments.several import TaskWorld

NAMES = {
    "ball-go-to-target": {"target": ("1", "2", "3")},
    "ball-move-box-easy": {},
    "ball-move-box-hard": {"target": ("1", "2"), "box": ("1", "2")},
    "ball-move-box-or-go-to-target": {"target": ("1", "2"), "what": ("body", "box")},
    "ball-move-box-and-go-to-target": {"target": ("1", "2")},
    "ant-walk": {"direction": ("forward", "back", "left", "right")},
    "ant-track-velocity": {
        "ahead (m/s)": (-0.5, 1.0),
        "left (m/s)": (-0.5, 0.5),
        "turning (rad/s)": (-1.0, 1.0),
    },
    "ball-gather-boxes": {},
}


@pytest.mark.parametrize("name", NAMES)
def test_each_task_says_what_may_be_chosen(name):
    choices = load(name).choices
    assert {name: choice.values for name, choice in choices.items()} == NAMES[name]


@pytest.mark.parametrize("name", ["ball-move-box-hard", "ant-track-velocity"])
def test_what_is_chosen_is_asked_for_and_observed(name):
    world = load(name)
    state = jax.jit(world.reset)(jax.random.key(1))
    for choice in world.choices.values():
        before = float(choice.of(state))
        other = 1.0 - before if choice.is_named else 0.3
        put = jax.jit(choice.put)
        after = put(state, jnp.float32(other))
        assert float(choice.of(after)) == pytest.approx(other)
        changed = [group for group, x in state.obs.items() if not np.allclose(after.obs[group], x, atol=1e-6)]
        assert changed == ["instruction"]
        back = put(after, jnp.float32(before))
        np.testing.assert_allclose(back.obs["instruction"], state.obs["instruction"], atol=1e-6)


def seen_late():
    late = RandomizationConfig(observation_delay=(1, 3), noise={"targets": 0.1}, bias={"proprioception": 0.1})
    return PhysicsWorld(dataclasses.replace(load("ball-go-to-target").config, randomization=late), "mujoco")


def seen_by_a_camera():
    camera = CameraConfig(width=8, height=8, frames=2)
    return PhysicsWorld(dataclasses.replace(load("ball-go-to-target").config, camera=camera), "mujoco")


def among_several():
    world = load("ball-go-to-target")
    specs = {**world.observation_specs, "task": dataclasses.replace(world.observation_specs["instruction"])}
    return TaskWorld(world, specs, 0, 3)


@pytest.mark.parametrize("make", [seen_late, seen_by_a_camera, among_several])
def test_to_choose_what_is_asked_for_anyway_changes_nothing(make):
    world = make()
    step, put = jax.jit(world.step), jax.jit(world.choices["target"].put)
    state = jax.jit(world.reset)(jax.random.key(2))
    for action in np.random.default_rng(0).uniform(-1, 1, (4, 2)):
        again = put(state, world.choices["target"].of(state).astype(jnp.float32))
        assert jax.tree.structure(again) == jax.tree.structure(state)
        for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(again), strict=True):
            if not jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
                np.testing.assert_allclose(new, old, atol=1e-5)
        state = step(again, jnp.asarray(action, jnp.float32))


def test_the_goal_of_a_grid_can_be_chosen():
    world = make_world("grid-1-step")
    column, row = world.choices.values()
    state = row.put(column.put(world.reset(jax.random.key(0)), jnp.float32(3)), jnp.float32(5))
    assert state.pipeline_state.goal.tolist() == [3, 5]
    np.testing.assert_allclose(state.obs["coordinates"][2:], 2 * np.array([3, 5]) / 7 - 1, rtol=1e-6)
