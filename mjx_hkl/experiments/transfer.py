"""Transfer (§7): modules of exported agents in new ones, frozen or as a start."""

from collections.abc import Iterable, Iterator
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
from mjx_hkl.experiments.recipe import Recipe, TransferConfig
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import Agent, module_at
from mjx_hkl.models.modules import ACTION, LATENT, PREVIOUS_LATENT, Module
from mjx_hkl.training.step import TrainState
from mjx_hkl.user_code import trust


def load_sources(recipe: Recipe, world: WorldSpecs, trust_code: bool = False) -> list[KnownAgent]:
    """The agents a recipe takes modules from, one or several seeds; none where it takes nothing.

    Args:
      recipe: resolved.
      world: of the new run.
      trust_code: runs code that came with them.

    Raises:
      UserError: there is no such agent, or it lacks a module, or one does not fit, or its code may not run.
    """
    given = recipe.transfer.agent
    if not given:
        return []
    if given.startswith(":"):
        raise UserError(
            f"transfer.agent {given!r} is another variant of the recipe: mjx-hkl reproduce trains both; or"
            " give --transfer.agent"
        )
    folders = _folders(given)
    if trust_code:
        for folder in folders:
            trust(folder)
    sources = [read_agent(folder) for folder in folders]
    require_fits(abstract_agent(recipe, world), sources[0])
    return sources


def require_fits(here: KnownAgent, there: KnownAgent) -> None:
    """Raises UserError, which tells all of them, where `here` takes modules from `there` that do not fit."""
    problems = list(_misfits(here, there))
    if problems:
        raise UserError(f"transfer: {'; and '.join(problems)}")


def _misfits(here: KnownAgent, there: KnownAgent) -> Iterator[str]:
    modules_here, modules_there = transferable(here.agent), transferable(there.agent)
    for target, source in here.recipe.transfer.taken:
        if target not in modules_here or modules_here[target].stands_for:
            known = [name for name, module in modules_here.items() if not module.stands_for]
            yield f"this agent has {unknown_name('module', target, known)}"
            continue
        if source not in modules_there:
            yield f"the other agent has {unknown_name('module', source, modules_there)}"
            continue
        yield from _missing_encoders(here, there, source)
        new = _signature(here, modules_here[target])
        old = _signature(there, _module(there.agent, source))
        for what in dict.fromkeys((*new, *old)):
            if new.get(what) != old.get(what):
                told = _told(what, old.get(what), new.get(what))
                hint = _HINTS.get(what, _SAME_FIELDS).format(old=old.get(what))
                yield f"{target} does not fit the other agent's {source}: {told}; {hint}"
                break  # what else differs mostly follows from it


def _missing_encoders(here: KnownAgent, there: KnownAgent, source: str) -> Iterator[str]:
    """Where a module is taken without a shared encoder that it sees a group through."""
    for group in _module(there.agent, source).sees:
        encoder = f"encoders.{group}"
        if (
            group in there.agent.encoders
            and source != encoder
            and encoder not in dict(here.recipe.transfer.taken)
        ):
            yield f"the other agent's {source} sees {group} through the shared {encoder}; take that too"


def transferred(state: TrainState, sources: list[KnownAgent], config: TransferConfig) -> TrainState:
    """A fresh state of several seeds whose modules are those of the sources, in turn; see `Loop.place`."""
    num_seeds = len(jax.tree.leaves(state.learner.agent)[0])
    modules = {}
    for target, source in config.taken:
        taken = [jax.tree.leaves(_module(known.agent, source)) for known in sources]
        each = [taken[i % len(taken)] for i in range(num_seeds)]
        structure = jax.tree.structure(module_at(state.learner.agent, target))
        stacked = [np.stack(leaves) for leaves in zip(*each, strict=True)]
        modules[target] = jax.tree.unflatten(structure, stacked)
    return state.replace(learner=learner.with_parameters(state.learner, modules))


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
    "input size": _GROUPS,
    "shared encoder": "give both recipes the same [encoders]",
    "unit of distance": "give both environments the same task.distance_unit, or leave this module out",
    "latent size": "give both recipes the same: --policy.high-level.latent-size {old}",
    "shape": "give both recipes the same layer sizes, layer_norm, gated and encoders",
    "range of scales": "give both recipes the same scale of the module",
}
