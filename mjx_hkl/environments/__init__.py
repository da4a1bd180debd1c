"""The worlds: bodies, arenas, tasks, physics engines, and many of them at once."""

import contextlib
import io
from typing import overload

# mujoco.mjx prints to stdout where the optional warp is absent; stdout belongs to --json.
with contextlib.redirect_stdout(io.StringIO()):
    import mujoco.mjx  # noqa: F401

from mjx_hkl.environments.adapter import AdaptedWorld, FlatWorld
from mjx_hkl.environments.composition import EnvironmentConfig, load_environment
from mjx_hkl.environments.foreign import is_foreign, load_foreign
from mjx_hkl.environments.grid import GridConfig, GridWorld
from mjx_hkl.environments.physics_world import PhysicsWorld
from mjx_hkl.environments.several import (
    TASK,
    AnyWorld,
    SeveralState,
    SeveralWorlds,
    Worlds,
    many,
    task_name,
)
from mjx_hkl.environments.vectorized import Timestep, VectorEnvironment, VectorState
from mjx_hkl.environments.world import World
from mjx_hkl.errors import UserError, unknown_name


@overload
def make_world(name: str, engine: str = ..., renderer: str = ...) -> World: ...


@overload
def make_world(name: tuple[str, ...], engine: str = ..., renderer: str = ...) -> SeveralWorlds: ...


def make_world(name: str | tuple[str, ...], engine: str = "auto", renderer: str = "auto") -> AnyWorld:
    """The world of an environment in `envs/` or a file, or one that `load_foreign` knows, like `brax:NAME`.

    Of several names, the worlds of one agent that acts in all of them, by `task_name`.

    Raises:
      UserError: there is none, or it says something wrong, or several do not suit one agent.
    """
    if not isinstance(name, str):
        return SeveralWorlds({task_name(each): make_world(each, engine, renderer) for each in name})
    if is_foreign(name):
        return load_foreign(name, engine)
    config = load_environment(name)
    if not isinstance(config, GridConfig):
        world = PhysicsWorld(config, engine, renderer)
        for group in config.low_level_information:
            if group not in world.observation_specs:
                unknown = unknown_name("observation group", group, world.observation_specs)
                raise UserError(f"{name}: low_level_information: {unknown}")
        return world
    if engine != "auto":
        raise UserError(f"{name} has no physics and takes no engine, not {engine!r}")
    return GridWorld(config)


def make_worlds(name: str | tuple[str, ...], num_envs: int, engine: str = "auto") -> Worlds:
    """Many copies of the world that `make_world` makes, stepped side by side; of several as many of each.

    Raises:
      UserError: there is none, or it says something wrong.
    """
    return many(make_world(name, engine), num_envs)


__all__ = [
    "TASK",
    "AdaptedWorld",
    "AnyWorld",
    "EnvironmentConfig",
    "FlatWorld",
    "GridConfig",
    "GridWorld",
    "PhysicsWorld",
    "SeveralState",
    "SeveralWorlds",
    "Timestep",
    "VectorEnvironment",
    "VectorState",
    "World",
    "Worlds",
    "load_environment",
    "make_world",
    "make_worlds",
    "many",
    "task_name",
]
