"""A picture by casting one ray a pixel: exact intersections in plain JAX, inside a jitted step.

Everything is seen from the camera, which looks along -z with x to the right and y up. A ray through a pixel
is (x, y, -1), so that the length along it is the depth that MuJoCo's renderer gives. All is written for one
camera and made to be vmapped. Each shape is a few numbers against all rays, and shapes are gone through one
after the other in Python: XLA makes one kernel of them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

Vector = Sequence[Any] | Array
"""Three numbers."""


class Hit(NamedTuple):
    """Where rays meet a shape.

    Attributes:
      depth: along the ray; what is behind the camera or too near does not count.
      is_met: whether the ray meets it at all.
      facing: cosine between the surface's normal and the light.
    """

    depth: Float[Array, " pixels"]
    is_met: Bool[Array, " pixels"]
    facing: Float[Array, " pixels"]


class Rays(NamedTuple):
    """All rays of a camera, and the light.

    Attributes:
      x, y: of each ray (x, y, -1).
      square: its squared length.
      light: direction to the light, seen from the camera.
      lit: each ray times that direction.
    """

    x: Float[Array, " pixels"]
    y: Float[Array, " pixels"]
    square: Float[Array, " pixels"]
    light: Vector
    lit: Float[Array, " pixels"]

    def along(self, v: Vector) -> Float[Array, " pixels"]:
        """Each ray times a vector."""
        return self.x * v[0] + self.y * v[1] - v[2]


class View(NamedTuple):
    """Size and opening of a picture.

    Attributes:
      width: pixels.
      height: pixels.
      field_of_view: from the lower to the upper edge, degrees.
      near: least depth that is drawn, metres.
      far: greatest.
    """

    width: int
    height: int
    field_of_view: float
    near: float
    far: float

    def slopes(self) -> tuple[Float[np.ndarray, " pixels"], Float[np.ndarray, " pixels"]]:
        """Of the rays (x, y, -1) through the middles of all pixels, y and x, by rows from the upper left."""
        half = np.tan(np.radians(self.field_of_view) / 2)
        rows = half * (1 - (2 * np.arange(self.height) + 1) / self.height)
        columns = half * ((2 * np.arange(self.width) + 1) - self.width) / self.height
        y, x = np.meshgrid(rows, columns, indexing="ij")
        return y.ravel(), x.ravel()

    def rays(self, light: Vector) -> Rays:
        """Through all pixels, as `slopes` has them."""
        y, x = self.slopes()
        square = jnp.asarray(x * x + y * y + 1, jnp.float32)
        x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
        return Rays(x, y, square, light, x * light[0] + y * light[1] - light[2])


def dot(a: Vector, b: Vector) -> Array:
    """Of two vectors."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def sphere(rays: Rays, centre: Vector, radius: float) -> Hit:
    """A ball."""
    towards, out = rays.along(centre), dot(centre, centre) - radius**2
    inner = towards * towards - rays.square * out
    depth = (towards - _root(inner)) / rays.square
    return Hit(depth, inner > 0, (depth * rays.lit - dot(centre, rays.light)) / radius)


def capsule(rays: Rays, start: Vector, end: Vector, radius: float) -> Hit:
    """All that is within a radius of a line."""
    axis = [b - a for a, b in zip(start, end, strict=True)]
    length, along, before = dot(axis, axis), rays.along(axis), -dot(axis, start)
    towards, out = rays.along(start), dot(start, start)
    # The cylinder around the endless line.
    a = length * rays.square - along * along
    b = -length * towards - before * along
    inner = b * b - a * (length * out - before * before - radius**2 * length)
    depth = (-b - _root(inner)) / a
    place = before + depth * along
    # The ball at the end that lies nearer.
    at_end = place > 0
    to_cap = jnp.where(at_end, rays.along(end), towards)
    to_cap_out = jnp.where(at_end, dot(end, end), out) - radius**2
    cap_inner = to_cap * to_cap - rays.square * to_cap_out
    is_side = (inner > 0) & (place > 0) & (place < length)
    depth = jnp.where(is_side, depth, (to_cap - _root(cap_inner)) / rays.square)
    share = jnp.clip((before + depth * along) / length, 0.0, 1.0)
    facing = depth * rays.lit - dot(start, rays.light) - share * dot(axis, rays.light)
    return Hit(depth, is_side | ((inner > 0) & (cap_inner > 0)), facing / radius)


def cylinder(rays: Rays, start: Vector, end: Vector, radius: float) -> Hit:
    """A cylinder with flat ends."""
    axis = [b - a for a, b in zip(start, end, strict=True)]
    length, along, before = dot(axis, axis), rays.along(axis), -dot(axis, start)
    a = length * rays.square - along * along
    b = -length * rays.along(start) - before * along
    inner = b * b - a * (length * dot(start, start) - before * before - radius**2 * length)
    side = (-b - _root(inner)) / a
    place = before + side * along
    is_side = (place > 0) & (place < length)
    # The flat end on which the ray comes in.
    to_cap = (jnp.where(along > 0, 0.0, length) - before) / jnp.where(along == 0, 1.0, along)
    is_cap = jnp.abs(b + a * to_cap) < _root(inner)
    share = place / length
    round_facing = side * rays.lit - dot(start, rays.light) - share * dot(axis, rays.light)
    flat_facing = -jnp.sign(along) * dot(axis, rays.light) / jnp.sqrt(length)
    depth = jnp.where(is_side, side, to_cap)
    facing = jnp.where(is_side, round_facing / radius, flat_facing)
    return Hit(depth, (inner > 0) & (is_side | is_cap), facing)


def box(rays: Rays, centre: Vector, axes: Sequence[Vector] | Array, half: Sequence[float]) -> Hit:
    """A box whose axes, of length 1, are seen from the camera (slabs)."""
    enter, leave, facing = jnp.full_like(rays.x, -jnp.inf), jnp.full_like(rays.x, jnp.inf), rays.x * 0.0
    for axis, size in zip(axes, half, strict=True):
        along = rays.along(axis)
        along = jnp.where(jnp.abs(along) < _TINY, _TINY, along)
        middle, reach = dot(axis, centre) / along, size / jnp.abs(along)
        first = middle - reach
        facing = jnp.where(first > enter, -jnp.sign(along) * dot(axis, rays.light), facing)
        enter, leave = jnp.maximum(enter, first), jnp.minimum(leave, middle + reach)
    return Hit(enter, enter < leave, facing)


def ellipsoid(rays: Rays, centre: Vector, axes: Sequence[Vector] | Array, half: Sequence[float]) -> Hit:
    """An ellipsoid whose axes, of length 1, are seen from the camera."""
    square, towards, out = rays.x * 0.0, rays.x * 0.0, jnp.float32(-1.0)
    for axis, size in zip(axes, half, strict=True):
        along, away = rays.along(axis) / size, dot(axis, centre) / size
        square, towards, out = square + along * along, towards + along * away, out + away * away
    inner = towards * towards - square * out
    depth = (towards - _root(inner)) / square
    parts = [
        (depth * rays.along(axis) - dot(axis, centre)) / size**2
        for axis, size in zip(axes, half, strict=True)
    ]
    lengths = jnp.sqrt(sum(part * part for part in parts))
    facing = sum(part * dot(axis, rays.light) for part, axis in zip(parts, axes, strict=True))
    return Hit(depth, inner > 0, facing / lengths)


class Flat(NamedTuple):
    """Level ground seen from the camera.

    Attributes:
      height: of the camera over it, metres.
      at: of the camera over it, x and y in the world.
      axes: the world's x, y and z, seen from the camera.
    """

    height: Array
    at: Vector
    axes: Sequence[Vector] | Array

    def hit(self, rays: Rays) -> tuple[Hit, Float[Array, " pixels"], Float[Array, " pixels"]]:
        """Where rays meet it, and x and y of these points in the world."""
        x, y, z = (rays.along(axis) for axis in self.axes)
        falls = z < -_TINY
        depth = -self.height / jnp.where(falls, z, -1.0)
        facing = dot(self.axes[2], rays.light) + depth * 0.0
        return Hit(depth, falls & (depth > 0), facing), self.at[0] + depth * x, self.at[1] + depth * y


@dataclasses.dataclass
class Picture:
    """What is nearest so far along each ray: draw shapes in any order, then take `image`."""

    view: View
    rays: Rays
    depth: Float[Array, " pixels"]
    shape: Int[Array, " pixels"]
    color: Vector
    ambient: Array | float

    @classmethod
    def empty(cls, view: View, light: Vector, sky: Vector, ambient: Array | float) -> "Picture":
        """Nothing but sky."""
        rays = view.rays(light)
        far = jnp.full_like(rays.x, view.far)
        color = [rays.x * 0.0 + c for c in sky]
        return cls(view, rays, far, jnp.full(rays.x.shape, -1, jnp.int32), color, ambient)

    def draw(self, shape: int, hit: Hit, color: Vector) -> None:
        """A shape with its number; `color` is one, or one of each pixel, each from 0 to 1."""
        seen = hit.is_met & (hit.depth > self.view.near) & (hit.depth < self.depth)
        light = self.ambient + (1.0 - self.ambient) * jnp.maximum(hit.facing, 0.0)
        self.depth = jnp.where(seen, hit.depth, self.depth)
        self.shape = jnp.where(seen, shape, self.shape)
        self.color = [jnp.where(seen, light * c, old) for c, old in zip(color, self.color, strict=True)]

    def image(self) -> UInt8[Array, "height width 3"]:
        """The picture."""
        values = jnp.stack([jnp.clip(255.0 * c, 0.0, 255.0) for c in self.color], axis=-1)
        return values.reshape(self.view.height, self.view.width, 3).astype(jnp.uint8)


_TINY = 1e-7


def _root(x: Array) -> Array:
    return jnp.sqrt(jnp.maximum(x, 0.0))
