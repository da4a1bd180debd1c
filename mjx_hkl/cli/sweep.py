"""`mjx-hkl train RECIPE --sweep FILE`."""

from pathlib import Path
from typing import TYPE_CHECKING

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.recipe import Recipe

if TYPE_CHECKING:
    from mjx_hkl.cli.train import TrainCommand


def sweep(recipe: Recipe, file: Path, command: "TrainCommand") -> int:
    """Trains what the file asks for, and prints the table; returns the exit code."""
    if command.distributed or command.debug_divergence:
        other = "--distributed" if command.distributed else "--debug-divergence"
        raise UserError(f"--sweep goes without {other}")
    from mjx_hkl.experiments.sweep_plan import load_plan

    plan, tracking = load_plan(file, recipe), command.tracking

    # Imported only once the arguments are known to be right: a mistake is told at once.
    from mjx_hkl.cli.progress import Display
    from mjx_hkl.experiments.sweep import sweep, table
    from mjx_hkl.training import devices

    out = command.out or Path(f"runs/{recipe.name.replace(':', '-')}-{file.stem}")
    devices.use_compilation_cache()
    devices.share_arenas()
    display = Display()
    outcome = sweep(recipe, plan, out, display, tracking, trust_code=command.trust_code)
    if not outcome.finished:
        display.say("go on with the same command")
        return 130  # see train
    display.say(table(outcome))
    if outcome.best:
        display.say(
            f"train the best with: mjx-hkl train {out / 'best.toml'}; all of it is in {out}/sweep.json"
        )
    return 0
