"""Random starts that keep their distance, drawn without a loop of unknown length."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.errors import UserError

# The plane's best-spread lattice (Roberts' R2): shifted at random, each point of it is uniform, and all
# together leave no part of the square out, so that a narrow place is found with few candidates.
_LATTICE = np.outer(np.arange(128), [0.7548776662466927, 0.5698402909980532])
_TRIALS = 4096

Separations = tuple[tuple[float, ...], ...]


def place_apart(
    key: PRNGKeyArray, half_widths: tuple[float, ...], separations: Separations
) -> Float[Array, "count 2"]:
    """Points uniform in squares around the origin, in turn, each far enough from those before.

    Each point is the first of a fixed number of candidates that keeps its distances.

    Args:
      key: consumed.
      half_widths: of each point's square, metres.
      separations: of each point from each one before it, metres: 0, 1, 2, ... numbers.

    Raises:
      UserError: there are starts for which no candidate keeps its distances.
    """
    shifts = jax.random.uniform(key, (len(half_widths), 2))
    candidates = _candidates(half_widths, separations)
    points, _ = _first_fit(shifts, half_widths, separations, candidates, jnp, jax.lax.fori_loop)
    return jnp.stack(points)


@functools.lru_cache
def _candidates(half_widths: tuple[float, ...], separations: Separations) -> int:
    """How many candidates are enough, with some to spare."""
    shifts = np.random.default_rng(0).uniform(size=(len(half_widths), 2, _TRIALS))
    for count in (8, 16, 32, 64):
        _, slack = _first_fit(shifts, half_widths, separations, count, np, _python_loop)
        if (slack >= 0).all():
            return 2 * count
    widest = max(distance for row in separations for distance in row)
    raise UserError(
        f"an area of {2 * max(half_widths):g} m is too small for {len(half_widths)} things that start up to"
        f" {widest:g} m apart; enlarge the area or lower the separation"
    )


def _first_fit(
    shifts: Any, half_widths: tuple[float, ...], separations: Separations, candidates: int, xp: Any, loop: Any
) -> tuple[list, Any]:
    """The points for shifts of the lattice in [0, 1), and by how much the tightest of them keeps away.

    NumPy and JAX run the same lines: coordinates are the second axis, any batch axes come after it.
    """
    points, tightest = [], xp.zeros(shifts.shape[2:])
    lattice = xp.asarray(_LATTICE, shifts.dtype)
    for shift, half_width, apart in zip(shifts, half_widths, separations, strict=True):

        def consider(i: Any, best: tuple, shift=shift, half_width=half_width, apart=apart) -> tuple:
            point, slack = best
            unit = shift + lattice[i].reshape(-1, *(1,) * (shift.ndim - 1))
            candidate = (2 * (unit - xp.floor(unit)) - 1) * half_width
            room = xp.zeros_like(slack)
            for other, distance in zip(points, apart, strict=True):
                room = xp.minimum(room, xp.sqrt(((candidate - other) ** 2).sum(0)) - distance)
            return xp.where(room > slack, candidate, point), xp.maximum(room, slack)

        start = (shift, xp.full(shift.shape[1:], -xp.inf, shift.dtype))
        point, slack = loop(0, candidates, consider, start)
        points.append(point)
        tightest = xp.minimum(tightest, slack)
    return points, tightest


def _python_loop(start: int, stop: int, body: Any, value: Any) -> Any:
    for i in range(start, stop):
        value = body(i, value)
    return value
