"""What the camera sees, against MuJoCo's own renderer and its rays."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from loading import physics_environment

from mjx_hkl.environments import PhysicsWorld, load_environment
from mjx_hkl.environments.cameras import CameraConfig
from mjx_hkl.environments.scene import Marks
from mjx_hkl.errors import UserError

BODIES = ("ball", "ant", "quadruped")
NAMES = [
    f"{body}-{task}-vision" for body in BODIES for task in ("go-to-target", "move-box-hard", "gather-boxes")
]
POSES = 4


@functools.cache
def load(name):
    return PhysicsWorld(physics_environment(name), "mujoco")


def poses(name):
    """Starts with their joints at random, and legged bodies tilted; with their marks."""
    world, rng = load(name), np.random.default_rng(0)
    model = world.engine.model
    states = jax.jit(jax.vmap(world._start))(jax.random.split(jax.random.key(0), POSES))
    marks = jax.vmap(world.marks)(states)
    for i in range(POSES):
        qpos = np.array(states.physics.qpos[i])
        for j in range(model.njnt):
            if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE and model.jnt_limited[j]:
                qpos[model.jnt_qposadr[j]] = rng.uniform(*model.jnt_range[j])
            if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_FREE:
                at = model.jnt_qposadr[j] + 3
                qpos[at : at + 4] += rng.uniform(-0.1, 0.1, 4)
                qpos[at : at + 4] /= np.linalg.norm(qpos[at : at + 4])
        yield qpos, np.array(states.physics.mocap_pos[i]), jax.tree.map(lambda x: x[i], marks)  # noqa: B023


def surfaces(world, qpos, mocap_pos, marks):
    found = _surfaces_of(world)(
        jnp.asarray(qpos, jnp.float32), jnp.asarray(mocap_pos, jnp.float32), marks or hidden(world)
    )
    return np.asarray(found.depth), np.asarray(found.number)


def hidden(world):
    count = world._camera._num_marks
    return Marks(jnp.zeros((count, 3)), jnp.zeros(count), jnp.zeros(count))


@functools.cache
def _surfaces_of(world):
    return jax.jit(world._camera.rays.surfaces)


def place(world, qpos, mocap_pos):
    data = mujoco.MjData(world.engine.model)
    data.qpos[:], data.mocap_pos[:] = qpos, mocap_pos
    mujoco.mj_forward(world.engine.model, data)
    return data


@pytest.mark.parametrize("name", [*NAMES, "ant-gap"])
def test_depth_is_that_of_mujocos_rays(name):
    world = load(name) if name != "ant-gap" else _gap_world()
    for qpos, mocap_pos, _ in _gap_poses(world) if name == "ant-gap" else poses(name):
        data, model = place(world, qpos, mocap_pos), world.engine.model
        depth, _ = surfaces(world, qpos, mocap_pos, hidden(world))
        camera = model.camera("egocentric").id
        axes, eye = data.cam_xmat[camera].reshape(3, 3), data.cam_xpos[camera]
        rays = np.stack(world._camera.rays._rays, axis=-1) @ axes.T
        expected = np.array(
            [mujoco.mj_ray(model, data, eye, ray, None, 1, -1, np.zeros(1, np.int32)) for ray in rays]
        )
        sky = expected < 0
        assert np.mean(sky == (depth > 1e8)) > 0.99
        both = ~sky & (depth < 1e8)
        close = np.abs(depth[both] - expected[both]) < 1e-3 * expected[both]
        assert close.mean() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_segmentation_and_depth_are_those_of_mujocos_renderer(name):
    world = load(name)
    model = world.engine.model
    model.vis.quality.offsamples = 0
    model.vis.quality.numslices, model.vis.quality.numstacks = 128, 64
    try:
        renderer = mujoco.Renderer(model, 64, 64)
    except Exception as error:  # what a missing OpenGL raises differs between backends
        pytest.skip(f"no OpenGL: {error}")
    names = world._camera.rays.names
    with renderer:
        for qpos, mocap_pos, marks in poses(name):
            data = place(world, qpos, mocap_pos)
            renderer.enable_segmentation_rendering()
            _show(renderer, data, marks)
            seen = renderer.render()[..., 0].ravel()
            renderer.disable_segmentation_rendering()
            renderer.enable_depth_rendering()
            _show(renderer, data, marks)
            expected_depth = renderer.render().ravel()
            renderer.disable_depth_rendering()
            depth, number = surfaces(world, qpos, mocap_pos, marks)
            expected = np.array([_name(model, i) for i in seen])
            ours = np.where(depth > model.vis.map.zfar * model.stat.extent, "sky", np.array(names)[number])
            close = np.abs(depth - expected_depth) < 0.01 * expected_depth
            # Where limbs join, the surfaces of two are the same: either may be the nearer one.
            joint = close & _is_limb(expected) & _is_limb(ours)
            assert np.mean((expected == ours) | joint) >= 0.99
            same = (expected == ours) & (ours != "sky")
            assert np.mean(close[same]) >= 0.99


def _show(renderer, data, marks):
    renderer.update_scene(data, camera="egocentric")
    if marks is None:
        return
    for i, (position, radius, _) in enumerate(zip(*marks, strict=True)):
        scene = renderer.scene
        geom = scene.geoms[scene.ngeom]
        size = np.array([max(float(radius), 1e-6), 1e-4, 0.0])
        kind = mujoco.mjtGeom.mjGEOM_CYLINDER
        mujoco.mjv_initGeom(
            geom, kind, size, np.asarray(position, float), np.eye(3).ravel(), np.ones(4, np.float32)
        )
        geom.segid, geom.objid, geom.objtype = scene.ngeom, 1000 + i, mujoco.mjtObj.mjOBJ_UNKNOWN
        scene.ngeom += 1


def _name(model, geom):
    return "sky" if geom < 0 else f"mark{geom - 1000}" if geom >= 1000 else model.geom(geom).name


def _is_limb(names):
    return np.array([not n.startswith(("sky", "floor", "mark", "box")) for n in names])


@functools.cache
def _gap_world():
    return PhysicsWorld(dataclasses.replace(physics_environment("ant-gap"), camera=CameraConfig()), "mujoco")


def _gap_poses(world):
    states = jax.vmap(world._start)(jax.random.split(jax.random.key(0), POSES))
    for i in range(POSES):
        yield np.array(states.physics.qpos[i]), np.array(states.physics.mocap_pos[i]), None


def test_pictures_are_drawn_again_from_their_state():
    world = load("ball-go-to-near-target-vision")
    state = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), 3))
    state = jax.jit(jax.vmap(world.step))(state, jnp.ones((3, 2)))
    np.testing.assert_array_equal(jax.jit(world.drawing)(state.obs), state.obs["vision"])


def test_frames_are_stacked_oldest_first_and_a_start_fills_them():
    config = physics_environment("ball-go-to-near-target-vision")
    camera = dataclasses.replace(
        config.camera, frames=3, checkered=True, random_colours=0.5, random_light=1.0
    )
    world = PhysicsWorld(dataclasses.replace(config, camera=camera), "mujoco")
    state = jax.jit(world.reset)(jax.random.key(0))
    first = state.obs["vision"]
    assert first.shape == (32, 32, 9)
    np.testing.assert_array_equal(first[..., :3], first[..., 6:])
    for _ in range(2):
        state = jax.jit(world.step)(state, jnp.ones(2))
    np.testing.assert_array_equal(state.obs["vision"][..., :3], first[..., :3])
    assert (state.obs["vision"][..., 6:] != first[..., :3]).any()
    np.testing.assert_array_equal(jax.jit(world.drawing)(state.obs), state.obs["vision"])


def test_the_selected_target_is_the_black_one():
    world = load("ball-go-to-near-target-vision")
    qpos, mocap_pos, marks = next(iter(poses("ball-go-to-near-target-vision")))
    ahead = jnp.asarray(qpos[:2]) + 1.5 * jnp.array([jnp.cos(qpos[3]), jnp.sin(qpos[3])])
    for selected in (0, 1):
        one = marks._replace(
            position=marks.position.at[:, :2].set(50.0).at[0, :2].set(ahead),
            selected=jax.nn.one_hot(selected, 3),
        )
        arguments = (jnp.asarray(qpos, jnp.float32), jnp.asarray(mocap_pos, jnp.float32), one)
        picture = jax.jit(world._camera.rays.picture)(*arguments, world._camera.rays.look())
        black = (np.asarray(picture) == 0).all(-1)
        assert black.any() == (selected == 0)


@pytest.mark.parametrize(("change", "words"), [({"name": "third_eye"}, "has no camera 'third_eye'")])
def test_a_camera_that_a_body_lacks_is_said_in_a_line(change, words):
    config = physics_environment("ball-go-to-target-vision")
    config = dataclasses.replace(config, camera=dataclasses.replace(config.camera, **change))
    with pytest.raises(UserError, match=words):
        PhysicsWorld(config, "mujoco")


def test_the_warp_renderer_is_refused_in_a_line():
    with pytest.raises(UserError, match="renderer 'warp'"):
        PhysicsWorld(physics_environment("ball-go-to-target-vision"), "mujoco", "warp")


def test_a_size_of_zero_is_said_in_a_line(tmp_path):
    file = tmp_path / "blind.toml"
    file.write_text('extends = "ball-go-to-target"\n[camera]\nwidth = 0\n')
    with pytest.raises(UserError, match="width"):
        load_environment(str(file))
