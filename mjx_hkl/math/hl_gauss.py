"""HL-Gauss: values as distributions over bins (Imani and White 2018, Farebrother et al. 2024)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def hl_gauss(
    value: Float[Array, "*batch"], low: float, high: float, num_bins: int, smoothing: float
) -> Float[Array, "*batch bins"]:
    """Probabilities of bins under a Gaussian around each value, cut to the range and made to sum to 1.

    Args:
      value: clipped to the range.
      low: where the first bin begins.
      high: where the last bin ends.
      num_bins: of equal width.
      smoothing: standard deviation in widths of a bin.
    """
    edges = jnp.linspace(low, high, num_bins + 1)
    deviation = smoothing * (high - low) / num_bins
    below = jax.scipy.stats.norm.cdf(edges, jnp.clip(value, low, high)[..., None], deviation)
    return jnp.diff(below) / (below[..., -1:] - below[..., :1])
