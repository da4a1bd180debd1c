"""Recursions over the steps of a window."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

UNROLL = 16
"""Steps that are compiled as one: most windows have no more, and then there is no loop.

A GPU launches several kernels each time round a loop, however little they compute.
"""


def corrections(
    delta_t: Float[Array, "time *batch"], decay_t: Float[Array, "time *batch"]
) -> Float[Array, "time *batch"]:
    """Σ_{s≥t} (Π_{i=t..s−1} decay_i) δ_s for each t: what follows a step, decayed."""

    def backwards(correction_tp1: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta, decay = step
        correction = delta + decay * correction_tp1
        return correction, correction

    start = jnp.zeros_like(delta_t[0])
    return jax.lax.scan(backwards, start, (delta_t, decay_t), reverse=True, unroll=UNROLL)[1]
