"""Throughput, measured warm and as ratios within one run: absolute times of a shared machine mean little."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp

from mjx_hkl.algorithms import replay
from mjx_hkl.analysis.profile import profile
from mjx_hkl.environments import VectorEnvironment, World
from mjx_hkl.environments.engines.mjx import mjx  # imported there without its messages
from mjx_hkl.environments.physics import full_precision
from mjx_hkl.experiments.build import make_loop, resolve
from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.training import devices
from mjx_hkl.training.loop import Loop
from mjx_hkl.training.step import SEED_AXES, TrainState, TrainStep

_ROUNDS = 5
_CONTROL_STEPS = 20  # per timed call of an environment
_LARGER = 10  # times the capacity, to show that an insert does not cost more


def bench_world(world: World, num_envs: int) -> dict[str, Any]:
    """Many of a world under random actions, resets included."""
    environment = VectorEnvironment(world, num_envs, world.episode_length)
    if world.action_kind == "categorical":
        actions = jax.random.randint(jax.random.key(0), (_CONTROL_STEPS, num_envs), 0, world.action_size)
    else:
        actions = _uniform_actions(num_envs, world.action_size)
    carry = (jax.jit(environment.reset)(jax.random.key(1)), jax.random.key(2))
    run, compile_seconds = _compile(_steps_of(environment, actions), carry)
    (seconds,) = _in_turn(_continued(run, carry))
    return {
        "device": devices.describe(),
        "num_envs": num_envs,
        "environment_steps_per_second": num_envs * _CONTROL_STEPS / seconds,
        "compile_seconds": compile_seconds,
    }


def bench_engines(worlds: Sequence[World], num_envs: int) -> dict[str, Any]:
    """Our vectorized world on each engine, resets included, against bare `mjx.step` on the same model.

    The worlds have an engine, and differ in it alone. All take the same random actions in one scan; all are
    timed in turn, medians are reported.
    `contacts` and `constraint_rows` are those MJX computes in every step, touching or not.
    """
    engines = [world.engine for world in worlds if world.engine]
    model, substeps = engines[0].model, engines[0].substeps
    actions = _uniform_actions(num_envs, model.nu)
    mjx_model, template = mjx.put_model(model, impl="jax"), mjx.make_data(model, impl="jax")
    environments = [VectorEnvironment(world, num_envs, world.episode_length) for world in worlds]
    start = jax.jit(environments[0].reset)(jax.random.key(1))
    programs, compile_seconds = [], []
    for ours in environments:
        carry = (start, jax.random.key(2))
        run, seconds = _compile(_steps_of(ours, actions), carry)
        programs.append(_continued(run, carry))
        compile_seconds.append(seconds)

    def raw_step(data, action):
        def substep(data, _):
            return jax.vmap(mjx.step, in_axes=(None, 0))(mjx_model, data), None

        with full_precision():
            return jax.lax.scan(substep, data.replace(ctrl=action), None, length=substeps)

    physics: Any = start.env.pipeline_state.physics
    raw_start = jax.vmap(lambda qpos, mocap_pos: template.replace(qpos=qpos, mocap_pos=mocap_pos))(
        physics.qpos, physics.mocap_pos
    )
    run_raw, raw_compile = _compile(lambda data: jax.lax.scan(raw_step, data, actions), raw_start)
    raw_seconds, *seconds = _in_turn(_continued(run_raw, raw_start), *programs)
    steps = num_envs * _CONTROL_STEPS
    return {
        "device": devices.describe(),
        "num_envs": num_envs,
        "contacts": template._impl.contact.dist.shape[0],
        "constraint_rows": template._impl.efc_J.shape[0],
        "raw_environment_steps_per_second": steps / raw_seconds,
        "raw_compile_seconds": raw_compile,
        "engines": {
            engine.name: {
                "environment_steps_per_second": steps / took,
                "physics_steps_per_second": steps * substeps / took,
                "ratio_to_raw": raw_seconds / took,
                "compile_seconds": compiled,
            }
            for engine, took, compiled in zip(engines, seconds, compile_seconds, strict=True)
        },
    }


def _uniform_actions(num_envs: int, action_size: int) -> jax.Array:
    shape = (_CONTROL_STEPS, num_envs, action_size)
    return jax.random.uniform(jax.random.key(0), shape, minval=-1.0, maxval=1.0)


def _steps_of(environment: VectorEnvironment, actions: jax.Array) -> Callable:
    def step(carry, action):
        state, key = carry
        key, step_key = jax.random.split(key)
        state, timestep = environment.step(state, action, step_key)
        # Everything a learner would read must be computed.
        used = jax.tree.map(jnp.sum, timestep)
        return (state, key), used

    return lambda carry: jax.lax.scan(step, carry, actions)


def bench_train(recipe: Recipe, trace: Path | None = None) -> dict[str, Any]:
    """The train step as a whole, its two halves alone, and replay inserts at two capacities.

    Where the recipe has several seeds or devices, also the train step of all seeds side by side on all
    devices, in turn with that of one seed on one. Where it sees a camera's images, also the train step of one
    seed that keeps them in replay the other way. With a folder for the `trace`, also a profile of the train
    step.
    """
    many = dataclasses.replace(resolve(recipe), log_interval=1)  # one train step
    one = dataclasses.replace(many, num_seeds=1, num_devices=1)
    # Made first: what cannot be is told at once.
    loops = [make_loop(one)] if one == many else [make_loop(one), make_loop(many)]
    loop = loops[0]
    step, state_bytes = loop.schedule.train_step, devices.tree_bytes(loop.abstract)
    kept = ("stored", "drawn") if one.images == "stored" else ("drawn", "stored")
    if step.images_bytes:
        loops.append(make_loop(dataclasses.replace(one, images=kept[1])))
    devices.require_fits(state_bytes, "the training state", "lower replay_capacity or num_envs")
    begin = time.perf_counter()
    compile_seconds = loop.compile()
    alone = _Training(loop)
    startup = time.perf_counter() - begin
    act = alone.part(lambda s: step.act(s.learner.agent, s.actor, s.key, s.iteration))
    learn = alone.part(lambda s: step.learn(s.learner, s.replay, s.key, s.iteration))
    together = [_Training(several) for several in loops[1:]]
    whole_seconds, act_seconds, learn_seconds, *many_seconds = _in_turn(alone, act, learn, *together)
    result = {
        "device": devices.describe(),
        "recipe": one.name,
        "num_envs": one.num_envs,
        "environment_steps_per_second": step.environment_steps / whole_seconds,
        "learner_steps_per_second": step.learner_steps / whole_seconds,
        "replay_ratio": step.replay_ratio,
        "train_step_seconds": whole_seconds,
        "simulation_seconds": act_seconds,
        "learning_seconds": learn_seconds,
        "simulation_share": act_seconds / (act_seconds + learn_seconds),
        "compile_seconds": compile_seconds,
        "startup_seconds": startup,
        "device_bytes": loop.device_bytes(),
        "state_bytes": state_bytes,
        "replay_bytes": devices.tree_bytes(loop.abstract.replay),
        **_insert_seconds(step, one.replay_capacity),
    }
    if trace:
        result["profile"] = profile(loop.program, alone, trace)
    if step.images_bytes:
        result["images"] = {
            images: {"replay_bytes": step.images_bytes[images], "train_step_seconds": seconds}
            for images, seconds in zip(kept, (whole_seconds, many_seconds.pop()), strict=True)
        }
    for seconds in many_seconds:
        on = f"_{many.num_devices}_devices" if one.num_devices != many.num_devices else ""
        result[f"{many.num_seeds}_seeds{on}"] = {
            "environment_steps_per_second": many.num_seeds * step.environment_steps / seconds,
            "ratio_to_one_seed": many.num_seeds * whole_seconds / seconds,
        }
    return result


class _Training:
    """A loop's interval, each call from where the last one ended, beginning with one that learns."""

    def __init__(self, loop: Loop):
        self._loop, self._state = loop, loop.init()
        for _ in range(loop.schedule.train_step.warmup + 1):
            jax.block_until_ready(self())

    def __call__(self) -> Any:
        self._state, metrics = self._loop.program(self._state)
        return self._state, metrics

    def part(self, function: Callable[[TrainState], Any]) -> Callable[[], Any]:
        """A function of one seed's state; each call is on the newest."""
        run, _ = _compile(jax.vmap(function, in_axes=(SEED_AXES,)), self._state)
        return lambda: run(self._state)


def _insert_seconds(step: TrainStep, capacity: int) -> dict[str, Any]:
    """Seconds of one replay insert at the recipe's capacity and at ten times it, where that fits."""
    abstract = jax.eval_shape(step.init, jax.random.key(0))
    of_all_slots = jax.eval_shape(lambda ring: ring.windows, abstract.replay)
    windows = jax.tree.map(lambda x: jnp.ones((x.shape[0], *x.shape[2:]), x.dtype), of_all_slots)
    insert = jax.jit(replay.insert, donate_argnums=0)
    seconds: dict[str, Any] = {"insert_seconds": None, "insert_seconds_at_10x_capacity": None}
    for name, times in zip(seconds, (1, _LARGER), strict=True):
        slots = replay.num_slots(times * capacity, step.environment.num_envs, step.algorithm.unroll_length)
        if slots * devices.tree_bytes(windows) > 0.5 * devices.available_bytes():
            continue
        ring, count = replay.empty(windows, slots), jnp.zeros((), jnp.int32)
        samples = []
        for _ in range(4 * _ROUNDS):
            begin = time.perf_counter()
            ring = jax.block_until_ready(insert(ring, windows, count))
            samples.append(time.perf_counter() - begin)
            count = count + 1
        seconds[name] = median(samples[_ROUNDS:])
        del ring
    return seconds


def _compile(function: Callable, argument: Any) -> tuple[jax.stages.Compiled, float]:
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(argument).compile()
    return compiled, time.perf_counter() - begin


def _continued(compiled: Callable, carry: Any) -> Callable[[], Any]:
    """Each call goes on from where the last one ended."""
    box = [carry]

    def call() -> Any:
        box[0], used = compiled(box[0])
        return box[0], used

    return call


def _in_turn(*calls: Callable[[], Any]) -> tuple[float, ...]:
    """Median seconds of each call, made in turn after two warm ones."""
    samples: list[list[float]] = [[] for _ in calls]
    for _ in range(_ROUNDS + 2):
        for call, seconds in zip(calls, samples, strict=True):
            begin = time.perf_counter()
            jax.block_until_ready(call())
            seconds.append(time.perf_counter() - begin)
    return tuple(median(seconds[2:]) for seconds in samples)
