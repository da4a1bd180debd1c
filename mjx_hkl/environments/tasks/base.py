"""What a task is: pure functions of one world, made to be vmapped.

A task is a frozen dataclass: its fields are its table in an environment file, its methods are `Task`'s.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from mjx_hkl.environments.scene import Scene, Stage

Groups = Mapping[str, Shaped[Array, "..."]]
"""Observation groups by name."""


class Start(NamedTuple):
    """How an episode begins.

    Attributes:
      state: the task's own, any pytree of arrays.
      position: of the torso over the ground, metres.
      heading: of the torso, radians; None: drawn uniformly.
      boxes: positions of the boxes' centres over the ground, metres; their headings are drawn uniformly.
      mocap_pos: of the arena's mocap bodies; None: where the model has them.
    """

    state: Any
    position: Float[Array, " 2"]
    heading: Float[Array, ""] | None = None
    boxes: Float[Array, "boxes 2"] | None = None
    mocap_pos: Float[Array, "nmocap 3"] | None = None


class Outcome(NamedTuple):
    """What one control step earned.

    Attributes:
      reward: of the step.
      success: 1.0 where the task is solved, which ends the episode.
      state: the task's from now on; None: unchanged.
      failure: 1.0 where the episode ends without success, as by a fall: nothing is earned after it.
      terms: what the reward is made of, by name; each is logged, summed over episodes.
    """

    reward: Float[Array, ""]
    success: Float[Array, ""]
    state: Any = None
    failure: Float[Array, ""] | None = None
    terms: Mapping[str, Float[Array, ""]] = MappingProxyType({})


class Task(Protocol):
    """What is asked of a body.

    A task that is never solved, whose success is always 0, says so: `can_succeed: ClassVar[bool] = False`.
    People are then told its return. A task whose episodes grow harder while it is trained declares
    `uses_progress: ClassVar[bool] = True`: it is told `stage.progress` and `scene.progress`. A task may have
    more methods:
    - `marks(state, scene) -> Marks`, for pictures of targets;
    - `choices(stage) -> Mapping[str, Choice]`, for people who watch an agent and say what it shall do;
    - `symmetry(key, observation) -> observation`, for learning: see `Symmetry` in `environments/world.py`;
    - `relabel(key, observation) -> (observation, reward, success)`, for learning: see `Relabelling` there.
    """

    def reset(self, key: PRNGKeyArray, stage: Stage) -> Start:
        """A fresh start.

        Raises:
          UserError: the stage is not one this task can be set on.
        """
        ...

    def observe(self, state: Any, scene: Scene) -> dict[str, Float[Array, " n"]]:
        """The task's observation groups by name, egocentric."""
        ...

    def reward(self, state: Any, scene: Scene) -> Outcome:
        """What a step that ended in this scene earned."""
        ...
