"""What every logger does, and what it is told of a run. The kinds of loggers are rows of `table.LOGGERS`."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from jaxtyping import Shaped
from numpy import ndarray

from mjx_hkl.config import to_table
from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.whole import write_whole
from mjx_hkl.training.metrics import TERM

Scalars = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class LoggedRun:
    """What a logger is told when a run begins or goes on.

    Attributes:
      directory: of the run, in which a logger keeps what it writes.
      recipe: resolved.
      done: environment steps before the first row to come.
      say: shows people a line.
    """

    directory: RunDirectory
    recipe: Recipe
    done: int
    say: Callable[[str], object]

    @property
    def seeds(self) -> range:
        """Of the agents that are trained side by side."""
        return range(self.recipe.seed, self.recipe.seed + self.recipe.num_seeds)

    @property
    def group(self) -> str:
        """Names the run, its seeds and the stages of its ladder together."""
        path = self.directory.path.resolve()
        return path.parents[1].name if path.parent.name == "ladder" else path.name

    def name(self, seed: int) -> str:
        """Names one seed of it."""
        path = self.directory.path.resolve()
        stage = f"-stage{path.name}" if path.parent.name == "ladder" else ""
        return self.group + stage + (f"-seed{seed}" if len(self.seeds) > 1 else "")

    def hyper_parameters(self, seed: int) -> dict[str, Any]:
        """The recipe as it holds for one seed; tables within tables."""
        return {**to_table(self.recipe), "seed": seed}


class Logger(Protocol):
    """Who keeps a run's numbers. Whatever it raises ends its part and not the run."""

    def __init__(self, run: LoggedRun):
        """Begins, or goes on where the run did; the recipe is told here."""
        ...

    @staticmethod
    def require() -> None:
        """Raises UserError where it is not installed, or not set up."""
        ...

    def scalars(self, seed: int, step: int, values: Scalars) -> None:
        """Numbers by tag after `step` environment steps, once each log interval."""
        ...

    def histograms(self, seed: int, step: int, values: Mapping[str, Shaped[ndarray, " samples"]]) -> None:
        """Samples by tag."""
        ...

    def video(self, seed: int, step: int, path: Path) -> None:
        """An .mp4 of an episode."""
        ...

    def result(self, seed: int, step: int, values: Scalars) -> None:
        """The evaluation at the end, by tag."""
        ...

    def close(self, failed: bool) -> None:
        """Writes what is left; `failed`: the run ends by an error."""
        ...


_GROUPS = {
    "train": ("episodes", "episode_return", "success_rate", "episode_length", "faults", "diverged"),
    "kl": ("kl_high", "kl_low", "kl_cost", "kl_factor"),
    "policy": ("entropy", "entropy_cost", "action_scale", "latent_scale", "policy_change", "released"),
    "critic": ("q", "q_target", "trace", "value", "value_target", "ratio"),
    "progress": (
        "seconds",
        "learner_steps",
        "environment_steps_per_second",
        "updates",
        "skipped_updates",
    ),
}
_GROUP = {name: group for group, names in _GROUPS.items() for name in names}
_PREFIXES = {"evaluation_": "evaluation", TERM: "reward"}  # which the group stands for
_SUFFIXES = {"_gradient_norm": "gradient", "_loss": "loss"}


def tag(name: str) -> str:
    """What loggers call a field of metrics.jsonl: `group/field`; `other/` where it is a user's own."""
    base = name.partition("/")[0]
    if base in _GROUP:
        return f"{_GROUP[base]}/{name}"
    for prefix, group in _PREFIXES.items():
        if base.startswith(prefix):
            return f"{group}/{name.removeprefix(prefix)}"
    group = next((group for suffix, group in _SUFFIXES.items() if base.endswith(suffix)), "other")
    return f"{group}/{name}"


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, str | float | bool]:
    """A table as one of dotted names; lists are text."""
    found = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, str | int | float) else json.dumps(value)
    return found


class Ledger:
    """RUN/tracking.json: what a service calls each seed of a run, and the last step that it has heard of.

    With these a run that goes on goes on there too, and nothing is told twice: what training repeats after a
    checkpoint, it repeats bit for bit.

    Args:
      run: whose seeds they are.
      service: its name.
    """

    def __init__(self, run: RunDirectory, service: str):
        self._path, self._service = run.path / "tracking.json", service
        self._before = self._read().get(service, {})

    def id(self, seed: int, make: Callable[[], str]) -> str:
        """What the service calls a seed; `make` says it the first time."""
        known = self._before.get(str(seed))
        if known:
            return known["id"]
        name = make()
        self._write(seed, {"id": name})
        return name

    def is_news(self, seed: int, step: int) -> bool:
        """Whether the service had not yet heard of this step when the run went on."""
        return step > self._before.get(str(seed), {}).get("environment_steps", 0)

    def note(self, seed: int, step: int) -> None:
        """The service has heard of this step."""
        self._write(seed, {"environment_steps": step})

    def _read(self) -> dict[str, dict[str, dict[str, Any]]]:
        return json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}

    def _write(self, seed: int, changes: dict[str, Any]) -> None:
        everything = self._read()
        everything.setdefault(self._service, {}).setdefault(str(seed), {}).update(changes)
        write_whole(self._path, json.dumps(everything, indent=2) + "\n")
