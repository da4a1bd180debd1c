"""A run on disk: recipe, metrics, checkpoints, exported agents; what loggers write there is theirs."""

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.copies import Copies
from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.experiments.whole import write_whole
from mjx_hkl.training.metrics import Row

_LOCK = ".lock"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclasses.dataclass(frozen=True)
class RunDirectory:
    """Names of a run's files; nothing is written before it is `held`."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.toml"

    @property
    def metrics(self) -> Path:
        """One JSON object per log interval and seed."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Full training states."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """The evaluation at the end, one entry per seed."""
        return self.path / "evaluation.json"

    @property
    def machines(self) -> Path:
        """Device and versions of each start and resume."""
        return self.path / "machines.json"

    @property
    def skipped(self) -> Path:
        """Batches of skipped updates, where `debug_divergence` asks for them."""
        return self.path / "skipped_updates"

    def stage(self, number: int) -> "RunDirectory":
        """The run of a ladder's stage, counted from 1."""
        return RunDirectory(self.path / "ladder" / str(number))

    @property
    def stages(self) -> list["RunDirectory"]:
        """The runs of the ladder's stages that there are."""
        numbers = [int(path.name) for path in self.path.glob("ladder/*") if path.name.isdigit()]
        return [self.stage(number) for number in sorted(numbers) if self.stage(number).metrics.is_file()]

    @property
    def seconds_of_ladder(self) -> float:
        """Training seconds of the ladder's stages so far."""
        return sum(_seconds(stage._metrics()[0]) for stage in self.stages)

    def diverged(self, environment_steps: int) -> set[int]:
        """Seeds that had diverged by then, as their metrics say."""
        rows = [row for row in self._metrics()[0] if row["environment_steps"] <= environment_steps]
        return {row["seed"] for row in rows if row.get("diverged")}

    def rows_at(self, environment_steps: int) -> list[Row]:
        """The metrics of the log interval that ended there, a row for each seed."""
        return [row for row in self._metrics()[0] if row["environment_steps"] == environment_steps]

    def best_scores(self, environment_steps: int) -> dict[int, tuple[float, float]]:
        """Success and return of each seed's best evaluation by then, as its metrics say."""
        found: dict[int, tuple[float, float]] = {}
        for row in self._metrics()[0]:
            success, total = row.get("evaluation_best_success_rate"), row.get("evaluation_best_return")
            if row["environment_steps"] <= environment_steps and success is not None and total is not None:
                found[row["seed"]] = (success, total)
        return found

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a whole one; what a stop left half-written has another name."""
        return any(path.name.isdigit() for path in self.checkpoints.glob("*"))

    @property
    def can_go_on(self) -> bool:
        """Whether a checkpoint of the run, or of a stage of its ladder, has anything to go on from."""
        return self.has_checkpoint or any(stage.has_checkpoint for stage in self.stages)

    def export(self, seed: int, num_seeds: int) -> Path:
        """The exported agent of a seed."""
        return self.path / "export" if num_seeds == 1 else self.path / "export" / f"seed_{seed}"

    def best(self, seed: int, num_seeds: int) -> Path:
        """The agent of a seed whose evaluation while it trained was the best."""
        return self.path / "best" if num_seeds == 1 else self.path / "best" / f"seed_{seed}"

    def require_free(self) -> None:
        """Raises UserError where the folder holds anything."""
        if self.recipe.exists():
            how = (
                f"continue it with: mjx-hkl train {self.path} --resume, or give another --out"
                if self.can_go_on
                else "it ended before its first checkpoint; remove it or give another --out"
            )
            raise UserError(f"{self.path} already holds a run; {how}")
        if self.path.exists() and (not self.path.is_dir() or {x.name for x in self.path.iterdir()} - {_LOCK}):
            raise UserError(f"{self.path} exists and is not empty; give another --out")
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            raise UserError(f"{self.path} cannot be made: no folder can be written in {there}")

    def require_begun(self) -> None:
        """Raises UserError where the folder holds no run."""
        if not self.recipe.is_file():
            raise UserError(f"{self.path} holds no run to resume")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps other processes from training in it; a lock ends with its process.

        On a file system that has no locks nothing is kept out.

        Raises:
          UserError: another process trains in it, or it cannot be written.
        """
        lock = FileLock(self.path / _LOCK, fallback_to_soft=False)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            raise UserError(f"another process is training in {self.path}") from None
        except (OSError, NotImplementedError) as error:  # the latter is filelock's for a system without them
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise UserError(f"cannot train in {self.path}: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def clear_unsaved(self) -> None:
        """Removes a run that ended before its first checkpoint, so that it can begin anew.

        Raises:
          UserError: another process trains in it.
        """
        if self.can_go_on or not self.recipe.is_file():
            return
        with self.held():
            for path in self.path.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != _LOCK:  # which is held
                    path.unlink()

    def begin(self, recipe: Recipe, copies: Copies) -> None:
        """Writes recipe and copies, or renews them on resume; an evaluation of less training is gone."""
        copies.write(self.path, with_originals=True)
        write_whole(self.recipe, tomli_w.dumps(copies.named(to_table(recipe))))
        self.evaluation.unlink(missing_ok=True)

    def rewind_metrics(self, environment_steps: int) -> tuple[float, str]:
        """Drops metrics from after a checkpoint.

        Returns:
          The training seconds up to it, and one line on what is missing; empty where nothing is.
        """
        whole, damaged = self._metrics()
        rows = [row for row in whole if row["environment_steps"] <= environment_steps]
        told = ""
        if damaged:
            aside = free_name(self.metrics)
            shutil.copyfile(self.metrics, aside)
            told = f"{self.metrics}: {_lines(damaged)}; left as {aside.name}, and left out"
        ends = {row.get("seed"): int(row["environment_steps"]) for row in rows}
        until = min(ends.values(), default=0)
        if until < environment_steps and not told:
            told = f"{self.metrics} ends after {until:,} of {environment_steps:,} environment steps"
        write_whole(self.metrics, "".join(map(_sealed, rows)))
        return _seconds(rows), told

    def write_evaluation(self, evaluations: list[dict[str, Any]]) -> None:
        """One entry per seed."""
        write_whole(self.evaluation, json.dumps(evaluations, indent=2) + "\n")

    @property
    def tells_success(self) -> bool:
        """Whether the world of a finished run tells of success; true of a run that does not say."""
        evaluations = json.loads(self.evaluation.read_text(encoding="utf-8"))
        return all(evaluation.get("can_succeed", True) for evaluation in evaluations)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows; a last line cut short by a crash is left out.

        Raises:
          UserError: another line is no row, or is not what was written.
        """
        rows, damaged = self._metrics()
        if damaged:
            raise UserError(f"{self.metrics}: {_lines(damaged)}; --resume leaves that out, or remove it")
        return rows

    def _metrics(self) -> tuple[list[dict[str, Any]], list[int]]:
        """All rows that are whole, and the numbers of the damaged lines; a last one cut short is none."""
        if not self.metrics.exists():
            return [], []
        lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
        rows = [_opened(line) for line in lines]
        damaged = [number for number, row in enumerate(rows, 1) if row is None]
        return [row for row in rows if row is not None], damaged


def free_name(path: Path) -> Path:
    """A name beside a damaged file or folder, to keep it by."""
    names = (f"{path.name}.damaged{number}" for number in ("", *(f".{i}" for i in range(2, 1000))))
    return next(path.with_name(name) for name in names if not path.with_name(name).exists())


def _seconds(rows: list[dict[str, Any]]) -> float:
    """Of training, up to the last row."""
    return float(rows[-1].get("seconds") or 0.0) if rows else 0.0


def _lines(numbers: list[int]) -> str:
    return f"line {numbers[0]} is damaged" if len(numbers) == 1 else f"{len(numbers)} lines are damaged"


_SEAL = "crc32"


def _sealed(row: dict[str, Any]) -> str:
    """A line of metrics.jsonl, which says its own checksum."""
    text = json.dumps(row)
    return json.dumps(row | {_SEAL: zlib.crc32(text.encode())}) + "\n"


def _opened(line: str) -> dict[str, Any] | None:
    """The row of a line; None where it is damaged. Lines of older versions have no checksum."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not isinstance(row.get("environment_steps"), int):
        return None
    seal = row.pop(_SEAL, None)
    is_older = seal is None and "skipped_updates" not in row
    return row if is_older or seal == zlib.crc32(json.dumps(row).encode()) else None


class MetricsWriter:
    """Appends rows to a run's metrics.jsonl."""

    def __init__(self, run: RunDirectory):
        self._file = run.metrics.open("a", encoding="utf-8")

    def write(self, rows: Iterable[Row]) -> None:
        """One row for each seed."""
        for row in rows:
            finite = {k: v if v is None or math.isfinite(v) else None for k, v in row.items()}
            self._file.write(_sealed(finite))  # JSON has no NaN
        self._file.flush()

    def close(self, failed: bool) -> None:
        """What could not be written fails once more when its file is closed; one error is enough."""
        with contextlib.suppress(OSError) if failed else contextlib.nullcontext():
            self._file.close()
