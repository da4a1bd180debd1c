"""Makes the site's Reference from the code: a hook of mkdocs, called when the site is built.

Fields become tables (`tables.py`). Names for Python and classes to extend are mkdocstrings' business; here is
only which, and in what order.
"""

import dataclasses
import importlib
import json
import types
from collections.abc import Iterator
from pathlib import Path

import tyro
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from tables import field_row, field_table, prose, sections, table

import mjx_hkl
from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.cli.main import COMMANDS
from mjx_hkl.environments.composition import EnvironmentConfig
from mjx_hkl.environments.grid import GridConfig
from mjx_hkl.experiments.recipe import Recipe

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
        parts.append(prose(cls))
        own = [field for field in dataclasses.fields(cls) if not _is_of_recipe(cls, field)]
        rows = [(_option(field), *field_row(cls, field)[1:4]) for field in own]
        parts.append(table(("argument", "type", "default", "meaning"), rows))
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
            " recipe that it `extends`. `mjx-hkl train RECIPE --help-all` shows the same fields with the"
            " values of the recipe, each an option of the command line. A table that has a `kind` is one"
            ' of several classes, and `kind` may be a class of yours, `"file.py:Class"`. The column *paper*'
            " names the places of the paper that a field's text cites.",
            *sections(Recipe, ""),
        ]
    )


def environments() -> str:
    """Every field of an environment's file."""
    return "\n\n".join(
        [
            "# Environments",
            "An environment is a TOML file in `envs/`, or one of yours. It holds the fields that differ from"
            " these defaults, or from the file that it `extends`.",
            *sections(EnvironmentConfig, ""),
            "## A grid world",
            'A file with `kind = "grid"` is a grid world, and has these fields instead.',
            *field_table(GridConfig, dataclasses.fields(GridConfig)),
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
