"""What a report shows of each agent: its runs, final evaluations, machines, and a video."""

import dataclasses
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mjx_hkl.analysis.curves import curves_of, rows_to_smooth, summarize
from mjx_hkl.analysis.runs import Runs, read_runs
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import read_card
from mjx_hkl.experiments.evaluation import Evaluation
from mjx_hkl.experiments.machine import Machine, machines
from mjx_hkl.experiments.run_directory import RunDirectory

_SIZE = (480, 360)  # pixels
_RATE_FACTOR = 28  # of H.264: about 0.1 MB for half a minute
_EPISODES = 3


@dataclasses.dataclass(frozen=True)
class Video:
    """Episodes of an agent as an mp4, and its first frame as a JPEG; `missing` says why there is none."""

    mp4: bytes = b""
    first: bytes = b""
    episodes: int = 0
    missing: str = ""


@dataclasses.dataclass(frozen=True)
class ReportedAgent:
    """Runs of one recipe but for seeds.

    Attributes:
      name: of what was run.
      runs: with the metrics of each seed.
      summary: a row of `curves.summarize`, of `metric`.
      metric: success, or the return where the world does not tell of success.
      evaluations: at the end, of each seed that is finished.
      machines: where they were started and resumed; of older runs what their agents' cards tell.
      video: of the first seed; None where none is wanted.
    """

    name: str
    runs: Runs
    summary: dict[str, Any]
    metric: str
    evaluations: list[Evaluation]
    machines: list[Machine]
    video: Video | None

    @property
    def can_succeed(self) -> bool:
        """Whether its world tells of success."""
        return self.metric == "success_rate"

    @property
    def told_end(self) -> str:
        """Interquartile mean of the metric at the end."""
        return self._told(self.summary["iqm"]) if "iqm" in self.summary else "-"

    @property
    def told_interval(self) -> str:
        """Its interval."""
        interval = self.summary.get("interval")
        return " to ".join(map(self._told, interval)) if interval else "-"

    def _told(self, value: float) -> str:
        return f"{value:.1%}" if self.can_succeed else f"{value:.1f}"


def read_agents(paths: Iterable[Path], with_videos: bool, say: Callable[[str], None]) -> list[ReportedAgent]:
    """The agents of runs, or of folders of them; see `write_report`."""
    found = read_runs(paths, say)
    evaluations = {
        name: [entry for run in runs.directories for entry in _evaluations(run)]
        for name, runs in found.items()
    }
    told = [entry.can_succeed for entries in evaluations.values() for entry in entries]
    succeeds = any(told) if told else any(_have_succeeded(runs) for runs in found.values())
    metric = "success_rate" if succeeds else "episode_return"
    rows = _summaries(found, metric)
    return [
        ReportedAgent(
            name,
            runs,
            rows[name],
            metric,
            evaluations[name],
            [entry for run in runs.directories for entry in _machines(run)],
            _video(runs.directories[0]) if with_videos else None,
        )
        for name, runs in found.items()
    ]


def _have_succeeded(runs: Runs) -> bool:
    """Whether an episode has: of runs that are not evaluated yet, and so do not say whether one could."""
    return any(row.get("success_rate") for seed in runs.seeds for row in seed.rows)


def _summaries(found: dict[str, Runs], metric: str) -> dict[str, dict[str, Any]]:
    """A row for each name; of one that has no value of the metric yet, its name and seeds."""
    curves = {}
    for name, runs in found.items():
        try:
            curves |= curves_of({name: runs}, metric, rows_to_smooth(metric))
        except UserError:  # shorter than an episode
            continue
    rows = summarize(curves, with_thresholds=metric == "success_rate") if curves else []
    empty = {name: {"name": name, "seeds": len(runs.seeds)} for name, runs in found.items()}
    return empty | {row["name"]: row for row in rows}


def _evaluations(run: RunDirectory) -> list[Evaluation]:
    """Those at the end; none of a run that is not finished, or whose file is damaged."""
    try:
        found = json.loads(run.evaluation.read_text(encoding="utf-8"))
        return [from_table(Evaluation, entry, str(run.evaluation)) for entry in found]
    except (OSError, ValueError, TypeError, UserError):
        return []


def _machines(run: RunDirectory) -> list[Machine]:
    if noted := machines(run):
        return noted
    for card in sorted(run.path.glob("export/**/agent.json"))[:1]:
        try:
            return [Machine(versions=read_card(card.parent).versions)]
        except UserError:
            break
    return []


def _video(run: RunDirectory) -> Video:
    """Episodes of the run's first agent, in the first of its worlds."""
    # Imported only when used: a report without videos needs no renderer.
    from mjx_hkl.analysis.rendering import first_frame, render_video
    from mjx_hkl.experiments.players import find_player

    try:
        player = find_player(str(run.path), 1).in_one("", _EPISODES)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "agent.mp4"
            render_video(player, file, 0, player.has_mean, _SIZE, _RATE_FACTOR)
            return Video(file.read_bytes(), first_frame(file), _EPISODES)
    except (UserError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Video(missing=str(error).partition("\n")[0])
