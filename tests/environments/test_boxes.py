"""Boxes: when they touch, that they stay where they belong, what they weigh."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading import physics_environment
from worlds import jitted, load, replaced, reset

from mjx_hkl.environments import PhysicsWorld
from mjx_hkl.environments.boxes import Poses
from mjx_hkl.environments.rotations import quaternion_matrix


@settings(deadline=None, max_examples=30)
@given(st.floats(-0.2, 0.25), st.floats(-0.5, 0.5), st.floats(-3, 3), st.floats(-3, 3), st.booleans())
def test_boxes_touch_where_c_mujoco_says_so(gap, offset, turn_a, turn_b, tipped):
    """`mj_geomDistance` between two cubes, upright or one of them tipped."""
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><body name='a' mocap='true'><geom type='box' size='.25 .25 .25'/></body>"
        "<body name='b' mocap='true'><geom type='box' size='.25 .25 .25'/></body></worldbody></mujoco>"
    )
    data = mujoco.MjData(model)
    data.mocap_pos[1] = [0.5 + gap, offset, 0.1]
    data.mocap_quat[:] = [[np.cos(t / 2), 0.0, 0.0, np.sin(t / 2)] for t in (turn_a, turn_b)]
    if tipped:
        data.mocap_quat[1] = np.array([0.9, 0.3, 0.2, 0.1]) / np.linalg.norm([0.9, 0.3, 0.2, 0.1])
    mujoco.mj_kinematics(model, data)
    distance = mujoco.mj_geomDistance(model, data, 0, 1, 1.0, None)
    if abs(distance) < 1e-4:
        return
    poses = Poses(
        jnp.asarray(data.mocap_pos, jnp.float32),
        quaternion_matrix(jnp.asarray(data.mocap_quat, jnp.float32)),
        0.5,
    )
    assert bool(_touching(poses)[0, 1]) == (distance < 0)


_touching = jax.jit(Poses.touching)


def test_gathering_pays_when_boxes_touch_even_within_a_control_step():
    name = "ball-gather-boxes"
    world, state = load(name), reset("ball-gather-boxes", 0)
    physics = state.pipeline_state.physics
    step = jitted(name, "step")
    headings = jnp.zeros(2)
    apart = world.boxes.place(physics.qpos, jnp.array([[-0.26, 0.8], [0.26, 0.8]]), headings)
    together = world.boxes.place(physics.qpos, jnp.array([[-0.249, 0.8], [0.249, 0.8]]), headings)
    body = jnp.array([0.0, -1.2])
    state = replaced(state, physics.replace(qpos=world.body.place(apart, body, jnp.zeros(()))))
    assert float(step(state, jnp.zeros(2)).reward) == 0.0
    state = replaced(state, physics.replace(qpos=world.body.place(together, body, jnp.zeros(()))))
    after = step(state, jnp.zeros(2))
    assert float(after.reward) == 60.0
    assert after.done
    # touching at the first of five substeps only
    bounced = world.scene(physics.replace(qpos=apart), jnp.stack([together, *[apart] * 4]))
    assert float(world.task.reward((), bounced).success) == 1.0


def test_three_boxes_are_gathered_when_each_touches_another():
    config = physics_environment("ball-gather-boxes")
    assert config.boxes
    arena: Any = config.arena
    arena = dataclasses.replace(arena, size=5.0)
    world = PhysicsWorld(
        dataclasses.replace(config, arena=arena, boxes=dataclasses.replace(config.boxes, count=3)), "mujoco"
    )
    qpos = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics.qpos

    def solved(*positions):
        placed = world.boxes.place(qpos, jnp.array(positions), jnp.zeros(3))
        physics = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics.replace(qpos=placed)
        return bool(world.task.reward((), world.scene(physics, placed[None])).success)

    assert solved([0.0, 0.0], [0.49, 0.0], [0.98, 0.0])  # in a row
    assert not solved([0.0, 0.0], [0.49, 0.0], [1.5, 0.0])


@pytest.mark.parametrize("joint", ["planar", "free"])
def test_boxes_stay_on_the_ground_and_planar_ones_upright(joint):
    """A second of a ball that drives into them; corners as C MuJoCo has them."""
    config = physics_environment("ball-move-box-hard")
    assert config.boxes
    config = dataclasses.replace(config, boxes=dataclasses.replace(config.boxes, joint=joint))
    world = PhysicsWorld(config, "mujoco")
    model, data = world.engine.model, mujoco.MjData(world.engine.model)
    state = jax.jit(world.reset)(jax.random.key(2))
    box = world.boxes.poses(state.pipeline_state.physics.qpos).position[0, :2]
    physics = state.pipeline_state.physics
    beside = world.body.place(physics.qpos, box - jnp.array([0.6, 0.0]), jnp.zeros(()))
    state, step = replaced(state, physics.replace(qpos=beside)), jax.jit(world.step)
    for _ in range(40):
        state = step(state, jnp.array([0.0, 1.0]))
        poses = world.boxes.poses(state.pipeline_state.physics.qpos)
        if joint == "planar":
            np.testing.assert_allclose(poses.position[:, 2], 0.25, atol=1e-6)
            np.testing.assert_allclose(poses.rotation[:, 2, 2], 1.0, atol=1e-6)
        data.qpos[:] = state.pipeline_state.physics.qpos
        mujoco.mj_kinematics(model, data)
        for i in range(2):
            geom = data.geom(f"box{i}")
            np.testing.assert_allclose(poses.position[i], geom.xpos, atol=1e-5)
            np.testing.assert_allclose(poses.rotation[i].ravel(), geom.xmat, atol=1e-5)
            seen = {tuple(np.round(c, 4)) for c in np.asarray(poses.corners(8)[i])}
            offsets = np.array(np.meshgrid(*[[-0.25, 0.25]] * 3)).reshape(3, 8).T
            true = geom.xpos + offsets @ geom.xmat.reshape(3, 3).T
            distance = np.linalg.norm(true[:, None] - np.array(sorted(seen))[None], axis=-1)
            assert distance.min(axis=1).max() < 1e-3
    assert float(jnp.linalg.norm(poses.position[0, :2] - box)) > 0.1  # it was pushed
    if joint == "free":
        assert float(poses.position[:, 2].min()) > 0.23


def test_nothing_leaves_a_walled_area():
    """Full speed ahead for five seconds: ball and boxes stay; an Ant outside ends its episode."""
    world = load("ball-move-box-easy")
    start = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), 64))

    def step(state, _):
        state = jax.vmap(world.step)(state, jnp.tile(jnp.array([0.1, 1.0]), (64, 1)))
        physics = state.pipeline_state.physics
        return state, (
            jnp.abs(physics.qpos[:, :2]).max(),
            jnp.abs(world.boxes.poses(physics.qpos).position).max(),
        )

    _, (body, box) = jax.jit(lambda s: jax.lax.scan(step, s, None, length=200))(start)
    assert float(body.max()) < 1.55  # a limit gives way a little
    assert float(box.max()) < 0.95
    ant = load("ant-move-box-easy")
    state = reset("ant-move-box-easy", 0)
    physics = state.pipeline_state.physics
    for x, out in ((1.9, False), (2.1, True)):
        qpos = ant.body.place(physics.qpos, jnp.array([x, 1.2]), jnp.zeros(()))
        after = jitted("ant-move-box-easy", "step")(replaced(state, physics.replace(qpos=qpos)), jnp.zeros(8))
        assert bool(after.done) == out
        assert not after.metrics["success"]


def test_heavy_boxes_are_four_times_as_heavy():
    easy, heavy = (load(f"ball-move-box-{kind}").engine.model for kind in ("easy", "heavy"))
    assert easy.body("box0").mass[0] == pytest.approx(22 / 4)
    assert heavy.body("box0").mass[0] == pytest.approx(22)
