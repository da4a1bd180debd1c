"""Updates that are skipped because their gradients are not finite: who is told, and when they end a run."""

import math
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx_hkl.errors import UserError
from mjx_hkl.training.metrics import Row


class DivergedError(UserError):
    """No seed can learn on."""


class Divergence:
    """Marks and tells of seeds that have diverged: no update of an interval was finite, or a metric is not.

    Args:
      say: shows people a line.
      diverged: seeds that had before.
    """

    def __init__(self, say: Callable[[str], object], diverged: Collection[int] = ()):
        self._say = say
        self._cause = dict.fromkeys(diverged, "it had before")  # of each seed that has diverged
        self._told = set(diverged)

    def marked(self, rows: list[Row]) -> list[Row]:
        """The rows with `diverged`, true from the first one on where it is so."""
        for row in rows:
            if cause := _cause(row):
                self._cause.setdefault(_seed(row), cause)
        return [{**row, "diverged": _seed(row) in self._cause} for row in rows]

    def tell(self, rows: list[Row]) -> None:
        """Says once of each seed that it has diverged, and once that updates are skipped.

        Raises:
          DivergedError: every seed has; the last good checkpoint is not replaced.
        """
        if len(self._cause) == len(rows):
            raise DivergedError(
                f"learning diverged: {list(self._cause.values())[-1]} after"
                f" {rows[0]['environment_steps']:,} environment steps; the last checkpoint, if there was one,"
                " is untouched; try lower learning rates, and --debug-divergence for a look"
            )
        for row in rows:
            seed = _seed(row)
            if seed in self._cause and seed not in self._told:
                self._say(f"seed {seed} has diverged: {self._cause[seed]}; the others go on")
                self._told.add(seed)
        skipped = {_seed(row): row.get("skipped_updates") for row in rows if _seed(row) not in self._cause}
        if any(skipped.values()) and _SKIPPED not in self._told:
            seeds = ", ".join(f"{count:,} of seed {seed}" for seed, count in skipped.items() if count)
            self._say(
                f"updates were skipped: {seeds}; their gradients are not finite; --debug-divergence writes"
                " their batches"
            )
            self._told.add(_SKIPPED)


_SKIPPED = -1  # stands among seeds for what is said of all


class SkippedBatches:
    """Writes the first skipped updates of a run, one .npz file each: batch, and parameters before the update.

    Args:
      folder: where to; made with the first of them.
      most: files, of all seeds together.
    """

    def __init__(self, folder: Path, most: int = 10):
        self._folder, self._left = folder, most

    def __call__(self, skipped: Any, count: Any, window: Any, agent: Any) -> None:
        """Takes what `TrainStep.on_skipped` is given."""
        if not skipped or not self._left:
            return
        self._left -= 1
        names = (f"update-{int(count)}{more}.npz" for more in ("", *(f"-{i}" for i in range(2, 1000))))
        place = next(self._folder / name for name in names if not (self._folder / name).exists())
        arrays: Any = {**_named(window, "batch"), **_named(agent, "agent")}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            np.savez(place, **arrays)
        except OSError as error:  # training goes on without
            print(f"cannot write {place}: {error.strerror}", file=sys.stderr)
            self._left = 0


def _named(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    named = {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")
        named[f"{prefix}.{name}"] = np.asarray(x)
    return named


def _cause(row: Row) -> str:
    """Why a seed has diverged; empty where it has not."""
    if row.get("skipped_updates") and not row["updates"]:
        return "no update's gradient was finite"
    bad = [name for name, x in row.items() if isinstance(x, float) and not math.isfinite(x)]
    return f"{bad[0]} is not finite" if bad else ""


def _seed(row: Row) -> int:
    return int(row["seed"] or 0)
