"""Pictures of a world at one moment: MuJoCo's renderer with the task's marks drawn in, or a grid."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import mujoco
import numpy as np
from PIL import Image, ImageDraw

from mjx_hkl.environments.grid import GridConfig, GridState
from mjx_hkl.environments.scene import Marks
from mjx_hkl.environments.scenery import Scenery
from mjx_hkl.environments.view import View
from mjx_hkl.environments.world import Draw
from mjx_hkl.errors import UserError

_SELECTED, _OTHER = (0.2, 0.85, 0.35, 0.9), (0.6, 0.6, 0.6, 0.5)
_DISC = 0.005  # metres, half the height of a mark
_HEADLINE = 24  # pixels above a grid, for text
_CELL = [0.48, 0.48, 0.05]  # metres, half the sizes of a slab
_GROUND, _LINES, _GOAL, _AGENT = (24, 28, 36), (70, 76, 90), (60, 210, 100), (90, 160, 255)


@contextlib.contextmanager
def physics_renderer(scenery: Scenery, width: int, height: int) -> Iterator[Draw]:
    """Draws a world of ours from where its arena is seen best.

    Raises:
      UserError: there is no OpenGL.
    """
    model, view = scenery.model, scenery.view
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.45, 0.6
    data = mujoco.MjData(model)
    camera = mujoco.MjvCamera()
    camera.azimuth, camera.elevation, camera.distance = view.azimuth, view.elevation, view.distance
    camera.lookat[:] = view.lookat
    renderer = _renderer(model, width, height)

    def draw(state: Any) -> np.ndarray:
        scenery.place(data, state)
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        if view.follows:
            camera.lookat[:] = data.xpos[scenery.torso] + view.lookat
        renderer.update_scene(data, camera)
        marks = jax.device_get(scenery.marks(state))
        if marks is not None:
            _draw_marks(renderer.scene, marks)
        return renderer.render()

    with renderer:
        yield draw


@contextlib.contextmanager
def model_renderer(scenery: Scenery, width: int, height: int) -> Iterator[Draw]:
    """Draws somebody else's model.

    The camera is the model's first that follows a body, else its first, else MuJoCo's own.

    Raises:
      UserError: there is no OpenGL.
    """
    model = scenery.model
    data, renderer = mujoco.MjData(model), _renderer(model, width, height)
    following = np.flatnonzero(model.cam_mode != mujoco.mjtCamLight.mjCAMLIGHT_FIXED)
    camera = int(following[0]) if len(following) else min(0, model.ncam - 1)

    def draw(state: Any) -> np.ndarray:
        scenery.place(data, state)
        mujoco.mj_forward(model, data)
        renderer.update_scene(data, camera)
        return renderer.render()

    with renderer:
        yield draw


def model_scenery(model: mujoco.MjModel) -> Scenery:
    """Of somebody else's model, in states that are dicts of fields of `mujoco.MjData`."""

    def place(data: mujoco.MjData, state: Any) -> None:
        for name, values in state.items():
            getattr(data, name)[:] = values

    torso = int(np.flatnonzero(model.body_jntnum)[0]) if model.njnt else 0
    return Scenery(model, place, torso, View(distance=2.5 * model.stat.extent, elevation=-20.0, follows=True))


def grid_scenery(config: GridConfig) -> Scenery:
    """A grid in 3D: a slab for each cell, one for the goal, and a ball for the agent; cells are metres."""
    spec, cells = mujoco.MjSpec(), config.size
    solid = {"contype": 0, "conaffinity": 0}
    for x, y in np.ndindex(cells, cells):
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            size=_CELL,
            pos=[x, y, -_CELL[2]],
            rgba=[0.36, 0.39, 0.46, 1],
            **solid,
        )
    goal, agent = (spec.worldbody.add_body(name=name, mocap=True) for name in ("goal", "agent"))
    goal.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.4, 0.4, 0.03], pos=[0, 0, 0.03], rgba=_unit(_GOAL), **solid
    )
    agent.add_geom(
        type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.3, 0, 0], pos=[0, 0, 0.35], rgba=_unit(_AGENT), **solid
    )

    def place(data: mujoco.MjData, grid: GridState) -> None:
        data.mocap_pos[0, :2] = grid.goal
        data.mocap_pos[1, :2] = grid.agent + 0.5 * np.asarray(grid.internal) / config.step_size

    middle = (cells - 1) / 2
    view = View(distance=1.6 * cells, elevation=-60.0, lookat=(middle, middle, 0.0))
    model = spec.compile()
    return Scenery(model, place, model.body("agent").id, view)


def _unit(colour: tuple[int, int, int]) -> list[float]:
    """A colour of bytes as MuJoCo's, opaque."""
    return [*(x / 255 for x in colour), 1.0]


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
