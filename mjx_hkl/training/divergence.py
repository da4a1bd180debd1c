"""Updates that are skipped because their gradients are not finite: who is told, and when they end a run."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mjx_hkl.errors import UserError
from mjx_hkl.training.metrics import Row


class Divergence:
    """Marks and tells of seeds that have diverged: no update of an interval was finite, or a metric is not.

    Args:
      say: shows people a line.
    """

    def __init__(self, say: Callable[[str], object]):
        self._say = say
        self._cause: dict[int, str] = {}  # of each seed that has diverged
        self._skipping: set[int] = set()  # seeds of which it was said
        self._told: set[int] = set()

    def marked(self, rows: list[Row]) -> list[Row]:
        """The rows with `diverged`, true from the first one on where it is so."""
        for row in rows:
            if cause := _cause(row):
                self._cause.setdefault(_seed(row), cause)
        return [{**row, "diverged": _seed(row) in self._cause} for row in rows]

    def tell(self, rows: list[Row]) -> None:
        """Says once of each seed that updates are skipped, or that it has diverged.

        Raises:
          UserError: every seed has diverged; the last good checkpoint is not replaced.
        """
        if len(self._cause) == len(rows):
            raise UserError(
                f"learning diverged: {list(self._cause.values())[-1]} after"
                f" {rows[0]['environment_steps']:,} environment steps; the last checkpoint, if there was one,"
                " is untouched; try lower learning rates, and --debug-divergence for a look"
            )
        for row in rows:
            seed, skipped = _seed(row), row.get("skipped_updates")
            if seed in self._cause and seed not in self._told:
                self._say(f"seed {seed} has diverged: {self._cause[seed]}; the others go on")
                self._told.add(seed)
            elif skipped and seed not in self._cause | dict.fromkeys(self._skipping):
                self._say(
                    f"seed {seed}: {skipped:,} of {skipped + (row['updates'] or 0):,} updates were skipped:"
                    " their gradients are not finite; --debug-divergence writes their batches"
                )
                self._skipping.add(seed)


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
        self._folder.mkdir(parents=True, exist_ok=True)
        names = (f"update-{int(count)}{more}.npz" for more in ("", *(f"-{i}" for i in range(2, 1000))))
        place = next(self._folder / name for name in names if not (self._folder / name).exists())
        np.savez(place, **_named(window, "batch"), **_named(agent, "agent"))  # pyright: ignore[reportArgumentType]


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
