"""Pictures of a world at one moment: MuJoCo's renderer with the task's marks drawn in, or a grid."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import mujoco
import numpy as np
from PIL import Image, ImageDraw

from mjx_hkl.environments.arenas import view_of
from mjx_hkl.environments.grid import GridConfig, GridState
from mjx_hkl.environments.scene import Marks
from mjx_hkl.environments.world import Draw
from mjx_hkl.errors import UserError

_SELECTED, _OTHER = (0.2, 0.85, 0.35, 0.9), (0.6, 0.6, 0.6, 0.5)
_DISC = 0.005  # metres, half the height of a mark
_HEADLINE = 24  # pixels above a grid, for text
_GROUND, _LINES, _GOAL, _AGENT = (24, 28, 36), (70, 76, 90), (60, 210, 100), (90, 160, 255)


@contextlib.contextmanager
def physics_renderer(world: Any, width: int, height: int) -> Iterator[Draw]:
    """Draws states of a `PhysicsWorld`.

    Raises:
      UserError: there is no OpenGL.
    """
    model = world.engine.model
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.45, 0.6
    data, view, marks_of = mujoco.MjData(model), view_of(world.stage.arena), jax.jit(world.marks)
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = view.azimuth, view.elevation, view.distance
    camera.lookat[:] = view.lookat
    renderer = _renderer(model, width, height)

    def draw(state: Any) -> np.ndarray:
        data.qpos[:] = state.physics.qpos
        data.mocap_pos[:] = state.physics.mocap_pos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        if view.follows:
            camera.lookat[:] = data.body(world.body.anatomy.torso).xpos + view.lookat
        renderer.update_scene(data, camera)
        marks = jax.device_get(marks_of(state))
        if marks is not None:
            _draw_marks(renderer.scene, marks)
        return renderer.render()

    with renderer:
        yield draw


@contextlib.contextmanager
def model_renderer(model: mujoco.MjModel, width: int, height: int) -> Iterator[Draw]:
    """Draws somebody else's model in states of it: dicts of fields of `mujoco.MjData`.

    The camera is the model's first that follows a body, else its first, else MuJoCo's own.

    Raises:
      UserError: there is no OpenGL.
    """
    data, renderer = mujoco.MjData(model), _renderer(model, width, height)
    following = np.flatnonzero(model.cam_mode != mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
    camera = int(following[0]) if len(following) else min(0, model.ncam - 1)

    def draw(state: Any) -> np.ndarray:
        for name, values in state.items():
            getattr(data, name)[:] = values
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, camera)
        return renderer.render()

    with renderer:
        yield draw


def _renderer(model: mujoco.MjModel, width: int, height: int) -> mujoco.Renderer:
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    try:
        return mujoco.Renderer(model, height, width)
    except Exception as error:  # what a missing OpenGL raises differs between backends
        raise UserError(f"cannot render: {error}") from error


def _draw_marks(scene: mujoco.MjvScene, marks: Marks) -> None:
    for position, radius, selected in zip(*marks, strict=True):
        if radius <= 0 or scene.ngeom >= scene.maxgeom:
            continue
        geom = scene.geoms[scene.ngeom]
        mujoco.mjv_initGeom(
            geom,
            mujoco.mjtGeom.mjGEOM_CYLINDER,
            np.array([radius, _DISC, 0.0], np.float64),
            np.asarray(position, np.float64),
            np.eye(3).ravel(),
            np.array(_SELECTED if selected else _OTHER, np.float32),
        )
        scene.ngeom += 1


@dataclasses.dataclass(frozen=True)
class GridPicture:
    """Cells, the goal, and the agent as far towards the next cell as its body has moved."""

    config: GridConfig
    width: int
    height: int

    def __call__(self, grid: GridState) -> np.ndarray:
        """The picture of a state."""
        image = Image.new("RGB", (self.width, self.height), _GROUND)
        pen, cells = ImageDraw.Draw(image), self.config.size
        for cell in np.ndindex(cells, cells):
            pen.rectangle(self._square(cell, 0.0), outline=_LINES)
        pen.rectangle(self._square(grid.goal, 0.1), fill=_GOAL)
        pen.ellipse(self._square(grid.agent + 0.5 * grid.internal / self.config.step_size, 0.25), fill=_AGENT)
        return np.asarray(image)

    def _square(self, cell: Any, inset: float) -> list[float]:
        cells = self.config.size
        side = min(self.width, self.height - _HEADLINE) / cells
        corner = np.array([(self.width - side * cells) / 2, _HEADLINE])
        left_top = corner + side * np.array([cell[0], cells - 1 - cell[1]])
        return [*(left_top + inset * side), *(left_top + (1 - inset) * side)]
