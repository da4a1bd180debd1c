"""The optimizers of an agent's parts, by optax: which it has, their rates, and when they begin."""

import functools
import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import FunctionType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.errors import UserError, unknown_name


class Release(NamedTuple):
    """Modules that stay as they are for so many updates, and are learned from then on."""

    modules: tuple[str, ...] = ()
    after: int = 0


NOTHING = Release()


def optimizers(
    algorithm: Algorithm,
    parts: Mapping[str, Any],
    total_updates: int,
    release: Release = NOTHING,
) -> dict[str, optax.GradientTransformation]:
    """An optimizer for each part, and in it one for each module with a rate or a beginning of its own.

    Args:
      algorithm: says the learning rates and their schedule.
      parts: of the agent and of the algorithm, by name.
      total_updates: of the whole run.
      release: modules whose optimizer begins later.

    Raises:
      UserError: optax has no optimizer of that name, or its rate cannot fall; a part has no learning rate, or
        a factor of learning rates is for no module.
    """
    known = _optimizers_by_name()
    if algorithm.optimizer not in known:
        raise UserError(f"algorithm.optimizer: {unknown_name('optimizer', algorithm.optimizer, known)}")
    optimizer, rates, factors = known[algorithm.optimizer], algorithm.learning_rates(), algorithm.rate_factors
    updates = round(algorithm.learning_rate_decay * total_updates)
    _require_modules(factors, parts)

    def falling(rate: float, begun: int = 0) -> optax.ScalarOrSchedule:
        if not updates:
            return rate
        schedule = optax.linear_schedule(rate, 0.1 * rate, updates)
        return (lambda step: schedule(begun + step)) if begun else schedule

    if updates:
        _require_falls(algorithm.optimizer, optimizer, falling(1.0))

    def is_released(step: Any, **_: Any) -> Any:
        return step >= release.after

    def of_module(module: str, rate: float) -> optax.GradientTransformation:
        rate = rate * factors.get(_innermost(module, factors), 1.0)
        if not _innermost(module, release.modules):
            return optimizer(falling(rate))
        return optax.conditionally_mask(optimizer(falling(rate, release.after)), is_released)

    def of(part: str) -> optax.GradientTransformation:
        if part not in rates:
            raise UserError(
                f"[algorithm] learning_rates() of {type(algorithm).__name__} has no entry {part!r}"
            )
        own = [_innermost(name, (*factors, *release.modules)) for name in _names_of_arrays(part, parts[part])]
        inner = of_module("", rates[part])
        if any(own):
            labels = jax.tree.unflatten(jax.tree.structure(parts[part]), own)
            by_module: dict[Hashable, optax.GradientTransformation]
            by_module = {name: of_module(name, rates[part]) for name in dict.fromkeys(own)}
            inner = optax.partition(by_module, lambda _: labels)  # a labelled critic would be called
        return optax.chain(optax.clip_by_global_norm(algorithm.max_gradient_norm), inner)

    return {part: of(part) for part in parts}


def _require_falls(name: str, optimizer: Callable[..., Any], rate: optax.ScalarOrSchedule) -> None:
    """Raises UserError where the optimizer takes a number alone for its rate."""
    try:
        optimizer(rate).init(jnp.zeros(1))
    except (TypeError, ValueError) as error:
        raise UserError(
            f"algorithm.optimizer: the rate of {name} cannot fall; set algorithm.learning_rate_decay to 0"
        ) from error


def _names_of_arrays(part: str, tree: Any) -> list[str]:
    """Of a part's arrays in the order of its leaves, like "policy.low_level.head.linear.kernel.value"."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return [f"{part}.{jax.tree_util.keystr(path, simple=True, separator='.')}" for path in paths]


def _innermost(name: str, modules: Iterable[str]) -> str:
    """The smallest of the modules that the module or array of that name lies in; "" where it is in none."""
    return max((module for module in modules if f"{name}.".startswith(f"{module}.")), key=len, default="")


def _require_modules(names: Iterable[str], parts: Mapping[str, Any]) -> None:
    """Raises UserError where nothing is learned in a module of one of these names."""
    arrays = [name for part, tree in parts.items() for name in _names_of_arrays(part, tree)]
    for name in names:
        if not any(_innermost(array, [name]) for array in arrays):
            known = {*parts, *(".".join(array.split(".")[:2]).rstrip(".") for array in arrays)}
            raise UserError(f"algorithm.learning_rate_factors: {unknown_name('module', name, known)}")


def _optimizers_by_name() -> dict[str, Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]]:
    """The optax optimizers that need only a learning rate."""
    known = {}
    for name, value in vars(optax).items():
        if isinstance(value, FunctionType | functools.partial) and name not in _NOT_ALONE:
            first, *others = [*inspect.signature(value).parameters.values(), None]
            needed = [x for x in others if x is not None and x.default is x.empty]
            if first is not None and first.name == "learning_rate" and not needed:
                known[name] = value
    return known


# They need the loss or a key of their own, or are only a part.
_NOT_ALONE = ("lbfgs", "polyak_sgd", "noisy_sgd", "scale_by_learning_rate")
