"""What tests of environments share: worlds on the fast engine, built and compiled once."""

import functools

import jax
import jax.numpy as jnp
from hypothesis import strategies as st
from loading import physics_environment

from mjx_hkl.environments import PhysicsWorld
from mjx_hkl.environments.tasks.manipulation import CombinedState, MoveBoxState

SEEDS = st.integers(0, 2**31 - 1)


@functools.cache
def load(name):
    return PhysicsWorld(physics_environment(name), "mujoco")


@functools.cache
def jitted(name, method):
    return jax.jit(getattr(load(name), method))


def reset(name, seed):
    return jitted(name, "reset")(jax.random.key(seed))


def observe(name, physics, task):
    return _observer(name)(physics, task)


@functools.cache
def _observer(name):
    world = load(name)

    def function(physics, task):
        return world._observe(physics, task, world.scene(physics, physics.qpos[None]), physics.qpos)

    return jax.jit(function)


def replaced(state, physics=None, task=None):
    world = state.pipeline_state
    return state.replace(
        pipeline_state=world.replace(
            physics=world.physics if physics is None else physics, task=world.task if task is None else task
        )
    )


def targets_of(task):
    return task.targets if isinstance(task, MoveBoxState | CombinedState) else task


def with_box_at(name, state, distance, box=None):
    """The state with a box that far from the selected target, all other boxes where they were."""
    world, task = load(name), state.pipeline_state.task
    physics = state.pipeline_state.physics
    poses = world.boxes.poses(physics.qpos)
    box = task.box if box is None else box
    target = task.targets.positions[task.targets.selected]
    away = poses.position[box, :2] - target
    place = target + distance * away / jnp.linalg.norm(away)
    positions = poses.position[:, :2].at[box].set(place)
    return replaced(
        state, physics.replace(qpos=world.boxes.place(physics.qpos, positions, jnp.zeros(len(positions))))
    )
