"""Transfer (§7): modules of exported agents in new ones, frozen or as a start."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from mjx_hkl.algorithms import learner
from mjx_hkl.config import difference
from mjx_hkl.environments.several import TASK
from mjx_hkl.environments.world import VISION
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.agent_format import KnownAgent, abstract_agent, parameter_name, read_agent
from mjx_hkl.experiments.agents import agent_folder
from mjx_hkl.experiments.copies import told_body
from mjx_hkl.experiments.recipe import Recipe, Taken, TransferConfig
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import Agent, module_at
from mjx_hkl.models.modules import ACTION, LATENT, PREVIOUS_LATENT, Module
from mjx_hkl.training.step import TrainState
from mjx_hkl.user_code import trust

Sources = Mapping[str, list[KnownAgent]]
"""By what a recipe gives of an agent: one, or those of several seeds."""


def load_sources(recipe: Recipe, world: WorldSpecs, trust_code: bool = False) -> Sources:
    """The agents a recipe takes modules from; none where it takes nothing.

    Args:
      recipe: resolved.
      world: of the new run.
      trust_code: runs code that came with them.

    Raises:
      UserError: there is no such agent, or it lacks a module, or one does not fit, or its code may not run.
    """
    sources = {given: _seeds(given, trust_code) for given in recipe.transfer.agents}
    if sources:
        require_fits(abstract_agent(recipe, world), {given: seeds[0] for given, seeds in sources.items()})
    return sources


def require_fits(here: KnownAgent, there: Mapping[str, KnownAgent]) -> None:
    """Raises UserError, which tells all of them, where `here` takes modules that do not fit.

    Args:
      here: the new agent.
      there: others, as `here` gives them; what it takes from agents that are not among them is not looked at.
    """
    problems = list(_misfits(here, there))
    if problems:
        raise UserError(f"transfer: {'; and '.join(problems)}")


def _misfits(here: KnownAgent, there: Mapping[str, KnownAgent]) -> Iterator[str]:
    modules_here, alone = transferable(here.agent), len(here.recipe.transfer.agents) == 1
    for taken in here.recipe.transfer.taken:
        target, source, agent = taken
        if agent not in there:
            continue
        other, its_name = there[agent], "the other agent" if alone else agent
        modules_there = transferable(other.agent)
        if target not in modules_here or modules_here[target].stands_for:
            known = [name for name, module in modules_here.items() if not module.stands_for]
            yield f"this agent has {unknown_name('module', target, known)}"
            continue
        if source not in modules_there:
            yield f"{its_name} has {unknown_name('module', source, modules_there)}"
            continue
        for group, encoder in _missing_encoders(here, other, taken):
            yield f"{its_name}'s {source} sees {group} through the shared {encoder}; take that too"
        for group, encoder in _learning_encoders(here, taken):
            yield f"{target} is frozen, and sees {group} through {encoder}, which is not; freeze both"
        new = _signature(here, modules_here[target])
        old = _signature(other, _module(other.agent, source))
        for what in dict.fromkeys((*new, *old)):
            if new.get(what) != old.get(what):
                told = _told(what, old.get(what), new.get(what))
                hint = _HINTS.get(what, _SAME_FIELDS).format(old=old.get(what))
                yield f"{target} does not fit {its_name}'s {source}: {told}; {hint}"
                break  # what else differs mostly follows from it


def _missing_encoders(here: KnownAgent, other: KnownAgent, taken: Taken) -> Iterator[tuple[str, str]]:
    """Groups that a module sees through the other agent's shared encoders, which are not taken with it."""
    with_it = [x.module for x in here.recipe.transfer.taken if x.agent == taken.agent]
    for group in _module(other.agent, taken.source).sees:
        encoder = f"encoders.{group}"
        if group in other.agent.encoders and taken.source != encoder and encoder not in with_it:
            yield group, encoder


def _learning_encoders(here: KnownAgent, taken: Taken) -> Iterator[tuple[str, str]]:
    """Groups that a frozen module sees through shared encoders that learn on."""
    frozen = here.recipe.transfer.frozen_modules
    for group in _module(here.agent, taken.module).sees if taken.module in frozen else ():
        encoder = f"encoders.{group}"
        if group in here.agent.encoders and taken.module != encoder and encoder not in frozen:
            yield group, encoder


def transferred(state: TrainState, sources: Sources, config: TransferConfig) -> TrainState:
    """A fresh state of several seeds whose modules are those of the sources, in turn; see `Loop.place`."""
    num_seeds = len(jax.tree.leaves(state.learner.agent)[0])
    modules = {}
    for target, source, agent in sorted(config.taken):  # a part after its module: it may be another agent's
        taken = [jax.tree.leaves(_module(known.agent, source)) for known in sources[agent]]
        each = [taken[i % len(taken)] for i in range(num_seeds)]
        structure = jax.tree.structure(module_at(state.learner.agent, target))
        stacked = [np.stack(leaves) for leaves in zip(*each, strict=True)]
        modules[target] = jax.tree.unflatten(structure, stacked)
    return state.replace(learner=learner.with_parameters(state.learner, modules))


def _seeds(given: str, trust_code: bool) -> list[KnownAgent]:
    """The agents of all seeds."""
    if given.startswith(":"):
        raise UserError(
            f"transfer: {given!r} is another variant of the recipe: mjx-hkl reproduce trains both; or name an"
            " agent there is, such as a run of it"
        )
    folders = _folders(given)
    if trust_code:
        for folder in folders:
            trust(folder)
    return [read_agent(folder) for folder in folders]


def _folders(given: str) -> list[Path]:
    """Agents of all seeds of a finished run, or of a folder of agents, or a single one."""
    path = Path(given)
    if RunDirectory(path).recipe.is_file():
        if not RunDirectory(path).evaluation.is_file():
            raise UserError(f"{given} is a run that has not ended: it has no exported agent yet")
        path = path / "export"
    else:
        path = agent_folder(given)
    seeds = [file.parent for file in path.glob("seed_*/agent.json")]
    return sorted(seeds, key=lambda folder: int(folder.name.removeprefix("seed_"))) or [path]


def transferable(agent: Agent) -> dict[str, Module]:
    """Modules that have parameters, those that stand for one that has, and parts that can be taken alone."""
    modules = agent.modules()
    modules |= {
        f"{name}.{part}": getattr(module, part) for name, module in modules.items() for part in module.parts
    }
    return {name: module for name, module in modules.items() if jax.tree.leaves(module) or module.stands_for}


def _module(agent: Agent, name: str) -> Module:
    return module_at(agent, module_at(agent, name).stands_for or name)


def _signature(known: KnownAgent, module: Module) -> dict[str, Any]:
    """What must agree between a module and the one it is taken from, most telling first."""
    seen, world = module.sees, known.world
    sizes = [f"{name} {world.observation[name]}" for name in seen if name in world.observation]
    bodily = module.bound_to_body or _BODY in seen
    return {
        "input": ", ".join(seen),
        "body": _of_all(told_body(x.get("body", "its own")) for x in world.worlds) if bodily else "any",
        "[robot]": _of_all(str(x.get("robot") or "none") for x in world.worlds) if bodily else "any",
        "input size": ", ".join(sizes),
        "shared encoder": ", ".join(name for name in seen if name in known.agent.encoders) or "none",
        "unit of distance": _of_all(map(_unit, world.worlds)) if set(seen) - _WITHOUT_UNIT else "any",
        "latent size": getattr(module, "latent_size", known.agent.policy.latent_size),
        "shape": _shapes(module),
        **_fits(module),
    }


def _fits(module: Module) -> dict[str, Any]:
    """What the module and the modules in it, such as encoders, ask for."""
    found = {}
    for path, part in nnx.iter_modules(module):
        for what, value in part.fits().items() if isinstance(part, Module) else ():
            found[" of ".join(map(str, (what, *path[-1:])))] = _plain(value)
    return found


def _shapes(module: Module) -> dict[str, list[int]]:
    leaves = jax.tree_util.tree_leaves_with_path(module)
    return {parameter_name(path): list(x.shape) for path, x in leaves}


def _of_all(told: Iterable[str]) -> str:
    """What is said of each of several worlds, which is one thing where they are alike."""
    return ", ".join(dict.fromkeys(told))


def _unit(table: dict[str, Any]) -> str:
    """Of coordinates in observations: a target at 1 is a metre away in one world and four in another."""
    unit = table.get("task", {}).get("distance_unit")
    return f"{unit} m" if unit else "its own"


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, tuple | list) else value


def _told(what: str, old: Any, new: Any) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        return f"{what} of {difference(old, new)}"
    return f"{what} is {'nothing' if old is None else old} there and {'nothing' if new is None else new} here"


_BODY = "proprioception"
_WITHOUT_UNIT = {_BODY, "instruction", TASK, VISION, LATENT, PREVIOUS_LATENT, ACTION}
_GROUPS = "hide from both what differs (--information.MODULE GROUP ...), or leave this module out"
_SAME_FIELDS = "give both recipes the same fields of the module"
_HINTS = {
    "input": _GROUPS,
    "body": "what moves or sees a body fits that body alone; a high level without proprioception fits others",
    "[robot]": "it says what actions mean and how a start is: give both environments the same table",
    "input size": _GROUPS,
    "shared encoder": "give both recipes the same [encoders]",
    "unit of distance": "give both environments the same task.distance_unit, or leave this module out",
    "latent size": "give both recipes the same: --policy.high-level.latent-size {old}",
    "shape": "give both recipes the same layer sizes, layer_norm, gated and encoders",
    "range of scales": "give both recipes the same scale of the module",
    "bound of means": "give both recipes the same mean_bound of the module",
    "coefficient": "give both recipes the same coefficient of the module",
}
