"""Pictures by casting rays in plain JAX: on any device, with any engine, inside a jitted step."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, UInt8

from mjx_hkl.environments.boxes import Poses
from mjx_hkl.environments.limbs import Limbs
from mjx_hkl.environments.renderers import rays
from mjx_hkl.environments.renderers.setting import (
    BRIGHT,
    DARK,
    MARK_HEIGHT,
    RING,
    SQUARE,
    Appearance,
    Seen,
    Setting,
    Traced,
    matrix,
)
from mjx_hkl.environments.rotations import seen_from, turned
from mjx_hkl.errors import UserError


class Place(NamedTuple):
    """Where the camera is.

    Attributes:
      position: in the world, metres.
      rotation: its axes in the world, as columns.
    """

    position: Float[Array, " 3"]
    rotation: Float[Array, "3 3"]

    def seen(self, points: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
        """Points of the world, seen from it."""
        return seen_from(self.rotation, points - self.position)


class _Solid(NamedTuple):
    """A geom: its number in the model, and points of it that say how it lies.

    The points are the centre; or both ends of the axis, of a capsule or cylinder; or the centre and a point
    one metre along each axis, of a box or ellipsoid.
    """

    geom: int
    points: Float[np.ndarray, "points 3"]


_GEOM = mujoco.mjtGeom
_ROUND = (_GEOM.mjGEOM_CAPSULE, _GEOM.mjGEOM_CYLINDER)
_SQUARE = (_GEOM.mjGEOM_BOX, _GEOM.mjGEOM_ELLIPSOID)
_DRAWN = (_GEOM.mjGEOM_PLANE, _GEOM.mjGEOM_SPHERE, *_ROUND, *_SQUARE)


class RayRenderer:
    """Casts one ray through the middle of each pixel at everything that may be seen."""

    name = "rays"
    not_shared = ""

    def __init__(self, setting: Setting):
        """Raises UserError where something that is seen cannot be drawn."""
        config, model, camera = setting.config, setting.model, setting.camera
        self._setting, self._model, self._body, self._boxes = setting, model, setting.body, setting.boxes
        self._appearance = Appearance(setting)
        self._place, self._turn = model.cam_pos[camera], matrix(model.cam_quat[camera])
        angle = config.fovy or float(model.cam_fovy[camera])
        near, far = (model.stat.extent * x for x in (model.vis.map.znear, model.vis.map.zfar))  # MuJoCo's own
        self.view = rays.View(config.width, config.height, angle, float(near), float(far))
        self._level: list[int] = []
        self._own: list[_Solid] = []  # moves with the torso's limbs
        self._fixed: list[_Solid] = []  # in the world
        self._movable: list[tuple[int, _Solid]] = []  # on a mocap body
        self._in_boxes: list[tuple[int, int]] = []
        self._sort()
        self._keep_seen()
        self._hang()

    def image(self, seen: Seen) -> UInt8[Array, "height width 3"]:
        """See `Renderer.image`."""
        return self._picture(seen).image()

    def trace(self, seen: Seen) -> Traced:
        """See `Renderer.trace`."""
        picture, shape = self._picture(seen), (self.view.height, self.view.width)
        return Traced(picture.image(), picture.depth.reshape(shape), picture.shape.reshape(shape))

    @jax.named_scope("vision")
    def _picture(self, seen: Seen) -> rays.Picture:
        config, first_mark = self._setting.config, self._model.ngeom
        torso, rotation = self._body.pose(seen.qpos)
        place = Place(
            torso + turned(rotation, jnp.asarray(self._place, jnp.float32)),
            jnp.stack([turned(rotation, jnp.asarray(axis, jnp.float32)) for axis in self._turn.T], axis=-1),
        )
        colours, light, ambient = self._appearance.shades(seen.look)
        light = list(seen_from(place.rotation, light))
        picture = rays.Picture.empty(self.view, light, config.sky_colour, ambient)
        for geom in self._level:
            hit, x, y = self._flat(place, 0.0).hit(picture.rays)
            colour = _checkered(colours[geom], x, y) if config.checkered else colours[geom]
            picture.draw(geom, hit, colour)
        for geom, hit in self._hits(place, seen, picture.rays):
            picture.draw(geom, hit, colours[geom])
        for i in range(self._setting.marks_drawn):
            centre, radius, asked = seen.position[i], seen.radius[i], seen.selected[i]
            hit, x, y = self._flat(place, centre[2] + MARK_HEIGHT).hit(picture.rays)
            away = jnp.square(x - centre[0]) + jnp.square(y - centre[1])
            inside = hit._replace(is_met=hit.is_met & (away < jnp.square(radius)))
            colour = colours[first_mark + i]
            if config.ringed:
                inner, outer = (jnp.square(share * radius) for share in RING)
                is_ring = (away > inner) & (away < outer)
                colour = [jnp.where(is_ring, 1.0, c) for c in colour]
            picture.draw(first_mark + i, inside, [c * (1.0 - asked) for c in colour])
        return picture

    def _hits(self, place: Place, seen: Seen, seen_by: rays.Rays) -> Iterator[tuple[int, rays.Hit]]:
        """Every solid with where it is met."""
        yield from self._own_hits(seen.qpos, seen_by)
        for solid in self._fixed:
            points = place.seen(jnp.asarray(solid.points, jnp.float32))
            yield solid.geom, self._hit(solid.geom, points, seen_by)
        for number, solid in self._movable:
            points = place.seen(seen.mocap_pos[number] + jnp.asarray(solid.points, jnp.float32))
            yield solid.geom, self._hit(solid.geom, points, seen_by)
        poses: Poses = self._boxes.poses(seen.qpos)
        for number, geom in self._in_boxes:
            centre, axes = poses.position[number], poses.rotation[number].T
            points = place.seen(jnp.concatenate([centre[None], centre + axes]))
            yield geom, self._hit(geom, points, seen_by)

    def _own_hits(self, qpos: Array, seen_by: rays.Rays) -> Iterator[tuple[int, rays.Hit]]:
        """The body's parts. The camera is on the torso: how that lies in the world does not matter."""
        if self._limbs is None:
            return
        points = seen_from(jnp.asarray(self._turn, jnp.float32), self._limbs(qpos) - self._place)
        first = 0
        for solid in self._own:
            yield solid.geom, self._hit(solid.geom, points[first : first + len(solid.points)], seen_by)
            first += len(solid.points)

    def _hit(self, geom: int, points: Float[Array, "points 3"], seen_by: rays.Rays) -> rays.Hit:
        kind, size = _GEOM(self._model.geom_type[geom]), self._model.geom_size[geom]
        if kind == _GEOM.mjGEOM_SPHERE:
            return rays.sphere(seen_by, points[0], float(size[0]))
        if kind in _ROUND:
            shape = rays.capsule if kind == _GEOM.mjGEOM_CAPSULE else rays.cylinder
            return shape(seen_by, points[0], points[1], float(size[0]))
        shape = rays.box if kind == _GEOM.mjGEOM_BOX else rays.ellipsoid
        return shape(seen_by, points[0], [tip - points[0] for tip in points[1:]], [float(x) for x in size])

    def _flat(self, place: Place, height: Any) -> rays.Flat:
        return rays.Flat(place.position[2] - height, place.position[:2], list(place.rotation))

    def _sort(self) -> None:
        """Fills the lists of what may be seen.

        Raises:
          UserError: something that is seen cannot be drawn.
        """
        model, boxes = self._model, self._setting.box_numbers
        for geom in filter(self._setting.is_drawn, range(model.ngeom)):
            body, kind, name = model.geom_bodyid[geom], _GEOM(model.geom_type[geom]), model.geom(geom).name
            if kind not in _DRAWN:
                raise UserError(
                    f"[camera]: geom {name!r} is a {kind.name.removeprefix('mjGEOM_').lower()}, which"
                    " no ray is cast at here; put it in group 3 to leave it out of the picture"
                )
            if kind == _GEOM.mjGEOM_PLANE:
                if body or model.geom_pos[geom].any() or model.geom_quat[geom][0] != 1.0:
                    raise UserError(f"[camera]: plane {name!r} must be level ground at height 0 to be seen")
                self._level.append(geom)
            elif model.body_rootid[body] == self._setting.torso:
                self._own.append(_solid(model, geom))
            elif model.body_mocapid[body] >= 0:
                self._movable.append((int(model.body_mocapid[body]), _solid(model, geom)))
            elif body in boxes:
                self._in_boxes.append((boxes[body], geom))
            elif model.body_weldid[body] == 0:
                self._fixed.append(_in_world(model, _solid(model, geom)))
            else:
                raise UserError(f"[camera]: geom {name!r} moves, and is no part of the body, arena or boxes")

    def _keep_seen(self) -> None:
        """Leaves out the parts of the body that never come into the picture.

        A torso under its own camera, or hind legs, would cost as much as what is seen. For a part that is
        fixed to the torso rays decide; for a part that moves, the sphere around it at many joint positions.
        """
        model, view, torso = self._model, self.view, self._setting.torso
        rows, columns = view.slopes()
        directions = np.stack([columns, rows, -np.ones_like(rows)], axis=-1) @ self._turn.T
        up, side = rows.max(), columns.max()
        centres = self._centres()

        def is_met(geom: int) -> bool:
            kind, size = model.geom_type[geom], model.geom_size[geom]
            pose = model.geom_pos[geom], matrix(model.geom_quat[geom]).ravel()
            return any(mujoco.mju_rayGeom(*pose, size, self._place, ray, kind) >= 0 for ray in directions)

        def is_near(geom: int) -> bool:
            x, y, z = ((centres[:, geom] - self._place) @ self._turn).T
            beyond_side = (np.abs(x) + side * z) / np.hypot(1, side)
            beyond_edge = (np.abs(y) + up * z) / np.hypot(1, up)
            beyond = np.maximum(np.maximum(beyond_side, beyond_edge), z + view.near)
            return bool((beyond < _MARGIN * model.geom_rbound[geom]).any())

        def is_seen(geom: int) -> bool:
            return is_met(geom) if model.geom_bodyid[geom] == torso else is_near(geom)

        self._own = [solid for solid in self._own if is_seen(solid.geom)]

    def _centres(self) -> Float[np.ndarray, "looks geoms 3"]:
        """The centres of all geoms in the torso frame at random joint positions."""
        model, data, torso = self._model, mujoco.MjData(self._model), self._setting.torso
        rng = np.random.default_rng(0)
        low, high = np.where(model.jnt_limited[:, None] > 0, model.jnt_range, [[-np.pi, np.pi]]).T
        turns = model.jnt_bodyid != torso
        turns &= np.isin(model.jnt_type, (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
        found = []
        for _ in range(_LOOKS):
            data.qpos[:] = model.qpos0
            data.qpos[model.jnt_qposadr[turns]] = rng.uniform(low[turns], high[turns])
            mujoco.mj_kinematics(model, data)
            found.append((data.geom_xpos - data.xpos[torso]) @ data.xmat[torso].reshape(3, 3))
        return np.stack(found)

    def _hang(self) -> None:
        """Finds the way from the torso to the body's parts."""
        geoms = np.array([solid.geom for solid in self._own for _ in solid.points], int)
        points = np.concatenate([np.zeros((0, 3)), *(solid.points for solid in self._own)])
        self._limbs = Limbs(self._model, geoms, self._setting.torso, points) if len(geoms) else None


def _solid(model: mujoco.MjModel, geom: int) -> _Solid:
    """Its points in the frame of its body."""
    centre, axes = model.geom_pos[geom], matrix(model.geom_quat[geom]).T
    kind = _GEOM(model.geom_type[geom])
    if kind in _ROUND:
        half = model.geom_size[geom][1] * axes[2]
        return _Solid(geom, np.stack([centre - half, centre + half]))
    if kind in _SQUARE:
        return _Solid(geom, np.concatenate([centre[None], centre + axes]))
    return _Solid(geom, centre[None])


def _in_world(model: mujoco.MjModel, solid: _Solid) -> _Solid:
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    body = model.geom_bodyid[solid.geom]
    return solid._replace(points=data.xpos[body] + solid.points @ data.xmat[body].reshape(3, 3).T)


def _checkered(colour: Array, x: Array, y: Array) -> list[Array]:
    dark = (jnp.floor(x / SQUARE) + jnp.floor(y / SQUARE)) % 2
    return [c * (BRIGHT - (BRIGHT - DARK) * dark) for c in colour]


_LOOKS = 256
_MARGIN = 1.1  # of the radius of a sphere around a part: joints give way at their limits
