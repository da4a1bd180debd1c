"""What a task is told: the stage, which never changes, and the scene, as it is after a control step."""

import dataclasses
from typing import Any, NamedTuple

import flax.struct
from jaxtyping import Array, Float

from mjx_hkl.environments.arenas import ARENAS, Arena
from mjx_hkl.environments.bodies import Frame
from mjx_hkl.environments.boxes import BoxesConfig, Poses
from mjx_hkl.errors import UserError


@dataclasses.dataclass(frozen=True)
class Stage:
    """What is fixed for an environment.

    Attributes:
      arena: the ground.
      boxes: their number and sizes; None where there are none.
      body_radius: from the torso's centre to the outermost part that collides, metres.
      episode_length: control steps until truncation.
    """

    arena: Arena
    boxes: BoxesConfig | None
    body_radius: float
    episode_length: int

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
    """What there is to observe and to reward.

    Attributes:
      frame: pose and motion of the torso.
      boxes: where the boxes are now.
      boxes_during: where they were after each physics step of the control step (leading axis).
    """

    frame: Frame
    boxes: Poses
    boxes_during: Poses
