"""From a recipe to the objects it describes."""

import dataclasses
import math
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from mjx_hkl import resources
from mjx_hkl.algorithms.table import ALGORITHMS
from mjx_hkl.environments import TASK, AnyWorld, SeveralWorlds, World, Worlds, make_world, many, task_name
from mjx_hkl.environments.composition import EnvironmentConfig
from mjx_hkl.environments.foreign import is_foreign
from mjx_hkl.environments.world import VISION, VISION_STATE
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.recipe import Recipe, load_recipe
from mjx_hkl.models.agent import LOW_LEVEL
from mjx_hkl.models.config import Encoders, Information
from mjx_hkl.models.encoders import EVERY_VECTOR, NormalizedFields
from mjx_hkl.training import devices
from mjx_hkl.training.loop import Loop, Schedule
from mjx_hkl.training.step import OnSkipped, TrainStep

_PRIVILEGED = "privileged"  # MuJoCo Playground's groups for critics alone: no robot senses them


def world_of(recipe: Recipe) -> AnyWorld:
    """The world of a recipe, or its several; built once, it serves the functions below.

    Several devices take an engine that they can share, unless the recipe names one.

    Raises:
      UserError: there is no such environment.
    """
    world = make_world(recipe.environment, recipe.engine, recipe.renderer)
    num_devices = recipe.num_devices or devices.default_num_devices()
    if world.not_shared and recipe.engine == "auto" and num_devices > 1:
        return world_on_mjx(recipe)
    return world


def world_on_mjx(recipe: Recipe) -> AnyWorld:
    """The world of a recipe, or its several, on the engine of every device; other people's on their own.

    Raises:
      UserError: there is no such environment.
    """

    def made(name: str) -> World:
        return make_world(name, "auto" if is_foreign(name) else "mjx", recipe.renderer)

    if isinstance(recipe.environment, str):
        return made(recipe.environment)
    return SeveralWorlds({task_name(name): made(name) for name in recipe.environment})


def resolve(recipe: Recipe, world: AnyWorld | None = None) -> Recipe:
    """The recipe with what depends on the device and on the world filled in.

    Raises:
      UserError: there is no such environment.
    """
    if recipe.num_envs is None:
        recipe = dataclasses.replace(recipe, num_envs=shared_evenly(devices.default_num_envs(), recipe))
    if recipe.num_devices is None:
        recipe = dataclasses.replace(recipe, num_devices=devices.default_num_devices())
    seen = recipe.information
    if (
        all(dataclasses.astuple(seen))
        and recipe.policy.actions != "auto"
        and EVERY_VECTOR not in recipe.encoders
    ):
        return recipe
    world = world or world_of(recipe)
    policy = recipe.policy
    if policy.actions == "auto":
        policy = dataclasses.replace(policy, actions=world.action_kind)
    seeable = {
        name: spec
        for name, spec in world.observation_specs.items()
        if name != VISION_STATE or world.drawing is None
    }
    everything = tuple(seeable)
    acted_on = tuple(group for group in everything if not group.startswith(_PRIVILEGED))
    taskless = tuple(group for group in world.low_level_information if group in acted_on)
    is_flat = recipe.policy.is_flat
    low_level = seen.low_level or (acted_on if is_flat else taskless)
    information = Information(
        high_level=seen.high_level or acted_on,
        low_level=low_level,
        critic=seen.critic or everything,
        default=seen.default or (taskless if is_flat else low_level),
    )
    encoders = encoders_by_group(recipe, [name for name, spec in seeable.items() if spec.is_vector])
    return dataclasses.replace(recipe, information=information, policy=policy, encoders=encoders)


def shared_evenly(num_envs: int, recipe: Recipe) -> int:
    """So many worlds, or the few less that the recipe's environments can share evenly."""
    return num_envs - num_envs % len(recipe.environments)


def encoders_by_group(recipe: Recipe, vectors: Iterable[str]) -> Encoders:
    """The recipe's encoders, with an entry for each vector that has none of its own and is to have one.

    It is what the recipe says of "all". Where it says nothing, the groups of other people's worlds are
    normalized, unless there are worlds of our own beside them.
    """
    named = {name: fields for name, fields in recipe.encoders.items() if name != EVERY_VECTOR}
    unnamed = [name for name in vectors if name not in named]
    if EVERY_VECTOR in recipe.encoders:
        return {**named, **dict.fromkeys(unnamed, recipe.encoders[EVERY_VECTOR])}
    if not all(map(is_foreign, recipe.environments)):
        return named
    return {**named, **{name: NormalizedFields() for name in unnamed if name != TASK}}


def environment_name(given: str) -> str | tuple[str, ...]:
    """The name or file of an environment as given, or those of a recipe: its name, file or run directory."""
    recipe = given.partition(":")[0]
    is_named = recipe in resources.names("train", ".toml") and given not in resources.names("envs", ".toml")
    if is_named or (Path(given) / "recipe.toml").is_file() or _is_recipe(Path(given)):
        return load_recipe(given).environment
    return given


def _is_recipe(path: Path) -> bool:
    """Whether the file has what recipes alone have; one that could be either is an environment."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    recipe, environment = (
        {field.name for field in dataclasses.fields(kind)} for kind in (Recipe, EnvironmentConfig)
    )
    return bool(table.keys() & ({*recipe, "variants"} - environment))


def make_environment(recipe: Recipe, num_envs: int | None = None, world: AnyWorld | None = None) -> Worlds:
    """The recipe's worlds.

    Raises:
      UserError: there is no such environment, or it lacks what the recipe asks of it.
    """
    world = world or world_of(recipe)
    if len(recipe.environments) > 1:
        _require_for_several(recipe, cast(SeveralWorlds, world))
    recipe.information.check(world.observation_specs)
    groups = world.observation_specs
    for group in recipe.encoders:
        if group not in groups:
            raise UserError(f"[encoders]: {unknown_name('observation group', group, groups)}")
    _require_camera(recipe, world)
    if recipe.policy.actions not in ("auto", world.action_kind):
        raise UserError(
            f"policy.actions is {recipe.policy.actions!r}, but those of {recipe.environment_name} are"
            f" {world.action_kind}"
        )
    if world.action_kind not in recipe.algorithm.action_kinds:
        able = [name for name, kind in ALGORITHMS.known.items() if world.action_kind in kind.action_kinds]
        raise UserError(
            f"algorithm.kind {ALGORITHMS.name_of(recipe.algorithm)!r} does not learn the {world.action_kind}"
            f" actions of {recipe.environment_name}; {' or '.join(able)} does"
        )
    if recipe.until_success and not world.can_succeed:
        raise UserError(f"until_success: nothing can succeed in {recipe.environment_name}; leave it 0")
    if recipe.until_success and world.curriculum is not None:
        raise UserError(
            "until_success: the task grows harder with training's progress (uses_progress), and its easy"
            " beginning would end the run; leave it 0"
        )
    if recipe.algorithm.symmetries and world.symmetry is None:
        raise UserError(f"algorithm.symmetries: {recipe.environment_name} declares none; leave it false")
    if recipe.algorithm.relabelled and world.relabelling is None:
        raise UserError(
            f"algorithm.relabelled: {recipe.environment_name} declares no relabelling; leave it 0 (none can"
            " where a task's groups are late or noisy, or a picture shows what was asked)"
        )
    for name, off in (("exploration_scale", (1.0, 1.0)), ("exploration_correlation", 0.0)):
        if world.action_kind != "gaussian" and getattr(recipe.algorithm, name) != off:
            raise UserError(
                f"algorithm.{name} is for gaussian actions, but those of {recipe.environment_name} are"
                f" {world.action_kind}; leave it out"
            )
    if recipe.algorithm.acts_in_latents and LOW_LEVEL not in recipe.transfer.frozen_modules:
        raise UserError(
            f"algorithm.kind {ALGORITHMS.name_of(recipe.algorithm)!r} leaves {LOW_LEVEL} as it is: take one"
            f" from another agent, --transfer.agent AGENT --transfer.frozen {LOW_LEVEL}"
        )
    if world.episode_length < recipe.algorithm.unroll_length:
        raise UserError(
            f"algorithm.unroll_length {recipe.algorithm.unroll_length} exceeds the environment's"
            f" episode_length {world.episode_length}"
        )
    num_envs = num_envs or recipe.num_envs
    assert num_envs is not None, "resolve the recipe first"
    return many(world, num_envs)


def _require_for_several(recipe: Recipe, world: SeveralWorlds) -> None:
    """Raises UserError where the recipe asks of several environments what only a single one can have."""
    count, num_envs = len(recipe.environments), recipe.num_envs or 0
    if num_envs % count:
        raise UserError(
            f"num_envs {num_envs} cannot be shared evenly by {count} environments: make it"
            f" {max(count, num_envs - num_envs % count)}"
        )
    for name, off in (("symmetries", "false"), ("relabelled", "0")):
        if getattr(recipe.algorithm, name):
            raise UserError(f"algorithm.{name} is for a single environment, not for several; leave it {off}")
    for module in ("low_level", "default"):
        if not getattr(recipe.information, module):
            raise UserError(
                f"no group is the low level's in all environments, and of one size ({world.low_levels}): say"
                f" what it sees, --information.{module.replace('_', '-')} GROUP"
            )


def _require_camera(recipe: Recipe, world: AnyWorld) -> None:
    """Raises UserError where the recipe asks of images what cannot be, or shows them to who must not see."""
    seen = recipe.information
    images = [name for name, spec in world.observation_specs.items() if spec.is_image and seen.is_seen(name)]
    if recipe.algorithm.image_shift and not images:
        raise UserError("algorithm.image_shift: no module sees an image (information); leave it 0")
    if world.drawing is None:
        if recipe.images == "drawn":
            raise UserError(f'images is "drawn", but {recipe.environment_name} has no camera; leave it out')
        return
    for module, groups in dataclasses.asdict(seen).items():
        if VISION_STATE in groups:
            raise UserError(
                f"information.{module} names {VISION_STATE}, which {VISION} is drawn from: no module sees it"
            )
        if VISION in groups and module in ("low_level", "default") and not recipe.policy.is_flat:
            raise UserError(
                f"information.{module} names {VISION}: a low level beneath a latent must not see the task"
                " (§3.1); leave the image to the high level, or make the policy flat"
            )
    if recipe.algorithm.relabelled and VISION in images:
        raise UserError(
            "algorithm.relabelled: images show the instruction that was given; leave it 0, or let no module"
            f" see {VISION}"
        )


def make_train_step(
    recipe: Recipe, world: AnyWorld | None = None, on_skipped: OnSkipped | None = None
) -> TrainStep:
    """The recipe's train step; `on_skipped` is told of updates that are skipped.

    Raises:
      UserError: there is no such environment, or the replay ratio makes no update after an unroll.
    """
    step = TrainStep(
        make_environment(recipe, world=world),
        recipe.model,
        recipe.algorithm,
        recipe.replay_capacity,
        recipe.min_replay,
        recipe.total_env_steps,
        recipe.transfer.frozen_modules,
        recipe.images == "drawn",
        recipe.transfer.released_modules,
        recipe.transfer.release_after or 0,
        on_skipped,
    )
    if not step.updates:
        worlds, windows, ratio = step.environment.num_envs, step.batch_size, recipe.algorithm.replay_ratio
        raise UserError(
            f"algorithm.replay_ratio {ratio:g} in {worlds} worlds makes no update of {windows} windows after"
            f" an unroll: lower algorithm.batch_size to {max(1, int(ratio * worlds))}, or raise num_envs to"
            f" {math.ceil(windows / ratio)} or algorithm.replay_ratio to {windows / worlds:g}"
        )
    return step


def make_loop(
    recipe: Recipe,
    world: AnyWorld | None = None,
    on: Sequence[Any] = (),
    on_skipped: OnSkipped | None = None,
) -> Loop:
    """The recipe's loop, nothing compiled yet; for this machine's devices, unless others are given."""
    step = make_train_step(recipe, world, on_skipped)
    schedule = Schedule(step, recipe.total_env_steps, recipe.log_interval)
    world = schedule.train_step.environment.env
    num_devices = recipe.num_devices or devices.default_num_devices()
    if num_devices > 1 and world.not_shared:
        raise UserError(f"{world.not_shared}, or one device")
    return Loop(schedule, range(recipe.seed, recipe.seed + recipe.num_seeds), num_devices, on)
