"""What a sweep tries, as data: ranges of a recipe's fields, how values are chosen, how runs are judged."""

import dataclasses
import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from mjx_hkl.config import NonNegative, Positive, Seed, from_table, refuse_unknown_fields, to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.recipe import Recipe, recipe_from_table
from mjx_hkl.kinds import Kinds
from mjx_hkl.resources import read_toml
from mjx_hkl.tables import merged


@dataclasses.dataclass(frozen=True)
class Range:
    """The values that a field may take: from `low` to `high`, or one of `choices`."""

    low: int | float | None = None
    """The least; whole numbers where this, `high` and `step` are whole and the field is not a fraction."""
    high: int | float | None = None
    """The greatest; it belongs to the range."""
    step: int | float | None = None
    """Between values; by default 1 of whole numbers, and any value of others."""
    log: bool = False
    """Whether all orders of magnitude are as likely."""
    choices: tuple[Any, ...] = ()
    """What the field may be, such as numbers, names of kinds, lists or tables."""

    def __post_init__(self):
        if bool(self.choices) == (self.low is not None or self.high is not None):
            raise ValueError("a range is low and high, or choices")
        if self.choices:
            if self.log or self.step is not None:
                raise ValueError("choices have no log and no step")
            return
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError(f"low {self.low} must be less than high {self.high}")
        if not all(math.isfinite(x) for x in (self.low, self.high)):
            raise ValueError("low and high must be finite")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and no step")
        if self.step is not None and self.step <= 0:
            raise ValueError("step must be above 0")

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return all(x is None or isinstance(x, int) for x in (self.low, self.high, self.step))

    @property
    def cells(self) -> list[Any] | None:
        """All values, as a grid has them; None where they are too many to count."""
        if self.choices:
            return list(self._labels)
        step = self.step or (1 if self.is_whole and not self.log else None)
        if step is None or self.low is None or self.high is None:
            return None
        return [self.low + step * i for i in range(math.floor((self.high - self.low) / step + 1e-9) + 1)]

    @property
    def ends(self) -> list[Any]:
        """Values that must be right for all to be right."""
        return list(self.choices) or [self.low, self.high]

    def suggested(self, trial: Any, key: str) -> Any:
        """The value for an Optuna trial, the same whenever it is asked again."""
        if self.choices:
            return self.decoded(trial.suggest_categorical(key, list(self._labels)))
        if self.is_whole:
            return trial.suggest_int(key, self.low, self.high, step=self.step or 1, log=self.log)
        return trial.suggest_float(key, self.low, self.high, step=self.step, log=self.log)

    def decoded(self, label: Any) -> Any:
        """The value that Optuna keeps as `label`."""
        return self._labels[label] if self.choices else label

    @property
    def _labels(self) -> dict[Any, Any]:
        """Choices by what Optuna keeps of them: lists and tables as text."""
        return {json.dumps(x) if isinstance(x, list | dict) else x: x for x in self.choices}


@dataclasses.dataclass(frozen=True)
class TPE:
    """Tree-structured Parzen estimator: tries more where it was good."""

    startup_trials: NonNegative = 10
    """Trials at random before."""

    def make(self, plan: "SweepPlan", number: int) -> Any:
        """Optuna's sampler for one trial: seeded by its number, it goes on as if it never stopped."""
        from optuna.samplers import TPESampler

        return TPESampler(n_startup_trials=self.startup_trials, seed=plan.seed_of(number))


@dataclasses.dataclass(frozen=True)
class AtRandom:
    """Every trial independent of the others."""

    def make(self, plan: "SweepPlan", number: int) -> Any:
        """See `TPE`."""
        from optuna.samplers import RandomSampler

        return RandomSampler(seed=plan.seed_of(number))


@dataclasses.dataclass(frozen=True)
class Grid:
    """Every combination once."""

    def make(self, plan: "SweepPlan", number: int) -> Any:
        """See `TPE`; it remembers by itself what was tried."""
        from optuna.samplers import GridSampler

        class OneByOne(GridSampler):
            def after_trial(self, study: Any, trial: Any, state: Any, values: Any) -> None:
                """Does not stop the study after the last, as it must where Optuna itself loops."""

        return OneByOne({key: of.cells or [] for key, of in plan.ranges.items()}, seed=plan.seed)


@dataclasses.dataclass(frozen=True)
class NoPruner:
    """Every trial is trained to its end."""

    def make(self) -> Any:
        """Optuna's pruner."""
        from optuna.pruners import NopPruner

        return NopPruner()


@dataclasses.dataclass(frozen=True)
class Median:
    """Ends a trial whose best so far is worse than the median of the others at the same step."""

    after: NonNegative = 3
    """Evaluations, or log intervals, that every trial has."""
    startup_trials: Positive = 5
    """Trials that are trained to their end before any is ended."""

    def make(self) -> Any:
        """See `NoPruner`."""
        from optuna.pruners import MedianPruner

        return MedianPruner(n_startup_trials=self.startup_trials, n_warmup_steps=self.after)


SAMPLERS = Kinds(
    "[sampler]", {"tpe": TPE, "random": AtRandom, "grid": Grid}, default="tpe", requires=("make",)
)
PRUNERS = Kinds("[pruner]", {"none": NoPruner, "median": Median}, default="median", requires=("make",))
_TRIALS = 20


@dataclasses.dataclass(frozen=True)
class SweepPlan:
    """What the file of a sweep says."""

    ranges: dict[str, Range]
    """By the field's name, like "algorithm.kl_cost"."""
    metric: str = ""
    """A field of metrics.jsonl, its mean over the last tenth of a run; or `evaluation_success_rate` or
    `evaluation_return` of the evaluation at the end. By default the former of these, or the latter in a world
    that does not tell of success."""
    direction: Literal["maximize", "minimize"] = "maximize"
    trials: Positive | None = None
    """Runs to train; by default 20, or all of a grid."""
    seed: Seed = 0
    """Of the values that are chosen."""
    sampler: Annotated[Any, SAMPLERS] = TPE()
    pruner: Annotated[Any, PRUNERS] = NoPruner()

    def __post_init__(self):
        if not self.ranges:
            raise ValueError("ranges: there are none; say which fields to vary")
        if isinstance(self.sampler, Grid):
            endless = next((key for key, of in self.ranges.items() if of.cells is None), None)
            if endless:
                raise ValueError(f"ranges: {endless} needs a step or choices for a grid")

    def seed_of(self, number: int) -> int:
        """The sampler's in one trial."""
        return int(np.random.SeedSequence((self.seed, number)).generate_state(1)[0])

    @property
    def num_trials(self) -> int:
        """Runs to train."""
        if not isinstance(self.sampler, Grid):
            return self.trials or _TRIALS
        cells = math.prod(len(of.cells or []) for of in self.ranges.values())
        return min(self.trials or cells, cells)


def load_plan(path: Path, recipe: Recipe) -> SweepPlan:
    """The plan of a file, its ranges checked against the recipe that they are of.

    Raises:
      UserError: Optuna is not installed, or the file says something wrong.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError("--sweep needs Optuna: pip install 'mjx-hkl[sweep]'")
    table = read_toml(path)
    if isinstance(table.get("ranges"), Mapping):
        table["ranges"] = _by_key(table["ranges"])
        for key, of in table["ranges"].items():
            if isinstance(of, Mapping):
                refuse_unknown_fields(Range, of, f"{path}: ranges: {key}")
    plan = from_table(SweepPlan, table, str(path))
    own = to_table(recipe)
    ranges = {key: _of_field(of, _at(own, key)) for key, of in plan.ranges.items()}
    for key, of in ranges.items():
        for value in of.ends:
            varied(recipe, {key: value}, f"{path}: ranges")
    return dataclasses.replace(plan, ranges=ranges)


def varied(recipe: Recipe, values: Mapping[str, Any], where: str) -> Recipe:
    """The recipe with the values of some fields by their names; an outer table before what is inside it.

    Raises:
      UserError: there is no such field, or it cannot have this value; `where` names the place.
    """
    table = to_table(recipe)
    for key in sorted(values, key=lambda key: key.count(".")):
        inner: Any = values[key]
        for name in reversed(key.split(".")):
            inner = {name: inner}
        table = merged(table, inner)
    return recipe_from_table(table, where)


def _by_key(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Ranges by dotted names, which TOML may have read as tables in tables."""
    fields, found = {field.name for field in dataclasses.fields(Range)}, {}
    for name, value in table.items():
        is_outer = (
            isinstance(value, Mapping) and value and all(isinstance(x, Mapping) for x in value.values())
        )
        if is_outer and not fields & set(value):
            found |= _by_key(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _of_field(of: Range, value: Any) -> Range:
    """The range, fractions where the recipe's own value is one."""
    if not isinstance(value, float) or of.choices or of.low is None or of.high is None:
        return of
    step = None if of.step is None else float(of.step)
    return dataclasses.replace(of, low=float(of.low), high=float(of.high), step=step)


def _at(table: Any, key: str) -> Any:
    """The value at a dotted name; None where there is none."""
    for name in key.split("."):
        table = table.get(name) if isinstance(table, Mapping) else None
    return table
