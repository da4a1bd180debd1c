"""`mjx-hkl plot RUN... --out FILE`."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import tyro

from mjx_hkl.cli.arguments import parse
from mjx_hkl.config import Positive
from mjx_hkl.errors import UserError

_FORMATS = (".png", ".svg", ".pdf")


@dataclasses.dataclass(frozen=True)
class PlotCommand:
    """Draw runs side by side, mean and standard deviation over seeds, and print a table of how they ended."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Run directories, or folders of them; runs of one recipe are seeds of one curve."""
    out: str = "curves.png"
    """Picture to write: .png, .svg or .pdf."""
    metric: str = "success_rate"
    """A field of metrics.jsonl; evaluation_success_rate is of mean policies, evaluated while they trained."""
    smooth: Positive | None = None
    """Log intervals in a running mean; by default 5, and of evaluations each by itself."""
    json: bool = False
    """Print the table as one JSON object and nothing else."""
    trust_code: bool = False
    """Run code that came with the runs; without it only code that you have trained with runs."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(PlotCommand, "plot", arguments)
    if not command.runs:
        raise UserError("plot needs runs: mjx-hkl plot RUN... --out FILE.png")
    out = Path(command.out)
    require_picture(out)
    if command.trust_code:
        from mjx_hkl.user_code import trust

        for run in command.runs:
            trust(run)
    plot([Path(run) for run in command.runs], out, command.metric, command.smooth, command.json)
    return 0


def plot(runs: list[Path], out: Path, metric: str, smooth: int | None, as_json: bool) -> None:
    """Draws `runs` into `out` and prints their table."""
    from mjx_hkl.analysis import curves

    smooth = smooth or curves.rows_to_smooth(metric)
    found = curves.read_curves(runs, metric, smooth, say=lambda text: print(text, file=sys.stderr))
    rows = curves.summarize(found, with_thresholds=curves.tells_success(metric))
    curves.draw(found, metric, out)
    if as_json:
        print(json.dumps({"metric": metric, "runs": rows}))
    else:
        print(f"{curves.table(rows, metric)}\n{out}")


def require_picture(out: Path) -> None:
    """Raises UserError where no picture can be written."""
    if out.suffix not in _FORMATS:
        raise UserError(f"{out} must end in {', '.join(_FORMATS)}")
    if not out.parent.is_dir():
        raise UserError(f"the folder {out.parent} does not exist")
