"""What an agent sees, against MuJoCo's own renderer and its own rays."""

import dataclasses
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from loading import physics_environment
from worlds import load

from mjx_hkl import resources
from mjx_hkl.environments import PhysicsWorld, load_environment, make_world
from mjx_hkl.environments.cameras import CameraConfig
from mjx_hkl.errors import UserError

SIZE = 64
WORLDS = [
    f"{body}-{task}"
    for body in ("ball", "ant", "quadruped")
    for task in ("go-to-near-target", "move-box-hard", "gather-boxes", "move-box-and-go-to-target")
] + ["ant-gap", "quadruped-gap", "humanoid-walk"]


def seeing(name: str, renderer: str = "auto", **camera: Any) -> PhysicsWorld:
    config = load(name).config
    return PhysicsWorld(dataclasses.replace(config, camera=CameraConfig(**camera)), "mujoco", renderer)


def moving(name: str, **camera: Any) -> PhysicsWorld:
    """To make states of: each step draws, here as little as may be."""
    return seeing(name, **{**camera, "width": 8, "height": 8})


def drawing_of(world):
    assert world.drawing is not None
    return jax.jit(world.drawing)


def traced(world, states):
    camera = world._camera
    return jax.device_get(jax.jit(jax.vmap(lambda state: camera.renderer.trace(camera.seen(state))))(states))


def states_of(world, count, steps=15):
    """After some random actions: joints are bent, and bodies have moved and turned."""
    keys = jax.random.split(jax.random.key(0), count)
    states = jax.jit(jax.vmap(world.reset))(keys)
    step = jax.jit(jax.vmap(world.step))
    for key in jax.random.split(jax.random.key(1), steps):
        states = step(states, jax.random.uniform(key, (count, world.action_size), minval=-1, maxval=1))
    return states


def mujocos(world, states, folder):
    """Depth and geom of each pixel by MuJoCo's renderer, marks as pictures draw them."""
    model, camera, inner = world.engine.model, world.config.camera, states.pipeline_state
    mujoco.mj_saveModel(model, str(folder / "model.mjb"))
    marks = jax.vmap(world.marks)(inner)
    count = len(states.reward)
    np.savez(
        folder / "states.npz",
        qpos=inner.physics.qpos,
        mocap_pos=inner.physics.mocap_pos,
        positions=np.zeros((count, 0, 3)) if marks is None else marks.position,
        radii=np.zeros((count, 0)) if marks is None else marks.radius,
        height=camera.height,
        width=camera.width,
    )
    for backend in ("egl", "osmesa"):
        command = [sys.executable, str(Path(__file__).parent / "mujoco_pictures.py")]
        command += [str(folder / name) for name in ("model.mjb", "states.npz", "out.npz")]
        done = subprocess.run(
            command, env={**os.environ, "MUJOCO_GL": backend}, capture_output=True, text=True
        )
        if done.returncode == 0:
            out = np.load(folder / "out.npz")
            return out["depth"], out["geom"]
        if "OpenGL" not in done.stderr and "GL_" not in done.stderr:
            pytest.fail(done.stderr)
    return pytest.skip(f"no OpenGL: {done.stderr.splitlines()[-1]}")


@pytest.mark.parametrize("name", WORLDS)
def test_pictures_show_what_mujocos_renderer_shows(name, tmp_path):
    world = seeing(name, width=SIZE, height=SIZE)
    states = states_of(moving(name), 8)
    depth, geom = mujocos(world, states, tmp_path)
    _, ours_depth, shape = traced(world, states.obs["vision_state"])
    assert (shape == geom).mean() >= 0.99
    solid = (shape == geom) & (geom >= 0)
    errors = np.abs(ours_depth - depth)[solid] / depth[solid]
    assert np.median(errors) < 0.001
    assert np.quantile(errors, 0.99) < 0.01


@pytest.mark.parametrize("name", ["ball-move-box-hard", "ant-gather-boxes", "quadruped-gap"])
def test_depths_are_those_of_mujocos_rays(name):
    """Which know no targets, so these are not compared."""
    world = seeing(name, width=24, height=24)
    states = states_of(world, 2)
    model, inner = world.engine.model, states.pipeline_state
    data, no_light = mujoco.MjData(model), [jnp.zeros(())] * 3
    rays = world._camera.renderer.view.rays(no_light)
    _, depths, shapes = traced(world, states.obs["vision_state"])
    for i, (depth, shape) in enumerate(zip(depths.reshape(2, -1), shapes.reshape(2, -1), strict=True)):
        data.qpos[:], data.mocap_pos[:] = inner.physics.qpos[i], inner.physics.mocap_pos[i]
        mujoco.mj_forward(model, data)
        camera, hit = model.camera("egocentric").id, np.zeros(1, np.int32)
        axes, eye = data.cam_xmat[camera].reshape(3, 3), data.cam_xpos[camera]
        directions = np.stack([rays.x, rays.y, -np.ones_like(rays.x)], axis=-1) @ axes.T
        expected = np.array(
            [mujoco.mj_ray(model, data, eye, ray, None, 1, -1, hit) for ray in directions], np.float32
        )
        is_geom = (shape >= 0) & (shape < model.ngeom)
        close = np.abs(depth - expected) < 1e-3 * expected
        assert close[is_geom].mean() > 0.99
        assert is_geom.mean() > 0.3


@pytest.mark.parametrize("name", [n for n in resources.names("envs", ".toml") if n.endswith("-vision")])
def test_worlds_that_are_seen_are_those_that_are_told_with_a_camera(name):
    seen, told = load_environment(name), load_environment(name.removesuffix("-vision"))
    assert seen.camera is not None
    assert dataclasses.replace(seen, camera=None) == told


def test_colours_and_light_are_drawn_at_an_episodes_start_and_stay():
    given: dict[str, Any] = {"width": 16, "height": 16}
    plain = seeing("ball-go-to-near-target", **given)
    varied = seeing("ball-go-to-near-target", **given, random_colours=0.9, random_light=0.9)
    keys = jax.random.split(jax.random.key(0), 2)
    sky = [np.asarray(jax.jit(jax.vmap(w.reset))(keys).obs["vision"][:, 12:]) for w in (plain, varied)]
    assert not np.array_equal(sky[0], sky[1])
    size = varied.observation_specs["vision_state"].size - plain.observation_specs["vision_state"].size
    states = states_of(varied, 2, steps=0), states_of(varied, 2, steps=5)
    drawn = [np.asarray(s.obs["vision_state"][:, -size:]) for s in states]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0][0], drawn[0][1])


def test_the_target_that_is_asked_for_is_black_and_the_others_are_not():
    world = seeing("ball-go-to-near-target", width=64, height=64)
    states = states_of(world, 64, steps=0)
    shapes, first = traced(world, states.obs["vision_state"]).geom, world.engine.model.ngeom
    selected = np.asarray(states.pipeline_state.task.selected)
    images = np.asarray(states.obs["vision"])
    assert (shapes >= first).any()
    for shape, image, asked in zip(shapes, images, selected, strict=True):
        assert (image[shape == first + asked] == 0).all()
        for other in {0, 1, 2} - {asked}:
            assert (image[shape == first + other].max(-1, initial=255) > 60).all()


def test_pictures_are_drawn_again_from_their_state():
    world = seeing("ball-go-to-near-target-vision")
    state = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), 3))
    state = jax.jit(jax.vmap(world.step))(state, jnp.ones((3, 2)))
    np.testing.assert_array_equal(drawing_of(world)(state.obs), state.obs["vision"])


def test_frames_are_stacked_oldest_first_and_a_start_fills_them():
    config = physics_environment("ball-go-to-near-target-vision")
    assert config.camera is not None
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
    np.testing.assert_array_equal(drawing_of(world)(state.obs), state.obs["vision"])


@pytest.mark.parametrize(("change", "words"), [({"name": "third_eye"}, "has no camera 'third_eye'")])
def test_a_camera_that_a_body_lacks_is_said_in_a_line(change, words):
    config = physics_environment("ball-go-to-target-vision")
    assert config.camera is not None
    config = dataclasses.replace(config, camera=dataclasses.replace(config.camera, **change))
    with pytest.raises(UserError, match=words):
        PhysicsWorld(config, "mujoco")


def test_a_camera_that_is_not_fixed_to_the_torso_is_said_in_a_line(tmp_path):
    text = resources.find("body", "ball", "envs/bodies", ".xml").read_text()
    for place in ('mode="trackcom" pos="0.15 0 0.9"', 'mode="targetbody" target="shell" pos="0.15 0 0.9"'):
        (tmp_path / "follower.xml").write_text(text.replace('pos="0.15 0 0.9"', place))
        file = tmp_path / "followed.toml"
        file.write_text('extends = "ball-go-to-target"\nbody = "follower.xml"\n[camera]\nwidth = 8\n')
        with pytest.raises(UserError, match="must be fixed to the body's torso"):
            make_world(str(file))


def test_what_no_ray_is_cast_at_is_said_in_a_line(tmp_path):
    text = resources.find("body", "ball", "envs/bodies", ".xml").read_text()
    mesh = '<asset><mesh name="m" vertex="0 0 0  .1 0 0  0 .1 0  0 0 .1"/></asset><worldbody>'
    neck, hat = '<geom name="neck"', '<geom name="hat" type="mesh" mesh="m"/>'
    text = text.replace("<worldbody>", mesh).replace(neck, hat + neck)
    (tmp_path / "hatted.xml").write_text(text)
    file = tmp_path / "hat.toml"
    file.write_text('extends = "ball-go-to-target"\nbody = "hatted.xml"\n[camera]\nwidth = 8\n')
    with pytest.raises(UserError, match="geom 'hat' is a mesh, which no ray is cast at here"):
        make_world(str(file))


needs_warp = pytest.mark.skipif(
    importlib.util.find_spec("warp") is None, reason="Warp, an optional extra, is not installed"
)


@needs_warp
@pytest.mark.parametrize(
    ("name", "camera"),
    [
        ("ball-go-to-near-target", {}),
        ("ball-move-box-hard", {"random_colours": 0.7, "random_light": 0.8, "width": 48}),
        ("ant-gather-boxes", {"checkered": False, "fovy": 60.0}),
        ("quadruped-gap", {}),
        ("ball-move-box-and-go-to-target", {"drawn": ("arena", "boxes", "targets"), "ringed": False}),
    ],
)
def test_warp_draws_the_pictures_that_rays_draw(name, camera):
    """Colours too, to one level of 255, but for pixels on edges."""
    ours, theirs = seeing(name, **camera), seeing(name, "warp", **camera)
    states = states_of(moving(name, **camera), 8).obs["vision_state"]
    image, depth, shape = traced(ours, states)
    their_image, their_depth, their_shape = traced(theirs, states)
    assert (shape == their_shape).mean() >= 0.999
    solid = (shape == their_shape) & (shape >= 0)
    assert np.quantile(np.abs(depth - their_depth)[solid] / depth[solid], 0.99) < 0.001
    assert (np.abs(image.astype(int) - their_image.astype(int)).max(-1) <= 1).mean() >= 0.998
    np.testing.assert_array_equal(drawing_of(theirs)({"vision_state": states}), their_image)


@needs_warp
def test_warp_shows_what_mujocos_renderer_shows(tmp_path):
    world = seeing("ant-move-box-hard", "warp", width=SIZE, height=SIZE)
    states = states_of(moving("ant-move-box-hard"), 8)
    depth, geom = mujocos(world, states, tmp_path)
    _, warp_depth, shape = traced(world, states.obs["vision_state"])
    assert (shape == geom).mean() >= 0.99
    solid = (shape == geom) & (geom >= 0)
    assert np.quantile(np.abs(warp_depth - depth)[solid] / depth[solid], 0.99) < 0.01


@needs_warp
def test_warps_worlds_are_not_shared_by_devices():
    config = dataclasses.replace(load("ball-go-to-near-target").config, camera=CameraConfig(width=8))
    assert PhysicsWorld(config, "mjx").not_shared == ""
    assert "draw all worlds" in PhysicsWorld(config, "mjx", "warp").not_shared


def test_the_warp_renderer_says_when_it_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"renderer 'warp' is not installed; pip install 'mujoco-mjx\[warp\]'"
    ):
        seeing("ball-go-to-target", "warp")


def test_a_renderer_that_is_none_is_said_in_a_line():
    with pytest.raises(UserError, match="renderer 'opengl'"):
        seeing("ball-go-to-target", "opengl")


def test_what_is_drawn_can_be_chosen():
    """Without its part a picture has sky where that was, and nothing else changes."""
    name = "ball-move-box-hard"
    whole, without = seeing(name), seeing(name, drawn=("arena", "body", "targets"))
    states = states_of(whole, 8, steps=0).obs["vision_state"]
    before, after = traced(whole, states), traced(without, states)
    boxes = [whole.engine.model.geom(f"box{i}").id for i in range(whole.boxes.count)]
    was_box = np.isin(before.geom, boxes)
    assert was_box.any()
    assert not np.isin(after.geom, boxes).any()
    np.testing.assert_array_equal(before.image[~was_box], after.image[~was_box])


def test_colours_of_targets_and_sky_are_those_of_the_table():
    world = seeing(
        "ball-go-to-near-target", ringed=False, target_colour=(0.0, 0.0, 1.0), sky_colour=(1.0, 1.0, 0.0)
    )
    state = states_of(world, 16, steps=0).obs["vision_state"]
    image, _, shape = traced(world, state)
    first = world.engine.model.ngeom
    assert (image[shape == -1] == [255, 255, 0]).all()
    blue = image[shape >= first]
    assert (blue[:, :2] == 0).all()
    assert (blue[:, 2] > 100).any()


def test_a_size_of_zero_is_said_in_a_line(tmp_path):
    file = tmp_path / "blind.toml"
    file.write_text('extends = "ball-go-to-target"\n[camera]\nwidth = 0\n')
    with pytest.raises(UserError, match="width"):
        load_environment(str(file))
