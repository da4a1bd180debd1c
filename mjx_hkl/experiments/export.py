"""Exports: an agent's parameters by module, with all that is needed to use them without the run.

Layout: `agent.json` (recipe, specs, versions, evaluation), `README.md` (the same for people), and
`parameters/` (Orbax), a dict from module name to nested dicts of arrays. Written to a temporary folder and
renamed, so never half there.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from mjx_hkl import __version__, resources
from mjx_hkl.config import NonNegative, Positive, from_table, to_table
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.recipe import Recipe, load_recipe, recipe_from_table
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import Information
from mjx_hkl.models.policy import LowLevel
from mjx_hkl.training import checkpoint

FORMAT = "mjx-hkl agent"
FORMAT_VERSION = 1
_VERSIONS = ("jax", "flax", "mujoco", "mujoco-mjx", "orbax-checkpoint")


@dataclasses.dataclass(frozen=True)
class Export:
    """An exported agent: its parameters on the device and what `agent.json` says of it."""

    agent: Agent
    recipe: Recipe
    about: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Module:
    sees: tuple[str, ...]
    parameters: NonNegative
    sha256: str = ""  # of its arrays, by `_digest`; not in exports of old


@dataclasses.dataclass(frozen=True)
class _About:
    """What is read again of `agent.json`."""

    recipe: dict[str, Any]
    environment: dict[str, Any]
    observation_size: dict[str, Positive]
    action_size: Positive
    modules: dict[str, _Module]
    shared: dict[str, str] = dataclasses.field(default_factory=dict)
    evaluation: dict[str, Any] | None = None


def save_export(
    folder: Path,
    agent: Agent,
    recipe: Recipe,
    seed: int,
    specs: dict[str, Any],
    evaluation: Mapping[str, Any] | None,
    replace: bool = False,
) -> None:
    """Writes an export, whole or not at all.

    Args:
      folder: where to.
      agent: of one seed.
      recipe: resolved, that trained it.
      seed: which of the recipe's.
      specs: of its world, by `training_run.specs`.
      evaluation: what it achieved, if it was evaluated.
      replace: an export that is there already, once the new one is whole.

    Raises:
      UserError: the folder holds something that is not to be replaced.
    """
    if not replace:
        require_free(folder)
    modules = module_parameters(agent)
    about = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "program_version": __version__,
        "recipe": to_table(recipe),
        "seed": seed,
        **specs,
        "modules": {
            name: {"sees": sees(agent, name), "parameters": _count(tree), "sha256": _digest(tree)}
            for name, tree in modules.items()
        },
        "shared": shared_modules(recipe),
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
        "evaluation": evaluation,
    }
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    alone = ocp.options.MultiprocessingOptions(active_processes={jax.process_index()})
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        checkpointer.save(part / "parameters", jax.device_get(modules))
    # It names a folder of this machine, one that is about to be renamed.
    (part / "parameters" / "commit_success.txt").unlink(missing_ok=True)
    (part / "agent.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    (part / "README.md").write_text(_card(recipe, about), encoding="utf-8")
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _card(recipe: Recipe, about: dict[str, Any]) -> str:
    """What a person wants to know of an exported agent."""
    evaluation, default_policy = about["evaluation"], recipe.default_policy
    facts = {
        "recipe": recipe.name,
        "environment": recipe.environment,
        "policy": recipe.policy.kind,
        "default policy": f"high level {default_policy.high_level}, low level {default_policy.low_level}",
        "budget": f"{recipe.total_env_steps:,} environment steps",
        "command": f"`{_command(recipe)}`" if _is_as_named(recipe) else "none in `train/`: see agent.json",
        "seed": about["seed"],
        "evaluation": "none"
        if evaluation is None
        else f"success {evaluation['success_rate']:.1%}, return {evaluation['episode_return']:.1f} over"
        f" {evaluation['episodes']} episodes, seed {evaluation['seed']}",
        "written with": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
    }
    modules = [
        f"| `{name}` | {', '.join(module['sees'])} | {module['parameters']:,} |"
        for name, module in about["modules"].items()
    ]
    lines = [
        f"# {recipe.name}",
        "",
        "An agent of mjx-hkl; `agent.json` holds its whole recipe.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in facts.items()),
        "",
        "| module | sees | parameters |",
        "|---|---|---|",
        *modules,
    ]
    return "\n".join(lines) + "\n"


def _is_as_named(recipe: Recipe) -> bool:
    """Whether `train/` holds the recipe under its name; seeds, and what device and world fill in, apart."""
    try:
        named = load_recipe(recipe.name)
    except UserError:
        return False
    pairs = zip(dataclasses.astuple(named.information), dataclasses.astuple(recipe.information), strict=True)
    source = named.transfer.checkpoint
    return recipe == dataclasses.replace(
        named,
        **{name: getattr(recipe, name) for name in ("seed", "num_seeds", "num_devices")},
        num_envs=named.num_envs or recipe.num_envs,
        information=Information(*(written or seen for written, seen in pairs)),
        policy=dataclasses.replace(named.policy, actions=recipe.policy.actions),
        transfer=dataclasses.replace(
            named.transfer, checkpoint=recipe.transfer.checkpoint if source.startswith(":") else source
        ),
    )


def _command(recipe: Recipe) -> str:
    """What trains the recipe again, and what it transfers from."""
    name, _, variant = recipe.name.partition(":")
    if variant:
        return f"mjx-hkl reproduce {name} --only {variant} --num-seeds {recipe.num_seeds}"
    return f"mjx-hkl train {name} --num-seeds {recipe.num_seeds} --seed {recipe.seed}"


def require_free(folder: Path) -> None:
    """Raises UserError where the folder holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} already exists; choose another place or remove it")


def load_export(folder: Path) -> Export:
    """The agent of an export.

    Raises:
      UserError: it is no export, incomplete, damaged, or of a newer format.
    """
    about = read_about(folder)
    recipe = recipe_from_table(about["recipe"], f"{folder}/agent.json: recipe")
    try:
        recipe.information.check(about["observation_size"])
    except UserError as error:
        raise UserError(f"{folder}/agent.json: {error}") from error
    abstract = abstract_agent(recipe, about)
    target = jax.tree.map(checkpoint.on_this_device, module_parameters(abstract))
    try:
        with checkpoint.reading(), ocp.StandardCheckpointer() as checkpointer:
            modules = checkpointer.restore((folder / "parameters").absolute(), target)
    except Exception as error:
        raise UserError(f"export {folder} is incomplete or damaged; copy or export it again") from error
    for name, tree in modules.items():
        stated = about["modules"].get(name, {}).get("sha256")
        if stated and stated != _digest(tree):
            raise UserError(f"export {folder} is damaged: {name} has changed; copy or export it again")
    return Export(_with_parameters(abstract, modules), recipe, about)


def find_export(given: str) -> Path:
    """The folder of an export given by path or by name.

    Raises:
      UserError: there is no such folder.
    """
    for folder in (Path(), *_FOLDERS):
        if (folder / given).is_dir():
            return folder / given
    if "/" in given:
        raise UserError(f"{given} does not exist")
    raise unknown_name("agent", given, export_names())


def export_names() -> list[str]:
    """Names of the exported agents at hand, sorted."""
    return sorted({path.parent.name for folder in _FOLDERS for path in folder.glob("*/agent.json")})


# Where `mjx-hkl export` writes, then what came with the package.
_FOLDERS = (Path("checkpoints"), resources.folder("checkpoints"))


def abstract_export(recipe: Recipe, specs: Mapping[str, Any]) -> Export:
    """What an export of the recipe's agent in a world of these specs holds: shapes alone."""
    about = {**specs, "shared": shared_modules(recipe)}
    return Export(abstract_agent(recipe, specs), recipe, about)


def shared_modules(recipe: Recipe) -> dict[str, str]:
    """Modules that have no parameters of their own, and those that stand for them."""
    is_shared = recipe.default_policy.low_level == "shared"
    return {"default_policy.low_level": "policy.low_level"} if is_shared else {}


def abstract_agent(recipe: Recipe, specs: Mapping[str, Any]) -> Agent:
    """The recipe's agent in a world of these specs: shapes alone."""
    sizes, action_size = specs["observation_size"], specs["action_size"]
    return jax.eval_shape(lambda: Agent(sizes, action_size, recipe.model, jax.random.key(0)))


def read_about(folder: Path) -> dict[str, Any]:
    """What `agent.json` of an export says.

    Raises:
      UserError: it is missing, not ours, of a newer format, or a field is missing or of a wrong type.
    """
    path = folder / "agent.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{folder} is not an exported agent: it has no agent.json") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise UserError(f"{path} does not describe an exported agent of this program")
    if about.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {about.get('format_version')!r}; this mjx-hkl {__version__} reads"
            f" {FORMAT_VERSION}: install the one that wrote it"
        )
    fields = dataclasses.fields(_About)
    from_table(_About, {field.name: about[field.name] for field in fields if field.name in about}, str(path))
    return about


def module_parameters(agent: Agent) -> dict[str, Any]:
    """Nested dicts of arrays for each module that has parameters, by its name in an export."""
    modules = {
        "policy.high_level": agent.policy.high_level,
        "policy.low_level": agent.policy.low_level,
        "default_policy.high_level": agent.default_policy.high_level,
        "default_policy.low_level": agent.default_policy.low_level,
        "critic": agent.critic,
    }
    return {
        name: _text_keys(nnx.to_pure_dict(nnx.state(module)))
        for name, module in modules.items()
        if module is not None
    }


def _with_parameters(abstract: Agent, modules: dict[str, Any]) -> Agent:
    """The agent whose `module_parameters` these are."""
    flat = {_path(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(modules)}
    return jax.tree_util.tree_map_with_path(lambda path, _: flat[_path(path)], abstract)


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value")


def _text_keys(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {str(key): _text_keys(value) for key, value in tree.items()}
    return tree


def _digest(tree: Any) -> str:
    """SHA-256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        digest.update(f"{_path(path)} {leaf.dtype} {leaf.shape} ".encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _count(tree: Any) -> int:
    return int(sum(np.prod(x.shape) for x in jax.tree.leaves(tree)))


def sees(agent: Agent, name: str) -> list[str]:
    """Names of a module's inputs in the order they are joined."""
    latent = ["latent"] if agent.policy.latent_size else []
    if name == "policy.high_level":
        high_level = agent.policy.high_level
        assert high_level is not None
        return [*high_level.inputs.groups, *(["previous latent"] if high_level.sees_latent else [])]
    if name == "policy.low_level":
        return [*agent.policy.low_level.inputs.groups, *latent]
    if name == "critic":
        action = ["action"] if agent.critic.sees_action else []
        return [*agent.critic.inputs.groups, *latent, *action]
    if name == "default_policy.high_level":
        return ["previous latent"]
    own = agent.default_policy.low_level
    return [*own.inputs.groups, *latent] if isinstance(own, LowLevel) else ["features of policy.low_level"]
