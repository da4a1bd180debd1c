"""Makes the site's Reference from the code: a hook of mkdocs, called when the site is built.

Dataclass fields become tables, by the types, defaults and docstrings that the command line reads too. Names
for Python and classes to extend are mkdocstrings' business; here is only which, and in what order.
"""

import dataclasses
import functools
import importlib
import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import griffe
import tyro
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import mjx_hkl
from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.cli.main import COMMANDS
from mjx_hkl.environments.composition import EnvironmentConfig
from mjx_hkl.environments.grid import GridConfig
from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.kinds import Kinds, field_kinds

PYTHON = {
    "An agent": [
        "mjx_hkl.experiments.agent_format.KnownAgent",
        "mjx_hkl.models.agent.Agent",
        "mjx_hkl.models.steps.Step",
        "mjx_hkl.models.steps.Latents",
        "mjx_hkl.models.steps.Noise",
        "mjx_hkl.models.steps.Carry",
    ],
    "Worlds": [
        "mjx_hkl.environments.vectorized.VectorEnvironment",
        "mjx_hkl.environments.vectorized.VectorState",
        "mjx_hkl.environments.vectorized.Timestep",
    ],
    "What comes out": [
        "mjx_hkl.experiments.training_run.Result",
        "mjx_hkl.experiments.evaluation.Evaluation",
    ],
}
CLASSES = {
    "A task": [
        "mjx_hkl.environments.tasks.base.Task",
        "mjx_hkl.environments.tasks.base.Start",
        "mjx_hkl.environments.tasks.base.Outcome",
        "mjx_hkl.environments.scene.Stage",
        "mjx_hkl.environments.scene.Scene",
        "mjx_hkl.environments.bodies.Frame",
        "mjx_hkl.environments.boxes.Poses",
        "mjx_hkl.environments.physics.PhysicsState",
        "mjx_hkl.environments.scene.Marks",
        "mjx_hkl.environments.placement.place_apart",
        "mjx_hkl.environments.tasks.rewards",
    ],
    "An arena": ["mjx_hkl.environments.arenas.Arena", "mjx_hkl.environments.view.View"],
    "A part of an agent": [
        "mjx_hkl.models.modules.Module",
        "mjx_hkl.models.modules.Place",
        "mjx_hkl.models.high_levels.HighLevelFields",
        "mjx_hkl.models.low_levels.LowLevelFields",
        "mjx_hkl.models.priors.PriorFields",
        "mjx_hkl.models.default_low_levels.DefaultLowLevelFields",
        "mjx_hkl.models.default_base.DefaultLowLevel",
        "mjx_hkl.models.encoders.EncoderFields",
        "mjx_hkl.models.encoders.Inputs",
        "mjx_hkl.models.critics.CriticFields",
        "mjx_hkl.models.critics.Critic",
        "mjx_hkl.math.gaussian.Gaussian",
        "mjx_hkl.math.categorical.Categorical",
    ],
    "An algorithm": [
        "mjx_hkl.algorithms.algorithm.Algorithm",
        "mjx_hkl.algorithms.window.Window",
        "mjx_hkl.algorithms.hierarchy",
    ],
}

# Of these the fields are in the tables of recipes.
METHODS = {
    "mjx_hkl.models.high_levels.HighLevelFields": ["build"],
    "mjx_hkl.models.low_levels.LowLevelFields": ["build"],
    "mjx_hkl.models.priors.PriorFields": ["build"],
    "mjx_hkl.models.default_low_levels.DefaultLowLevelFields": ["build"],
    "mjx_hkl.models.encoders.EncoderFields": ["build"],
    "mjx_hkl.models.critics.CriticFields": ["build"],
    "mjx_hkl.algorithms.algorithm.Algorithm": [
        name
        for name, method in vars(Algorithm).items()
        if isinstance(method, types.FunctionType) and not name.startswith("_")
    ],
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the Reference."""
    made = {
        "command-line": command_line(),
        "recipes": recipes(),
        "environments": environments(),
        "python": python(),
        "classes": classes(),
    }
    for name, text in made.items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def command_line() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Command line",
        "Every command has `--help`. A command that succeeds ends with exit code 0. A mistake is one line on"
        " stderr and exit code 2, and nothing is written or lost; `--traceback` shows where in the code it"
        " came from. A run that Ctrl-C or SIGTERM ends is saved, and ends with 130.",
    ]
    for command, summary in COMMANDS.items():
        cls = _command_class(command)
        parts.append(f"## `mjx-hkl {command}` {{ #{command} }}")
        if cls is None:
            parts.append(f"{summary[:1].upper()}{summary[1:]}.")
            continue
        parts.append(_prose(cls))
        own = [field for field in dataclasses.fields(cls) if not _is_of_recipe(cls, field)]
        rows = [(_option(field), *_of_field(cls, field)[1:4]) for field in own]
        parts.append(_table(("argument", "type", "default", "meaning"), rows))
        if issubclass(cls, Recipe):
            parts.append(
                "Every field of [a recipe](recipes.md) is an option too, as `--algorithm.kl-cost 0.01`."
            )
    return "\n\n".join(parts)


def _command_class(command: str) -> type | None:
    module = importlib.import_module(f"mjx_hkl.cli.{command.replace('-', '_')}")
    own = [x for x in vars(module).values() if isinstance(x, type) and x.__module__ == module.__name__]
    return next((x for x in own if x.__name__.endswith("Command")), None)


def _is_of_recipe(cls: type, field: dataclasses.Field) -> bool:
    return issubclass(cls, Recipe) and field.name in {x.name for x in dataclasses.fields(Recipe)}


def _option(field: dataclasses.Field) -> str:
    marks = getattr(field.type, "__metadata__", ())
    if tyro.conf.Positional in marks:
        return f"`{field.name.upper()}`"
    named = next((x.name for x in marks if getattr(x, "name", None)), field.name)
    return f"`--{named.replace('_', '-')}`"


def recipes() -> str:
    """Every field of a recipe, table by table, with every kind of each."""
    return "\n\n".join(
        [
            "# Recipes",
            "A recipe is a TOML file. It holds only the fields that differ from these defaults, or from the"
            " recipe that it `extends`. `mjx-hkl train RECIPE --help` shows the same fields with the recipe's"
            " own values, and each is an option of the command line. A table that has a `kind` is one of"
            ' several classes, and `kind` may be a class of yours, `"file.py:Class"`. The column *paper*'
            " names the places of the paper that a field's text cites.",
            *_sections(Recipe, ""),
        ]
    )


def environments() -> str:
    """Every field of an environment's file."""
    return "\n\n".join(
        [
            "# Environments",
            "An environment is a TOML file in `envs/`, or one of yours. It holds the fields that differ from"
            " these defaults, or from the file that it `extends`.",
            *_sections(EnvironmentConfig, ""),
            "## A grid world",
            'A file with `kind = "grid"` is a grid world, and has these fields instead.',
            *_fields(GridConfig, dataclasses.fields(GridConfig)),
        ]
    )


def python() -> str:
    """The names of `mjx_hkl`, and what they give."""
    parts = [
        "# In Python",
        "What the command line does, a notebook does with the names of `mjx_hkl`. They are imported when they"
        " are first used.",
        _program(),
        "## Names of `mjx_hkl`",
        *(_documented(f"mjx_hkl.{name}") for name in sorted(mjx_hkl.__all__, key=str.swapcase)),
    ]
    return "\n\n".join([*parts, *_documented_groups(PYTHON)])


def _program() -> str:
    """The README's, which a test runs."""
    section = (
        (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8").partition("## In Python\n")[2]
    )
    return f"```python{section.partition('```python')[2].partition('```')[0]}```"


def classes() -> str:
    """What users write classes for, and what these are given."""
    return "\n\n".join(["# Classes to extend", *_documented_groups(CLASSES)])


def _documented_groups(groups: dict[str, list[str]]) -> Iterator[str]:
    for title, names in groups.items():
        yield f"## {title}"
        yield from map(_documented, names)


def _documented(name: str) -> str:
    members = f"\n      members: {json.dumps(METHODS[name])}" if name in METHODS else ""
    return f"::: {name}\n    options:\n      heading_level: 3{members}"


def _sections(cls: type, prefix: str) -> Iterator[str]:
    """The tables of a configuration: its own plain fields first, then each table inside, then each kind."""
    fields = dataclasses.fields(cls)
    yield from _fields(cls, [field for field in fields if not _inner(field) and not field_kinds(field)])
    for field in fields:
        path = f"{prefix}{field.name}"
        if kinds := field_kinds(field):
            yield from _kinds(cls, field, kinds, f"{path}.GROUP" if _is_mapping(field) else path)
        elif inner := _inner(field):
            yield _heading(2, f"[{path}]")
            yield from filter(None, (_prose(inner), _meaning(cls, field)))
            yield from _sections(inner, f"{path}.")


def _kinds(cls: type, field: dataclasses.Field, kinds: Kinds, path: str) -> Iterator[str]:
    """A table that has a kind: what all kinds have, then what each has."""
    yield _heading(2, f"[{path}]")
    default = f"`{kinds.default}`" if kinds.default else "none: the table must say it"
    yield from filter(None, [_meaning(cls, field)])
    yield f"`kind`: {', '.join(f'`{name}`' for name in kinds.known)}; by default {default}."
    shared = dataclasses.fields(kinds.base) if kinds.base and dataclasses.is_dataclass(kinds.base) else ()
    if shared:
        yield "All kinds have:" if len(kinds.known) > 1 else "Every kind has:"
        yield from _fields(kinds.base, shared)
    known = {x.name: x.default for x in shared}
    for name, kind in kinds.known.items():
        own = [x for x in dataclasses.fields(kind) if x.name not in known or x.default != known[x.name]]
        yield _heading(3, f"{path}: {name}")
        yield _prose(kind)
        yield from _fields(kind, own)


def _heading(level: int, text: str) -> str:
    anchor = re.sub(r"[^\w.]+", "-", text.strip("[]")).replace(".", "-").lower()
    return f"{'#' * level} `{text}` {{ #{anchor} }}"


def _fields(cls: Any, fields: Any) -> Iterator[str]:
    """A table of fields, where there are any."""
    if fields:
        rows = [_of_field(cls, field) for field in fields]
        yield _table(("key", "type", "default", "meaning", "paper"), rows)


def _of_field(cls: type, field: dataclasses.Field) -> tuple[str, str, str, str, str]:
    meaning = _meaning(cls, field)
    return f"`{field.name}`", _type(field.type), _default(field), meaning, _paper(meaning)


_PAPER = re.compile(
    r"eqs?\. ?\d+(?:(?:, | and )\d+)*|§ ?\d+(?:\.\d+)*|Appendix [A-G]\b|\b[A-G]\.\d\b|Algorithm [12]\b"
    r"|Table \d\b|[Ff]igure \d+\w?"
)


def _paper(text: str) -> str:
    """Where the text cites the paper."""
    return ", ".join(dict.fromkeys(_PAPER.findall(text)))


def _inner(field: dataclasses.Field) -> type | None:
    """The dataclass of a table inside."""
    found = [x for x in (field.type, *get_args(field.type)) if isinstance(x, type)]
    return next((x for x in found if dataclasses.is_dataclass(x) and not field_kinds(field)), None)


def _is_mapping(field: dataclasses.Field) -> bool:
    return get_origin(field.type) is dict


_TOML = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean", Any: "any"}


def _type(declared: Any) -> str:
    """A type in TOML's words, with its range."""
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return f"{_type(arguments[0])}{_range(arguments[1:])}"
    if origin in (Union, types.UnionType):
        return " or ".join(_type(x) for x in arguments if x is not type(None))
    if origin is Literal:
        return " or ".join(f"`{json.dumps(x)}`" for x in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"array of {_type(arguments[0])}"
        return f"[{', '.join(map(_type, arguments))}]"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    return "table" if dataclasses.is_dataclass(declared) else _TOML.get(declared, str(declared))


def _range(constraints: tuple[Any, ...]) -> str:
    signs = {annotated_types.Ge: ("≥", "ge"), annotated_types.Gt: (">", "gt")}
    signs |= {annotated_types.Le: ("≤", "le"), annotated_types.Lt: ("<", "lt")}
    found = []
    for constraint in constraints:
        if type(constraint) in signs:
            sign, attribute = signs[type(constraint)]
            bound = getattr(constraint, attribute)
            if bound < 10**6:  # a greater one guards the arithmetic, and tells a reader nothing
                found.append(f"{sign} {bound:g}")
    return f" {', '.join(found)}" if found else ""


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "required"
    else:
        value = field.default
    if value in (None, "", (), {}):
        return ""
    if dataclasses.is_dataclass(value):
        return "table"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"`{value:_}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _meaning(cls: type, field: dataclasses.Field) -> str:
    """The docstring under a field, or the comment beside it, in the class that declares it."""
    for owner in cls.__mro__:
        if field.name in vars(owner).get("__annotations__", {}):
            found = _read(owner).members[field.name]
            if found.docstring:
                return _flat(found.docstring.value)
            lines = found.module.lines[found.lineno - 1 : found.endlineno]
            return _flat(" ".join(line.partition("  # ")[2].partition("# ")[0] for line in lines))
    return ""


def _prose(cls: type) -> str:
    """The docstring of a class, without its list of attributes."""
    written = _read(cls).docstring
    text = written.value.partition("\nAttributes:")[0] if written else ""
    return _escaped(text.strip())


def _read(cls: type) -> Any:
    """The class as it is written."""
    return _package()[f"{cls.__module__.removeprefix('mjx_hkl.')}.{cls.__qualname__}"]


@functools.cache
def _package() -> Any:
    return griffe.load("mjx_hkl")


def _flat(text: str) -> str:
    """In one line, that may stand in a table."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """Markdown that shows the text as it is: no tags, no emphasis by stars, no links."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    used = [i for i, _ in enumerate(header) if header[i] != "paper" or any(row[i] for row in rows)]
    lines = [[row[i].replace("|", "\\|") for i in used] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(used))
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f'<div class="fields" markdown>\n\n{text}\n\n</div>'
