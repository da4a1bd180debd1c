"""`mjx-hkl watch AGENT_OR_RUN`."""

import contextlib
import dataclasses
import importlib.util
import os
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le

from mjx_hkl.cli.arguments import PlayOptions, parse, tell_edited
from mjx_hkl.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class WatchCommand(PlayOptions):
    """Watch an agent in its world in a browser; of a run always the newest checkpoint, while it trains."""

    port: Annotated[int, Ge(1), Le(65535)] = 8080
    """Of the page."""
    host: str = "localhost"
    """Who may see the page: this machine alone, or with 0.0.0.0 whoever reaches it."""


def main(arguments: list[str]) -> int:
    """Runs the command until it is interrupted; returns its exit code."""
    command = parse(WatchCommand, "watch", arguments)
    if importlib.util.find_spec("viser") is None:
        raise UserError("watch needs viser: pip install 'mjx-hkl[watch]'")
    import jax

    if "JAX_PLATFORMS" not in os.environ and command.engine != "warp":
        jax.config.update("jax_platforms", "cpu")  # enough for one world, and a training keeps its GPU

    from mjx_hkl.analysis.viewer import Viewer, serving
    from mjx_hkl.analysis.watching import Follower, Session
    from mjx_hkl.experiments.players import find_player
    from mjx_hkl.experiments.run_directory import RunDirectory
    from mjx_hkl.training import devices

    run = RunDirectory(Path(command.agent))
    is_run = run.recipe.is_file()
    if is_run and not run.has_checkpoint:
        raise UserError(f"{run.path} has no checkpoint yet: wait until it has trained for a log interval")
    devices.use_compilation_cache()
    player = find_player(
        command.agent, 1, command.seed_index, command.engine, command.trust_code, command.environment
    )
    player = player.in_one(command.environment, 1)
    tell_edited(command.agent)
    follower = None
    if is_run and player.known is not None:
        follower = Follower(run, command.seed_index, player.known.environment_steps or 0)
    name, world = Path(command.agent).name, player.environment_name
    name += f" in {world}" if world not in name else ""
    with contextlib.suppress(KeyboardInterrupt), serving(command.host, command.port) as server:
        session = Session(player, command.seed, not command.stochastic)
        viewer = Viewer(server, session, name, follower)
        print(f"watch {name} at http://{command.host}:{command.port} (Ctrl-C ends)", flush=True)
        viewer.run()
    return 0
