"""Tasks of moving boxes and going to targets: paid exactly for what was asked."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import physics_environment
from worlds import SEEDS, jitted, load, replaced, reset, with_box_at

from mjx_hkl.environments import PhysicsWorld


@pytest.mark.parametrize("name", ["ball-move-box-easy", "ball-move-box-mid", "ball-move-box-hard"])
@settings(deadline=None, max_examples=10)
@given(SEEDS, st.floats(0.0, 0.6))
def test_moving_a_box_pays_exactly_when_the_selected_one_is_there(name, seed, distance):
    state, step = reset(name, seed), jitted(name, "step")
    after = step(with_box_at(name, state, distance), jnp.zeros(2))
    # a box put into the body or another box is pushed: the test is of where it is after the step
    task = state.pipeline_state.task
    now = load(name).boxes.poses(after.pipeline_state.physics.qpos).position[task.box, :2]
    error = float(jnp.linalg.norm(now - task.targets.positions[task.targets.selected]))
    if abs(error - 0.3) > 1e-5:
        assert bool(after.metrics["success"]) == (error < 0.3)
    assert float(after.reward) == 60.0 * float(after.metrics["success"])
    assert bool(after.done) == bool(after.metrics["success"])


def test_another_box_on_the_target_earns_nothing():
    name = "ball-move-box-hard"
    state = reset(name, 1)
    other = 1 - int(state.pipeline_state.task.box)
    after = jitted(name, "step")(with_box_at(name, state, 0.0, other), jnp.zeros(2))
    assert not after.metrics["success"]


def test_or_pays_only_for_what_was_asked():
    name = "ball-move-box-or-go-to-target"
    world, step = load(name), jitted("ball-move-box-or-go-to-target", "step")
    seen = {}
    for seed in range(12):
        state = reset(name, seed)
        task, physics = state.pipeline_state.task, state.pipeline_state.physics
        moving = bool(task.moving)
        seen[moving] = True
        np.testing.assert_array_equal(state.obs["instruction"][2:], [moving, not moving])
        np.testing.assert_array_equal(state.obs["instruction"][:2], np.eye(2)[int(task.targets.selected)])
        target = task.targets.positions[task.targets.selected]
        with_box = step(with_box_at(name, state, 0.0, 0), jnp.zeros(2))
        there = world.body.place(physics.qpos, target, jnp.zeros(()))
        with_body = step(replaced(state, physics.replace(qpos=there)), jnp.zeros(2))
        assert bool(with_box.metrics["success"]) == moving
        assert bool(with_body.metrics["success"]) == (not moving)
        assert {float(with_box.reward), float(with_body.reward)} == {0.0, 60.0}
    assert seen == {True: True, False: True}


@pytest.mark.parametrize("box_first", [True, False])
def test_and_pays_each_part_once_and_a_bonus_for_both(box_first):
    name = "ball-move-box-and-go-to-target"
    world, step = load(name), jitted("ball-move-box-and-go-to-target", "step")
    state = start = reset(name, 3)
    task, physics = state.pipeline_state.task, state.pipeline_state.physics
    goal = task.targets.positions[1 - task.targets.selected]

    def deliver(state):
        # carried there and, as soon as it counts, away again: what is done stays done
        return step(with_box_at(name, state, 0.1, 0), jnp.zeros(2))

    def arrive(state):
        now = state.pipeline_state.physics
        return step(
            replaced(state, now.replace(qpos=world.body.place(now.qpos, goal, jnp.zeros(())))), jnp.zeros(2)
        )

    first, second = (deliver, arrive) if box_first else (arrive, deliver)
    state = first(state)
    assert float(state.reward) == 10.0
    assert not state.done
    np.testing.assert_array_equal(state.obs["instruction"][2:], [box_first, not box_first])
    again = first(state)
    assert float(again.reward) == 0.0
    away = replaced(again, physics)  # everything back where it began
    again = step(away, jnp.zeros(2))
    assert float(again.reward) == 0.0
    state = second(again)
    assert float(state.reward) == 10.0 + 50.0
    assert state.done
    assert state.metrics["success"]
    assert not start.done


def test_and_in_order_counts_arriving_only_after_delivery():
    config = physics_environment("ball-move-box-and-go-to-target")
    task: Any = config.task
    world = PhysicsWorld(dataclasses.replace(config, task=dataclasses.replace(task, in_order=True)), "mujoco")
    state = jax.jit(world.reset)(jax.random.key(0))
    task, physics = state.pipeline_state.task, state.pipeline_state.physics
    goal = task.targets.positions[1 - task.targets.selected]
    there = replaced(state, physics.replace(qpos=world.body.place(physics.qpos, goal, jnp.zeros(()))))
    assert float(jax.jit(world.step)(there, jnp.zeros(2)).reward) == 0.0
