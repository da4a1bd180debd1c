"""Videos and pictures of episodes: MuJoCo's renderer, with what the task asks for drawn in."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import mujoco
import numpy as np
from PIL import Image, ImageDraw

from mjx_hkl.environments import World
from mjx_hkl.environments.arenas import Area
from mjx_hkl.environments.scene import Marks
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agents import Player
from mjx_hkl.experiments.evaluation import record

_SELECTED, _OTHER = (0.2, 0.85, 0.35, 0.9), (0.6, 0.6, 0.6, 0.5)
_AHEAD = (2.0, 0.0, 0.0)  # metres; where a camera in a corridor looks, from the torso
_DISC = 0.005  # metres, half the height of a mark
_FPS = 20
_PAUSE = 0.5  # seconds on the last frame of an episode


@dataclasses.dataclass(frozen=True)
class Frame:
    """One moment of an episode.

    Attributes:
      qpos, mocap_pos: of the model.
      marks: what to draw; None for a task without.
      text: what to write.
    """

    qpos: np.ndarray
    mocap_pos: np.ndarray
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
    control_seconds = world.config.physics.timestep * world.config.physics.substeps
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


def _world(player: Player) -> World:
    world = player.environment.env
    if not isinstance(world, World):
        raise UserError(f"{player.environment_name} is no MuJoCo world of ours; only those can be rendered")
    return world


def _frames(player: Player, seed: int, deterministic: bool, every: int, pause: int) -> Iterator[Frame]:
    """One moment in `every` of each episode, its last one held for `pause` more frames."""
    recording = record(player.environment, player.agent, seed, deterministic)
    state, world = recording.pipeline_state, _world(player)
    marks = _marks(world, state)
    control_seconds = world.config.physics.timestep * world.config.physics.substeps
    episodes = player.environment.num_envs
    for episode in range(episodes):
        last = int(recording.alive[:, episode].sum()) - 1
        for t in [*range(0, last, every), *[last] * (1 + pause)]:
            solved = "success" if recording.success[t, episode] else ""
            text = (
                player.environment_name,
                f"episode {episode + 1} of {episodes}",
                f"{t * control_seconds:.1f} s",
                f"return {recording.episode_return[t, episode]:.1f}",
                solved,
            )
            yield Frame(
                state.physics.qpos[t, episode],
                state.physics.mocap_pos[t, episode],
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


@contextlib.contextmanager
def _renderer(world: World, size: tuple[int, int]) -> Iterator[Any]:
    """A function from frames to images, height x width x 3 bytes."""
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
        data.qpos[:] = frame.qpos
        data.mocap_pos[:] = frame.mocap_pos
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
