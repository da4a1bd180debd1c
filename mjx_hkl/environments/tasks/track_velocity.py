"""Walking as a joystick says: ahead, to the side and turning, at speeds that change during the episode."""

import dataclasses
from typing import Annotated, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray
from pydantic import AfterValidator

from mjx_hkl.config import Fraction
from mjx_hkl.environments.choices import Choice, choice_at
from mjx_hkl.environments.numbers import Amount, Coordinate, Rate, rising
from mjx_hkl.environments.rotations import turn_matrix
from mjx_hkl.environments.scene import Marks, Scene, Stage
from mjx_hkl.environments.tasks import rewards
from mjx_hkl.environments.tasks.base import Outcome, Start

Speeds = Annotated[tuple[Coordinate, Coordinate], AfterValidator(rising)]
"""The least and the greatest, on either side of 0."""


@flax.struct.dataclass
class TrackState:
    """What is asked for now, and what feet did so far.

    Attributes:
      command: velocity ahead and to the left, m/s, and turning to the left, rad/s.
      steps_left: control steps until another command.
      key: of the commands to come.
      air: seconds that each foot has been in the air.
    """

    command: Float[Array, " 3"]
    steps_left: Int[Array, ""]
    key: PRNGKeyArray
    air: Float[Array, " feet"]


@dataclasses.dataclass(frozen=True)
class TrackVelocity:
    """Walk as commanded; each weight is of a term of `tasks/rewards.py`, and of each step."""

    can_succeed: ClassVar[bool] = False

    ahead: Speeds = (-0.5, 1.0)  # m/s, the least and the greatest that is asked for
    left: Speeds = (-0.5, 0.5)  # m/s
    turning: Speeds = (-1.0, 1.0)  # rad/s, to the left
    command_seconds: Amount = 4.0  # until another command
    still: Fraction = 0.1  # of commands, that say to stand
    tolerance: Amount = 0.5  # m/s and rad/s; this far off a step earns 0.37 of its weight
    velocity_weight: Rate = 1.0  # of `velocity_tracking`
    turn_weight: Rate = 0.5  # of `turn_tracking`
    action_rate_cost: Rate = 0.01  # of `action_rate`
    power_cost: Rate = 0.0  # of `power`
    sinking_cost: Rate = 0.5  # of `sinking`
    air_time_weight: Rate = 0.0  # of `air_time`
    air_time: Rate = 0.2  # seconds; who lands earlier pays
    fall_cost: Rate = 1.0  # once, at a fall
    fallen: Fraction = 0.2  # cosine of the torso's up-axis; below it the episode ends as a failure

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """See `Task.reset`; the body starts at the origin, in any direction."""
        command_key, key = jax.random.split(key)
        steps = self._steps(stage.control_seconds)
        state = TrackState(self._draw(command_key), steps, key, jnp.zeros(len(stage.feet)))
        return Start(state, position=jnp.zeros(2))

    def observe(self, state: TrackState, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`instruction`: the command, over the greatest speeds that are asked for; `last_action`."""
        most = [max(map(abs, speeds)) or 1.0 for speeds in (self.ahead, self.left, self.turning)]
        return {"instruction": state.command / jnp.asarray(most), "last_action": scene.action}

    def reward(self, state: TrackState, scene: Scene) -> Outcome:
        """The weighted terms; there is no success, and a fall is a failure."""
        seconds = scene.control_seconds
        air_time, air = rewards.air_time(scene, state.air, self.air_time, seconds)
        moves = jnp.any(state.command != 0)
        fallen = (rewards.upright(scene) < self.fallen).astype(jnp.float32)
        asked, turning = state.command[:2], state.command[2]
        weighted = {
            "velocity": (
                self.velocity_weight,
                lambda: rewards.velocity_tracking(scene, asked, self.tolerance),
            ),
            "turning": (self.turn_weight, lambda: rewards.turn_tracking(scene, turning, self.tolerance)),
            "action_rate": (-self.action_rate_cost, lambda: rewards.action_rate(scene)),
            "power": (-self.power_cost, lambda: rewards.power(scene)),
            "sinking": (-self.sinking_cost, lambda: rewards.sinking(scene)),
            "air_time": (self.air_time_weight, lambda: moves * air_time),
            "fall": (-self.fall_cost, lambda: fallen),
        }
        terms = {name: weight * term() for name, (weight, term) in weighted.items() if weight}
        return Outcome(
            reward=sum(terms.values(), jnp.zeros(())),
            success=jnp.zeros(()),
            state=self._next(state, air, seconds),
            failure=fallen,
            terms=terms,
        )

    def choices(self, stage: Stage) -> dict[str, Choice]:
        """Each speed of the command that is asked for, m/s and rad/s."""
        speeds = {"ahead (m/s)": self.ahead, "left (m/s)": self.left, "turning (rad/s)": self.turning}
        return {
            name: choice_at((low, high), "command", i)
            for i, (name, (low, high)) in enumerate(speeds.items())
            if low < high
        }

    def marks(self, state: TrackState, scene: Scene) -> Marks:
        """Where the body should be in a second."""
        ahead = turn_matrix(scene.frame.heading)[:2, :2] @ state.command[:2]
        place = scene.frame.position[:2] + ahead
        return Marks(jnp.append(place, 0.01)[None], jnp.full(1, 0.1), jnp.ones(1))

    def _next(self, state: TrackState, air: Float[Array, " feet"], seconds: float) -> TrackState:
        command_key, key = jax.random.split(state.key)
        is_over = state.steps_left <= 1
        command = jnp.where(is_over, self._draw(command_key), state.command)
        steps_left = jnp.where(is_over, self._steps(seconds), state.steps_left - 1)
        return TrackState(command, steps_left, key, air)

    def _draw(self, key: PRNGKeyArray) -> Float[Array, " 3"]:
        """A command: each speed uniform, or all 0."""
        speed_key, still_key = jax.random.split(key)
        low, high = jnp.asarray([self.ahead, self.left, self.turning]).T
        command = jax.random.uniform(speed_key, (3,), minval=low, maxval=high)
        return jnp.where(jax.random.uniform(still_key) < self.still, 0.0, command)

    def _steps(self, control_seconds: float) -> Int[Array, ""]:
        """Control steps that a command lasts."""
        return jnp.asarray(max(1, round(self.command_seconds / control_seconds)), jnp.int32)
