"""What a task says of another instruction is what the world itself observes and pays under that one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loading import physics_environment
from scipy import stats
from worlds import load, observe, reset

from mjx_hkl.environments import PhysicsWorld
from mjx_hkl.environments.randomization import RandomizationConfig


@pytest.mark.parametrize("name", ["ball-go-to-target", "ant-go-to-near-target"])
def test_another_target_is_observed_and_paid_as_if_it_had_been_asked_for(name):
    world, state = load(name), reset(name, 3)
    assert world.relabelling is not None
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    near = task.positions + jnp.array([world.task.radius - 0.01, 0.0])
    far = task.positions[:1] - jnp.array([world.task.radius + 0.01, 0.0])
    paid = []
    for place in [*near, *far]:
        moved = physics.replace(qpos=world.body.place(physics.qpos, place, jnp.ones(())))
        keys = jax.random.split(jax.random.key(0), 20)
        found, rewards, successes = jax.vmap(world.relabelling, (0, None))(keys, observe(name, moved, task))
        for i, selected in enumerate(np.argmax(found["instruction"], -1)):
            asked = task.replace(selected=jnp.asarray(selected))
            for group, expected in observe(name, moved, asked).items():
                np.testing.assert_allclose(found[group][i], expected, atol=1e-5)
            outcome = world.task.reward(asked, world.scene(moved, moved.qpos[None]))
            assert (rewards[i], successes[i]) == (outcome.reward, outcome.success)
        paid.append(np.asarray(rewards).any())
    assert paid == [True, True, True, False]


def test_every_target_is_asked_for_as_often_and_for_all_leading_axes_at_once():
    world = load("ball-go-to-target")
    assert world.relabelling is not None
    observation = jax.tree.map(lambda x: jnp.stack([x] * 4), reset("ball-go-to-target", 3).obs)
    keys = jax.random.split(jax.random.key(0), 900)
    found, rewards, _ = jax.vmap(world.relabelling, (0, None))(keys, observation)
    assert rewards.shape == (900, 4)
    asked = np.argmax(found["instruction"], -1)
    assert (asked == asked[:, :1]).all()
    assert stats.chisquare(np.bincount(asked[:, 0])).pvalue > 1e-3


def test_a_world_without_other_instructions_says_so():
    assert load("ant-gap").relabelling is None


@pytest.mark.parametrize(
    ("randomization", "is_told_the_truth"),
    [
        ({"noise": {"proprioception": 0.1}, "mass": (0.8, 1.2)}, True),
        ({"noise": {"targets": 0.1}}, False),
        ({"bias": {"targets": 0.1}}, False),
        ({"observation_delay": (0, 1)}, False),
    ],
)
def test_a_world_whose_targets_are_late_or_noisy_has_no_other_instructions(randomization, is_told_the_truth):
    config = physics_environment("ball-go-to-target")
    drawn = RandomizationConfig(**randomization)
    world = PhysicsWorld(dataclasses.replace(config, randomization=drawn), "mujoco")
    assert (world.relabelling is not None) == is_told_the_truth
