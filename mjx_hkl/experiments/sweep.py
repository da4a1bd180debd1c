"""A sweep: runs of one recipe with other values of some fields, chosen by Optuna; stopped, it goes on.

The study is in OUT/study.journal, each trial a run in OUT/trial-NNN. What went on when a sweep was stopped or
killed is a running trial there: the next call goes on with it.
"""

import contextlib
import dataclasses
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from mjx_hkl.config import difference, to_table
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.build import make_loop, resolve, world_of
from mjx_hkl.experiments.recipe import Recipe, essence, recipe_to_toml
from mjx_hkl.experiments.reporter import Reporter
from mjx_hkl.experiments.reproduce import go_on, require_same
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.sweep_plan import NoPruner, SweepPlan, varied
from mjx_hkl.experiments.tracking import Tracking
from mjx_hkl.experiments.whole import write_whole
from mjx_hkl.training.divergence import DivergedError
from mjx_hkl.training.loop import Loop
from mjx_hkl.training.metrics import Row

if TYPE_CHECKING:
    import optuna

_OF_EVALUATION = {"evaluation_success_rate": "success_rate", "evaluation_return": "episode_return"}
_LAST = 0.1  # share of a run whose mean a metric is
_TO_TENSORBOARD = Tracking()


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of a sweep: `state` is complete, pruned, fail or running; a value has one that is complete."""

    number: int
    state: str
    value: float | None
    params: dict[str, Any]
    run: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a sweep has found so far.

    Attributes:
      finished: whether all trials are done.
      metric: by which they are judged.
      trials: the best first, then those without a value.
      importances: share of the metric's variance that each field explains; {} where that is not known.
    """

    finished: bool
    metric: str
    trials: list[Trial]
    importances: dict[str, float]

    @property
    def best(self) -> Trial | None:
        """The best that is complete."""
        return next((trial for trial in self.trials if trial.value is not None), None)


def sweep(
    recipe: Recipe,
    plan: SweepPlan,
    out: Path,
    reporter: Reporter,
    tracking: Tracking = _TO_TENSORBOARD,
    callback: Callable[[list[Row]], object] = lambda rows: None,
    trust_code: bool = False,
) -> Outcome:
    """Trains the trials that are not yet done; writes OUT/sweep.json and OUT/best.toml after each.

    Args:
      recipe: what all trials have in common.
      plan: of `load_plan`.
      out: folder of the sweep; free, or that of the same sweep, which goes on.
      reporter: shows people what happens.
      tracking: which loggers are told of each run, and of what.
      callback: is given the metrics of each log interval of each run.
      trust_code: runs code that came with agents that the recipe takes modules from.

    Raises:
      UserError: something given is wrong, and nothing has been trained; or a run fails after it has begun. A
        trial that diverges, or whose values do not go together, fails alone.
    """
    tracking.require()
    world = world_of(recipe)
    resolved = resolve(recipe, world)
    loop = make_loop(resolved, world)
    plan = dataclasses.replace(plan, metric=_checked_metric(plan, resolved, loop))
    folder = RunDirectory(out)
    if not _journal(out).is_file():
        folder.require_free()
    with folder.held(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Optuna, about what is experimental in it
        study = _study(recipe, plan, out)
        how = {"tracking": tracking, "trust_code": trust_code}
        while (trial := _next(study, plan)) is not None:
            if not _trained(trial, recipe, plan, out, reporter, callback, how):
                return _written(study, recipe, plan, out, finished=False)
            _written(study, recipe, plan, out, finished=False)
        return _written(study, recipe, plan, out, finished=True)


def _journal(out: Path) -> Path:
    return out / "study.journal"


def _study(recipe: Recipe, plan: SweepPlan, out: Path) -> "optuna.Study":
    """The study in a folder, begun where there is none; raises UserError where it is of another sweep."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(_journal(out)))),
            study_name="sweep",
            direction=plan.direction,
            pruner=plan.pruner.make(),
            load_if_exists=True,
        )
    except OSError:
        raise
    except Exception as error:  # whatever it makes of a damaged file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{_journal(out)} cannot be read: {reason}; give another --out") from error
    about = {
        "plan": {name: value for name, value in to_table(plan).items() if name != "trials"},
        "recipe": essence(recipe) | {"total_env_steps": recipe.total_env_steps},
    }
    about = json.loads(json.dumps(about))
    held = study.user_attrs.get("about")
    if held is None:
        study.set_user_attr("about", about)
    elif different := difference(held, about):
        raise UserError(f"{out} holds another sweep: {different}; give another --out")
    return study


def _next(study: "optuna.Study", plan: SweepPlan) -> "optuna.Trial | None":
    """The trial that is running, else a new one; None where there are enough."""
    import optuna

    known = study.get_trials(deepcopy=False)
    running = [trial for trial in known if trial.state == optuna.trial.TrialState.RUNNING]
    study.sampler = plan.sampler.make(plan, running[0].number if running else len(known))
    if running:
        return optuna.Trial(study, running[0]._trial_id)
    return study.ask() if len(known) < plan.num_trials else None


def _trained(
    trial: "optuna.Trial",
    recipe: Recipe,
    plan: SweepPlan,
    out: Path,
    reporter: Reporter,
    callback: Callable[[list[Row]], object],
    how: dict[str, Any],
) -> bool:
    """Trains a trial's run to its end, and tells the study; returns whether it was not stopped before."""
    import optuna

    study, states = trial.study, optuna.trial.TrialState
    values = {key: of.suggested(trial, key) for key, of in plan.ranges.items()}
    run = _run(out, trial.number)
    told = ", ".join(f"{key} {_short(value)}" for key, value in values.items())
    reporter.say(f"{run.path}, {trial.number + 1} of {plan.num_trials}: {told}")
    try:
        own = _named(varied(recipe, values, run.path.name), f"{recipe.name}:{run.path.name}")
        resolved = resolve(own)
        judge = _Judge(trial, plan.metric, resolved, callback)
        require_same(run, resolved)
        if not go_on(own, run, reporter, callback=judge, **how):
            return False
        value = _value(run, plan.metric)
        if value is None:
            reporter.say(f"{run.path.name} failed: it has no {plan.metric}")
        study.tell(trial, value, state=states.FAIL if value is None else states.COMPLETE)
    except optuna.TrialPruned:
        reporter.say(f"{run.path.name} is worse than the median of the others: ended")
        study.tell(trial, state=states.PRUNED)
    except UserError as error:
        if run.recipe.is_file() and not isinstance(error, DivergedError):
            raise
        reporter.say(f"{run.path.name} failed: {error}")
        study.tell(trial, state=states.FAIL)
    return True


class _Judge:
    """A callback of `train` that lets a trial be pruned."""

    def __init__(
        self, trial: "optuna.Trial", metric: str, recipe: Recipe, callback: Callable[[list[Row]], object]
    ):
        self._trial, self._metric, self._callback = trial, metric, callback
        by_evaluation = metric.partition("/")[0] in _OF_EVALUATION
        assert recipe.num_envs is not None, "a trial's recipe is resolved"
        train_step = recipe.num_envs * recipe.algorithm.unroll_length
        interval = -(-min(recipe.log_interval, recipe.total_env_steps) // train_step) * train_step
        between = recipe.evaluation_interval and max(interval, recipe.evaluation_interval)
        self._every = between if by_evaluation else interval
        self._total = recipe.total_env_steps
        self._known = set(trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values)

    def __call__(self, rows: list[Row]) -> None:
        self._callback(rows)
        done = int(rows[0]["environment_steps"] or 0)
        values = [x for row in rows if (x := row.get(self._metric)) is not None]
        step = done // self._every if self._every else 0
        if not values or not step or step in self._known or done >= self._total:
            return
        self._known.add(step)
        self._trial.report(fmean(values), step)
        if self._trial.should_prune():
            import optuna

            raise optuna.TrialPruned


def _checked_metric(plan: SweepPlan, recipe: Recipe, loop: Loop) -> str:
    """The plan's metric, or what it is by default.

    Raises:
      UserError: the recipe's runs do not log it, or not so often that trials can be pruned.
    """
    world = loop.schedule.train_step.environment.env
    metric = plan.metric or ("evaluation_success_rate" if world.can_succeed else "evaluation_return")
    if metric == "evaluation_success_rate" and not world.can_succeed:
        raise UserError(f"metric: {recipe.environment_name} does not tell of success; use evaluation_return")
    if metric in _OF_EVALUATION:
        if not isinstance(plan.pruner, NoPruner) and not recipe.evaluation_interval:
            raise UserError(f"the pruner needs {metric} while a run is trained: give --evaluation-interval")
        return metric
    if metric not in loop.metrics:
        raise unknown_name("metric", metric, [*_OF_EVALUATION, *loop.metrics])
    return metric


def _value(run: RunDirectory, metric: str) -> float | None:
    """What a finished run is judged by, a mean over seeds; None where it was never measured."""
    if metric in _OF_EVALUATION:
        evaluations = json.loads(run.evaluation.read_text(encoding="utf-8"))
        return fmean(one[_OF_EVALUATION[metric]] for one in evaluations)
    rows = run.read_metrics()
    since = (1 - _LAST) * max((row["environment_steps"] for row in rows), default=0)
    # Another algorithm, where a sweep tries several, may not log it.
    told = [row.get(metric) for row in rows if row["environment_steps"] >= since]
    known = [x for x in told if x is not None]
    return fmean(known) if known else None


def _written(study: "optuna.Study", recipe: Recipe, plan: SweepPlan, out: Path, finished: bool) -> Outcome:
    """What is known, also as sweep.json, and the best recipe as best.toml."""
    trials = [_trial(one, plan, out) for one in study.get_trials(deepcopy=False)]
    sign = -1.0 if plan.direction == "maximize" else 1.0
    trials.sort(key=lambda one: (one.value is None, sign * (one.value or 0.0), one.number))
    outcome = Outcome(finished, plan.metric, trials, _importances(study))
    told = {**dataclasses.asdict(outcome), "direction": plan.direction}
    write_whole(out / "sweep.json", json.dumps(told, indent=2) + "\n")
    if outcome.best:
        best = _named(varied(recipe, outcome.best.params, "the best trial"), f"{recipe.name}-best")
        write_whole(out / "best.toml", recipe_to_toml(best))
    return outcome


def _trial(trial: "optuna.trial.FrozenTrial", plan: SweepPlan, out: Path) -> Trial:
    values = {key: plan.ranges[key].decoded(value) for key, value in trial.params.items()}
    state, value = trial.state.name.lower(), None
    if state == "complete" and trial.values:
        value = trial.values[0]
    return Trial(trial.number, state, value, values, str(_run(out, trial.number).path))


def _importances(study: "optuna.Study") -> dict[str, float]:
    """By PED-ANOVA, which needs no scikit-learn; {} where there is too little to say."""
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    with contextlib.suppress(Exception):
        return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))
    return {}


def _run(out: Path, number: int) -> RunDirectory:
    return RunDirectory(out / f"trial-{number:03d}")


def _named(recipe: Recipe, name: str) -> Recipe:
    return dataclasses.replace(recipe, name=name)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(outcome: Outcome) -> str:
    """The trials as a Markdown table, the best first, and how much each field matters."""
    keys = list(dict.fromkeys(key for trial in outcome.trials for key in trial.params))
    lines: list[Sequence[str]] = [["trial", outcome.metric, *keys], ["---"] * (2 + len(keys))]
    for trial in outcome.trials:
        value = trial.state if trial.value is None else _short(trial.value)
        lines.append([f"{trial.number:03d}", value, *(_short(trial.params.get(key, "-")) for key in keys)])
    if outcome.importances:
        lines.append(
            [
                "",
                "importance",
                *(f"{outcome.importances[key]:.0%}" if key in outcome.importances else "-" for key in keys),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
