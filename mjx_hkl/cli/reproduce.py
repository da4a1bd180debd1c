"""`mjx-hkl reproduce RECIPE`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from mjx_hkl import resources
from mjx_hkl.cli.arguments import TrackingOptions, parse
from mjx_hkl.config import Positive, PositiveFloat, to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.recipe import Recipe, load_variants, recipe_from_table


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceCommand(TrackingOptions):
    """Train every variant of a recipe that is not yet done, then draw and tabulate all side by side.

    Called again it goes on where it was stopped.
    """

    recipe: Annotated[str, tyro.conf.Positional]
    """A recipe with variants, by name or .toml file; or `claims`: the paper's, tested by docs/results."""
    out: str | None = None
    """Folder of the runs, one for each variant; by default runs/RECIPE. Of claims: the page to write."""
    only: tuple[str, ...] = ()
    """Variants to train; by default all."""
    scale: PositiveFloat = 1.0
    """Multiplies the budget: 0.1 takes a tenth of the environment steps."""
    num_seeds: Positive | None = None
    """Seeds of each variant, side by side in one program; by default the recipe's."""
    num_envs: Positive | None = None
    """Worlds of each agent; by default the recipe's."""
    num_devices: Positive | None = None
    """Devices that share each variant's seeds, or its worlds; by default the recipe's."""
    engine: str | None = None
    """Physics engine; by default the recipe's."""
    trust_code: bool = False
    """Run code that is in the runs of --out, or came with agents that variants take modules from, though you
    have not trained with it."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(ReproduceCommand, "reproduce", arguments)
    if command.recipe == "claims":
        if command != ReproduceCommand(recipe="claims", out=command.out):
            raise UserError("reproduce claims trains nothing: of the options it takes --out alone")
        return _claims(command.out)
    variants = load_variants(command.recipe)
    out = Path(command.out or f"runs/{Path(command.recipe).stem}")

    # Imported only once the arguments are known to be right: a mistake is told at once.
    from mjx_hkl.cli.plot import plot
    from mjx_hkl.cli.progress import Display
    from mjx_hkl.experiments.reproduce import chosen, reproduce, scaled
    from mjx_hkl.training import devices
    from mjx_hkl.user_code import trust

    tracking = command.tracking
    if command.trust_code:
        trust(out)
    variants = {
        name: scaled(_changed(recipe, command), command.scale)
        for name, recipe in chosen(variants, command.only).items()
    }
    devices.use_compilation_cache()
    devices.share_arenas()
    display = Display()
    if not reproduce(variants, out, display, tracking, command.trust_code):
        display.say("go on with the same command")
        return 130  # see train
    evaluated = all(recipe.evaluation_interval for recipe in variants.values())
    metrics = ["success_rate", "episode_return"]
    if evaluated:
        metrics = ["evaluation_success_rate", "evaluation_return"]
    try:
        for metric in _telling(variants, out, metrics):
            plot([out], out / f"{metric}.png", metric, smooth=None, as_json=False)
        display.say(f"others with: mjx-hkl plot {out}")
    except UserError as error:  # all is trained, and nothing to draw in runs shorter than an episode
        display.say(f"no picture: {error}")
    return 0


def _claims(out: str | None) -> int:
    """Writes the page of the paper's claims, and prints its verdicts."""
    from mjx_hkl.analysis.claims import page, tested_claims
    from mjx_hkl.experiments.whole import write_whole

    path = resources.folder("docs") / "results" / "claims.toml"
    if not path.is_file():
        raise UserError(
            "the runs that test claims are not in the package: go to a checkout of the repository"
        )
    about, tested = tested_claims(path)
    to = Path(out) if out else path.with_suffix(".md")
    write_whole(to, page(about, tested))
    for number, one in enumerate(tested, 1):
        print(f"{number:2} {one.verdict}: {one.claim.says}")
    print(to)
    return 0


def _telling(variants: dict[str, Recipe], out: Path, metrics: list[str]) -> list[str]:
    """Of success and return what tells variants apart: the return where some never succeed, or none can."""
    from mjx_hkl.analysis.curves import read_curves
    from mjx_hkl.experiments.reproduce import runs_of

    success, earned = metrics
    if not any(run.tells_success for run in runs_of(variants, out).values()):
        return [earned]
    found = read_curves([out], success, smooth=1)
    never = any(all(not seed.value.any() for seed in seeds) for seeds in found.values())
    return [success, earned] if never else [success]


_OF_RECIPE = ("num_seeds", "num_envs", "num_devices", "engine")


def _changed(recipe: Recipe, command: ReproduceCommand) -> Recipe:
    options = {name: getattr(command, name) for name in _OF_RECIPE}
    given = {name: value for name, value in options.items() if value is not None}
    return recipe_from_table({**to_table(recipe), **given}, "command line")
