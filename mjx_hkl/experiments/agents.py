"""Finding an agent by what a user gives: an exported agent, a run directory, or a name in `checkpoints/`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

from mjx_hkl import resources
from mjx_hkl.algorithms import learner
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.agent_format import KnownAgent, abstract_agent, read_agent
from mjx_hkl.experiments.copies import located
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import with_modules
from mjx_hkl.training import checkpoint
from mjx_hkl.user_code import trust

# Where `mjx-hkl export` writes, then what came with the package.
_FOLDERS = (Path("checkpoints"), resources.folder("checkpoints"))


def load_agent(given: str, seed_index: int = 0, trust_code: bool = False) -> KnownAgent:
    """The agent of a folder, of a name in `checkpoints/`, or of a run's newest checkpoint.

    Code that came with it runs, also later, if this user has trained with it, or with `trust_code`.

    Raises:
      UserError: there is none, or it cannot be read, or its code may not run.
    """
    run = RunDirectory(Path(given))
    is_run = run.recipe.is_file()
    if trust_code:
        trust(run.path if is_run else agent_folder(given))
    if is_run:
        return agent_of_run(run, seed_index)
    if seed_index:
        raise UserError(f"{given} is one agent, not a run of several seeds: there is no number {seed_index}")
    return read_agent(agent_folder(given))


def agent_folder(given: str) -> Path:
    """The folder of an exported agent given by path or by name.

    Raises:
      UserError: there is no such folder.
    """
    places = [folder / given for folder in (Path(), *_FOLDERS) if (folder / given).is_dir()]
    if places:
        return next((place for place in places if (place / "agent.json").is_file()), places[0])
    if Path(given).is_file():
        raise UserError(f"{given} is a file; give the folder of the run or agent that it lies in")
    if "/" in given:
        raise UserError(f"{given} does not exist")
    raise unknown_name("agent", given, agent_names())


def agent_names() -> list[str]:
    """Names of the exported agents at hand, sorted."""
    return sorted({path.parent.name for folder in _FOLDERS for path in folder.glob("*/agent.json")})


def agent_of_run(run: RunDirectory, seed_index: int = 0) -> KnownAgent:
    """The agent in the newest checkpoint of a run; nothing else of the checkpoint is read.

    Raises:
      UserError: there is no whole checkpoint, or it does not fit the recipe, or no such seed.
    """
    recipe = load_recipe(str(run.path))
    if not 0 <= seed_index < recipe.num_seeds:
        raise UserError(f"{run.path} has {recipe.num_seeds} seeds; there is no number {seed_index}")
    step = checkpoint.newest(run.checkpoints)
    about = checkpoint.about(run.checkpoints, step)
    told = located(run.path, about.get("world", {}))
    world = from_table(WorldSpecs, told, f"checkpoint of {run.path}: world")
    known = abstract_agent(recipe, world)
    whole = jax.eval_shape(
        lambda agent: learner.init(agent, recipe.algorithm, 0, jax.random.key(0)), known.agent
    )
    wanted = _of_seeds({"learner": {"agent": whole.agent, "average": whole.average}}, recipe.num_seeds)
    restored = checkpoint.restore_part(run.checkpoints, wanted, step)
    found = jax.tree.map(lambda x: x[seed_index], restored)["learner"]
    agent = with_modules(found["agent"], found["average"])
    return dataclasses.replace(known, agent=agent, environment_steps=step)


def _of_seeds(tree: Any, num_seeds: int) -> Any:
    """The shapes of several seeds."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((num_seeds, *x.shape), x.dtype), tree)
