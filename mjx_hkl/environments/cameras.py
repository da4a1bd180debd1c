"""What an agent sees: the groups that a camera on its torso adds to observations."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8

from mjx_hkl.environments.renderers import CameraConfig, Renderer, Seen, Setting, make_renderer
from mjx_hkl.environments.renderers.setting import Appearance
from mjx_hkl.environments.scene import Marks
from mjx_hkl.environments.world import VISION, VISION_STATE

__all__ = ["Camera", "CameraConfig", "marks_count"]


class Camera:
    """Groups `vision` and `vision_state` of one world.

    `vision_state` has, for each frame, qpos, mocap_pos, the marks of the task, and what is random about an
    episode's pictures: all that they are drawn from, so that replay may keep it alone.

    Attributes:
      renderer: draws the pictures.
    """

    renderer: Renderer

    def __init__(self, renderer: str, setting: Setting):
        """Raises UserError where there is no such camera or renderer, or something cannot be drawn."""
        self.renderer = make_renderer(renderer, setting)
        self._config, self._appearance = setting.config, Appearance(setting)
        marks, movable = setting.num_marks, setting.model.nmocap
        self._ends = np.cumsum([setting.model.nq, 3 * movable, 3 * marks, marks, marks])  # of `Seen`

    def look(self, key: PRNGKeyArray) -> Float[Array, " n"]:
        """What is random about an episode's pictures; nothing where nothing is."""
        return self._appearance.draw(key)

    def first(self, qpos: Array, mocap_pos: Array, marks: Marks | None, look: Array) -> dict[str, Array]:
        """The groups at a start, which fills all frames."""
        state, count = _state(qpos, mocap_pos, marks, look), self._config.frames
        image = self.renderer.image(self.seen(state))
        return {VISION: jnp.tile(image, (1, 1, count)), VISION_STATE: jnp.tile(state, count)}

    def next(
        self, qpos: Array, mocap_pos: Array, marks: Marks | None, before: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The groups after a step from an observation: its oldest frame goes."""
        count = before[VISION_STATE].size // self._config.frames
        look = before[VISION_STATE][self._ends[-1] : count]
        state = _state(qpos, mocap_pos, marks, look)
        image = self.renderer.image(self.seen(state))
        return {
            VISION: jnp.concatenate([before[VISION][..., 3:], image], axis=-1),
            VISION_STATE: jnp.concatenate([before[VISION_STATE][count:], state]),
        }

    def again(
        self, qpos: Array, mocap_pos: Array, marks: Marks | None, before: Mapping[str, Array]
    ) -> dict[str, Array]:
        """The groups of an observation whose newest frame is drawn anew."""
        states, images = before[VISION_STATE], before[VISION]
        count = states.size // self._config.frames
        without = {
            VISION: jnp.concatenate([images[..., :3], images[..., :-3]], axis=-1),
            VISION_STATE: jnp.concatenate([states[:count], states[:-count]]),
        }
        return self.next(qpos, mocap_pos, marks, without)

    def draw(
        self, observation: Mapping[str, Shaped[Array, "..."]]
    ) -> UInt8[Array, "*batch height width channels"]:
        """`vision` of `vision_state`, with any leading axes. See `World.drawing`."""
        states, config = observation[VISION_STATE], self._config
        leading = states.shape[:-1]
        states = states.reshape(-1, states.shape[-1] // config.frames)
        images = jax.vmap(lambda state: self.renderer.image(self.seen(state)))(states)
        images = images.reshape(-1, config.frames, config.height, config.width, 3)
        return jnp.moveaxis(images, 1, 3).reshape(*leading, config.height, config.width, 3 * config.frames)

    def seen(self, state: Float[Array, " n"]) -> Seen:
        """What a frame's part of `vision_state` says."""
        qpos, mocap_pos, position, radius, selected, look = jnp.split(state, self._ends)
        return Seen(qpos, mocap_pos.reshape(-1, 3), position.reshape(-1, 3), radius, selected, look)


def _state(qpos: Array, mocap_pos: Array, marks: Marks | None, look: Array) -> Array:
    parts = [qpos, mocap_pos.ravel()]
    if marks is not None:
        parts += [marks.position.ravel(), marks.radius, marks.selected]
    return jnp.concatenate([*parts, look]).astype(jnp.float32)


def marks_count(marks: Any) -> int:
    """Marks of a task that shows some; 0 of one that does not."""
    return 0 if marks is None else len(marks.position)
