"""Bumps: their heights against MuJoCo's rays, and steps on them against C MuJoCo."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from worlds import load

from mjx_hkl.environments import PhysicsWorld, make_world
from mjx_hkl.environments.terrain import Terrain

NAME = "quadruped-rough-track-velocity"


def test_heights_are_where_mujocos_rays_meet_the_ground():
    world = load(NAME)
    model = world.engine.model
    data = mujoco.MjData(model)
    data.qpos[2] = 50.0  # out of the rays' way
    mujoco.mj_forward(model, data)
    points = np.random.default_rng(0).uniform(-7.9, 7.9, (300, 2))
    start, down = np.zeros(3), np.array([0.0, 0.0, -1.0])
    found = []
    for x, y in points:
        start[:] = x, y, 10.0
        found.append(10.0 - mujoco.mj_ray(model, data, start, down, None, 1, -1, np.zeros(1, np.int32)))
    physics = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics
    heights = world.stage.arena.height(jnp.asarray(points), physics)
    np.testing.assert_allclose(heights, found, atol=1e-4)
    assert np.ptp(found) > 0.1


def test_the_middle_is_flat_and_the_rest_as_rough_as_asked():
    arena = Terrain(size=10.0, amplitude=0.2, flat=2.0)
    places = np.linspace(-5.0, 5.0, len(arena.heights))
    away = np.hypot(*np.meshgrid(places, places))
    assert (arena.heights[away <= 2.0] == 0).all()
    rough = arena.heights[away > 3.0]
    assert np.abs(rough).max() <= 0.2
    assert rough.min() < -0.1
    assert rough.max() > 0.1
    assert (Terrain(seed=1).heights != Terrain(seed=2).heights).any()


def test_who_leaves_the_square_ends_the_episode():
    arena = Terrain(size=10.0)
    assert not arena.is_out(jnp.array([4.9, -4.9, 0.0]))
    assert arena.is_out(jnp.array([0.0, 5.1, 0.0]))
    nowhere = arena.height(jnp.array([[5.1, 0.0]]), None)  # pyright: ignore - it looks at no physics
    assert jnp.isneginf(nowhere)[0]


@pytest.mark.long
@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_a_body_stands_on_bumps(engine):
    """Dropped beside the flat place it comes to rest with its feet on the ground, on each engine."""
    world = PhysicsWorld(load(NAME).config, engine)
    state = jax.jit(world.reset)(jax.random.key(0))
    physics = state.pipeline_state.physics
    physics = physics.replace(qpos=physics.qpos.at[:3].add(jnp.array([4.0, 3.0, 0.2])))
    step = jax.jit(world.engine.step)
    for _ in range(80):
        physics, _ = step(physics, jnp.zeros(world.action_size))
    scene = world.scene(physics, physics.qpos[None])
    ground = world.stage.arena.height(scene.feet[:, :2], physics)
    above = np.asarray(scene.feet[:, 2] - ground)
    radius = world.body.foot_radius
    assert (above > radius * 0.7).all()
    assert (above < radius + 0.03).sum() >= 3
    assert np.abs(physics.qvel).max() < 0.5


def test_its_starts_are_like_those_on_a_floor():
    world = make_world(NAME, "mujoco")
    flat = make_world("quadruped-track-velocity", "mujoco")
    key = jax.random.key(3)
    one, other = (jax.jit(w.reset)(key).obs["proprioception"] for w in (world, flat))
    np.testing.assert_allclose(one[:-4], other[:-4], atol=1e-6)  # feet just touch: rounding decides
