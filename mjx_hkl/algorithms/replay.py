"""Replay: a ring of windows on the device, written in place, each world's windows beside each other.

An insert writes one window of every world, whatever the capacity. Several devices hold a part of the worlds
each. Where the batch size divides the worlds, and the devices divide it, a batch takes as many windows from
each device, so that none travels.
"""

import functools
import math
from collections import Counter
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray, Shaped

from mjx_hkl.algorithms.window import Window


class Layout(NamedTuple):
    """How a window lies in its rows: its arrays in order, those of one dtype one after the other."""

    tree: Any  # the window's `PyTreeDef`
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # dtype and shape of each


@flax.struct.dataclass
class Ring:
    """Windows of every world, each packed into one row of numbers for each dtype.

    A window is a dozen arrays with last axes of 3 or 8: a TPU pads each to 128, in memory that a train step
    needs again for a copy, and a GPU writes and reads each by a kernel of its own.

    Attributes:
      rows: by dtype. Several seeds have an axis before the worlds'.
      layout: what is where in a row.
    """

    rows: dict[str, Shaped[Array, "*seeds envs slots numbers"]]
    layout: Layout = flax.struct.field(pytree_node=False)

    @property
    def num_envs(self) -> int:
        """Worlds."""
        return next(iter(self.rows.values())).shape[-3]

    @property
    def num_slots(self) -> int:
        """Windows of each world."""
        return next(iter(self.rows.values())).shape[-2]

    @property
    def windows(self) -> Window:
        """All windows, unpacked; axes of worlds and slots first."""
        return _unpacked(self.rows, self.layout)


def num_slots(capacity: int, num_envs: int, unroll_length: int) -> int:
    """Windows to keep of each world to hold at least `capacity` transitions; one for a capacity of 0."""
    return max(1, -(-capacity // (num_envs * unroll_length)))


def empty(windows: Window, slots: int) -> Ring:
    """An empty ring: `slots` windows for each world, of the shapes of `windows`, batch first."""
    leaves, tree = jax.tree.flatten(windows)
    rows = jax.tree.map(
        lambda x: jnp.zeros((x.shape[0], slots, x.shape[1]), x.dtype), jax.eval_shape(_packed, windows)
    )
    return Ring(rows, Layout(tree, tuple((x.dtype.name, x.shape[1:]) for x in leaves)))


@jax.named_scope("replay")
def insert(ring: Ring, windows: Window, count: Int[Array, ""]) -> Ring:
    """Writes a window of each world over its oldest.

    Args:
      ring: of `empty`, donated.
      windows: of all worlds, batch first.
      count: inserts made before this one.
    """
    slot = count % ring.num_slots
    rows = jax.tree.map(
        lambda whole, part: jax.lax.dynamic_update_index_in_dim(whole, part, slot, 1),
        ring.rows,
        _packed(windows),
    )
    return ring.replace(rows=rows)


@jax.named_scope("replay")
def sample(
    ring: Ring,
    key: PRNGKeyArray,
    batch_size: int,
    filled: Int[Array, ""],
    recency: float = 1.0,
    newest: Int[Array, ""] | int = 0,
) -> Window:
    """`batch_size` windows, batch first. Replay is cut into as many parts, and each part gives one at random.

    Every window is as likely as any other, and a batch as large as replay is each window once. With another
    `recency` than 1, the age of a window is u^recency of the filled slots, and u is uniform.

    Args:
      ring: of `empty`.
      key: consumed.
      batch_size: B.
      filled: slots that have been written.
      recency: above 1 the newest windows are the most likely, below 1 the oldest.
      newest: the slot written last, where `recency` asks for it.
    """
    num_envs = ring.num_envs
    by_age = _as_it_is
    if recency != 1:
        key, age_key = jax.random.split(key)
        by_age = functools.partial(_by_age, key=age_key, filled=filled, recency=recency, newest=newest)
    if num_envs % batch_size == 0:  # a part is some worlds, and stays on their device
        world_key, slot_key = jax.random.split(key)
        worlds = num_envs // batch_size
        world = jax.random.randint(world_key, (batch_size,), 0, worlds)
        slot = by_age(jax.random.randint(slot_key, (batch_size,), 0, filled))
        parts = jax.tree.map(lambda x: x.reshape(batch_size, worlds, *x.shape[1:]), ring.rows)
        rows = jax.vmap(lambda part, world, slot: jax.tree.map(lambda x: x[world, slot], part))(
            parts, world, slot
        )
        return _unpacked(rows, ring.layout)
    turn_key, part_key = jax.random.split(key)
    total = num_envs * filled
    edge = jnp.arange(batch_size + 1)
    edge = edge * (total // batch_size) + edge * (total % batch_size) // batch_size
    index = jax.random.randint(part_key, (batch_size,), edge[:-1], jnp.maximum(edge[1:], edge[:-1] + 1))
    # Parts cannot all be equally large: that they begin anywhere makes up for it.
    index = (index + jax.random.randint(turn_key, (), 0, total)) % total
    world, slot = index // filled, by_age(index % filled)
    rows = jax.tree.map(lambda x: x[world, slot], ring.rows)
    return _unpacked(rows, ring.layout)


def _as_it_is(slot: Array) -> Array:
    return slot


def _by_age(
    slot: Array, key: PRNGKeyArray, filled: Array, recency: float, newest: Array | int
) -> Int[Array, " batch"]:
    """Slots whose age is u^recency of the filled ones; uniform slots say in which part of [0, 1] u is."""
    u = (slot + jax.random.uniform(key, slot.shape)) / filled
    age = jnp.minimum((filled * u**recency).astype(slot.dtype), filled - 1)
    return (newest - age) % filled


def _packed(windows: Window) -> dict[str, Array]:
    """A row of each window for each dtype."""
    parts: dict[str, list[Array]] = {}
    for x in jax.tree.leaves(windows):
        parts.setdefault(x.dtype.name, []).append(x.reshape(x.shape[0], math.prod(x.shape[1:])))
    return {dtype: jnp.concatenate(columns, axis=1) for dtype, columns in parts.items()}


def _unpacked(rows: dict[str, Array], layout: Layout) -> Window:
    """The windows of rows with any axes before their numbers."""
    begin: Counter[str] = Counter()
    arrays = []
    for dtype, shape in layout.arrays:
        row, end = rows[dtype], begin[dtype] + math.prod(shape)
        arrays.append(row[..., begin[dtype] : end].reshape(*row.shape[:-1], *shape))
        begin[dtype] = end
    return jax.tree.unflatten(layout.tree, arrays)
