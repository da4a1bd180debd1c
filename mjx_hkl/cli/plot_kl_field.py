"""`mjx-hkl plot-kl-field AGENT --out FILE`."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import tyro

from mjx_hkl.cli.arguments import parse
from mjx_hkl.cli.plot import require_picture
from mjx_hkl.config import NonNegative
from mjx_hkl.errors import UserError


@dataclasses.dataclass(frozen=True)
class PlotKLFieldCommand:
    """Draw what each move in the grid world costs in KL of the high level (figure 12, right)."""

    agent: Annotated[str, tyro.conf.Positional]
    """An exported agent or a run of a grid world, or a name from `mjx-hkl list agents`."""
    out: str = "kl_field.png"
    """Picture to write: .png, .svg or .pdf."""
    goal: tuple[NonNegative, NonNegative] = (4, 4)
    """Column and row of the goal."""
    seed_index: NonNegative = 0
    """Which agent of a run of several seeds."""
    json: bool = False
    """Print one JSON object and nothing else."""
    trust_code: bool = False
    """Run code that came with the agent; without it only code that you have trained with runs."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(PlotKLFieldCommand, "plot-kl-field", arguments)
    out = Path(command.out)
    require_picture(out)

    from mjx_hkl.analysis.kl_field import draw, kl_field
    from mjx_hkl.environments.grid import CellWorld
    from mjx_hkl.experiments.agents import load_agent
    from mjx_hkl.experiments.players import evaluation_environment

    known = load_agent(command.agent, command.seed_index, command.trust_code)
    if len(known.recipe.environments) > 1:
        raise UserError(
            f"{command.agent} is an agent of several environments; a field is of an agent of one grid world"
        )
    world = evaluation_environment(known, 1).env
    if not isinstance(world, CellWorld):
        raise UserError(
            f"{command.agent} is an agent of {known.recipe.environment_name}, not of a grid world"
        )
    if known.recipe.policy.is_flat:
        raise UserError(f"{command.agent} has a flat policy: there is no high level, and no KL of it")
    if max(command.goal) >= world.cells:
        raise UserError(f"goal {command.goal} lies outside a grid of {world.cells} cells a side")
    field = kl_field(known.agent, world, command.goal)
    draw(field, out)
    shares = {"towards_goal": field.share_towards_goal, "by_chance": field.share_by_chance}
    if command.json:
        print(json.dumps({"agent": command.agent, "goal": command.goal, **shares}))
    else:
        print(
            f"{out}: in {shares['towards_goal']:.0%} of the cells the move of least KL nears the goal;"
            f" a random move does in {shares['by_chance']:.0%}"
        )
    return 0
