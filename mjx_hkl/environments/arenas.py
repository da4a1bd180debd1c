"""Arenas: the ground a body and a task share."""

import dataclasses

import mujoco

from mjx_hkl.config import PositiveFloat

FLOOR = "floor"


@dataclasses.dataclass(frozen=True)
class Area:
    """A flat square without walls; `size` bounds where things start, not where they may go."""

    size: PositiveFloat = 8.0  # metres, side of the square

    @property
    def half_width(self) -> float:
        """Largest coordinate of a start, metres."""
        return self.size / 2

    def build(self, spec: mujoco.MjSpec) -> None:
        """Lays the ground under a body's model."""
        spec.add_texture(
            name="grid",
            type=mujoco.mjtTexture.mjTEXTURE_2D,
            builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
            width=300,
            height=300,
            rgb1=[0.24, 0.28, 0.32],
            rgb2=[0.28, 0.32, 0.37],
        )
        material = spec.add_material(name="grid", texrepeat=[1, 1], texuniform=True)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "grid"
        spec.worldbody.add_light(pos=[0, 0, 10], castshadow=False)
        spec.worldbody.add_geom(
            name=FLOOR,
            type=mujoco.mjtGeom.mjGEOM_PLANE,
            size=[0, 0, 1],
            material="grid",
            rgba=[0.5, 0.5, 0.5, 1],  # MuJoCo's default, under which the material shows
            contype=0,
            conaffinity=0,
        )


ARENAS = {"area": Area}
