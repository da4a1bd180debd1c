"""When a run writes checkpoints, and what ends it early."""

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.training import processes
from mjx_hkl.training.metrics import Row


def have_succeeded(rows: list[Row], share: float) -> bool:
    """Whether so large a share of the interval's episodes succeeded, in every seed; never where it is 0.

    Of several environments, in each that tells of success: of all episodes most are of where they are short.
    """
    if not share or not rows:
        return False
    told = [name for name in rows[0] if name.startswith("success_rate/")] or ["success_rate"]
    return all((row[name] or 0.0) >= share for row in rows for name in told)


class Saves:
    """Says when a checkpoint is due, by steps or by time, alike in all processes."""

    def __init__(self, recipe: Recipe, done: int):
        self._steps, self._seconds = recipe.checkpoint_interval, 60.0 * recipe.checkpoint_minutes
        self.made(done)

    def made(self, done: int) -> None:
        """There is one after so many environment steps."""
        self.done, self._time = done, time.monotonic()

    def due(self, done: int) -> bool:
        """Whether another one is to be written after so many environment steps."""
        if self._steps and done - self.done >= self._steps:
            return True
        return bool(self._seconds) and processes.any_of(time.monotonic() - self._time >= self._seconds)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[list[int]]:
    """A list that is empty until a signal to stop arrives; a second one acts as it always did."""
    received: list[int] = []
    previous: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        previous[number] = signal.getsignal(number)
        try:
            signal.signal(number, note)
        except ValueError:  # not the main thread: whoever owns the signals decides
            break
    try:
        yield received
    finally:
        with contextlib.suppress(ValueError):
            for number, handler in previous.items():
                signal.signal(number, handler)
