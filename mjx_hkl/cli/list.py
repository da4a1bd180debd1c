"""`mjx-hkl list [envs|recipes|agents]`."""

import dataclasses
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from mjx_hkl import resources
from mjx_hkl.cli.arguments import parse
from mjx_hkl.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True)
class ListCommand:
    """Environments, recipes and exported agents at hand."""

    what: Annotated[str | None, tyro.conf.Positional] = None
    """envs, recipes or agents; all of them by default."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    tables = {"envs": _environments, "recipes": _recipes, "agents": _agents}
    what = parse(ListCommand, "list", arguments).what
    if what is not None and what not in tables:
        raise unknown_name("list", what, tables)
    console = Console(width=max(Console().width, 140))  # whole names, also into a narrow pipe
    for name in [what] if what else tables:
        console.print(tables[name]())
    return 0


def _environments() -> Table:
    from mjx_hkl.environments import make_world
    from mjx_hkl.environments.randomization import ranges

    table = Table("environment", "body", "task", "observation groups", "actions", "varies", box=None)
    for name in resources.names("envs", ".toml"):
        try:
            world = make_world(name)
        except UserError as error:
            table.add_row(name, f"unreadable: {error}")
            continue
        groups = ", ".join(f"{group} {spec}" for group, spec in world.observation_specs.items())
        about = world.description
        actions = str(world.action_size) + (" choices" if world.action_kind == "categorical" else "")
        varies = ranges(about.get("randomization"))
        table.add_row(name, about["body"], about.get("task", about)["kind"], groups, actions, varies)
    return table


def _recipes() -> Table:
    from mjx_hkl.experiments.card import kinds
    from mjx_hkl.experiments.recipe import load_variants

    columns = ("high level", "prior", "default low level")
    table = Table("recipe", "environment", *columns, "environment steps", box=None)
    for name in resources.names("train", ".toml"):
        try:
            variants = load_variants(name)
        except UserError as error:
            table.add_row(name, f"unreadable: {error}")
            continue
        for variant, recipe in variants.items():
            table.add_row(
                f"{name}:{variant}" if variant else name,
                recipe.environment_name,
                *kinds(recipe),
                f"{recipe.total_env_steps:,}",
            )
    return table


def _agents() -> Table:
    from mjx_hkl.experiments.agent_format import read_card
    from mjx_hkl.experiments.agents import agent_folder, agent_names

    table = Table("agent", "environment", "evaluation", box=None)
    for name in agent_names():
        try:
            card = read_card(agent_folder(name))
        except UserError as error:
            table.add_row(name, f"unreadable: {error}", "")
            continue
        table.add_row(
            name,
            card.recipe.environment_name,
            card.evaluation.summary() if card.evaluation else "not evaluated",
        )
    return table
