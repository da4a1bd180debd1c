"""Targets on the ground: state of a task, not part of the model."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped

from mjx_hkl.environments.scene import Marks, Scene, Stage
from mjx_hkl.environments.tasks.base import Groups


@flax.struct.dataclass
class Targets:
    """Where the targets are on the ground, metres, and which of them is asked for."""

    positions: Float[Array, "targets 2"]
    selected: Int[Array, ""]


def observe_targets(targets: Targets, scene: Scene, unit: float) -> Float[Array, " n"]:
    """Egocentric ground coordinates of all targets, in units of that many metres."""
    return scene.frame.egocentric(targets.positions).ravel() / unit


def reorder_targets(key: PRNGKeyArray, observation: Groups, count: int) -> Groups:
    """The targets in a random order, and with them the one-hot that the instruction begins with."""
    order = jax.random.permutation(key, count)
    targets, instruction = observation["targets"], observation["instruction"]
    return {
        **observation,
        "targets": reordered(targets, order, targets.shape[-1] // count),
        "instruction": reordered(instruction, order),
    }


def reordered(
    group: Shaped[Array, "*batch n"], order: Int[Array, " count"], size: int = 1, first: int = 0
) -> Shaped[Array, "*batch n"]:
    """A group with some of its things in another order, and all other numbers where they are.

    Args:
      group: an observation group.
      order: of the things: which one comes first, second, and so on.
      size: numbers of each thing.
      first: where the first thing's begin.
    """
    things = first + (order[:, None] * size + jnp.arange(size)).ravel()
    last = first + things.size
    index = jnp.arange(group.shape[-1])
    return group[..., jnp.concatenate([index[:first], things, index[last:]])]


def mark_targets(targets: Targets, radius: float) -> Marks:
    """A disc on the ground for each target."""
    count = len(targets.positions)
    position = jnp.concatenate([targets.positions, jnp.full((count, 1), 0.01)], axis=1)
    return Marks(position, jnp.full(count, radius), jax.nn.one_hot(targets.selected, count))


def mark_box(scene: Scene, box: int | Int[Array, ""]) -> Marks:
    """A disc on top of a box that shall be moved."""
    size = scene.boxes.size
    top = scene.boxes.position[box] + jnp.array([0.0, 0.0, size / 2 + 0.01])
    return Marks(top[None], jnp.full(1, size / 5), jnp.ones(1))


def is_near(position: Float[Array, " axes"], target: Float[Array, " 2"], radius: float) -> Float[Array, ""]:
    """1.0 where a position is within `radius` of a target, over the ground."""
    return (jnp.linalg.norm(position[:2] - target) < radius).astype(jnp.float32)


def half_width(stage: Stage) -> float:
    """Largest coordinate of a start, metres.

    Raises:
      UserError: the arena does not say one.
    """
    return stage.arena_with("half_width").half_width


def refuse_solved_starts(apart: str, separation: float, within: str, radius: float) -> None:
    """Raises ValueError where things may start within a success radius of each other."""
    if separation <= radius:
        raise ValueError(f"{apart} {separation} must exceed {within} {radius}, or starts may be solved")
