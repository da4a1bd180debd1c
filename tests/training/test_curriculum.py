"""Worlds that grow harder with training's progress: by hand, over a training of eight train steps."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loading import physics_environment

from mjx_hkl.environments import PhysicsWorld, VectorEnvironment
from mjx_hkl.environments.tasks import Outcome, Start
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_environment, make_loop, make_train_step, resolve
from mjx_hkl.experiments.evaluation import RandomAgent, evaluate
from mjx_hkl.models.config import Information
from mjx_hkl.training import checkpoint


@dataclasses.dataclass(frozen=True)
class Growing:
    """Commands from a range that grows; a step earns the progress that it is told."""

    uses_progress: ClassVar[bool] = True
    can_succeed: ClassVar[bool] = False

    def reset(self, key, stage):
        return Start(stage.progress * jax.random.uniform(key, minval=-1.0), jnp.zeros(2))

    def observe(self, state, scene):
        return {"command": state[None]}

    def reward(self, state, scene):
        return Outcome(scene.progress, jnp.zeros(()))


@pytest.fixture(scope="module")
def world():
    config = physics_environment("ball-go-to-target")
    return PhysicsWorld(dataclasses.replace(config, task=Growing(), episode_length=5), "mujoco")


@pytest.fixture(scope="module")
def loop(world, flat_recipe):
    return make_loop(
        resolve(dataclasses.replace(flat_recipe, num_envs=4, information=Information()), world), world
    )


def test_a_range_grows_with_progress_and_is_whole_without_training(world):
    keys = jax.random.split(jax.random.key(0), 100)
    commands = [
        jnp.abs(jax.jit(jax.vmap(at.reset))(keys).obs["command"])
        for at in (world.curriculum(jnp.float32(0)), world.curriculum(jnp.float32(0.25)), world)
    ]
    most = [float(x.max()) for x in commands]
    assert most[0] == 0.0
    assert 0.2 < most[1] <= 0.25
    np.testing.assert_allclose(commands[1], 0.25 * commands[2], rtol=1e-6)


def test_episodes_begin_where_training_is_and_a_resumed_one_goes_on_exactly(loop, tmp_path):
    """Each train step ends the episodes of all worlds. Those of step k, of 8, began at (k − 1) / 8."""
    straight = []
    for i, (state, rows) in enumerate(loop.intervals(loop.init())):
        progress = state.actor.env.env.pipeline_state.progress
        np.testing.assert_array_equal(progress, np.full((1, 4), (2 * i + 1) / 8, np.float32))
        if i == 1:
            checkpoint.save(tmp_path, state, 80, {}, keep=1)
        straight.append(rows)
    assert i == 3
    returns = [rows[0]["episode_return"] for rows in straight]
    np.testing.assert_allclose(returns[1:], [5 * 1.5 / 8, 5 * 3.5 / 8, 5 * 5.5 / 8], rtol=1e-5)
    resumed = checkpoint.restore(tmp_path, loop.abstract).state
    for resumed, _ in loop.intervals(resumed):  # noqa: B020
        pass
    for name, x in checkpoint._named_leaves(resumed).items():
        np.testing.assert_array_equal(x, checkpoint._named_leaves(state)[name], err_msg=name)


def test_evaluation_is_of_the_whole(world):
    agent = RandomAgent(world.action_size, world.action_kind)
    found = evaluate(VectorEnvironment(world, 4, 5), agent, deterministic=False)
    assert found.episode_return == 5.0


def test_success_at_an_easy_beginning_ends_no_run(flat_recipe):
    class Reaching(Growing):
        can_succeed: ClassVar[bool] = True

    config = dataclasses.replace(physics_environment("ball-go-to-target"), task=Reaching(), episode_length=5)
    world = PhysicsWorld(config, "mujoco")
    recipe = dataclasses.replace(flat_recipe, information=Information(), until_success=0.8)
    with pytest.raises(UserError, match="until_success: the task grows harder"):
        make_environment(resolve(recipe, world), world=world)


def test_nothing_is_carried_where_no_task_asks(ball, tiny_recipe):
    assert ball.curriculum is None
    assert jax.eval_shape(ball.reset, jax.random.key(0)).pipeline_state.progress is None
    step = make_train_step(tiny_recipe, ball)
    assert step.worlds(jnp.int32(3)) is step.environment
