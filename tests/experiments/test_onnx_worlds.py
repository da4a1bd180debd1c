"""The worlds that an exported policy travels with: of several environments each, and one with meshes."""

import jax
import mujoco
import numpy as np
import pytest
from test_copies import project

import mjx_hkl
from mjx_hkl.environments import many
from mjx_hkl.experiments.agent_format import KnownAgent
from mjx_hkl.experiments.build import resolve, world_of
from mjx_hkl.experiments.evaluation import evaluate
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import Agent

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from mjx_hkl.experiments.onnx.export import write_policy
from mjx_hkl.experiments.onnx.player import load_policy

BALLS = ("ball-go-to-target", "ball-go-to-near-target")


def untrained(environment):
    """An agent of random parameters for these environments, and its world."""
    recipe = mjx_hkl.change(load_recipe("ball-go-to-target-plain"), environment=environment)
    world = world_of(recipe)
    recipe = resolve(recipe, world)
    agent = Agent(world.observation_specs, world.action_size, recipe.model, jax.random.key(0))
    return KnownAgent(agent, recipe, WorldSpecs.of(world)), world


def test_each_of_several_worlds_has_its_model(tmp_path):
    known, world = untrained(list(BALLS))
    card = write_policy(tmp_path / "carried", known, world, stochastic=False)
    assert {one.model for one in card.worlds.values()} == {f"world.{name}.xml" for name in BALLS}
    for name, one in card.worlds.items():
        model = mujoco.MjModel.from_xml_path(str(tmp_path / "carried" / one.model))
        assert model.opt.timestep * one.description["physics"]["substeps"] == pytest.approx(
            one.control_seconds
        )
        assert len(one.start) == model.nq, name
    policy = load_policy(tmp_path / "carried" / "policy.onnx")
    tasks = many(world, 8)
    assert evaluate(tasks, policy, 3, True) == evaluate(tasks, known.agent, 3, True)


def test_a_model_with_meshes_is_compiled_and_needs_no_file(tmp_path):
    environment = project(tmp_path / "project") / "worlds" / "mine.toml"
    known, world = untrained(str(environment))
    card = write_policy(tmp_path / "carried", known, world, stochastic=False)
    (one,) = card.worlds.values()
    assert one.model == "world.mjb"
    (tmp_path / "project").rename(tmp_path / "gone")
    model = mujoco.MjModel.from_binary_path(str(tmp_path / "carried" / "world.mjb"))
    assert model.nmesh == 1
    np.testing.assert_array_equal(model.body_mass, world.engine.model.body_mass)
