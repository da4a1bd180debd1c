"""Random starts that keep their distance, drawn without a loop of unknown length."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_CANDIDATES = 16  # four points a metre apart in 8 x 8 m all fail with probability below 1e-13


def place_apart(
    key: PRNGKeyArray, count: int, half_width: float, separation: float
) -> Float[Array, "count 2"]:
    """Points uniform in a square around the origin, in turn, each `separation` from those before.

    Each point is the first of a fixed number of candidates that keeps the distance; where none does,
    the one that comes nearest to it.

    Args:
      key: consumed.
      count: how many points.
      half_width: of the square, metres.
      separation: metres.
    """
    candidates = jax.random.uniform(key, (count, _CANDIDATES, 2), minval=-half_width, maxval=half_width)
    points = candidates[0, :1]
    for candidate in candidates[1:]:
        distance = jnp.linalg.norm(candidate[:, None] - points[None], axis=-1).min(axis=1)
        # argmax gives the first of equals, so the first candidate that is far enough
        chosen = candidate[jnp.argmax(jnp.minimum(distance, separation))]
        points = jnp.concatenate([points, chosen[None]])
    return points
