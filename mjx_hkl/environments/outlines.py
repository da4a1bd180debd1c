"""Where parts of a body touch level ground: at spheres, ends of capsules and corners of boxes."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from mjx_hkl.environments.limbs import Limbs
from mjx_hkl.errors import UserError, unknown_name

_GEOM = mujoco.mjtGeom


class _Sphere(NamedTuple):
    geom: int
    centre: np.ndarray  # in the frame of the geom's body, metres
    radius: float


def outline(model: mujoco.MjModel, torso: int, names: Sequence[str]) -> tuple[Limbs, np.ndarray]:
    """The spheres of some parts, as many of each part.

    Args:
      model: of the body, its geoms that collide still marked.
      torso: the body that these hang from.
      names: of geoms that collide, or of links, which stand for all their geoms.

    Returns:
      From positions to the centres in the torso frame, metres, part after part; the radii, (parts, spheres).

    Raises:
      UserError: nothing is named, nothing of a name collides, or it is of another shape.
    """
    if not names:
        raise UserError("depths and touches are of parts of the body: name some")
    parts = [[sphere for geom in _geoms(model, name) for sphere in _spheres(model, geom)] for name in names]
    most = max(map(len, parts))
    spheres = [sphere for part in parts for sphere in part + part[:1] * (most - len(part))]
    geoms, centres, radii = zip(*spheres, strict=True)
    return Limbs(model, np.array(geoms), torso, np.stack(centres)), np.reshape(radii, (len(names), most))


def _geoms(model: mujoco.MjModel, name: str) -> list[int]:
    collide = np.flatnonzero((model.geom_contype > 0) | (model.geom_conaffinity > 0))
    names = {int(i): (model.geom(i).name, model.body(model.geom_bodyid[i]).name) for i in collide}
    found = [i for i, known in names.items() if name in known]
    if not found:
        raise unknown_name("part of the body that collides", name, set(itertools.chain(*names.values())))
    return found


def _spheres(model: mujoco.MjModel, geom: int) -> list[_Sphere]:
    kind, size = _GEOM(int(model.geom_type[geom])), model.geom_size[geom]
    if kind == _GEOM.mjGEOM_SPHERE:
        centres, radius = np.zeros((1, 3)), size[0]
    elif kind == _GEOM.mjGEOM_CAPSULE:
        centres, radius = np.array([[0, 0, size[1]], [0, 0, -size[1]]]), size[0]
    elif kind == _GEOM.mjGEOM_BOX:
        centres, radius = size * np.array(list(itertools.product((-1, 1), repeat=3))), 0.0
    else:
        word = kind.name.removeprefix("mjGEOM_").lower()
        raise UserError(
            f"geom {model.geom(geom).name!r} is a {word}, whose depth in the ground is not known here;"
            " that of a sphere, capsule or box is"
        )
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    place = model.geom_pos[geom] + centres @ turn.reshape(3, 3).T
    return [_Sphere(geom, centre, radius) for centre in place]
