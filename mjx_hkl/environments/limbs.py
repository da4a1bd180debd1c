"""Where points of a body's limbs are, seen from its torso: kinematics of hinges and slides alone."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from mjx_hkl.errors import UserError


class _Link(NamedTuple):
    """A joint and the fixed frame it sits in, of one point or, in the last axis, of all.

    It leads from p to offset + slide q + (fixed + sin q · sine + cos q · cosine) (p − anchor), in the frame
    one further towards the torso; q is qpos at `address` less `reference`.
    """

    address: np.ndarray
    reference: np.ndarray
    anchor: np.ndarray
    offset: np.ndarray
    slide: np.ndarray
    fixed: np.ndarray
    sine: np.ndarray
    cosine: np.ndarray


class Limbs:
    """The way of some geoms' centres from where they hang to the torso.

    All ways are gone side by side, in sums and products of single numbers: XLA makes few kernels of them,
    and dozens of MJX's kinematics of a whole body.
    """

    def __init__(
        self, model: mujoco.MjModel, geoms: np.ndarray, torso: int, points: np.ndarray | None = None
    ):
        """Of these `points` (geoms, 3) in the frames of the geoms' bodies, metres, instead of the centres.

        Raises UserError where a geom does not hang from the torso.
        """
        ways = [list(_way(model, geom, torso)) for geom in geoms]
        steps = itertools.zip_longest(*ways, fillvalue=_STAY)
        self._links = [_Link(*(np.stack(x, axis=-1) for x in zip(*links, strict=True))) for links in steps]
        self._centres = (model.geom_pos[geoms] if points is None else points).T

    def __call__(self, qpos: Float[Array, " nq"]) -> Float[Array, "geoms 3"]:
        """The centres in the torso frame, metres."""
        axes, point = range(3), list(jnp.asarray(self._centres, jnp.float32))
        for link in self._links:
            q = qpos[link.address] - jnp.asarray(link.reference, jnp.float32)
            sin, cos = jnp.sin(q), jnp.cos(q)
            _, _, anchor, offset, slide, fixed, sine, cosine = (jnp.asarray(x, jnp.float32) for x in link)
            arm = [point[i] - anchor[i] for i in axes]
            point = [
                offset[i]
                + slide[i] * q
                + sum((fixed[i, j] + sine[i, j] * sin + cosine[i, j] * cos) * arm[j] for j in axes)
                for i in axes
            ]
        return jnp.stack(point, axis=-1)


def _way(model: mujoco.MjModel, geom: int, torso: int) -> Iterator[_Link]:
    """Its links, in the order from the geom to the torso."""
    body = model.geom_bodyid[geom]
    while body != torso:
        if not body:
            raise UserError(f"the body's geom {model.geom(geom).name!r} must hang from its torso")
        turn, place = np.zeros(9), model.body_pos[body]
        mujoco.mju_quat2Mat(turn, model.body_quat[body])
        turn, first = turn.reshape(3, 3), model.body_jntadr[body]
        joints = range(first, first + model.body_jntnum[body])
        for joint in reversed(joints[1:]):
            yield _link(model, joint, np.eye(3), np.zeros(3))
        yield _link(model, joints[0], turn, place) if joints else _STAY._replace(fixed=turn, offset=place)
        body = model.body_parentid[body]


def _link(model: mujoco.MjModel, joint: int, turn: np.ndarray, place: np.ndarray) -> _Link:
    """A joint in a frame. A hinge turns by 1 + sin q K + (1 − cos q) K²: K crosses its axis with a vector."""
    axis, anchor = model.jnt_axis[joint], model.jnt_pos[joint]
    is_hinge = model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_HINGE
    cross = np.cross(np.eye(3), axis) * is_hinge
    address = np.asarray(model.jnt_qposadr[joint])
    return _Link(
        address,
        np.asarray(model.qpos0[address]),
        anchor,
        place + turn @ anchor,
        turn @ axis * (not is_hinge),
        turn @ (np.eye(3) + cross @ cross),
        turn @ cross,
        -turn @ cross @ cross,
    )


_NOWHERE, _NO_TURN = np.zeros(3), np.zeros((3, 3))
_STAY = _Link(np.zeros((), int), np.zeros(()), _NOWHERE, _NOWHERE, _NOWHERE, np.eye(3), _NO_TURN, _NO_TURN)
