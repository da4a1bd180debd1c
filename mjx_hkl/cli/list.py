"""`mjx-hkl list [envs|recipes|agents] [FILTER]`."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import tyro
from rich.table import Table

from mjx_hkl import resources
from mjx_hkl.cli.arguments import parse
from mjx_hkl.cli.console import PipedConsole
from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError, unknown_name

Row = dict[str, str | int]


@dataclasses.dataclass(frozen=True)
class ListCommand:
    """Environments, recipes and exported agents at hand."""

    what: Annotated[str | None, tyro.conf.Positional] = None
    """envs, recipes or agents; all of them by default."""
    name: Annotated[str, tyro.conf.Positional] = ""
    """Only those whose name contains this; environments with their observation groups and actions."""
    json: bool = False
    """Print one JSON object and nothing else; with all that is known."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(ListCommand, "list", arguments)
    what = command.what
    if what is not None and what not in _LISTS:
        raise unknown_name("list", what, _LISTS)
    found = {name: list(_LISTS[name](command)) for name in ([what] if what else _LISTS)}
    if command.json:
        print(json.dumps(found))
        return 0
    if command.name and not any(found.values()):
        raise UserError(f"no {' or '.join(found)} whose name contains {command.name!r}")
    console = PipedConsole(width=max(PipedConsole().width, 140))  # whole names, also into a narrow pipe
    for name, rows in found.items():
        console.print(_table(name, rows))
    return 0


def _table(name: str, rows: list[Row]) -> Table | str:
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "error"))
    if not columns:
        return f"no {name}"
    if len(columns) == 1:  # of none is anything known but its name
        columns.append("")
    table = Table(*(column.replace("_", " ") for column in columns), box=None)
    for row in rows:
        shown = [row.get(column, "") for column in columns]
        if "error" in row:
            shown[1] = f"unreadable: {row['error']}"
        table.add_row(*(f"{x:,}" if isinstance(x, int) else x for x in shown))
    return table


def _environments(asked: ListCommand) -> Iterator[Row]:
    look = _of_world if asked.name or asked.json else _of_file
    for name in resources.names("envs", ".toml"):
        if asked.name not in name:
            continue
        try:
            yield {"environment": name, **look(name)}
        except UserError as error:
            yield {"environment": name, "error": str(error)}


def _of_file(name: str) -> Row:
    """What an environment's file says. To make its world takes a tenth of a second."""
    from mjx_hkl.environments import EnvironmentConfig, GridWorld, load_environment

    config = load_environment(name)
    is_physical = isinstance(config, EnvironmentConfig)
    return _about(to_table(config) if is_physical else GridWorld(config).description)


def _of_world(name: str) -> Row:
    """Likewise, and what its world shows and takes."""
    from mjx_hkl.environments import make_world

    world = make_world(name)
    return {
        **_about(world.description),
        "observation_groups": ", ".join(f"{group} {x}" for group, x in world.observation_specs.items()),
        "actions": f"{world.action_size}{' choices' if world.action_kind == 'categorical' else ''}",
    }


def _about(description: Mapping[str, Any]) -> Row:
    from mjx_hkl.environments.randomization import ranges

    return {
        "body": description["body"],
        "task": description.get("task", description)["kind"],
        "varies": ranges(description.get("randomization")),
    }


def _recipes(asked: ListCommand) -> Iterator[Row]:
    from mjx_hkl.experiments.card import kinds
    from mjx_hkl.experiments.recipe import load_variants

    for name in resources.names("train", ".toml"):
        try:
            variants = load_variants(name)
        except UserError as error:
            if asked.name in name:
                yield {"recipe": name, "error": str(error)}
            continue
        for variant, recipe in variants.items():
            whole = f"{name}:{variant}" if variant else name
            if asked.name in whole:
                high_level, prior, low_level = kinds(recipe)
                yield {
                    "recipe": whole,
                    "environment": recipe.environment_name,
                    "high_level": high_level,
                    "prior": prior,
                    "default_low_level": low_level,
                    "environment_steps": recipe.total_env_steps,
                }


def _agents(asked: ListCommand) -> Iterator[Row]:
    from mjx_hkl.experiments.agent_format import read_card
    from mjx_hkl.experiments.agents import agent_folder, agent_names

    for name in agent_names():
        if asked.name not in name:
            continue
        try:
            card = read_card(agent_folder(name))
        except UserError as error:
            yield {"agent": name, "error": str(error)}
            continue
        achieved = card.evaluation.summary() if card.evaluation else "not evaluated"
        yield {"agent": name, "environment": card.recipe.environment_name, "evaluation": achieved}


_LISTS: dict[str, Callable[[ListCommand], Iterator[Row]]] = {
    "envs": _environments,
    "recipes": _recipes,
    "agents": _agents,
}
