"""`mjx-hkl inspect AGENT_OR_RUN`."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Annotated, Any

import tyro

from mjx_hkl.cli.arguments import parse


@dataclasses.dataclass(frozen=True)
class InspectCommand:
    """Say what an exported agent or a run holds, without loading its parameters."""

    agent: Annotated[str, tyro.conf.Positional]
    """An exported agent, a run directory, or a name from `mjx-hkl list agents`."""
    json: bool = False
    """Print one JSON object and nothing else."""
    trust_code: bool = False
    """Run code that came with the agent, where it has modules of its own kind."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(InspectCommand, "inspect", arguments)
    about_it = _run if (Path(command.agent) / "recipe.toml").is_file() else _agent
    about = about_it(command.agent, command.trust_code)
    print(json.dumps(about) if command.json else "\n".join(_lines(about)))
    return 0


def _run(given: str, trust_code: bool) -> dict[str, Any]:
    from mjx_hkl.config import to_table
    from mjx_hkl.experiments.recipe import load_recipe
    from mjx_hkl.experiments.run_directory import RunDirectory
    from mjx_hkl.training import checkpoint

    run = RunDirectory(Path(given))
    recipe = load_recipe(given, trust_code)
    rows, there = run.read_metrics(), run.has_checkpoint
    shapes = checkpoint.about(run.checkpoints)["shapes"] if there else {}
    return {
        "kind": "run",
        "name": recipe.name,
        "checkpoint_environment_steps": checkpoint.newest(run.checkpoints) if there else None,
        "total_env_steps": recipe.total_env_steps,
        "checkpoint_arrays": len(shapes) if there else None,
        "modules": _modules(shapes, recipe.num_seeds),
        "finished": run.evaluation.is_file(),
        "last_metrics": rows[-1] if rows else None,
        "recipe": to_table(recipe),
    }


def _modules(shapes: dict[str, str], num_seeds: int) -> dict[str, dict[str, int]]:
    """The modules of each seed's agent that have parameters, from the shapes of a checkpoint's arrays."""
    counts: dict[str, int] = {}
    for name, shape in shapes.items():
        if name.startswith("learner.agent."):
            part, inner, *_ = name.removeprefix("learner.agent.").split(".")
            module = part if part == "critic" else f"{part}.{inner}"
            numbers = math.prod(int(size) for size in re.findall(r"\d+", shape.partition("[")[2]))
            counts[module] = counts.get(module, 0) + numbers // num_seeds
    return {module: {"parameters": count} for module, count in counts.items()}


def _agent(given: str, trust_code: bool) -> dict[str, Any]:
    from mjx_hkl.config import to_table
    from mjx_hkl.experiments.agent_format import read_card
    from mjx_hkl.experiments.agents import agent_folder
    from mjx_hkl.user_code import trust

    folder = agent_folder(given)
    if trust_code:
        trust(folder)
    return {"kind": "agent", **to_table(read_card(folder))}


def _lines(about: Any, indent: str = "") -> list[str]:
    """Nested tables as indented lines."""
    lines = []
    for name, value in about.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"{indent}{name}: {'none' if shown is None else shown}")
    return lines
