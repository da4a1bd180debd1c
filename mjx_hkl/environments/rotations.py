"""Rotations as matrices whose columns are the turned axes.

Products with them are written out: on an accelerator a product of small matrices is a kernel of its own, and
sums of products are a part of the kernel they stand in.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float


def turned(rotation: Float[Array, "*batch 3 3"], vectors: Float[Array, "*n 3"]) -> Float[Array, "*n 3"]:
    """Vectors given in the turned axes, along the world's."""
    return sum(rotation[..., i] * vectors[..., i, None] for i in range(3))  # pyright: ignore


def seen_from(rotation: Float[Array, "*batch n n"], vectors: Float[Array, "*m n"]) -> Float[Array, "*m n"]:
    """Vectors given along the world's axes, in the turned ones."""
    return sum(rotation[..., i, :] * vectors[..., i, None] for i in range(vectors.shape[-1]))  # pyright: ignore


def quaternion_matrix(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Of a quaternion w, x, y, z, which need not be normalized."""
    w, x, y, z = jnp.moveaxis(quaternion, -1, 0)
    length = jnp.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w / length, x / length, y / length, z / length
    return _matrix(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def turn_matrix(angle: Float[Array, "*batch"]) -> Float[Array, "*batch 3 3"]:
    """About the world's z-axis, radians."""
    cos, sin, zero = jnp.cos(angle), jnp.sin(angle), jnp.zeros_like(angle)
    return _matrix([[cos, -sin, zero], [sin, cos, zero], [zero, zero, zero + 1.0]])


def turn_quaternion(angle: Float[Array, "*batch"]) -> Float[Array, "*batch 4"]:
    """About the world's z-axis, radians, as w, x, y, z."""
    zero = jnp.zeros_like(angle)
    return jnp.stack([jnp.cos(angle / 2), zero, zero, jnp.sin(angle / 2)], axis=-1)


def _matrix(rows: list[list[Array]]) -> Array:
    return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
