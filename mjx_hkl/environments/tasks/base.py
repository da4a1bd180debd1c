"""What a task is: pure functions of one world, made to be vmapped.

A task is a frozen dataclass: its fields are its table in an environment file, its methods are `Task`'s.
"""

from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.environments.arenas import Area
from mjx_hkl.environments.bodies import Frame


class Outcome(NamedTuple):
    """What one control step earned.

    Attributes:
      reward: of the step.
      success: 1.0 where the task is solved, which ends the episode.
    """

    reward: Float[Array, ""]
    success: Float[Array, ""]


class Task(Protocol):
    """`state` is any pytree of arrays."""

    def reset(self, key: PRNGKeyArray, arena: Area) -> tuple[Any, Float[Array, " 2"]]:
        """A fresh task state and the ground position where the body starts."""
        ...

    def observe(self, state: Any, frame: Frame) -> dict[str, Float[Array, " n"]]:
        """The task's observation groups by name."""
        ...

    def reward(self, state: Any, frame: Frame) -> Outcome:
        """What a step that ended in this state earned."""
        ...
