"""The same model, start and controls on every engine; the oracle is C MuJoCo stepped by hand."""

import dataclasses
import importlib.util

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from loading import physics_environment

from mjx_hkl.environments import PhysicsWorld
from mjx_hkl.environments.engines import make_engine
from mjx_hkl.environments.physics import PhysicsState
from mjx_hkl.errors import UserError

# A ball between two boxes, feet on platforms, legs on the floor beside a box, a humanoid on its back: every
# kind of pair we have.
TOUCHING = ("ball-move-box-hard", "ant-gap", "quadruped-move-box-easy", "humanoid-walk")
STEPS = 12  # control steps, 0.3 s


def load(name, iterations=20):
    """The environment with a solver that has converged, unless told otherwise."""
    config = physics_environment(name)
    physics = dataclasses.replace(config.physics, iterations=iterations, ls_iterations=20)
    return dataclasses.replace(config, physics=physics)


def states_in_contact(world, seed=0):
    """States along a C MuJoCo rollout, with the control of each and the state C MuJoCo comes to next."""
    model, substeps = world.engine.model, world.config.physics.substeps
    start = jax.jit(world.reset)(jax.random.key(seed)).pipeline_state.physics
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    data.qpos[:], data.mocap_pos[:] = start.qpos, start.mocap_pos
    if world.config.boxes:  # the first box against the body, the others against it
        for i in range(world.config.boxes.count):
            address = model.jnt_qposadr[model.body_jntadr[model.body(f"box{i}").id]]
            data.qpos[address : address + 3] = [data.qpos[0] + 0.449 + 0.499 * i, data.qpos[1], 0.02 * i]
    if world.config.body == "humanoid":
        data.qpos[2:7] = [0.095, np.sqrt(0.5), 0.0, -np.sqrt(0.5), 0.0]
    data.qpos[2] -= 0.002  # pressed into the ground: at a distance of 0 rounding decides what touches
    found, contacts = [], 0
    for _ in range(STEPS):
        data.ctrl[:] = rng.uniform(-1, 1, model.nu)
        before = as_state(data)
        for _ in range(substeps):
            mujoco.mj_step(model, data)
            contacts += data.ncon
        found.append((before, jnp.asarray(data.ctrl, jnp.float32), as_state(data)))
    assert contacts > STEPS
    return jax.tree.map(lambda *x: jnp.stack(x), *found)


def as_state(data):
    parts = (data.qpos, data.qvel, data.qacc_warmstart, data.mocap_pos)
    return PhysicsState(*[jnp.asarray(x, jnp.float32) for x in parts])  # pyright: ignore[reportArgumentType]


@pytest.mark.accelerator
@pytest.mark.parametrize("name", TOUCHING)
@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_each_control_step_in_contact_is_that_of_c_mujoco(name, engine):
    """Positions within 0.1 mm and 0.1 mrad after a control step, velocities within 1 %."""
    world = PhysicsWorld(load(name), engine)
    before, control, expected = states_in_contact(world)
    after, during = jax.jit(jax.vmap(world.engine.step))(before, control)
    np.testing.assert_allclose(after.qpos, expected.qpos, atol=1e-4)
    np.testing.assert_allclose(after.qvel, expected.qvel, atol=1e-2, rtol=1e-2)
    np.testing.assert_array_equal(during[:, -1], after.qpos)
    # what an accelerometer feels
    scale = np.abs(expected.qacc).max()
    np.testing.assert_allclose(after.qacc / scale, expected.qacc / scale, atol=1e-3)


@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_a_rolling_ball_stays_on_c_mujocos_path(engine):
    """Half a second in contact, from one start: within 1 mm."""
    world = PhysicsWorld(load("ball-go-to-target"), engine)
    model, data = world.engine.model, mujoco.MjData(world.engine.model)
    data.qpos[2] -= 0.002
    controls = np.random.default_rng(3).uniform(-1, 1, (20, model.nu))

    def step(state, control):
        state, _ = world.engine.step(state, control)
        return state, state.qpos

    _, path = jax.jit(lambda s, c: jax.lax.scan(step, s, c))(
        as_state(data), jnp.asarray(controls, jnp.float32)
    )
    for control, position in zip(controls, path, strict=True):
        data.ctrl[:] = control
        for _ in range(world.config.physics.substeps):
            mujoco.mj_step(model, data)
        np.testing.assert_allclose(position, data.qpos, atol=1e-3)


@pytest.mark.long
@pytest.mark.accelerator
def test_random_rollouts_have_the_same_statistics():
    """A second of 128 Ants: mean height and speed of the engines agree within 5 %, contacts within 10 %."""
    found = {}
    for engine in ("mujoco", "mjx"):
        world = PhysicsWorld(physics_environment("ant-go-to-target"), engine)
        start = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), 128))
        actions = jax.random.uniform(jax.random.key(1), (40, 128, 8), minval=-1.0, maxval=1.0)

        def step(state, action, world=world):
            state = jax.vmap(world.step)(state, action)
            physics = state.pipeline_state.physics
            feet = state.obs["proprioception"][:, -4:]
            speed = jnp.linalg.norm(physics.qvel[:, :2], axis=-1)
            return state, jnp.stack([physics.qpos[:, 2].mean(), speed.mean(), feet.mean()])

        _, rows = jax.jit(lambda s, a, step=step: jax.lax.scan(step, s, a))(start, actions)
        found[engine] = np.asarray(rows)[10:].mean(0)
    np.testing.assert_allclose(found["mjx"][:2], found["mujoco"][:2], rtol=0.05)
    np.testing.assert_allclose(found["mjx"][2], found["mujoco"][2], rtol=0.1)


def test_mujoco_steps_do_not_depend_on_the_batch():
    world = PhysicsWorld(physics_environment("ant-move-box-easy"), "mujoco")
    physics = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), 6)).pipeline_state.physics
    control = jax.random.uniform(jax.random.key(1), (6, 8))
    whole = jax.jit(jax.vmap(world.engine.step))(physics, control)
    pairs = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (physics, control))
    nested = jax.jit(jax.vmap(jax.vmap(world.engine.step)))(*pairs)
    one = jax.jit(world.engine.step)(*jax.tree.map(lambda x: x[4], (physics, control)))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), nested, whole)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[4]), one, whole)


@pytest.mark.accelerator
@pytest.mark.skipif(
    importlib.util.find_spec("warp") is None, reason="Warp, an optional extra, is not installed"
)
def test_warp_steps_are_those_of_c_mujoco():
    """In contact; nested batches as well, because Warp's buffers are shared by all worlds."""
    world = PhysicsWorld(
        load("ball-move-box-easy"), "warp"
    )  # of box against box it chooses other contact points
    before, control, expected = states_in_contact(world)
    pairs = jax.tree.map(lambda x: x.reshape(2, STEPS // 2, *x.shape[1:]), (before, control))
    after, _ = jax.jit(jax.vmap(jax.vmap(world.engine.step)))(*pairs)
    qpos, qvel = (x.reshape(STEPS, -1) for x in (after.qpos, after.qvel))
    np.testing.assert_allclose(qpos, expected.qpos, atol=1e-4)
    np.testing.assert_allclose(qvel, expected.qvel, atol=1e-2, rtol=1e-2)


@pytest.mark.accelerator
@pytest.mark.skipif(
    importlib.util.find_spec("warp") is None, reason="Warp, an optional extra, is not installed"
)
def test_warp_can_be_traced_twice():
    """Training does, for shapes and for the program: what is kept of the first must not be of its trace."""
    world = PhysicsWorld(physics_environment("ball-go-to-target"), "warp")
    physics = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), 3)).pipeline_state.physics
    step = jax.vmap(world.engine.step)
    shapes, _ = jax.eval_shape(step, physics, jnp.zeros((3, 2)))
    after, _ = jax.jit(step)(physics, jnp.zeros((3, 2)))
    assert shapes.qpos.shape == after.qpos.shape


def test_auto_is_mujoco_on_a_cpu_and_mjx_elsewhere():
    expected = "mujoco" if jax.default_backend() == "cpu" else "mjx"
    assert PhysicsWorld(physics_environment("ball-go-to-target")).engine.name == expected


def test_warp_says_when_it_is_missing(monkeypatch, ball):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mujoco-mjx\[warp\]"):
        make_engine("warp", ball.engine.model, 5)


def test_a_fault_leaves_no_log_file(tmp_path, monkeypatch):
    """MuJoCo's own warnings would be appended to MUJOCO_LOG.TXT where the user is."""
    monkeypatch.chdir(tmp_path)
    world = PhysicsWorld(physics_environment("ball-go-to-target"), "mujoco")
    physics = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics
    after, _ = jax.jit(world.engine.step)(physics.replace(qvel=physics.qvel.at[0].set(np.nan)), jnp.zeros(2))
    assert not np.isfinite(after.qvel).all()
    assert not list(tmp_path.iterdir())
