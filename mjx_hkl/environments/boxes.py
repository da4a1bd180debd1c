"""Boxes: what bodies push. Planar by default: they slide and turn on the ground and cannot tip."""

import dataclasses
from typing import Literal

import flax.struct
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Bool, Float

from mjx_hkl.environments.numbers import Amount, Metres, Rate, Things
from mjx_hkl.environments.rotations import quaternion_matrix, turn_matrix, turn_quaternion, turned

# Six of the eight as in the paper, which does not say which: the ground's four, then the two above the
# first edge. Signs of half sizes; a prefix of this list is what is observed.
_CORNERS = np.array(
    [[1, 1, -1], [-1, 1, -1], [-1, -1, -1], [1, -1, -1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1], [1, -1, 1]]
)
_COLORS = ([0.85, 0.65, 0.25, 1], [0.35, 0.65, 0.85, 1], [0.75, 0.45, 0.75, 1], [0.5, 0.75, 0.4, 1])


@dataclasses.dataclass(frozen=True)
class BoxesConfig:
    """The `[boxes]` table of an environment file."""

    count: Things = 1  # how many boxes
    size: Metres = 0.5  # metres, side of the cube
    mass_ratio: Amount = 0.25  # mass of a box in masses of the body
    drag: Rate = 5.0  # 1/s; a planar box left alone slows down at this rate
    friction: Amount = 0.5  # sliding, with bodies, boxes, and with the floor where it is free
    condim: Literal[1, 3] = 3  # of contacts; 1 has no friction
    clearance: Metres = 0.6  # metres between the walls and the region of box centres
    joint: Literal["planar", "free"] = "planar"  # free boxes lie on the floor and can tip

    @property
    def radius(self) -> float:
        """From a box's centre to its upright edges, metres."""
        return self.size / 2**0.5


@flax.struct.dataclass
class Poses:
    """Where boxes are.

    Attributes:
      position: centres in the world, metres.
      rotation: box axes in the world, as columns.
      size: side of the cubes, metres.
    """

    position: Float[Array, "*boxes 3"]
    rotation: Float[Array, "*boxes 3 3"]
    size: float = flax.struct.field(pytree_node=False)

    def corners(self, count: int) -> Float[Array, "*boxes count 3"]:
        """The first `count` of the eight corners of each box in the world, metres."""
        offsets = jnp.asarray(_CORNERS[:count] * self.size / 2)
        return self.position[..., None, :] + turned(self.rotation[..., None, :, :], offsets)

    def touching(self) -> Bool[Array, "*steps boxes boxes"]:
        """Which boxes overlap which: no axis among their faces and edge pairs separates them (Gottschalk)."""
        a, b = self.rotation[..., :, None, :, :], self.rotation[..., None, :, :, :]
        a, b = jnp.broadcast_arrays(a, b)
        between = self.position[..., :, None, :] - self.position[..., None, :, :]
        crossed = jnp.cross(a[..., :, None], b[..., None, :], axisa=-3, axisb=-3, axisc=-3)
        axes = jnp.concatenate([a, b, crossed.reshape(*crossed.shape[:-2], 9)], axis=-1)
        distance = jnp.abs(jnp.einsum("...i,...ij->...j", between, axes))
        sides = jnp.concatenate([a, b], axis=-1)
        reach = jnp.abs(jnp.einsum("...ik,...ij->...kj", sides, axes)).sum(-2) * self.size / 2
        # Parallel edges give no axis: 0 against 0 is no separation.
        return jnp.all(distance <= reach + 1e-6, axis=-1)


def add_boxes(spec: mujoco.MjSpec, config: BoxesConfig, mass: float, limit: float | None) -> list[str]:
    """Adds the boxes to a body's model.

    Args:
      spec: the model under construction.
      config: their numbers.
      mass: of one box, kg.
      limit: of the coordinates of a planar box's centre, metres; None without walls.

    Returns:
      The names of their geoms.
    """
    half = config.size / 2
    for i in range(config.count):
        box = spec.worldbody.add_body(name=f"box{i}", pos=[0, 0, half])
        if config.joint == "free":
            box.add_freejoint(name=f"box{i}")
        else:
            _add_planar_joints(box, config, mass, limit)
        box.add_geom(
            name=f"box{i}",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=[half, half, half],
            mass=mass,
            condim=config.condim,
            friction=[config.friction, 0.005, 0.0001],
            rgba=_COLORS[i % len(_COLORS)],
            contype=0,
            conaffinity=0,
        )
    return [f"box{i}" for i in range(config.count)]


def _add_planar_joints(box: mujoco.MjsBody, config: BoxesConfig, mass: float, limit: float | None) -> None:
    slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
    inertia = mass * config.size**2 / 6  # of a cube
    for name, kind, axis, weight in (
        ("x", slide, [1, 0, 0], mass),
        ("y", slide, [0, 1, 0], mass),
        ("turn", hinge, [0, 0, 1], inertia),
    ):
        joint = box.add_joint(name=f"{box.name}_{name}", type=kind, axis=axis, damping=config.drag * weight)
        if kind == slide and limit is not None:
            joint.limited = mujoco.mjtLimited.mjLIMITED_TRUE
            joint.range = [-limit, limit]


class Boxes:
    """Places boxes in the physics state of a compiled model, and reads them from it."""

    def __init__(self, model: mujoco.MjModel, config: BoxesConfig | None):
        self._size = config.size if config else 0.0
        self._free = config is not None and config.joint == "free"
        self.count = count = config.count if config else 0
        addresses = [
            int(model.jnt_qposadr[model.body_jntadr[model.body(f"box{i}").id]]) for i in range(count)
        ]
        self._qpos = np.array(addresses, int)

    def place(
        self, qpos: Float[Array, " nq"], position: Float[Array, "boxes 2"], heading: Float[Array, " boxes"]
    ) -> Float[Array, " nq"]:
        """`qpos` with the boxes upright on the ground at these positions, turned by `heading` (radians)."""
        if self._free:
            height = jnp.full((len(position), 1), self._size / 2)
            values = jnp.concatenate([position, height, turn_quaternion(heading)], axis=-1)
        else:
            values = jnp.concatenate([position, heading[:, None]], axis=-1)
        return qpos.at[self._qpos[:, None] + np.arange(values.shape[-1])].set(values)

    def poses(self, qpos: Float[Array, "*steps nq"]) -> Poses:
        """Where the boxes are."""
        values = qpos[..., self._qpos[:, None] + np.arange(7 if self._free else 3)]
        if self._free:
            return Poses(values[..., :3], quaternion_matrix(values[..., 3:]), self._size)
        height = jnp.full_like(values[..., :1], self._size / 2)
        position = jnp.concatenate([values[..., :2], height], axis=-1)
        return Poses(position, turn_matrix(values[..., 2]), self._size)
