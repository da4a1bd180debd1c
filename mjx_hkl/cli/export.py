"""`mjx-hkl export RUN [OUT]`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mjx_hkl.cli.arguments import parse, tell_edited
from mjx_hkl.config import NonNegative, Positive, to_table
from mjx_hkl.errors import UserError


@dataclasses.dataclass(frozen=True)
class ExportCommand:
    """Write the agent of a run's newest checkpoint as a folder that other runs can take parts of."""

    run: Annotated[str, tyro.conf.Positional]
    """Run directory."""
    out: Annotated[str | None, tyro.conf.Positional] = None
    """Folder to write; by default checkpoints/RUN, by the run's own name."""
    seed_index: NonNegative = 0
    """Which agent of a run of several seeds."""
    episodes: Positive = 256
    """Episodes of the evaluation written with it."""
    trust_code: bool = False
    """Run code that came with the run; without it only code that you have trained with runs."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(ExportCommand, "export", arguments)
    run = Path(command.run)
    if not (run / "recipe.toml").is_file():
        raise UserError(f"{run} is not a run directory: it has no recipe.toml")

    from mjx_hkl.experiments.agent_format import require_free, write_agent
    from mjx_hkl.experiments.agents import load_agent
    from mjx_hkl.experiments.copies import user_files
    from mjx_hkl.experiments.evaluation import evaluate
    from mjx_hkl.experiments.players import evaluation_environment
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    out = Path(command.out or Path("checkpoints", run.resolve().name))
    require_free(out)
    known = load_agent(command.run, command.seed_index, command.trust_code)
    environment = evaluation_environment(known, command.episodes)
    tell_edited(command.run)
    result = evaluate(environment, known.agent, seed=0, deterministic=True)
    files = user_files(to_table(known.recipe))
    write_agent(out, known, known.recipe.seed + command.seed_index, result, files)
    print(f"{out}: {result.summary()} over {result.episodes} episodes")
    return 0
