"""Agents on disk: written whole or not at all, and read back with every number checked.

A folder has `agent.json` (the card), `README.md` (the same for people), and `parameters/` (Orbax): a dict
from module name to nested dicts of arrays. A module without parameters has no entry there. `files/` has
what the recipe needs of a user's own files.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from mjx_hkl import __version__
from mjx_hkl.config import from_table, to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.card import AgentCard, ModuleCard, page
from mjx_hkl.experiments.copies import Copies, UserFile, check, located
from mjx_hkl.experiments.evaluation import Evaluation
from mjx_hkl.experiments.recipe import Recipe, refuse_updates_per_unroll
from mjx_hkl.experiments.whole import whole_folder
from mjx_hkl.experiments.world_specs import WorldSpecs
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.modules import Module
from mjx_hkl.training import checkpoint

FORMAT = "mjx-hkl agent"
FORMAT_VERSION = 2
_VERSIONS = ("jax", "flax", "mujoco", "mujoco-mjx", "orbax-checkpoint")


@dataclasses.dataclass(frozen=True)
class KnownAgent:
    """An agent, or its shapes alone, with what trained it and the world it was made for.

    Attributes:
      environment_steps: of the checkpoint that it is from; None where it is from none.
    """

    agent: Agent
    recipe: Recipe
    world: WorldSpecs
    environment_steps: int | None = None


def abstract_agent(recipe: Recipe, world: WorldSpecs) -> KnownAgent:
    """The recipe's agent in a world of these specs: shapes alone."""

    def make() -> Agent:
        return Agent(world.observation, world.action_size, recipe.model, jax.random.key(0))

    return KnownAgent(jax.eval_shape(make), recipe, world)


def module_parameters(agent: Agent) -> dict[str, Any]:
    """Nested dicts of arrays for each module that has parameters, by its name."""
    trees = {name: _parameters(module) for name, module in agent.modules().items()}
    return {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}


def write_agent(
    folder: Path,
    known: KnownAgent,
    seed: int,
    evaluation: Evaluation | None,
    files: tuple[UserFile, ...],
    replace: bool = False,
) -> None:
    """Writes an agent, whole or not at all.

    Args:
      folder: where to.
      known: of one seed, its recipe resolved.
      seed: which of the recipe's.
      evaluation: what it achieved, if it was evaluated.
      files: of `user_files`, that the recipe needs.
      replace: an agent that is there already, once the new one is whole.

    Raises:
      UserError: the folder holds something that is not to be replaced.
    """
    if not replace:
        require_free(folder)
    card, copies = _card(known, seed, evaluation), Copies.of(files)
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "program_version": __version__}
    text = json.dumps({**head, **copies.named(to_table(card))}, indent=2)
    with whole_folder(folder) as part:
        _write_parameters(part / "parameters", module_parameters(known.agent), folder)
        copies.write(part, with_originals=False)
        (part / "agent.json").write_text(text + "\n", encoding="utf-8")
        (part / "README.md").write_text(copies.told(page(card)), encoding="utf-8")


def require_free(folder: Path) -> None:
    """Raises UserError where the folder holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists; choose another place or remove it")


def read_agent(folder: Path) -> KnownAgent:
    """The agent of a folder, on this process's first device.

    Raises:
      UserError: it is no agent, incomplete, damaged, or of another format, or its code may not run.
    """
    card = read_card(folder)
    known = abstract_agent(card.recipe, card.world)
    target = jax.tree.map(checkpoint.on_this_device, module_parameters(known.agent))
    try:
        with checkpoint.reading(), ocp.StandardCheckpointer() as checkpointer:
            modules = checkpointer.restore((folder / "parameters").absolute(), target)
    except Exception as error:
        raise UserError(f"agent {folder} is incomplete or damaged; copy or export it again") from error
    for name, tree in modules.items():
        stated = card.modules.get(name, ModuleCard()).sha256
        if stated and stated != _digest(tree):
            raise UserError(f"agent {folder} is damaged: {name} has changed; copy or export it again")
    return dataclasses.replace(known, agent=_with_parameters(known.agent, modules))


def read_card(folder: Path) -> AgentCard:
    """What `agent.json` of an exported agent says.

    Raises:
      UserError: it is missing, not ours, of another format, or a field is missing or of a wrong type, or what
        it needs of a user's files is missing, has changed, or is code that may not run.
    """
    path = folder / "agent.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        of_seeds = [str(x.parent) for x in sorted(folder.glob("seed_*/agent.json"))]
        hint = f"; of several seeds there are {', '.join(of_seeds)}" if of_seeds else ""
        raise UserError(f"{folder} is not an exported agent: it has no agent.json{hint}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(table, dict) or table.pop("format", None) != FORMAT:
        raise UserError(f"{path} does not describe an exported agent of this program")
    version, program = table.pop("format_version", None), table.pop("program_version", "that wrote it")
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version!r}; this mjx-hkl {__version__} reads {FORMAT_VERSION}:"
            f" export the agent again from its run, or use the mjx-hkl {program} that wrote it"
        )
    refuse_updates_per_unroll(table.get("recipe"), f"{path}: recipe")
    table = located(folder, table)
    check(folder, table.get("recipe"))
    return from_table(AgentCard, table, str(path))


def versions() -> dict[str, str]:
    """Of the packages that agents and runs depend on."""
    return {name: importlib.metadata.version(name) for name in _VERSIONS}


def _card(known: KnownAgent, seed: int, evaluation: Evaluation | None) -> AgentCard:
    modules = {name: _module_card(module) for name, module in known.agent.modules().items()}
    told = {name: module for name, module in modules.items() if module.parameters or module.stands_for}
    return AgentCard(known.recipe, seed, known.world, told, versions(), evaluation)


def _module_card(module: Module) -> ModuleCard:
    tree = _parameters(module)
    count = int(sum(np.prod(x.shape) for x in jax.tree.leaves(tree)))
    digest = _digest(tree) if count else ""
    return ModuleCard(module.sees, count, digest, module.bound_to_body, module.stands_for)


def _write_parameters(folder: Path, modules: dict[str, Any], agent: Path) -> None:
    alone = ocp.options.MultiprocessingOptions(active_processes={jax.process_index()})
    place = checkpoint.writing(f"an agent in {agent.absolute().parent}")
    with place, ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save(folder, jax.device_get(modules))
    # It names a folder of this machine, one that is about to be renamed.
    (folder / "commit_success.txt").unlink(missing_ok=True)


def _parameters(module: Module) -> dict[str, Any]:
    return _text_keys(nnx.to_pure_dict(nnx.state(module)))


def _with_parameters(abstract: Agent, modules: dict[str, Any]) -> Agent:
    """The agent whose `module_parameters` these are."""
    flat = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(modules)}
    return jax.tree_util.tree_map_with_path(lambda path, _: flat[parameter_name(path)], abstract)


def parameter_name(path: Any) -> str:
    """The name of an array of a module or an agent, like `head.linear.kernel`, from its path in the tree."""
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def _text_keys(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _text_keys(value) for key, value in tree.items()}
    return tree


def _digest(tree: Any) -> str:
    """SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        digest.update(f"{parameter_name(path)} {leaf.dtype} {leaf.shape} ".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()
