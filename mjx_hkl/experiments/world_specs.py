"""What a world is for those who keep agents of it: its tables, the shapes of what it shows and takes."""

import dataclasses
from typing import Any

import numpy as np

from mjx_hkl.config import Positive, difference, to_table
from mjx_hkl.environments import AnyWorld
from mjx_hkl.environments.composition import complete_description
from mjx_hkl.environments.several import TASKS
from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec
from mjx_hkl.tables import code_in


@dataclasses.dataclass(frozen=True)
class WorldSpecs:
    """A world without its simulator: enough to shape an agent, and to tell another world from it.

    Attributes:
      environment: the world's own tables, by `World.description`; of several those of each, by name, under
        `environments`.
      observation: specs of its observation groups.
      action_size: numbers of an action, or choices of a discrete one.
    """

    environment: dict[str, Any]
    observation: dict[str, ArraySpec]
    action_size: Positive

    def __post_init__(self):
        for name, spec in self.observation.items():
            try:
                np.dtype(spec.dtype)
            except TypeError as error:
                raise ValueError(f"observation.{name}.dtype {spec.dtype!r} is no type of numbers") from error

    @classmethod
    def of(cls, world: AnyWorld) -> "WorldSpecs":
        """Those of a world."""
        return cls(world.description, dict(world.observation_specs), world.action_size)

    @property
    def worlds(self) -> list[dict[str, Any]]:
        """The tables of the world, or of each of several."""
        return list(self.environment.get(TASKS, {"": self.environment}).values())

    def completed(self, other: "WorldSpecs") -> "WorldSpecs":
        """It with the defaults of fields that have come since it was written, to be compared with `other`."""
        # Building a description runs the code that it names: only what the world here has run already.
        if code_in(self.environment) != code_in(other.environment):
            return self
        return dataclasses.replace(self, environment=_complete(self.environment))

    def require_same(self, other: "WorldSpecs", name: str) -> None:
        """Raises UserError where `other`, the environment `name` as it is here, is another world."""
        changed = difference(to_table(self.completed(other)), to_table(other))
        if changed:
            raise UserError(f"environment {name!r} is not what the agent was made for: {changed}")


def _complete(environment: dict[str, Any]) -> dict[str, Any]:
    """See `complete_description`."""
    if TASKS not in environment:
        return complete_description(environment)
    return {TASKS: {name: complete_description(table) for name, table in environment[TASKS].items()}}
