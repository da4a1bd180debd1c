"""What an agent sees: a camera on its torso, what stands in front of it, and how that is drawn."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8
from pydantic import AllowInfNan

from mjx_hkl.config import Fraction
from mjx_hkl.environments import rays
from mjx_hkl.environments.bodies import Body
from mjx_hkl.environments.boxes import Boxes, Poses
from mjx_hkl.environments.limbs import Limbs
from mjx_hkl.environments.rotations import seen_from, turned
from mjx_hkl.environments.scene import Marks
from mjx_hkl.environments.world import VISION, VISION_STATE
from mjx_hkl.errors import UserError, unknown_name

RENDERERS = ("auto", "rays", "warp")
Pixels = Annotated[int, Ge(1), Le(1024)]


@dataclasses.dataclass(frozen=True)
class CameraConfig:
    """The `[camera]` table of an environment file."""

    name: str = "egocentric"  # of a camera on the torso in the body's file
    width: Pixels = 64
    height: Pixels = 64
    fovy: Annotated[float, Ge(1.0), Le(170.0), AllowInfNan(False)] | None = None  # degrees; None: the file's
    frames: Annotated[int, Ge(1), Le(16)] = 1  # stacked, oldest first; a start is seen as often
    checkered: bool = True  # a floor of squares of a metre, by which motion is seen; else of one colour
    random_colours: Fraction = 0.0  # how far each episode's colours go to others at random; black stays
    random_light: Fraction = 0.0  # likewise its sun


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


class Camera:
    """Groups `vision` and `vision_state` of one world; pictures are drawn by rays.

    `vision_state` has, for each frame, qpos, mocap_pos, the marks of the task, and what is random about an
    episode's pictures: all that they are drawn from, so that replay may keep it alone.
    """

    def __init__(
        self,
        config: CameraConfig,
        renderer: str,
        model: mujoco.MjModel,
        body: Body,
        boxes: Boxes,
        num_marks: int,
    ):
        """Raises UserError where there is no such camera or renderer, or something cannot be drawn."""
        _require_renderer(renderer)
        self._config, self._model, self._body, self._boxes = config, model, body, boxes
        self._num_marks = num_marks
        self._sizes = (model.nq, 3 * model.nmocap, 3 * num_marks, num_marks, num_marks)
        torso, camera = model.body("torso").id, _find(config.name, model)
        self._place, self._turn = model.cam_pos[camera], _matrix(model.cam_quat[camera])
        angle = config.fovy or float(model.cam_fovy[camera])
        near, far = (model.stat.extent * x for x in (model.vis.map.znear, model.vis.map.zfar))  # MuJoCo's own
        self.view = rays.View(config.width, config.height, angle, float(near), float(far))
        self._level: list[int] = []
        self._own: list[_Solid] = []  # moves with the torso's limbs
        self._fixed: list[_Solid] = []  # in the world
        self._movable: list[tuple[int, _Solid]] = []  # on a mocap body
        self._in_boxes: list[tuple[int, int]] = []
        self._sort(torso, {model.body(f"box{i}").id: i for i in range(boxes.count)})
        self._keep_seen(torso)
        self._hang(torso)
        self._palette = np.concatenate([_colours(model), np.tile(_OTHER, (num_marks, 1))])

    def look(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """What is random about an episode's pictures; nothing where nothing is."""
        colour_key, light_key = jax.random.split(key)
        parts = [jnp.zeros(0)]
        if self._config.random_colours:
            parts.append(jax.random.uniform(colour_key, (self._palette.size,)))
        if self._config.random_light:
            parts.append(jax.random.uniform(light_key, (4,), minval=-1.0))
        return jnp.concatenate(parts)

    def first(self, qpos: Array, mocap_pos: Array, marks: Marks | None, look: Array) -> dict[str, Array]:
        """The groups at a start, which fills all frames."""
        state, count = self._state(qpos, mocap_pos, marks, look), self._config.frames
        image = self.picture(state).image()
        return {VISION: jnp.tile(image, (1, 1, count)), VISION_STATE: jnp.tile(state, count)}

    def next(
        self, qpos: Array, mocap_pos: Array, marks: Marks | None, before: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The groups after a step from an observation: its oldest frame goes."""
        count = before[VISION_STATE].size // self._config.frames
        look = before[VISION_STATE][sum(self._sizes) : count]
        state = self._state(qpos, mocap_pos, marks, look)
        image = self.picture(state).image()
        return {
            VISION: jnp.concatenate([before[VISION][..., 3:], image], axis=-1),
            VISION_STATE: jnp.concatenate([before[VISION_STATE][count:], state]),
        }

    def draw(
        self, observation: Mapping[str, Shaped[Array, "..."]]
    ) -> UInt8[Array, "*batch height width channels"]:
        """`vision` of `vision_state`, with any leading axes. See `World.drawing`."""
        states, config = observation[VISION_STATE], self._config
        leading = states.shape[:-1]
        states = states.reshape(-1, states.shape[-1] // config.frames)
        images = jax.vmap(lambda state: self.picture(state).image())(states)
        images = images.reshape(-1, config.frames, config.height, config.width, 3)
        return jnp.moveaxis(images, 1, 3).reshape(*leading, config.height, config.width, 3 * config.frames)

    def _state(self, qpos: Array, mocap_pos: Array, marks: Marks | None, look: Array) -> Array:
        parts = [qpos, mocap_pos.ravel()]
        if marks is not None:
            parts += [marks.position.ravel(), marks.radius, marks.selected]
        return jnp.concatenate([*parts, look]).astype(jnp.float32)

    @jax.named_scope("vision")
    def picture(self, state: Float[Array, " n"]) -> rays.Picture:
        """One picture, with depths and the numbers of geoms; those of marks follow the model's."""
        model, count, checkered = self._model, self._num_marks, self._config.checkered
        qpos, mocap, position, radius, selected, look = jnp.split(state, np.cumsum(self._sizes))
        mocap, position = mocap.reshape(-1, 3), position.reshape(-1, 3)
        torso, rotation = self._body.pose(qpos)
        place = Place(
            torso + turned(rotation, jnp.asarray(self._place, jnp.float32)),
            jnp.stack([turned(rotation, jnp.asarray(axis, jnp.float32)) for axis in self._turn.T], axis=-1),
        )
        colours, light, ambient = self._appearance(look, place)
        picture = rays.Picture.empty(self.view, light, _SKY, ambient)
        for geom in self._level:
            hit, x, y = self._flat(place, 0.0).hit(picture.rays)
            picture.draw(geom, hit, _checkered(colours[geom], x, y) if checkered else colours[geom])
        for geom, hit in self._hits(place, qpos, mocap, picture.rays):
            picture.draw(geom, hit, colours[geom])
        for i in range(count):
            hit, x, y = self._flat(place, position[i, 2] + _MARK_HEIGHT).hit(picture.rays)
            away = jnp.square(x - position[i, 0]) + jnp.square(y - position[i, 1])
            inside = hit._replace(is_met=hit.is_met & (away < jnp.square(radius[i])))
            ring = (away > jnp.square(radius[i] / 3)) & (away < jnp.square(radius[i] * 2 / 3))
            colour = [jnp.where(ring, 1.0, c) * (1.0 - selected[i]) for c in colours[model.ngeom + i]]
            picture.draw(model.ngeom + i, inside, colour)
        return picture

    def _hits(
        self, place: Place, qpos: Array, mocap: Array, seen_by: rays.Rays
    ) -> Iterator[tuple[int, rays.Hit]]:
        """Every solid with where it is met."""
        yield from self._own_hits(qpos, seen_by)
        for solid in self._fixed:
            points = place.seen(jnp.asarray(solid.points, jnp.float32))
            yield solid.geom, self._hit(solid.geom, points, seen_by)
        for number, solid in self._movable:
            points = place.seen(mocap[number] + jnp.asarray(solid.points, jnp.float32))
            yield solid.geom, self._hit(solid.geom, points, seen_by)
        poses: Poses = self._boxes.poses(qpos)
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

    def _appearance(self, look: Array, place: Place) -> tuple[Array, list[Array], Any]:
        """Colours of all geoms and marks, the direction to the light from the camera, the ambient light."""
        mix, tilt = self._config.random_colours, 0.5 * self._config.random_light
        colours, light, ambient = jnp.asarray(self._palette, jnp.float32), jnp.asarray(_LIGHT), _AMBIENT
        if mix:
            drawn, look = look[: colours.size].reshape(colours.shape), look[colours.size :]
            colours = (1.0 - mix) * colours + mix * drawn
        if tilt:
            light, ambient = light + tilt * look[:3], _AMBIENT * (1.0 + tilt * look[3])
        light = light / jnp.sqrt(jnp.sum(light * light))
        return colours, list(seen_from(place.rotation, light)), ambient

    def _sort(self, torso: int, boxes: dict[int, int]) -> None:
        """Fills the lists of what may be seen.

        Raises:
          UserError: something that is seen cannot be drawn.
        """
        model = self._model
        for geom in range(model.ngeom):
            body, kind, name = model.geom_bodyid[geom], _GEOM(model.geom_type[geom]), model.geom(geom).name
            if model.geom_group[geom] > 2 or _rgba(model, geom)[3] == 0:
                continue  # nor does MuJoCo draw it
            if kind not in _DRAWN:
                raise UserError(
                    f"[camera]: geom {name!r} is a {kind.name.removeprefix('mjGEOM_').lower()}, which"
                    " no ray is cast at here; put it in group 3 to leave it out of the picture"
                )
            if kind == _GEOM.mjGEOM_PLANE:
                if body or model.geom_pos[geom].any() or model.geom_quat[geom][0] != 1.0:
                    raise UserError(f"[camera]: plane {name!r} must be level ground at height 0 to be seen")
                self._level.append(geom)
            elif model.body_rootid[body] == torso:
                self._own.append(_solid(model, geom))
            elif model.body_mocapid[body] >= 0:
                self._movable.append((int(model.body_mocapid[body]), _solid(model, geom)))
            elif body in boxes:
                self._in_boxes.append((boxes[body], geom))
            elif model.body_weldid[body] == 0:
                self._fixed.append(_in_world(model, _solid(model, geom)))
            else:
                raise UserError(f"[camera]: geom {name!r} moves, and is no part of the body, arena or boxes")

    def _keep_seen(self, torso: int) -> None:
        """Leaves out the parts of the body that never come into the picture.

        A torso under its own camera, or hind legs, would cost as much as what is seen. For a part that is
        fixed to the torso rays decide; for a part that moves, the sphere around it at many joint positions.
        """
        model, view = self._model, self.view
        rows, columns = view.slopes()
        directions = np.stack([columns, rows, -np.ones_like(rows)], axis=-1) @ self._turn.T
        up, side = rows.max(), columns.max()
        centres = self._centres(torso)

        def is_met(geom: int) -> bool:
            kind, size = model.geom_type[geom], model.geom_size[geom]
            pose = model.geom_pos[geom], _matrix(model.geom_quat[geom]).ravel()
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

    def _centres(self, torso: int) -> Float[np.ndarray, "looks geoms 3"]:
        """The centres of all geoms in the torso frame at random joint positions."""
        model, data, rng = self._model, mujoco.MjData(self._model), np.random.default_rng(0)
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

    def _hang(self, torso: int) -> None:
        """Finds the way from the torso to the body's parts."""
        geoms = np.array([solid.geom for solid in self._own for _ in solid.points], int)
        points = np.concatenate([np.zeros((0, 3)), *(solid.points for solid in self._own)])
        self._limbs = Limbs(self._model, geoms, torso, points) if len(geoms) else None


def _find(name: str, model: mujoco.MjModel) -> int:
    known = {model.camera(i).name: i for i in range(model.ncam)}
    if name not in known:
        have = ", ".join(map(repr, known)) or "none"
        raise UserError(f"[camera]: the body has no camera {name!r}; it has {have}")
    camera = known[name]
    is_fixed = model.cam_mode[camera] == mujoco.mjtCamLight.mjCAMLIGHT_FIXED
    if not is_fixed or model.cam_bodyid[camera] != model.body("torso").id:
        raise UserError(f"[camera]: camera {name!r} must be fixed to the body's torso")
    return camera


def _require_renderer(name: str) -> None:
    if name not in RENDERERS:
        raise unknown_name("renderer", name, RENDERERS)
    if name == "warp":
        raise UserError(
            "renderer 'warp' draws a model's geoms alone, and targets are none; use renderer 'rays'"
        )


def marks_count(marks: Any) -> int:
    """Marks of a task that shows some; 0 of one that does not."""
    return 0 if marks is None else len(marks.position)


def _solid(model: mujoco.MjModel, geom: int) -> _Solid:
    """Its points in the frame of its body."""
    centre, axes = model.geom_pos[geom], _matrix(model.geom_quat[geom]).T
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


def _rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """A geom's colour: its own, or that of a material without a texture."""
    own, material = model.geom_rgba[geom], model.geom_matid[geom]
    plain = material >= 0 and (model.mat_texid[material] < 0).all()
    return model.mat_rgba[material] if plain and np.array_equal(own, _DEFAULT_RGBA) else own


def _colours(model: mujoco.MjModel) -> Float[np.ndarray, "geoms 3"]:
    return np.stack([_rgba(model, geom)[:3] for geom in range(model.ngeom)])


def _matrix(quaternion: np.ndarray) -> Float[np.ndarray, "3 3"]:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def _checkered(colour: Array, x: Array, y: Array) -> list[Array]:
    dark = (jnp.floor(x / _SQUARES) + jnp.floor(y / _SQUARES)) % 2
    return [c * (1.1 - 0.2 * dark) for c in colour]


_LOOKS = 256
_MARGIN = 1.1  # of the radius of a sphere around a part: joints give way at their limits
_DEFAULT_RGBA = np.array([0.5, 0.5, 0.5, 1.0], np.float32)
_SKY, _OTHER = (0.55, 0.7, 0.85), np.array([0.85, 0.25, 0.2])
_LIGHT, _AMBIENT = np.array([0.3, 0.2, 1.0], np.float32), 0.5
_SQUARES = 1.0  # metres
_MARK_HEIGHT = 0.005  # of a mark's upper side over its centre, metres: as pictures draw them
