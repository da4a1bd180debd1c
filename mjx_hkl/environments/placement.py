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
    points, _ = _first_fit(shifts, half_widths, separations, _candidates(half_widths, separations), jnp)
    return jnp.stack(points)


@functools.lru_cache
def _candidates(half_widths: tuple[float, ...], separations: Separations) -> int:
    """How many candidates are enough, with some to spare."""
    shifts = np.random.default_rng(0).uniform(size=(len(half_widths), 2, _TRIALS))
    for count in (8, 16, 32, 64):
        _, slack = _first_fit(shifts, half_widths, separations, count, np)
        if (slack >= 0).all():
            return 2 * count
    widest = max(distance for row in separations for distance in row)
    raise UserError(
        f"an area of {2 * max(half_widths):g} m is too small for {len(half_widths)} things that start up to"
        f" {widest:g} m apart; enlarge the area or lower the separation"
    )


def _first_fit(
    shifts: Any, half_widths: tuple[float, ...], separations: Separations, candidates: int, xp: Any
) -> tuple[list, Any]:
    """The points for shifts of the lattice in [0, 1), and by how much the tightest of them keeps away.

    NumPy and JAX run the same lines: coordinates are the second axis, any batch axes come after it. All
    candidates of a point are looked at at once: on an accelerator each round of a loop has its own launches.
    """
    points, tightest, batch = [], xp.zeros(shifts.shape[2:]), (1,) * (shifts.ndim - 2)
    lattice = xp.asarray(_LATTICE[:candidates], shifts.dtype)
    order = xp.arange(candidates).reshape(-1, *batch)
    for shift, half_width, apart in zip(shifts, half_widths, separations, strict=True):
        x, y = _in_square(shift + lattice.reshape(*lattice.shape, *batch), half_width, xp).swapaxes(0, 1)
        room = xp.zeros((candidates, *shift.shape[1:]))
        for point, distance in zip(points, apart, strict=True):
            room = xp.minimum(room, xp.sqrt((x - point[0]) ** 2 + (y - point[1]) ** 2) - distance)
        roomiest = room.max(0)
        first = xp.where(room == roomiest, order, candidates).min(0)  # an argmax, and faster on a CPU
        points.append(_in_square(shift + xp.moveaxis(lattice[first], -1, 0), half_width, xp))
        tightest = xp.minimum(tightest, roomiest)
    return points, tightest


def _in_square(shifted: Any, half_width: float, xp: Any) -> Any:
    """Coordinates in a square around the origin for shifted lattice points, wrapped into [0, 1)."""
    return (2 * (shifted - xp.floor(shifted)) - 1) * half_width
