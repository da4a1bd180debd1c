"""A recipe's train step compiled for an accelerator that need not be there, and read.

What comes out is counted and bounded, never measured.
"""

import dataclasses
from typing import Any

from mjx_hkl.analysis.accelerators import Accelerator
from mjx_hkl.analysis.counts import Counts, by_kind, count, float64, host_callbacks, total
from mjx_hkl.analysis.hlo import parse
from mjx_hkl.environments import AnyWorld, make_world
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_loop, resolve, shared_evenly, world_on_mjx
from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.training import devices
from mjx_hkl.training.loop import Loop


def bench_compile(recipe: Recipe, accelerator: Accelerator) -> dict[str, Any]:
    """Compiles one train step, with learning, as a run on the accelerator would, and says what it takes.

    All numbers are of one device, where there are several. Launches are None on a TPU, which runs a program
    as a whole; it has XLA's estimate of cycles instead.

    Raises:
      UserError: it cannot be compiled for the accelerator, or this machine lacks the compiler.
    """
    world = _world(recipe)
    on = accelerator.devices(recipe.num_devices or 1)
    recipe = dataclasses.replace(
        recipe,
        num_envs=recipe.num_envs or shared_evenly(devices.ENVS_OF_ACCELERATOR, recipe),
        num_devices=len(on),
        log_interval=1,  # one train step
    )
    recipe = resolve(recipe, world)
    loop = make_loop(recipe, world, on)
    compile_seconds = _compile(loop, accelerator)
    memory, text = loop.program.memory_analysis(), loop.program.as_text() or ""
    assert memory
    counts = count(parse(text))
    work = "launches" if accelerator.launch_seconds else "cycles"
    return {
        "recipe": recipe.name,
        "device": accelerator.title,
        "num_envs": recipe.num_envs,
        "num_devices": recipe.num_devices,
        "engine": world.backend,
        "compile_seconds": compile_seconds,
        "argument_bytes": memory.argument_size_in_bytes,
        "donated_bytes": memory.alias_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "usable_bytes": accelerator.usable_memory,
        "fits": loop.device_bytes() < (1 - devices.KEEP_FREE) * accelerator.usable_memory,
        "launches": total(counts, "launches") if work == "launches" else None,
        "estimated_cycles": total(counts, "cycles") if work == "cycles" else None,
        "moved_bytes": total(counts, "bytes"),
        "products": by_kind(counts, "products"),
        "parts": _parts(counts, work),
        "loops_of_unknown_length": total(counts, "loops"),
        "host_callbacks": host_callbacks(text),
        "float64": float64(text),
        "collectives": {
            kind: {"launches": number, "bytes": counts["collective bytes", kind]}
            for kind, number in by_kind(counts, "collectives").items()
        },
        "bound": bound(counts, accelerator, loop.schedule.train_step.environment_steps * recipe.num_seeds),
    }


def bound(counts: Counts, accelerator: Accelerator, environment_steps: int) -> dict[str, Any]:
    """The least seconds of a train step by each of its costs alone, and the steps per second that allows.

    It assumes that each launch costs the stated time, that nothing stays in a cache between launches, and
    that loops of unknown length run once.
    """
    rates = dataclasses.asdict(accelerator.peak)
    seconds = {
        "launches": total(counts, "launches") * (accelerator.launch_seconds or 0.0),
        "bandwidth": total(counts, "bytes") / accelerator.bandwidth,
        "products": sum(number / rates[kind] for kind, number in by_kind(counts, "products").items()),
    }
    binds = max(seconds, key=lambda cost: seconds[cost])
    return {
        "seconds": seconds,
        "binds": binds,
        "environment_steps_per_second": environment_steps / seconds[binds],
    }


def _world(recipe: Recipe) -> AnyWorld:
    """The recipe's world, its physics on the accelerator."""
    if recipe.engine == "mujoco":
        raise UserError("engine mujoco runs on the host's CPU, not on an accelerator: use --engine mjx")
    world = make_world(recipe.environment, recipe.engine, recipe.renderer)
    if "mujoco" in world.backend.split(", "):  # what `auto` takes on the CPU that compiles
        return world_on_mjx(recipe)
    return world


def _compile(loop: Loop, accelerator: Accelerator) -> float:
    try:
        return loop.compile()
    except RuntimeError as error:  # of XLA, and of JAX where it looks for a backend to call the host from
        said = " ".join(str(error).split())[:300]
        if "Unknown backend" in said:
            said = "it calls Python on the host"
        raise UserError(f"XLA cannot compile the train step for {accelerator.title}: {said}") from error


def _parts(counts: Counts, work: str) -> dict[str, dict[str, int]]:
    """Of each part of the train step its launches or cycles, most first, and the bytes it moves."""
    found = by_kind(counts, work)
    return {part: {work: number, "moved_bytes": counts["bytes", part]} for part, number in found.items()}
