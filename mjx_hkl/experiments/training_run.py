"""A training run from start or checkpoint to its evaluation and its exported agents."""

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mjx_hkl.config import difference, from_table, to_table
from mjx_hkl.environments import AnyWorld, VectorEnvironment, many
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import machine
from mjx_hkl.experiments.agent_format import KnownAgent, write_agent
from mjx_hkl.experiments.build import make_loop, resolve, world_of
from mjx_hkl.experiments.copies import Copies, UserFile, edited, inside, located, user_files
from mjx_hkl.experiments.evaluation import Evaluation, evaluate
from mjx_hkl.experiments.ladder import climb, linked, require_alike, require_same
from mjx_hkl.experiments.loggers.logger import LoggedRun
from mjx_hkl.experiments.recipe import (
    Recipe,
    TransferConfig,
    essence,
    recipe_from_table,
    with_copies,
)
from mjx_hkl.experiments.reporter import Reporter, Silent, announce
from mjx_hkl.experiments.run_directory import RunDirectory, free_name
from mjx_hkl.experiments.saves_and_stops import Saves, have_succeeded, stop_on_signal
from mjx_hkl.experiments.snapshots import Snapshots, agent_of_seed
from mjx_hkl.experiments.tracking import Tracker, Tracking
from mjx_hkl.experiments.transfer import load_sources, transferred
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import Agent
from mjx_hkl.training import checkpoint, devices, processes
from mjx_hkl.training.divergence import Divergence, SkippedBatches
from mjx_hkl.training.loop import Loop
from mjx_hkl.training.metrics import Row
from mjx_hkl.training.step import TrainState
from mjx_hkl.user_code import Source, remember, trust


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: stopped early, or finished with an evaluation for each seed.

    Environment steps are those in the recipe's own world; seconds count its ladder too.
    """

    run: Path
    finished: bool
    environment_steps: int
    seconds: float
    evaluations: list[Evaluation]


_TO_TENSORBOARD = Tracking()


def train(
    recipe: Recipe,
    out: Path | str,
    resume: bool = False,
    reporter: Reporter | None = None,
    callback: Callable[[list[Row]], object] = lambda rows: None,
    trust_code: bool = False,
    debug_divergence: bool = False,
    tracking: Tracking = _TO_TENSORBOARD,
) -> Result:
    """Trains a recipe's agents; ends by SIGINT or SIGTERM after the current interval, saved.

    The run has copies of the user's files that the recipe names, and goes on with these.

    Args:
      recipe: what to run.
      out: the run directory; must be free, or with `resume` hold a run of the same recipe.
      resume: continue from the newest checkpoint.
      reporter: shows people what happens, as `mjx_hkl.Display()` does; nobody where there is none.
      callback: is given the metrics of each log interval, a row for each seed.
      trust_code: runs code that came with the run or with agents that it takes modules from.
      debug_divergence: writes the batches of the first updates that are skipped, for a look; slower.
      tracking: which loggers are told, and of what, beside metrics.jsonl.

    Raises:
      UserError: something given is wrong, and nothing has been written; or learning has diverged, and
        the last checkpoint is untouched.
    """
    tracking.require()
    run = RunDirectory(Path(out))
    reporter = reporter or Silent()
    if resume:
        run.require_begun()
        if trust_code:
            trust(run.path)
        recipe = with_copies(recipe, run.path)
        if changed := edited(run.path):
            reporter.say(changed)
    else:
        run.require_free()
    require_alike(recipe)
    world = world_of(recipe)
    resolved = resolve(recipe, world)
    *stages, last = linked(resolved, world, run) if recipe.ladder else [resolved]
    loop = make_loop(resolved, world, on_skipped=SkippedBatches(run.skipped) if debug_divergence else None)
    files = user_files(to_table(resolved))  # as they are now, whoever edits them while it trains
    copies = Copies.of(files, run.path)
    training = _Training(resolved, last.transfer, run, loop, files, copies, reporter, callback, trust_code)

    def train_stage(stage: Recipe, folder: Path, resume: bool) -> bool:
        how = callback, trust_code, debug_divergence, tracking
        return train(stage, folder, resume, reporter, *how).finished

    def begin() -> None:
        # So many devices as there were need not be there to resume.
        run.begin(dataclasses.replace(resolved, num_devices=recipe.num_devices), copies)
        machine.note(run, resolved.num_devices or 1)
        remember(Source(file.path, file.content) for file in files if file.path.suffix == ".py")

    with contextlib.ExitStack() as held:
        if recipe.ladder:
            _hold(run, held, must_be_free=not resume)
            if not run.has_checkpoint:  # else it is past its ladder
                if resume:
                    require_same(run, resolved)
                processes.wait_for_all("looked at")
                if processes.is_first():
                    begin()
                processes.wait_for_all("begun")
                if not climb([with_copies(stage, run.path) for stage in stages], run, train_stage):
                    return Result(run.path, False, 0, run.seconds_of_ladder, [])
                resume = False
        state = training.resumed(held) if resume else training.started(held)
        seconds = 0.0
        if processes.is_first():
            if resume:
                seconds, missing = run.rewind_metrics(training.done(state))
                if missing:
                    reporter.say(missing)
            begin()
        snapshots = Snapshots(tracking, loop, run, resolved, reporter.say)
        tracker = training.tracker(state, held, tracking.loggers)
        stopped, state, seconds, evaluated = training.run_on(state, seconds, tracker, snapshots)
        evaluations = [] if stopped else training.finished(state, evaluated)
        if tracker:
            tracker.result(training.done(state), evaluations)
        seconds += run.seconds_of_ladder
        return Result(run.path, not stopped, training.done(state), seconds, evaluations)


@dataclasses.dataclass(frozen=True)
class _Training:
    recipe: Recipe  # resolved
    transfer: TransferConfig  # the recipe's, or from the last stage of its ladder
    run: RunDirectory
    loop: Loop
    files: tuple[UserFile, ...]  # that the recipe needs
    copies: Copies  # of these in the run
    reporter: Reporter
    callback: Callable[[list[Row]], object]
    trust_code: bool

    def started(self, held: contextlib.ExitStack) -> TrainState:
        """A fresh state, with what it takes from other agents."""
        recipe = dataclasses.replace(self.recipe, transfer=self.transfer)
        sources = load_sources(recipe, self._world, self.trust_code)
        self._compile()
        if not self.recipe.ladder:  # else it is held already
            processes.wait_for_all("compiled")  # all have seen the folder as it was
            _hold(self.run, held, must_be_free=True)
        state = self.loop.init()
        return self.loop.place(transferred(state, sources, self.transfer)) if sources else state

    def resumed(self, held: contextlib.ExitStack) -> TrainState:
        """The state of the newest checkpoint that is whole; damaged ones that are newer are set aside."""
        if not self.recipe.ladder:
            _hold(self.run, held, must_be_free=False)
        restored = checkpoint.restore(self.run.checkpoints, self.loop.abstract, self._require_same)
        processes.wait_for_all("restored")
        for step, damage in restored.damaged.items() if processes.is_first() else ():
            path = self.run.checkpoints / str(step)
            self.reporter.say(f"{damage} but for its name, now {path.rename(free_name(path)).name}")
        if restored.damaged:
            self.reporter.say(f"going on from {restored.environment_steps:,} environment steps")
        processes.wait_for_all("set aside")
        self._compile(devices.tree_bytes(restored.state) // (self.recipe.num_devices or 1))
        return restored.state

    def tracker(
        self, state: TrainState, held: contextlib.ExitStack, loggers: Sequence[str]
    ) -> Tracker | None:
        """Who is told of the run from here on; None in other processes than the first."""
        if not processes.is_first():
            return None
        told = LoggedRun(self.run, self.recipe, self.done(state), self.reporter.say)
        return held.enter_context(Tracker(told, loggers))

    def run_on(
        self, state: TrainState, seconds: float, tracker: Tracker | None, snapshots: Snapshots
    ) -> tuple[bool, TrainState, float, "_Evaluated | None"]:
        """Runs the schedule.

        Returns:
          Whether it was stopped early, the last state, the seconds so far, and the evaluation of that state
          where one was due.
        """
        recipe, done, total = self.recipe, self.done(state), self.loop.schedule.environment_steps
        saves, divergence = Saves(recipe, done), Divergence(self.reporter.say, self.run.diverged(done))
        best, stopped, evaluated = self.run.best_scores(done), False, None
        has_ended = have_succeeded(self.run.rows_at(done), recipe.until_success)
        shown = self.reporter.training(done, total, self._environment.can_succeed)
        with stop_on_signal() as stop, shown:
            if has_ended:
                self._tell_success()
            intervals = () if has_ended else self.loop.intervals(state)
            for state, rows in intervals:
                before, done = done, int(rows[0]["environment_steps"] or 0)
                seconds += float(rows[0]["interval_seconds"] or 0.0)
                rows = [_timed(row, seconds) for row in divergence.marked(rows)]
                evaluated = self._evaluated(state) if self._is_evaluation_due(done) else None
                rows = self._with_evaluations(rows, evaluated, best)
                if tracker:
                    tracker.interval(rows)
                snapshots.take(state, before, done, tracker)
                self.reporter.interval(rows)
                self.callback(rows)
                divergence.tell(rows)
                if saves.due(done):
                    self._save(state, done)
                    saves.made(done)
                stopped = processes.any_of(bool(stop))
                if stopped:
                    self.reporter.say("stopping: saving the state after this interval")
                    break
                if have_succeeded(rows, recipe.until_success):
                    self._tell_success()
                    break
            if done > saves.done:
                self._save(state, done)
        return stopped, state, seconds, evaluated

    def finished(self, state: TrainState, evaluated: "_Evaluated | None") -> list[Evaluation]:
        """Exports the agent of every seed, once it has been evaluated."""
        evaluated = self._evaluated(state) if evaluated is None else evaluated
        for agent, result in evaluated:
            known = KnownAgent(agent, self.recipe, self._world)
            folder = self.run.export(result.seed, self.recipe.num_seeds)
            write_agent(folder, known, result.seed, result, self.files, replace=True)
        evaluations = [result for _, result in evaluated]
        if processes.is_first():
            self.run.write_evaluation([dataclasses.asdict(result) for result in evaluations])
        processes.wait_for_all("finished")
        return evaluations

    def _tell_success(self) -> None:
        self.reporter.say(f"success is {self.recipe.until_success:.0%}: ended as the recipe asks")

    def _evaluated(self, state: TrainState) -> "_Evaluated":
        """Each seed's agent and what its mean policy achieves; in other processes than the first nothing."""
        agents = [agent_of_seed(state, index) for index in range(self.recipe.num_seeds)]
        if not processes.is_first():
            return []
        environment = many(self._environment, self.recipe.evaluation_episodes)
        return [
            (agent, evaluate(environment, agent, seed, deterministic=True))
            for seed, agent in enumerate(agents, self.recipe.seed)
        ]

    def _is_evaluation_due(self, done: int) -> bool:
        """Whether the recipe asks for an evaluation after so many environment steps."""
        every, schedule = self.recipe.evaluation_interval, self.loop.schedule
        before = done - schedule.interval * schedule.train_step.environment_steps
        return bool(every) and (done // every > before // every or done >= schedule.environment_steps)

    def _with_evaluations(
        self, rows: list[Row], evaluated: "_Evaluated | None", best: dict[int, tuple[float, float]]
    ) -> list[Row]:
        """The rows of an interval with evaluations of the mean policies, None where none was due.

        An agent better than the best score of its seed so far is kept, and `best` is its score from then on.
        """
        if not self.recipe.evaluation_interval:
            return rows
        evaluated = evaluated or []
        for agent, result in evaluated:
            if result.score > best.get(result.seed, (-math.inf, -math.inf)):
                best[result.seed] = result.score
                known = KnownAgent(agent, self.recipe, self._world)
                place = self.run.best(result.seed, self.recipe.num_seeds)
                write_agent(place, known, result.seed, result, self.files, replace=True)
        results = [result for _, result in evaluated]
        tasks = self.loop.schedule.train_step.environment.tasks
        return [
            row | _told(result, tasks) | _told_of_best(best[result.seed] if result else None)
            for row, result in itertools.zip_longest(rows, results)
        ]

    def done(self, state: TrainState) -> int:
        """Environment steps so far."""
        return int(state.iteration) * self.loop.schedule.train_step.environment_steps

    @property
    def _environment(self) -> AnyWorld:
        return self.loop.schedule.train_step.environment.env

    @property
    def _world(self) -> WorldSpecs:
        return WorldSpecs.of(self._environment)

    @property
    def _identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return identity(self.recipe, self._environment)

    def _compile(self, held: int = 0) -> None:
        """Compiles the program; raises UserError where it takes more than there is, beside `held` bytes."""
        announce(self.recipe, self.loop, self.reporter, held)
        seconds, memory = self.loop.compile(), self.loop.device_bytes()
        self.reporter.say(f"compiled in {seconds:.1f} s; takes {devices.format_bytes(memory)} of each device")
        remedy = "lower num_envs, batch_size or num_seeds"
        devices.require_fits(memory, "the compiled train step", remedy, held)

    def _save(self, state: TrainState, done: int) -> None:
        about = self.copies.named(self._identity)
        checkpoint.save(self.run.checkpoints, state, done, about, self.recipe.keep_checkpoints)

    def _require_same(self, about: dict[str, Any]) -> None:
        """Raises UserError where a checkpoint is of another recipe or world."""
        held, where = inside(located(self.run.path, about), self.run.path), str(self.run.checkpoints)
        # An older version's lacks the fields that have come since: they have their defaults.
        recipe = essence(recipe_from_table(held.get("recipe", {}), f"{where}: recipe"))
        world = from_table(WorldSpecs, held.get("world", {}), f"{where}: world").completed(self._world)
        different = difference({"recipe": recipe, "world": to_table(world)}, self._identity)
        if different:
            raise UserError(f"{self.run.path} holds a run of another recipe: {different}")


def identity(recipe: Recipe, world: AnyWorld) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    return {"recipe": essence(recipe), "world": to_table(WorldSpecs.of(world))}


_Evaluated = list[tuple[Agent, Evaluation]]
"""Each seed's agent and what its mean policy achieves."""


def _hold(run: RunDirectory, held: contextlib.ExitStack, must_be_free: bool) -> None:
    """Holds the run directory; raises UserError in all processes where the first cannot."""
    refusal = None
    if processes.is_first():
        try:
            held.enter_context(run.held())
            if must_be_free:
                run.require_free()  # still
        except UserError as error:
            refusal = error
    if processes.any_of(refusal is not None):
        raise refusal or UserError(f"the first process cannot train in {run.path}")


def _told(result: Evaluation | None, tasks: Mapping[str, VectorEnvironment]) -> Row:
    """What a row of metrics tells of an evaluation, and of each task's by name; None where there is none."""
    row: Row = {
        "evaluation_success_rate": result.success_rate if result else None,
        "evaluation_return": result.episode_return if result else None,
    }
    for name in filter(None, tasks):
        of_task = result.tasks[name] if result else None
        if tasks[name].env.can_succeed:
            row[f"evaluation_success_rate/{name}"] = of_task.success_rate if of_task else None
        row[f"evaluation_return/{name}"] = of_task.episode_return if of_task else None
    return row


def _told_of_best(score: tuple[float, float] | None) -> Row:
    """What a row of metrics tells of the best evaluation so far; None where none is due."""
    success, total = score or (None, None)
    return {"evaluation_best_success_rate": success, "evaluation_best_return": total}


def _timed(row: Row, seconds: float) -> Row:
    """The row with the seconds of the whole run instead of those of the interval."""
    return {name: x for name, x in row.items() if name != "interval_seconds"} | {"seconds": round(seconds, 3)}
