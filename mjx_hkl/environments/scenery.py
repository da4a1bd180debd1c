"""What there is to see of a world, whoever draws it: a MuJoCo model, how it stands, what a task marks."""

import dataclasses
from collections.abc import Callable
from typing import Any

import mujoco

from mjx_hkl.environments.scene import Marks
from mjx_hkl.environments.view import View


@dataclasses.dataclass(frozen=True)
class Scenery:
    """A world as drawers see it.

    Attributes:
      model: its solids.
      place: writes the positions of what is `visible` of a world into `mujoco.MjData`.
      torso: number of the model's body that a camera follows.
      view: from where pictures show it.
      marks: of what is `visible`; None where nothing is marked.
    """

    model: mujoco.MjModel
    place: Callable[[mujoco.MjData, Any], None]
    torso: int
    view: View
    marks: Callable[[Any], Marks | None] = lambda visible: None
