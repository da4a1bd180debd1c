"""Every environment of the paper: starts, ends, and what is and is not observed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import SEEDS, jitted, load, observe, reset, targets_of

from mjx_hkl import resources
from mjx_hkl.environments import VectorEnvironment

NAMES = [name for name in resources.names("envs", ".toml") if not name.startswith("grid-")]
EVERY = [name for name in NAMES if not name.endswith(("-vision", "-varied"))]  # the same worlds, and more
WITH_BOXES = [name for name in EVERY if "box" in name]


def test_all_tasks_are_there_for_all_bodies_they_make_sense_for():
    tasks = "go-to-target move-box-easy move-box-mid move-box-hard move-box-heavy gather-boxes"
    tasks += " move-box-or-go-to-target move-box-and-go-to-target"
    expected = {f"{body}-{task}" for body in ("ball", "ant", "quadruped") for task in tasks.split()}
    nearer = {f"{body}-go-to-near-target" for body in ("ball", "ant", "quadruped")}  # for two CPU cores
    nearer |= {"ant-go-to-mid-target", "quadruped-go-to-mid-target", "ant-near-gap"}
    humanoid = {"humanoid-go-to-target", "humanoid-go-to-near-target"}
    walk = {"ant-walk", "quadruped-walk", "humanoid-walk", "ant-coarse-walk"}  # a Ball cannot go sideways
    track = {f"{kind}-track-velocity" for kind in ("ant", "quadruped", "quadruped-rough")}
    assert set(EVERY) == expected | {"ant-gap", "quadruped-gap"} | nearer | humanoid | walk | track


@pytest.mark.parametrize("name", EVERY)
def test_pairs_have_a_movable_body_and_nothing_else_collides(name):
    world = load(name)
    model = world.engine.model
    assert not model.geom_contype.any()
    assert not model.geom_conaffinity.any()
    movable = model.body_weldid[model.geom_bodyid] > 0
    movable &= model.body_mocapid[model.geom_bodyid] < 0
    assert (movable[model.pair_geom1] | movable[model.pair_geom2]).all()
    feet = {"ball": 1, "ant": 5, "quadruped": 5, "humanoid": 15}[world.config.body]
    ground = 2 if "gap" in name else 1
    boxes = world.config.boxes.count if world.config.boxes else 0
    assert model.npair == feet * (ground + boxes) + boxes * (boxes - 1) // 2
    assert set(world.config.low_level_information) <= set(world.observation_size)


@pytest.mark.parametrize("name", WITH_BOXES)
@settings(deadline=None, max_examples=15)
@given(SEEDS)
def test_any_manipulation_starts_inside_apart_and_unsolved(name, seed):
    world, state = load(name), reset(name, seed)
    task, config = state.pipeline_state.task, world.config
    boxes = np.asarray(world.boxes.poses(state.pipeline_state.physics.qpos).position)[:, :2]
    body = np.asarray(world.body.frame(state.pipeline_state.physics).position)[:2]
    limit = config.arena.half_width - config.boxes.clearance
    assert (np.abs(boxes) <= limit + 1e-5).all()
    assert (np.abs(body) <= config.arena.half_width + 1e-5).all()
    away = np.linalg.norm(boxes - body, axis=1)
    assert (away > config.boxes.radius + world.body.radius).all()  # no touch at any heading
    for i in range(len(boxes)):
        for j in range(i):
            assert np.linalg.norm(boxes[i] - boxes[j]) > 2 * config.boxes.radius
    if "gather" not in name:
        targets = np.asarray(targets_of(task).positions)
        assert (np.abs(targets) <= limit + 1e-5).all()  # where a box can go
        apart = np.linalg.norm(boxes[:, None] - targets[None], axis=-1)
        assert (apart >= world.task.separation - 1e-4).all()
        if "go-to" in name:
            to_body = np.linalg.norm(targets - body, axis=1)
            assert (to_body >= world.task.body_separation - 1e-4).all()
    after = jitted(name, "step")(state, jnp.zeros(world.action_size))
    assert not after.metrics["success"]
    assert not after.done
    # nothing pushes: all boxes are still where they were
    boxes_after = world.boxes.poses(after.pipeline_state.physics.qpos).position[:, :2]
    np.testing.assert_allclose(boxes_after, boxes, atol=1e-3)


@pytest.mark.parametrize("name", ["ball-move-box-hard", "ant-move-box-and-go-to-target", "ball-gather-boxes"])
@settings(deadline=None, max_examples=10)
@given(SEEDS, st.floats(-3, 3), st.floats(-5, 5), st.floats(-5, 5))
def test_what_is_observed_does_not_change_when_everything_moves_together(name, seed, turn, dx, dy):
    """So that no group tells where in the world the body is, or where it heads."""
    state = reset(name, seed)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    world = load(name)
    cos, sin = np.cos(turn), np.sin(turn)
    rotation, shift = np.array([[cos, -sin], [sin, cos]], np.float32), np.array([dx, dy], np.float32)
    frame = world.body.frame(physics)
    qpos = world.body.place(
        physics.qpos, jnp.asarray(rotation @ frame.position[:2] + shift), frame.heading + turn
    )
    poses = world.boxes.poses(physics.qpos)
    headings = jnp.arctan2(poses.rotation[:, 1, 0], poses.rotation[:, 0, 0])
    qpos = world.boxes.place(qpos, poses.position[:, :2] @ rotation.T + shift, headings + turn)
    if task != ():
        moved = targets_of(task).replace(positions=targets_of(task).positions @ rotation.T + shift)
        task = task.replace(targets=moved)
    before = observe(name, physics, state.pipeline_state.task)
    after = observe(name, physics.replace(qpos=qpos), task)
    for group in before:
        np.testing.assert_allclose(after[group], before[group], atol=2e-4)


@pytest.mark.parametrize("task", ["go-to-target", "move-box-hard", "move-box-or-go-to-target"])
def test_what_a_high_level_takes_along_is_the_same_on_every_body(task):
    """§7.2: targets, boxes and instruction, but for how high above the ground a body's coordinates begin."""
    shared = reset(f"ball-{task}", 3).pipeline_state.task
    seen, height = {}, {}
    bodies = ("ball", "ant", "quadruped") + ("humanoid",) * (task == "go-to-target")
    for body in bodies:
        world = load(f"{body}-{task}")
        physics = reset(f"{body}-{task}", 3).pipeline_state.physics
        qpos = world.body.place(physics.qpos, jnp.array([0.3, -0.4]), jnp.asarray(0.7))
        if world.config.boxes:
            places = jnp.array([[1.0, 0.2], [-0.8, 0.9]])[: world.config.boxes.count]
            qpos = world.boxes.place(qpos, places, jnp.array([0.4, -1.0])[: len(places)])
        physics = physics.replace(qpos=qpos)
        seen[body] = observe(f"{body}-{task}", physics, shared)
        height[body] = world.body.frame(physics).position[2]
    for body in bodies[1:]:
        for group in seen["ball"].keys() - {"proprioception"}:
            lower = (height[body] - height["ball"]) / world.config.task.distance_unit
            apart = seen["ball"][group] - seen[body][group]
            np.testing.assert_allclose(jnp.minimum(abs(apart), abs(apart - lower)), 0.0, atol=1e-6)


@pytest.mark.parametrize("name", ["ant-gap", "ball-move-box-hard", "ball-move-box-and-go-to-target"])
def test_truncation_keeps_discount_and_redraws_everything(name):
    environment = VectorEnvironment(load(name), 3, episode_length=2)
    step = jax.jit(environment.step)
    state = jax.jit(environment.reset)(jax.random.key(0))
    first = state.env.pipeline_state
    for i in range(2):
        state, timestep = step(state, jnp.zeros((3, load(name).action_size)), jax.random.key(i))
    np.testing.assert_array_equal(timestep.is_last, np.ones(3))
    np.testing.assert_array_equal(timestep.discount, np.ones(3))
    again = state.env.pipeline_state
    drawn = [
        (first.physics.mocap_pos, again.physics.mocap_pos)
    ]  # the gap; a body always starts at one place there
    if name != "ant-gap":
        drawn = [(first.physics.qpos, again.physics.qpos), (first.task, again.task)]
    for before, after in drawn:
        apart = [np.abs(x - y) for x, y in zip(*map(jax.tree.leaves, (before, after)), strict=True)]
        assert max(x.max(initial=0.0) for x in apart) > 0.01


def test_first_places_are_uniform_in_their_square():
    """Kolmogorov-Smirnov against scipy's uniform distribution; the lattice must not show."""
    from scipy import stats

    name = "ball-go-to-target"
    states = jax.jit(jax.vmap(load(name).reset))(jax.random.split(jax.random.key(0), 2000))
    positions = np.asarray(states.pipeline_state.physics.qpos[:, :2])
    for axis in range(2):
        assert stats.kstest(positions[:, axis], stats.uniform(-4, 8).cdf).pvalue > 1e-3
