"""What a person sees of a training run: a live bar on a terminal, plain lines elsewhere."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mjx_hkl.training.metrics import Row


class _Console(Console):
    """Falls silent when its reader has gone (`| head`), instead of ending the run."""

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Display:
    """A `Reporter` on the console, or a quiet one."""

    def __init__(self, console: Console | None = None, quiet: bool = False):
        self._console = console or _Console(highlight=False, soft_wrap=True, quiet=quiet)
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f}%"),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
            speed_estimate_period=600,  # an interval may take longer than rich's 30 s
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task("")
        self._total = 0
        self._can_succeed = True

    def say(self, text: str) -> None:
        """A line about the run."""
        self._console.print(text, markup=False)

    @contextmanager
    def training(self, done: int, total: int, can_succeed: bool) -> Iterator[None]:
        """The bar is there while training runs, and the terminal is left as it was."""
        self._total, self._can_succeed = total, can_succeed
        self._progress.update(self._task, total=total, completed=done, description=f"{done:,} steps")
        with self._progress:
            yield

    def interval(self, rows: Sequence[Row]) -> None:
        """The bar moves; several seeds are shown by their mean."""
        done = int(rows[0]["environment_steps"] or 0)
        rate = sum(row["environment_steps_per_second"] or 0 for row in rows)
        success = f"  success {_mean(rows, 'success_rate', '{:.1%}')}" if self._can_succeed else ""
        text = (
            f"{done:,} steps  {rate:,.0f}/s{success}  return {_mean(rows, 'episode_return', '{:.1f}')}"
            f"  kl {_mean([_kl(row) for row in rows], 'kl', '{:.2f}')}"
        )
        evaluated, form = ("success_rate", "{:.1%}") if self._can_succeed else ("return", "{:.1f}")
        if any(row.get(f"evaluation_{evaluated}") is not None for row in rows):
            text += f"  mean policy {_mean(rows, f'evaluation_{evaluated}', form)}"
        self._progress.update(self._task, completed=done, description=text)
        if not self._console.is_terminal:
            seconds = (self._total - done) * len(rows) / max(rate, 1e-9)
            self.say(f"{done / self._total:4.0%}  {text}  ETA {seconds:.0f} s")


def _kl(row: Row) -> Row:
    """Of both levels."""
    known = [value for name in ("kl_high", "kl_low") if (value := row.get(name)) is not None]
    return {"kl": sum(known) if known else None}


def _mean(rows: Sequence[Row], name: str, form: str) -> str:
    known = [value for row in rows if (value := row.get(name)) is not None]
    return form.format(fmean(known)) if known else "-"
