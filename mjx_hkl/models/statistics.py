"""What modules measure instead of learning it; trees with and without these arrays."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


class Statistic(nnx.Variable):
    """An array that fresh experience changes; gradients, optimizers, targets and averages leave it alone."""


def learned(tree: Any) -> Any:
    """The tree with nothing in the place of statistics."""
    return jax.tree.map(lambda x: None if _measured(x) else x, tree, is_leaf=_measured)


def map_learned(function: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """`jax.tree.map` of what is learned; statistics stay those of `tree`, and `rest` may lack them."""
    return jax.tree.map(
        lambda x, *more: x if _measured(x) else function(x, *more), tree, *rest, is_leaf=_measured
    )


def with_learned(tree: Any, other: Any) -> Any:
    """The tree with its statistics, and with all that `other` has learned."""
    return map_learned(lambda _, x: x, tree, other)


def _measured(x: Any) -> bool:
    return isinstance(x, Statistic)
