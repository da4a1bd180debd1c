"""What tasks are shown of bodies, against C MuJoCo's own numbers; reward terms; how outcomes are counted."""

import dataclasses
from typing import cast

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from loading import physics_environment
from worlds import load

from mjx_hkl.environments import PhysicsWorld, VectorEnvironment, make_world
from mjx_hkl.environments.bodies import Body, ProprioceptionConfig
from mjx_hkl.environments.physics import PhysicsState
from mjx_hkl.environments.scene import Scene
from mjx_hkl.environments.tasks import Outcome, Start, rewards
from mjx_hkl.errors import UserError

SERVOS = """<mujoco><worldbody><body name='torso' pos='0 0 1'><freejoint/>
  <geom name='hull' size='.1' contype='1'/>
  <body pos='.1 0 0'><joint name='hip' axis='0 1 0' range='-60 60'/><geom size='.05' pos='.1 0 0'/>
    <body pos='.2 0 0'><joint name='knee' type='slide' axis='1 0 0' range='-1 1'/><geom size='.05'/></body>
  </body></body></worldbody>
  <actuator>
    <position name='servo' joint='hip' kp='30' kv='2' ctrlrange='-1 1' forcerange='-5 5'/>
    <velocity name='speed' joint='knee' kv='3' gear='2' ctrlrange='-1 1'/>
  </actuator></mujoco>"""


def moving(model, seed=0):
    """C MuJoCo's data somewhere on the way of random controls, and as a state."""
    data, rng = mujoco.MjData(model), np.random.default_rng(seed)
    for _ in range(40):
        data.ctrl[:] = rng.uniform(-1, 1, model.nu)
        mujoco.mj_step(model, data)
    mujoco.mj_forward(model, data)
    parts = (data.qpos, data.qvel, data.qacc, data.mocap_pos)
    return data, PhysicsState(*[jnp.asarray(x, jnp.float32) for x in parts])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["ant-walk", "quadruped-go-to-target", "humanoid-walk"])
def test_joints_feet_and_forces_are_c_mujocos(name):
    world = load(name)
    model = world.engine.model
    data, physics = moving(model)
    action = np.random.default_rng(1).uniform(-1, 1, model.nu).astype(np.float32)
    data.ctrl[:] = action
    mujoco.mj_forward(model, data)
    scene, stage = world.scene(physics, physics.qpos[None], jnp.asarray(action)), world.stage
    joints = [model.joint(joint) for joint in stage.joints]
    assert len(joints) == model.njnt - 1
    np.testing.assert_allclose(
        scene.joint_positions, [data.qpos[joint.qposadr[0]] for joint in joints], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        scene.joint_velocities, [data.qvel[joint.dofadr[0]] for joint in joints], rtol=1e-5, atol=1e-6
    )
    feet = [model.geom(foot).id for foot in stage.feet]
    np.testing.assert_allclose(scene.feet, data.geom_xpos[feet], atol=1e-5)
    assert stage.actuators == tuple(model.actuator(i).name for i in range(model.nu))
    np.testing.assert_allclose(scene.actuator_forces, data.actuator_force, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scene.actuator_velocities, data.actuator_velocity, rtol=1e-4, atol=1e-4)
    below = data.geom_xpos[feet][:, 2] - model.geom_size[feet, 0]
    clear = np.abs(below) > 1e-5
    np.testing.assert_array_equal(np.asarray(scene.feet_touch)[clear], (below < 0)[clear])


def test_forces_of_servos_are_c_mujocos():
    """Position and velocity actuators, gears, and a force that meets its range."""
    model = mujoco.MjModel.from_xml_string(SERVOS)
    body = Body(model, ProprioceptionConfig())
    data, _ = moving(model)
    for control in ([1.0, -1.0], [0.05, 0.3]):
        data.ctrl[:] = control
        mujoco.mj_forward(model, data)
        parts = (data.qpos, data.qvel, data.qacc, data.mocap_pos)
        state = PhysicsState(*[jnp.asarray(x, jnp.float32) for x in parts])  # pyright: ignore[reportArgumentType]
        forces = body.forces(state, jnp.asarray(control))
        np.testing.assert_allclose(forces, data.actuator_force, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            body.forces.velocities(state), data.actuator_velocity, rtol=1e-4, atol=1e-6
        )


def test_the_ball_has_thrusters_whose_velocity_is_not_known():
    world = load("ball-go-to-target")
    physics = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics
    elsewhere = [
        i for i, x in enumerate(world.engine.model.actuator_trntype) if x != mujoco.mjtTrn.mjTRN_JOINT
    ]
    scene = world.scene(physics, physics.qpos[None], jnp.ones(world.action_size))
    assert scene.actuator_forces.shape == (world.action_size,)
    if elsewhere:
        with pytest.raises(UserError, match="moves no joint"):
            _ = scene.actuator_velocities


@dataclasses.dataclass(frozen=True)
class Judged:
    """A task that shows what it is told, and fails when the action says so."""

    def reset(self, key, stage):
        return Start(jnp.zeros(()), jnp.zeros(2))

    def observe(self, state, scene):
        return {"now": scene.action, "before": scene.last_action}

    def reward(self, state, scene):
        terms = {"first": scene.action[0], "square": scene.action[0] ** 2}
        failure = (scene.action[1] > 0.9).astype(jnp.float32)
        reward = terms["first"] + terms["square"]
        return Outcome(reward, jnp.zeros(()), failure=failure, terms=terms)


@pytest.fixture(scope="module")
def judged():
    config = dataclasses.replace(physics_environment("ball-go-to-target"), task=Judged())
    return PhysicsWorld(config, "mujoco")


def test_a_task_sees_this_action_and_the_one_before(judged):
    state, step = jax.jit(judged.reset)(jax.random.key(0)), jax.jit(judged.step)
    assert not state.obs["now"].any()
    assert not state.obs["before"].any()
    for before, action in (([0.0, 0.0], [0.5, 0.25]), ([0.5, 0.25], [-3.0, 0.0])):
        state = step(state, jnp.asarray(action))
        np.testing.assert_allclose(state.obs["now"], np.clip(action, -1, 1))
        np.testing.assert_allclose(state.obs["before"], before)


def test_a_failure_terminates_without_success(judged):
    state, step = jax.jit(judged.reset)(jax.random.key(0)), jax.jit(judged.step)
    assert step(state, jnp.array([0.0, 0.8])).done == 0
    failed = step(state, jnp.array([0.0, 1.0]))
    assert failed.done == 1
    assert failed.metrics["success"] == 0


def test_terms_are_summed_over_episodes(judged):
    worlds = VectorEnvironment(judged, 3, episode_length=4)
    state = jax.jit(worlds.reset)(jax.random.key(0))
    step = jax.jit(worlds.step)
    for t in range(4):
        action = jnp.tile(jnp.array([0.1 * (t + 1), 0.0]), (3, 1))
        state, timestep = step(state, action, jax.random.key(t))
    np.testing.assert_allclose(timestep.episode_terms["reward_first"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(timestep.episode_terms["reward_square"], 0.3, rtol=1e-5)
    np.testing.assert_allclose(timestep.episode_return, 1.3, rtol=1e-5)
    np.testing.assert_allclose(state.episode_terms["reward_first"], 0.0)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ({"failure": jnp.zeros(1)}, r"reward gives a failure of shape \(1,\), not \(\)"),
        ({"terms": {"a b": jnp.zeros(())}}, "terms that are no dict of numbers by names like 'upright'"),
        ({"terms": {"upright": jnp.zeros(2)}}, r"a term 'upright' of shape \(2,\), not \(\)"),
        ({"terms": 3.0}, "terms that are no dict"),
    ],
)
def test_wrong_outcomes_are_refused(outcome, said):
    class Wrong(Judged):
        def reward(self, state, scene):
            return Outcome(jnp.zeros(()), jnp.zeros(()), **outcome)

    config = dataclasses.replace(physics_environment("ball-go-to-target"), task=Wrong())
    with pytest.raises(UserError, match=said):
        PhysicsWorld(config, "mujoco")


def test_terms_say_what_their_names_do():
    """By hand, on an Ant that is turned by 90 degrees, moves along the world's y, and tips."""
    world = load("ant-walk")
    physics = jax.jit(world.reset)(jax.random.key(0)).pipeline_state.physics
    half = np.sqrt(0.5)
    qpos = physics.qpos.at[:7].set(jnp.array([0.0, 0.0, 3.0, half, 0.0, 0.0, half]))
    qvel = jnp.zeros_like(physics.qvel).at[:6].set(jnp.array([0.0, 0.8, -0.5, 0.0, 0.0, 0.3]))
    qvel = qvel.at[6:].set(jnp.arange(8.0))
    physics = physics.replace(qpos=qpos, qvel=qvel)
    action, last = jnp.full(8, 0.5), jnp.full(8, 0.25)
    scene = world.scene(physics, qpos[None], action, last)
    ahead = rewards.velocity_tracking(scene, jnp.array([1.0, 0.0]), tolerance=0.5)
    assert ahead == pytest.approx(np.exp(-0.04 / 0.25), rel=1e-5)
    assert rewards.turn_tracking(scene, jnp.asarray(0.3)) == pytest.approx(1.0)
    assert rewards.upright(scene) == pytest.approx(1.0)
    assert rewards.action_rate(scene) == pytest.approx(8 * 0.0625)
    assert rewards.sinking(scene) == pytest.approx(0.25)
    gear = world.engine.model.actuator_gear[:, 0]
    order = [world.stage.joints.index(joint_of(world.engine.model, i)) for i in range(8)]
    assert rewards.power(scene) == pytest.approx(np.abs(0.5 * gear * np.arange(8.0)[order]).sum(), rel=1e-5)
    rest = scene.joint_positions - 0.5
    assert rewards.posture(scene, rest) == pytest.approx(8 * 0.25, rel=1e-5)
    assert rewards.alive() == 1


def joint_of(model, actuator):
    return model.joint(int(model.actuator_trnid[actuator, 0])).name


def test_a_foot_is_paid_when_it_lands():
    """In the air for 3 steps of 0.1 s, then on the ground for two; wanted: 0.25 s."""
    seconds, paid = jnp.zeros(1), []
    for touch in (0.0, 0.0, 0.0, 1.0, 1.0):
        scene = Feet(jnp.array([touch]))
        term, seconds = rewards.air_time(cast(Scene, scene), seconds, 0.25, 0.1)
        paid.append(float(term))
    np.testing.assert_allclose(paid, [0, 0, 0, 0.15, 0], atol=1e-6)


@dataclasses.dataclass
class Feet:
    feet_touch: jax.Array


def test_commands_change_and_stay_in_their_ranges():
    world = make_world("ant-track-velocity", "mujoco")
    state = jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(0), 300))
    first = np.asarray(state.pipeline_state.task.command)
    for i, (low, high) in enumerate([(-0.5, 1.0), (-0.5, 0.5), (-1.0, 1.0)]):
        assert low <= first[:, i].min() < low + 0.1
        assert high - 0.1 < first[:, i].max() <= high
    assert 0.05 < (first == 0).all(1).mean() < 0.15
    task = state.pipeline_state.task
    after = jax.vmap(lambda task: world.task._next(task, task.air, 0.025))
    for _ in range(159):
        task = after(task)
    np.testing.assert_array_equal(task.command, first)  # 4 s are 160 steps
    assert (np.asarray(after(task).command) != first).any(1).mean() > 0.8


PARTS = """<mujoco><worldbody><geom name='floor' type='plane' size='9 9 1'/>
  <body name='torso' pos='0 0 1'><freejoint/>
    <geom name='hull' type='box' size='.3 .2 .1' euler='0 20 0'/><geom name='head' size='.1' pos='.4 0 .1'/>
    <body name='thigh' pos='-.3 0 0'><joint name='hip' axis='0 1 0' range='-90 90'/>
      <geom name='bone' type='capsule' size='.04' fromto='0 0 0 -.1 .1 -.3'/>
      <body name='shin' pos='-.1 .1 -.3'><joint name='knee' axis='1 0 0' range='-90 90'/>
        <geom name='toe' type='box' size='.05 .05 .02' pos='0 0 -.3'/>
        <geom name='tail' type='cylinder' size='.1 .1'/>
  </body></body></body></worldbody>
  <actuator><motor joint='hip'/></actuator></mujoco>"""


def test_what_is_in_the_ground_is_c_mujocos():
    """The deepest of each geom's contacts, at random poses, at some of which it hangs in the air."""

    def level(points, _):
        return jnp.zeros(len(points))

    model = mujoco.MjModel.from_xml_string(PARTS)
    body, data, rng = Body(model, ProprioceptionConfig()), mujoco.MjData(model), np.random.default_rng(0)
    names = ("hull", "head", "thigh", "toe")
    geoms = [model.geom(name).id for name in ("hull", "head", "bone", "toe")]
    found = jax.jit(lambda state: body.depths(names, state, level))
    seen = np.zeros((2, len(geoms)), int)
    for _ in range(40):
        turn = rng.normal(size=4)
        data.qpos[:] = [0.3, -0.2, rng.uniform(0, 0.6), *turn / np.linalg.norm(turn), *rng.uniform(-1, 1, 2)]
        mujoco.mj_forward(model, data)
        deepest = np.zeros(len(geoms))
        for contact in data.contact:
            if 0 in contact.geom and max(contact.geom) in geoms:
                part = geoms.index(max(contact.geom))
                deepest[part] = max(deepest[part], -contact.dist)
        parts = (data.qpos, data.qvel, data.qacc, data.mocap_pos)
        state = PhysicsState(*[jnp.asarray(x, jnp.float32) for x in parts])  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(np.maximum(found(state), 0), deepest, atol=1e-5)
        seen += [deepest > 0, deepest == 0]
    assert (seen > 3).all()
    with pytest.raises(UserError, match="geom 'tail' is a cylinder, whose depth"):
        body.depths(["shin"], state, level)
    with pytest.raises(UserError, match="of parts of the body: name some"):
        body.depths([], state, level)


def test_parts_that_touch_are_counted():
    """An Ant on its belly: its torso, a ball of 0.25 m, touches; a foot's touch is that of `feet_touch`."""
    world = load("ant-walk")
    model, stage = world.engine.model, world.stage
    rest, still = jnp.asarray(model.qpos0, jnp.float32), jnp.zeros(model.nv)

    @jax.jit
    def told(height):
        qpos = rest.at[2].set(height)
        scene = world.scene(PhysicsState(qpos, still, still, jnp.zeros((0, 3))), qpos[None])
        counts = [
            rewards.undesired_contacts(scene, *parts) for parts in (("torso",), ("torso", stage.feet[0]))
        ]
        return scene.depths("torso"), scene.touches(*stage.feet), scene.feet_touch, counts

    for height, torso in ((0.24, 1.0), (0.26, 0.0)):
        depths, touches, feet, counts = told(height)
        np.testing.assert_allclose(depths, [0.25 - height], atol=1e-6)
        np.testing.assert_array_equal(touches, feet)
        np.testing.assert_array_equal(counts, [torso, torso + feet[0]])
    assert not told(1.0)[1].any()
