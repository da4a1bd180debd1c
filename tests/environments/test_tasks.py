"""Every environment of the paper: starts, rewards, ends, and what is and is not observed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_hkl import resources
from mjx_hkl.environments import VectorEnvironment, World, load_environment
from mjx_hkl.environments.boxes import Poses
from mjx_hkl.environments.rotations import quaternion_matrix
from mjx_hkl.environments.tasks.manipulation import CombinedState, MoveBoxState

EVERY = resources.names("envs", ".toml")
WITH_BOXES = [name for name in EVERY if "box" in name]
SEEDS = st.integers(0, 2**31 - 1)


@functools.cache
def load(name):
    return World(load_environment(name), "mujoco")


@functools.cache
def jitted(name, method):
    return jax.jit(getattr(load(name), method))


def reset(name, seed):
    return jitted(name, "reset")(jax.random.key(seed))


def observe(name, physics, task):
    return _observer(name)(physics, task)


@functools.cache
def _observer(name):
    world = load(name)

    def function(physics, task):
        return world._observe(physics, task, world.scene(physics, physics.qpos[None]), physics.qpos)

    return jax.jit(function)


def replaced(state, physics=None, task=None):
    world = state.pipeline_state
    return state.replace(
        pipeline_state=world.replace(
            physics=world.physics if physics is None else physics, task=world.task if task is None else task
        )
    )


def targets_of(task):
    return task.targets if isinstance(task, MoveBoxState | CombinedState) else task


def test_all_tasks_are_there_for_all_bodies_they_make_sense_for():
    tasks = "go-to-target move-box-easy move-box-mid move-box-hard move-box-heavy gather-boxes"
    tasks += " move-box-or-go-to-target move-box-and-go-to-target"
    expected = {f"{body}-{task}" for body in ("ball", "ant", "quadruped") for task in tasks.split()}
    assert set(EVERY) == expected | {"ant-gap", "quadruped-gap"}


@pytest.mark.parametrize("name", EVERY)
def test_pairs_have_a_movable_body_and_nothing_else_collides(name):
    world = load(name)
    model = world.engine.model
    assert not model.geom_contype.any()
    assert not model.geom_conaffinity.any()
    movable = model.body_weldid[model.geom_bodyid] > 0
    movable &= model.body_mocapid[model.geom_bodyid] < 0
    assert (movable[model.pair_geom1] | movable[model.pair_geom2]).all()
    feet, ground = (1, 1) if world.config.body == "ball" else (5, 2 if "gap" in name else 1)
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
    limit = config.arena["size"] / 2 - config.boxes.clearance
    assert (np.abs(boxes) <= limit + 1e-5).all()
    assert (np.abs(body) <= config.arena["size"] / 2 + 1e-5).all()
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
    qpos = world.body.place(physics.qpos, rotation @ frame.position[:2] + shift, frame.heading + turn)
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


def with_box_at(name, state, distance, box=None):
    """The state with a box that far from the selected target, all other boxes where they were."""
    world, task = load(name), state.pipeline_state.task
    physics = state.pipeline_state.physics
    poses = world.boxes.poses(physics.qpos)
    box = task.box if box is None else box
    target = task.targets.positions[task.targets.selected]
    away = poses.position[box, :2] - target
    place = target + distance * away / jnp.linalg.norm(away)
    positions = poses.position[:, :2].at[box].set(place)
    return replaced(
        state, physics.replace(qpos=world.boxes.place(physics.qpos, positions, jnp.zeros(len(positions))))
    )


@pytest.mark.parametrize("name", ["ball-move-box-easy", "ball-move-box-mid", "ball-move-box-hard"])
@settings(deadline=None, max_examples=10)
@given(SEEDS, st.floats(0.0, 0.6))
def test_moving_a_box_pays_exactly_when_the_selected_one_is_there(name, seed, distance):
    if abs(distance - 0.3) < 1e-3:
        return
    state, step = reset(name, seed), jitted(name, "step")
    after = step(with_box_at(name, state, distance), jnp.zeros(2))
    solved = distance < 0.3
    # boxes may have been put into the body or each other, which pushes them: judge where it is now
    task = state.pipeline_state.task
    now = load(name).boxes.poses(after.pipeline_state.physics.qpos).position[task.box, :2]
    error = float(jnp.linalg.norm(now - task.targets.positions[task.targets.selected]))
    if abs(error - distance) < 0.01:
        assert bool(after.metrics["success"]) == (error < 0.3)
        if abs(distance - 0.3) > 0.02:
            assert bool(after.metrics["success"]) == solved
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
    config = load_environment("ball-move-box-and-go-to-target")
    world = World(dataclasses.replace(config, task=config.task | {"in_order": True}), "mujoco")
    state = jax.jit(world.reset)(jax.random.key(0))
    task, physics = state.pipeline_state.task, state.pipeline_state.physics
    goal = task.targets.positions[1 - task.targets.selected]
    there = replaced(state, physics.replace(qpos=world.body.place(physics.qpos, goal, jnp.zeros(()))))
    assert float(jax.jit(world.step)(there, jnp.zeros(2)).reward) == 0.0


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
    config = load_environment("ball-gather-boxes")
    arena = config.arena | {"size": 5.0}
    world = World(
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
    config = load_environment("ball-move-box-hard")
    config = dataclasses.replace(config, boxes=dataclasses.replace(config.boxes, joint=joint))
    world = World(config, "mujoco")
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
    varied = jax.tree.leaves((first.task, first.physics.mocap_pos, first.physics.qpos))
    assert any(
        np.abs(a - b).max() > 0.01
        for a, b in zip(
            varied, jax.tree.leaves((again.task, again.physics.mocap_pos, again.physics.qpos)), strict=True
        )
    )


def test_first_places_are_uniform_in_their_square():
    """Kolmogorov-Smirnov against scipy's uniform distribution; the lattice must not show."""
    from scipy import stats

    name = "ball-go-to-target"
    states = jax.jit(jax.vmap(load(name).reset))(jax.random.split(jax.random.key(0), 2000))
    positions = np.asarray(states.pipeline_state.physics.qpos[:, :2])
    for axis in range(2):
        assert stats.kstest(positions[:, axis], stats.uniform(-4, 8).cdf).pvalue > 1e-3


def test_heavy_boxes_are_four_times_as_heavy():
    easy, heavy = (load(f"ball-move-box-{kind}").engine.model for kind in ("easy", "heavy"))
    assert easy.body("box0").mass[0] == pytest.approx(22 / 4)
    assert heavy.body("box0").mass[0] == pytest.approx(22)
