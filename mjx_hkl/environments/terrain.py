"""Uneven ground: a height field of random bumps around a flat place to start from."""

import dataclasses
import functools
from typing import Annotated

import jax.numpy as jnp
import mujoco
import numpy as np
from annotated_types import Ge, Le
from jaxtyping import Array, Bool, Float

from mjx_hkl.environments.numbers import Distance, Metres
from mjx_hkl.environments.physics import PhysicsState
from mjx_hkl.environments.view import View

_THICKNESS = 1.0  # metres under the lowest point


@dataclasses.dataclass(frozen=True)
class Terrain:
    """Bumps as high as they are deep; the middle is flat, at height 0."""

    size: Metres = 16.0  # metres, side of the square; who leaves it ends the episode
    amplitude: Metres = 0.1  # metres, of the highest bump and of the deepest hollow
    bump: Metres = 1.0  # metres from one random height to the next
    cell: Metres = 0.25  # metres between the heights that are simulated
    flat: Distance = (
        1.0  # metres around the middle that are flat; half as far again it is as rough as elsewhere
    )
    seed: Annotated[int, Ge(0), Le(2**31 - 1)] = 0  # of the heights, which are the same in all episodes

    @property
    def view(self) -> View:
        """The body, wherever it goes."""
        return View(distance=5.0, elevation=-20.0, follows=True)

    def build(self, spec: mujoco.MjSpec) -> list[str]:
        """See `Arena.build`."""
        heights = self.heights
        low, span = heights.min(), max(np.ptp(heights), 1e-6)
        field = spec.add_hfield(
            name="terrain",
            nrow=len(heights),
            ncol=len(heights),
            size=[self.size / 2, self.size / 2, span, _THICKNESS],
            userdata=((heights - low) / span).ravel(),  # MuJoCo makes 0 and 1 of the ends in any case
        )
        spec.worldbody.add_geom(
            name="terrain",
            type=mujoco.mjtGeom.mjGEOM_HFIELD,
            hfieldname=field.name,
            pos=[0.0, 0.0, low],
            rgba=[0.45, 0.5, 0.45, 1],
            contype=0,
            conaffinity=0,
        )
        spec.worldbody.add_light(pos=[0, 0, 10], castshadow=False)
        return ["terrain"]

    def height(self, points: Float[Array, "n 2"], physics: PhysicsState) -> Float[Array, " n"]:
        """See `Arena.height`: in the triangles that MuJoCo makes of each cell."""
        heights = jnp.asarray(self.heights, jnp.float32)
        last = len(heights) - 1
        place = (points / self.size + 0.5) * last
        corner = jnp.clip(jnp.floor(place), 0, last - 1).astype(int)
        along_x, along_y = (place - corner).T
        column, row = corner.T
        near, right = heights[row, column], heights[row, column + 1]
        up, far = heights[row + 1, column], heights[row + 1, column + 1]
        below = near + along_x * (right - near) + along_y * (far - right)
        above = near + along_y * (up - near) + along_x * (far - up)
        inside = jnp.all(jnp.abs(points) <= self.size / 2, axis=-1)
        return jnp.where(inside, jnp.where(along_x > along_y, below, above), -jnp.inf)

    def is_out(self, position: Float[Array, " 3"]) -> Bool[Array, ""]:
        """See `Arena.is_out`."""
        return jnp.any(jnp.abs(position[:2]) > self.size / 2)

    @functools.cached_property
    def heights(self) -> Float[np.ndarray, "rows columns"]:
        """At the corners of cells, metres; rows along y, columns along x."""
        count = max(2, round(self.size / self.cell) + 1)
        places = np.linspace(-self.size / 2, self.size / 2, count)
        bumps = max(2, round(self.size / self.bump) + 1)
        coarse = np.random.default_rng(self.seed).uniform(-self.amplitude, self.amplitude, (bumps, bumps))
        knots = np.linspace(-self.size / 2, self.size / 2, bumps)
        across = np.stack([np.interp(places, knots, row) for row in coarse])
        heights = np.stack([np.interp(places, knots, column) for column in across.T], axis=1)
        away = np.hypot(*np.meshgrid(places, places))
        slope = np.clip((away - self.flat) / max(self.flat / 2, self.cell), 0.0, 1.0)
        return heights * slope
