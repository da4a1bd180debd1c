"""TensorBoard: files of events in RUN/tensorboard, one folder per seed where there are many."""

import contextlib
import io
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from mjx_hkl.config import to_table
from mjx_hkl.experiments.loggers.logger import LoggedRun, Scalars, flat

_FLUSH_SECONDS = 10.0  # of events, which are synchronized with the disk
_BINS = 64
_FINAL = ("final/success_rate", "final/episode_return")  # columns beside the hyper-parameters
_MOST_FRAMES = 200  # of an animation


class TensorBoard:
    """A logger; see `Logger`.

    Events are written by this thread: one of tensorboardX's own would die of a full disk untold. A run that
    goes on from an earlier checkpoint begins a file that hides the events after it.
    """

    def __init__(self, run: LoggedRun):
        folder, several = run.directory.path / "tensorboard", len(run.seeds) > 1
        self._flushed = -_FLUSH_SECONDS
        self._files = {seed: _begun(folder / f"seed_{seed}" if several else folder) for seed in run.seeds}
        for seed in run.seeds:
            start = SessionLog(status=SessionLog.START)
            self._files[seed].write_event(Event(wall_time=time.time(), step=run.done + 1, session_log=start))
            experiment, begin, self._end = summary.hparams(
                flat(run.hyper_parameters(seed)), dict.fromkeys(_FINAL)
            )
            indented = tomli_w.dumps(to_table(run.recipe)).replace("\n", "\n    ")  # Markdown's code
            self._write(seed, run.done, [experiment, begin, summary.text("recipe", f"    {indented}")])

    @staticmethod
    def require() -> None:
        """It is always there."""

    def scalars(self, seed: int, step: int, values: Scalars) -> None:
        """See `Logger`."""
        self._write(seed, step, [summary.scalar(name, value) for name, value in values.items()])
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flushed = time.monotonic()
            for file in self._files.values():
                file.flush()

    def histograms(self, seed: int, step: int, values: Mapping[str, Shaped[ndarray, " samples"]]) -> None:
        """See `Logger`."""
        self._write(seed, step, [summary.histogram(name, x, _BINS) for name, x in values.items()])

    def video(self, seed: int, step: int, path: Path) -> None:
        """As an animated GIF among the images, for it plays no other."""
        self._write(seed, step, [_animation("videos/episode", path)])

    def result(self, seed: int, step: int, values: Scalars) -> None:
        """See `Logger`."""
        self._write(seed, step, [*(summary.scalar(name, x) for name, x in values.items()), self._end])

    def close(self, failed: bool) -> None:
        """See `Logger`. What a full disk does not take is let go: Python would try once more, and say so."""
        with contextlib.ExitStack() as each:
            for file in self._files.values():
                each.callback(file._py_recordio_writer.close)  # which its own close leaves out then
                each.callback(file.flush)

    def _write(self, seed: int, step: int, summaries: Iterable[Summary]) -> None:
        for one in summaries:
            self._files[seed].write_event(Event(wall_time=time.time(), step=step, summary=one))


def _begun(folder: Path) -> EventsWriter:
    folder.mkdir(parents=True, exist_ok=True)
    return EventsWriter(str(folder / "events"))


def _animation(name: str, path: Path) -> Summary:
    """What tensorboardX's `video` makes with moviepy."""
    import imageio_ffmpeg

    frames: Any = imageio_ffmpeg.read_frames(path)
    about = next(frames)
    pictures = [Image.frombytes("RGB", about["size"], frame) for frame in frames]
    every = -(-len(pictures) // _MOST_FRAMES)
    file, (first, *rest) = io.BytesIO(), pictures[::every]
    duration = round(1000 * every / about["fps"])  # milliseconds of a frame
    first.save(file, "GIF", save_all=True, append_images=rest, duration=duration, loop=0)
    image = Summary.Image(
        height=first.height, width=first.width, colorspace=3, encoded_image_string=file.getvalue()
    )
    return Summary(value=[Summary.Value(tag=name, image=image)])
