"""`mjx-hkl bench env|train|compile NAME`."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from mjx_hkl.cli.arguments import parse
from mjx_hkl.config import Positive, to_table
from mjx_hkl.errors import UserError, unknown_name

if TYPE_CHECKING:
    from mjx_hkl.experiments.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class BenchCommand:
    """Measure throughput, warm: `bench env` against bare mjx.step, `bench train` the whole train step.

    `bench compile` compiles the train step for an accelerator that need not be there, and tells what will
    bound it.
    """

    what: Annotated[str, tyro.conf.Positional]
    """env, train or compile."""
    name: Annotated[str, tyro.conf.Positional]
    """A recipe; for env an environment's name or file, brax:NAME or playground:NAME do as well."""
    num_envs: Positive | None = None
    """Worlds; by default 1024 for env, the recipe's for train and compile."""
    num_seeds: Positive | None = None
    """For train: agents side by side in one program, timed in turn with a single one."""
    num_devices: Positive | None = None
    """For train: devices that share those agents, or the worlds of one; in turn with one agent on one. For
    compile: devices that share the program."""
    engine: tuple[str, ...] = ()
    """Physics engines, several for env, timed in turn; by default the recipe's, or what fits the device."""
    profile: str = ""
    """For train: a folder for the profiler's trace of one step; the shares of time are part of the result."""
    device: Annotated[str | None, tyro.conf.arg(name="for")] = None
    """For compile: h100 (by default), a100, l4, rtx-4090, v5e, v6e, or a device file."""
    trust_code: bool = False
    """For train and compile: run code that came with a run that is given as the recipe."""
    json: bool = False
    """Print one JSON object and nothing else."""


_WITHOUT_A_DEVICE = {
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",  # errors only
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
}
_ONLY = {
    "profile": ("train",),
    "num_seeds": ("train",),
    "num_devices": ("train", "compile"),
    "device": ("compile",),
    "trust_code": ("train", "compile"),
}


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(BenchCommand, "bench", arguments)
    benches = {"env": _environment, "train": _train, "compile": _compile}
    if command.what not in benches:
        raise unknown_name("bench", command.what, benches)
    for name, where in _ONLY.items():
        if getattr(command, name) and command.what not in where:
            option = "for" if name == "device" else name.replace("_", "-")
            raise UserError(f"--{option} is for bench {' and '.join(where)}")
    # Without the compilation cache: compile seconds are part of the result.
    result = benches[command.what](command)
    print(json.dumps(result) if command.json else "\n".join(_lines(result)))
    return 0


def _environment(command: BenchCommand) -> dict[str, Any]:
    from mjx_hkl.analysis.bench import bench_engines, bench_world
    from mjx_hkl.environments import make_world
    from mjx_hkl.experiments.build import environment_name

    name, num_envs = environment_name(command.name), command.num_envs or 1024
    if not isinstance(name, str):
        raise UserError(f"bench env takes one environment; {command.name} has {', '.join(name)}")
    worlds = [make_world(name, engine) for engine in command.engine or ("auto",)]
    if len(worlds) > 1 and worlds[0].engine is None:
        raise UserError(f"{command.name} takes one engine at a time")
    ours = [world for world in worlds if world.engine]
    names = [world.backend for world in ours]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"engine {twice} is there twice")
    result = bench_engines(ours, num_envs) if ours else bench_world(worlds[0], num_envs)
    return {"environment": command.name, **result}


def _train(command: BenchCommand) -> dict[str, Any]:
    from mjx_hkl.analysis.bench import bench_train

    recipe = _recipe(command)
    if not command.profile:
        return bench_train(recipe)
    trace = Path(command.profile)
    trace.mkdir(parents=True, exist_ok=True)  # where nothing can be written, before minutes of work
    return bench_train(recipe, trace)


def _compile(command: BenchCommand) -> dict[str, Any]:
    # Of the accelerator only the compiler is used: nothing may look for a device, or for its host.
    os.environ["JAX_PLATFORMS"] = "cpu"
    for name, value in _WITHOUT_A_DEVICE.items():
        os.environ.setdefault(name, value)
    from mjx_hkl.analysis.accelerators import load_accelerator
    from mjx_hkl.analysis.compilation import bench_compile

    return bench_compile(_recipe(command), load_accelerator(command.device or "h100"))


def _recipe(command: BenchCommand) -> "Recipe":
    """The recipe with what the command line changes."""
    from mjx_hkl.experiments.recipe import load_recipe, recipe_from_table

    recipe = load_recipe(command.name, command.trust_code)
    if len(command.engine) > 1:
        raise UserError(f"bench {command.what} takes one engine at a time")
    if command.engine:
        recipe = recipe_from_table({**to_table(recipe), "engine": command.engine[0]}, "command line")
    given = {name: getattr(command, name) for name in ("num_envs", "num_seeds", "num_devices")}
    return dataclasses.replace(recipe, **{k: v for k, v in given.items() if v})


def _lines(result: dict[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in result.items():
        if name == "parts":
            yield from _table(value)
        elif isinstance(value, dict):
            yield f"{indent}{name}:{'' if value else ' none'}"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_show(value)}"


def _table(rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Rows of numbers under the names of their columns."""
    columns = list(next(iter(rows.values()), {}))
    yield f"{'part':<20}" + "".join(f"{column:>16}" for column in columns)
    for name, row in rows.items():
        yield f"{name:<20}" + "".join(f"{_show(row[column]):>16}" for column in columns)


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
