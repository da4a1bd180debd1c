"""Manipulation: pushing boxes to targets and together, alone or beside going to a target (Appendix E.2.1)."""

import dataclasses
from typing import Annotated, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mjx_hkl.environments.boxes import BoxesConfig
from mjx_hkl.environments.choices import Choice, choice_at, numbered
from mjx_hkl.environments.numbers import Amount, Distance, Metres, Things
from mjx_hkl.environments.placement import place_apart
from mjx_hkl.environments.scene import Marks, Scene, Stage
from mjx_hkl.environments.tasks.base import Groups, Outcome, Start
from mjx_hkl.environments.tasks.targets import (
    Targets,
    half_width,
    is_near,
    mark_box,
    mark_targets,
    observe_targets,
    refuse_solved_starts,
    reorder_targets,
    reordered,
)
from mjx_hkl.errors import UserError


class Places(NamedTuple):
    """Ground points where things start, metres."""

    boxes: Float[Array, "boxes 2"]
    targets: Float[Array, "targets 2"]
    body: Float[Array, " 2"]


@dataclasses.dataclass(frozen=True)
class Manipulation:
    """What the tasks with boxes share: where things start, and how boxes are observed."""

    separation: Distance = 0.6  # metres between targets, and from targets to boxes, at the start
    room: Distance = 0.05  # metres left free between body and boxes, and between boxes
    num_corners: Annotated[int, Ge(1), Le(8)] = 6  # of each box, observed
    distance_unit: Amount = 1.5  # metres; brings observed coordinates to the order of one

    def place(
        self, key: PRNGKeyArray, stage: Stage, num_targets: int, body_to_targets: float = 0.0
    ) -> Places:
        """Boxes and targets where boxes can go, then the body at a place no box takes at any heading.

        Raises:
          UserError: the arena does not say where starts may lie, there are no boxes, or they find no room.
        """
        width = half_width(stage)
        boxes = require_boxes(stage)
        inner = width - boxes.clearance
        if inner <= 0:
            raise UserError(
                f"[boxes]: a clearance of {boxes.clearance:g} m leaves no room for boxes in an area of"
                f" {2 * width:g} m"
            )
        n = boxes.count
        box_box = 2 * boxes.radius + self.room
        box_body = boxes.radius + stage.body_radius + self.room
        apart = [
            *((box_box,) * i for i in range(n)),
            *((self.separation,) * (n + i) for i in range(num_targets)),
            (box_body,) * n + (body_to_targets,) * num_targets,
        ]
        half_widths = (inner,) * (n + num_targets) + (width,)
        points = place_apart(key, half_widths, tuple(apart))
        return Places(points[:n], points[n:-1], points[-1])

    def observe_boxes(self, scene: Scene) -> Float[Array, " n"]:
        """Egocentric coordinates of the corners of all boxes, in distance units."""
        return scene.frame.egocentric(scene.boxes.corners(self.num_corners)).ravel() / self.distance_unit

    def reorder_boxes(self, key: PRNGKeyArray, observation: Groups) -> tuple[Groups, Int[Array, " boxes"]]:
        """The observation with boxes, which are all alike, in a random order; and that order."""
        size = 3 * self.num_corners
        order = jax.random.permutation(key, observation["boxes"].shape[-1] // size)
        return {**observation, "boxes": reordered(observation["boxes"], order, size)}, order


def require_boxes(stage: Stage) -> BoxesConfig:
    """The stage's boxes.

    Raises:
      UserError: there are none.
    """
    if stage.boxes is None:
        raise UserError("[task] needs boxes: give the environment a [boxes] table")
    return stage.boxes


@flax.struct.dataclass
class MoveBoxState:
    """Which box shall go to which target."""

    targets: Targets
    box: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class MoveBox(Manipulation):
    """Move one of N boxes to one of K targets; the instruction says which to which."""

    num_targets: Things = 1  # one of which is asked for
    radius: Metres = 0.3  # metres from the box's centre to the target
    reward_at_target: Amount = 60.0  # for the box that is asked for; ends the episode

    def __post_init__(self):
        refuse_solved_starts("separation", self.separation, "radius", self.radius)

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """See `Task.reset`."""
        place_key, box_key, target_key = jax.random.split(key, 3)
        places = self.place(place_key, stage, self.num_targets)
        selected = jax.random.randint(target_key, (), 0, self.num_targets)
        box = jax.random.randint(box_key, (), 0, len(places.boxes))
        state = MoveBoxState(Targets(places.targets, selected), box)
        return Start(state, places.body, boxes=places.boxes)

    def observe(self, state: MoveBoxState, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`targets`, `boxes`: egocentric; `instruction`: one-hot of the target, then of several boxes."""
        num_boxes = len(scene.boxes.position)
        which_box = jax.nn.one_hot(state.box, num_boxes if num_boxes > 1 else 0)
        return {
            "targets": observe_targets(state.targets, scene, self.distance_unit),
            "boxes": self.observe_boxes(scene),
            "instruction": jnp.concatenate(
                [jax.nn.one_hot(state.targets.selected, self.num_targets), which_box]
            ),
        }

    def reward(self, state: MoveBoxState, scene: Scene) -> Outcome:
        """The reward is given once, when the box is there."""
        target = state.targets.positions[state.targets.selected]
        success = is_near(scene.boxes.position[state.box], target, self.radius)
        return Outcome(self.reward_at_target * success, success)

    def symmetry(self, key: PRNGKeyArray, observation: Groups) -> Groups:
        """Targets and boxes in other orders, and the instruction with them."""
        target_key, box_key = jax.random.split(key)
        seen, order = self.reorder_boxes(box_key, reorder_targets(target_key, observation, self.num_targets))
        if len(order) == 1:  # an instruction does not name it
            return seen
        return {**seen, "instruction": reordered(seen["instruction"], order, first=self.num_targets)}

    def choices(self, stage: Stage) -> dict[str, Choice]:
        """Which box to which target, where there are several."""
        counts = {"target": self.num_targets, "box": require_boxes(stage).count}
        places = {"target": ("targets", "selected"), "box": ("box",)}
        return {name: choice_at(numbered(n), *places[name]) for name, n in counts.items() if n > 1}

    def marks(self, state: MoveBoxState, scene: Scene) -> Marks:
        """The targets, and which box is asked for."""
        return _joined(mark_targets(state.targets, self.radius), mark_box(scene, state.box))


@dataclasses.dataclass(frozen=True)
class GatherBoxes(Manipulation):
    """Bring all boxes together, so that each touches another."""

    reward_at_touch: Amount = 60.0  # once each box touches another; ends the episode

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """See `Task.reset`."""
        if require_boxes(stage).count < 2:
            raise UserError('[task] kind "gather_boxes" needs at least 2 boxes: set count in [boxes]')
        places = self.place(key, stage, num_targets=0)
        return Start((), places.body, boxes=places.boxes)

    def observe(self, state: tuple[()], scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`boxes`: egocentric."""
        return {"boxes": self.observe_boxes(scene)}

    def symmetry(self, key: PRNGKeyArray, observation: Groups) -> Groups:
        """The boxes in another order."""
        return self.reorder_boxes(key, observation)[0]

    def reward(self, state: tuple[()], scene: Scene) -> Outcome:
        """Given once, when the boxes touch; a touch within the control step counts, they may bounce."""
        linked = scene.boxes_during.touching().astype(jnp.float32)
        count = linked.shape[-1]
        reachable = jnp.linalg.matrix_power(linked, max(count - 1, 1)) > 0  # over others that touch
        success = jnp.all(reachable, axis=(-2, -1)).any().astype(jnp.float32)
        return Outcome(self.reward_at_touch * success, success)


@flax.struct.dataclass
class CombinedState:
    """A box, two targets, and what is asked for.

    Attributes:
      targets: the selected one is the box's, or the body's where it shall go there.
      moving: 1.0 where the box shall be moved (Or).
      delivered: 1.0 once the box was at its target (And).
      arrived: 1.0 once the body was at the other target (And).
    """

    targets: Targets
    moving: Float[Array, ""]
    delivered: Float[Array, ""]
    arrived: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Combined(Manipulation):
    """What Or and And share: one box, two targets, two radii."""

    box_radius: Metres = 0.3  # metres from the box's centre to its target
    body_radius: Metres = 0.5  # metres from the torso's centre to its target
    body_separation: Distance = 0.75  # metres from the body to the targets at the start

    def __post_init__(self):
        refuse_solved_starts("separation", self.separation, "box_radius", self.box_radius)
        refuse_solved_starts("body_separation", self.body_separation, "body_radius", self.body_radius)

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """See `Task.reset`."""
        if require_boxes(stage).count != 1:
            raise UserError("[task] combined tasks have one box: set count = 1 in [boxes]")
        place_key, target_key, which_key = jax.random.split(key, 3)
        places = self.place(place_key, stage, num_targets=2, body_to_targets=self.body_separation)
        state = CombinedState(
            Targets(places.targets, jax.random.randint(target_key, (), 0, 2)),
            moving=jax.random.bernoulli(which_key).astype(jnp.float32),
            delivered=jnp.zeros(()),
            arrived=jnp.zeros(()),
        )
        return Start(state, places.body, boxes=places.boxes)

    def groups(
        self, state: CombinedState, scene: Scene, instance: list[Array]
    ) -> dict[str, Float[Array, " n"]]:
        """`targets` and `boxes`: egocentric; `instruction`: one-hot of the target, and `instance`."""
        return {
            "targets": observe_targets(state.targets, scene, self.distance_unit),
            "boxes": self.observe_boxes(scene),
            "instruction": jnp.concatenate([jax.nn.one_hot(state.targets.selected, 2), jnp.stack(instance)]),
        }

    def symmetry(self, key: PRNGKeyArray, observation: Groups) -> Groups:
        """The two targets in another order, and the instruction with them."""
        return reorder_targets(key, observation, 2)

    def choices(self, stage: Stage) -> dict[str, Choice]:
        """Which target."""
        return {"target": choice_at(numbered(2), "targets", "selected")}


@dataclasses.dataclass(frozen=True)
class MoveBoxOrGoToTarget(Combined):
    """Either the box or the body shall come to the selected target; the instruction says which."""

    reward_at_target: Amount = 60.0  # for what is asked for; ends the episode

    def observe(self, state: CombinedState, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`instruction`: one-hot of the target, then of move and go."""
        return self.groups(state, scene, [state.moving, 1.0 - state.moving])

    def reward(self, state: CombinedState, scene: Scene) -> Outcome:
        """The reward is given once, for what was asked for only."""
        target = state.targets.positions[state.targets.selected]
        moved = is_near(scene.boxes.position[0], target, self.box_radius)
        gone = is_near(scene.frame.position, target, self.body_radius)
        success = jnp.where(state.moving > 0, moved, gone)
        return Outcome(self.reward_at_target * success, success)

    def choices(self, stage: Stage) -> dict[str, Choice]:
        """Which target, and what shall come there."""
        return {**super().choices(stage), "what": choice_at(("body", "box"), "moving")}

    def marks(self, state: CombinedState, scene: Scene) -> Marks:
        """The targets, and the box where it shall be moved."""
        box = mark_box(scene, 0)
        radius = jnp.where(state.moving > 0, self.box_radius, self.body_radius)
        return _joined(
            mark_targets(state.targets, 1.0)._replace(radius=jnp.full(2, radius)),
            box._replace(radius=box.radius * state.moving),
        )


@dataclasses.dataclass(frozen=True)
class MoveBoxAndGoToTarget(Combined):
    """The box shall come to the selected target and the body to the other one."""

    reward_each: Amount = 10.0  # for each of the two, once
    bonus: Amount = 50.0  # for both
    in_order: bool = False  # the body's arrival counts only after the box's

    def observe(self, state: CombinedState, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """`instruction`: one-hot of the box's target, then what is done: the box there, the body there."""
        return self.groups(state, scene, [state.delivered, state.arrived])

    def reward(self, state: CombinedState, scene: Scene) -> Outcome:
        """What is done stays done, even if the box is pushed away again."""
        box_target = state.targets.positions[state.targets.selected]
        body_target = state.targets.positions[1 - state.targets.selected]
        moved = is_near(scene.boxes.position[0], box_target, self.box_radius)
        delivered = jnp.maximum(state.delivered, moved)
        gone = is_near(scene.frame.position, body_target, self.body_radius)
        arrived = jnp.maximum(state.arrived, gone * (delivered if self.in_order else 1.0))
        newly_done = delivered + arrived - state.delivered - state.arrived
        success = delivered * arrived
        reward = self.reward_each * newly_done + self.bonus * success
        return Outcome(reward, success, state.replace(delivered=delivered, arrived=arrived))

    def marks(self, state: CombinedState, scene: Scene) -> Marks:
        """The box's target, selected, and the body's; the box until it is delivered."""
        radius = jnp.full(2, self.body_radius).at[state.targets.selected].set(self.box_radius)
        box = mark_box(scene, 0)
        return _joined(
            mark_targets(state.targets, 1.0)._replace(radius=radius),
            box._replace(radius=box.radius * (1.0 - state.delivered)),
        )


def _joined(*marks: Marks) -> Marks:
    return Marks(*(jnp.concatenate(parts) for parts in zip(*marks, strict=True)))
