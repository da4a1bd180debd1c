"""Replay: a ring of windows on the device, written in place.

All environments' windows of one unroll form a slot, so an insert is one contiguous copy whose cost does
not depend on the capacity.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from mjx_hkl.algorithms.window import Window


def num_slots(capacity: int, num_envs: int, unroll_length: int) -> int:
    """Slots that hold at least `capacity` transitions; one for a capacity of 0."""
    return max(1, -(-capacity // (num_envs * unroll_length)))


def empty(windows: Window, slots: int) -> Window:
    """A ring of `slots` slots for windows like these (only their shapes are read)."""
    return jax.tree.map(lambda x: jnp.zeros((slots * x.shape[0], *x.shape[1:]), x.dtype), windows)


def insert(ring: Window, windows: Window, count: Int[Array, ""]) -> Window:
    """Writes one slot over the oldest.

    Args:
      ring: of `empty`, donated.
      windows: of all environments, batch first.
      count: inserts made before this one.
    """
    num_envs = windows.reward.shape[0]
    slots = ring.reward.shape[0] // num_envs
    start = (count % slots) * num_envs
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0), ring, windows
    )


def sample(ring: Window, key: PRNGKeyArray, batch_size: int, filled: Int[Array, ""]) -> Window:
    """`batch_size` windows, batch first: one at random of each of as many parts of the first `filled`.

    Every window is as likely as any other, and a batch as large as replay is each window once.
    """
    turn_key, part_key = jax.random.split(key)
    edge = jnp.arange(batch_size + 1)
    edge = edge * (filled // batch_size) + edge * (filled % batch_size) // batch_size
    index = jax.random.randint(part_key, (batch_size,), edge[:-1], jnp.maximum(edge[1:], edge[:-1] + 1))
    index = (index + jax.random.randint(turn_key, (), 0, filled)) % filled
    return jax.tree.map(lambda x: x[index], ring)
