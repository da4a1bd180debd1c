"""Robots as MuJoCo Menagerie has them: a scene with a floor, servos, a key frame, meshes, their own names."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from mjx_hkl.environments import PhysicsWorld, load_environment, make_world
from mjx_hkl.environments.composition import EnvironmentConfig
from mjx_hkl.environments.physics import control_of
from mjx_hkl.environments.robots import RobotConfig
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import copies
from mjx_hkl.experiments.agent_format import abstract_agent
from mjx_hkl.experiments.build import resolve
from mjx_hkl.experiments.recipe import Recipe, TransferConfig
from mjx_hkl.experiments.transfer import require_fits
from mjx_hkl.experiments.world_specs import WorldSpecs

SCENE = """<mujoco model="dog scene">
  <include file="dog.xml"/>
  <visual><headlight diffuse="0.6 0.6 0.6"/></visual>
  <statistic center="0 0 0.1" extent="0.8"/>
  <asset>
    <texture type="skybox" builtin="gradient" rgb1="0.3 0.5 0.7" rgb2="0 0 0" width="8" height="48"/>
    <texture type="2d" name="groundplane" builtin="checker" rgb1="0.2 0.3 0.4" width="8" height="8"/>
    <material name="groundplane" texture="groundplane"/>
  </asset>
  <worldbody>
    <light pos="0 0 1.5" directional="true"/>
    <geom name="floor" size="0 0 0.05" type="plane" material="groundplane"/>
    <body name="table" pos="3 0 0.2"><light pos="0 0 1"/><geom name="top" size="0.1"/></body>
  </worldbody>
  <contact><exclude body1="table" body2="trunk"/></contact>
  <sensor><framepos objtype="body" objname="table"/></sensor>
  <keyframe><key name="home" qpos="0 0 0.2 1 0 0 0 0.3 0.3 0.3 0.3" ctrl="0.3 0.3 0.3 0.3"/></keyframe>
</mujoco>"""
DOG = """<mujoco model="dog">
  <compiler angle="radian" meshdir="assets" autolimits="true"/>
  <option cone="elliptic" impratio="100"/>
  <default><default class="dog">
    <geom condim="1"/>
    <joint axis="0 1 0" damping="0.5" armature="0.01" range="-1 1.5"/>
    <position kp="20" forcerange="-10 10" ctrlrange="-0.8 1.2"/>
    <default class="foot">
      <geom type="sphere" size="0.03" pos="0 0 -0.2" condim="3" friction="0.8 0.02 0.01" priority="1"/>
    </default>
  </default></default>
  <asset><mesh name="shell" file="shell.obj"/></asset>
  <worldbody>
    <light name="spot" mode="targetbodycom" target="trunk" pos="0 -1 2"/>
    <body name="trunk" pos="0 0 0.5" quat="0 0 0 1" childclass="dog">
      <freejoint/>
      <inertial pos="0 0 0" mass="4" diaginertia="0.04 0.05 0.06"/>
      <geom type="mesh" mesh="shell" contype="0" conaffinity="0" group="2"/>
      <geom type="mesh" mesh="shell" group="3"/>
      <geom type="box" size="0.2 0.1 0.04" group="3"/>
      <site name="imu"/>
      {legs}
    </body>
  </worldbody>
  <contact><exclude body1="trunk" body2="FL_leg"/></contact>
  <equality><joint joint1="FL_hip" joint2="RR_hip"/></equality>
  <tendon><fixed stiffness="5">
    <joint joint="FR_hip" coef="1"/><joint joint="RL_hip" coef="1"/>
  </fixed></tendon>
  <actuator>{servos}</actuator>
  <sensor><gyro site="imu"/></sensor>
</mujoco>"""
LEG = """<body name="{name}_leg" pos="{x} {y} 0">
  <joint name="{name}_hip"/><inertial pos="0 0 -0.1" mass="0.5" diaginertia="0.002 0.002 0.0002"/>
  {foot}<site name="{name}_tip" pos="0 0 -0.2"/>
</body>"""
LEGS = {"FL": (0.2, 0.1), "FR": (0.2, -0.1), "RL": (-0.2, 0.1), "RR": (-0.2, -0.1)}
CUBE = (
    "".join(f"v {x} {y} {z}\n" for x in (-0.2, 0.2) for y in (-0.1, 0.1) for z in (-0.04, 0.04))
    + "f 1 2 4\nf 1 4 3\nf 5 7 8\nf 5 8 6\nf 1 5 6\nf 1 6 2\nf 3 4 8\nf 3 8 7\n"
    "f 1 3 7\nf 1 7 5\nf 2 6 8\nf 2 8 4\n"
)
FEET = ["FL", "FR_leg", "RL", "RR"]  # the sphere of FR has no name of its own
WORLD = """
body = "scene.xml"
[robot]
{robot}
[arena]
kind = "plain"
[task]
kind = "track_velocity"
[physics]
timestep = 0.002
substeps = 10
iterations = 50
ls_iterations = 50
"""


def write(folder, scene=SCENE, dog=DOG, spheres="FL FR RL RR", servo="position", **robot):
    """The robot's files and its environment; the path of the latter."""
    legs = []
    for name, (x, y) in LEGS.items():
        label = "" if name == "FR" else f'name="{name}" '
        foot = f'<geom {label}class="foot"/>' if name in spheres else ""
        legs.append(LEG.format(name=name, x=x, y=y, foot=foot))
    servos = "".join(f'<{servo} class="dog" name="{name}" joint="{name}_hip"/>' for name in LEGS)
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "shell.obj").write_text(CUBE)
    (folder / "dog.xml").write_text(dog.format(legs="".join(legs), servos=servos))
    (folder / "scene.xml").write_text(scene)
    lines = [f"{name} = {value!r}" for name, value in {"feet": FEET, **robot}.items()]
    (folder / "dog.toml").write_text(WORLD.format(robot="\n".join(lines)))
    return str(folder / "dog.toml")


def load(path, engine="mujoco"):
    config = load_environment(path)
    assert isinstance(config, EnvironmentConfig)
    return PhysicsWorld(config, engine)


@pytest.fixture(scope="module")
def dog(tmp_path_factory):
    """The path of an environment, which tests do not change."""
    return write(tmp_path_factory.mktemp("dog"))


@pytest.fixture(scope="module")
def world(dog):
    return load(dog)


def test_of_a_scene_the_robot_stays(world):
    model = world.engine.model
    bodies = [model.body(i).name for i in range(model.nbody)]
    assert bodies == ["world", "trunk", "FL_leg", "FR_leg", "RL_leg", "RR_leg"]
    assert (model.nlight, model.nsensor, model.nkey, model.nexclude) == (1, 0, 0, 0)  # the arena's light
    assert (model.neq, model.ntendon, model.nu) == (1, 1, 4)
    assert mujoco.mjtTexture.mjTEXTURE_SKYBOX not in model.tex_type
    floors = [i for i in range(model.ngeom) if model.geom_bodyid[i] == 0]
    assert [model.geom(i).name for i in floors] == ["floor"]
    # four feet and the trunk's box on it; what is a mesh is seen
    assert model.npair == 5
    meshes = np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH)
    assert not {*meshes} & {*model.pair_geom1, *model.pair_geom2}
    assert [*model.geom_group[meshes]] == [2, 3]
    assert world.stage.feet == ("FL", "FR_leg", "RL", "RR")
    assert world.stage.joints == ("FL_hip", "FR_hip", "RL_hip", "RR_hip")
    assert world.notes == (
        "collision meshes of the robot, 1 in all, are seen and touch nothing",
        "friction cones are pyramidal with impratio 1 on every engine, whatever the robot's file says",
    )


def test_a_start_is_the_key_frame_out_of_the_ground(world):
    """Legs of 0.2 m at 0.3 rad with feet of 0.03 m: the key frame's 0.2 m would be 21 mm too low."""
    qpos = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics.qpos
    np.testing.assert_allclose(qpos[7:], 0.3, atol=1e-6)
    assert qpos[2] == pytest.approx(0.2 * np.cos(0.3) + 0.03, abs=1e-5)
    assert qpos[4] == qpos[5] == 0  # upright; the file's half turn is none of a start's


def test_without_a_key_frame_it_starts_as_its_file_says(tmp_path):
    """Half a metre up with straight legs, and servos that hold them so."""
    world = load(write(tmp_path, key="", scene=re.sub("<keyframe>.*</keyframe>", "", SCENE)))
    qpos = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics.qpos
    np.testing.assert_allclose(qpos[jnp.array([2, 7, 8, 9, 10])], [0.5, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(world.body.anatomy.servos.centre, np.zeros(4))


@pytest.mark.parametrize(
    ("scale", "expected"), [(None, [-0.25, 0.3, 0.75, 1.2]), (0.5, [0.05, 0.3, 0.55, 0.8]), (2.0, None)]
)
def test_actions_move_servos_around_the_start(tmp_path, scale, expected):
    """To the ends -0.8 and 1.2 of their range, or as far as the table says, but never beyond the range."""
    world = load(write(tmp_path, **({} if scale is None else {"action_scale": scale})))
    control = control_of(world.engine.model, world.body.anatomy.servos)
    action = jnp.array([-0.5, 0.0, 0.5, 1.0])
    expected = np.clip(0.3 + 2.0 * np.asarray(action), -0.8, 1.2) if expected is None else expected
    np.testing.assert_allclose(control(action), expected, atol=1e-6)


def test_without_controls_in_the_key_frame_servos_hold_its_pose(tmp_path):
    silent = re.sub(r' ctrl="[^"]*"', "", SCENE)
    world = load(write(tmp_path, scene=silent))
    np.testing.assert_allclose(
        control_of(world.engine.model, world.body.anatomy.servos)(jnp.zeros(4)), 0.3, atol=1e-6
    )


@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_in_the_air_it_is_the_robot_of_the_file(dog, engine):
    """C MuJoCo steps the scene as it is, a metre up: inertias, servos, equality and tendon are the file's."""
    world = load(dog, engine)
    model = mujoco.MjModel.from_xml_path(dog.replace("dog.toml", "scene.xml"))
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP  # as our own bodies
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    data.qpos[2] = 1.0
    start = jax.jit(world.reset)(jax.random.key(0)).pipeline_state
    state = start.physics.replace(qpos=jnp.asarray(data.qpos, jnp.float32))
    action = jnp.array([1.0, -1.0, 0.5, 0.8])
    control = control_of(world.engine.model, world.body.anatomy.servos)(action)
    step = jax.jit(world.engine.step)
    for _ in range(5):
        state, _ = step(state, control)
    data.ctrl[:] = [1.2, -0.8, 0.75, 1.02]
    for _ in range(50):
        mujoco.mj_step(model, data)
    assert not data.ncon
    np.testing.assert_allclose(state.qpos, data.qpos, atol=2e-5)


def test_it_stands_as_high_as_in_its_own_scene(dog, world):
    """After a second: its own floor and elliptic cones there, ours here."""
    model = mujoco.MjModel.from_xml_path(dog.replace("dog.toml", "scene.xml"))
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    state, step = jax.jit(world.reset)(jax.random.key(0)), jax.jit(world.step)
    data.qpos[2] = state.pipeline_state.physics.qpos[2]
    for _ in range(50):
        state = step(state, jnp.zeros(4))
    for _ in range(500):
        mujoco.mj_step(model, data)
    assert state.pipeline_state.physics.qpos[2] == pytest.approx(data.qpos[2], abs=2e-3)
    assert state.obs["proprioception"][-4:].sum() >= 3  # the tendon turns two of the legs


needs_warp = pytest.mark.skipif(
    importlib.util.find_spec("warp") is None, reason="Warp, an optional extra, is not installed"
)


@pytest.mark.accelerator
@pytest.mark.parametrize("engine", ["mujoco", "mjx", pytest.param("warp", marks=needs_warp)])
def test_steps_on_its_feet_are_those_of_c_mujoco(dog, world, engine):
    """Positions within 0.1 mm and 0.1 mrad after each control step in contact."""
    model, data = world.engine.model, mujoco.MjData(world.engine.model)
    start = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics
    data.qpos[:] = start.qpos
    data.qpos[2] -= 0.002  # pressed into the ground
    rng, befores, controls, afters = np.random.default_rng(0), [], [], []
    for _ in range(6):
        befores.append([np.array(x) for x in (data.qpos, data.qvel, data.qacc_warmstart)])
        data.ctrl[:] = rng.uniform(0.0, 0.6, 4)
        controls.append(np.array(data.ctrl))
        for _ in range(10):
            mujoco.mj_step(model, data)
        afters.append(np.array(data.qpos))
    assert data.ncon >= 2
    qpos, qvel, qacc = (jnp.asarray(np.stack(x), jnp.float32) for x in zip(*befores, strict=True))
    states = jax.tree.map(lambda x: jnp.broadcast_to(x, (6, *x.shape)), start)
    states = states.replace(qpos=qpos, qvel=qvel, qacc=qacc)
    engine = world.engine if engine == "mujoco" else load(dog, engine).engine
    after, _ = jax.jit(jax.vmap(engine.step))(states, jnp.asarray(np.stack(controls), jnp.float32))
    np.testing.assert_allclose(after.qpos, np.stack(afters), atol=1e-4)


def test_contacts_with_the_ground_are_as_soft_as_the_file_says(tmp_path):
    soft = 'priority="1" solref="0.01 0.9" solimp="0.015 0.9 0.022" margin="0.002" gap="0.001"'
    model = load(write(tmp_path, dog=DOG.replace('priority="1"', soft))).engine.model
    pairs = {model.geom(model.pair_geom2[i]).name: i for i in range(model.npair)}
    assert pairs.keys() == {"trunk_geom2", "FL", "FR_leg", "RL", "RR"}
    for name, i in pairs.items():
        is_foot = name != "trunk_geom2"  # which has MuJoCo's own
        np.testing.assert_allclose(model.pair_solref[i], [0.01, 0.9] if is_foot else [0.02, 1.0])
        np.testing.assert_allclose(
            model.pair_solimp[i, :3], [0.015, 0.9, 0.022] if is_foot else [0.9, 0.95, 0.001]
        )
        assert (model.pair_margin[i], model.pair_gap[i]) == ((0.002, 0.001) if is_foot else (0.0, 0.0))


def test_a_module_of_a_robot_that_is_read_otherwise_does_not_fit(dog, world, tmp_path):
    """An action of 1 would move its servos twice as far."""
    transfer = TransferConfig(agent="other", frozen=("policy.low_level",))
    recipe = resolve(Recipe(environment=dog, transfer=transfer), world)
    here = abstract_agent(recipe, WorldSpecs.of(world))
    require_fits(here, {"other": here})
    far = load(write(tmp_path, action_scale=0.6))
    there = abstract_agent(recipe, WorldSpecs.of(far))
    with pytest.raises(UserError, match=r"\[robot\] is .*give both environments the same table"):
        require_fits(here, {"other": there})


def test_forces_are_of_controls_within_their_range(tmp_path):
    world = load(write(tmp_path, action_scale=2.0))
    state = jax.jit(world.reset)(jax.random.key(0)).pipeline_state
    action = jnp.array([-1.0, 0.1, 0.4, 1.0])
    model, data = world.engine.model, mujoco.MjData(world.engine.model)
    data.qpos[:], data.ctrl[:] = state.physics.qpos, 0.3 + 2.0 * np.asarray(action)
    mujoco.mj_forward(model, data)
    force = world.scene(state.physics, state.physics.qpos[None], action).actuator_forces
    np.testing.assert_allclose(force, data.actuator_force, atol=1e-4)


def test_feet_are_put_at_sites_and_bodies(tmp_path):
    """The same places and radius as the spheres of the file: the same heights of a start and of feet."""
    path = write(tmp_path, spheres="FL", feet=["FL", "FR_tip", "RL_tip", "RR_leg"], foot_radius=0.03)
    world = load(path)
    state = jax.jit(world.reset)(jax.random.key(0)).pipeline_state
    heights = world.scene(state.physics, state.physics.qpos[None]).feet[:, 2]
    hip = float(state.physics.qpos[2])  # where RR_leg has its origin
    np.testing.assert_allclose(heights, [0.03, 0.03, 0.03, hip], atol=1e-5)
    assert world.stage.feet == ("FL", "FR_tip", "RL_tip", "RR_leg")
    assert world.body.mass == pytest.approx(6.0)


def test_feet_alone_may_collide(tmp_path):
    assert load(write(tmp_path, collides="feet")).engine.model.npair == 4


def test_its_files_travel(dog, tmp_path):
    """The scene's, what it includes and the mesh in its folder: the copy is the same world."""
    placed = copies.Copies.of(copies.user_files({"environment": dog}))
    assert sorted(placed.names.values()) == [
        f"files/{name}" for name in ("assets/shell.obj", "dog.toml", "dog.xml", "scene.xml")
    ]
    placed.write(tmp_path, with_originals=False)
    there = load_environment(str(tmp_path / "files" / "dog.toml"))
    assert isinstance(there, EnvironmentConfig)
    assert there.robot == load(dog).config.robot
    assert make_world(str(tmp_path / "files" / "dog.toml"), "mujoco").action_size == 4


TILTED = SCENE.replace('qpos="0 0 0.2 1 0 0 0', 'qpos="0 0 0.5 0 1 0 0')
FIXED = DOG.replace("<freejoint/>", "")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"torso": "trnk"}, "unknown body for [robot] torso 'trnk'; did you mean trunk?"),
        ({"torso": "FL_leg"}, "torso 'FL_leg' has no free joint; 'trunk' has one"),
        ({"dog": FIXED}, "a robot needs a free joint, which no body of its file has"),
        ({"dog": FIXED, "torso": "trunk"}, "torso 'trunk' has no free joint"),
        ({"key": "hom"}, "unknown key frame for [robot] key 'hom'; did you mean home?"),
        ({"scene": re.sub("<keyframe>.*</keyframe>", "", SCENE)}, 'key = "" starts in the pose of the file'),
        ({"scene": TILTED}, "key frame 'home' the torso's z-axis is 180 degrees from the vertical"),
        ({"feet": ["FLL"]}, "unknown geom, body or site for [robot] feet 'FLL'; did you mean FL"),
        ({"feet": ["imu"]}, "'imu' is a site; say foot_radius"),
        ({"feet": ["trunk"]}, "body 'trunk' has not one sphere that collides; say foot_radius"),
        ({"servo": "motor", "action_scale": 0.5}, "action_scale is of position actuators"),
        ({"foot": ["FL"]}, "[robot]: unknown field 'foot'; did you mean foot_radius or feet?"),
        ({"collides": "none"}, "robot.collides: input should be 'all' or 'feet'"),
        ({"spheres": "", "feet": [], "collides": "feet"}, "falls through the ground: name [robot] feet"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, changes, expected):
    with pytest.raises(UserError) as refused:
        make_world(write(tmp_path, **changes), "mujoco")
    message = str(refused.value)
    assert expected in message
    assert "\n" not in message


def test_a_missing_mesh_is_named(tmp_path):
    path = write(tmp_path)
    (tmp_path / "assets" / "shell.obj").unlink()
    with pytest.raises(UserError, match=r"scene\.xml.*shell\.obj"):
        make_world(path, "mujoco")


def test_the_guide_shows_the_example():
    """Its body is Menagerie's, which is not here."""
    docs = Path(__file__).parents[2] / "docs"
    example = docs / "example" / "go1-track-velocity.toml"
    assert example.read_text().strip() in (docs / "your-own-world.md").read_text()
    config = load_environment(str(example))
    assert isinstance(config, EnvironmentConfig)
    assert config.robot == RobotConfig(feet=("FR", "FL", "RR", "RL"), action_scale=0.3, collides="feet")
