"""`mjx-hkl train RECIPE`."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from mjx_hkl.cli.arguments import TrackingOptions, parse
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.recipe import Recipe, load_recipe
from mjx_hkl.resources import beside


@dataclasses.dataclass(frozen=True)
class TrainCommand(TrackingOptions, Recipe):
    """Train a recipe's agents: a live progress display, then a checkpoint, an evaluation and the agents.

    RECIPE is a name from `mjx-hkl list recipes`, a .toml file, or a run directory; NAME:VARIANT of one with
    variants. Every field of the recipe is an option; the values shown are the recipe's own.
    """

    ladder: tyro.conf.Suppress[tuple[dict[str, Any], ...]] = ()  # tables, which no option can say
    flat: bool = False
    """A flat policy without a default policy (SVG-0, F.2); another default policy may be named with it."""
    out: Path | None = None
    """Run directory to write; by default runs/NAME-SEED-DATE-TIME."""
    resume: bool = False
    """Continue the run in --out (or in the run directory given as RECIPE) from its newest checkpoint."""
    distributed: bool = False
    """Train together with other processes, on this and other machines, that run the same command."""
    trust_code: bool = False
    """Run code that came with the run or with agents it takes modules from, though it is new to you."""
    report: bool = True
    """Write RUN/report.html at the end, where the extra `report` is installed."""
    debug_divergence: bool = False
    """Write the batches of the first updates that are skipped, because their gradients are not finite, to
    RUN/skipped_updates, with the agent's parameters. Slower."""
    sweep: Path | None = None
    """Train many runs to find good values: a .toml file of what to vary and by what to judge
    (docs/tracking.md). Called again with the same --out it goes on."""


_COMMON = (
    *("environment", "engine", "seed", "num_seeds", "num_devices", "num_envs", "total_env_steps"),
    *("flat", "evaluation_interval", "out", "resume", "trust_code"),
)


_FLAT = tuple(
    f"--{part}=none"
    for part in ("policy.high-level", "default-policy.high-level", "default-policy.low-level")
)


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if arguments and not arguments[0].startswith("-"):
        given, *options = arguments
        recipe = load_recipe(given, trust_code="--trust-code" in options)
    elif {"--help", "-h", "--help-all"} & {*arguments}:
        given, options, recipe = "", arguments, Recipe(environment="ball-go-to-target")
    else:
        raise UserError("train needs a recipe first: mjx-hkl train RECIPE; see mjx-hkl list recipes")
    if "--flat" in options:
        options = [*_FLAT, *options]
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
    command = parse(TrainCommand, f"train {given or 'RECIPE'}", options, TrainCommand(**fields), _COMMON)
    recipe = Recipe(**{name: getattr(command, name) for name in fields})
    recipe = _with_files_found(recipe)
    if command.sweep:
        from mjx_hkl.cli.sweep import sweep

        return sweep(recipe, command.sweep, command)
    out = command.out or _run_given(given, command.resume)
    if out is None and command.distributed:
        raise UserError("--distributed needs --out, the same folder for all processes")
    name = recipe.name.replace(":", "-")
    out = out or Path(f"runs/{name}-seed{recipe.seed}-{time.strftime('%Y%m%d-%H%M%S')}")
    return _train(recipe, out, command)


def _with_files_found(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths of environments: the run may be looked at from elsewhere."""
    found = tuple(beside(Path("."), x) if x.endswith(".toml") else x for x in recipe.environments)
    several = isinstance(recipe.environment, tuple)
    return dataclasses.replace(recipe, environment=found if several else found[0])


def _run_given(given: str, resume: bool) -> Path | None:
    """The run to resume, where a run is given instead of a recipe.

    Raises:
      UserError: there is none to resume, or one that neither goes on nor has another place to begin anew.
    """
    path = Path(given)
    folder = path.parent if path.name == "recipe.toml" else path
    is_run = (folder / "recipe.toml").is_file() and (folder == path or (folder / "metrics.jsonl").is_file())
    if resume:
        if not is_run:
            raise UserError("--resume needs the run directory: mjx-hkl train RUN --resume, or --out RUN")
        return folder
    if is_run:
        raise UserError(
            f"{folder} is a run: continue it with --resume, or give a new --out to train its recipe anew"
        )
    return None


def _train(recipe: Recipe, out: Path, command: TrainCommand) -> int:
    # Imported only once the arguments are known to be right: a mistake is told at once.
    from mjx_hkl.cli.progress import Display
    from mjx_hkl.experiments.training_run import train
    from mjx_hkl.training import devices, processes

    tracking = command.tracking
    if command.distributed:
        processes.join()
    devices.use_compilation_cache()
    devices.share_arenas()
    display = Display(quiet=not processes.is_first())
    result = train(
        recipe,
        out,
        command.resume,
        display,
        trust_code=command.trust_code,
        debug_divergence=command.debug_divergence,
        tracking=tracking,
    )
    if not result.finished:
        display.say(f"stopped and saved at {result.environment_steps:,} environment steps")
        distributed = " --distributed" if command.distributed else ""
        display.say(f"go on with: mjx-hkl train {out} --resume{distributed}{command.again}")
        return 130  # as of a program that SIGINT ended: what follows it in a script must not begin
    for index, evaluation in enumerate(result.evaluations):
        seed = f"seed {recipe.seed + index}: " if recipe.num_seeds > 1 else ""
        display.say(
            f"{seed}evaluation over {evaluation.episodes} episodes, mean actions:"
            f" {evaluation.summary()}, length {evaluation.episode_length:.0f}"
        )
        for name, of_task in evaluation.tasks.items():
            display.say(f"  {name}: {of_task.summary()}")
    if recipe.evaluation_interval:
        display.say(f"the best agents of all evaluations: {out / 'best'}")
    display.say(f"trained in {result.seconds:.0f} s; run and exported agent in {out}")
    if command.report and processes.is_first():
        _report(out, display.say)
    return 0


def _report(out: Path, say: Callable[[str], None]) -> None:
    """Writes the run's report; no failure of it is one of the run."""
    from mjx_hkl.analysis.report import is_possible, write_report

    if not is_possible():
        return
    page = out / "report.html"
    try:
        write_report([out], page, with_videos=False)
    except Exception as error:
        say(f"no report: {error}")
        return
    say(f"report in {page}; with a video: mjx-hkl report {out} --out {page}")
