"""Locomotion with gap: what is observed, rewarded, and that it is one."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import SEEDS, jitted, load, observe, replaced, reset


@settings(deadline=None, max_examples=10)
@given(SEEDS, st.floats(-1.0, 1.0), st.floats(-3, 3))
def test_the_gap_group_is_egocentric(seed, y, turn):
    """Distances to both edges and the gap's length, whatever the heading."""
    name = "ant-gap"
    state, world = reset(name, seed), load(name)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    qpos = world.body.place(physics.qpos, jnp.array([1.0, y]), jnp.asarray(turn))
    edges = observe(name, physics.replace(qpos=qpos), task)["gap"].reshape(2, 2) * world.task.distance_unit
    length = float(task.edges[1, 0] - task.edges[0, 0])
    assert 0.3 <= length <= 2.5
    np.testing.assert_allclose(
        np.linalg.norm(edges, axis=1), [np.hypot(3, y), np.hypot(3 + length, y)], rtol=1e-4
    )
    np.testing.assert_allclose(np.linalg.norm(edges[1] - edges[0]), length, rtol=1e-4)


@pytest.mark.parametrize(("name", "shortest", "longest"), [("ant-gap", 0.3, 2.5), ("ant-near-gap", 0.1, 0.6)])
def test_gaps_are_as_long_as_the_file_says(name, shortest, longest):
    edges = jax.vmap(load(name).reset)(jax.random.split(jax.random.key(0), 2000)).pipeline_state.task.edges
    lengths = np.asarray(edges[:, 1, 0] - edges[:, 0, 0])
    assert shortest <= lengths.min() < shortest + 0.05 * longest
    assert 0.95 * longest < lengths.max() <= longest + 1e-6
    assert lengths.mean() == pytest.approx((shortest + longest) / 2, rel=0.05)


def test_the_gap_really_is_a_gap():
    """C MuJoCo's rays from above hit nothing between the edges, and a platform on both sides of it."""
    name = "ant-gap"
    world = load(name)
    model, data = world.engine.model, mujoco.MjData(world.engine.model)
    for seed in range(10):
        state = reset(name, seed).pipeline_state
        data.qpos[:2] = 50.0  # the body out of the way
        data.mocap_pos[:] = state.physics.mocap_pos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        start, stop = (float(x) for x in state.task.edges[:, 0])

        def ground(x, data=data):
            above = np.array([x, 0.3, 5.0])
            distance = mujoco.mj_ray(
                model, data, above, np.array([0, 0, -1.0]), None, 1, -1, np.zeros(1, np.int32)
            )
            return 5.0 - distance if distance >= 0 else None

        for x in np.linspace(start + 0.01, stop - 0.01, 7):
            assert ground(x) is None
            assert world.stage.arena.height(jnp.array([[x, 0.3]]), state.physics)[0] == -jnp.inf
        for x in (-1.0, start - 0.01, stop + 0.01, float(state.task.end)):
            assert ground(x) == pytest.approx(0.0, abs=1e-6)
            assert world.stage.arena.height(jnp.array([[x, 0.3]]), state.physics)[0] == 0.0


def test_the_gap_rewards_velocity_and_ends_below_the_ground_or_at_the_corridors_end():
    name = "ant-gap"
    world, state = load(name), reset("ant-gap", 0)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    step = jitted(name, "step")
    flying = physics.qpos.at[2].add(1.0)
    after = step(
        replaced(state, physics.replace(qpos=flying, qvel=physics.qvel.at[0].set(2.0))), jnp.zeros(8)
    )
    velocity = float(world.body.frame(after.pipeline_state.physics).velocity[0])
    assert float(after.reward) == pytest.approx(world.task.reward_per_velocity * velocity)
    assert velocity == pytest.approx(2.0, abs=0.1)
    assert not after.done
    over_the_gap = world.body.place(physics.qpos, task.edges.mean(0), jnp.zeros(()))
    state = replaced(state, physics.replace(qpos=over_the_gap.at[2].set(0.1)))
    for _ in range(10):
        state = step(state, jnp.zeros(8))
        if state.done:
            break
    assert state.done
    assert not state.metrics["success"]
    beyond = world.body.place(physics.qpos, jnp.stack([task.end + 0.1, jnp.zeros(())]), jnp.zeros(()))
    after = step(replaced(reset(name, 0), physics.replace(qpos=beyond)), jnp.zeros(8))
    assert after.done
    assert after.metrics["success"]
