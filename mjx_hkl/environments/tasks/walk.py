"""Directional walking: at a fixed speed, forward, back, left or right (Appendix A)."""

import dataclasses
from typing import ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mjx_hkl.environments.choices import Choice, choice_at
from mjx_hkl.environments.numbers import Amount
from mjx_hkl.environments.scene import Marks, Scene, Stage
from mjx_hkl.environments.tasks.base import Outcome, Start

_DIRECTIONS = ("forward", "back", "left", "right")
_TURNS = np.array([0.0, np.pi, np.pi / 2, -np.pi / 2], np.float32)
"""Of the directions from the heading, radians."""


@flax.struct.dataclass
class WalkState:
    """Which direction is asked for, which one after it, and in how many control steps that begins."""

    direction: Int[Array, ""]
    next_direction: Int[Array, ""]
    steps_left: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class Walk:
    """Walk in the direction that the instruction says; half-way through the episode it says another one.

    Directions are those of the heading frame: left is a step to the side, and nobody has to turn. So the
    instruction says all there is to know, and no frame of the start has to be observed.
    """

    can_succeed: ClassVar[bool] = False

    speed: Amount = 1.0  # m/s
    margin: Amount = 1.0  # m/s; this far from the velocity asked for a step earns a tenth
    reward_per_step: Amount = 0.15  # at exactly that velocity

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """See `Task.reset`; the body starts at the origin. The second direction differs from the first."""
        first_key, other_key = jax.random.split(key)
        direction = jax.random.randint(first_key, (), 0, 4)
        next_direction = (direction + jax.random.randint(other_key, (), 1, 4)) % 4
        half = jnp.asarray(stage.episode_length // 2, jnp.int32)
        return Start(WalkState(direction, next_direction, half), position=jnp.zeros(2))

    def observe(self, state: WalkState, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`instruction`: one-hot of the direction."""
        return {"instruction": jax.nn.one_hot(state.direction, 4)}

    def reward(self, state: WalkState, scene: Scene) -> Outcome:
        """How close the torso's velocity over the ground is to the one asked for.

        It falls off as dm_control's `rewards.tolerance` does: a Gaussian that is 0.1 at the margin. There is
        no success; the direction changes after the step that ends the first half.
        """
        error = scene.frame.velocity[:2] - self._velocity(state, scene)
        closeness = 0.1 ** (jnp.sum(error**2) / self.margin**2)
        steps_left = state.steps_left - 1
        direction = jnp.where(steps_left == 0, state.next_direction, state.direction)
        after = state.replace(direction=direction, steps_left=steps_left)
        return Outcome(self.reward_per_step * closeness, jnp.zeros(()), after)

    def choices(self, stage: Stage) -> dict[str, Choice]:
        """The direction."""
        return {"direction": choice_at(_DIRECTIONS, "direction")}

    def marks(self, state: WalkState, scene: Scene) -> Marks:
        """Where the body should be in a second."""
        place = scene.frame.position[:2] + self._velocity(state, scene)
        return Marks(jnp.append(place, 0.01)[None], jnp.full(1, 0.1), jnp.ones(1))

    def _velocity(self, state: WalkState, scene: Scene) -> Float[Array, " 2"]:
        """Asked for over the ground, in the world, m/s."""
        way = scene.frame.heading + jnp.asarray(_TURNS)[state.direction]
        return self.speed * jnp.stack([jnp.cos(way), jnp.sin(way)])
