"""`mjx-hkl list [envs|recipes|checkpoints]`."""

import dataclasses
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from mjx_hkl import resources
from mjx_hkl.cli.arguments import parse
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.models.config import DefaultPolicyConfig


@dataclasses.dataclass(frozen=True)
class ListCommand:
    """Environments, recipes and exported agents at hand."""

    what: Annotated[str | None, tyro.conf.Positional] = None
    """envs, recipes or checkpoints; all of them by default."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    tables = {"envs": _environments, "recipes": _recipes, "checkpoints": _checkpoints}
    what = parse(ListCommand, "list", arguments).what
    if what is not None and what not in tables:
        raise unknown_name("list", what, tables)
    console = Console(width=max(Console().width, 140))  # whole names, also into a narrow pipe
    for name in [what] if what else tables:
        console.print(tables[name]())
    return 0


def _environments() -> Table:
    from mjx_hkl.environments import make_world

    table = Table("environment", "body", "task", "observation groups", "actions", box=None)
    for name in resources.names("envs", ".toml"):
        try:
            world = make_world(name)
        except UserError as error:
            table.add_row(name, f"unreadable: {error}")
            continue
        groups = ", ".join(f"{group} {size}" for group, size in world.observation_size.items())
        about = world.description
        actions = str(world.action_size) + (" choices" if world.action_kind == "categorical" else "")
        table.add_row(name, about["body"], about.get("task", about)["kind"], groups, actions)
    return table


def _recipes() -> Table:
    from mjx_hkl.experiments.recipe import load_variants

    table = Table("recipe", "environment", "policy", "default policy", "environment steps", box=None)
    for name in resources.names("train", ".toml"):
        try:
            variants = load_variants(name)
        except UserError as error:
            table.add_row(name, f"unreadable: {error}")
            continue
        for variant, recipe in variants.items():
            table.add_row(
                f"{name}:{variant}" if variant else name,
                recipe.environment,
                recipe.policy.kind,
                _default_policy(recipe.default_policy),
                f"{recipe.total_env_steps:,}",
            )
    return table


def _default_policy(config: DefaultPolicyConfig) -> str:
    parts = [config.high_level, config.low_level]
    return ", ".join(part for part in parts if part != "none") or "none"


def _checkpoints() -> Table:
    from mjx_hkl.experiments.export import export_names, find_export, read_about

    table = Table("checkpoint", "environment", "success", box=None)
    for name in export_names():
        try:
            about = read_about(find_export(name))
        except UserError as error:
            table.add_row(name, f"unreadable: {error}", "")
            continue
        evaluation = about.get("evaluation") or {}
        success = evaluation.get("success_rate")
        table.add_row(name, about["recipe"]["environment"], "-" if success is None else f"{success:.1%}")
    return table
