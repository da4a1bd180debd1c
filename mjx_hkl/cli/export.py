"""`mjx-hkl export RUN [OUT]`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mjx_hkl.cli.arguments import parse, tell_edited
from mjx_hkl.config import NonNegative, Positive, to_table
from mjx_hkl.errors import UserError, unknown_name

FORMATS = ("agent", "onnx")


@dataclasses.dataclass(frozen=True)
class ExportCommand:
    """Write the agent of a run's newest checkpoint as a folder that other runs can take parts of, or a policy
    as a folder that plays without this package."""  # noqa: D205, D209 - a help text

    run: Annotated[str, tyro.conf.Positional]
    """Run directory; with --format onnx also an exported agent, or a name from `mjx-hkl list agents`."""
    out: Annotated[str | None, tyro.conf.Positional] = None
    """Folder to write; by default checkpoints/RUN, by the run's own name; with --format onnx policies/RUN."""
    format: str = "agent"
    """agent: for other runs to take parts of; onnx: the policy as an ONNX graph, and its world."""
    stochastic: bool = False
    """With --format onnx: inputs for the noise of latents and actions; without it, the mean policy."""
    seed_index: NonNegative = 0
    """Which agent of a run of several seeds."""
    episodes: Positive = 256
    """Episodes of the evaluation written with an agent."""
    trust_code: bool = False
    """Run code that came with the run; without it only code that you have trained with runs."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(ExportCommand, "export", arguments)
    if command.format not in FORMATS:
        raise unknown_name("format", command.format, FORMATS)
    if command.format == "onnx":
        if command.episodes != ExportCommand.episodes:
            raise UserError("--episodes is of --format agent: a policy is written without an evaluation")
        return _export_policy(command)
    if command.stochastic:
        raise UserError("--stochastic is of --format onnx: an agent always holds its noise")
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


def _export_policy(command: ExportCommand) -> int:
    from mjx_hkl.experiments.agent_format import require_free
    from mjx_hkl.experiments.agents import load_agent
    from mjx_hkl.experiments.onnx.export import write_policy
    from mjx_hkl.experiments.players import evaluation_environment
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    out = Path(command.out or Path("policies", Path(command.run).resolve().name))
    require_free(out)
    known = load_agent(command.run, command.seed_index, command.trust_code)
    world = evaluation_environment(known, 1).env
    tell_edited(command.run)
    card = write_policy(out, known, world, command.stochastic)
    print(f"{out}: policy.onnx, from {', '.join(card.inputs())} to {', '.join(card.outputs())}")
    return 0
