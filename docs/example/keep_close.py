"""A task of its own: stay close to a beacon that is placed anew in each episode."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from mjx_hkl.environments.tasks import Outcome, Start


@dataclasses.dataclass(frozen=True)
class KeepClose:
    """Its fields are the [task] table of the environment file; pydantic checks them."""

    can_succeed: ClassVar[bool] = False  # its episodes are told by their return

    reach: float = 1.0  # metres

    def reset(self, key, stage):
        """Where the episode begins; `state` is any pytree of arrays."""
        beacon, body = jax.random.uniform(
            key, (2, 2), minval=-stage.arena.half_width, maxval=stage.arena.half_width
        )
        return Start(state=beacon, position=body)

    def observe(self, state, scene):
        """Groups of observations by name, in the body's own frame."""
        return {"beacon": scene.frame.egocentric(state)}

    def reward(self, state, scene):
        """1 at the beacon, falling off with distance; the episode ends with the time limit."""
        distance = jnp.linalg.norm(scene.frame.position[:2] - state)
        return Outcome(reward=jnp.exp(-distance / self.reach), success=jnp.zeros(()))
