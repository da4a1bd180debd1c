"""The numbers that a report's page draws: every metric of every agent, over each axis."""

from typing import Any

import numpy as np

from mjx_hkl.analysis.curves import Curve, band, curve_of, rows_to_smooth, tells_success
from mjx_hkl.analysis.report.agents import ReportedAgent
from mjx_hkl.analysis.runs import AXES
from mjx_hkl.errors import UserError

_AXES = ("environment_steps", "seconds", "learner_steps")  # the first one is shown first
_MOST_POINTS = 400  # of a seed's line
_BAND_POINTS = 120
_UNDRAWN = (*AXES, "seed", "diverged", "episodes", "updates")
_METRICS = {
    "Episodes, sampled policy": {
        "success_rate": "share of the episodes that ended in success",
        "episode_return": "mean return of the episodes that ended",
        "episode_length": "mean steps of the episodes that ended",
        "faults": "steps that are not learned from, because a number was not finite",
    },
    "Evaluations, mean policy": {
        "evaluation_success_rate": "share of an evaluation's episodes that ended in success",
        "evaluation_return": "mean return of an evaluation's episodes",
        "evaluation_best_success_rate": "of the best evaluation so far",
        "evaluation_best_return": "of the best evaluation so far",
    },
    "KL and entropy": {
        "kl_high": "KL to the default policy of the latents, in nats",
        "kl_low": "KL to the default policy of the actions, in nats",
        "entropy": "of the low level, in nats",
        "action_scale": "mean standard deviation of the actions",
        "latent_scale": "mean standard deviation of the latents",
    },
    "Critic": {
        "q": "mean of the critic",
        "q_target": "mean of what the critic is drawn to",
        "trace": "mean trace of Retrace",
        "value": "mean of the critic",
        "value_target": "mean of what the critic is drawn to",
        "ratio": "mean importance ratio of V-trace",
        "critic_loss": "",
        "critic_gradient_norm": "before clipping",
    },
    "Policy and default policy": {
        "policy_loss": "",
        "policy_gradient_norm": "before clipping",
        "default_policy_loss": "",
        "default_policy_gradient_norm": "before clipping",
    },
    "Running": {
        "environment_steps_per_second": "of each seed",
        "skipped_updates": "in a log interval, because their gradients were not finite",
    },
}
_OTHERS = "Others"


def curves(agents: list[ReportedAgent]) -> dict[str, Any]:
    """What page.js draws: axes, agents, metrics by group; `xs` are arrays that many lines share."""
    xs = _Shared()
    metrics = []
    for metric in sorted(_logged(agents), key=_order):
        lines = [_lines(agent, metric, xs) for agent in agents]
        if any(lines):
            group, meaning = _described(metric)
            metrics.append(
                {
                    "id": metric,
                    "label": metric.replace("_", " ").replace("kl ", "KL "),
                    "group": group,
                    "meaning": meaning,
                    "share": tells_success(metric),
                    "smoothed": rows_to_smooth(metric),
                    "agents": lines,
                }
            )
    return {
        "axes": [{"id": axis, "label": AXES[axis]} for axis in _AXES],
        "agents": [agent.name for agent in agents],
        "metrics": metrics,
        "xs": xs.arrays,
    }


def _logged(agents: list[ReportedAgent]) -> set[str]:
    """Names of the metrics in the rows of any seed."""
    rows = (row for agent in agents for seed in agent.runs.seeds for row in seed.rows)
    names = {name for row in rows for name in row}
    return {name for name in names if name.partition("/")[0] not in _UNDRAWN}


def _described(metric: str) -> tuple[str, str]:
    """The group of a metric, and what it is."""
    name, _, task = metric.partition("/")
    for group, known in _METRICS.items():
        if name in known:
            return group, known[name] + (f", in {task}" if task else "")
    if name.startswith("episode_return_"):
        return "Terms of the return", "what this term of the reward adds to an episode's return"
    return _OTHERS, ""


def _order(metric: str) -> tuple[int, int, str]:
    name = metric.partition("/")[0]
    for i, known in enumerate(_METRICS.values()):
        if name in known:
            return i, list(known).index(name), metric
    return len(_METRICS), 0, metric


class _Shared:
    """Arrays, each once."""

    def __init__(self) -> None:
        self.arrays: list[list[float]] = []
        self._places: dict[tuple[float, ...], int] = {}

    def place(self, values: np.ndarray) -> int:
        """Where the array is among `arrays`."""
        key = tuple(_rounded(values, 6))
        if key not in self._places:
            self._places[key] = len(self.arrays)
            self.arrays.append(list(key))
        return self._places[key]


def _lines(agent: ReportedAgent, metric: str, xs: _Shared) -> dict[str, Any] | None:
    """The seeds' lines and the band over each axis; None where the agent has no value of the metric."""
    found: dict[int, Curve] = {}
    for i, seed in enumerate(agent.runs.seeds):
        try:
            curve = curve_of(seed, metric, rows_to_smooth(metric))
        except UserError:  # it has none
            continue
        if curve:
            found[i] = curve
    if not found:
        return None
    bands = {axis: band(list(found.values()), axis, _BAND_POINTS) for axis in _AXES}
    return {
        "seeds": [_line(agent.runs.seeds[i].rows[0]["seed"], curve, xs) for i, curve in found.items()],
        "bands": {
            axis: {
                "x": _rounded(of_axis.x, 5),
                "iqm": _rounded(of_axis.iqm, 4),
                "low": _rounded(of_axis.low, 4),
                "high": _rounded(of_axis.high, 4),
            }
            for axis, of_axis in bands.items()
            if of_axis is not None
        },
    }


def _line(seed: int, curve: Curve, xs: _Shared) -> dict[str, Any]:
    count = len(curve.value)
    kept = np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(int))
    x = {axis: xs.place(curve.axes[axis][kept]) for axis in _AXES}
    return {"seed": seed, "x": x, "y": _rounded(curve.value[kept], 4)}


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in values]
