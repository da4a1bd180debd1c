"""Agents in the worlds they play in: what evaluation, videos and figures begin with."""

import dataclasses
from pathlib import Path

from mjx_hkl.config import to_table
from mjx_hkl.environments import Worlds, make_world, many
from mjx_hkl.errors import unknown_name
from mjx_hkl.experiments.agent_format import KnownAgent
from mjx_hkl.experiments.agents import load_agent
from mjx_hkl.experiments.build import environment_name, make_environment
from mjx_hkl.experiments.evaluation import Actor, RandomAgent
from mjx_hkl.experiments.recipe import recipe_from_table
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.user_code import home_of, trust


@dataclasses.dataclass(frozen=True)
class Player:
    """An agent and the worlds it plays in.

    Attributes:
      agent: who acts.
      environment: as many worlds as episodes.
      environment_name: for people, of all where there are several.
      known: what the agent was trained by and in; None of a random one.
    """

    agent: Actor
    environment: Worlds
    environment_name: str
    known: KnownAgent | None = None

    @property
    def has_mean(self) -> bool:
        """Whether the agent has mean actions; a random one has none."""
        return self.known is not None

    def in_one(self, name: str, episodes: int) -> "Player":
        """The player in that one of its environments, or in the first, in a world for each episode.

        Raises:
          UserError: it has no such environment.
        """
        known = {task or self.environment_name: part for task, part in self.environment.tasks.items()}
        name = name or next(iter(known))
        if name not in known:
            raise unknown_name("environment", name, known)
        return dataclasses.replace(self, environment=many(known[name].env, episodes), environment_name=name)


def find_player(
    given: str, episodes: int, seed_index: int = 0, engine: str | None = None, trust_code: bool = False
) -> Player:
    """An agent in the world it was trained in, or `random:ENVIRONMENT`.

    Raises:
      UserError: there is none, or its world is no longer what it was, or its code may not run.
    """
    if given.startswith("random:"):
        name = given.removeprefix("random:")
        home = home_of(Path(name))
        if trust_code and home:
            trust(home)
        return _random_player(name, episodes, engine)
    known = load_agent(given, seed_index, trust_code)
    if engine is not None:
        recipe = recipe_from_table({**to_table(known.recipe), "engine": engine}, "command line")
        known = dataclasses.replace(known, recipe=recipe)
    environment = evaluation_environment(known, episodes)
    return Player(known.agent, environment, known.recipe.environment_name, known)


def evaluation_environment(known: KnownAgent, episodes: int) -> Worlds:
    """The world an agent was trained in, one copy for each episode.

    Raises:
      UserError: the world is no longer what it was.
    """
    recipe = dataclasses.replace(known.recipe, num_devices=1)  # it was trained on others, perhaps
    environment = make_environment(recipe, episodes)
    known.world.require_same(WorldSpecs.of(environment.env), known.recipe.environment_name)
    return environment


def _random_player(given: str, episodes: int, engine: str | None) -> Player:
    name = environment_name(given)
    world = make_world(name, engine or "auto")
    agent = RandomAgent(world.action_size, world.action_kind)
    told = name if isinstance(name, str) else ", ".join(name)
    return Player(agent, many(world, episodes), told)
