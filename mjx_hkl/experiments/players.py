"""Agents in the worlds they play in: what evaluation, videos and figures begin with."""

import dataclasses
from pathlib import Path

from mjx_hkl.config import to_table
from mjx_hkl.environments import AnyWorld, Worlds, make_world, many
from mjx_hkl.errors import UserError, unknown_name
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
      has_mean: whether the agent has mean actions; a random one has none.
      known: what the agent was trained by and in; None of a random one and of an ONNX policy.
    """

    agent: Actor
    environment: Worlds
    environment_name: str
    has_mean: bool = True
    known: KnownAgent | None = None

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
    given: str,
    episodes: int,
    seed_index: int = 0,
    engine: str | None = None,
    trust_code: bool = False,
    environment: str = "",
) -> Player:
    """An agent in the world it was trained in, a policy of a `.onnx` file, or `random:ENVIRONMENT`.

    Args:
      given: who plays.
      episodes: as many worlds of each environment.
      seed_index: of a run of several seeds.
      engine: of physics; by default the recipe's.
      trust_code: runs code that came with it.
      environment: of a `.onnx` file another one than it was made for.

    Raises:
      UserError: there is none, or its world is no longer what it was, or its code may not run.
    """
    if seed_index and (given.startswith("random:") or given.endswith(".onnx")):
        raise UserError(f"{given} is no run of several seeds: there is no number {seed_index}")
    if given.startswith("random:"):
        return _random_player(given.removeprefix("random:"), episodes, engine, trust_code)
    if given.endswith(".onnx"):
        return _onnx_player(Path(given), episodes, engine, trust_code, environment)
    known = load_agent(given, seed_index, trust_code)
    if engine is not None:
        recipe = recipe_from_table({**to_table(known.recipe), "engine": engine}, "command line")
        known = dataclasses.replace(known, recipe=recipe)
    worlds = evaluation_environment(known, episodes)
    return Player(known.agent, worlds, known.recipe.environment_name, known=known)


def evaluation_environment(known: KnownAgent, episodes: int) -> Worlds:
    """The world an agent was trained in, one copy for each episode.

    Raises:
      UserError: the world is no longer what it was.
    """
    recipe = dataclasses.replace(known.recipe, num_devices=1)  # it was trained on others, perhaps
    environment = make_environment(recipe, episodes)
    known.world.require_same(WorldSpecs.of(environment.env), known.recipe.environment_name)
    return environment


def _random_player(given: str, episodes: int, engine: str | None, trust_code: bool) -> Player:
    world, told = _world(environment_name(given), engine, trust_code)
    agent = RandomAgent(world.action_size, world.action_kind)
    return Player(agent, many(world, episodes), told, has_mean=False)


def _onnx_player(path: Path, episodes: int, engine: str | None, trust_code: bool, environment: str) -> Player:
    from mjx_hkl.experiments.onnx.player import load_policy, require_world

    policy = load_policy(path)
    name = policy.card.environment
    if environment and environment not in policy.card.worlds:
        name = environment
    world, told = _world(name, engine, trust_code)
    require_world(policy, world, told)
    return Player(policy, many(world, episodes), told)


def _world(name: str | tuple[str, ...], engine: str | None, trust_code: bool) -> tuple[AnyWorld, str]:
    """The world of that name, or the several, and what to call it."""
    names = (name,) if isinstance(name, str) else name
    for each in names:
        home = home_of(Path(each))
        if trust_code and home:
            trust(home)
    return make_world(name, engine or "auto"), ", ".join(names)
