"""Body x arena x task: an environment file becomes one compiled model."""

import dataclasses
from typing import Any

import mujoco

from mjx_hkl import resources
from mjx_hkl.config import Fraction, Positive, from_table
from mjx_hkl.environments.arenas import ARENAS, FLOOR, Area
from mjx_hkl.environments.bodies import ProprioceptionConfig, load_body
from mjx_hkl.environments.physics import PhysicsConfig, set_options
from mjx_hkl.environments.tasks import TASKS, Task
from mjx_hkl.errors import UserError, unknown_name


@dataclasses.dataclass(frozen=True)
class EnvironmentConfig:
    """An environment file: `arena` and `task` are tables whose `kind` names their class."""

    body: str
    arena: dict[str, Any]
    task: dict[str, Any]
    episode_length: Positive = 400  # control steps until truncation
    upright: Fraction = 0.0  # the episode ends where the torso's up-axis falls to this cosine; 0: never
    physics: PhysicsConfig = PhysicsConfig()
    proprioception: ProprioceptionConfig = ProprioceptionConfig()


def load_environment(name: str) -> EnvironmentConfig:
    """The environment of that name in `envs/`, or in a .toml file given by path.

    Raises:
      UserError: it does not exist or says something wrong.
    """
    path = resources.find("environment", name, "envs", ".toml")
    return from_table(EnvironmentConfig, resources.read_toml(path), str(path))


def build(table: dict[str, Any], kinds: dict[str, type], what: str) -> Any:
    """The arena or task a table describes.

    Raises:
      UserError: its `kind` is missing or unknown, or a field is wrong.
    """
    fields = dict(table)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str):
        raise UserError(f"[{what}] needs a kind; known: {', '.join(kinds)}")
    if kind not in kinds:
        raise unknown_name(f"{what} kind", kind, kinds)
    return from_table(kinds[kind], fields, f"[{what}]")


def compose(config: EnvironmentConfig) -> tuple[mujoco.MjModel, Area, Task]:
    """Compiles the model of an environment, with its arena and task.

    Collisions are the explicit pairs of the floor with the body's collidable geoms, and no others.

    Raises:
      UserError: a part is unknown or the model does not compile.
    """
    arena: Area = build(config.arena, ARENAS, "arena")
    task: Task = build(config.task, TASKS, "task")
    spec = load_body(config.body)
    collidable = _take_collidable(spec)
    arena.build(spec)
    set_options(spec, config.physics)
    for geom in collidable:
        slide, spin, roll = geom["friction"]
        spec.add_pair(
            geomname1=FLOOR,
            geomname2=geom["name"],
            condim=geom["condim"],
            friction=[slide, slide, spin, roll, roll],
        )
    try:
        return spec.compile(), arena, task
    except ValueError as error:
        raise UserError(f"body {config.body!r}: {' '.join(str(error).split())}") from error


def _take_collidable(body: mujoco.MjSpec) -> list[dict[str, Any]]:
    """Contact parameters of the geoms marked collidable, which are then unmarked: pairs replace marks."""
    found = []
    for geom in body.geoms:
        if geom.contype or geom.conaffinity:
            if not geom.name:
                raise UserError(f"body {body.modelname!r}: a geom with a contype needs a name")
            found.append({"name": geom.name, "condim": geom.condim, "friction": list(geom.friction)})
            geom.contype = geom.conaffinity = 0
    return found
