"""A task with an image: where the beacon is, drawn into a small picture instead of given in metres."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from mjx_hkl.environments.tasks import Outcome, Start


@dataclasses.dataclass(frozen=True)
class SeenFromAbove:
    """Its fields are the [task] table of the environment file."""

    can_succeed: ClassVar[bool] = False  # its episodes are told by their return

    reach: float = 1.0  # metres
    pixels: int = 8  # height and width of the picture

    def reset(self, key, stage):
        """Where the episode begins."""
        half = stage.arena.half_width
        beacon, body = jax.random.uniform(key, (2, 2), minval=-half, maxval=half)
        return Start(state=beacon, position=body)

    def observe(self, state, scene):
        """A picture in the body's own frame, 4 metres wide: the beacon is a bright spot in red."""
        away = scene.frame.egocentric(state)[:2]
        middles = (jnp.arange(self.pixels) + 0.5) / self.pixels * 4.0 - 2.0
        squared = (middles[:, None] - away[0]) ** 2 + (middles[None, :] - away[1]) ** 2
        spot = (255.0 * jnp.exp(-2.0 * squared)).astype(jnp.uint8)
        return {"picture": jnp.stack([spot, jnp.zeros_like(spot), jnp.zeros_like(spot)], axis=-1)}

    def reward(self, state, scene):
        """1 at the beacon, falling off with distance; the episode ends with the time limit."""
        distance = jnp.linalg.norm(scene.frame.position[:2] - state)
        return Outcome(reward=jnp.exp(-distance / self.reach), success=jnp.zeros(()))
