"""Tasks: what is asked of a body in an arena."""

from mjx_hkl.environments.tasks.base import Outcome, Task
from mjx_hkl.environments.tasks.go_to_target import GoToTarget

TASKS = {"go_to_target": GoToTarget}

__all__ = ["TASKS", "GoToTarget", "Outcome", "Task"]
