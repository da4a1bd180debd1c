"""The programs for GPUs and TPUs, lowered on a machine that has none, and read."""

import dataclasses
import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from mjx_hkl.environments import VectorEnvironment, make_world
from mjx_hkl.experiments import evaluation
from mjx_hkl.experiments.build import make_train_step, resolve, world_of
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.models.agent import Agent

PARTS = Path(__file__).parents[2] / "docs" / "example" / "puck-parts.toml"
RECIPES = (
    "ball-go-to-target",  # replay, isotropic prior
    "ant-go-to-near-target",  # AR(1): latents in order
    "ball-go-to-target-priors:distral_two_column",  # flat
    "grid-1-step",  # discrete actions, V-trace, a learned prior
    f"{PARTS}:gru",  # a memory
    f"{PARTS}:convolution",  # images of bytes
)


@functools.cache
def traced(name):
    """The recipe's train step and evaluation on the engine that accelerators take, and their states."""
    recipe = load_recipe(name)
    has_physics = world_of(recipe).engine is not None
    recipe = dataclasses.replace(recipe, num_envs=32, engine="mjx" if has_physics else "auto")
    world = world_of(recipe)
    recipe = resolve(recipe, world)
    step = make_train_step(recipe, world)
    state = jax.eval_shape(step.init, jax.random.key(0))
    train = jax.jit(step.step, donate_argnums=0).trace(state)
    agent = jax.eval_shape(
        lambda: Agent(world.observation_specs, world.action_size, recipe.model, jax.random.key(0))
    )
    run = evaluation._run(VectorEnvironment(world, 8, world.episode_length), deterministic=True)
    return train, state, run.trace(agent, jax.random.key(0))


def operations(jaxpr):
    """Every operation of a program, those inside loops and branches too."""
    for equation in jaxpr.eqns:
        yield equation
        for parameter in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                yield from operations(inner)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("name", RECIPES)
def test_train_step_and_evaluation_lower_for_it(name, platform):
    """Nothing asks the host, nothing is in float64, and the train step gives every buffer back."""
    train, state, evaluate = traced(name)
    texts = [program.lower(lowering_platforms=(platform,)).as_text() for program in (train, evaluate)]
    for text in texts:
        assert "callback" not in text
        assert not re.search(r"\bf64\b|xf64>", text)
    donated = re.findall(r"tf\.aliasing_output|jax\.buffer_donor", texts[0])
    assert len(donated) == len(jax.tree.leaves(state))


@pytest.mark.parametrize("name", RECIPES)
def test_a_train_step_has_no_loop_of_unknown_length(name):
    """The host would wait for a flag each time round, and every device for all others."""
    train, _, _ = traced(name)
    assert "while" not in {x.primitive.name for x in operations(train.jaxpr.jaxpr)}


@pytest.mark.parametrize(
    "name",
    [
        "ball-go-to-target",
        "ant-gap",
        "quadruped-move-box-and-go-to-target",
        "ball-gather-boxes",
        "humanoid-walk",
        "grid-4-step",
    ],
)
def test_a_control_step_has_no_loop_and_no_product_but_physics(name):
    """A loop's rounds and products of small matrices are launches; only boxes that touch need products."""
    world = make_world(name, "auto" if name.startswith("grid") else "mjx")
    if world.engine is not None:
        world.engine.step = lambda physics, control: (physics, jnp.stack([physics.qpos] * 5))
    environment = VectorEnvironment(world, 8, world.episode_length)
    state = jax.eval_shape(environment.reset, jax.random.key(0))
    action = jnp.zeros(8, int) if world.action_kind == "categorical" else jnp.zeros((8, world.action_size))
    program = jax.make_jaxpr(environment.step)(state, action, jax.random.key(0))
    avoided = {"while", "scan", "cond", "dot_general"} - ({"dot_general"} if "gather" in name else set())
    assert not avoided & {x.primitive.name for x in operations(program.jaxpr)}


@pytest.mark.parametrize("name", RECIPES)
def test_an_updates_metrics_are_written_as_one(name):
    """The loop over updates is in a branch, for there is none before `min_replay`."""
    train, state, _ = traced(name)
    branches = [
        b for x in operations(train.jaxpr.jaxpr) if x.primitive.name == "cond" for b in x.params["branches"]
    ]
    loops = [x for branch in branches for x in branch.jaxpr.eqns if x.primitive.name == "scan"]
    assert len(jax.tree.leaves(state.learner)) + 1 in [len(loop.outvars) for loop in loops]
