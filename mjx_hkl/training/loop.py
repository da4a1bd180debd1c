"""The loop around the train step: one compiled program per log interval, scalars once per interval."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from mjx_hkl.errors import UserError
from mjx_hkl.training.metrics import Row, means
from mjx_hkl.training.sharding import make_layout, replicated
from mjx_hkl.training.step import TrainState, TrainStep, init_seeds, run_seeds


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How many train steps make a log interval and how many intervals make the run."""

    train_step: TrainStep
    total_env_steps: int
    log_interval: int  # environment steps

    @property
    def interval(self) -> int:
        """Train steps per log interval."""
        return -(-min(self.log_interval, self.total_env_steps) // self.train_step.environment_steps)

    @property
    def environment_steps(self) -> int:
        """Environment steps of the whole run, rounded up to whole intervals."""
        per_interval = self.interval * self.train_step.environment_steps
        return -(-self.total_env_steps // per_interval) * per_interval


class Loop:
    """Trains several seeds; holds the two compiled programs, `init` and the interval.

    With other `devices` than this machine's it can be compiled, not run.

    Raises:
      UserError: there are not so many devices, or nothing divides evenly among them.
    """

    def __init__(self, schedule: Schedule, seeds: range, num_devices: int = 1, devices: Sequence[Any] = ()):
        self.schedule = schedule
        self._train_step = schedule.train_step
        self._seeds = seeds
        worlds = schedule.train_step.environment
        self._layout = make_layout(num_devices, len(seeds), worlds.num_envs, len(worlds.tasks), devices)

    def init(self) -> TrainState:
        """A fresh state; seed i is the same whether it is trained alone or beside others."""
        return jax.jit(self._init, out_shardings=self._layout)()

    def place(self, state: TrainState) -> TrainState:
        """Moves the learner, parts of which are on the host, to its devices; replay stays where it is."""
        move = jax.jit(lambda learner: learner, out_shardings=self._layout.learner)
        return state.replace(learner=move(state.learner))

    @functools.cached_property
    def abstract(self) -> TrainState:
        """Shapes, types and places of the state, without computing it."""

        def place(sharding: NamedSharding, part: Any) -> Any:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), part)

        return jax.tree.map(place, self._layout, jax.eval_shape(self._init))

    def compile(self) -> float:
        """Compiles the interval and returns the seconds it took; later calls do not compile again.

        Raises:
          UserError: the compiler finds too little memory on the device.
        """
        start = time.perf_counter()
        with _told():  # a TPU's compiler is who finds that memory is too small
            self.program  # noqa: B018 - compiled when first asked for
        return time.perf_counter() - start

    def device_bytes(self) -> int:
        """Bytes the compiled interval holds at once: the state and its temporaries."""
        memory = self.program.memory_analysis()
        return memory.argument_size_in_bytes + memory.temp_size_in_bytes if memory else 0

    def intervals(self, state: TrainState) -> Iterator[tuple[TrainState, list[Row]]]:
        """Runs what is left of the schedule, yielding after each interval.

        The state is donated: what is yielded is valid until the next interval begins. There is one row
        of metrics for each seed.

        Raises:
          UserError: the device has no memory left, or the physics engine on the host fails.
        """
        done = int(jax.device_get(state.iteration)) * self._train_step.environment_steps
        while done < self.schedule.environment_steps:
            start = time.perf_counter()
            with _told():
                state, sums = self.program(state)
                sums = jax.device_get(sums)
            seconds = time.perf_counter() - start
            done += self.schedule.interval * self._train_step.environment_steps
            yield state, self._rows(sums, done, seconds)

    @functools.cached_property
    def program(self) -> jax.stages.Compiled:
        """The interval, from a state, which is donated, to the next and its sums of metrics.

        A compiled program refuses what would make it recompile.
        """

        def interval(state: TrainState) -> tuple[TrainState, dict]:
            return run_seeds(self._train_step, state, self.schedule.interval)

        shardings = (self._layout, replicated(self._layout.iteration))
        program = jax.jit(interval, donate_argnums=0, out_shardings=shardings)
        return program.lower(self.abstract).compile()

    @functools.cached_property
    def metrics(self) -> list[str]:
        """The numbers of a row of metrics that are measured, by name, without running anything."""

        def sums(state: TrainState) -> dict:
            return run_seeds(self._train_step, state, 1)[1]

        measured = jax.eval_shape(sums, self.abstract)
        row = self._rows({name: np.ones(x.shape) for name, x in measured.items()}, 1, 1.0)[0]
        return [name for name in row if name not in ("seed", "interval_seconds", "environment_steps")]

    def _init(self) -> TrainState:
        keys = jax.vmap(jax.random.key)(np.asarray(self._seeds, np.uint32))
        return init_seeds(self._train_step, keys)

    def _rows(self, sums: dict[str, np.ndarray], environment_steps: int, seconds: float) -> list[Row]:
        step = self._train_step
        train_steps = environment_steps // step.environment_steps
        common: Row = {
            "environment_steps": environment_steps,
            "learner_steps": max(0, train_steps - step.warmup) * step.learner_steps,
            "interval_seconds": seconds,
            "environment_steps_per_second": self.schedule.interval * step.environment_steps / seconds,
        }
        return [
            {"seed": seed, **common, **means({name: float(x[i]) for name, x in sums.items()})}
            for i, seed in enumerate(self._seeds)
        ]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What a program fails of, in one line."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        hint = "; lower num_envs, num_seeds or replay_capacity" if "RESOURCE_EXHAUSTED" in reason else ""
        raise UserError(
            f"training failed on the device or its host: {reason[:300]}{hint}; checkpoints stay: where there"
            " is one, --resume goes on from it"
        ) from error
