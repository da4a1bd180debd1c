"""A training run from start or checkpoint to its evaluation and export."""

import contextlib
import dataclasses
import math
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import jax

from mjx_hkl.config import difference
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_environment, make_loop, resolve
from mjx_hkl.experiments.evaluation import Evaluation, evaluate
from mjx_hkl.experiments.export import save_export
from mjx_hkl.experiments.recipe import Recipe, essence
from mjx_hkl.experiments.run_directory import MetricsWriter, RunDirectory
from mjx_hkl.experiments.transfer import load_sources, transferred
from mjx_hkl.models.agent import Agent
from mjx_hkl.training import checkpoint, devices, processes
from mjx_hkl.training.loop import Loop
from mjx_hkl.training.metrics import Row
from mjx_hkl.training.sharding import replicated
from mjx_hkl.training.step import TrainState


class Reporter(Protocol):
    """Who shows a run to people."""

    def say(self, text: str) -> None:
        """A line about the run."""
        ...

    def training(self, done: int, total: int) -> AbstractContextManager[None]:
        """Around training, which begins at `done` of `total` environment steps."""
        ...

    def interval(self, rows: list[Row]) -> None:
        """Metrics of one log interval, a row for each seed."""
        ...


@dataclasses.dataclass(frozen=True)
class Result:
    """How a run ended: stopped early, or finished with an evaluation for each seed."""

    run: Path
    finished: bool
    environment_steps: int
    seconds: float
    evaluations: list[Evaluation]


def train(recipe: Recipe, out: Path, resume: bool, reporter: Reporter) -> Result:
    """Trains a recipe's agents; ends by SIGINT or SIGTERM after the current interval, saved.

    Args:
      recipe: what to run.
      out: the run directory; must be free, or with `resume` hold a run of the same recipe.
      resume: continue from the newest checkpoint.
      reporter: shown what happens.

    Raises:
      UserError: something given is wrong, and nothing has been written; or learning has diverged, and
        the last checkpoint is untouched.
    """
    num_devices, recipe, run = recipe.num_devices, resolve(recipe), RunDirectory(out)
    if not resume:
        run.require_free()
    loop = make_loop(recipe)
    about = identity(recipe, loop.schedule.train_step.environment.env)
    if resume:
        _require_same(run, about)
    with contextlib.ExitStack() as occupied:
        if resume:
            _occupy(run, resume, occupied)
        sources = [] if resume else load_sources(recipe, about)
        _announce(recipe, loop, reporter)
        _compile(loop, reporter)
        processes.wait_for_all("compiled")  # all have seen the folder as it was
        if not resume:
            _occupy(run, resume, occupied)
        seconds = 0.0
        if resume:
            state = checkpoint.restore(run.checkpoints, loop.abstract)
            if processes.is_first():
                seconds = run.rewind_metrics(_environment_steps(loop, state))
        else:
            state = loop.init()
            if sources:
                state = loop.place(transferred(state, sources, recipe.transfer))
        if processes.is_first():
            # So many devices as there were need not be there to resume.
            run.begin(dataclasses.replace(recipe, num_devices=num_devices))
        stopped, state, seconds = _train(recipe, run, loop, about, state, seconds, reporter)
        done = _environment_steps(loop, state)
        if stopped:
            return Result(out, False, done, seconds, [])
        agents = [agent_of_seed(state, index) for index in range(recipe.num_seeds)]
        evaluations = _finish(recipe, run, agents) if processes.is_first() else []
        processes.wait_for_all("finished")
        return Result(out, True, done, seconds, evaluations)


def _compile(loop: Loop, reporter: Reporter) -> None:
    """Compiles the program; raises UserError where it takes more than there is."""
    seconds, memory = loop.compile(), loop.device_bytes()
    reporter.say(f"compiled in {seconds:.1f} s; takes {devices.format_bytes(memory)} of each device")
    devices.require_fits(memory, "the compiled train step", "lower num_envs, batch_size or num_seeds")


def _occupy(run: RunDirectory, resume: bool, occupied: contextlib.ExitStack) -> None:
    """Holds the run directory; raises UserError in all processes where the first cannot."""
    refusal = None
    if processes.is_first():
        try:
            occupied.enter_context(run.held())
            if not resume:
                run.require_free()  # still
        except UserError as error:
            refusal = error
    if processes.any_of(refusal is not None):
        raise refusal or UserError(f"the first process cannot train in {run.path}")


def _train(
    recipe: Recipe,
    run: RunDirectory,
    loop: Loop,
    about: dict[str, Any],
    state: TrainState,
    seconds: float,
    reporter: Reporter,
) -> tuple[bool, TrainState, float]:
    """Runs the schedule; returns whether it was stopped early, the last state, and the seconds so far."""
    seeds = range(recipe.seed, recipe.seed + recipe.num_seeds)
    done = saved = _environment_steps(loop, state)
    total, stopped = loop.schedule.environment_steps, False
    diverged: set[int] = set()
    metrics = MetricsWriter(run, seeds, done) if processes.is_first() else contextlib.nullcontext()
    with _stop_on_signal() as stop, metrics as writer, reporter.training(done, total):
        for state, rows in loop.intervals(state):  # noqa: B020 - the new state replaces the donated one
            done = int(rows[0]["environment_steps"] or 0)
            seconds += float(rows[0].pop("interval_seconds") or 0.0)
            for row in rows:
                row.pop("interval_seconds", None)
                row["seconds"] = round(seconds, 3)
            if writer:
                writer.write(rows)
            reporter.interval(rows)
            _tell_divergence(rows, diverged, reporter)
            if recipe.checkpoint_interval and done - saved >= recipe.checkpoint_interval:
                checkpoint.save(run.checkpoints, state, done, about)
                saved = done
            stopped = processes.any_of(bool(stop))
            if stopped:
                reporter.say("stopping: saving the state after this interval")
                break
        if done > saved:
            checkpoint.save(run.checkpoints, state, done, about)
        return stopped, state, seconds


def _require_same(run: RunDirectory, about: dict[str, Any]) -> None:
    """Raises UserError where the folder holds no run, or a checkpoint of another recipe or world."""
    if not run.recipe.is_file():
        raise UserError(f"{run.path} holds no run to resume")
    held = checkpoint.about(run.checkpoints)
    different = difference({name: held.get(name, {}) for name in about}, about)
    if different:
        raise UserError(f"{run.path} holds a run of another recipe: {different}")


def _tell_divergence(rows: list[Row], known: set[int], reporter: Reporter) -> None:
    """Says once of each seed that it has diverged.

    Raises:
      UserError: every seed has, before that replaces a good checkpoint.
    """
    for row in rows:
        seed = int(row["seed"] or 0)
        bad = next((name for name, x in row.items() if isinstance(x, float) and not math.isfinite(x)), None)
        if bad is None or seed in known:
            continue
        known.add(seed)
        if len(known) < len(rows):
            reporter.say(f"seed {seed} has diverged: {bad} is not finite; the others go on")
            continue
        raise UserError(
            f"learning diverged: {bad} is not finite after {row['environment_steps']:,} environment"
            " steps; the last checkpoint, if there was one, is untouched; try lower learning rates"
        )


def _finish(recipe: Recipe, run: RunDirectory, agents: list[Agent]) -> list[Evaluation]:
    """Evaluates and exports the agent of every seed."""
    environment = make_environment(recipe, recipe.evaluation_episodes)
    evaluations = []
    for index, agent in enumerate(agents):
        seed = recipe.seed + index
        result = evaluate(environment, agent, seed, deterministic=True)
        evaluations.append(result)
        folder, world = run.export(seed, recipe.num_seeds), specs(environment.env)
        save_export(folder, agent, recipe, seed, world, dataclasses.asdict(result), replace=True)
    run.write_evaluation([dataclasses.asdict(result) for result in evaluations])
    return evaluations


def agent_of_seed(state: TrainState, index: int) -> Agent:
    """One seed's agent to evaluate and export, of a state of several, on this process's first device."""

    def pick(agents: Agent) -> Agent:
        return jax.tree.map(lambda x: x[index], agents)

    agents = state.learner.averaged
    everywhere = replicated(jax.tree.leaves(agents)[0].sharding)
    picked = jax.jit(pick, out_shardings=everywhere)(agents)
    return jax.device_put(jax.device_get(picked))


def specs(world: Any) -> dict[str, Any]:
    """The world in full, with the sizes of its observation groups and action, as an export keeps them."""
    return {
        "environment": world.description,
        "observation_size": dict(world.observation_size),
        "action_size": world.action_size,
    }


def identity(recipe: Recipe, world: Any) -> dict[str, Any]:
    """What a checkpoint belongs to."""
    return {"recipe": essence(recipe), **specs(world)}


def _announce(recipe: Recipe, loop: Loop, reporter: Reporter) -> None:
    """Says what will run and refuses what cannot fit."""
    state, step = loop.abstract, loop.schedule.train_step
    replay, whole = devices.tree_bytes(state.replay), devices.tree_bytes(state)
    transitions = state.replay.reward.size // recipe.num_seeds
    num_devices = recipe.num_devices or 1
    devices.require_fits(
        whole // num_devices,
        f"replay of {transitions:,} transitions with the rest of the training state",
        "lower replay_capacity, num_envs or num_seeds",
    )
    ratio = step.learner_steps / step.environment_steps
    reporter.say(
        f"{recipe.name}: {recipe.environment}, {recipe.num_envs} environments"
        + (f" x {recipe.num_seeds} seeds" if recipe.num_seeds > 1 else f", seed {recipe.seed}")
        + f", replay ratio {ratio:g}, engine {step.environment.env.backend}"
        + f" on {devices.describe(num_devices)}"
    )
    _announce_schedule(recipe, loop, reporter)
    each = " for each seed" if recipe.num_seeds > 1 else ""
    reporter.say(
        f"replay: {transitions:,} transitions{each}, {devices.format_bytes(replay)} in all;"
        f" whole training state: {devices.format_bytes(whole)}"
    )


def _announce_schedule(recipe: Recipe, loop: Loop, reporter: Reporter) -> None:
    """Says where budget and schedule of learning do not fit each other."""
    step, total = loop.schedule.train_step, loop.schedule.environment_steps
    updates = (total // step.environment_steps - step.warmup) * recipe.algorithm.updates_per_unroll
    if updates <= 0:
        reporter.say(
            f"nothing will be learned: the first update comes after {recipe.min_replay:,} environment steps"
            f" (min_replay), and there are {total:,}"
        )
    decay = recipe.algorithm.learning_rate_decay
    if decay and not 0.8 < updates / decay < 1.25:
        reporter.say(
            f"learning rates fall to a tenth over {decay:,} updates (algorithm.learning_rate_decay); this run"
            f" makes {max(updates, 0):,}"
        )


def _environment_steps(loop: Loop, state: TrainState) -> int:
    return int(state.iteration) * loop.schedule.train_step.environment_steps


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
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
