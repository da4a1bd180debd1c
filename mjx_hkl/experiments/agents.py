"""Finding an agent by what a user gives: an export, a run directory, or a checkpoint's name."""

import dataclasses
from pathlib import Path

from mjx_hkl.config import difference, to_table
from mjx_hkl.environments import VectorEnvironment, make_world
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import environment_name, make_environment, make_loop
from mjx_hkl.experiments.evaluation import RandomAgent
from mjx_hkl.experiments.export import Export, find_export, load_export
from mjx_hkl.experiments.recipe import load_recipe, recipe_from_table
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.training_run import agent_of_seed, specs
from mjx_hkl.models.agent import Agent
from mjx_hkl.training import checkpoint


def find_agent(given: str, seed_index: int = 0) -> Export:
    """The agent of an export, of a name in `checkpoints/`, or of a run's newest checkpoint.

    Raises:
      UserError: there is none, or it cannot be read.
    """
    path = Path(given)
    if (path / "recipe.toml").is_file():
        return agent_of_run(RunDirectory(path), seed_index)
    if seed_index:
        raise UserError(f"{given} is one agent, not a run of several seeds: there is no number {seed_index}")
    return load_export(find_export(given))


def agent_of_run(run: RunDirectory, seed_index: int = 0) -> Export:
    """The agent in the newest checkpoint of a run.

    Raises:
      UserError: there is no whole checkpoint, or it does not fit the recipe, or no such seed.
    """
    recipe = load_recipe(str(run.path))
    if not 0 <= seed_index < recipe.num_seeds:
        raise UserError(f"{run.path} has {recipe.num_seeds} seeds; there is no number {seed_index}")
    loop = make_loop(dataclasses.replace(recipe, num_devices=1))  # wherever it was trained
    state = checkpoint.restore(run.checkpoints, loop.abstract)
    return Export(agent_of_seed(state, seed_index), recipe, checkpoint.about(run.checkpoints))


@dataclasses.dataclass(frozen=True)
class Player:
    """An agent and the worlds it plays in."""

    agent: Agent | RandomAgent
    environment: VectorEnvironment
    environment_name: str

    @property
    def is_random(self) -> bool:
        """Whether it acts at random, and has no mean action."""
        return isinstance(self.agent, RandomAgent)


def find_player(given: str, num_envs: int, seed_index: int = 0, engine: str | None = None) -> Player:
    """An agent in the world it was trained in, or `random:ENVIRONMENT`.

    Raises:
      UserError: there is none, or its world is no longer what it was.
    """
    if given.startswith("random:"):
        name = environment_name(given.removeprefix("random:"))
        world = make_world(name, engine or "auto")
        environment = VectorEnvironment(world, num_envs, world.episode_length)
        return Player(RandomAgent(world.action_size, world.action_kind), environment, name)
    found = find_agent(given, seed_index)
    if engine is not None:
        recipe = recipe_from_table({**to_table(found.recipe), "engine": engine}, "command line")
        found = dataclasses.replace(found, recipe=recipe)
    return Player(found.agent, evaluation_environment(found, num_envs), found.recipe.environment)


def evaluation_environment(found: Export, episodes: int) -> VectorEnvironment:
    """The world an agent was trained in, one copy for each episode.

    Raises:
      UserError: the world is no longer what it was.
    """
    environment = make_environment(found.recipe, episodes)
    here = specs(environment.env)
    changed = difference({name: found.about[name] for name in here}, here)
    if changed:
        raise UserError(
            f"environment {found.recipe.environment!r} is not what the agent was made for: {changed}"
        )
    return environment
