"""`mjx-hkl render AGENT_OR_RUN OUT.mp4`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mjx_hkl.analysis.opengl import choose_opengl
from mjx_hkl.cli.arguments import PlayOptions, parse, tell_edited
from mjx_hkl.config import Positive
from mjx_hkl.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderCommand(PlayOptions):
    """Write a video of an agent's episodes (.mp4), or a picture of a start (.png)."""

    out: Annotated[str, tyro.conf.Positional]
    """File to write: .mp4 or .png."""
    episodes: Positive = 4
    """Episodes, one after the other."""
    width: Positive = 640
    """Pixels; even."""
    height: Positive = 480
    """Pixels; even."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(RenderCommand, "render", arguments)
    out = Path(command.out)
    if out.suffix not in (".mp4", ".png"):
        raise UserError(f"{out} must end in .mp4 or .png")
    if not out.absolute().parent.is_dir():
        raise UserError(f"the folder {out.parent} does not exist")
    if command.width % 2 or command.height % 2:
        raise UserError("width and height must be even, as videos need")
    is_picture = out.suffix == ".png"
    if is_picture and (command.stochastic or command.episodes != RenderCommand.episodes):
        raise UserError(
            "--episodes and --stochastic are for a video: a picture shows the start of one episode"
        )
    choose_opengl()

    from mjx_hkl.analysis.rendering import render_picture, render_video
    from mjx_hkl.experiments.players import find_player
    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    size = (command.width, command.height)
    episodes = 1 if is_picture else command.episodes
    player = find_player(
        command.agent,
        episodes,
        command.seed_index,
        command.engine,
        command.trust_code,
        command.environment,
    )
    player = player.in_one(command.environment, episodes)
    tell_edited(command.agent)
    if is_picture:
        render_picture(player, out, command.seed, size)
        print(out)
        return 0
    deterministic = player.has_mean and not command.stochastic
    count = render_video(player, out, command.seed, deterministic, size)
    print(f"{out}: {command.episodes} episodes, {count} frames")
    return 0
