"""An arena of its own: a floor with a step down on one side."""

import dataclasses

import jax.numpy as jnp
import mujoco


@dataclasses.dataclass(frozen=True)
class Terrace:
    """Its fields are the [arena] table of the environment file."""

    drop: float = 0.05  # metres
    half_width: float = 2.0  # metres; our tasks place things within it

    def build(self, spec):
        """Adds the ground to the body's model; returns the names of the geoms that carry bodies."""
        for name, x, z in (("high", -5.0, 0.0), ("low", 5.0, -self.drop)):
            spec.worldbody.add_geom(
                name=name, type=mujoco.mjtGeom.mjGEOM_BOX, size=[5.0, 10.0, 0.5], pos=[x, 0.0, z - 0.5]
            )
        return ["high", "low"]

    def height(self, points, physics):
        """Height of the ground at these points, metres; feet feel it."""
        return jnp.where(points[:, 0] < 0, 0.0, -self.drop)

    def is_out(self, position):
        """The episode ends where the torso is more than 1 m beyond the places of starts."""
        return jnp.any(jnp.abs(position[:2]) > self.half_width + 1.0)
