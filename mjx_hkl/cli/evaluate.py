"""`mjx-hkl evaluate AGENT_OR_RUN`."""

import dataclasses
import json

from mjx_hkl.cli.arguments import PlayOptions, parse, tell_edited
from mjx_hkl.config import Positive


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateCommand(PlayOptions):
    """Measure success and return of an agent, each episode from a fresh random start."""

    episodes: Positive = 256
    """Episodes, all at once."""
    json: bool = False
    """Print one JSON object and nothing else."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(EvaluateCommand, "evaluate", arguments)

    from mjx_hkl.experiments.evaluation import evaluate
    from mjx_hkl.experiments.players import find_player
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    player = find_player(
        command.agent,
        command.episodes,
        command.seed_index,
        command.engine,
        command.trust_code,
        command.environment,
    )
    if command.environment:
        player = player.in_one(command.environment, command.episodes)
    tell_edited(command.agent)
    deterministic = player.has_mean and not command.stochastic
    result = evaluate(player.environment, player.agent, command.seed, deterministic)
    if command.json:
        print(json.dumps({"agent": command.agent, **dataclasses.asdict(result)}))
    else:
        actions = "mean actions" if result.deterministic else "sampled actions"
        print(
            f"{command.agent} on {player.environment_name}, {result.episodes} episodes, {actions}:"
            f" {result.summary(digits=2)} ± {result.episode_return_std:.2f},"
            f" length {result.episode_length:.1f}"
            + (f", {result.faults} simulator faults" if result.faults else "")
        )
        for name, of_task in result.tasks.items():
            print(f"  {name}: {of_task.summary(digits=2)}")
        for name, total in result.return_terms.items():
            print(f"  {name}: {total:.2f}")
    return 0
