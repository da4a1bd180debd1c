"""It learns: the smallest world that has a task, a success, an end and a time limit."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from brax.envs.base import State

from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.config import from_table
from mjx_hkl.environments import VectorEnvironment
from mjx_hkl.experiments.build import make_environment, make_train_step, resolve
from mjx_hkl.experiments.evaluation import evaluate
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import Information, ModelConfig
from mjx_hkl.specs import ArraySpec
from mjx_hkl.training.step import TrainStep, init_seeds, run_seeds


class Line:
    """A point in [-1, 1] is pushed to a target; reward 1 within 0.1 of it, which ends the episode."""

    observation_specs = {"proprioception": ArraySpec((1,)), "targets": ArraySpec((1,))}  # noqa: RUF012
    action_size = 1
    can_succeed = True
    curriculum = None

    def reset(self, rng):
        x, target = jax.random.uniform(rng, (2,), minval=-1.0, maxval=1.0)
        zero = jnp.zeros(())
        metrics = {"success": zero, "fault": zero}
        place: Any = jnp.stack([x, target])  # Brax means its own kind of state
        return State(place, self._observe(x, target), zero, zero, metrics)

    def step(self, state, action):
        x, target = state.pipeline_state
        x = jnp.clip(x + 0.1 * jnp.clip(action[0], -1, 1), -1.0, 1.0)
        success = (jnp.abs(x - target) < 0.1).astype(jnp.float32)
        return state.replace(
            pipeline_state=jnp.stack([x, target]),
            obs=self._observe(x, target),
            reward=success,
            done=success,
            metrics=state.metrics | {"success": success},
        )

    def _observe(self, x, target):
        return {"proprioception": x[None], "targets": target[None]}


ALGORITHM = SVG(
    kl_cost=1e-4,
    entropy_cost=1e-4,
    policy_learning_rate=1e-3,
    critic_learning_rate=1e-3,
    default_policy_learning_rate=1e-4,
    learning_rate_decay=1.0,
    target_update_period=20,
    unroll_length=5,
    batch_size=64,
    replay_ratio=8.0,
)


STEPS = 800  # train steps
OPTIMIZED = {"xla_backend_optimization_level": 2, "xla_llvm_disable_expensive_passes": False}


@pytest.mark.parametrize("prior", ["isotropic", "ar1", "ar_learned", "none"])
def test_it_learns_to_reach_the_target(prior):
    groups = ("proprioception", "targets")
    flat = prior == "none"
    high_level = "none" if flat else {"sizes": [32], "latent_size": 2}
    default = {"kind": prior, "sizes": [16]} if prior == "ar_learned" else prior
    tables = {
        "policy": {"high_level": high_level, "low_level": {"sizes": [32]}, "actions": "gaussian"},
        "default_policy": {"high_level": default, "low_level": "none" if flat else "shared"},
        "critic": {"sizes": [64, 64]},
    }
    seen = Information(groups, groups if flat else ("proprioception",), groups, groups[:1])
    model = dataclasses.replace(from_table(ModelConfig, tables, "test"), information=seen)
    line: Any = Line()  # of a world it has what training asks
    worlds = VectorEnvironment(line, 64, episode_length=20)
    train_step = TrainStep(worlds, model, ALGORITHM, 20_000, min_replay=1_000, total_env_steps=STEPS * 64 * 5)
    state = jax.jit(lambda keys: init_seeds(train_step, keys))(jax.random.split(jax.random.key(0), 1))
    fresh = Agent(Line.observation_specs, 1, model, jax.random.key(1))
    many = VectorEnvironment(line, 512, episode_length=20)
    before = evaluate(many, fresh, seed=0, deterministic=True).success_rate
    train = jax.jit(lambda state: run_seeds(train_step, state, STEPS), compiler_options=OPTIMIZED)
    state, _ = train(state)
    agent = jax.tree.map(lambda x: x[0], state.learner.agent)
    after = evaluate(many, agent, seed=0, deterministic=True).success_rate
    assert before < 0.5
    assert after > 0.95


@pytest.mark.long
def test_v_trace_walks_the_grid_by_the_shortest_paths():
    """Two cells apart at random on 8 x 8: 2 · 63/24 steps, times 64/63 as they are never the same."""
    recipe = resolve(load_recipe("grid-1-step"))
    train_step = make_train_step(recipe)
    state = jax.jit(lambda keys: init_seeds(train_step, keys))(jax.random.split(jax.random.key(0), 1))
    train = jax.jit(lambda state: run_seeds(train_step, state, 250), compiler_options=OPTIMIZED)
    state, _ = train(state)
    agent = jax.tree.map(lambda x: x[0], state.learner.agent)
    found = evaluate(make_environment(recipe, 8192), agent, seed=0, deterministic=True)
    assert found.success_rate == 1.0
    assert found.episode_length < 1.05 * 2 * 63 / 24 * 64 / 63
