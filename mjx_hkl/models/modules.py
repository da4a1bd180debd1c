"""What every module of an agent is: what it is made for, what it remembers, and what it says of itself."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Shaped

from mjx_hkl.math.categorical import Categorical
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.specs import ArraySpec

Observation = Mapping[str, Shaped[Array, "..."]]
Distribution = Gaussian | Categorical
LATENT, PREVIOUS_LATENT, ACTION = "latent", "previous latent", "action"
"""Inputs of modules beside observation groups, as `sees` names them."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What a module is made for, beside its own fields.

    Attributes:
      observation: specs of all groups, as modules get them: those of shared encoders are encoded.
      groups: the observation groups that the module sees, in the order they are joined.
      encoders: an encoder's fields for each group that the module encodes by itself.
      action_size: numbers of an action, or choices of a discrete one.
      action_kind: "gaussian" or "categorical"; "latent" for a critic of latents, which no world clips.
      latent_size: of z; 0 for a flat policy.
      sees_latent: whether a high level sees z_{t−1}, because the prior depends on z_{t−1} (§3.1).
      rngs: for initial parameters.
    """

    observation: Mapping[str, ArraySpec]
    groups: tuple[str, ...]
    encoders: Mapping[str, Any]
    action_size: int
    action_kind: str
    latent_size: int
    sees_latent: bool
    rngs: nnx.Rngs


class Module(nnx.Module):
    """A part of an agent.

    A module that remembers nothing has `__call__`, and is called for all steps of a window at once. A module
    that remembers sets `remembers` and has `start` and `step`; it is called for one step after the other.

    Attributes:
      remembers: whether a step depends on the steps before, by a memory of its own.
      sees: the names of its inputs, in the order they are joined: observation groups, and
        `LATENT`, `PREVIOUS_LATENT`, `ACTION`.
      bound_to_body: whether it fits one body alone, whatever it sees.
      infers: of what stands in the place of a prior, whether it is called with z_{t−1}, the observation and
        the action, and gives g(z_t | τ) (eq. 16).
      parts: names of modules in it that another agent may take without the rest.
      stands_for: the name of the module that is used in its place, where it has no parameters of its own.
    """

    remembers: ClassVar[bool] = False
    bound_to_body: ClassVar[bool] = False
    infers: ClassVar[bool] = False
    parts: ClassVar[tuple[str, ...]] = ()
    stands_for: ClassVar[str] = ""
    sees: tuple[str, ...] = ()

    def start(self, batch: tuple[int, ...]) -> Any:
        """The memory at an episode's start; nothing where nothing is remembered."""
        return ()

    def step(self, memory: Any, *inputs: Any) -> tuple[Any, Any]:
        """The memory after a step, and what the module gives for its inputs."""
        return memory, self(*inputs)  # pyright: ignore[reportCallIssue]

    def observed(self, x: Array) -> "Module":
        """An encoder with what it measures of fresh observations of its group `[*batch, ...]`."""
        return self

    def fits(self) -> dict[str, Any]:
        """What must be equal in another module to take the place of this one, beside shapes and inputs."""
        return {}


def restarted(module: Module, memory: Any, is_first: Array) -> Any:
    """The memory, afresh where an episode begins."""
    if not module.remembers:
        return memory

    def select(fresh: Array, old: Array) -> Array:
        return jnp.where(is_first.reshape(*is_first.shape, *(1,) * (old.ndim - is_first.ndim)), fresh, old)

    return jax.tree.map(select, module.start(is_first.shape), memory)
