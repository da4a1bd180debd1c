"""The whole reward of tracking a velocity, with the numbers of the shipped file."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from worlds import load, reset

NAME = "ant-track-velocity"


def outcome(command, velocity, turning=0.0, sinking=0.0, action=0.0, upside_down=False) -> Any:
    """Of a step that ended with the torso, facing x, moving over the ground, turning and sinking so fast."""
    world, state = load(NAME), reset(NAME, 0)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    qpos = world.body.place(physics.qpos, jnp.zeros(2), jnp.zeros(()))
    if upside_down:
        qpos = qpos.at[3:7].set(jnp.array([0.0, 1.0, 0.0, 0.0]))
    moving = jnp.array([*velocity, -sinking, 0.0, 0.0, turning])
    physics = physics.replace(qpos=qpos, qvel=physics.qvel.at[:6].set(moving))
    actions = jnp.full((2, world.action_size), action).at[1].set(0.0)
    scene = world.scene(physics, qpos[None], *actions)
    return world.task.reward(task.replace(command=jnp.asarray(command)), scene)


def test_perfect_tracking_earns_a_four_hundredth_of_sixty():
    told = outcome((0.5, -0.2, 0.3), (0.5, -0.2), turning=0.3)
    assert float(told.reward) == pytest.approx(0.15, rel=1e-5)
    assert float(told.success) == float(told.failure) == 0.0


def test_what_is_off_costs_as_the_file_says():
    """By 0.5 m/s: exp(−1) of 0.1; by 0.5 rad/s: of 0.05; 8 actions that changed by 0.5; sinking."""
    told = outcome((0.5, 0.0, 0.5), (1.0, 0.0), turning=0.0, sinking=0.2, action=0.5)
    expected = 0.1 * np.exp(-1) + 0.05 * np.exp(-1) - 0.001 * 8 * 0.25 - 0.01 * 0.04
    assert float(told.reward) == pytest.approx(expected, rel=1e-4)
    assert sum(float(x) for x in told.terms.values()) == pytest.approx(expected, rel=1e-4)


def test_a_fall_ends_the_episode_as_a_failure_and_costs_one():
    still = (0.0, 0.0, 0.0), (0.0, 0.0)
    stands, lies = outcome(*still), outcome(*still, upside_down=True)
    assert float(stands.reward) - float(lies.reward) == pytest.approx(1.0, abs=1e-5)
    assert (float(stands.failure), float(lies.failure), float(lies.success)) == (0.0, 1.0, 0.0)
