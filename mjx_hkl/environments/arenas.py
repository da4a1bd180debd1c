"""Arenas: the ground a body and a task share, and where it ends."""

import dataclasses
from typing import Protocol

import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Bool, Float

from mjx_hkl.environments.numbers import Coordinate, Distance, Metres
from mjx_hkl.environments.physics import PhysicsState
from mjx_hkl.environments.terrain import Terrain
from mjx_hkl.environments.view import View
from mjx_hkl.kinds import Kinds

_FOLLOWING = View(distance=9.0, elevation=-20.0, lookat=(2.0, 0.0, 0.0), follows=True)


class Arena(Protocol):
    """A frozen dataclass: its fields are the `[arena]` table of an environment file.

    It may have more, each a field or a property:
      half_width: largest coordinate of a start, metres; tasks that place things at random ask for it.
      walls_at: coordinate of walls on all four sides, metres, which keep planar boxes in; None without.
      view: a `View`, for pictures; without it the camera follows the torso.
    """

    def build(self, spec: mujoco.MjSpec) -> list[str]:
        """Lays the ground under a body's model; returns the names of the geoms bodies may stand on."""
        ...

    def height(self, points: Float[Array, "n 2"], physics: PhysicsState) -> Float[Array, " n"]:
        """Height of the ground at these points of the world, metres; -inf where there is none."""
        ...

    def is_out(self, position: Float[Array, " 3"]) -> Bool[Array, ""]:
        """Whether a body with its torso there has left the arena, which ends its episode."""
        ...


@dataclasses.dataclass(frozen=True)
class Area:
    """A flat square; without walls, `size` bounds where things start, not where they may go."""

    size: Metres = 8.0  # metres, side of the square
    walls: bool = False  # nothing may leave: slides are limited, legged bodies end their episode
    margin: Distance = 0.5  # metres beyond a walled square where a legged body's episode ends

    @property
    def half_width(self) -> float:
        """Largest coordinate of a start, metres."""
        return self.size / 2

    @property
    def walls_at(self) -> float | None:
        """Coordinate of the walls, metres; None without."""
        return self.half_width if self.walls else None

    @property
    def view(self) -> View:
        """All of the square."""
        return View(distance=1.1 * self.size + 1.5, elevation=-50.0)

    def build(self, spec: mujoco.MjSpec) -> list[str]:
        """See `Arena.build`; with walls, slides x and y of the body are limited to the square."""
        _add_floor(spec)
        if self.walls:
            torso = spec.body("torso")  # a robot's has any name, and a free joint
            slides = [j for j in torso.joints if j.type == mujoco.mjtJoint.mjJNT_SLIDE] if torso else []
            for joint in slides[:2]:
                joint.limited = mujoco.mjtLimited.mjLIMITED_TRUE
                joint.range = [-self.half_width, self.half_width]
        return ["floor"]

    def height(self, points: Float[Array, "n 2"], physics: PhysicsState) -> Float[Array, " n"]:
        """See `Arena.height`."""
        return jnp.zeros(len(points))

    def is_out(self, position: Float[Array, " 3"]) -> Bool[Array, ""]:
        """See `Arena.is_out`."""
        return jnp.array(self.walls) & jnp.any(jnp.abs(position[:2]) > self.half_width + self.margin)


@dataclasses.dataclass(frozen=True)
class Plain:
    """A flat floor without end, for tasks that place nothing on it."""

    @property
    def view(self) -> View:
        """The body, wherever it goes."""
        return View(distance=5.0, elevation=-20.0, follows=True)

    def build(self, spec: mujoco.MjSpec) -> list[str]:
        """See `Arena.build`."""
        _add_floor(spec)
        return ["floor"]

    def height(self, points: Float[Array, "n 2"], physics: PhysicsState) -> Float[Array, " n"]:
        """See `Arena.height`."""
        return jnp.zeros(len(points))

    def is_out(self, position: Float[Array, " 3"]) -> Bool[Array, ""]:
        """See `Arena.is_out`; never."""
        return jnp.array(False)


@dataclasses.dataclass(frozen=True)
class Corridor:
    """Two platforms along +x with a gap between them; the far one is a mocap body and sets the gap.

    There is no floor, and there are no walls: whoever leaves a platform falls.
    """

    before: Metres = 4.0  # metres from the start to the gap
    after: Metres = 4.0  # metres from the gap to the corridor's end
    width: Metres = 3.0  # metres
    rest: Metres = 2.0  # metres of platform behind the start and beyond the end
    fall_height: Coordinate = 0.0  # metres; the episode ends where the torso's centre is lower

    def build(self, spec: mujoco.MjSpec) -> list[str]:
        """See `Arena.build`."""
        _add_grid(spec)
        far = spec.worldbody.add_body(name="far_platform", mocap=True, pos=self.far_platform_pos(1.0))
        near_pos = [(self.before - self.rest) / 2, 0.0, -_THICKNESS / 2]
        for parent, name, length, pos in (
            (spec.worldbody, "near_platform", self.rest + self.before, near_pos),
            (far, "far_platform", self.after + self.rest, [0.0, 0.0, 0.0]),
        ):
            parent.add_geom(
                name=name,
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=[length / 2, self.width / 2, _THICKNESS / 2],
                pos=pos,
                material="grid",
                rgba=_GREY,
                contype=0,
                conaffinity=0,
            )
        return ["near_platform", "far_platform"]

    def far_platform_pos(self, gap: float | Float[Array, ""]) -> list:
        """Centre of the far platform behind a gap of that length, metres."""
        return [self.before + gap + (self.after + self.rest) / 2, 0.0, -_THICKNESS / 2]

    def height(self, points: Float[Array, "n 2"], physics: PhysicsState) -> Float[Array, " n"]:
        """See `Arena.height`."""
        x, y = points[:, 0], points[:, 1]
        far_edge = physics.mocap_pos[0, 0] - (self.after + self.rest) / 2
        near = (x >= -self.rest) & (x <= self.before)
        far = (x >= far_edge) & (x <= far_edge + self.after + self.rest)
        return jnp.where((near | far) & (jnp.abs(y) <= self.width / 2), 0.0, -jnp.inf)

    def is_out(self, position: Float[Array, " 3"]) -> Bool[Array, ""]:
        """See `Arena.is_out`."""
        return position[2] < self.fall_height


def view_of(arena: Arena) -> View:
    """From where pictures show it."""
    return getattr(arena, "view", _FOLLOWING)


def walls_of(arena: Arena) -> float | None:
    """Coordinate of its walls, metres; None without."""
    return getattr(arena, "walls_at", None)


def _add_floor(spec: mujoco.MjSpec) -> None:
    _add_grid(spec)
    spec.worldbody.add_geom(
        name="floor",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0, 0, 1],
        material="grid",
        rgba=_GREY,
        contype=0,
        conaffinity=0,
    )


def _add_grid(spec: mujoco.MjSpec) -> None:
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


_GREY = [0.5, 0.5, 0.5, 1]  # MuJoCo's default, under which the material shows
_THICKNESS = 1.0  # metres; who falls beside a platform meets its face, not its underside
_OURS = {"area": Area, "corridor": Corridor, "plain": Plain, "terrain": Terrain}
ARENAS = Kinds("[arena]", _OURS, requires=("build", "height", "is_out"))
