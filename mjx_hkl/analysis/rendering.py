"""Videos and pictures of episodes: MuJoCo's renderer, with what the task asks for drawn in; or a grid."""

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import mujoco
import numpy as np
from PIL import Image, ImageDraw

from mjx_hkl.environments import GridWorld, World
from mjx_hkl.environments.arenas import Area
from mjx_hkl.environments.grid import GridState
from mjx_hkl.environments.scene import Marks
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agents import Player
from mjx_hkl.experiments.evaluation import record

_SELECTED, _OTHER = (0.2, 0.85, 0.35, 0.9), (0.6, 0.6, 0.6, 0.5)
_AHEAD = (2.0, 0.0, 0.0)  # metres; where a camera in a corridor looks, from the torso
_DISC = 0.005  # metres, half the height of a mark
_FPS = 20
_ACTION_SECONDS = 0.15  # in a grid
_HEADLINE = 24  # pixels for the text above a grid
_GROUND, _LINES, _GOAL, _AGENT = (24, 28, 36), (70, 76, 90), (60, 210, 100), (90, 160, 255)
_PAUSE = 0.5  # seconds on the last frame of an episode


@dataclasses.dataclass(frozen=True)
class Frame:
    """One moment of an episode.

    Attributes:
      state: of the world.
      marks: what to draw; None for a task without.
      text: what to write.
    """

    state: Any
    marks: Marks | None
    text: str


def render_video(player: Player, out: Path, seed: int, deterministic: bool, size: tuple[int, int]) -> int:
    """Writes an mp4 of one episode in each of the player's worlds; returns the number of frames.

    Raises:
      UserError: no OpenGL, or no video encoder.
    """
    import imageio_ffmpeg
    import mediapy

    world = _world(player)
    control_seconds = _control_seconds(world)
    every = max(1, round(1 / (_FPS * control_seconds)))
    fps = 1 / (every * control_seconds)
    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    frames = _frames(player, seed, deterministic, every, round(_PAUSE * fps))
    count = 0
    with _renderer(world, size) as draw, tempfile.TemporaryDirectory(dir=out.parent) as folder:
        unfinished = Path(folder) / out.name
        with mediapy.VideoWriter(unfinished, shape=(size[1], size[0]), fps=fps) as video:
            for frame in frames:
                video.add_image(draw(frame))
                count += 1
        unfinished.replace(out)
    return count


def render_picture(player: Player, out: Path, seed: int, size: tuple[int, int]) -> None:
    """Writes a png of the first moment of an episode.

    Raises:
      UserError: no OpenGL.
    """
    world = _world(player)
    player = dataclasses.replace(
        player, environment=dataclasses.replace(player.environment, episode_length=1)
    )
    with _renderer(world, size) as draw:
        Image.fromarray(draw(next(_frames(player, seed, True, 1, 0)))).save(out)


def _world(player: Player) -> World | GridWorld:
    world = player.environment.env
    if not isinstance(world, World | GridWorld):
        raise UserError(
            f"{player.environment_name} brings its own simulator; only our worlds can be rendered"
        )
    return world


def _control_seconds(world: World | GridWorld) -> float:
    """Seconds a step is shown for: its own, or in a grid what the eye can follow."""
    if isinstance(world, GridWorld):
        return _ACTION_SECONDS
    return world.config.physics.timestep * world.config.physics.substeps


def _frames(player: Player, seed: int, deterministic: bool, every: int, pause: int) -> Iterator[Frame]:
    """One moment in `every` of each episode, its last one held for `pause` more frames."""
    recording = record(player.environment, player.agent, seed, deterministic)
    state, world = recording.pipeline_state, _world(player)
    marks = _marks(world, state) if isinstance(world, World) else None
    control_seconds = _control_seconds(world)
    episodes = player.environment.num_envs
    for episode in range(episodes):
        last = int(recording.alive[:, episode].sum()) - 1
        for t in [*range(0, last, every), *[last] * (1 + pause)]:
            solved = "success" if recording.success[t, episode] else ""
            text = (
                player.environment_name,
                f"episode {episode + 1} of {episodes}",
                f"{t * control_seconds:.1f} s" if isinstance(world, World) else f"action {t}",
                f"return {recording.episode_return[t, episode]:.1f}",
                solved,
            )
            yield Frame(
                jax.tree.map(lambda x: x[t, episode], state),  # noqa: B023 - used at once
                None if marks is None else Marks(*(x[t, episode] for x in marks)),
                "   ".join(text),
            )


def _marks(world: World, state: Any) -> Marks | None:
    method = getattr(world.task, "marks", None)
    if method is None:
        return None

    def of_moment(moment: Any) -> Marks:
        return method(moment.task, world.scene(moment.physics, moment.physics.qpos[None]))

    return jax.device_get(jax.jit(jax.vmap(jax.vmap(of_moment)))(state))


def _renderer(world: World | GridWorld, size: tuple[int, int]) -> AbstractContextManager[Any]:
    """A function from frames to images, height x width x 3 bytes."""
    if isinstance(world, GridWorld):
        return contextlib.nullcontext(functools.partial(_draw_grid, world, size))
    return _mujoco_renderer(world, size)


def _draw_grid(world: GridWorld, size: tuple[int, int], frame: Frame) -> np.ndarray:
    """Cells, the goal, and the agent as far towards the next cell as its body has moved."""
    image = Image.new("RGB", size, _GROUND)
    pen, cells = ImageDraw.Draw(image), world.config.size
    side = min(size[0], size[1] - _HEADLINE) / cells
    corner = np.array([(size[0] - side * cells) / 2, _HEADLINE])

    def square(cell: Any, inset: float) -> list[float]:
        left_top = corner + side * np.array([cell[0], cells - 1 - cell[1]])
        return [*(left_top + inset * side), *(left_top + (1 - inset) * side)]

    for cell in np.ndindex(cells, cells):
        pen.rectangle(square(cell, 0.0), outline=_LINES)
    grid: GridState = frame.state
    pen.rectangle(square(grid.goal, 0.1), fill=_GOAL)
    pen.ellipse(square(grid.agent + 0.5 * grid.internal / world.config.step_size, 0.25), fill=_AGENT)
    pen.text((8, 6), frame.text, fill=(255, 255, 255))
    return np.asarray(image)


@contextlib.contextmanager
def _mujoco_renderer(world: World, size: tuple[int, int]) -> Iterator[Any]:
    model = world.engine.model
    width, height = size
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.headlight.ambient[:], model.vis.headlight.diffuse[:] = 0.45, 0.6
    data, camera = mujoco.MjData(model), _camera(world)
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # what a missing OpenGL raises differs between backends
        raise UserError(f"cannot render: {error}") from error

    def draw(frame: Frame) -> np.ndarray:
        data.qpos[:] = frame.state.physics.qpos
        data.mocap_pos[:] = frame.state.physics.mocap_pos
        mujoco.mj_kinematics(model, data)
        mujoco.mj_camlight(model, data)
        if not isinstance(world.stage.arena, Area):
            camera.lookat[:] = data.body("torso").xpos + _AHEAD
        renderer.update_scene(data, camera)
        if frame.marks is not None:
            _draw_marks(renderer.scene, frame.marks)
        image = Image.fromarray(renderer.render())
        ImageDraw.Draw(image).text((8, 6), frame.text, fill=(255, 255, 255))
        return np.asarray(image)

    with renderer:
        yield draw


def _camera(world: World) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    arena = world.stage.arena
    camera.azimuth = 90
    if isinstance(arena, Area):
        camera.elevation, camera.distance = -50, 1.1 * arena.size + 1.5
    else:
        camera.elevation, camera.distance = -20, 9.0
    return camera


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
