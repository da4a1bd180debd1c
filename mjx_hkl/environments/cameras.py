"""The agent's camera: what a world with one observes, and from what its pictures are drawn again."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import mujoco
from annotated_types import Ge, Le
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8
from pydantic import AllowInfNan

from mjx_hkl.config import Fraction
from mjx_hkl.environments.bodies import Body
from mjx_hkl.environments.boxes import Boxes
from mjx_hkl.environments.physics import full_precision
from mjx_hkl.environments.rays import Look, RayRenderer
from mjx_hkl.environments.scene import Marks
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


class Camera:
    """Groups `vision` and `vision_state` of one world.

    `vision_state` has, for each frame, qpos, mocap_pos, the marks of the task, and colours and light where
    they are random. All that the pictures are drawn from is in it, so that replay may keep it alone.
    """

    def __init__(
        self,
        config: CameraConfig,
        renderer: str,
        model: mujoco.MjModel,
        body: Body,
        boxes: Boxes,
        ground: tuple[str, ...],
        num_marks: int,
    ):
        """Raises UserError where there is no such camera or renderer, or something cannot be drawn."""
        _require_renderer(renderer)
        camera = _find(config.name, model)
        fovy = config.fovy or float(model.cam_fovy[camera])
        self._config, self._nq, self._nmocap, self._num_marks = config, model.nq, model.nmocap, num_marks
        size = (config.width, config.height)
        self.rays = RayRenderer(model, body, boxes, ground, num_marks, camera, size, fovy, config.checkered)
        self._is_random = config.random_colours > 0 or config.random_light > 0

    def look(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """What `vision_state` says of an episode's colours and light; nothing where they are not random."""
        if not self._is_random:
            return jnp.zeros(0)
        colour_key, light_key, bright_key = jax.random.split(key, 3)
        usual, mix, tilt = self.rays.look(), self._config.random_colours, self._config.random_light
        colours = (1 - mix) * usual.colours + mix * jax.random.uniform(colour_key, usual.colours.shape)
        light = usual.light + tilt * jax.random.uniform(light_key, (3,), minval=-0.3, maxval=0.3)
        light *= 1.0 + tilt * jax.random.uniform(bright_key, minval=-0.5, maxval=0.5)
        return jnp.concatenate([colours.ravel(), light])

    def first(self, qpos: Array, mocap_pos: Array, marks: Marks | None, look: Array) -> dict[str, Array]:
        """The groups at a start, which fills all frames."""
        frame = self._frame(qpos, mocap_pos, marks, look)
        image = self._image(frame)
        count = self._config.frames
        return {"vision": jnp.tile(image, (1, 1, count)), "vision_state": jnp.tile(frame, count)}

    def next(
        self, qpos: Array, mocap_pos: Array, marks: Marks | None, before: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The groups after a step from an observation: its oldest frame goes."""
        count = before["vision_state"].size // self._config.frames
        look = before["vision_state"][self._nq + 3 * self._nmocap + 5 * self._num_marks : count]
        frame = self._frame(qpos, mocap_pos, marks, look)
        return {
            "vision": jnp.concatenate([before["vision"][..., 3:], self._image(frame)], axis=-1),
            "vision_state": jnp.concatenate([before["vision_state"][count:], frame]),
        }

    def draw(
        self, observation: Mapping[str, Shaped[Array, "..."]]
    ) -> UInt8[Array, "*batch height width channels"]:
        """`vision` of `vision_state`, with any leading axes. See `World.drawing`."""
        frames = observation["vision_state"]
        leading = frames.shape[:-1]
        frames = frames.reshape(-1, frames.shape[-1] // self._config.frames)
        config = self._config
        images = jax.vmap(self._image)(frames).reshape(-1, config.frames, config.height, config.width, 3)
        images = jnp.moveaxis(images, 1, 3)
        return images.reshape(*leading, config.height, config.width, 3 * config.frames)

    def _frame(self, qpos: Array, mocap_pos: Array, marks: Marks | None, look: Array) -> Array:
        parts = [qpos, mocap_pos.ravel()]
        if marks is not None:
            parts += [marks.position.ravel(), marks.radius, marks.selected]
        return jnp.concatenate([*parts, look]).astype(jnp.float32)

    def _image(self, frame: Float[Array, " n"]) -> UInt8[Array, "height width 3"]:
        n = self._num_marks
        sizes = (self._nq, 3 * self._nmocap, 3 * n, n, n)
        qpos, mocap_pos, position, radius, selected, look = jnp.split(frame, _ends(sizes))
        marks = Marks(position.reshape(n, 3), radius, selected)
        usual = self.rays.look()
        if self._is_random:
            usual = Look(look[:-3].reshape(usual.colours.shape), look[-3:])
        with full_precision(), jax.named_scope("vision"):
            return self.rays.picture(qpos, mocap_pos.reshape(-1, 3), marks, usual)


def _ends(sizes: tuple[int, ...]) -> list[int]:
    return [sum(sizes[: i + 1]) for i in range(len(sizes))]


def _find(name: str, model: mujoco.MjModel) -> int:
    known = {model.camera(i).name: i for i in range(model.ncam)}
    if name not in known:
        have = ", ".join(map(repr, known)) or "none"
        raise UserError(f"[camera]: the body has no camera {name!r}; it has {have}")
    if model.cam_bodyid[known[name]] != model.body("torso").id:
        raise UserError(f"[camera]: camera {name!r} must be on the body's torso")
    return known[name]


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
