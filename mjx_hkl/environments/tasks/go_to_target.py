"""Locomotion: go to one of K targets (Appendix E.2.1)."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mjx_hkl.config import NonNegativeFloat, Positive, PositiveFloat
from mjx_hkl.environments.arenas import Area
from mjx_hkl.environments.bodies import Frame
from mjx_hkl.environments.placement import place_apart
from mjx_hkl.environments.tasks.base import Outcome
from mjx_hkl.errors import UserError


@flax.struct.dataclass
class Targets:
    """Where the targets are on the ground, metres, and which of them is asked for."""

    positions: Float[Array, "targets 2"]
    selected: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class GoToTarget:
    """Reach the selected target; the instruction says which one it is."""

    num_targets: Positive = 3
    radius: PositiveFloat = 0.5  # metres from the torso's centre to the target, over the ground
    reward_at_target: PositiveFloat = 60.0
    separation: NonNegativeFloat = 1.0  # metres between any two of body and targets at the start
    distance_unit: PositiveFloat = 4.0  # metres; brings observed coordinates to the order of one

    def __post_init__(self):
        if self.separation <= self.radius:
            raise ValueError(
                f"separation {self.separation} must exceed radius {self.radius}, or starts may be solved"
            )

    def reset(self, key: PRNGKeyArray, arena: Area) -> tuple[Targets, Float[Array, " 2"]]:
        """See `Task.reset`."""
        room = 2 * arena.half_width
        if (self.num_targets + 1) * self.separation**2 > 0.25 * room**2:
            raise UserError(
                f"[task]: an area of {room:g} m is too small for {self.num_targets} targets and the body"
                f" {self.separation:g} m apart; enlarge the area or lower separation"
            )
        place_key, select_key = jax.random.split(key)
        points = place_apart(place_key, self.num_targets + 1, arena.half_width, self.separation)
        return Targets(points[1:], jax.random.randint(select_key, (), 0, self.num_targets)), points[0]

    def observe(self, state: Targets, frame: Frame) -> dict[str, Float[Array, " n"]]:
        """`targets`: egocentric coordinates in distance units; `instruction`: one-hot of the selected one."""
        return {
            "targets": frame.egocentric(state.positions).ravel() / self.distance_unit,
            "instruction": jax.nn.one_hot(state.selected, self.num_targets),
        }

    def reward(self, state: Targets, frame: Frame) -> Outcome:
        """The reward is given once, on arrival."""
        distance = jnp.linalg.norm(state.positions[state.selected] - frame.position[:2])
        success = (distance < self.radius).astype(jnp.float32)
        return Outcome(self.reward_at_target * success, success)
