"""Body x arena x boxes x task: an environment file becomes one compiled model."""

import dataclasses
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import mujoco

from mjx_hkl import resources
from mjx_hkl.config import Fraction, Positive, from_table
from mjx_hkl.environments.arenas import ARENAS, Arena, walls_of
from mjx_hkl.environments.bodies import Body, ProprioceptionConfig, load_body
from mjx_hkl.environments.boxes import BoxesConfig, add_boxes
from mjx_hkl.environments.grid import GridConfig
from mjx_hkl.environments.physics import PhysicsConfig, set_options
from mjx_hkl.environments.scene import Stage
from mjx_hkl.environments.tasks import TASKS, Task
from mjx_hkl.errors import UserError, unknown_name

_GEOM = mujoco.mjtGeom
# What MJX collides; a plane takes cylinders and ellipsoids too.
_WITH_BOX = (_GEOM.mjGEOM_SPHERE, _GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_BOX, _GEOM.mjGEOM_MESH)
_WITH_PLANE = (*_WITH_BOX, _GEOM.mjGEOM_CYLINDER, _GEOM.mjGEOM_ELLIPSOID)


@dataclasses.dataclass(frozen=True)
class EnvironmentConfig:
    """An environment file: `arena` and `task` are tables whose `kind` names their class."""

    body: str
    arena: dict[str, Any]
    task: dict[str, Any]
    boxes: BoxesConfig | None = None
    low_level_information: tuple[str, ...] = ("proprioception",)  # where a recipe does not say (Table 1)
    episode_length: Positive = 400  # control steps until truncation
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

    A file may extend another one: its fields and tables replace those it names, its tables are merged
    field by field, unless they say their own `kind`. Files named inside a file are looked for beside it.

    Raises:
      UserError: it does not exist or says something wrong.
    """
    path = resources.find("environment", name, "envs", ".toml")
    table = _read(path, ())
    return from_table(GridConfig if "kind" in table else EnvironmentConfig, table, str(path))


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path in seen:
        raise UserError(f"{path} extends itself")
    table = resources.read_toml(path)
    for field in ("extends", "body"):
        if isinstance(table.get(field), str):
            table[field] = resources.beside(path, table[field])
    for part in ("arena", "task"):
        kind = table[part].get("kind") if isinstance(table.get(part), dict) else None
        if isinstance(kind, str) and ":" in kind:
            file, name = kind.rsplit(":", 1)
            table[part]["kind"] = f"{resources.beside(path, file)}:{name}"
    if "extends" not in table:
        return table
    base = resources.find("environment", str(table.pop("extends")), "envs", ".toml")
    return _merged(_read(base, (*seen, path)), table)


def _merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for name, value in change.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        merged[name] = base[name] | value if both and "kind" not in value else value
    return merged


def build(table: dict[str, Any], kinds: dict[str, type], what: str) -> Any:
    """The arena or task a table describes; a kind `path/to/file.py:Class` or `module:Class` is imported.

    Raises:
      UserError: its `kind` is missing or unknown, or a field is wrong.
    """
    fields = dict(table)
    kind = fields.pop("kind", None)
    if not isinstance(kind, str):
        raise UserError(f"[{what}] needs a kind; known: {', '.join(kinds)}")
    if ":" in kind:
        return from_table(_import(kind, what), fields, f"[{what}]")
    if kind not in kinds:
        raise unknown_name(f"{what} kind", kind, kinds)
    return from_table(kinds[kind], fields, f"[{what}]")


def _import(kind: str, what: str) -> type:
    place, name = kind.rsplit(":", 1)
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
        found = getattr(module, name)
    except (ImportError, OSError, SyntaxError, AttributeError) as error:
        raise UserError(f"{what} kind {kind!r} cannot be imported: {error}") from error
    methods = ("build", "height", "is_out") if what == "arena" else ("reset", "observe", "reward")
    lacking = [method for method in methods if not callable(getattr(found, method, None))]
    if lacking or not dataclasses.is_dataclass(found):
        raise UserError(f"{what} kind {kind!r} must be a dataclass with methods {', '.join(methods)}")
    return found  # pyright: ignore[reportReturnType]


def compose(config: EnvironmentConfig) -> Composition:
    """Compiles the model of an environment.

    Collisions are explicit pairs, and no others: the body's collidable geoms with the ground and with
    boxes, and boxes with each other.

    Raises:
      UserError: a part is unknown, does not fit the others, or does not compile.
    """
    arena: Arena = build(config.arena, ARENAS, "arena")
    task: Task = build(config.task, TASKS, "task")
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
    return Composition(model, body, Stage(arena, config.boxes, body.radius), task)


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
