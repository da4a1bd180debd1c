"""Body x arena x boxes x task: an environment file becomes one compiled model."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import mujoco
import numpy as np
from jaxtyping import Float
from mujoco.mjx import GeomType
from mujoco.mjx._src.collision_driver import has_collision_fn  # the only table of what collides

from mjx_hkl import resources
from mjx_hkl.config import Fraction, from_table, to_table
from mjx_hkl.environments.arenas import ARENAS, Arena, walls_of
from mjx_hkl.environments.bodies import Body, ProprioceptionConfig, load_body
from mjx_hkl.environments.boxes import BoxesConfig, add_boxes
from mjx_hkl.environments.grid import GridConfig
from mjx_hkl.environments.numbers import Distance, Steps
from mjx_hkl.environments.physics import PhysicsConfig, no_log_file, set_options
from mjx_hkl.environments.randomization import RandomizationConfig
from mjx_hkl.environments.renderers import CameraConfig
from mjx_hkl.environments.robots import RobotConfig, adapt, lifted
from mjx_hkl.environments.scene import Stage
from mjx_hkl.environments.tasks import TASKS, Task
from mjx_hkl.errors import UserError
from mjx_hkl.tables import code_in, read_extended
from mjx_hkl.user_code import home_of, require_known

_GEOM = mujoco.mjtGeom


@dataclasses.dataclass(frozen=True)
class EnvironmentConfig:
    """An environment file: `arena` and `task` are tables whose `kind` names their class."""

    body: str  # a name in envs/bodies/, or the path of an .xml file (MJCF)
    arena: Annotated[Arena, ARENAS]
    task: Annotated[Task, TASKS]
    robot: RobotConfig | None = None  # how the body's file is read where it was not made for us
    boxes: BoxesConfig | None = None
    camera: CameraConfig | None = None  # with one, the world has the groups vision and vision_state
    randomization: RandomizationConfig | None = None  # what each episode draws of body, senses and actions
    low_level_information: tuple[str, ...] = ("proprioception",)  # where a recipe does not say (Table 1)
    episode_length: Steps = 400  # control steps until truncation
    upright: Fraction = 0.0  # the episode ends where the torso's up-axis falls to this cosine; 0: never
    min_height: Distance = 0.0  # metres; the episode ends where the torso's origin is lower; 0: never
    physics: PhysicsConfig = PhysicsConfig()
    proprioception: ProprioceptionConfig = ProprioceptionConfig()


@dataclasses.dataclass(frozen=True)
class Composition:
    """What an environment file describes, compiled.

    Attributes:
      model: of body, arena and boxes.
      spec: what it was compiled from.
      body: reads the body's part of it.
      stage: what the task is told of the rest.
      ground: names of the arena's geoms.
      rest: positions at a start, wherever body and boxes are placed then.
      notes: lines for people: what of a robot's file is not used.
    """

    model: mujoco.MjModel
    spec: mujoco.MjSpec
    body: Body
    stage: Stage
    ground: tuple[str, ...]
    rest: Float[np.ndarray, " nq"]
    notes: tuple[str, ...]

    @property
    def is_flat(self) -> bool:
        """Whether the ground is one level plane, the same everywhere."""
        geoms = [self.model.geom(name) for name in self.ground]
        return len(geoms) == 1 and geoms[0].type[0] == _GEOM.mjGEOM_PLANE and geoms[0].quat[0] == 1.0


def load_environment(name: str) -> EnvironmentConfig | GridConfig:
    """The environment of that name in `envs/`, or in a .toml file given by path.

    A file may extend another one: it changes the fields that it names, also inside tables. A table with a
    `kind` replaces the other file's table. Files named inside a file are looked for beside it.

    Raises:
      UserError: it does not exist or says something wrong, or names code that may not run.
    """
    path = resources.find("environment", name, "envs", ".toml")
    table = read_environment(path)
    home = home_of(path)
    if home:
        require_known(code_in(table), home)
    return from_table(GridConfig if "kind" in table else EnvironmentConfig, table, str(path))


def read_environment(path: Path) -> dict[str, Any]:
    """The tables of an environment's file, what it extends among them; see `read_extended`."""
    return read_extended("environment", path, "envs", ("body",))


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
    robot = config.robot and adapt(spec, config.robot)
    collidable = _collidable(spec)
    alone = _compile(spec, config.body)
    own = robot and robot.anatomy(spec, alone)
    body = Body(alone, config.proprioception, own)
    if body.falls and not collidable:
        do = "name [robot] feet and a foot_radius" if robot else "give a geom that shall touch it a contype"
        raise UserError(f"body {config.body!r} falls through the ground: {do}")
    ground = arena.build(spec)
    for geom in spec.geoms:
        geom.contype = geom.conaffinity = 0  # pairs replace marks
    for name in ground:
        if spec.geom(name) is None:
            raise UserError(f"[arena]: build returns {name!r}, which is the name of no geom")
    boxes = _build_boxes(spec, config.boxes, arena, body.mass)
    on_the_ground = boxes if config.boxes and config.boxes.joint == "free" else []
    set_options(spec, config.physics)
    for geom in collidable:
        for other in ground:
            pair = _add_pair(spec, geom, spec.geom(other), geom)
            if robot:
                robot.soften(pair, geom)
        for other in boxes:
            _add_pair(spec, geom, spec.geom(other), spec.geom(other))
    for name in on_the_ground:
        for other in ground:
            _add_pair(spec, spec.geom(name), spec.geom(other), spec.geom(name))
    for i, name in enumerate(boxes):
        for other in boxes[:i]:
            _add_pair(spec, spec.geom(name), spec.geom(other), spec.geom(name))
    model = _compile(spec, config.body)
    rest = np.array(model.qpos0)
    if own:
        rest[: len(own.rest)] = own.rest
        rest = lifted(model, own.torso, rest, ground)
    stage = Stage(
        arena,
        config.boxes,
        body.radius,
        config.episode_length,
        config.physics.timestep * config.physics.substeps,
        body.joint_names,
        body.actuator_names,
        body.foot_names,
    )
    return Composition(model, spec, body, stage, tuple(ground), rest, robot.notes if robot else ())


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


def _add_pair(
    spec: mujoco.MjSpec, a: mujoco.MjsGeom, b: mujoco.MjsGeom, surface: mujoco.MjsGeom
) -> mujoco.MjsPair:
    """A pair that collides as `surface` says."""
    low, high = sorted(GeomType(int(geom.type)) for geom in (a, b))
    if not has_collision_fn(low, high):
        raise UserError(
            f"geom {a.name!r} is a {_kind(a)}, which cannot collide with the {_kind(b)} {b.name!r}; use a"
            " sphere, capsule or box, or set its contype to 0"
        )
    slide, spin, roll = surface.friction
    return spec.add_pair(
        geomname1=a.name, geomname2=b.name, condim=surface.condim, friction=[slide, slide, spin, roll, roll]
    )


def _kind(geom: mujoco.MjsGeom) -> str:
    return _GEOM(geom.type).name.removeprefix("mjGEOM_").lower()


def _compile(spec: mujoco.MjSpec, name: str) -> mujoco.MjModel:
    try:
        with no_log_file():
            return spec.compile()
    except ValueError as error:
        raise UserError(f"body {name!r}: {' '.join(str(error).split())}") from error
