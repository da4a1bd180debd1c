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

TASKS = {
    "go_to_target": GoToTarget,
    "gap": Gap,
    "move_box": MoveBox,
    "gather_boxes": GatherBoxes,
    "move_box_or_go_to_target": MoveBoxOrGoToTarget,
    "move_box_and_go_to_target": MoveBoxAndGoToTarget,
}

__all__ = ["TASKS", "Outcome", "Start", "Task"]
