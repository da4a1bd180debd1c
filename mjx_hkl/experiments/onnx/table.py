"""Tables from the names of JAX's primitives to functions that add their nodes to a graph.

Each function takes the graph, the equation and its inputs, and gives the name of its output, or the names of
several. It raises NotImplementedError, with the reason, where it does not know what the equation asks.
"""

from collections.abc import Callable
from typing import Any

Builder = Callable[..., str | list[str]]


class Table(dict[str, Builder]):
    """Rows are added by calling it with the names of a function's primitives, as a decorator."""

    def __call__(self, *names: str) -> Callable[[Builder], Builder]:
        """Adds the function below, by these names."""

        def add(function: Builder) -> Builder:
            self.update(dict.fromkeys(names, function))
            return function

        return add


def shape_of(equation: Any, number: int = 0) -> tuple[Any, ...]:
    """Of an input; sizes that depend on the batch are symbols."""
    return equation.invars[number].aval.shape
