"""Rotations as matrices whose columns are the turned axes."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def quaternion_matrix(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Of a quaternion w, x, y, z, which need not be normalized."""
    w, x, y, z = jnp.moveaxis(quaternion / jnp.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
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
