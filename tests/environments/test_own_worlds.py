"""Worlds of a user's own: actuators with ranges, uneven ground, groups that are no vectors."""

from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from loading import physics_environment

from mjx_hkl.environments import PhysicsWorld, VectorEnvironment, make_world
from mjx_hkl.environments.physics import control_of
from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec

PUCK = """<mujoco><worldbody><body name="torso" pos="0 0 0.1">
  <joint type="slide" axis="1 0 0" damping="2"/><joint type="slide" axis="0 1 0" damping="2"/>
  <joint type="slide" axis="0 0 1"/><joint name="turn" type="hinge" axis="0 0 1" damping="0.2"/>
  <geom name="hull" type="sphere" size="0.1" mass="1" contype="1" condim="1"/><site name="centre"/>
</body></worldbody><actuator>{}</actuator></mujoco>"""
WORLD = 'body = "puck.xml"\n[arena]\nkind = "area"\n[task]\nkind = "go_to_target"'


def world_of(folder, actuators, engine="auto", environment=WORLD):
    (folder / "puck.xml").write_text(PUCK.format(actuators))
    (folder / "puck.toml").write_text(environment)
    return make_world(str(folder / "puck.toml"), engine)


def after(world, action, steps=40):
    """Positions after a second of one action, from the first start."""
    state, step = jax.jit(world.reset)(jax.random.key(0)), jax.jit(world.step)
    for _ in range(steps):
        state = step(state, jnp.asarray(action, jnp.float32))
    return np.asarray(state.pipeline_state.physics.qpos)


@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_an_action_is_the_whole_range_of_an_actuator(tmp_path, engine):
    """Gear 0.5 with controls to 10 pulls like gear 5 with controls to 1."""
    strong = '<motor site="centre" gear="5 0 0 0 0 0" ctrlrange="-1 1"/>'
    wide = '<motor site="centre" gear="0.5 0 0 0 0 0" ctrlrange="-10 10"/>'
    a, b = (after(world_of(tmp_path, motor, engine), [0.7]) for motor in (strong, wide))
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("engine", ["mujoco", "mjx"])
def test_a_position_actuator_reaches_the_ends_and_the_middle_of_its_range(tmp_path, engine):
    servo = '<position joint="turn" kp="20" dampratio="1" ctrlrange="0.5 1.5"/>'
    world = world_of(tmp_path, servo, engine)
    for action, angle in ((-1.0, 0.5), (0.0, 1.0), (1.0, 1.5), (7.0, 1.5)):
        assert after(world, [action], steps=160)[3] == pytest.approx(angle, abs=1e-2)


def test_an_actuator_without_a_range_takes_the_action_as_it_is(tmp_path):
    free = '<motor site="centre" gear="5 0 0 0 0 0" ctrllimited="false" ctrlrange="-10 10"/>'
    ranged = '<motor joint="turn" gear="0.5" ctrlrange="-2 6"/>'
    control = control_of(world_of(tmp_path, free + ranged).engine.model)
    np.testing.assert_array_equal(control(jnp.array([0.3, -0.5])), jnp.array([0.3, 0.0], jnp.float32))


@pytest.mark.parametrize("body", ["ball", "ant", "quadruped"])
def test_our_bodies_are_given_the_action_itself(body):
    """Their ranges are [-1, 1]: nothing is computed, so that nothing changes by a bit."""
    model = PhysicsWorld(physics_environment(f"{body}-go-to-target")).engine.model
    np.testing.assert_array_equal(model.actuator_ctrlrange, np.tile([-1.0, 1.0], (model.nu, 1)))
    action = jnp.linspace(-1, 1, model.nu)
    assert control_of(model)(action) is action


CAMERA = '''
import dataclasses
import jax
import jax.numpy as jnp
from mjx_hkl.environments.tasks import Outcome, Start

@dataclasses.dataclass(frozen=True)
class Counts:
    """An image whose first pixel and a count that both tell the step, as bytes and as integers."""

    def reset(self, key, stage):
        return Start(jnp.zeros((), jnp.int32), jax.random.uniform(key, (2,)))

    def observe(self, state, scene):
        image = jnp.full((8, 8, 3), 7, jnp.uint8).at[0, 0, 0].set(state.astype(jnp.uint8))
        return {"image": image, "counts": jnp.stack([state, 1000 * state])}

    def reward(self, state, scene):
        return Outcome(jnp.ones(()), jnp.zeros(()), state + 1)
'''
MOTORS = '<motor site="centre" gear="5 0 0 0 0 0" ctrlrange="-1 1"/>'


def test_groups_that_are_no_vectors_keep_shape_and_type(tmp_path):
    """An image of bytes and integers: from the specs through reset and step to many worlds."""
    (tmp_path / "camera.py").write_text(CAMERA)
    environment = 'body = "puck.xml"\n[arena]\nkind = "area"\n[task]\nkind = "camera.py:Counts"'
    world = world_of(tmp_path, MOTORS, environment=environment)
    specs = world.observation_specs
    assert specs["image"] == ArraySpec((8, 8, 3), "uint8")
    assert specs["counts"] == ArraySpec((2,), "int32")
    assert world.observation_size["image"] == 192
    state = jax.jit(world.reset)(jax.random.key(0))
    stepped = jax.jit(world.step)(state, jnp.zeros(1))
    for one in (state, stepped):
        assert {name: ArraySpec.of(x) for name, x in one.obs.items()} == specs
    many = VectorEnvironment(world, 3, episode_length=2)
    state, step = jax.jit(many.reset)(jax.random.key(0)), jax.jit(many.step)
    for i, (shown, true) in enumerate([(1, 1), (0, 2), (1, 1)]):  # the second step ends the episode
        state, timestep = step(state, jnp.zeros((3, 1)), jax.random.key(i))
        for seen, count in ((state.observation, shown), (timestep.next_observation, true)):
            assert seen["image"].dtype == jnp.uint8
            assert seen["image"].shape == (3, 8, 8, 3)
            np.testing.assert_array_equal(seen["image"][:, 0, 0, 0], count)
            np.testing.assert_array_equal(seen["image"][:, 1:], 7)
            np.testing.assert_array_equal(seen["counts"], np.tile([count, 1000 * count], (3, 1)))
            assert seen["counts"].dtype == jnp.int32


EXAMPLE = Path(__file__).parents[2] / "docs" / "example"
TERRACE = f'"{EXAMPLE / "terrace.py"}:Terrace"'


def test_an_arena_of_ones_own_is_ground_bounds_and_places(tmp_path):
    """The guide's: it carries the body, ends its episode, and gives our tasks their places."""
    assert (EXAMPLE / "terrace.py").read_text().strip() in (EXAMPLE.parent / "your-own-world.md").read_text()
    environment = WORLD.replace('"area"', f"{TERRACE}\ndrop = 0.05\nhalf_width = 3.0")
    world = world_of(tmp_path, MOTORS, environment=environment)
    assert world.engine.model.npair == 2
    state, step = jax.jit(world.reset)(jax.random.key(0)), jax.jit(world.step)
    for x, height in ((-1.0, 0.0), (1.0, -0.05)):
        after = moved(state, x)
        for _ in range(40):
            after = step(after, jnp.zeros(1))
        assert after.pipeline_state.physics.qpos[2] == pytest.approx(height, abs=2e-3)
    for x, out in ((3.9, False), (4.1, True)):
        assert bool(step(moved(state, x), jnp.zeros(1)).done) == out


def moved(state, x):
    """The state with the body at (x, 0)."""
    physics = state.pipeline_state.physics
    qpos = physics.qpos.at[:2].set(jnp.array([x, 0.0]))
    return state.replace(pipeline_state=state.pipeline_state.replace(physics=physics.replace(qpos=qpos)))


def test_starts_in_uneven_ground_are_found_wherever_they_are(tmp_path):
    """On one side of this arena the ground is 0.06 m higher than where the body starts."""
    environment = WORLD.replace('"area"', f"{TERRACE}\ndrop = -0.06\nhalf_width = 3.0")
    with pytest.raises(UserError, match=r"starts 0\.06 m deep in the ground: geom 'hull' in 'low'"):
        world_of(tmp_path, MOTORS, environment=environment)


def test_the_rest_of_the_model_is_c_mujocos(tmp_path):
    """An action is scaled before the simulator, whose own model keeps the file's range."""
    wide = '<motor site="centre" gear="0.5 0 0 0 0 0" ctrlrange="-10 10"/>'
    world = world_of(tmp_path, wide, "mujoco")
    model, state = world.engine.model, jax.jit(world.reset)(jax.random.key(0))
    data = mujoco.MjData(model)
    data.qpos[:] = state.pipeline_state.physics.qpos
    data.ctrl[:] = 10 * 0.7
    for _ in range(world.config.physics.substeps):
        mujoco.mj_step(model, data)
    ours = jax.jit(world.step)(state, jnp.array([0.7])).pipeline_state.physics
    np.testing.assert_allclose(ours.qvel, data.qvel, atol=1e-5)
