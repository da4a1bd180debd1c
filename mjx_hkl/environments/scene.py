"""What a task is told: the stage, which never changes, and the scene, as it is after a control step."""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
import jax.numpy as jnp
from jaxtyping import Array, Float

from mjx_hkl.environments.arenas import ARENAS, Arena
from mjx_hkl.environments.bodies import Body, Frame
from mjx_hkl.environments.boxes import BoxesConfig, Poses
from mjx_hkl.environments.physics import PhysicsState
from mjx_hkl.environments.rotations import turned
from mjx_hkl.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is fixed for an environment.

    Attributes:
      arena: the ground.
      boxes: their number and sizes; None where there are none.
      body_radius: from the torso's centre to the outermost part that collides, metres.
      episode_length: control steps until truncation.
      control_seconds: simulated seconds of a control step.
      joints: names of the body's joints beyond its torso, in the order of `Scene.joint_positions`.
      actuators: names of its actuators, in the order of an action.
      feet: names of its feet and hands, in the order of `Scene.feet`.
    """

    arena: Arena
    boxes: BoxesConfig | None
    body_radius: float
    episode_length: int
    control_seconds: float
    joints: tuple[str, ...]
    actuators: tuple[str, ...]
    feet: tuple[str, ...]
    _progress: Float[Array, ""] | None = None

    @property
    def progress(self) -> Float[Array, ""]:
        """See `Scene.progress`."""
        return _of_training(self._progress)

    def arena_with(self, *attributes: str) -> Any:
        """The arena, where it has what a task needs of it.

        Raises:
          UserError: it lacks one of these.
        """
        lacking = [name for name in attributes if not hasattr(self.arena, name)]
        if lacking:
            having = " or ".join(f'"{kind}"' for kind, cls in ARENAS.known.items() if _has(cls, attributes))
            raise UserError(
                f"[task] needs an [arena] with {', '.join(attributes)}, as kind {having} has;"
                f" {ARENAS.name_of(self.arena)} has no {', '.join(lacking)}"
            )
        return self.arena


def _has(cls: type, attributes: tuple[str, ...]) -> bool:
    return all(hasattr(cls, name) for name in attributes)


def _of_training(progress: Float[Array, ""] | None) -> Float[Array, ""]:
    if progress is None:
        raise UserError("training's progress is told to tasks that say uses_progress: ClassVar[bool] = True")
    return progress


class Marks(NamedTuple):
    """What pictures show of a task's state: flat discs.

    Attributes:
      position: of their centres in the world, metres.
      radius: metres.
      selected: 1.0 for those that are asked for.
    """

    position: Float[Array, "marks 3"]
    radius: Float[Array, " marks"]
    selected: Float[Array, " marks"]


@flax.struct.dataclass
class Scene:
    """What there is to observe and to reward. What no task asks for costs nothing.

    Attributes:
      frame: pose and motion of the torso.
      boxes: where the boxes are now.
      boxes_during: where they were after each physics step of the control step (leading axis).
      action: that the agent has taken in this control step, in [-1, 1], though it may arrive later; 0 at an
        episode's start.
      last_action: of the step before.
      physics: positions and velocities of everything.
      control_seconds: simulated seconds of a control step.
    """

    frame: Frame
    boxes: Poses
    boxes_during: Poses
    action: Float[Array, " nu"]
    last_action: Float[Array, " nu"]
    physics: PhysicsState
    control_seconds: float = flax.struct.field(pytree_node=False)
    _arrived: Float[Array, " nu"]
    _progress: Float[Array, ""] | None
    _body: Body = flax.struct.field(pytree_node=False)
    _arena: Arena = flax.struct.field(pytree_node=False)

    @property
    def progress(self) -> Float[Array, ""]:
        """The share of training done when the episode began, in [0, 1]; 1 in evaluations and pictures.

        Raises:
          UserError: the task does not declare `uses_progress`.
        """
        return _of_training(self._progress)

    @property
    def joint_positions(self) -> Float[Array, " joints"]:
        """Of the joints beyond the torso, radians or metres."""
        return self._body.joint_positions(self.physics)

    @property
    def joint_velocities(self) -> Float[Array, " joints"]:
        """Of the joints beyond the torso, per second."""
        return self._body.joint_velocities(self.physics)

    @property
    def actuator_forces(self) -> Float[Array, " nu"]:
        """Of the action that arrived in this step, where the body now is, N or N·m at the actuators.

        Raises:
          UserError: an actuator's force depends on more than joints.
        """
        return self._body.forces(self.physics, self._arrived)

    @property
    def actuator_velocities(self) -> Float[Array, " nu"]:
        """Of the joints that actuators move, times their gears, per second.

        Raises:
          UserError: an actuator acts on something else.
        """
        return self._body.forces.velocities(self.physics)

    @property
    def feet(self) -> Float[Array, "feet 3"]:
        """Centres of feet and hands in the world, metres."""
        return self.frame.position + turned(self.frame.rotation, self._body.feet(self.physics.qpos))

    @property
    def feet_touch(self) -> Float[Array, " feet"]:
        """1.0 for each foot and hand that touches the ground."""
        return self._body.touch(self.feet, self.physics, self._arena.height)

    def depths(self, *names: str) -> Float[Array, " parts"]:
        """How deep these parts of the body are in the ground, metres; below 0: how far above it.

        Contacts are soft, so that a part which presses harder is deeper. Counted are spheres, both ends of
        capsules and the corners of boxes, which is exact on level ground.

        Args:
          *names: of geoms that collide, or of links of the body, which stand for all their geoms that do.

        Raises:
          UserError: nothing of that name collides, or it has another shape.
        """
        return self._body.depths(names, self.physics, self._arena.height)

    def touches(self, *names: str) -> Float[Array, " parts"]:
        """1.0 for each of these parts of the body that touches the ground; see `depths`."""
        return (self.depths(*names) > 0).astype(jnp.float32)
