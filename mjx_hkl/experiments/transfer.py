"""Transfer (§7): modules of exported agents in new ones, frozen or as a start."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx_hkl.algorithms import learner
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.export import (
    Export,
    abstract_export,
    find_export,
    load_export,
    module_parameters,
    sees,
)
from mjx_hkl.experiments.recipe import Recipe, TransferConfig
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.models.agent import module_at
from mjx_hkl.training.step import TrainState


def frozen_modules(config: TransferConfig) -> tuple[str, ...]:
    """Names of the modules that stay as they are."""
    return tuple(target for target, _ in _entries(config.frozen))


def load_sources(recipe: Recipe, specs: dict[str, Any]) -> list[Export]:
    """The agents a recipe takes modules from, one or several seeds; none where it takes nothing.

    Args:
      recipe: resolved.
      specs: of the new run's world, by `training_run.specs`.

    Raises:
      UserError: there is no such export, or it lacks a module, or one does not fit.
    """
    config = recipe.transfer
    if not config.checkpoint:
        return []
    if config.checkpoint.startswith(":"):
        raise UserError(
            f"transfer.checkpoint {config.checkpoint!r} is another variant of the recipe: mjx-hkl reproduce"
            " trains both; or give --transfer.checkpoint"
        )
    sources = [load_export(folder) for folder in _folders(config.checkpoint)]
    require_fits(abstract_export(recipe, specs), sources[0])
    return sources


def require_fits(here: Export, there: Export) -> None:
    """Raises UserError where `here` takes a module from `there` that is missing or does not fit."""
    config = here.recipe.transfer
    for target, source in _entries((*config.frozen, *config.initial)):
        _require_fits(here, target, there, source)


def transferred(state: TrainState, sources: list[Export], config: TransferConfig) -> TrainState:
    """A fresh state of several seeds whose modules are those of the sources, in turn; see `Loop.place`."""
    num_seeds = len(jax.tree.leaves(state.learner.agent)[0])
    modules = {}
    for target, source in _entries((*config.frozen, *config.initial)):
        taken = [jax.tree.leaves(_module(found, source)) for found in sources]
        each = [taken[i % len(taken)] for i in range(num_seeds)]
        structure = jax.tree.structure(module_at(state.learner.agent, target))
        stacked = [np.stack(leaves) for leaves in zip(*each, strict=True)]
        modules[target] = jax.tree.unflatten(structure, stacked)
    return state.replace(learner=learner.with_parameters(state.learner, modules))


def _entries(entries: tuple[str, ...]) -> list[tuple[str, str]]:
    """Pairs of the module here and the module there."""
    pairs = [entry.partition("=") for entry in entries]
    return [(target, source or target) for target, _, source in pairs]


def _folders(given: str) -> list[Path]:
    """Exports of all seeds of a finished run, or of a folder of exports, or a single one."""
    path = Path(given)
    if RunDirectory(path).recipe.is_file():
        path = path / "export"
        if not RunDirectory(Path(given)).evaluation.is_file():
            raise UserError(f"{given} is a run that has not ended: it has no export yet")
    else:
        path = find_export(given)
    seeds = [file.parent for file in path.glob("seed_*/agent.json")]
    return sorted(seeds, key=lambda folder: int(folder.name.removeprefix("seed_"))) or [path]


def _module(found: Export, name: str) -> Any:
    return module_at(found.agent, found.about.get("shared", {}).get(name, name))


def _require_fits(here: Export, target: str, there: Export, source: str) -> None:
    known_here, known_there = module_parameters(here.agent), module_parameters(there.agent)
    if target not in known_here:
        raise UserError(f"transfer: this agent has {unknown_name('module', target, known_here)}")
    if there.about.get("shared", {}).get(source, source) not in known_there:
        raise UserError(f"transfer: the checkpoint has {unknown_name('module', source, known_there)}")
    new, old = _signature(here, target), _signature(there, source)
    for what, value in new.items():
        if old[what] != value:
            raise UserError(
                f"transfer: {target} does not fit the checkpoint's {source}: {what} is {_shown(old[what])}"
                f" there and {_shown(value)} here; {_HINTS[what]}"
            )


_GROUPS = "hide from both what differs (information), or leave this module out"
_HINTS = {
    "input": _GROUPS,
    "body": "what moves or sees a body cannot change it; a high level without proprioception can",
    "input size": _GROUPS,
    "unit of distance": "give both environments the same task.distance_unit, or leave this module out",
    "latent size": "give both recipes the same last size of policy.high_level",
    "shape": "give both recipes the same layer sizes",
    "range of scales": "give both recipes the same policy.latent_scale and policy.action_scale",
}


def _signature(found: Export, name: str) -> dict[str, Any]:
    """What must agree between a module and the one it is taken from, most telling first."""
    module = _module(found, name)
    seen = sees(found.agent, found.about.get("shared", {}).get(name, name))
    sizes = found.about["observation_size"]
    bodily = "proprioception" in seen or name.endswith("low_level") or name == "critic"
    return {
        "input": seen,
        "body": found.about["environment"].get("body", "its own") if bodily else "any",
        "input size": [f"{group} {sizes[group]}" for group in seen if group in sizes],
        "unit of distance": _unit(found) if set(seen) - _WITHOUT_UNIT else "any",
        "latent size": found.agent.policy.latent_size,
        "shape": [list(x.shape) for x in jax.tree.leaves(module)],
        "range of scales": _scales(found, name),
    }


def _scales(found: Export, name: str) -> list[float] | str:
    """Bounds of the standard deviations a module gives; a critic gives none."""
    if name.endswith("high_level"):
        return list(found.recipe.policy.latent_scale)
    return list(found.recipe.policy.action_scale) if name.endswith("low_level") else "any"


_WITHOUT_UNIT = {"proprioception", "instruction", "latent", "previous latent", "action"}


def _unit(found: Export) -> str:
    """Of coordinates in observations: a target at 1 is a metre away in one world and four in another."""
    unit = found.about["environment"].get("task", {}).get("distance_unit")
    return f"{unit} m" if unit else "its own"


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
