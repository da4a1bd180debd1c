"""Targets on the ground: state of a task, not part of the model."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mjx_hkl.environments.scene import Marks, Scene, Stage


@flax.struct.dataclass
class Targets:
    """Where the targets are on the ground, metres, and which of them is asked for."""

    positions: Float[Array, "targets 2"]
    selected: Int[Array, ""]


def observe_targets(targets: Targets, scene: Scene, unit: float) -> Float[Array, " n"]:
    """Egocentric ground coordinates of all targets, in units of that many metres."""
    return scene.frame.egocentric(targets.positions).ravel() / unit


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
