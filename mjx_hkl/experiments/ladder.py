"""A ladder: easier stages that a run learns first, each a run of its own inside of it."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path

from mjx_hkl.config import difference
from mjx_hkl.environments import TASK, AnyWorld
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import KnownAgent, abstract_agent
from mjx_hkl.experiments.build import make_environment, resolve, world_of
from mjx_hkl.experiments.recipe import Recipe, TransferConfig, essence, load_recipe
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.transfer import require_fits, transferable
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.training import processes

TrainStage = Callable[[Recipe, Path, bool], bool]
"""Trains a recipe in a folder, anew or going on from its checkpoint; whether it came to its end."""


def require_alike(recipe: Recipe) -> None:
    """Raises UserError where not all stages show `task`, and the recipe does not hide it.

    What a recipe does not say of information is filled in once, for its last world, and holds in all stages.

    Args:
      recipe: as it is written, not resolved.
    """
    several = len(recipe.environments) > 1
    for number, stage in enumerate(recipe.stages, 1):
        alike = (len(stage.environments) > 1) == several
        if alike or (_hides_task(recipe) and _hides_task(stage)):
            continue
        has, ends = ("one environment", "several") if several else ("several environments", "one")
        needed = " and ".join(f"information.{module}" for module in _told_of_task(recipe))
        raise UserError(
            f"ladder: stage {number} has {has}, the recipe itself {ends}: the group {TASK!r} is there only"
            f" with several environments; say {needed}, without {TASK!r}"
        )


def _told_of_task(recipe: Recipe) -> tuple[str, ...]:
    """The modules that see `task` where a recipe of several environments does not say."""
    return ("high_level", "low_level", "critic") if recipe.policy.is_flat else ("high_level", "critic")


def _hides_task(recipe: Recipe) -> bool:
    """Whether the recipe says of each of these what it sees, and that is not the task."""
    seen = [getattr(recipe.information, module) for module in _told_of_task(recipe)]
    return all(groups and TASK not in groups for groups in seen)


def linked(recipe: Recipe, world: AnyWorld, run: RunDirectory) -> list[Recipe]:
    """The stages of a ladder, and the recipe itself as the last: each takes all modules from the one before.

    The first takes what the recipe takes, and what the recipe freezes stays frozen in all.

    Args:
      recipe: resolved.
      world: of the recipe.
      run: in which the stages are.

    Raises:
      UserError: a stage's world does not exist, or its agent does not fit the stage after it.
    """
    agents = [_agent(stage, world_of(stage)) for stage in recipe.stages] + [_agent(recipe, world)]
    if any(agent.recipe.transfer.released for agent in agents[1:]):
        raise UserError("transfer.released: only the first stage of a ladder takes modules; give it there")
    for number, stage in enumerate(recipe.stages[1:], 2):
        if stage.transfer.agents not in ([], recipe.transfer.agents):
            raise UserError(
                f"ladder: stage {number} takes all modules from the stage before, and none from"
                f" {stage.transfer.agents[0]}: only the first stage takes modules from other agents"
            )
    chain = agents[:1]
    for number, (before, agent) in enumerate(itertools.pairwise(agents), 1):
        taken = dataclasses.replace(agent.recipe, transfer=_everything(agent, run.stage(number)))
        chain.append(dataclasses.replace(agent, recipe=taken))
        require_fits(chain[-1], dict.fromkeys(taken.transfer.agents, before))
    return [agent.recipe for agent in chain]


def _agent(recipe: Recipe, world: AnyWorld) -> KnownAgent:
    recipe = resolve(recipe, world)
    make_environment(recipe, world=world)  # checks that the world has what the recipe asks of it
    return abstract_agent(recipe, WorldSpecs.of(world))


def _everything(agent: KnownAgent, stage: RunDirectory) -> TransferConfig:
    """All modules of a stage's agent."""
    frozen = agent.recipe.transfer.frozen_modules
    own = [name for name, module in transferable(agent.agent).items() if not module.stands_for]
    return TransferConfig(str(stage.path), frozen, tuple(name for name in own if name not in frozen))


def require_same(run: RunDirectory, recipe: Recipe) -> None:
    """Raises UserError where the folder holds a run of another recipe than this resolved one."""
    different = difference(essence(load_recipe(str(run.path))), essence(recipe))
    if different:
        raise UserError(f"{run.path} holds a run of another recipe: {different}; give another --out")


def climb(stages: list[Recipe], run: RunDirectory, train: TrainStage) -> bool:
    """Trains the stages that are not yet done; returns whether all are done now.

    Args:
      stages: of `linked`, without the recipe itself.
      run: in which they are.
      train: trains one.

    Raises:
      UserError: a stage's folder holds a run of another recipe, or its training fails.
    """
    for number, stage in enumerate(stages, 1):
        at = run.stage(number)
        if at.recipe.is_file():
            if number > 1 and at.has_checkpoint:  # the stage before may have lain elsewhere when it began
                before = load_recipe(str(at.path)).transfer.agent
                transfer = dataclasses.replace(stage.transfer, agent=before)
                stage = dataclasses.replace(stage, transfer=transfer)
            require_same(at, stage)
        if at.evaluation.is_file():
            continue
        if processes.is_first():
            at.clear_unsaved()
        processes.wait_for_all("cleared")
        if not train(stage, at.path, at.has_checkpoint):
            return False
    return True
