"""What a policy in ONNX says of itself, and the names of its inputs and outputs."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mjx_hkl import __version__
from mjx_hkl.config import Many, NonNegative, from_table, to_table
from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec

IS_FIRST, ACTION = "is_first", "action"
CARRY, NEXT_CARRY, NOISE = "carry.", "next_carry.", "noise."
"""Beginnings of names."""
_FORMAT, _FORMAT_VERSION = "mjx-hkl policy", 1


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """What the policy gives.

    Attributes:
      shape: of one action.
      dtype: a NumPy name.
      bounds: least and greatest number of an action, to which a world clips it.
      choices: of a discrete action, from 0.
    """

    shape: tuple[int, ...]
    dtype: str
    bounds: tuple[float, float] | None = None
    choices: NonNegative | None = None


@dataclasses.dataclass(frozen=True)
class CarrySpec:
    """A leaf of the carry: the input `carry.NAME`, which is the output `next_carry.NAME` of the step before.

    Attributes:
      shape: of one world.
      dtype: a NumPy name.
      start: its value before an episode's first step, which `is_first` gives it too.
    """

    shape: tuple[int, ...]
    dtype: str
    start: Any


@dataclasses.dataclass(frozen=True)
class NoiseSpec:
    """The input `noise.NAME`: independent numbers, drawn anew for each step.

    Attributes:
      shape: of one world.
      distribution: "normal" or "gumbel", the standard ones.
    """

    shape: tuple[int, ...]
    distribution: str


@dataclasses.dataclass(frozen=True)
class Actuators:
    """How actions become controls of a MuJoCo model.

    Attributes:
      names: in the order of an action.
      control: of each actuator at actions of -1, 0 and 1, linear in between; MuJoCo clips it to its range.
    """

    names: tuple[str, ...]
    control: tuple[tuple[float, float, float], ...]


@dataclasses.dataclass(frozen=True)
class WorldCard:
    """One of the policy's worlds.

    Attributes:
      control_seconds: between two steps.
      description: the world's own tables.
      model: file of the compiled MuJoCo model, beside the policy; empty where there is none.
      start: `qpos` at a start, wherever body and boxes are placed then.
      actuators: of the model.
    """

    control_seconds: float
    description: dict[str, Any]
    model: str = ""
    start: tuple[float, ...] = ()
    actuators: Actuators | None = None


@dataclasses.dataclass(frozen=True)
class PolicyCard:
    """A policy, all but its graph.

    Attributes:
      recipe: name of what trained it.
      environment: name or file of its world, or of several.
      latent_size: of z; 0 for a flat policy.
      latent_period: steps that a latent is kept for.
      observation: the groups that the policy sees.
      action: what it gives.
      carry: what it remembers, by name.
      noise: by name; none of the mean policy.
      networks: the recipe's `[policy]` and `[encoders]`.
      modules: what each is given, in the order it is joined.
      worlds: by name.
    """

    recipe: str
    environment: str | tuple[str, ...]
    latent_size: NonNegative
    latent_period: Many
    observation: dict[str, ArraySpec]
    action: ActionSpec
    carry: dict[str, CarrySpec]
    noise: dict[str, NoiseSpec]
    networks: dict[str, Any]
    modules: dict[str, tuple[str, ...]]
    worlds: dict[str, WorldCard]

    def inputs(self) -> dict[str, ArraySpec]:
        """Of the graph, in its order, without the batch in front."""
        return {
            IS_FIRST: ArraySpec((), "bool"),
            **self.observation,
            **{CARRY + name: ArraySpec(leaf.shape, leaf.dtype) for name, leaf in self.carry.items()},
            **{NOISE + name: ArraySpec(noise.shape) for name, noise in self.noise.items()},
        }

    def outputs(self) -> dict[str, ArraySpec]:
        """Likewise."""
        carry = {NEXT_CARRY + name: ArraySpec(leaf.shape, leaf.dtype) for name, leaf in self.carry.items()}
        return {ACTION: ArraySpec(self.action.shape, self.action.dtype), **carry}

    def table(self) -> dict[str, Any]:
        """What `policy.json` holds."""
        head = {"format": _FORMAT, "format_version": _FORMAT_VERSION, "program_version": __version__}
        return {**head, **to_table(self)}

    def metadata(self) -> dict[str, str]:
        """The same for a model's metadata: each value as JSON."""
        return {name: json.dumps(value) for name, value in self.table().items()}


def card_of(metadata: Mapping[str, str], path: Path) -> PolicyCard:
    """The card that a model's metadata hold.

    Raises:
      UserError: they are not ours, or of another format.
    """
    try:
        table = {name: json.loads(text) for name, text in metadata.items()}
    except ValueError:
        table = {}
    if table.pop("format", None) != _FORMAT:
        raise UserError(f"{path} is no policy that `mjx-hkl export AGENT --format onnx` wrote")
    version, program = table.pop("format_version", None), table.pop("program_version", "that wrote it")
    if version != _FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version!r}; this mjx-hkl {__version__} reads {_FORMAT_VERSION}:"
            f" export it again, or use the mjx-hkl {program} that wrote it"
        )
    return from_table(PolicyCard, table, str(path))
