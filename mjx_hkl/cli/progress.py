"""What a person sees of a training run: a live bar on a terminal or in a notebook, plain lines elsewhere."""

import io
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from statistics import fmean
from typing import Any

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mjx_hkl.cli.console import PipedConsole
from mjx_hkl.training.metrics import Row

_BAR_WIDTH = 24
_NOTEBOOK_WIDTH = 100  # characters that fit beside a page's margins
_LINE_SHARE, _LINE_SECONDS = 0.01, 60.0  # of a run, since the last plain line


class Display:
    """A `Reporter` for people; from Python, `mjx_hkl.train(recipe, out, reporter=mjx_hkl.Display())`.

    On a terminal a bar moves. In a notebook one output of the cell is replaced. Elsewhere, as in a log file,
    there is a line for each log interval, but no more than one for each percent and each minute of the run.
    """

    def __init__(self, console: Console | None = None, quiet: bool = False):
        """Writes to a console, by default standard output; shows nothing where `quiet`."""
        in_notebook = console is None and not quiet and Console().is_jupyter
        # As a notebook's console rich would make a paragraph of each line.
        self._console = console or PipedConsole(
            highlight=False, soft_wrap=True, quiet=quiet, force_jupyter=False
        )
        self._live = self._console.is_interactive and not in_notebook
        self._output = _NotebookOutput() if in_notebook else None
        self._bar = _Bar(self._output.console if self._output else self._console, self._live)
        self._task = self._bar.add_task("", pieces=[])
        self._total = 0
        self._can_succeed = True
        self._lines = _Lines()

    def say(self, text: str) -> None:
        """A line about the run."""
        self._console.print(text, markup=False)

    @contextmanager
    def training(self, done: int, total: int, can_succeed: bool) -> Iterator[None]:
        """The bar is there while training runs, and the terminal is left as it was."""
        self._total, self._can_succeed, self._lines = total, can_succeed, _Lines()
        self._bar.reset(self._task, total=total, completed=done, pieces=[f"{done:,} steps"])
        if self._output:
            self._output.begin(self._bar)
        with self._bar if self._live else nullcontext():  # rich 14.0 ends a bar that is off by an empty line
            yield

    def interval(self, rows: Sequence[Row]) -> None:
        """The bar moves; several seeds are shown by their mean."""
        done = int(rows[0]["environment_steps"] or 0)
        rate = sum(row["environment_steps_per_second"] or 0 for row in rows)
        pieces = [f"{done:,} steps", f"{rate:,.0f}/s"]
        if self._can_succeed:
            pieces.append(f"success {_mean(rows, 'success_rate', '{:.1%}')}")
        pieces.append(f"return {_mean(rows, 'episode_return', '{:.1f}')}")
        pieces.append(f"kl {_mean([_kl(row) for row in rows], 'kl', '{:.2f}')}")
        evaluated, form = ("success_rate", "{:.1%}") if self._can_succeed else ("return", "{:.1f}")
        is_evaluated = any(row.get(f"evaluation_{evaluated}") is not None for row in rows)
        if is_evaluated:
            pieces.append(f"mean policy {_mean(rows, f'evaluation_{evaluated}', form)}")
        self._bar.update(self._task, completed=done, pieces=pieces)
        share = done / self._total
        if self._output:
            self._output.show(self._bar)
        elif not self._live and (self._lines.is_due(share) or is_evaluated):
            seconds = (self._total - done) * len(rows) / max(rate, 1e-9)
            self.say(f"{share:4.0%}  {'  '.join(pieces)}  ETA {seconds:.0f} s")


class _Bar(Progress):
    """One line where it fits; else the time beside the bar, and the task's `pieces` of text below."""

    def __init__(self, console: Console, live: bool):
        self._bar_column = BarColumn(bar_width=_BAR_WIDTH)
        before = (self._bar_column, TextColumn("{task.percentage:3.0f}%"))
        before = (SpinnerColumn(), *before) if live else before
        after = (TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn())
        self._narrow = (*before, *after)
        self._wide = (*before, TextColumn("{task.description}"), *after)
        super().__init__(
            console=console,
            speed_estimate_period=600,  # an interval may take longer than rich's 30 s
            disable=not live,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Called by rich, also where the terminal's width has changed."""
        for task in self.tasks:  # none yet when rich first calls
            width, unlimited = self.console.width, self.console.options.update(max_width=10_000)
            task.description = "  ".join(task.fields["pieces"])
            self.columns, self._bar_column.bar_width = self._wide, _BAR_WIDTH
            line = self.make_tasks_table([task])
            if self.console.measure(line, options=unlimited).maximum <= width:
                yield line
                continue
            self.columns, self._bar_column.bar_width = self._narrow, max(1, min(_BAR_WIDTH, width - 30))
            yield self.make_tasks_table([task])
            yield Columns(task.fields["pieces"], padding=(0, 2))


class _NotebookOutput:
    """One output of a notebook's cell for each training, which each text replaces."""

    def __init__(self):
        self.console = Console(
            file=io.StringIO(), width=_NOTEBOOK_WIDTH, force_jupyter=False, force_terminal=False
        )
        self._handle: Any = None

    def begin(self, bar: _Bar) -> None:
        """A new output."""
        from IPython.display import display

        self._handle = display(self._content(bar), raw=True, display_id=True)

    def show(self, bar: _Bar) -> None:
        """In place of what was there."""
        self._handle.update(self._content(bar), raw=True)

    def _content(self, bar: _Bar) -> dict[str, str]:
        with self.console.capture() as captured:
            self.console.print(bar)
        return {"text/plain": captured.get().rstrip()}


class _Lines:
    """Says when a plain line is due, so that a long run's log can be read."""

    def __init__(self):
        self._share, self._time = -1.0, 0.0

    def is_due(self, share: float) -> bool:
        """Whether to write one after this share of the run; the first and the last always are."""
        now = time.monotonic()
        due = share >= min(1.0, self._share + _LINE_SHARE) or now >= self._time + _LINE_SECONDS
        if due:
            self._share, self._time = share, now
        return due


def _kl(row: Row) -> Row:
    """Of both levels."""
    known = [value for name in ("kl_high", "kl_low") if (value := row.get(name)) is not None]
    return {"kl": sum(known) if known else None}


def _mean(rows: Sequence[Row], name: str, form: str) -> str:
    known = [value for row in rows if (value := row.get(name)) is not None]
    return form.format(fmean(known)) if known else "-"
