"""Runs as they are compared: those of one recipe together, each seed of theirs once."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.copies import by_content
from mjx_hkl.experiments.recipe import Recipe, essence, load_recipe
from mjx_hkl.experiments.run_directory import RunDirectory

AXES = {"learner_steps": "learner steps", "environment_steps": "environment steps", "seconds": "seconds"}


@dataclasses.dataclass(frozen=True)
class Seed:
    """One seed of a run.

    Attributes:
      path: of the run.
      rows: its metrics; steps and seconds count those of the ladder before.
      num_envs: worlds.
      num_each: worlds of each environment.
      begin: environment steps of the ladder before.
    """

    path: Path
    rows: list[dict[str, Any]]
    num_envs: int
    num_each: int
    begin: float = 0.0

    def repeats(self, other: "Seed") -> bool:
        """Whether both have the same rows as far as both go: a copy, or the same training again."""
        return all(_timeless(a) == _timeless(b) for a, b in zip(self.rows, other.rows, strict=False))


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs of one recipe but for seeds.

    Attributes:
      recipe: of the first one, resolved.
      seeds: of all of them, each once; never empty.
    """

    recipe: Recipe
    seeds: list[Seed]

    @property
    def directories(self) -> list[RunDirectory]:
        """Those that the seeds are from, each once."""
        return [RunDirectory(path) for path in dict.fromkeys(seed.path for seed in self.seeds)]


def read_runs(paths: Iterable[Path], say: Callable[[str], None] = lambda text: None) -> dict[str, Runs]:
    """The runs in `paths`, which are run directories or folders of them, by the name of what was run.

    Args:
      paths: of at least one run.
      say: told of runs and seeds that were given twice.

    Raises:
      UserError: there is no run, or one without recipe, or its code may not run; or there are no metrics yet,
        of one that is given by name or of all in a folder.
    """
    found: dict[str, Runs] = {}
    groups: dict[str, dict[str, Any]] = {}
    empty: list[RunDirectory] = []  # of a folder, one that has just begun need not keep the others back
    paths = list(paths)
    for run in _distinct((run for path in paths for run in _runs(path)), say):
        if not run.recipe.is_file():
            raise UserError(f"{run.path} has metrics and no recipe.toml")
        recipe = load_recipe(str(run.path))
        seeds = _seeds(run, recipe)
        if not seeds:
            empty.append(run)
            continue
        known = found.setdefault(_group(groups, recipe, run.path), Runs(recipe, []))
        for seed in seeds:
            _add(known.seeds, seed, say)
    for run in empty:
        if not found or run.path in paths:
            raise _no_metrics(run)
        say(f"{_no_metrics(run)}: left out")
    experiments = {name.partition(":")[0] for name in found}
    if len(experiments) == 1 and len(found) > 1:  # variants of one recipe
        return {name.partition(":")[2] or name: runs for name, runs in found.items()}
    return found


def _add(known: list[Seed], seed: Seed, say: Callable[[str], None]) -> None:
    """Adds a seed that is not known yet; of two that repeat each other the one with more rows stays."""
    twin = next((i for i, other in enumerate(known) if seed.repeats(other)), None)
    if twin is None:
        known.append(seed)
        return
    say(f"seed {seed.rows[0]['seed']} of {seed.path} is that of {known[twin].path} again: counted once")
    known[twin] = max(known[twin], seed, key=lambda seed: len(seed.rows))


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {name: x for name, x in row.items() if name not in ("seconds", "environment_steps_per_second")}


def _distinct(runs: Iterable[RunDirectory], say: Callable[[str], None]) -> list[RunDirectory]:
    """Each run once, whatever paths lead to it."""
    found: dict[Path, RunDirectory] = {}
    for run in runs:
        place = run.metrics.resolve()
        if place in found:
            say(f"{run.path} is {found[place].path} again: counted once")
        else:
            found[place] = run
    return list(found.values())


def _group(groups: dict[str, dict[str, Any]], recipe: Recipe, path: Path) -> str:
    """The name of those in `groups` that have this recipe but for seeds and the agents they start from.

    Where others have the recipe's name, changed on the command line, it is that with the run's folder.
    """
    sources = recipe.transfer.with_agents(lambda _: "others")
    alike = dataclasses.replace(recipe, seed=0, num_seeds=1, transfer=sources)
    length = {"total_env_steps": recipe.total_env_steps, "until_success": recipe.until_success}
    table = by_content(essence(alike) | length, path)
    of_name = [name for name in groups if name == recipe.name or name.startswith(f"{recipe.name} (")]
    known = next((name for name in of_name if groups[name] == table), None)
    if known is None:
        known = recipe.name if not of_name else f"{recipe.name} ({path.name})"
        known = f"{recipe.name} ({path})" if known in groups else known
        groups[known] = table
    return known


def _runs(path: Path) -> list[RunDirectory]:
    if RunDirectory(path).metrics.is_file():
        return [RunDirectory(path)]
    if RunDirectory(path).recipe.is_file():
        raise _no_metrics(RunDirectory(path))
    runs = [RunDirectory(file.parent) for file in sorted(path.glob("*/metrics.jsonl"))]
    if not runs:
        raise UserError(f"{path} is neither a run nor a folder of runs: there is no metrics.jsonl")
    return runs


def _no_metrics(run: RunDirectory) -> UserError:
    return UserError(f"{run.path} has no metrics yet: no log interval of it has ended")


def _seeds(run: RunDirectory, recipe: Recipe) -> list[Seed]:
    assert recipe.num_envs is not None, "a run's recipe is resolved"
    ends = [rows[-1] for stage in run.stages if (rows := stage.read_metrics())]  # of a ladder, which counts
    before = {axis: sum(end[axis] for end in ends) for axis in AXES}
    rows = [row | {axis: row[axis] + x for axis, x in before.items()} for row in run.read_metrics()]
    seeds = dict.fromkeys(row["seed"] for row in rows)
    num_envs, num_each = recipe.num_envs, recipe.num_envs // len(recipe.environments)
    by_seed = [[row for row in rows if row["seed"] == seed] for seed in seeds]
    begin = before["environment_steps"]
    return [Seed(run.path, rows, num_envs, num_each, begin) for rows in by_seed]
