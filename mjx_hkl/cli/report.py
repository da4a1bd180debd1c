"""`mjx-hkl report RUN... --out FILE.html`."""

import contextlib
import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from mjx_hkl.cli.arguments import parse
from mjx_hkl.errors import UserError


@dataclasses.dataclass(frozen=True)
class ReportCommand:
    """Write one page about runs that opens without a network: curves, tables, videos, recipes, versions."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run directories, or folders of them; runs of one recipe are seeds of one agent."""
    out: str = "report.html"
    """Page to write."""
    video: bool = True
    """Play each agent and show it; most of the time that a report takes."""
    trust_code: bool = False
    """Run code that came with the runs; without it only code that you have trained with runs."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(ReportCommand, "report", arguments)
    if not command.runs:
        raise UserError("report needs runs: mjx-hkl report RUN... --out FILE.html")
    out = Path(command.out)
    if out.suffix != ".html":
        raise UserError(f"{out} must end in .html")
    if not out.parent.is_dir():
        raise UserError(f"the folder {out.parent} does not exist")
    if command.video:
        from mjx_hkl.analysis.opengl import choose_opengl

        with contextlib.suppress(UserError):  # the report says what cannot be drawn; a grid can be
            choose_opengl()

    from mjx_hkl.analysis.report import write_report
    from mjx_hkl.training import devices
    from mjx_hkl.user_code import trust

    for run in command.runs if command.trust_code else ():
        trust(run)
    devices.use_compilation_cache()
    runs = [Path(run) for run in command.runs]
    agents = write_report(runs, out, command.video, say=lambda text: print(text, file=sys.stderr))
    for agent in agents:
        if agent.video and agent.video.missing:
            print(f"no video of {agent.name}: {agent.video.missing}", file=sys.stderr)
    print(f"{out}: {', '.join(agent.name for agent in agents)}, {out.stat().st_size / 1e6:.1f} MB")
    return 0
