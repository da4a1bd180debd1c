"""Bodies: an MJCF file with a few named parts, and what the body feels of itself.

The parts of a file that was made for us: the body `torso`, carried either by a free joint or by slides x, y,
z and an upright hinge (in that order); geoms whose name ends in `foot` or `hand` are end effectors, spheres;
geoms with a contype collide with the ground and with boxes. For other files see `robots.py`.
"""

import dataclasses
import html
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import flax.struct
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from mjx_hkl import resources
from mjx_hkl.environments.forces import Forces
from mjx_hkl.environments.limbs import Limbs
from mjx_hkl.environments.numbers import Amount
from mjx_hkl.environments.outlines import outline
from mjx_hkl.environments.physics import PhysicsState, Servos, no_log_file
from mjx_hkl.environments.rotations import quaternion_matrix, seen_from, turn_matrix, turn_quaternion, turned
from mjx_hkl.errors import UserError

_JOINT = mujoco.mjtJoint
_FILES = re.compile(r"""\b(file\w*|\w*dir)\s*=\s*(["'])(.*?)\2""")  # attributes that name files and folders
END_EFFECTORS = ("foot", "hand")  # ends of their geoms' names
GroundHeight = Callable[[Float[Array, "n 2"], PhysicsState], Float[Array, " n"]]


@dataclasses.dataclass(frozen=True)
class ProprioceptionConfig:
    """The `[proprioception]` table: units that bring what the body feels to the order of one."""

    joint_velocity_unit: Amount = 10.0  # rad/s
    velocity_unit: Amount = 2.0  # m/s, velocimeter
    angular_velocity_unit: Amount = 5.0  # rad/s, gyro
    acceleration_unit: Amount = 50.0  # m/s^2, accelerometer
    max_acceleration: Amount = 5.0  # in that unit; impacts are clipped


@flax.struct.dataclass
class Frame:
    """Pose and motion of the torso.

    Attributes:
      position: of the torso's origin in the world, metres.
      rotation: torso axes in the world, as columns.
      heading: direction of the torso's x-axis over the ground, radians.
      velocity: linear, world frame, m/s.
      angular_velocity: torso frame, rad/s.
      acceleration: linear, world frame, without gravity, m/s^2.
    """

    position: Float[Array, " 3"]
    rotation: Float[Array, "3 3"]
    heading: Float[Array, ""]
    velocity: Float[Array, " 3"]
    angular_velocity: Float[Array, " 3"]
    acceleration: Float[Array, " 3"]

    def egocentric(self, points: Float[Array, "*n axes"]) -> Float[Array, "*n axes"]:
        """World points in the heading frame: x ahead, y to the left and, where given, z above; metres."""
        axes = points.shape[-1]
        return seen_from(turn_matrix(self.heading)[:axes, :axes], points - self.position[:axes])


@dataclasses.dataclass(frozen=True)
class Anatomy:
    """What a body's file calls its parts, how it starts, and what its position actuators are given.

    Attributes:
      torso: name of its body.
      feet: names of its end effectors' geoms.
      rest: positions at a start, wherever the torso is placed then.
      servos: position actuators that actions move around a start's control; None: actions span all ranges.
    """

    torso: str
    feet: tuple[str, ...]
    rest: Float[np.ndarray, " nq"]
    servos: Servos | None = None

    @classmethod
    def of(cls, model: mujoco.MjModel) -> "Anatomy":
        """Of a file that was made for us."""
        names = [model.geom(i).name for i in range(model.ngeom)]
        return cls("torso", tuple(x for x in names if x.endswith(END_EFFECTORS)), np.array(model.qpos0))


def load_body(name: str) -> mujoco.MjSpec:
    """The MJCF of a body: a name from `envs/bodies/` or a path to an .xml file.

    Raises:
      UserError: there is no such body, or the file is not valid MJCF.
    """
    path = resources.find("body", name, "envs/bodies", ".xml")
    try:
        with no_log_file():
            return mujoco.MjSpec.from_file(str(path))
    except ValueError as error:
        raise UserError(f"body {name!r}: {' '.join(str(error).split())}") from error


def files_of_body(path: Path) -> list[Path]:
    """A body's MJCF file, and what it includes and names: other models, meshes, textures, height fields.

    Files are looked for in all folders that MuJoCo may look in; `mju_getXMLDependencies` leaves out some.
    """
    found, before = {path}, set()
    while found != before:
        before = set(found)
        attributes = [
            (file.parent, name, html.unescape(value))
            for file in before
            if file.suffix == ".xml"
            for name, _, value in _FILES.findall(file.read_text(encoding="utf-8", errors="replace"))
        ]
        folders = {folder / value for folder, name, value in attributes if name.endswith("dir")}
        folders |= {folder for folder, _, _ in attributes}
        names = {value for _, name, value in attributes if name.startswith("file")}
        names |= {Path(name).name for name in names}  # of a compiler with strippath
        places = {Path(os.path.abspath(folder / name)) for folder in folders for name in names}
        found |= {place for place in places if place.is_file()}
    return [path, *sorted(found - {path})]


class Body:
    """Reads a body's pose and proprioception from the physics state.

    Its model is that of the body alone; in a world's model the body comes first, so that its positions
    and velocities begin at the same places.

    Attributes:
      mass: kg.
      radius: from the torso's centre to the outermost part that collides, over the ground, metres.
      falls: whether nothing but a collision holds it up.
      num_links: bodies of its model, the ground's among them.
      num_velocities: of its model.
      feet: from positions to the centres of the end effectors in the torso frame, metres.
      foot_radius: of these, metres.
      forces: of the actuators.
      anatomy: names of its parts, and how it starts.
      joint_names: of those beyond the torso; `actuator_names`, `foot_names` likewise.
    """

    def __init__(self, model: mujoco.MjModel, config: ProprioceptionConfig, anatomy: Anatomy | None = None):
        self.anatomy = anatomy = anatomy or Anatomy.of(model)
        try:
            torso = model.body(anatomy.torso)
        except KeyError as error:
            raise UserError("the body has no part named 'torso'") from error
        self._config = config
        self._model, self._torso = model, torso.id
        root = [model.joint(torso.jntadr[0] + i) for i in range(torso.jntnum[0])]
        self._free = [joint.type[0] for joint in root] == [_JOINT.mjJNT_FREE]
        _require_root(model, torso.id, root, anatomy.rest)
        self._root_qpos = root[0].qposadr[0]
        self._root_qvel = root[0].dofadr[0]
        self._spawn = jnp.asarray(model.body_pos[torso.id], jnp.float32)
        self._gravity = np.array(model.opt.gravity)

        own = [model.joint(i) for i in range(model.njnt) if model.jnt_bodyid[i] != torso.id]
        self.joint_names = tuple(joint.name for joint in own)
        self._own_qpos = np.array([joint.qposadr[0] for joint in own], int)
        # The angle of an unlimited hinge is not felt: a wheel is the same at every angle.
        self._joint_qpos = np.array([j.qposadr[0] for j in own if model.jnt_limited[j.id]], int)
        self._joint_qvel = np.array([j.dofadr[0] for j in own], int)
        feet = np.array([model.geom(name).id for name in anatomy.feet], int)
        self.foot_radius = model.geom_size[feet, 0]
        self.foot_names = anatomy.feet
        self.actuator_names = tuple(model.actuator(i).name for i in range(model.nu))
        if (model.geom_type[feet] != mujoco.mjtGeom.mjGEOM_SPHERE).any():
            raise UserError("the body's geoms whose name ends in 'foot' or 'hand' must be spheres")
        _require_felt(own)
        _require_dynamics(model)
        self.feet = Limbs(model, feet, torso.id)
        self.forces = Forces(model, anatomy.servos)
        self.num_links, self.num_velocities = model.nbody, model.nv
        self.mass = float(model.body_subtreemass[torso.id])
        self.radius = _radius(model, torso.id, anatomy.rest)
        vertical = root[0 if self._free else 2]
        self.falls = bool(self._gravity.any() and not model.jnt_limited[vertical.id])

    def place(
        self, qpos: Float[Array, " nq"], position: Float[Array, " 2"], heading: Float[Array, ""]
    ) -> Float[Array, " nq"]:
        """`qpos` with the torso at a ground position, upright, facing `heading` (radians)."""
        at = self._root_qpos
        if not self._free:
            return qpos.at[at : at + 2].set(position - self._spawn[:2]).at[at + 3].set(heading)
        return qpos.at[at : at + 2].set(position).at[at + 3 : at + 7].set(turn_quaternion(heading))

    def pushed(self, qvel: Float[Array, " nv"], change: Float[Array, " 2"]) -> Float[Array, " nv"]:
        """`qvel` with the torso's velocity over the ground changed by so much, m/s."""
        return qvel.at[self._root_qvel : self._root_qvel + 2].add(change)

    def pose(self, qpos: Float[Array, " nq"]) -> tuple[Float[Array, " 3"], Float[Array, "3 3"]]:
        """Where the torso's origin is in the world, metres, and its axes there as columns."""
        root = qpos[self._root_qpos :]
        if self._free:
            return root[:3], quaternion_matrix(root[3:7])
        return self._spawn + root[:3], turn_matrix(root[3])

    def frame(self, state: PhysicsState) -> Frame:
        """Pose and motion of the torso, from positions, velocities and accelerations alone."""
        position, rotation = self.pose(state.qpos)
        qvel, qacc = state.qvel[self._root_qvel :], state.qacc[self._root_qvel :]
        angular_velocity = qvel[3:6] if self._free else jnp.zeros(3).at[2].set(qvel[3])
        heading = jnp.arctan2(rotation[1, 0], rotation[0, 0])
        return Frame(position, rotation, heading, qvel[:3], angular_velocity, qacc[:3])

    def joint_positions(self, state: PhysicsState) -> Float[Array, " joints"]:
        """Of the joints beyond the torso, radians or metres."""
        return state.qpos[self._own_qpos]

    def joint_velocities(self, state: PhysicsState) -> Float[Array, " joints"]:
        """Of the joints beyond the torso, per second."""
        return state.qvel[self._joint_qvel]

    def touch(
        self, feet: Float[Array, "feet 3"], state: PhysicsState, height: GroundHeight
    ) -> Float[Array, " feet"]:
        """1.0 for each end effector, centred there in the world (metres), that touches the ground."""
        return (feet[:, 2] - height(feet[:, :2], state) < self.foot_radius).astype(jnp.float32)

    def depths(
        self, names: Sequence[str], state: PhysicsState, height: GroundHeight
    ) -> Float[Array, " parts"]:
        """How deep each part is in ground of that height, metres; see `Scene.depths`."""
        limbs, radii = outline(self._model, self._torso, names)
        position, rotation = self.pose(state.qpos)
        points = position + turned(rotation, limbs(state.qpos))
        depths = height(points[:, :2], state) - points[:, 2]
        return jnp.max(depths.reshape(radii.shape) + radii, axis=1)

    def proprioception(
        self, state: PhysicsState, frame: Frame, posture: Float[Array, " nq"], height: GroundHeight
    ) -> Float[Array, " n"]:
        """What the body itself feels, on ground of that height; nothing of where it is or heads.

        `posture` has the joint positions of the state. At a start it is the same for all worlds, and given
        apart so that XLA works out the feet once.
        """
        config, most = self._config, self._config.max_acceleration
        gravity, factors = self._gravity, state.factors
        if factors is not None and factors.gravity is not None:
            gravity = gravity * factors.gravity
        accelerometer = seen_from(frame.rotation, frame.acceleration - gravity)
        parts = [
            state.qpos[self._joint_qpos],
            state.qvel[self._joint_qvel] / config.joint_velocity_unit,
            frame.position[2:],  # body height
            frame.rotation[2],  # the world's z-axis in the torso frame
            frame.angular_velocity / config.angular_velocity_unit,  # gyro
            seen_from(frame.rotation, frame.velocity) / config.velocity_unit,  # velocimeter
            jnp.clip(accelerometer / config.acceleration_unit, -most, most),
        ]
        if self.foot_radius.size:
            feet = self.feet(posture)
            in_world = frame.position + turned(frame.rotation, feet)
            parts += [feet.ravel(), self.touch(in_world, state, height)]
        return jnp.concatenate(parts)


def _require_root(model: mujoco.MjModel, torso: int, root: list, rest: Float[np.ndarray, " nq"]) -> None:
    """Raises UserError where the torso is not carried as `place` and `frame` assume."""
    types = [joint.type[0] for joint in root]
    planar = types == 3 * [_JOINT.mjJNT_SLIDE] + [_JOINT.mjJNT_HINGE]
    upright = planar and np.allclose([joint.axis for joint in root], [*np.eye(3), [0, 0, 1]])
    if not upright and types != [_JOINT.mjJNT_FREE]:
        raise UserError("the body's 'torso' needs a free joint, or slides x, y, z and an upright hinge")
    at = root[0].qposadr[0]
    turn = model.body_quat[torso] if planar else rest[at + 3 : at + 7]  # a free joint's place is its qpos
    if model.body_parentid[torso] != 0 or not np.allclose(turn, [1, 0, 0, 0]):
        raise UserError("the body's 'torso' must lie in the worldbody itself, and not be turned")


def _require_felt(joints: list) -> None:
    """Raises UserError for a joint beyond the torso whose position is more than one number."""
    for joint in joints:
        kind = _JOINT(joint.type[0])
        if kind not in (_JOINT.mjJNT_SLIDE, _JOINT.mjJNT_HINGE):
            word = kind.name.removeprefix("mjJNT_").lower()
            raise UserError(f"the body's joint {joint.name!r} is a {word} joint; use hinges or slides")


def _require_dynamics(model: mujoco.MjModel) -> None:
    """Raises UserError where it could not act, or would act from more than positions and velocities."""
    if not model.nu:
        raise UserError("the body has no actuators: it could not act")
    if model.na:
        name = model.actuator(int(np.argmax(model.actuator_dyntype > 0))).name
        raise UserError(
            f"the body's actuator {name!r} has an activation, which no state here carries from step to step;"
            " use motors, or position or velocity actuators without a time constant"
        )
    if model.nhistory:
        raise UserError(
            "an actuator or a sensor of the body has a delay, which no state here carries from step to step;"
            " leave it out, and delay actions by action_delay in [randomization]"
        )
    if model.nplugin:
        raise UserError("the body uses plugins, which not all engines run; leave them out")
    if model.nmocap:
        raise UserError("the body has a mocap body; only an arena may have those")
    for flag in ("contact", "constraint", "actuation"):
        if model.opt.disableflags & getattr(mujoco.mjtDisableBit, f"mjDSBL_{flag.upper()}"):
            raise UserError(f"the body's file switches off {flag}: leave that flag out of its options")
    without_gear = np.flatnonzero(~model.actuator_gear.any(axis=1))
    if without_gear.size:
        name = model.actuator(int(without_gear[0])).name
        raise UserError(f"the body's actuator {name!r} has a gear of 0: it could move nothing")
    if (model.dof_damping < 0).any():
        name = model.joint(int(model.dof_jntid[np.argmax(model.dof_damping < 0)])).name
        raise UserError(f"the body's joint {name!r} has a negative damping, which makes it ever faster")


def _radius(model: mujoco.MjModel, torso: int, rest: Float[np.ndarray, " nq"]) -> float:
    data = mujoco.MjData(model)
    data.qpos[:] = rest
    mujoco.mj_kinematics(model, data)
    away = np.linalg.norm(data.geom_xpos[:, :2] - data.xpos[torso, :2], axis=1) + model.geom_rbound
    collides = (model.geom_contype > 0) | (model.geom_conaffinity > 0)
    return float(away[collides].max(initial=0.0))
