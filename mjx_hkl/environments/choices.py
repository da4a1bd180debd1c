"""What an instruction says, as people may choose it: a few named things, or a number in a range."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Shaped

Value = Shaped[Array, ""]
"""The number of a thing, counted from 0, or a number in a range."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One thing that an instruction says.

    A task's choices read and change the task's state, a world's read and change `brax.envs.State`.

    Attributes:
      values: names of the things to choose from, or the least and the greatest number.
      of: from a state to what is asked for now.
      put: from a state and a value to the state in which that is asked for.
    """

    values: tuple[str, ...] | tuple[float, float]
    of: Callable[[Any], Value]
    put: Callable[[Any, Value], Any]

    @property
    def is_named(self) -> bool:
        """Whether it is one of a few things, and not a number."""
        return isinstance(self.values[0], str)


def choice_at(values: tuple[str, ...] | tuple[float, float], *path: str | int) -> Choice:
    """The choice that stands at one place of a state.

    Args:
      values: see `Choice`.
      *path: names of fields, each of a flax dataclass, and last perhaps an index of an array.
    """

    def of(state: Any) -> Value:
        return functools.reduce(
            lambda x, key: x[key] if isinstance(key, int) else getattr(x, key), path, state
        )

    return Choice(values, of, lambda state, value: _put(state, path, value))


def numbered(count: int) -> tuple[str, ...]:
    """Names of things that have none: 1, 2, 3."""
    return tuple(str(i + 1) for i in range(count))


def _put(state: Any, path: tuple[str | int, ...], value: Value) -> Any:
    if not path:
        return jnp.asarray(value, state.dtype)
    key, *rest = path
    if isinstance(key, int):
        return state.at[key].set(jnp.asarray(value, state.dtype))
    return state.replace(**{key: _put(getattr(state, key), tuple(rest), value)})
