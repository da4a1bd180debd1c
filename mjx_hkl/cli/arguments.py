"""Arguments by tyro, its errors cut down to one line."""

import contextlib
import dataclasses
import io
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from mjx_hkl.config import NonNegative, Seed, from_table, to_table
from mjx_hkl.errors import UserError
from mjx_hkl.kinds import field_kinds

if TYPE_CHECKING:
    from mjx_hkl.experiments.tracking import Tracking

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlayOptions:
    """What every command asks that plays an agent."""

    agent: Annotated[str, tyro.conf.Positional]
    """An exported agent, a run directory, a name from `mjx-hkl list agents`, a .onnx file that
    `mjx-hkl export` wrote, or random:ENVIRONMENT."""
    seed: Seed = 0
    """Of the starts and of a stochastic policy's samples."""
    seed_index: NonNegative = 0
    """Which agent of a run of several seeds."""
    engine: str | None = None
    """Physics engine; by default the recipe's."""
    environment: str = ""
    """Of an agent of several environments the one to play in; by default all, and for a video the first. Of a
    .onnx file any environment that shows what the policy sees."""
    stochastic: bool = False
    """Sample latents and actions instead of taking their means."""
    trust_code: bool = False
    """Run code that came with the agent; without it only code that you have trained with runs."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackingOptions:
    """What every command asks that trains: where numbers go beside metrics.jsonl, not what is learned."""

    logger: tuple[str, ...] = ("tensorboard",)
    """Where the numbers go too: tensorboard, wandb, mlflow, several of them, or none (docs/tracking.md)."""
    histograms: bool = False
    """Tell loggers of latents and actions each log interval, from one unroll more."""
    video_interval: NonNegative = 0
    """Environment steps between videos of the mean policy, in RUN/videos and for loggers; 0: none."""

    @property
    def again(self) -> str:
        """What to type to go on alike; empty where these are the defaults."""
        given = "" if self.logger == TrackingOptions.logger else f" --logger {' '.join(self.logger)}"
        given += " --histograms" if self.histograms else ""
        return given + (f" --video-interval {self.video_interval}" if self.video_interval else "")

    @property
    def tracking(self) -> "Tracking":
        """As `train` takes it.

        Raises:
          UserError: a logger is unknown, not installed or not set up.
        """
        from mjx_hkl.analysis.rendering import render_episode
        from mjx_hkl.experiments.tracking import Tracking

        found = Tracking(self.logger, self.histograms, self.video_interval, render_episode)
        found.require()
        return found


def tell_edited(given: str) -> None:
    """Says on stderr which of a user's files have changed since the run began, where a run is given."""
    from mjx_hkl.experiments.copies import edited

    if changed := edited(Path(given)):
        print(f"note: {changed}", file=sys.stderr)


def parse(
    cls: type[T], command: str, arguments: list[str], default: T | None = None, common: tuple[str, ...] = ()
) -> T:
    """An instance of the dataclass `cls` from command-line arguments; its docstring is the help.

    Args:
      cls: its fields are the options.
      command: as the user types it, for the help text.
      arguments: to parse.
      default: values of what is not given.
      common: the fields that `--help` shows, where they are not all; `--help-all` shows those.

    Raises:
      UserError: an option is unknown, or its value is wrong or missing.
      SystemExit: help was asked for and printed.
    """
    if default is not None:
        default, arguments = _with_kinds(default, arguments)
    shown, values = cls, default
    if "--help-all" in arguments:
        arguments = ["--help"]
    elif common and default is not None and {"-h", "--help"} & {*arguments}:
        shown, values = _showing(common, default)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            found = tyro.cli(  # pyright: ignore - its overloads do not take a default that may be None
                shown,
                prog=f"mjx-hkl {command}",
                args=arguments,
                default=values,
                config=(tyro.conf.PositionalMetavarFromFieldName,),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        known = _options(to_table(default)) if default is not None else []
        raise UserError(_one_line(errors.getvalue(), command, known)) from None
    return from_table(cls, to_table(found), "command line")


def _showing(common: tuple[str, ...], default: Any) -> tuple[type, Any]:
    """A class whose help shows only these fields, and the same default."""
    cls = type(default)
    hidden = [
        (field.name, Annotated[field.type, tyro.conf.Suppress], dataclasses.field(default=None))
        for field in dataclasses.fields(cls)
        if field.name not in common
    ]
    told = f"{(cls.__doc__ or '').rstrip()}\n\nThese are the usual options; --help-all lists every field."
    about = {"__doc__": told}
    shown = dataclasses.make_dataclass(cls.__name__, hidden, bases=(cls,), namespace=about, frozen=True)
    return shown, shown(**{field.name: getattr(default, field.name) for field in dataclasses.fields(cls)})


def _with_kinds(default: T, arguments: list[str]) -> tuple[T, list[str]]:
    """The defaults with the kinds that `--table KIND` or `--table.kind KIND` name, and the other arguments.

    The fields of another kind than the default's have their own defaults, as in a recipe.
    """
    table, rest, waiting, chosen = to_table(default), [], iter(arguments), False
    for argument in waiting:
        option, equals, value = argument.partition("=")
        path = option.removeprefix("--").replace("-", "_").removesuffix(".kind").split(".")
        place = _place_of_kind(default, table, path) if option.startswith("--") else None
        if place is None:
            rest.append(argument)
            continue
        kind = value if equals else next(waiting, "--")
        if kind.startswith("--"):
            raise UserError(f"{option} needs the name of a kind")
        chosen = True
        if place.get(path[-1], {}).get("kind") != kind:
            place[path[-1]] = {"kind": kind}
    return from_table(type(default), table, "command line") if chosen else default, rest


def _place_of_kind(default: Any, table: dict[str, Any], path: list[str]) -> dict[str, Any] | None:
    """The table that holds the kind which a path of field names leads to; None where it leads to none."""
    name, *inner = path
    field = next((x for x in dataclasses.fields(default) if x.name == name), None)
    if field is None:
        return None
    value = getattr(default, name)
    if isinstance(value, dict) and len(inner) == 1 and field_kinds(field):
        return table.setdefault(name, {})
    if not inner:
        return table if field_kinds(field) and not isinstance(value, dict) else None
    nested = dataclasses.is_dataclass(value) and not field_kinds(field)
    return _place_of_kind(value, table[name], inner) if nested else None


def _options(table: dict[str, Any], prefix: str = "--") -> list[str]:
    """The options of a table's fields."""
    found = []
    for name, value in table.items():
        option = prefix + name.replace("_", "-")
        found += _options(value, option + ".") if isinstance(value, dict) else [option]
    return found


def _abbreviated(given: str, known: list[str]) -> list[str]:
    """Options whose words begin with the letters of the one given, like --learning-rate for --lr."""
    leaf = given.rpartition(".")[2].removeprefix("--")

    def initials(option: str) -> str:
        return "".join(word[:1] for word in option.rpartition(".")[2].removeprefix("--").split("-"))

    return [option for option in known if leaf and leaf in initials(option)]


def _one_line(box: str, command: str, known: list[str]) -> str:
    """The message in tyro's box, and the options it suggests, else those of `known` that may be meant."""
    lines = re.sub(r"\x1b\[[0-9;]*m", "", box).splitlines()
    rows = [line.strip("│ ") for line in lines if not line.startswith(("╭", "╰"))]
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n[─-]+\n", "\n".join(rows))]
    if "│" not in box and len(paragraphs) > 1:
        paragraphs = paragraphs[1:]  # without borders the title is a paragraph of its own
    suggestions = [p for p in paragraphs if p.startswith("Perhaps you meant")]
    near = dict.fromkeys(re.findall(r"(?<!\S)--[\w.-]+", " ".join(suggestions)))
    unknown = re.search(r"nrecognized options?: *(--[\w.-]+)", " ".join(paragraphs))
    if unknown and not near:
        near = dict.fromkeys(_abbreviated(unknown[1], known))
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; see mjx-hkl {command} --help"
    message = re.sub(r"^Error parsing (\w+Command: )?", "", paragraphs[0] or "cannot parse the arguments")
    message = message.replace("{None}|", "")
    unfit = r"no type matching (\S+) could be instantiated from \[(.*?)\]\..*"
    message = re.sub(unfit, r"\2 is no \1", message)
    message = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is no INT", message)
    message = re.sub(r"could not convert string to float: (.*)", r"\1 is no FLOAT", message)
    return message[:1].lower() + message[1:].rstrip(".") + hint
