"""Where a run's numbers go: metrics.jsonl, without which it ends, and loggers, without which it goes on."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mjx_hkl.experiments.evaluation import Evaluation
from mjx_hkl.experiments.loggers.logger import LoggedRun, Logger, tag
from mjx_hkl.experiments.loggers.table import LOGGERS, NONE, require
from mjx_hkl.experiments.players import Player
from mjx_hkl.experiments.run_directory import MetricsWriter
from mjx_hkl.training.metrics import Row

_NO_METRICS = ("seed", "environment_steps")


@dataclasses.dataclass(frozen=True)
class Tracking:
    """What is told of a run while it is trained, and to whom; nothing of it changes what is learned.

    Attributes:
      loggers: names of `LOGGERS`, or "none".
      histograms: whether loggers are told of latents and actions each log interval.
      video_interval: environment steps between videos of the mean policy; 0: none.
      render: writes an .mp4 of an episode, with the seed given; `analysis.rendering.render_episode` does.
    """

    loggers: Sequence[str] = ("tensorboard",)
    histograms: bool = False
    video_interval: int = 0
    render: Callable[[Player, Path, int], object] | None = None

    def require(self) -> None:
        """Raises UserError where a logger is unknown, not installed or not set up."""
        require(self.loggers)


class Tracker:
    """Writes what is told of a run; a logger that fails is left out from then on, which is said once.

    Args:
      run: to tell of.
      loggers: names of `LOGGERS`, or "none".
    """

    def __init__(self, run: LoggedRun, loggers: Sequence[str]):
        self._say = run.say
        self._metrics = MetricsWriter(run.directory)
        self._loggers: dict[str, Logger] = {}
        for name in loggers:
            if name != NONE:
                self._try(name, lambda name=name: self._loggers.update({name: LOGGERS[name](run)}))

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind:
            for logger in self._loggers.values():
                with contextlib.suppress(Exception):  # what ends the run is told
                    logger.close(failed=True)
        else:
            self._each(lambda logger: logger.close(failed=False))
        self._metrics.close(failed=kind is not None)

    def interval(self, rows: Sequence[Row]) -> None:
        """Metrics of one log interval, a row for each seed. Raises OSError where they cannot be written."""
        self._metrics.write(rows)
        for row in rows:
            seed, step = int(row["seed"] or 0), int(row["environment_steps"] or 0)
            values = {
                tag(name): float(x)
                for name, x in row.items()
                if x is not None and math.isfinite(x) and name not in _NO_METRICS
            }
            self._each(lambda logger: logger.scalars(seed, step, values))  # noqa: B023 - called at once

    def histograms(self, seed: int, step: int, samples: dict[str, Any]) -> None:
        """Samples of one seed's latents and actions, by tag."""
        self._each(lambda logger: logger.histograms(seed, step, samples))

    def video(self, seed: int, step: int, path: Path) -> None:
        """An episode of one seed."""
        self._each(lambda logger: logger.video(seed, step, path))

    def result(self, step: int, evaluations: Sequence[Evaluation]) -> None:
        """The evaluation at the end, of each seed."""
        for evaluation in evaluations:
            values = {f"final/{name}": x for name, x in _told(evaluation).items()}
            self._each(lambda logger: logger.result(evaluation.seed, step, values))  # noqa: B023 - likewise

    def _each(self, tell: Callable[[Logger], object]) -> None:
        for name, logger in list(self._loggers.items()):
            self._try(name, lambda logger=logger: tell(logger))

    def _try(self, name: str, tell: Callable[[], object]) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of libraries, about themselves
                tell()
        except Exception as error:  # whatever a library, a network or a disk raises
            reason = next(iter(str(error).splitlines()), "") or type(error).__name__
            self._say(f"logger {name!r} failed and is left out from here on, training goes on: {reason}")
            failed = self._loggers.pop(name, None)
            with contextlib.suppress(Exception):
                if failed:
                    failed.close(failed=True)


def _told(evaluation: Evaluation) -> dict[str, float]:
    """Its numbers by name, those of each of several environments by its name too."""
    names = ["success_rate"] if evaluation.can_succeed else []
    names += ["episode_return", "episode_return_std", "episode_length", "faults"]
    told = {name: float(getattr(evaluation, name)) for name in names}
    for task, part in evaluation.tasks.items():
        told |= {f"{name}/{task}": x for name, x in _told(part).items()}
    return {name: x for name, x in told.items() if math.isfinite(x)}
