"""Pictures of a world through the eye of its body: one ray a pixel, in plain JAX on any device.

Distance along a ray is depth along the camera's axis. A surface's number is packed into the last bits of its
depth, so that the nearest of all is a minimum of integers: a chain of elementwise operations, of which XLA
makes few loops on a CPU and few kernels on a GPU.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from mjx_hkl.environments.bodies import Body
from mjx_hkl.environments.boxes import Boxes
from mjx_hkl.environments.limbs import Limbs
from mjx_hkl.environments.rotations import seen_from, turned
from mjx_hkl.environments.scene import Marks
from mjx_hkl.errors import UserError

_GEOM = mujoco.mjtGeom
_BITS = 8  # of a depth, for the number of the surface: what is left is exact to 3e-5
_FAR = 1e9  # metres; where a ray meets nothing
_MARGIN = (
    0.1  # metres beyond the picture's edge within which a limb is still drawn: joints give way at limits
)
_POSES = 256  # in which limbs are looked for in the picture
_RINGS = (0.35, 0.7)  # radii of the white ring of a target that is not asked for, in radii of the target

FLOOR, SKY = ((0.36, 0.42, 0.48), (0.46, 0.53, 0.60)), (0.62, 0.76, 0.92)
OTHER, RING, SELECTED = (0.85, 0.25, 0.2), (0.95, 0.95, 0.95), (0.0, 0.0, 0.0)
BOX, LIGHT, AMBIENT = (0.85, 0.65, 0.25), (0.15, 0.25, 0.5), 0.5


class Look(NamedTuple):
    """Colours and light of an episode.

    Attributes:
      colours: red, green and blue in [0, 1]: of the sky, the floor (2), each box, each mark not selected.
      light: direction to the sun in the world, times the brightness that it adds.
    """

    colours: Float[Array, "things 3"]
    light: Float[Array, " 3"]


class Surfaces(NamedTuple):
    """What each pixel's ray meets first, and what of it the camera has to know to colour it.

    Attributes:
      depth: along the camera's axis, metres; 1e9 in the sky.
      number: of the surface; 0 is the sky.
    """

    depth: Float[Array, " pixels"]
    number: Int[Array, " pixels"]


class _Segments(NamedTuple):
    """The axes of round geoms in the camera's frame, metres."""

    start: Float[Array, "rounds 3"]
    along: Float[Array, "rounds 3"]


class RayRenderer:
    """Draws a compiled world, from `qpos`, `mocap_pos`, the marks of the task and a look.

    Surfaces are numbered: 0 the sky, 1 and 2 the floor's colours, then two for each round geom of the body
    (its side, and a cylinder's caps), three for each box (its faces by axis) and two for each mark.

    Attributes:
      names: of the surfaces, by their numbers.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        body: Body,
        boxes: Boxes,
        ground: tuple[str, ...],
        num_marks: int,
        camera: int,
        size: tuple[int, int],
        fovy: float,
        is_checkered: bool,
    ):
        """Raises UserError where something is of a kind that it cannot draw."""
        self._torso = model.body("torso").id
        self._body, self._boxes, self._num_marks = body, boxes, num_marks
        self._near = float(model.vis.map.znear * model.stat.extent)
        turn = np.zeros(9)
        mujoco.mju_quat2Mat(turn, model.cam_quat[camera])
        self._turn, self._place = turn.reshape(3, 3), model.cam_pos[camera]
        self._size, self._is_checkered = size, is_checkered
        self._rays, self._slopes = _rays(*size, fovy)
        self._rounds = [g for g in _body_geoms(model, self._torso) if self._may_see(model, g)]
        self._radius = [float(model.geom_size[g, 0]) for g in self._rounds]
        self._capped = [model.geom_type[g] == _GEOM.mjGEOM_CYLINDER for g in self._rounds]
        self._albedo = model.geom_rgba[self._rounds, :3]
        self._starts, self._ends = (_limbs(model, self._rounds, self._torso, end) for end in (-1.0, 1.0))
        self._ground = [_ground(model, name) for name in ground]
        self.names = ["sky", "floor", "floor"]
        self.names += [model.geom(g).name or f"geom {g}" for g in self._rounds for _ in range(2)]
        self.names += [f"box{i}" for i in range(boxes.count) for _ in range(3)]
        self.names += [f"mark{i}" for i in range(num_marks) for _ in range(2)]
        if len(self.names) > 2**_BITS:
            raise UserError(f"[camera]: {len(self.names)} surfaces are more than the {2**_BITS} it can draw")

    def look(self) -> Look:
        """The colours and light of a world that does not draw them at random."""
        colours = [
            SKY,
            *FLOOR,
            *(BOX for _ in range(self._boxes.count)),
            *(OTHER for _ in range(self._num_marks)),
        ]
        return Look(jnp.asarray(colours), jnp.asarray(LIGHT))

    def picture(
        self, qpos: Float[Array, " nq"], mocap_pos: Float[Array, "nmocap 3"], marks: Marks, look: Look
    ) -> UInt8[Array, "height width 3"]:
        """What the camera sees."""
        eye, axes = self._camera(qpos)
        light, colours = seen_from(axes, look.light), self._colours(qpos, marks, look, eye)
        # A picture has few limbs and many pixels: what is of a limb must not be worked out by the pixel.
        eye, axes, segments, light, colours = jax.lax.optimization_barrier(
            (eye, axes, self._segments(qpos), light, colours)
        )
        surfaces = jax.lax.optimization_barrier(self._surfaces(qpos, mocap_pos, marks, eye, axes, segments))
        shades = jax.lax.optimization_barrier(self._shades(surfaces, segments, light))
        red, green, blue = (
            sum((surfaces.number == i) * colours[i, c] for i in range(len(self.names))) for c in range(3)
        )
        bright = jnp.stack([red, green, blue], axis=-1) * shades[:, None]
        width, height = self._size
        return jnp.round(255 * jnp.clip(bright, 0.0, 1.0)).astype(jnp.uint8).reshape(height, width, 3)

    def surfaces(
        self, qpos: Float[Array, " nq"], mocap_pos: Float[Array, "nmocap 3"], marks: Marks
    ) -> Surfaces:
        """What each ray meets first, row by row from the top left."""
        eye, axes = self._camera(qpos)
        return self._surfaces(qpos, mocap_pos, marks, eye, axes, self._segments(qpos))

    def _camera(self, qpos: Array) -> tuple[Array, Array]:
        position, rotation = self._body.pose(qpos)
        axes = jnp.stack(
            [turned(rotation, jnp.asarray(self._turn[:, i], jnp.float32)) for i in range(3)], axis=-1
        )
        return position + turned(rotation, jnp.asarray(self._place, jnp.float32)), axes

    def _segments(self, qpos: Array) -> _Segments:
        turn = jnp.asarray(self._turn, jnp.float32)
        start, end = (seen_from(turn, limbs(qpos) - self._place) for limbs in (self._starts, self._ends))
        return _Segments(start, end - start)

    def _surfaces(
        self, qpos: Array, mocap_pos: Array, marks: Marks, eye: Array, axes: Array, segments: _Segments
    ) -> Surfaces:
        ray = [jnp.asarray(x, jnp.float32) for x in self._rays]
        # Everything small is worked out before, for once and not for each pixel.
        eye, axes, segments, marks = jax.lax.optimization_barrier((eye, axes, segments, marks))
        along = [sum(axes[i, k] * ray[k] for k in range(3)) for i in range(3)]  # the ray in the world
        nearest = jnp.full(ray[0].shape, _key(jnp.float32(_FAR), 0))
        for kind, half, mocap, place in self._ground:
            centre = place if mocap is None else mocap_pos[mocap] + place
            if kind == _GEOM.mjGEOM_PLANE:
                down = along[2] < 0
                t = jnp.where(down, (place[2] - eye[2]) / jnp.where(down, along[2], -1.0), -1.0)
            else:
                t, _ = _box([eye[i] - centre[i] for i in range(3)], along, half)
            odd = (jnp.floor(eye[0] + t * along[0]) + jnp.floor(eye[1] + t * along[1])) % 2
            nearest = self._nearer(nearest, t, 1 + odd.astype(jnp.int32) * self._is_checkered)
        for i in range(len(self._rounds)):
            side, cap = _round(
                ray, segments.start[i], segments.along[i], self._radius[i], self._capped[i], self._near
            )
            nearest = self._nearer(nearest, side, 3 + 2 * i)
            if self._capped[i]:
                nearest = self._nearer(nearest, cap, 4 + 2 * i)
            nearest = jax.lax.optimization_barrier(
                nearest
            )  # else XLA works out parts of a limb again and again
        first = 3 + 2 * len(self._rounds)
        if self._boxes.count:
            poses = jax.lax.optimization_barrier(self._boxes.poses(qpos))
            for i in range(self._boxes.count):
                turn, half = poses.rotation[i], 3 * [poses.size / 2]
                off = [sum(turn[k, j] * (eye[k] - poses.position[i, k]) for k in range(3)) for j in range(3)]
                there = [sum(turn[k, j] * along[k] for k in range(3)) for j in range(3)]
                t, face = _box(off, there, half)
                nearest = self._nearer(nearest, t, first + 3 * i + face)
        first += 3 * self._boxes.count
        for i in range(self._num_marks):
            down = along[2] * (marks.position[i, 2] - eye[2]) > 0
            t = jnp.where(down, (marks.position[i, 2] - eye[2]) / jnp.where(down, along[2], 1.0), -1.0)
            away = sum((eye[k] + t * along[k] - marks.position[i, k]) ** 2 for k in range(2))
            radius = marks.radius[i]
            ring = (away > (_RINGS[0] * radius) ** 2) & (away < (_RINGS[1] * radius) ** 2)
            t = jnp.where(away < radius**2, t, -1.0)
            nearest = self._nearer(nearest, t, first + 2 * i + ring.astype(jnp.int32))
        return Surfaces(
            jax.lax.bitcast_convert_type(nearest & ~(2**_BITS - 1), jnp.float32), nearest & (2**_BITS - 1)
        )

    def _nearer(self, nearest: Array, t: Array, number: Array | int) -> Array:
        return jnp.where(t > self._near, jnp.minimum(nearest, _key(t, number)), nearest)

    def _colours(self, qpos: Array, marks: Marks, look: Look, eye: Array) -> Float[Array, "surfaces 3"]:
        """Of each surface, as bright as it is where it is flat; round ones are shaded by the pixel."""
        boxes, count = self._boxes.poses(qpos), self._boxes.count
        sky, floor = look.colours[:1], look.colours[1:3] * (AMBIENT + look.light[2])
        facing = jnp.einsum("bkj,bkj->bj", boxes.rotation, (eye - boxes.position)[:, :, None] * jnp.ones(3))
        lit = jnp.einsum("bkj,k->bj", boxes.rotation, look.light) * jnp.sign(facing)
        faces = look.colours[3 : 3 + count, None] * (AMBIENT + jnp.maximum(lit, 0.0))[..., None]
        chosen = marks.selected[:, None] > 0
        other = look.colours[3 + count :]
        plain = jnp.where(chosen, jnp.asarray(SELECTED), other)
        rings = jnp.where(chosen, jnp.asarray(SELECTED), jnp.asarray(RING))
        discs = jnp.stack([plain, rings], axis=1).reshape(-1, 3)
        albedo = jnp.repeat(jnp.asarray(self._albedo, jnp.float32), 2, axis=0)
        return jnp.concatenate([sky, floor, albedo, faces.reshape(-1, 3), discs])

    def _shades(self, surfaces: Surfaces, segments: _Segments, light: Array) -> Float[Array, " pixels"]:
        """Brightness of each pixel on a round surface; 1 elsewhere."""
        ray, t, shade = self._rays, surfaces.depth, jnp.ones_like(surfaces.depth)
        for i, radius in enumerate(self._radius):
            start, along = segments.start[i], segments.along[i]
            hit = [t * ray[k] - start[k] for k in range(3)]
            length = jnp.maximum(jnp.sum(along**2), 1e-12)
            s = jnp.clip(sum(hit[k] * along[k] for k in range(3)) / length, 0.0, 1.0)
            side = sum((hit[k] - s * along[k]) * light[k] for k in range(3)) / radius
            shade = jnp.where(surfaces.number == 3 + 2 * i, AMBIENT + jnp.maximum(side, 0.0), shade)
            if self._capped[i]:
                cap = (
                    jnp.sum(along * light)
                    / jnp.sqrt(length)
                    * jnp.sign(-jnp.sum((start + along / 2) * along))
                )
                shade = jnp.where(surfaces.number == 4 + 2 * i, AMBIENT + jnp.maximum(cap, 0.0), shade)
        return shade

    def _may_see(self, model: mujoco.MjModel, geom: int) -> bool:
        """Whether some part of a geom comes near the picture in any of many random postures."""
        rng = np.random.default_rng(0)
        low, high = np.where(model.jnt_limited[:, None], model.jnt_range, (-np.pi, np.pi)).T
        qpos = np.tile(model.qpos0, (_POSES, 1))
        for j in range(model.njnt):
            if model.jnt_type[j] in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
                qpos[:, model.jnt_qposadr[j]] = rng.uniform(low[j], high[j], _POSES)
        start, end = (
            np.asarray(jax.vmap(_limbs(model, [geom], self._torso, end))(jnp.asarray(qpos, jnp.float32)))[
                :, 0
            ]
            for end in (-1.0, 1.0)
        )
        between = start[:, None] + np.linspace(0, 1, 9)[None, :, None] * (end - start)[:, None]
        x, y, z = np.moveaxis((between - self._place) @ self._turn, -1, 0)
        reach = model.geom_size[geom, 0] + _MARGIN
        inside = -z > -reach
        for side, slope in ((x, self._slopes[0]), (y, self._slopes[1])):
            inside &= (abs(side) + slope * z) / np.hypot(1, slope) < reach
        return bool(inside.any())


def _key(t: Array, number: Array | int) -> Array:
    return (jax.lax.bitcast_convert_type(t, jnp.int32) & ~(2**_BITS - 1)) | number


def _rays(width: int, height: int, fovy: float) -> tuple[list[np.ndarray], tuple[float, float]]:
    """Through the pixels' middles, 1 long along the camera's axis, and the slopes of the picture's edges."""
    up = np.tan(np.radians(fovy) / 2)
    right = up * width / height
    x = np.tile(((np.arange(width) + 0.5) / width * 2 - 1) * right, height)
    y = np.repeat((1 - (np.arange(height) + 0.5) / height * 2) * up, width)
    return [x.astype(np.float32), y.astype(np.float32), -np.ones(width * height, np.float32)], (right, up)


def _round(
    ray: list[Array], start: Array, along: Array, radius: float, is_capped: bool, near: float
) -> tuple[Array, Array]:
    """Depths of a capsule's or cylinder's side, and of a cylinder's caps; -1 where a ray passes by."""
    dd = sum(x * x for x in ray)
    ba, oa = along, -start
    baba, baoa, oaoa = jnp.sum(ba * ba), jnp.sum(ba * oa), jnp.sum(oa * oa)
    bard, rdoa = (sum(ray[k] * v[k] for k in range(3)) for v in (ba, oa))
    a = baba * dd - bard * bard
    b = baba * rdoa - baoa * bard
    c = baba * oaoa - baoa * baoa - radius**2 * baba
    h = b * b - a * c
    side = (-b - jnp.sqrt(jnp.maximum(h, 0.0))) / jnp.where(a > 1e-9, a, 1.0)
    y = baoa + side * bard
    on_side = (h > 0) & (a > 1e-9) & (y > 0) & (y < baba)
    if is_capped:
        leaning = jnp.where(bard == 0, 1.0, bard)
        cap = (jnp.where(bard < 0, baba, 0.0) - baoa) / leaning
        away = sum((oa[k] + cap * ray[k] - jnp.where(bard < 0, ba[k], 0.0)) ** 2 for k in range(3))
        return jnp.where(on_side, side, -1.0), jnp.where((away < radius**2) & (bard != 0), cap, -1.0)
    at_end = (y > 0) & (a > 1e-9)
    from_end = [jnp.where(at_end, oa[k] - ba[k], oa[k]) for k in range(3)]
    b = sum(ray[k] * from_end[k] for k in range(3))
    h = b * b - dd * (sum(x * x for x in from_end) - radius**2)
    ball = jnp.where(h > 0, (-b - jnp.sqrt(jnp.maximum(h, 0.0))) / dd, -1.0)
    return jnp.where(on_side, side, ball), ball


def _box(off: Sequence[Any], ray: Sequence[Any], half: Sequence[float]) -> tuple[Array, Array]:
    """Depth and axis of a box's near face, for a ray from `off` in the box's axes; -1 where it passes by."""
    inverse = [1 / jnp.where(jnp.abs(x) < 1e-9, 1e-9, x) for x in ray]
    enter = [-off[k] * inverse[k] - jnp.abs(inverse[k]) * half[k] for k in range(3)]
    leave = [-off[k] * inverse[k] + jnp.abs(inverse[k]) * half[k] for k in range(3)]
    first = jnp.maximum(jnp.maximum(enter[0], enter[1]), enter[2])
    last = jnp.minimum(jnp.minimum(leave[0], leave[1]), leave[2])
    face = jnp.where(first == enter[0], 0, jnp.where(first == enter[1], 1, 2))
    return jnp.where(first < last, first, -1.0), face


def _body_geoms(model: mujoco.MjModel, torso: int) -> list[int]:
    found = []
    for geom in range(model.ngeom):
        if model.body_rootid[model.geom_bodyid[geom]] != torso or model.geom_rgba[geom, 3] == 0:
            continue
        kind = _GEOM(model.geom_type[geom])
        if kind not in (_GEOM.mjGEOM_SPHERE, _GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_CYLINDER):
            word = kind.name.removeprefix("mjGEOM_").lower()
            raise UserError(
                f"[camera]: the body's geom {model.geom(geom).name!r} is a {word}, which it cannot draw; use"
                " spheres, capsules and cylinders, or give it no opacity"
            )
        found.append(geom)
    return found


def _limbs(model: mujoco.MjModel, geoms: list[int], torso: int, end: float) -> Limbs:
    """To the ends of the axes of round geoms: -1 one, 1 the other."""
    points, turn = np.array(model.geom_pos[geoms]), np.zeros(9)
    for i, geom in enumerate(geoms):
        if model.geom_type[geom] != _GEOM.mjGEOM_SPHERE:
            mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
            points[i] += end * turn.reshape(3, 3)[:, 2] * model.geom_size[geom, 1]
    return Limbs(model, np.array(geoms, int), torso, points)


def _ground(model: mujoco.MjModel, name: str) -> tuple[int, list[float], int | None, np.ndarray]:
    """Kind, half sizes, mocap body and place of a level plane or box of the arena."""
    geom = model.geom(name)
    body, kind = int(geom.bodyid[0]), int(geom.type[0])
    mocap = int(model.body_mocapid[body])
    level = np.allclose(geom.quat, [1, 0, 0, 0]) and np.allclose(model.body_quat[body], [1, 0, 0, 0])
    if kind not in (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_BOX) or not level or (body and mocap < 0):
        raise UserError(f"[camera]: it draws arenas of level planes and boxes, and {name!r} is not one")
    return kind, [float(x) for x in geom.size], None if mocap < 0 else mocap, np.array(geom.pos, np.float32)
