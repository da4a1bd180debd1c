"""Learning curves of runs, by variant and seed: smoothed, summarized, drawn."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from mjx_hkl.analysis.ranks import compare
from mjx_hkl.analysis.runs import AXES, Runs, Seed, read_runs
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.training.metrics import TERM

THRESHOLDS = (0.5, 0.8)
_SUCCESS = ("success_rate", "evaluation_success_rate")  # of training's sampled policy, of the mean policy
_EPISODES = ("success_rate", "episode_return", "episode_length")  # means over the episodes that ended
_LAST = 0.1  # share of a run whose mean counts as its end
_CONFIDENCE = 0.95
_RESAMPLES, _RESAMPLES_OF_BAND = 9999, 500  # of the bootstrap; a band has many points
_NEVER = 1e30  # steps


@dataclasses.dataclass(frozen=True)
class Curve:
    """One seed of a run: a metric, smoothed, over each of `AXES`; KL to the default policy at the end.

    Of a seed that diverged, up to there; its success is 0 from then on, to where the run ended.
    """

    value: Float[np.ndarray, " rows"]
    axes: dict[str, Float[np.ndarray, " rows"]]
    final_kl: float
    diverged: bool = False
    goes_on: bool = False  # a diverged one, with 0
    begin: float = 0.0  # environment steps of the ladder before the run; the axes count them

    @property
    def final(self) -> float:
        """Mean over the last tenth of the run's own steps."""
        steps = self.axes["environment_steps"] - self.begin
        return float(self.value[steps >= (1 - _LAST) * steps[-1]].mean())

    @property
    def average(self) -> float:
        """Mean over all of the run's own steps: how much was achieved how early."""
        steps = self.axes["environment_steps"]
        return float(np.average(self.value, weights=np.diff(steps, prepend=self.begin)))

    def reaches(self, threshold: float, axis: str) -> float:
        """Where the curve first is at the threshold; infinite if it never is."""
        there = np.flatnonzero(self.value >= threshold)
        return float(self.axes[axis][there[0]]) if len(there) else math.inf


def tells_success(metric: str) -> bool:
    """Whether the metric is a success rate, of all environments or of one by its name."""
    return metric.partition("/")[0] in _SUCCESS


def rows_to_smooth(metric: str) -> int:
    """Rows in a running mean where nobody says how many: evaluations are shown each by itself."""
    return 1 if metric.startswith("evaluation_") else 5


def read_curves(
    paths: Iterable[Path], metric: str, smooth: int, say: Callable[[str], None] = lambda text: None
) -> dict[str, list[Curve]]:
    """The curves of runs, or of all runs in a folder, by the name of what was run; each seed once.

    Args:
      paths: run directories, or folders of them.
      metric: a field of metrics.jsonl.
      smooth: rows in a running mean; means over episodes are weighted by how many there were.
      say: told of seeds that were given twice.

    Raises:
      UserError: there is no run, or it has no such metric.
    """
    return curves_of(read_runs(paths, say), metric, smooth)


def curves_of(runs: dict[str, Runs], metric: str, smooth: int) -> dict[str, list[Curve]]:
    """The curves of runs that are read already, see `read_curves`; without seeds that have none."""
    found = {}
    for name, of in runs.items():
        curves = [curve_of(seed, metric, smooth) for seed in of.seeds]
        found[name] = [curve for curve in curves if curve]
        if not found[name]:
            raise UserError(f"{of.seeds[0].path} has no {metric} yet")
    return found


def curve_of(seed: Seed, metric: str, smooth: int) -> Curve | None:
    """The curve of one seed; None where it diverged before it had a value.

    Raises:
      UserError: it has no such metric, or no value of it yet.
    """
    rows = seed.rows
    known = dict.fromkeys(name for row in rows for name in row)  # evaluations may begin or end on a resume
    if metric not in known:
        raise unknown_name("metric", metric, [name for name in known if name not in (*AXES, "seed")])
    of_what, slash, task = metric.partition("/")
    episodes = f"episodes{slash}{task}"
    is_mean = of_what in _EPISODES or of_what.startswith(TERM)
    of_episodes = is_mean and episodes in rows[0]  # early runs do not count those of a task
    if of_episodes:
        # Until each world has ended an episode, short ones count too much; a run may end before that.
        ended = np.cumsum([row[episodes] for row in rows])
        worlds = seed.num_each if task else seed.num_envs
        rows = [row for row, count in zip(rows, ended, strict=True) if count >= worlds] or rows
    lost = next((i for i, row in enumerate(rows) if row.get("diverged")), None)
    after = [] if lost is None or not tells_success(metric) else rows[lost:]
    rows = [row for row in rows[:lost] if row.get(metric) is not None]
    if not rows and lost is None:
        raise UserError(f"{seed.path} has no {metric} yet")
    if not rows and not after:
        return None
    weight = [float(row[episodes]) if of_episodes else 1.0 for row in rows]
    value = np.array([row[metric] for row in rows], float)
    value = np.concatenate([_running_mean(value, np.array(weight), smooth), np.zeros(len(after))])
    axes = {axis: np.array([row[axis] for row in rows + after], float) for axis in AXES}
    levels = [(row.get("kl_high"), row.get("kl_low")) for row in rows]
    kl = [high + low for high, low in levels if high is not None and low is not None]
    last = kl[-max(1, round(_LAST * len(kl))) :]
    final_kl = float(np.mean(last)) if kl else 0.0
    return Curve(value, axes, final_kl, lost is not None, goes_on=bool(after), begin=seed.begin)


def _running_mean(value: np.ndarray, weight: np.ndarray, length: int) -> np.ndarray:
    """Means over the last `length` rows, fewer at the start."""
    if not len(value):
        return value
    window = np.ones(length)
    return np.convolve(value * weight, window)[: len(value)] / np.convolve(weight, window)[: len(value)]


def summarize(curves: dict[str, list[Curve]], with_thresholds: bool) -> list[dict[str, Any]]:
    """A row for each name: the end of its runs, and when they reached each threshold.

    `iqm` is the interquartile mean over seeds, `interval` its 95 % percentile bootstrap (Agarwal et al.
    2021); `interval` and `std` are None for a single seed. `kl` is that to the default policy, both levels.
    Steps to a threshold are the median over seeds, None where half of them never got there; `range` has the
    least and the greatest, and `seeds_at` counts those that did. `faster` compares with the first name: the
    probability that a seed of this one is at the last threshold in fewer environment steps, and the p-value
    of Mann and Whitney's two-sided test; None without thresholds, for the first, and for a single seed.
    """
    rows = []
    reference = next(iter(curves.values()))
    for name, seeds in curves.items():
        worthless = [seed.diverged and with_thresholds for seed in seeds]
        final = np.array([0.0 if lost else seed.final for seed, lost in zip(seeds, worthless, strict=True)])
        row: dict[str, Any] = {
            "name": name,
            "seeds": len(seeds),
            "mean": float(final.mean()),
            "std": float(final.std()) if len(seeds) > 1 else None,
            "iqm": float(interquartile_mean(final)),
            "interval": bootstrap_interval(final),
            "diverged": sum(seed.diverged for seed in seeds),
            "kl": float(np.mean([seed.final_kl for seed in seeds])),
            "seconds": float(max(seed.axes["seconds"][-1] for seed in seeds)),
        }
        for threshold in THRESHOLDS if with_thresholds else ():
            row[f"seeds_at_{threshold:.0%}"] = sum(bool(seed.value.max() >= threshold) for seed in seeds)
            for axis in AXES:
                reached = [seed.reaches(threshold, axis) for seed in seeds]
                row[f"{axis}_to_{threshold:.0%}"] = _finite(float(np.median(reached)))
                row[f"{axis}_to_{threshold:.0%}_range"] = [_finite(min(reached)), _finite(max(reached))]
        row["faster"] = _faster(seeds, reference) if with_thresholds and seeds is not reference else None
        rows.append(row)
    return rows


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _faster(seeds: list[Curve], reference: list[Curve]) -> dict[str, float] | None:
    """Compares environment steps to the last threshold; those that never get there are last, and alike."""
    if min(len(seeds), len(reference)) < 2:
        return None
    steps, others = (
        [min(seed.reaches(THRESHOLDS[-1], "environment_steps"), _NEVER) for seed in group]
        for group in (seeds, reference)
    )
    probability, p = compare(others, steps)
    return {"probability": probability, "p": p}


def interquartile_mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the middle half."""
    return stats.trim_mean(values, 0.25, axis=axis)


def bootstrap_interval(values: np.ndarray) -> list[float] | None:
    """95 % bootstrap of their interquartile mean; None for a single seed, no width where all are equal."""
    if len(values) < 2:
        return None
    if np.ptp(values) == 0:
        return [float(values[0])] * 2
    low, high = _bootstrapped(values, _RESAMPLES)
    return [float(low), float(high)]


def _bootstrapped(values: np.ndarray, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval of the interquartile mean over the first axis, which is that of seeds."""
    found = stats.bootstrap(
        (values,),
        interquartile_mean,
        axis=0,
        n_resamples=resamples,
        confidence_level=_CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return found.confidence_interval.low, found.confidence_interval.high


@dataclasses.dataclass(frozen=True)
class Band:
    """Several seeds over one of `AXES`, as far as all of them go: interquartile mean and its interval."""

    x: Float[np.ndarray, " points"]
    iqm: Float[np.ndarray, " points"]
    low: Float[np.ndarray, " points"]
    high: Float[np.ndarray, " points"]


def band(seeds: list[Curve], axis: str, points: int) -> Band | None:
    """What several seeds have in common; None of a single one, and where they have no x in common."""
    seeds = _going_on(seeds)
    start = max(seed.axes[axis][0] for seed in seeds)
    end = min(seed.axes[axis][-1] for seed in seeds)
    if len(seeds) < 2 or start >= end:
        return None
    x = np.linspace(start, end, points)
    values = np.array([np.interp(x, seed.axes[axis], seed.value) for seed in seeds])
    low, high = _bootstrapped(values, _RESAMPLES_OF_BAND)
    return Band(x, interquartile_mean(values, axis=0), low, high)


def _going_on(seeds: list[Curve]) -> list[Curve]:
    """Without those that diverged and end there, unless all do: the others go on."""
    return [seed for seed in seeds if not seed.diverged or seed.goes_on] or seeds


def table(rows: Sequence[dict[str, Any]], metric: str) -> str:
    """The summary as a Markdown table."""
    share, last = tells_success(metric), f"{THRESHOLDS[-1]:.0%}"

    def number(x: float) -> str:
        return f"{x:.1%}" if share else f"{x:.3g}"

    head = ["", "seeds", f"{metric} ± std", "IQM", "95 % interval", "KL"]
    if share:
        head += [f"learner steps to {t:.0%}" for t in THRESHOLDS]
        head += [f"environment steps to {last}", f"seconds to {last}", "faster than the first"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        interval = row["interval"]
        line = [
            row["name"],
            str(row["seeds"]) + (f" ({row['diverged']} diverged)" if row["diverged"] else ""),
            number(row["mean"]) + ("" if row["std"] is None else f" ± {number(row['std'])}"),
            number(row["iqm"]),
            "-" if interval is None else f"{number(interval[0])} to {number(interval[1])}",
            f"{row['kl']:.2f}",
        ]
        for t in THRESHOLDS if share else ():
            line.append(_steps(row[f"learner_steps_to_{t:.0%}"], row[f"seeds_at_{t:.0%}"], row["seeds"]))
        if share:
            line.append(_with_range(row, f"environment_steps_to_{last}", lambda x: f"{x / 1e6:.2f} M"))
            line.append(_with_range(row, f"seconds_to_{last}", lambda x: f"{x:.0f}"))
            faster = row["faster"]
            line.append("-" if faster is None else f"{faster['probability']:.0%} (p {faster['p']:.2g})")
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _steps(steps: float | None, count: int, seeds: int) -> str:
    if steps is None:
        return f"{count} of {seeds}" if count else "never"
    return f"{steps / 1e6:.2f} M" + (f" ({count} of {seeds})" if count < seeds else "")


def _with_range(row: dict[str, Any], name: str, number: Callable[[float], str]) -> str:
    """A median over seeds, with the least and the greatest of several."""
    least, greatest = ("never" if x is None else number(x) for x in row[f"{name}_range"])
    median = "never" if row[name] is None else number(row[name])
    return median if least == greatest else f"{median} ({least} to {greatest})"


def draw(curves: dict[str, list[Curve]], metric: str, path: Path) -> None:
    """Mean ± standard deviation over seeds, over learner steps, environment steps and seconds."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(4.5 * len(AXES), 4), layout="constrained")
    for plot, (axis, label) in zip(figure.subplots(1, len(AXES), sharey=True), AXES.items(), strict=True):
        for name, seeds in curves.items():
            whole = _going_on(seeds)
            end = min(seed.axes[axis][-1] for seed in whole)
            grid = np.linspace(0, end, 200)
            # before the first row nothing is known
            values = [np.interp(grid, seed.axes[axis], seed.value, left=np.nan) for seed in whole]
            mean, std = np.mean(values, 0), np.std(values, 0)
            shown = f"{len(seeds)}" if len(whole) == len(seeds) else f"{len(whole)} of {len(seeds)}"
            of_one_row = max(len(seed.value) for seed in whole) == 1  # no line, but a point
            (line,) = plot.plot(grid, mean, "." if of_one_row else "-", label=f"{name} ({shown})")
            plot.fill_between(grid, mean - std, mean + std, color=line.get_color(), alpha=0.2, linewidth=0)
        plot.set_xlabel(label)
        plot.xaxis.set_major_formatter(EngFormatter(sep=""))  # 200k, 1.2M
        plot.grid(alpha=0.3)
        if tells_success(metric):
            plot.set_ylim(-0.02, 1.02)
    figure.axes[0].set_ylabel(metric.replace("_", " "))
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=120)
