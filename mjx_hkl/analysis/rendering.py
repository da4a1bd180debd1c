"""Videos and pictures of episodes: what the world draws of itself, with a line of text."""

import dataclasses
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageDraw

from mjx_hkl.environments import VectorEnvironment
from mjx_hkl.experiments.evaluation import record
from mjx_hkl.experiments.players import Player

_FPS = 20
_SMALL = (320, 240)  # pixels
_PAUSE = 0.5  # seconds on the last frame of an episode


@dataclasses.dataclass(frozen=True)
class Frame:
    """One moment of an episode.

    Attributes:
      visible: of the world.
      text: what to write.
      sight: what the agent sees, of its last frame; None where it has no camera.
    """

    visible: Any
    text: str
    sight: np.ndarray | None = None


def render_video(
    player: Player,
    out: Path,
    seed: int,
    deterministic: bool,
    size: tuple[int, int],
    rate_factor: int | None = None,
) -> int:
    """Writes an mp4 of one episode in each of the player's worlds; returns the number of frames.

    `rate_factor` is H.264's, the higher the smaller the file; by default the quality is high.

    Raises:
      UserError: the world cannot be drawn, no OpenGL, or no video encoder.
    """
    import imageio_ffmpeg
    import mediapy

    world = _environment(player).env
    every = max(1, round(1 / (_FPS * world.control_seconds)))
    fps = 1 / (every * world.control_seconds)
    mediapy.set_ffmpeg(imageio_ffmpeg.get_ffmpeg_exe())
    frames = _frames(player, seed, deterministic, every, round(_PAUSE * fps))
    count = 0
    with world.renderer(*size) as draw, tempfile.TemporaryDirectory(dir=out.parent) as folder:
        unfinished = Path(folder) / out.name
        with mediapy.VideoWriter(unfinished, shape=(size[1], size[0]), fps=fps, crf=rate_factor) as video:
            for frame in frames:
                video.add_image(_picture(draw(frame.visible), frame))
                count += 1
        unfinished.replace(out)
    return count


def render_episode(player: Player, out: Path, seed: int) -> None:
    """Writes an mp4 of an episode of the mean policy, small, as for a look while it is trained.

    Raises:
      UserError: as `render_video`.
    """
    render_video(player, out, seed, player.has_mean, _SMALL)


def first_frame(video: Path) -> bytes:
    """The first frame of an mp4, as a JPEG."""
    import imageio_ffmpeg

    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(video)]
    to_jpeg = ["-frames:v", "1", "-f", "mjpeg", "-q:v", "4", "-"]
    return subprocess.run([*ffmpeg, *to_jpeg], check=True, capture_output=True).stdout


def render_picture(player: Player, out: Path, seed: int, size: tuple[int, int]) -> None:
    """Writes a png of the first moment of an episode.

    Raises:
      UserError: the world cannot be drawn, or no OpenGL.
    """
    environment = dataclasses.replace(_environment(player), episode_length=1)
    player = dataclasses.replace(player, environment=environment)
    with environment.env.renderer(*size) as draw:
        frame = next(_frames(player, seed, player.has_mean, 1, 0))
        Image.fromarray(_picture(draw(frame.visible), frame)).save(out)


def _environment(player: Player) -> VectorEnvironment:
    """That of a player in a single one."""
    (environment,) = player.environment.tasks.values()
    return environment


def _frames(player: Player, seed: int, deterministic: bool, every: int, pause: int) -> Iterator[Frame]:
    """One moment in `every` of each episode, its last one held for `pause` more frames."""
    recording = record(_environment(player), player.agent, seed, deterministic)
    episodes = player.environment.num_envs
    name = player.environment_name
    if name.endswith(".toml"):  # with its folders it may be longer than the picture
        name = Path(name).stem
    for episode in range(episodes):
        last = int(recording.alive[:, episode].sum()) - 1
        for t in [*range(0, last, every), *[last] * (1 + pause)]:
            solved = "success" if recording.success[t, episode] else ""
            text = (
                name,
                f"episode {episode + 1} of {episodes}",
                f"step {t}",
                f"return {recording.episode_return[t, episode]:.1f}",
                solved,
            )
            visible = jax.tree.map(lambda x: x[t, episode], recording.visible)  # noqa: B023 - used at once
            sight = None if recording.sight is None else np.asarray(recording.sight[t, episode])
            yield Frame(visible, "   ".join(text), sight)


def _picture(picture: np.ndarray, frame: Frame) -> np.ndarray:
    """With the text, and in a corner what the agent sees, its pixels enlarged."""
    image = Image.fromarray(picture)
    ImageDraw.Draw(image).text((8, 6), frame.text, fill=(255, 255, 255))
    if frame.sight is not None:
        height, width, _ = frame.sight.shape
        scale = max(1, image.height // (3 * height))
        sight = Image.fromarray(frame.sight).resize((scale * width, scale * height), Image.Resampling.NEAREST)
        image.paste(sight, (image.width - sight.width, image.height - sight.height))
    return np.asarray(image)
