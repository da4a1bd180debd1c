"""Body x arena x boxes x task: an environment file becomes one compiled model."""

import dataclasses
from typing import Annotated, Any

import mujoco

from mjx_hkl import resources
from mjx_hkl.config import Fraction, from_table, to_table
from mjx_hkl.environments.arenas import ARENAS, Arena, walls_of
from mjx_hkl.environments.bodies import Body, ProprioceptionConfig, load_body
from mjx_hkl.environments.boxes import BoxesConfig, add_boxes
from mjx_hkl.environments.grid import GridConfig
from mjx_hkl.environments.numbers import Steps
from mjx_hkl.environments.physics import PhysicsConfig, set_options
from mjx_hkl.environments.scene import Stage
from mjx_hkl.environments.tasks import TASKS, Task
from mjx_hkl.errors import UserError
from mjx_hkl.tables import read_extended

_GEOM = mujoco.mjtGeom
# What MJX collides; a plane takes cylinders and ellipsoids too.
_WITH_BOX = (_GEOM.mjGEOM_SPHERE, _GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_BOX, _GEOM.mjGEOM_MESH)
_WITH_PLANE = (*_WITH_BOX, _GEOM.mjGEOM_CYLINDER, _GEOM.mjGEOM_ELLIPSOID)


@dataclasses.dataclass(frozen=True)
class EnvironmentConfig:
    """An environment file: `arena` and `task` are tables whose `kind` names their class."""

    body: str
    arena: Annotated[Arena, ARENAS]
    task: Annotated[Task, TASKS]
    boxes: BoxesConfig | None = None
    low_level_information: tuple[str, ...] = ("proprioception",)  # where a recipe does not say (Table 1)
    episode_length: Steps = 400  # control steps until truncation
    upright: Fraction = 0.0  # the episode ends where the torso's up-axis falls to this cosine; 0: never
    physics: PhysicsConfig = PhysicsConfig()
    proprioception: ProprioceptionConfig = ProprioceptionConfig()


@dataclasses.dataclass(frozen=True)
class Composition:
    """What an environment file describes, compiled."""

    model: mujoco.MjModel
    body: Body
    stage: Stage
    task: Task


def load_environment(name: str) -> EnvironmentConfig | GridConfig:
    """The environment of that name in `envs/`, or in a .toml file given by path.

    A file may extend another one: it changes the fields that it names, also inside tables. A table with a `kind`
    replaces the other file's table. Files named inside a file are looked for beside it.

    Raises:
      UserError: it does not exist or says something wrong.
    """
    path = resources.find("environment", name, "envs", ".toml")
    table = read_extended("environment", path, "envs", ("body",))
    return from_table(GridConfig if "kind" in table else EnvironmentConfig, table, str(path))


def complete_description(table: dict[str, Any]) -> dict[str, Any]:
    """A world's description as an older agent or checkpoint keeps it, with today's fields at their defaults.

    What this version cannot read stays as it is.
    """
    try:
        return to_table(from_table(EnvironmentConfig, table, "description"))
    except UserError:
        return table


def compose(config: EnvironmentConfig) -> Composition:
    """Compiles the model of an environment.

    Collisions are explicit pairs, and no others: the body's collidable geoms with the ground and with
    boxes, and boxes with each other.

    Raises:
      UserError: a part is unknown, does not fit the others, or does not compile.
    """
    arena = config.arena
    spec = load_body(config.body)
    collidable = _collidable(spec)
    body = Body(_compile(spec, config.body), config.proprioception)
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0  # pairs replace marks
    ground = arena.build(spec)
    boxes = _build_boxes(spec, config.boxes, arena, body.mass)
    on_the_ground = boxes if config.boxes and config.boxes.joint == "free" else []
    set_options(spec, config.physics)
    for geom in collidable:
        for other in ground:
            _add_pair(spec, geom, spec.geom(other), geom)
        for other in boxes:
            _add_pair(spec, geom, spec.geom(other), spec.geom(other))
    for name in on_the_ground:
        for other in ground:
            _add_pair(spec, spec.geom(name), spec.geom(other), spec.geom(name))
    for i, name in enumerate(boxes):
        for other in boxes[:i]:
            _add_pair(spec, spec.geom(name), spec.geom(other), spec.geom(name))
    model = _compile(spec, config.body)
    return Composition(model, body, Stage(arena, config.boxes, body.radius), config.task)


def _build_boxes(
    spec: mujoco.MjSpec, config: BoxesConfig | None, arena: Arena, body_mass: float
) -> list[str]:
    if config is None:
        return []
    walls_at = walls_of(arena)
    limit = None if walls_at is None else walls_at - config.clearance
    return add_boxes(spec, config, config.mass_ratio * body_mass, limit)


def _collidable(spec: mujoco.MjSpec) -> list[mujoco.MjsGeom]:
    """The geoms of a body marked as collidable."""
    found = []
    for geom in spec.geoms:
        if geom.contype or geom.conaffinity:
            if not geom.name:
                raise UserError(f"body {spec.modelname!r}: a geom with a contype needs a name")
            if geom.parent == spec.worldbody:
                raise UserError(
                    f"body {spec.modelname!r}: geom {geom.name!r} collides but belongs to no body that can"
                    " move; ground and walls are the arena's"
                )
            found.append(geom)
    return found


def _add_pair(spec: mujoco.MjSpec, a: mujoco.MjsGeom, b: mujoco.MjsGeom, surface: mujoco.MjsGeom) -> None:
    """A pair that collides as `surface` says."""
    supported = _WITH_PLANE if _GEOM.mjGEOM_PLANE in (a.type, b.type) else _WITH_BOX
    for geom in (a, b):
        if geom.type not in (*supported, _GEOM.mjGEOM_PLANE):
            kind = _GEOM(geom.type).name.removeprefix("mjGEOM_").lower()
            other = b if geom is a else a
            raise UserError(
                f"geom {geom.name!r} is a {kind}, which cannot collide with the box {other.name!r}; use a"
                " sphere, capsule or box, or set its contype to 0"
            )
    slide, spin, roll = surface.friction
    spec.add_pair(
        geomname1=a.name, geomname2=b.name, condim=surface.condim, friction=[slide, slide, spin, roll, roll]
    )


def _compile(spec: mujoco.MjSpec, name: str) -> mujoco.MjModel:
    try:
        return spec.compile()
    except ValueError as error:
        raise UserError(f"body {name!r}: {' '.join(str(error).split())}") from error
