import importlib.util
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_hkl import resources
from mjx_hkl.config import to_table
from mjx_hkl.environments import VectorEnvironment, load_environment, make_world
from mjx_hkl.environments.bodies import Body
from mjx_hkl.environments.physics import PhysicsState
from mjx_hkl.environments.placement import place_apart

BODIES = ("ball", "ant", "quadruped", "humanoid")
MASSES = {"ball": 22.0, "ant": 12.4, "quadruped": 12.4, "humanoid": 40.8}  # kg
GEARS = {"ball": [30, -50], "ant": 8 * [75], "quadruped": 12 * [75]}
LEG, ARM = [40, 40, 120, 80, 20, 20], [20, 20, 40]  # hips x, z, y, knee, ankles; shoulders, elbow
GEARS["humanoid"] = 3 * [40] + 2 * LEG + 2 * ARM
PAIRS = {"ball": 1, "ant": 5, "quadruped": 5, "humanoid": 15}


@pytest.fixture(scope="module", params=BODIES)
def world(request):
    return make_world(f"{request.param}-go-to-target")


def physics_state(data):
    """The state of C MuJoCo's data."""
    parts = (data.qpos, data.qvel, data.qacc, data.mocap_pos)
    return PhysicsState(*[jnp.asarray(x, jnp.float32) for x in parts])  # pyright: ignore[reportArgumentType]


def test_masses_gears_and_pairs_are_the_documented_ones(world):
    model, body = world.engine.model, world.config.body
    assert model.body_subtreemass[1] == pytest.approx(MASSES[body], abs=0.05)
    np.testing.assert_array_equal(model.actuator_gear[:, 0], GEARS[body])
    # only explicit pairs collide, and each has a body that can move
    assert not model.geom_contype.any()
    assert not model.geom_conaffinity.any()
    assert model.npair == PAIRS[body]
    movable = model.body_weldid[model.geom_bodyid] > 0
    assert (movable[model.pair_geom1] | movable[model.pair_geom2]).all()


DYNAMICS = """body_mass body_inertia body_ipos body_iquat body_parentid jnt_type jnt_axis jnt_pos jnt_range
jnt_limited jnt_stiffness jnt_solimp dof_damping dof_armature dof_frictionloss actuator_gear actuator_trnid
actuator_ctrlrange"""


@pytest.mark.skipif(
    importlib.util.find_spec("mujoco_playground") is None, reason="Playground is not installed"
)
def test_the_humanoid_is_dm_controls():
    """Number by number; Playground brings dm_control's file."""
    found = importlib.util.find_spec("mujoco_playground")
    assert found is not None
    assert found.origin is not None
    theirs_path = Path(found.origin).parent / "_src/dm_control_suite/xmls/humanoid.xml"
    theirs = mujoco.MjModel.from_xml_path(str(theirs_path))
    ours = mujoco.MjModel.from_xml_path("envs/bodies/humanoid.xml")
    assert (ours.nq, ours.nv, ours.nu) == (28, 27, 21)
    for name in DYNAMICS.split():
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-12, err_msg=name)
    np.testing.assert_array_equal(ours.body_pos[2:], theirs.body_pos[2:])  # the torso's is where it spawns
    np.testing.assert_array_equal(ours.body_quat, theirs.body_quat)
    cameras = {"ours": ours, "theirs": theirs}
    for name, model in cameras.items():  # on the head there, on the torso here, which is one with it
        data = mujoco.MjData(model)
        mujoco.mj_forward(model, data)
        camera = model.camera("egocentric").id
        place = data.cam_xpos[camera] - data.body("torso").xpos
        cameras[name] = [place, data.cam_xmat[camera], model.cam_fovy[camera]]
    for a, b in zip(*cameras.values(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    # each end of a sole, where a plane meets a capsule, has a sphere
    data = mujoco.MjData(ours)
    mujoco.mj_forward(ours, data)
    soles = [i for i in range(ours.ngeom) if ours.geom(i).name.endswith("sole")]
    half = data.geom_xmat[soles].reshape(-1, 3, 3)[:, :, 2] * ours.geom_size[soles, 1:2]
    ends = np.concatenate([data.geom_xpos[soles] + half, data.geom_xpos[soles] - half])
    feet = [i for i in range(ours.ngeom) if ours.geom(i).name.endswith("foot")]
    apart = np.linalg.norm(ends[:, None] - data.geom_xpos[feet], axis=-1)
    assert len(soles) * 2 == len(feet) == 8
    np.testing.assert_allclose(apart.min(axis=0), 0.0, atol=1e-12)
    np.testing.assert_array_equal(ours.geom_size[feet, 0], ours.geom_size[soles[0], 0])


@pytest.mark.parametrize("body", ["ant", "quadruped", "humanoid"])
def test_left_is_the_mirror_image_of_right(body):
    """Places and sizes; a joint turns as its mirror image does, forwards or backwards, as far."""
    model = mujoco.MjModel.from_xml_path(f"envs/bodies/{body}.xml")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    mirror = np.array([1.0, -1.0, 1.0])
    geoms = [i for i in range(model.ngeom) if "right" in model.geom(i).name]
    joints = [i for i in range(model.njnt) if "right" in model.joint(i).name]
    assert 2 * len(joints) == {"ant": 8, "quadruped": 12, "humanoid": 18}[body]
    for i in geoms:
        j = model.geom(model.geom(i).name.replace("right", "left")).id
        np.testing.assert_allclose(data.geom_xpos[j], data.geom_xpos[i] * mirror, atol=1e-9)
        np.testing.assert_array_equal(model.geom_size[j], model.geom_size[i])
    for i in joints:
        name = model.joint(i).name
        other = name.replace("right", "left")
        j = model.joint(other).id
        np.testing.assert_allclose(data.xanchor[j], data.xanchor[i] * mirror, atol=1e-9)
        sign = data.xaxis[j] @ (-mirror * data.xaxis[i])  # an axis is a pseudovector
        assert abs(sign) == pytest.approx(1.0)
        expected = np.sort(sign * model.jnt_range[i])
        if other == "left_hip_y":  # dm_control's own, ten degrees more
            expected[0] -= np.radians(10)
        np.testing.assert_allclose(model.jnt_range[j], expected, atol=1e-9)
        assert model.jnt_stiffness[j] == model.jnt_stiffness[i]
        assert model.dof_damping[model.jnt_dofadr[j]] == model.dof_damping[model.jnt_dofadr[i]]
        assert model.actuator(other).gear[0] == model.actuator(name).gear[0]


def test_frame_and_proprioception_are_those_of_mujocos_sensors(world):
    """Velocimeter, gyro and accelerometer on the torso, in C MuJoCo, at random states in the air."""
    config = world.config
    spec = mujoco.MjSpec.from_file(f"envs/bodies/{config.body}.xml")
    spec.body("torso").add_site(name="imu")
    for kind in ("VELOCIMETER", "GYRO", "ACCELEROMETER"):
        spec.add_sensor(
            name=kind,
            type=getattr(mujoco.mjtSensor, f"mjSENS_{kind}"),
            objtype=mujoco.mjtObj.mjOBJ_SITE,
            objname="imu",
        )
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0
    model = spec.compile()
    body = Body(model, config.proprioception)
    rng = np.random.default_rng(0)
    for _ in range(5):
        data = mujoco.MjData(model)
        mujoco.mj_integratePos(model, data.qpos, rng.normal(size=model.nv), 1.0)
        data.qvel[:] = rng.normal(size=model.nv)
        data.ctrl[:] = rng.uniform(-1, 1, model.nu)
        mujoco.mj_forward(model, data)
        state = physics_state(data)
        frame = body.frame(state)
        velocimeter, gyro, accelerometer = data.sensordata.reshape(3, 3)
        np.testing.assert_allclose(frame.position, data.body("torso").xpos, atol=1e-5)
        np.testing.assert_allclose(frame.rotation.ravel(), data.body("torso").xmat, atol=1e-5)
        np.testing.assert_allclose(frame.velocity @ frame.rotation, velocimeter, atol=1e-5)
        np.testing.assert_allclose(frame.angular_velocity, gyro, atol=1e-5)
        felt = (frame.acceleration - model.opt.gravity) @ frame.rotation
        np.testing.assert_allclose(felt, accelerometer, atol=1e-3)
        feet = [i for i in range(model.ngeom) if model.geom(i).name.endswith(("foot", "hand"))]
        felt = body.proprioception(state, frame, state.qpos, world.stage.arena.height)
        units = config.proprioception
        most = units.max_acceleration
        expected = [
            gyro / units.angular_velocity_unit,
            velocimeter / units.velocity_unit,
            np.clip(accelerometer / units.acceleration_unit, -most, most),
        ]
        end = len(felt) - 4 * len(feet)  # of each foot its place and its touch
        np.testing.assert_allclose(felt[end - 9 : end], np.concatenate(expected), atol=1e-4)
        if feet:
            in_world = frame.position + body.feet(state.qpos) @ frame.rotation.T
            np.testing.assert_allclose(in_world, data.geom_xpos[feet], atol=1e-5)


def test_one_control_step_is_that_of_c_mujoco(world):
    """Same model, same start in the air (no contact), same control: the same state after five substeps."""
    model, config = world.engine.model, world.config
    data = mujoco.MjData(model)
    rng = np.random.default_rng(1)
    data.qpos[2] += 2.0
    data.qvel[:] = 0.3 * rng.normal(size=model.nv)
    start = physics_state(data)
    control = rng.uniform(-1, 1, model.nu)
    data.ctrl[:] = control
    for _ in range(config.physics.substeps):
        mujoco.mj_step(model, data)
    end, _ = jax.jit(world.engine.step)(start, jnp.asarray(control, jnp.float32))
    np.testing.assert_allclose(end.qpos, data.qpos, atol=1e-4)
    np.testing.assert_allclose(end.qvel, data.qvel, atol=2e-3)


def test_it_stands_where_it_spawns(world):
    """A body without torque stays off the floor, near its spawn height; a humanoid does so at first."""
    state = jax.jit(world.reset)(jax.random.key(0))
    step = jax.jit(world.step)
    for _ in range(10 if world.config.body == "humanoid" else 40):
        state = step(state, jnp.zeros(world.action_size))
        assert not state.done
    height = world.body.frame(state.pipeline_state.physics).position[2]
    # without torque the Quadruped's two hinges a leg give way until its belly (0.25) is on the floor
    ranges = {"ball": (0.19, 0.21), "ant": (0.46, 0.58), "quadruped": (0.24, 0.58), "humanoid": (1.2, 1.3)}
    low, high = ranges[world.config.body]
    assert low < float(height) < high
    assert not state.metrics["fault"]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31 - 1))
def test_any_start_is_inside_apart_and_unsolved(seed):
    points = np.asarray(_place(jax.random.key(seed)))
    assert (np.abs(points) <= 4.0).all()
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)[np.triu_indices(4, 1)]
    assert distance.min() >= 1.0


_place = jax.jit(lambda key: place_apart(key, (4.0,) * 4, ((), (1.0,), (1.0,) * 2, (1.0,) * 3)))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31 - 1), st.floats(-3, 3), st.floats(-5, 5), st.floats(-5, 5))
def test_observation_does_not_change_when_everything_moves_together(seed, turn, dx, dy):
    state = _reset(jax.random.key(seed))
    before = _observe(state.pipeline_state.physics, state.pipeline_state.task)
    cos, sin = np.cos(turn), np.sin(turn)
    rotation = np.array([[cos, -sin], [sin, cos]], np.float32)
    shift = np.array([dx, dy], np.float32)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    qpos = physics.qpos.at[:2].set(rotation @ physics.qpos[:2] + shift).at[3].add(turn)
    moved = task.replace(positions=task.positions @ rotation.T + shift)
    after = _observe(physics.replace(qpos=qpos), moved)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], atol=1e-4)


_WORLDS: dict[str, Any] = {}


def _ball() -> Any:
    if not _WORLDS:
        _WORLDS["ball"] = make_world("ball-go-to-target")
    return _WORLDS["ball"]


def _reset(key):
    return jax.jit(_ball().reset)(key)


def _observe(physics, task):
    world = _ball()

    def observe(physics, task):
        return world._observe(physics, task, world.scene(physics, physics.qpos[None]), physics.qpos)

    return jax.jit(observe)(physics, task)


def test_egocentric_coordinates_are_ahead_and_to_the_left():
    state = _reset(jax.random.key(0))
    physics = state.pipeline_state.physics
    qpos = physics.qpos.at[:2].set(0.0).at[3].set(np.pi / 2)  # at the origin, facing +y
    task = state.pipeline_state.task.replace(positions=jnp.array([[0.0, 4.0], [-4.0, 0.0], [0.0, -4.0]]))
    seen = _observe(physics.replace(qpos=qpos), task)["targets"].reshape(3, 2)
    np.testing.assert_allclose(seen, [[1, 0], [0, 1], [-1, 0]], atol=1e-6)  # in units of 4 m


def _with_targets(state, positions):
    task = state.pipeline_state.task.replace(positions=positions)
    return state.replace(pipeline_state=state.pipeline_state.replace(task=task))


def test_reward_and_end_come_exactly_on_arrival():
    world = _ball()
    state = _reset(jax.random.key(0))
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    step = jax.jit(world.step)
    for distance, solved in [(0.45, True), (0.55, False)]:
        targets = jnp.tile(physics.qpos[:2] + jnp.array([0.0, distance]), (3, 1))
        after = step(
            state.replace(pipeline_state=state.pipeline_state.replace(task=task.replace(positions=targets))),
            jnp.zeros(2),
        )
        assert float(after.reward) == (60.0 if solved else 0.0)
        assert bool(after.done) == bool(after.metrics["success"]) == solved
    # an unselected target earns nothing
    others = jnp.full((3, 2), 50.0).at[(int(task.selected) + 1) % 3].set(physics.qpos[:2])
    after = step(
        state.replace(pipeline_state=state.pipeline_state.replace(task=task.replace(positions=others))),
        jnp.zeros(2),
    )
    assert float(after.reward) == 0.0


def test_a_fallen_body_ends_its_episode_without_success():
    world = make_world("ant-go-to-target")
    state = jax.jit(world.reset)(jax.random.key(0))
    on_its_back = state.pipeline_state.physics.qpos.at[3:7].set(jnp.array([0.0, 1.0, 0.0, 0.0]))
    physics = state.pipeline_state.physics.replace(qpos=on_its_back)
    after = jax.jit(world.step)(
        state.replace(pipeline_state=state.pipeline_state.replace(physics=physics)), jnp.zeros(8)
    )
    assert after.done
    assert not after.metrics["success"]
    assert not after.metrics["fault"]


@pytest.mark.parametrize(("height", "over"), [(0.9, True), (1.1, False)])
def test_a_humanoid_that_sinks_ends_its_episode(height, over):
    """In the air, its legs drawn up."""
    world = make_world("humanoid-go-to-target")
    state = jax.jit(world.reset)(jax.random.key(0))
    physics = state.pipeline_state.physics
    qpos = physics.qpos.at[2].set(height)
    for name, angle in (("hip_y", -1.5), ("knee", -1.5)):
        for side in ("left", "right"):
            qpos = qpos.at[world.engine.model.joint(f"{side}_{name}").qposadr[0]].set(angle)
    lower = physics.replace(qpos=qpos)
    state = state.replace(pipeline_state=state.pipeline_state.replace(physics=lower))
    after = jax.jit(world.step)(state, jnp.zeros(21))
    assert not after.metrics["fault"]
    assert bool(after.done) == over


@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e5])
def test_a_simulator_fault_is_reset_masked_and_never_seen(broken):
    environment = VectorEnvironment(_ball(), 3, 400)
    state = jax.jit(environment.reset)(jax.random.key(0))
    physics = state.env.pipeline_state.physics
    broken_physics = physics.replace(qvel=physics.qvel.at[1].set(broken))
    world_state = state.env.pipeline_state.replace(physics=broken_physics)
    state = state.replace(env=state.env.replace(pipeline_state=world_state))
    after, timestep = jax.jit(environment.step)(state, jnp.zeros((3, 2)), jax.random.key(1))
    np.testing.assert_array_equal(timestep.valid, [1, 0, 1])
    np.testing.assert_array_equal(timestep.is_last, [0, 1, 0])
    np.testing.assert_array_equal(after.steps, [1, 0, 1])
    for leaf in jax.tree.leaves((after, timestep)):
        assert np.isfinite(leaf).all()


def test_truncation_keeps_the_true_next_observation_and_starts_afresh():
    environment = VectorEnvironment(_ball(), 2, episode_length=3)
    step = jax.jit(environment.step)
    state = jax.jit(environment.reset)(jax.random.key(0))
    starts = [state.env.pipeline_state.task.positions]
    for i in range(6):
        before = state
        state, timestep = step(state, jnp.ones((2, 2)), jax.random.key(i))
        expected = jax.vmap(environment.env.step)(before.env, jnp.ones((2, 2)))
        for name, group in timestep.next_observation.items():
            np.testing.assert_allclose(group, expected.obs[name], atol=1e-5)
        last = (i + 1) % 3 == 0
        np.testing.assert_array_equal(timestep.is_last, np.full(2, float(last)))
        np.testing.assert_array_equal(timestep.discount, np.ones(2))  # truncation is no termination
        if last:
            starts.append(state.env.pipeline_state.task.positions)
            assert np.abs(state.observation["targets"] - timestep.next_observation["targets"]).max() > 0.01
    # no start repeats, across episodes or worlds
    flat = np.concatenate([np.asarray(x).reshape(2, -1) for x in starts])
    assert len(np.unique(flat.round(4), axis=0)) == len(flat)


def test_actions_are_clipped_at_the_edge():
    state, step = _reset(jax.random.key(0)), jax.jit(_ball().step)
    for a, b in [(jnp.array([5.0, -9.0]), jnp.array([1.0, -1.0]))]:
        np.testing.assert_array_equal(
            step(state, a).obs["proprioception"], step(state, b).obs["proprioception"]
        )


def table_of(name):
    """What an environment's file and those it extends say, the nearer over the farther."""
    table = tomllib.loads(Path("envs", f"{name.removesuffix('.toml')}.toml").read_text())
    base = table_of(table.pop("extends")) if "extends" in table else {}
    for key, value in table.items():
        both = isinstance(value, dict) and isinstance(base.get(key), dict) and "kind" not in value
        base[key] = base[key] | value if both else value
    return base


@pytest.mark.parametrize("name", resources.names("envs", ".toml"))
def test_environment_files_say_every_number(name):
    """The world that is built is what its files say, field by field; nothing comes from a default in code."""
    assert to_table(load_environment(name)) == table_of(name)


PAPER = {  # Appendix E.2.1: side of the area in metres, number of boxes, number of targets, rewards
    "go-to-target": (8.0, 0, 3, {"reward_at_target": 60.0}),
    "move-box-easy": (3.0, 1, 1, {"reward_at_target": 60.0}),
    "move-box-mid": (3.0, 1, 3, {"reward_at_target": 60.0}),
    "move-box-hard": (3.0, 2, 2, {"reward_at_target": 60.0}),
    "gather-boxes": (3.0, 2, 0, {"reward_at_touch": 60.0}),
    "move-box-or-go-to-target": (3.0, 1, 2, {"reward_at_target": 60.0}),
    "move-box-and-go-to-target": (3.0, 1, 2, {"reward_each": 10.0, "bonus": 50.0}),
}


@pytest.mark.parametrize(
    ("body", "task"), [*product(("ball", "ant", "quadruped"), PAPER), ("humanoid", "go-to-target")]
)
def test_worlds_have_the_papers_numbers(body, task):
    """Counted in what a reset gives, not read from the configuration."""
    side, boxes, targets, rewards = PAPER[task]
    world = make_world(f"{body}-{task}", "mujoco")
    sizes = world.observation_size
    assert world.episode_length == 400
    assert sizes.get("boxes", 0) == boxes * 6 * 3  # six corners
    assert sizes.get("targets", 0) == targets * 2
    assert world.stage.arena.half_width == side / 2
    assert {name: getattr(world.task, name) for name in rewards} == rewards


def test_brax_wrappers_take_the_world_as_it_is():
    from brax.envs.wrappers.training import wrap

    wrapped = wrap(_ball(), episode_length=3)
    state = jax.jit(wrapped.reset)(jax.random.split(jax.random.PRNGKey(0), 2))  # as Brax has its keys
    step = jax.jit(wrapped.step)
    for _ in range(3):
        state = step(state, jnp.zeros((2, wrapped.action_size)))
    np.testing.assert_array_equal(state.info["truncation"], np.ones(2))
    assert state.obs["targets"].shape == (2, 6)
