"""Robots: MJCF that was made for MuJoCo alone, such as MuJoCo Menagerie's, read as a body.

What a scene has around its robot goes: ground, light and sky are the arena's, and collisions are our pairs.
What moves the robot stays: joints, inertias, actuators, tendons, equality constraints.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import mujoco
import numpy as np
from jaxtyping import Float

from mjx_hkl.environments.bodies import END_EFFECTORS, Anatomy
from mjx_hkl.environments.numbers import Amount, Metres
from mjx_hkl.environments.physics import Servos, servos_of
from mjx_hkl.errors import UserError, unknown_name

_GEOM = mujoco.mjtGeom
_UPRIGHT = 0.99  # cosine of the torso's up-axis at a start, at least: 8 degrees


@dataclasses.dataclass(frozen=True)
class RobotConfig:
    """The `[robot]` table of an environment file: how the body's file is read."""

    torso: str = ""  # a body; by default the one that has a free joint
    feet: tuple[str, ...] = ()  # geoms, bodies or sites; by default as in our own bodies
    foot_radius: Metres | None = (
        None  # metres; of a sphere at each of the feet that is a site, or a body without
    )
    key: str = "home"  # key frame of the start; empty: the file's own pose
    action_scale: Amount | None = (
        None  # of servos, rad or m around the start; by default to the ends of ranges
    )
    collides: Literal["all", "feet"] = "all"  # meshes never do


@dataclasses.dataclass(frozen=True)
class Robot:
    """A robot whose file has been read.

    Attributes:
      config: the table.
      torso: the name of its body.
      feet: the names of their geoms.
      notes: lines for people: what of the file is not used.
    """

    config: RobotConfig
    torso: str
    feet: tuple[str, ...]
    notes: tuple[str, ...]

    def anatomy(self, spec: mujoco.MjSpec, model: mujoco.MjModel) -> Anatomy:
        """How it starts and is controlled. The file's key frames go from the spec: they fit no world.

        Args:
          spec: of the robot alone.
          model: what it was compiled to.

        Raises:
          UserError: there is no such key frame, or not upright, or `action_scale` has nothing to scale.
        """
        qpos, control = np.array(model.qpos0), None
        if self.config.key:
            qpos, control = _key(spec, model, self.config.key)
        for key in list(spec.keys):
            spec.delete(key)
        turn = model.jnt_qposadr[model.body(self.torso).jntadr[0]] + np.arange(3, 7)
        _require_upright(qpos[turn], self.config.key)
        qpos[turn] = [1, 0, 0, 0]  # it heads where a task says
        servos, scale = servos_of(model), self.config.action_scale
        if scale and not len(servos):
            raise UserError("[robot]: action_scale is of position actuators, and the body has none")
        lengths = model.actuator_gear[servos, 0] * qpos[model.jnt_qposadr[model.actuator_trnid[servos, 0]]]
        centre = lengths if control is None else control[servos]
        return Anatomy(self.torso, self.feet, qpos, Servos(servos, centre, scale))

    def soften(self, pair: mujoco.MjsPair, geom: mujoco.MjsGeom) -> None:
        """Makes a contact with the ground as soft and as early as the file says of the geom."""
        pair.solref, pair.solimp, pair.margin, pair.gap = geom.solref, geom.solimp, geom.margin, geom.gap


def adapt(spec: mujoco.MjSpec, config: RobotConfig) -> Robot:
    """Makes the model of a robot in its scene the model of a body alone.

    Raises:
      UserError: there is no such torso or foot, or it is not what is needed.
    """
    torso = _torso(spec, config.torso)
    torso.name = torso.name or "torso"
    _leave_out_scene(spec, torso)
    feet = tuple(_foot(spec, name, config.foot_radius) for name in config.feet)
    if not feet:
        feet = tuple(geom.name for geom in spec.geoms if geom.name.endswith(END_EFFECTORS))
    notes = [_without_collisions(spec, feet, config.collides), _without_options(spec.option)]
    for number, geom in enumerate(spec.geoms):
        if _collides(geom) and not geom.name:
            geom.name = f"{geom.parent.name}_geom{number}"
    return Robot(config, torso.name, feet, tuple(filter(None, notes)))


def lifted(
    model: mujoco.MjModel, torso: str, rest: Float[np.ndarray, " nq"], ground: Sequence[str]
) -> Float[np.ndarray, " nq"]:
    """The positions of a start, the torso raised until no part of the body is in the ground."""
    data, below = mujoco.MjData(model), {model.geom(name).id for name in ground}
    data.qpos[:] = rest
    mujoco.mj_fwdPosition(model, data)
    depths = [-contact.dist for contact in data.contact if below & set(contact.geom)]
    raised = np.array(rest)
    raised[model.jnt_qposadr[model.body(torso).jntadr[0]] + 2] += max([0.0, *depths])
    return raised


def _torso(spec: mujoco.MjSpec, name: str) -> mujoco.MjsBody:
    """The body of that name, or the one that has a free joint."""
    free = [body for body in spec.bodies if any(j.type == mujoco.mjtJoint.mjJNT_FREE for j in body.joints)]
    if not name:
        if len(free) != 1:
            have = f"{len(free)} bodies have: say which is the torso" if free else "no body of its file has"
            raise UserError(f"[robot]: a robot needs a free joint, which {have}")
        return free[0]
    torso = spec.body(name)
    if torso is None or torso == spec.worldbody:
        known = [body.name for body in spec.bodies if body.name and body != spec.worldbody]
        raise unknown_name("body for [robot] torso", name, known)
    if torso not in free:
        having = f"; {' and '.join(repr(body.name) for body in free)} has one" if free else ""
        raise UserError(f"[robot]: torso {name!r} has no free joint{having}")
    return torso


def _leave_out_scene(spec: mujoco.MjSpec, torso: mujoco.MjsBody) -> None:
    """Ground, other bodies, light and sky; sensors, which nobody reads; pairs, which name the ground."""
    scenery = [body for body in spec.worldbody.bodies if body != torso]
    scenery += [geom for geom in spec.geoms if geom.parent == spec.worldbody]
    scenery += [texture for texture in spec.textures if texture.type == mujoco.mjtTexture.mjTEXTURE_SKYBOX]
    # Bodies last: what is on them or names them goes with them.
    for element in (*spec.lights, *spec.sensors, *spec.pairs, *spec.excludes, *reversed(scenery)):
        spec.delete(element)


def _foot(spec: mujoco.MjSpec, name: str, radius: float | None) -> str:
    """The name of the geom that is this foot; it collides."""
    geom = spec.geom(name) or _sphere_of(spec.body(name))
    if geom is None:
        geom = _sphere_at(spec, name, radius)
    if geom.type != _GEOM.mjGEOM_SPHERE:
        kind = _GEOM(geom.type).name.removeprefix("mjGEOM_").lower()
        raise UserError(
            f"[robot] feet: geom {name!r} is a {kind}, and feet are spheres; name a site or body there, and"
            " say foot_radius"
        )
    geom.name = geom.name or name
    geom.contype = 1
    return geom.name


def _sphere_of(body: mujoco.MjsBody | None) -> mujoco.MjsGeom | None:
    """The only sphere of a body that collides; None where it has none, or several."""
    spheres = [g for g in body.geoms if g.type == _GEOM.mjGEOM_SPHERE and _collides(g)] if body else []
    return spheres[0] if len(spheres) == 1 else None


def _sphere_at(spec: mujoco.MjSpec, name: str, radius: float | None) -> mujoco.MjsGeom:
    """A new massless sphere at the origin of that body or at that site."""
    body, site = spec.body(name), spec.site(name)
    if body is None and site is None:
        known = {x.name for x in (*spec.geoms, *spec.bodies, *spec.sites) if x.name}
        raise unknown_name("geom, body or site for [robot] feet", name, known - {"world"})
    if radius is None:
        what = f"body {name!r} has not one sphere that collides" if body else f"{name!r} is a site"
        raise UserError(f"[robot] feet: {what}; say foot_radius, in metres, to put one there")
    place = [0.0, 0.0, 0.0] if body else site.pos
    geom = (body or site.parent).add_geom(
        name=name, type=_GEOM.mjGEOM_SPHERE, size=[radius, 0, 0], pos=place, mass=0, group=3
    )
    if body is None and site.frame is not None:
        geom.set_frame(site.frame)
    return geom


def _without_collisions(spec: mujoco.MjSpec, feet: tuple[str, ...], collides: str) -> str:
    """Switches off what shall not collide; what to tell people of it."""
    meshes = 0
    for geom in filter(_collides, spec.geoms):
        is_mesh = geom.type == _GEOM.mjGEOM_MESH
        meshes += is_mesh
        if is_mesh or (collides == "feet" and geom.name not in feet):
            geom.contype = geom.conaffinity = 0
    return f"collision meshes of the robot, {meshes} in all, are seen and touch nothing" if meshes else ""


def _without_options(option: mujoco.MjOption) -> str:
    """Sets what every engine can do; what to tell people of it."""
    if option.integrator == mujoco.mjtIntegrator.mjINT_IMPLICIT:
        option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    if option.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL and option.impratio == 1:
        return ""
    option.cone, option.impratio = mujoco.mjtCone.mjCONE_PYRAMIDAL, 1.0
    return "friction cones are pyramidal with impratio 1 on every engine, whatever the robot's file says"


def _key(
    spec: mujoco.MjSpec, model: mujoco.MjModel, name: str
) -> tuple[Float[np.ndarray, " nq"], Float[np.ndarray, " nu"] | None]:
    """Positions and controls of a key frame; None where it says no controls."""
    known = [model.key(i).name for i in range(model.nkey)]
    if name not in known:
        error = unknown_name("key frame for [robot] key", name, known)
        raise UserError(f'{error}; key = "" starts in the pose of the file')
    key = model.key(name)
    return np.array(key.qpos), np.array(key.ctrl) if np.size(spec.key(name).ctrl) else None


def _require_upright(quaternion: Float[np.ndarray, " 4"], key: str) -> None:
    up = 1 - 2 * np.sum(quaternion[1:3] ** 2)
    if up < _UPRIGHT:
        where = f"key frame {key!r}" if key else "pose of the file"
        raise UserError(
            f"[robot]: in the {where} the torso's z-axis is {np.degrees(np.arccos(up)):.0f} degrees from the"
            " vertical, and a start is upright"
        )


def _collides(geom: mujoco.MjsGeom) -> bool:
    return bool(geom.contype or geom.conaffinity)
