"""Locomotion (gap): run along a corridor and jump over the gap in its middle (Appendix E.2.1)."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.environments.numbers import Amount, Metres
from mjx_hkl.environments.scene import Scene, Stage
from mjx_hkl.environments.tasks.base import Outcome, Start


@flax.struct.dataclass
class GapState:
    """Ground points, metres: middles of the gap's two edges, and x of the corridor's end."""

    edges: Float[Array, "2 2"]
    end: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Gap:
    """Reward is forward velocity; the episode ends at the corridor's end."""

    shortest: Metres = 0.3  # metres of the gap, drawn uniformly for each episode
    longest: Metres = 2.5  # metres, at most
    reward_per_velocity: Amount = 0.15  # per control step and m/s
    distance_unit: Amount = 4.0  # metres; brings observed coordinates to the order of one

    def __post_init__(self):
        if self.shortest > self.longest:
            raise ValueError(f"shortest {self.shortest} exceeds longest {self.longest}")

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """See `Task.reset`; the body starts at the origin, facing the gap."""
        arena = stage.arena_with("before", "after", "far_platform_pos")
        length = jax.random.uniform(key, minval=self.shortest, maxval=self.longest)
        far_edge = arena.before + length
        edges = jnp.stack([jnp.array([arena.before, 0.0]), jnp.stack([far_edge, jnp.zeros(())])])
        mocap_pos = jnp.stack([jnp.asarray(x, jnp.float32) for x in arena.far_platform_pos(length)])[None]
        return Start(
            GapState(edges, far_edge + arena.after),
            position=jnp.zeros(2),
            heading=jnp.zeros(()),
            mocap_pos=mocap_pos,
        )

    def observe(self, state: GapState, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`gap`: egocentric coordinates of both edges' middles, so its position and its length."""
        return {"gap": scene.frame.egocentric(state.edges).ravel() / self.distance_unit}

    def reward(self, state: GapState, scene: Scene) -> Outcome:
        """Proportional to the velocity along the corridor."""
        success = (scene.frame.position[0] > state.end).astype(jnp.float32)
        return Outcome(self.reward_per_velocity * scene.frame.velocity[0], success)
