"""Replay: a ring of windows on the device, written in place, each world's windows beside each other.

An insert writes one window of every world, whatever the capacity. Several devices hold a part of the worlds
each, and a batch takes as many windows from every part, so that none travels.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from mjx_hkl.algorithms.window import Window


def num_slots(capacity: int, num_envs: int, unroll_length: int) -> int:
    """Windows to keep of each world to hold at least `capacity` transitions; one for a capacity of 0."""
    return max(1, -(-capacity // (num_envs * unroll_length)))


def empty(windows: Window, slots: int) -> Window:
    """An empty ring: `slots` windows for each world, of the shapes of `windows`. Axes: worlds, then slots."""
    return jax.tree.map(lambda x: jnp.zeros((x.shape[0], slots, *x.shape[1:]), x.dtype), windows)


@jax.named_scope("replay")
def insert(ring: Window, windows: Window, count: Int[Array, ""]) -> Window:
    """Writes a window of each world over its oldest.

    Args:
      ring: of `empty`, donated.
      windows: of all worlds, batch first.
      count: inserts made before this one.
    """
    slot = count % ring.reward.shape[1]
    return jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_index_in_dim(whole, part, slot, 1), ring, windows
    )


@jax.named_scope("replay")
def sample(ring: Window, key: PRNGKeyArray, batch_size: int, filled: Int[Array, ""]) -> Window:
    """`batch_size` windows, batch first. Replay is cut into as many parts, and each part gives one at random.

    Every window is as likely as any other, and a batch as large as replay is each window once.

    Args:
      ring: of `empty`.
      key: consumed.
      batch_size: B.
      filled: slots that have been written.
    """
    num_envs = ring.reward.shape[0]
    if num_envs % batch_size == 0:  # a part is some worlds, and stays on their device
        world_key, slot_key = jax.random.split(key)
        worlds = num_envs // batch_size
        world = jax.random.randint(world_key, (batch_size,), 0, worlds)
        slot = jax.random.randint(slot_key, (batch_size,), 0, filled)
        parts = jax.tree.map(lambda x: x.reshape(batch_size, worlds, *x.shape[1:]), ring)
        return jax.vmap(lambda part, world, slot: jax.tree.map(lambda x: x[world, slot], part))(
            parts, world, slot
        )
    turn_key, part_key = jax.random.split(key)
    total = num_envs * filled
    edge = jnp.arange(batch_size + 1)
    edge = edge * (total // batch_size) + edge * (total % batch_size) // batch_size
    index = jax.random.randint(part_key, (batch_size,), edge[:-1], jnp.maximum(edge[1:], edge[:-1] + 1))
    # Parts cannot all be equally large: that they begin anywhere makes up for it.
    index = (index + jax.random.randint(turn_key, (), 0, total)) % total
    return jax.tree.map(lambda x: x[index // filled, index % filled], ring)
