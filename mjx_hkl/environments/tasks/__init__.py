"""Tasks: what is asked of a body in an arena."""

from mjx_hkl.environments.tasks.base import Outcome, Start, Task
from mjx_hkl.environments.tasks.gap import Gap
from mjx_hkl.environments.tasks.go_to_target import GoToTarget
from mjx_hkl.environments.tasks.manipulation import (
    GatherBoxes,
    MoveBox,
    MoveBoxAndGoToTarget,
    MoveBoxOrGoToTarget,
)
from mjx_hkl.environments.tasks.track_velocity import TrackVelocity
from mjx_hkl.environments.tasks.walk import Walk
from mjx_hkl.kinds import Kinds

_OURS = {
    "go_to_target": GoToTarget,
    "gap": Gap,
    "walk": Walk,
    "track_velocity": TrackVelocity,
    "move_box": MoveBox,
    "gather_boxes": GatherBoxes,
    "move_box_or_go_to_target": MoveBoxOrGoToTarget,
    "move_box_and_go_to_target": MoveBoxAndGoToTarget,
}
TASKS = Kinds("[task]", _OURS, requires=("reset", "observe", "reward"))

__all__ = ["TASKS", "Outcome", "Start", "Task"]
