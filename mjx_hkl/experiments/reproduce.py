"""An experiment: the variants of a recipe one after the other, each a run directory of its own."""

import dataclasses
import functools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mjx_hkl.config import difference
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.agent_format import KnownAgent, abstract_agent
from mjx_hkl.experiments.build import make_environment, resolve
from mjx_hkl.experiments.recipe import Recipe, essence, load_recipe, with_copies
from mjx_hkl.experiments.reporter import Reporter
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.tracking import Tracking
from mjx_hkl.experiments.training_run import train
from mjx_hkl.experiments.transfer import require_fits
from mjx_hkl.experiments.world_specs import WorldSpecs

_TO_TENSORBOARD = Tracking()
_BUDGET = ("total_env_steps", "min_replay", "log_interval", "evaluation_interval")


def scaled(recipe: Recipe, scale: float) -> Recipe:
    """The recipe and its ladder with their budgets multiplied: environment steps and what counts them."""
    transfer = recipe.transfer
    if transfer.release_after is not None:
        after = math.ceil(scale * transfer.release_after)
        transfer = dataclasses.replace(transfer, release_after=after)

    def budget(written: dict[str, Any]) -> dict[str, Any]:
        counted = {name: math.ceil(scale * written[name]) for name in _BUDGET if name in written}
        if "min_replay" in counted:
            most = written.get("replay_capacity", recipe.replay_capacity)
            counted["min_replay"] = min(counted["min_replay"], most)
        return counted

    def released(stage: dict[str, Any]) -> dict[str, Any]:
        own = stage.get("transfer", {})
        if "release_after" not in own:
            return {}
        return {"transfer": own | {"release_after": math.ceil(scale * own["release_after"])}}

    ladder = tuple({**stage, **budget(stage), **released(stage)} for stage in recipe.ladder)
    return dataclasses.replace(recipe, transfer=transfer, ladder=ladder, **budget(vars(recipe)))


def chosen(variants: dict[str, Recipe], only: Iterable[str]) -> dict[str, Recipe]:
    """The variants named, or all, each after those it transfers from.

    Raises:
      UserError: there is no such variant, or some transfer from each other.
    """
    found: dict[str, Recipe] = {}

    def add(name: str, *above: str) -> None:
        if name not in variants:
            raise unknown_name("variant", name, variants)
        if name in above:
            raise UserError(f"variant {name} transfers from itself")
        for stage in variants[name].stages:
            if set(_variants_of(stage)) - {*_variants_of(variants[name])}:
                raise UserError(
                    f"variant {name}: a stage of its ladder takes modules from another variant; say so in the"
                    " variant's own [transfer], which the first stage follows"
                )
        for source in _variants_of(variants[name]):
            add(source[1:], name, *above)
        found[name] = variants[name]

    for name in only or variants:
        add(name)
    return found


def runs_of(variants: dict[str, Recipe], out: Path) -> dict[str, RunDirectory]:
    """Where each variant is trained."""
    return {name: RunDirectory(out / (name or recipe.name)) for name, recipe in variants.items()}


def reproduce(
    variants: dict[str, Recipe],
    out: Path,
    reporter: Reporter,
    tracking: Tracking = _TO_TENSORBOARD,
    trust_code: bool = False,
) -> bool:
    """Trains every variant that is not yet done in `out/VARIANT`; returns whether all are done now.

    Args:
      variants: recipes by name.
      out: folder of the runs.
      reporter: shows people what happens.
      tracking: which loggers are told, and of what.
      trust_code: runs code that came with agents that variants take modules from.

    Raises:
      UserError: a folder holds a run of another recipe, a variant does not fit one that it transfers from, or
        training fails; finished runs stay as they are.
    """
    variants = {name: resolve(recipe) for name, recipe in variants.items()}
    runs = runs_of(variants, out)
    _require_fits(variants, [name for name, run in runs.items() if not run.evaluation.is_file()])
    variants = {name: _with_sources(recipe, runs[name], out) for name, recipe in variants.items()}
    for name, run in runs.items():
        require_same(run, variants[name])
    how = {"tracking": tracking, "trust_code": trust_code}
    return all(go_on(recipe, runs[name], reporter, **how) for name, recipe in variants.items())


def go_on(recipe: Recipe, run: RunDirectory, reporter: Reporter, **how: Any) -> bool:
    """Trains a run that is not yet done; returns whether it is done now.

    One that was stopped goes on from its newest checkpoint, or that of its ladder's stage; one without any
    begins anew.

    Args:
      recipe: to train.
      run: where.
      reporter: shows people what happens.
      how: for `train`.
    """
    if run.evaluation.is_file():
        reporter.say(f"{run.path}: already there")
        return True
    run.clear_unsaved()
    return train(recipe, run.path, run.can_go_on, reporter, **how).finished


def _require_fits(variants: dict[str, Recipe], names: Iterable[str]) -> None:
    """Raises UserError where a variant of `names` takes from another what does not fit, before it trains."""

    @functools.cache
    def agent(name: str) -> KnownAgent:
        return abstract_agent(variants[name], WorldSpecs.of(make_environment(variants[name]).env))

    for name in names:
        if sources := _variants_of(variants[name]):
            require_fits(agent(name), {source: agent(source[1:]) for source in sources})


def _with_sources(recipe: Recipe, run: RunDirectory, out: Path) -> Recipe:
    """The recipe, each `:VARIANT` to transfer from replaced by that variant's run.

    Where `run` has begun, by the path that it knows: it may lie elsewhere now, or be named from elsewhere.
    """
    has_begun = run.can_go_on or run.evaluation.is_file()
    held = load_recipe(str(run.path)).transfer.agents if has_begun and run.recipe.is_file() else ()
    known = {Path(agent).name: agent for agent in held}

    def path(source: str) -> str:
        return known.get(source[1:], str(out / source[1:])) if source.startswith(":") else source

    return dataclasses.replace(recipe, transfer=recipe.transfer.with_agents(path))


def _variants_of(recipe: Recipe) -> list[str]:
    """The variants that it transfers from, each as :VARIANT."""
    return [source for source in recipe.transfer.agents if source.startswith(":")]


def require_same(run: RunDirectory, recipe: Recipe) -> None:
    """Raises UserError where the folder holds a run of another recipe or length."""
    if not run.recipe.is_file():
        return
    held, recipe = load_recipe(str(run.path)), with_copies(recipe, run.path)
    length = {"total_env_steps": recipe.total_env_steps}
    different = difference(
        essence(held) | {"total_env_steps": held.total_env_steps}, essence(recipe) | length
    )
    if different:
        raise UserError(f"{run.path} holds a run of another recipe: {different}; give another --out")
