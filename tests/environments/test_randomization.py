"""Worlds that vary; a varied body is compared with C MuJoCo, its model written to and stepped by hand."""

import copy
import dataclasses
import importlib.util
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from loading import physics_environment
from worlds import load

from mjx_hkl.config import from_table, to_table
from mjx_hkl.environments import PhysicsWorld, VectorEnvironment, randomization
from mjx_hkl.environments.composition import EnvironmentConfig
from mjx_hkl.environments.randomization import DRAWN, Randomization, RandomizationConfig, ranges
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import resolve
from mjx_hkl.experiments.recipe import load_recipe

WARP = pytest.param(
    "warp",
    marks=pytest.mark.skipif(importlib.util.find_spec("warp") is None, reason="Warp is not installed"),
)
PHYSICS: dict[str, Any] = {
    "mass": (0.7, 1.4),
    "link_mass": (0.8, 1.2),
    "friction": (0.3, 1.5),
    "strength": (0.5, 1.5),
    "damping": (0.5, 2.0),
    "gravity": (0.8, 1.2),
}


def world_with(name="ball-go-to-target", engine="mujoco", **randomization: Any):
    config = physics_environment(name)
    physics = dataclasses.replace(config.physics, iterations=20, ls_iterations=20)
    drawn = RandomizationConfig(**randomization) if randomization else None
    return PhysicsWorld(dataclasses.replace(config, physics=physics, randomization=drawn), engine)


def starts(world, count, seed=0):
    return jax.jit(jax.vmap(world.reset))(jax.random.split(jax.random.key(seed), count))


def by_hand(model, factors, world):
    """A model with the factors of one of many worlds, field by field."""
    changed = copy.copy(model)
    for body in range(model.nbody):
        changed.body_mass[body] *= factors.mass[world, body]
        changed.body_inertia[body] *= factors.mass[world, body]
    changed.body_subtreemass[:] = changed.body_mass
    for body in range(model.nbody - 1, 0, -1):
        changed.body_subtreemass[model.body_parentid[body]] += changed.body_subtreemass[body]
    for pair in range(model.npair):
        changed.pair_friction[pair, :2] *= factors.friction[world, 0]
    for actuator in range(model.nu):
        changed.actuator_gear[actuator] *= factors.strength[world, actuator]
    for dof in range(model.nv):
        changed.dof_damping[dof] *= factors.damping[world, dof]
    changed.opt.gravity[:] *= factors.gravity[world, 0]
    return changed


@pytest.mark.long
@pytest.mark.parametrize("engine", ["mujoco", "mjx", WARP])
def test_a_varied_body_moves_as_c_mujoco_says(engine):
    """Three Ants on the ground, each with factors of its own: 8 control steps, each from where it is."""
    world = world_with("ant-go-to-target", engine, **PHYSICS)
    physics = starts(world, 3).pipeline_state.physics
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 3, world.action_size)).astype(np.float32)
    step = jax.jit(jax.vmap(world.engine.step))
    for action in actions:
        after, _ = step(physics, jnp.asarray(action))
        for i in range(3):
            model = by_hand(world.engine.model, physics.factors, i)
            data = mujoco.MjData(model)
            data.qpos[:], data.qvel[:], data.ctrl[:] = physics.qpos[i], physics.qvel[i], action[i]
            data.qacc_warmstart[:] = physics.qacc[i]
            for _ in range(world.config.physics.substeps):
                mujoco.mj_step(model, data)
            np.testing.assert_allclose(after.qpos[i], data.qpos, atol=1e-4)
            np.testing.assert_allclose(after.qvel[i], data.qvel, atol=1e-2, rtol=1e-2)
        physics = after


def test_factors_lie_in_their_ranges_and_are_each_episodes_own():
    world = world_with("ant-move-box-easy", **PHYSICS)
    factors = starts(world, 2000).pipeline_state.physics.factors
    links = world.body.num_links
    assert (factors.mass[:, links:] == 1).all()  # a box is no part of the body
    assert (factors.damping[:, world.body.num_velocities :] == 1).all()
    for name, (low, high) in {"friction": (0.3, 1.5), "strength": (0.5, 1.5), "gravity": (0.8, 1.2)}.items():
        drawn = np.asarray(getattr(factors, name))
        assert low <= drawn.min() < low + 0.02
        assert high - 0.02 < drawn.max() <= high
        assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.03)
    ratio = factors.mass[:, 1:links] / factors.mass[:, 1:2]
    assert ratio.min() >= 0.8 / 1.2
    assert ratio.max() <= 1.2 / 0.8
    assert np.unique(np.asarray(factors.friction)).size > 1900


def test_a_world_keeps_its_factors_until_its_episode_ends():
    world = world_with(**PHYSICS)
    worlds = VectorEnvironment(world, 4, episode_length=3)
    state = jax.jit(worlds.reset)(jax.random.key(0))
    step, drawn = jax.jit(worlds.step), []
    for t in range(4):
        drawn.append(np.asarray(state.env.pipeline_state.physics.factors.gravity))
        state, _ = step(state, jnp.zeros((4, 2)), jax.random.key(t))
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert (drawn[2] != drawn[3]).all()


def test_batches_of_all_sizes_have_the_models_of_their_worlds():
    """The host keeps a model for each place in a batch, and batches take turns."""
    world = world_with("ant-go-to-target", **PHYSICS)
    physics = starts(world, 6).pipeline_state.physics
    control = jax.random.uniform(jax.random.key(1), (6, 8))
    step = jax.jit(jax.vmap(world.engine.step))
    whole, _ = step(physics, control)
    some, _ = step(*jax.tree.map(lambda x: x[3:5], (physics, control)))
    again, _ = step(physics, control)
    np.testing.assert_array_equal(some.qpos, whole.qpos[3:5])
    np.testing.assert_array_equal(again.qpos, whole.qpos)


def test_a_delayed_action_arrives_later():
    """The delayed world does with [0, 0, a, b] what the prompt one does two steps earlier with [a, b]."""
    prompt, late = world_with(), world_with(action_delay=(2, 2))
    actions = jax.random.uniform(jax.random.key(1), (5, 2), minval=-1, maxval=1)
    expected = path(prompt, jnp.concatenate([jnp.zeros((2, 2)), actions[:3]]))
    np.testing.assert_allclose(path(late, actions), expected, atol=1e-6)


def test_a_late_action_is_what_moves_the_body_and_the_newest_one_what_the_agent_took():
    world = world_with("ant-track-velocity", action_delay=(1, 1))
    prompt = world_with("ant-track-velocity")
    first, second = jax.random.uniform(jax.random.key(1), (2, 8), minval=-1, maxval=1)
    state = jax.jit(world.reset)(jax.random.key(0))
    step = jax.jit(world.step)
    for action in (first, second):
        state = step(state, action)
        np.testing.assert_array_equal(state.obs["last_action"], action)
    physics = state.pipeline_state.physics
    scene = world.scene(physics, physics.qpos[None], second, first, arrived=first)
    np.testing.assert_array_equal(scene.action - scene.last_action, second - first)
    expected = prompt.scene(physics, physics.qpos[None], first).actuator_forces
    np.testing.assert_array_equal(scene.actuator_forces, expected)


def test_a_body_in_free_fall_feels_nothing_whatever_gravity_is():
    """The accelerometer: what a body feels is its acceleration less gravity's."""
    world = world_with("ant-go-to-target", gravity=(0.5, 0.5))
    state = jax.jit(world.reset)(jax.random.key(0))
    physics = state.pipeline_state.physics
    lifted = physics.replace(qpos=physics.qpos.at[2].add(3.0))
    falls, _ = jax.jit(world.engine.step)(lifted, jnp.zeros(8))
    assert float(falls.qacc[2]) == pytest.approx(-0.5 * 9.81, rel=1e-3)

    def felt(physics):
        height = world.stage.arena.height
        return np.asarray(world.body.proprioception(physics, world.body.frame(physics), physics.qpos, height))

    falling, at_rest = felt(falls), felt(falls.replace(qacc=jnp.zeros_like(falls.qacc)))
    (places,) = np.nonzero(falling != at_rest)
    np.testing.assert_allclose(falling[places], 0, atol=1e-3)
    unit = world.body._config.acceleration_unit
    assert np.linalg.norm(at_rest[places]) == pytest.approx(0.5 * 9.81 / unit, rel=1e-3)


def path(world, actions):
    """Positions after each action from a start."""
    state = jax.jit(world.reset)(jax.random.key(0))
    step, found = jax.jit(world.step), []
    for action in actions:
        state = step(state, action)
        found.append(state.pipeline_state.physics.qpos)
    return np.stack(found)


def test_delayed_senses_show_what_was():
    prompt, late = world_with(), world_with(observation_delay=(2, 2))
    actions = jax.random.uniform(jax.random.key(1), (5, 2), minval=-1, maxval=1)
    now, before = observations(prompt, actions), observations(late, actions)
    for name in now[0]:
        for t in range(6):
            np.testing.assert_array_equal(before[t][name], now[max(t - 2, 0)][name])


def observations(world, actions, seed=0):
    """At a start and after each action."""
    state = jax.jit(world.reset)(jax.random.key(seed))
    step, found = jax.jit(world.step), [state.obs]
    for action in actions:
        state = step(state, action)
        found.append(state.obs)
    return found


def test_noise_is_anew_in_each_step_and_bias_lasts():
    exact = world_with()
    noisy = world_with(noise={"proprioception": 0.3, "targets": 0.1}, bias={"targets": 0.2})
    rows = []
    for world in (exact, noisy):
        state = starts(world, 500)
        moved = jax.jit(jax.vmap(world.step))(state, jnp.zeros((500, 2)))
        rows.append([state.obs, moved.obs])
    for name, noise, bias in (("proprioception", 0.3, 0.0), ("targets", 0.1, 0.2), ("instruction", 0.0, 0.0)):
        first, second = (np.asarray(rows[1][t][name] - rows[0][t][name]) for t in range(2))
        assert first.std() == pytest.approx(np.hypot(noise, bias), rel=0.1)
        assert (second - first).std() == pytest.approx(np.sqrt(2) * noise, rel=0.1)


def test_pushes_come_at_their_period_and_are_no_faster_than_said():
    config = RandomizationConfig(push_speed=0.5, push_period=0.1)  # each fourth control step
    world = load("ball-go-to-target")
    drawer = Randomization(config, world.engine.model, world.body, world.control_seconds)
    start = jax.vmap(lambda key: drawer.start(key, {}, None)[0])
    act = jax.jit(jax.vmap(lambda variation: drawer.act(variation, jnp.zeros(2))))
    variation, pushes = start(jax.random.split(jax.random.key(0), 2000)), []
    for _ in range(8):
        variation, _, push = act(variation)
        pushes.append(push)
    pushes = np.stack(pushes)
    speeds = np.linalg.norm(pushes, axis=-1)
    due = speeds > 0
    assert 0.49 < speeds.max() <= 0.5
    assert speeds[due].mean() == pytest.approx(0.25, abs=0.01)
    assert np.abs(pushes[due].mean(0)).max() < 0.01  # in any direction
    np.testing.assert_array_equal(due[:4], due[4:])
    assert (due[:4].sum(0) == 1).all()
    assert (due[:4].sum(1) > 400).all()


def test_a_push_is_the_torsos_velocity_before_the_step():
    world = world_with("ant-go-to-target", push_speed=2.0, push_period=0.025)  # each step
    state = jax.jit(world.reset)(jax.random.key(0))
    before, variation = state.pipeline_state.physics, state.pipeline_state.variation
    _, action, push = world._randomization.act(variation, jnp.zeros(8))
    assert np.linalg.norm(push) > 0
    pushed = before.replace(qvel=before.qvel.at[:2].add(push))
    expected, _ = jax.jit(world.engine.step)(pushed, action)
    after = jax.jit(world.step)(state, jnp.zeros(8)).pipeline_state.physics
    np.testing.assert_allclose(after.qvel, expected.qvel, atol=1e-5)


def test_what_is_drawn_is_seen_by_the_critic_alone():
    world = world_with("ant-go-to-near-target", observed=True, action_delay=(0, 4), **PHYSICS)
    recipe = resolve(load_recipe("ant-go-to-near-target"), world)
    seen = recipe.information
    assert DRAWN in seen.critic
    assert not any(DRAWN in groups for groups in (seen.high_level, seen.low_level, seen.default))
    state = starts(world, 3)
    factors, variation = state.pipeline_state.physics.factors, state.pipeline_state.variation
    parts = [factors.mass, factors.friction, factors.strength, factors.damping, factors.gravity]
    expected = np.concatenate([*parts, variation.action_delay[:, None] / 4], axis=1)
    np.testing.assert_allclose(state.obs[DRAWN], expected, rtol=1e-6)


def test_nothing_varies_by_default():
    world = PhysicsWorld(physics_environment("ant-go-to-target"), "mujoco")
    state = jax.eval_shape(world.reset, jax.random.key(0)).pipeline_state
    assert state.variation is None
    assert state.physics.factors is None
    assert DRAWN not in world.observation_specs
    assert "randomization" not in world.description
    assert ranges(world.description.get("randomization")) == ""


def test_the_table_is_written_and_read_back():
    config = physics_environment("ant-go-to-target-varied")
    assert from_table(EnvironmentConfig, to_table(config), "here") == config
    assert "mass 0.8–1.25" in ranges(to_table(config)["randomization"])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"mass": [1.2, 0.8]}, "randomization.mass: the least comes first, and 1.2 is more than 0.8"),
        ({"mass": [0.0, 1.0]}, "randomization.mass.0: input should be greater than or equal to 0.000001"),
        ({"masses": [1.0, 1.0]}, "unknown field 'masses'; did you mean mass"),
        ({"action_delay": [0, 101]}, "less than or equal to 100"),
        ({"noise": {"targets": -0.1}}, "randomization.noise.targets: input should be greater"),
    ],
)
def test_wrong_tables_are_refused(table, said):
    given = to_table(physics_environment("ball-go-to-target")) | {"randomization": table}
    with pytest.raises(UserError) as refused:
        from_table(EnvironmentConfig, given, "mine.toml")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_noise_of_a_group_that_there_is_not_names_those_that_there_are():
    with pytest.raises(UserError, match="noise 'target'; did you mean targets"):
        world_with(noise={"target": 0.1})


def test_no_random_key_is_used_twice(monkeypatch):
    """With JAX's generator fold_in(key, 1) is split(key)[1], which the next step begins with."""
    used, normals = [], randomization._normals

    def watched(key, *rest):
        used.append(key)
        return normals(key, *rest)

    world = world_with(noise={"targets": 0.1}, push_speed=1.0)
    monkeypatch.setattr(randomization, "_normals", watched)
    drawn, observation = world._randomization, {"targets": jnp.zeros(6)}
    assert drawn
    variation, _ = drawn.start(jax.random.key(0), observation, None)
    begun = len(used)
    keys = [variation.key]
    for _ in range(2):
        keys += [*jax.random.split(variation.key)]
        variation, _, _ = drawn.act(variation, jnp.zeros(2))
        keys.append(variation.key)
        variation, _ = drawn.sense(variation, observation, None)
    others, noise = (
        {tuple(np.asarray(jax.random.key_data(key))) for key in some} for some in (keys, used[begun - 1 :])
    )
    assert len(noise) == 3
    assert not others & noise
