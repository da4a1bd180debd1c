"""Writes an agent's policy as ONNX, with what another program needs to play it.

A folder has `policy.onnx`, `policy.json` (the card, which is in the model's metadata too), `parameters.npz`
(the policy's arrays by name) and the compiled model of a world that MuJoCo simulates: `world.xml`, or
`world.mjb` where the model needs files of its own, like meshes. Of several worlds it is `world.NAME.xml`.
"""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from mjx_hkl.config import to_table
from mjx_hkl.environments import AnyWorld, PhysicsWorld, SeveralWorlds, task_name
from mjx_hkl.environments.composition import compose
from mjx_hkl.environments.physics import spans_of
from mjx_hkl.experiments.agent_format import KnownAgent, module_parameters, parameter_name, require_free
from mjx_hkl.experiments.onnx.card import (
    ACTION,
    CARRY,
    IS_FIRST,
    NEXT_CARRY,
    NOISE,
    ActionSpec,
    Actuators,
    CarrySpec,
    NoiseSpec,
    PolicyCard,
    WorldCard,
)
from mjx_hkl.experiments.onnx.graph import Arrays, Traced, save
from mjx_hkl.experiments.whole import whole_folder
from mjx_hkl.math.categorical import Categorical
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.steps import Noise
from mjx_hkl.specs import ArraySpec
from mjx_hkl.tables import with_files


def write_policy(folder: Path, known: KnownAgent, world: AnyWorld, stochastic: bool) -> PolicyCard:
    """Writes an agent's policy, whole or not at all; returns its card.

    Args:
      folder: where to.
      known: the agent, its recipe resolved.
      world: that it was made for.
      stochastic: with inputs for the noise of latents and actions; without them it is the mean policy.

    Raises:
      UserError: the folder holds something, or ONNX cannot express the policy.
    """
    require_free(folder)
    model, card = policy_of(known, stochastic)
    each = _worlds(known, world)
    files = {name: f"world.{task_name(name)}" if len(each) > 1 else "world" for name in each}
    with whole_folder(folder) as part:
        worlds = {name: _write_world(part / files[name], one) for name, one in each.items()}
        card = dataclasses.replace(card, worlds=worlds)
        save(model, card.metadata(), part / "policy.onnx")
        (part / "policy.json").write_text(json.dumps(card.table(), indent=2) + "\n", encoding="utf-8")
        np.savez(part / "parameters.npz", allow_pickle=False, **_parameters(known.agent))
    return card


def policy_of(known: KnownAgent, stochastic: bool) -> tuple[Any, PolicyCard]:
    """The policy's graph, an `onnx.ModelProto`, and its card without worlds.

    Raises:
      UserError: ONNX cannot express the policy.
    """
    traced = _traced(known, stochastic)
    card = _card(known, traced)
    return traced.model(list(card.inputs()), list(card.outputs())), card


def _traced(known: KnownAgent, stochastic: bool) -> Traced:
    """A step of the agent, with all that it could be told and could remember."""
    agent, groups = known.agent, known.world.observation
    carry, noise = jax.eval_shape(lambda: (agent.start((1,)), agent.no_noise((1,))))
    named, structure = _named(carry)
    drawn = {name: _without_batch(x) for name, x in noise._asdict().items()}

    def step(agent: Agent, given: Arrays) -> Arrays:
        is_first = given[IS_FIRST]
        before = structure.unflatten([given[CARRY + name] for name in named])
        zeros = {name: jnp.zeros((*is_first.shape, *spec.shape)) for name, spec in drawn.items()}
        noise = Noise(**{name: given.get(NOISE + name, zero) for name, zero in zeros.items()})
        after, acted = agent.step(before, {name: given[name] for name in groups}, is_first, noise)
        return {ACTION: acted.action, **{NEXT_CARRY + name: x for name, x in _named(after)[0].items()}}

    inputs = {IS_FIRST: ArraySpec((), "bool"), **groups}
    inputs |= {CARRY + name: _without_batch(leaf) for name, leaf in named.items()}
    if stochastic:
        inputs |= {NOISE + name: spec for name, spec in drawn.items()}
    return Traced.of(step, agent, parameter_name, inputs)


def _named(carry: Any) -> tuple[dict[str, Any], Any]:
    """The leaves of a carry by name, and its structure."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(carry)
    return {parameter_name(path): leaf for path, leaf in leaves}, structure


def _without_batch(x: Any) -> ArraySpec:
    return ArraySpec(tuple(x.shape[1:]), str(x.dtype))


def _read(traced: Traced) -> set[str]:
    """What actions depend on, now or in later steps: a default policy's memory, for one, they do not."""
    outputs, read = {ACTION}, set()
    while True:
        read = traced.reads(outputs)
        more = {NEXT_CARRY + name.removeprefix(CARRY) for name in read if name.startswith(CARRY)} - outputs
        if not more:
            return read
        outputs |= more


def _card(known: KnownAgent, traced: Traced) -> PolicyCard:
    read, agent, policy = _read(traced), known.agent, known.agent.policy
    start = {CARRY + name: np.asarray(x[0]) for name, x in _named(agent.start((1,)))[0].items()}
    recipe = to_table(known.recipe)
    spec, is_discrete = traced.outputs[ACTION], policy.low_level.head.distribution is Categorical
    return PolicyCard(
        recipe=known.recipe.name,
        environment=known.recipe.environment,
        latent_size=policy.latent_size,
        latent_period=policy.latent_period,
        observation={name: group for name, group in known.world.observation.items() if name in read},
        action=ActionSpec(
            spec.shape,
            spec.dtype,
            None if is_discrete else (-1.0, 1.0),
            known.world.action_size if is_discrete else None,
        ),
        carry={
            name.removeprefix(CARRY): CarrySpec(x.shape, str(x.dtype), x.tolist())
            for name, x in start.items()
            if name in read
        },
        noise={
            name: NoiseSpec(
                traced.inputs[NOISE + name].shape, "gumbel" if is_discrete and name == "action" else "normal"
            )
            for name in Noise._fields
            if NOISE + name in read
        },
        networks=with_files({name: recipe[name] for name in ("policy", "encoders")}, os.path.basename),
        modules={
            name: module.sees for name, module in agent.modules().items() if _plays(name) and module.sees
        },
        worlds={},
    )


def _plays(module: str) -> bool:
    return module.startswith(("policy.", "encoders."))


def _parameters(agent: Agent) -> dict[str, np.ndarray]:
    """The arrays of the modules that play, by name."""
    modules = {name: tree for name, tree in module_parameters(agent).items() if _plays(name)}
    leaves = jax.tree_util.tree_leaves_with_path(modules)
    return {parameter_name(path): np.asarray(leaf) for path, leaf in leaves}


def _worlds(known: KnownAgent, world: AnyWorld) -> dict[str, Any]:
    if isinstance(world, SeveralWorlds):
        return {name: task.env for name, task in world.tasks.items()}
    return {known.recipe.environment_name: world}


def _write_world(path: Path, world: Any) -> WorldCard:
    """Writes the model of a world that MuJoCo simulates, to the path with a suffix."""
    description = with_files(world.description, os.path.basename)
    if not isinstance(world, PhysicsWorld):
        return WorldCard(world.control_seconds, description)
    parts = compose(world.config)
    xml = parts.spec.to_xml()
    file = path.with_name(path.name + (".mjb" if ' file="' in xml else ".xml"))
    if file.suffix == ".mjb":
        mujoco.mj_saveModel(parts.model, str(file))
    else:
        file.write_text(xml, encoding="utf-8")
    centre, below, above = spans_of(parts.model, parts.body.anatomy.servos)
    control = np.stack([centre - below, centre, centre + above], axis=1)
    actuators = Actuators(parts.body.actuator_names, tuple(map(tuple, control.tolist())))
    return WorldCard(world.control_seconds, description, file.name, tuple(parts.rest.tolist()), actuators)
