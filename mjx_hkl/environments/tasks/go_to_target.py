"""Locomotion: go to one of K targets (Appendix E.2.1)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.environments.choices import Choice, choice_at, numbered
from mjx_hkl.environments.numbers import Amount, Distance, Metres, Things
from mjx_hkl.environments.placement import place_apart
from mjx_hkl.environments.scene import Marks, Scene, Stage
from mjx_hkl.environments.tasks.base import Groups, Outcome, Start
from mjx_hkl.environments.tasks.targets import (
    Targets,
    half_width,
    is_near,
    mark_targets,
    observe_targets,
    refuse_solved_starts,
    reorder_targets,
)


@dataclasses.dataclass(frozen=True)
class GoToTarget:
    """Reach the selected target; the instruction says which one it is."""

    num_targets: Things = 3  # one of which is asked for
    radius: Metres = 0.5  # metres from the torso's centre to the target, over the ground
    reward_at_target: Amount = 60.0  # at the one that is asked for; ends the episode
    separation: Distance = 1.0  # metres between any two of body and targets at the start
    distance_unit: Amount = 4.0  # metres; brings observed coordinates to the order of one

    def __post_init__(self):
        refuse_solved_starts("separation", self.separation, "radius", self.radius)

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """See `Task.reset`."""
        width = half_width(stage)
        place_key, select_key = jax.random.split(key)
        count = self.num_targets + 1
        apart = tuple((self.separation,) * i for i in range(count))
        points = place_apart(place_key, (width,) * count, apart)
        selected = jax.random.randint(select_key, (), 0, self.num_targets)
        return Start(Targets(points[1:], selected), position=points[0])

    def observe(self, state: Targets, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`targets`: egocentric coordinates in distance units; `instruction`: one-hot of the selected one."""
        return {
            "targets": observe_targets(state, scene, self.distance_unit),
            "instruction": jax.nn.one_hot(state.selected, self.num_targets),
        }

    def reward(self, state: Targets, scene: Scene) -> Outcome:
        """The reward is given once, on arrival."""
        success = is_near(scene.frame.position, state.positions[state.selected], self.radius)
        return Outcome(self.reward_at_target * success, success)

    def symmetry(self, key: PRNGKeyArray, observation: Groups) -> Groups:
        """The targets in another order, and the instruction with them."""
        return reorder_targets(key, observation, self.num_targets)

    def relabel(
        self, key: PRNGKeyArray, observation: Groups
    ) -> tuple[Groups, Float[Array, "*batch"], Float[Array, "*batch"]]:
        """Another target is asked for, and reached where the body is near it."""
        selected = jax.random.randint(key, (), 0, self.num_targets)
        instruction = observation["instruction"]
        asked = jnp.broadcast_to(jax.nn.one_hot(selected, self.num_targets), instruction.shape)
        targets = observation["targets"].reshape(*instruction.shape, 2)
        distance = self.distance_unit * jnp.linalg.norm(targets[..., selected, :], axis=-1)
        success = (distance < self.radius).astype(jnp.float32)
        return {**observation, "instruction": asked}, self.reward_at_target * success, success

    def choices(self, stage: Stage) -> dict[str, Choice]:
        """Which target."""
        return {"target": choice_at(numbered(self.num_targets), "selected")}

    def marks(self, state: Targets, scene: Scene) -> Marks:
        """The targets."""
        return mark_targets(state, self.radius)
