"""What this machine has of all that mjx-hkl can use, and how to get what is missing."""

import dataclasses
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from mjx_hkl import __version__
from mjx_hkl.errors import UserError

_NAME = "mjx-hkl"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Attributes:
      what: its name.
      found: what is there, in words.
      remedy: how to get what is missing; empty where nothing is.
      is_problem: whether something does not work that should.
    """

    what: str
    found: str
    remedy: str = ""
    is_problem: bool = False


def examine(choose_opengl: Callable[[], None]) -> Iterator[Finding]:
    """Everything, one after the other.

    Args:
      choose_opengl: finds an OpenGL that works; raises UserError where there is none.
    """
    yield Finding(_NAME, f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding("Python", f"{platform.python_version()} on {platform.platform(terse=True)}")
    yield from _versions()
    yield from _devices()
    memory, (cores, whole) = psutil.virtual_memory(), _cores()
    limited = "" if cores == whole else f", of which this process may use {cores}"
    yield Finding("cores", f"{whole}{limited}")
    yield Finding("memory", f"{_gib(memory.total)}, {_gib(memory.available)} of it free")
    yield _folder("runs", Path.cwd())
    yield _cache()
    yield _opengl(choose_opengl)
    yield _encoder()
    yield from _extras()


def _versions() -> Iterator[Finding]:
    found = {
        name: importlib.metadata.version(name)
        for name in ("jax", "jaxlib", "mujoco", "mujoco-mjx", "flax", "optax", "orbax-checkpoint")
    }
    yield Finding("libraries", ", ".join(f"{name} {version}" for name, version in found.items()))
    minors = {name: found[name].split(".")[:2] for name in ("mujoco", "mujoco-mjx")}
    if minors["mujoco"] != minors["mujoco-mjx"]:
        yield Finding(
            "MuJoCo and MJX",
            f"mujoco {found['mujoco']} and mujoco-mjx {found['mujoco-mjx']} do not belong together",
            f"pip install --upgrade '{_NAME}'",
            is_problem=True,
        )


def _devices() -> Iterator[Finding]:
    import jax

    from mjx_hkl.environments.engines import default_engine
    from mjx_hkl.training import devices

    try:
        told = f"{devices.describe(jax.device_count())}; {_gib(devices.available_bytes())} free"
    except RuntimeError as error:  # a plugin that finds no device of its own
        yield Finding("device", str(error).splitlines()[0], "set JAX_PLATFORMS=cpu", is_problem=True)
        return
    yield Finding("device", f"{told}; physics engine {default_engine()}")
    if jax.default_backend() == "cpu" and os.environ.get("JAX_PLATFORMS") != "cpu" and (gpu := _nvidia()):
        yield Finding(
            "GPU",
            f"{gpu} is there, and JAX does not use it",
            f"pip install '{_NAME}[cuda]'",
            is_problem=True,
        )


def _nvidia() -> str:
    """The first NVIDIA GPU's name; empty where none answers."""
    if not shutil.which("nvidia-smi"):
        return ""
    told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return told.stdout.splitlines()[0] if told.returncode == 0 and told.stdout else ""


def _cores() -> tuple[int, int]:
    """Cores that this process may use, and all."""
    whole = os.cpu_count() or 1
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else whole), whole


def _folder(what: str, path: Path) -> Finding:
    there = next(x for x in (path, *path.parents) if x.exists())
    free = f"{path}; {_gib(shutil.disk_usage(there).free)} free"
    if not os.access(there, os.W_OK):
        return Finding(what, f"{path} cannot be written", "go to a folder that can", is_problem=True)
    return Finding(what, free)


def _cache() -> Finding:
    import jax

    from mjx_hkl.training import devices

    devices.use_compilation_cache()
    path = Path(jax.config.jax_compilation_cache_dir or "")  # pyright: ignore - a flag that JAX defines
    size = sum(x.stat().st_size for x in path.rglob("*") if x.is_file()) if path.exists() else 0
    found = _folder("compiled programs", path)
    return dataclasses.replace(found, found=f"{found.found}, {_gib(size)} kept")


def _opengl(choose: Callable[[], None]) -> Finding:
    try:
        choose()
    except UserError as error:
        return Finding("pictures", "no OpenGL", str(error), is_problem=True)
    return Finding("pictures", f"OpenGL by {os.environ.get('MUJOCO_GL', 'the display')}")


def _encoder() -> Finding:
    import imageio_ffmpeg

    try:
        return Finding("videos", imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:
        return Finding("videos", "no ffmpeg", "pip install --force-reinstall imageio-ffmpeg", is_problem=True)


def _extras() -> Iterator[Finding]:
    """What each extra of the package needs, and whether it is there."""
    for extra in importlib.metadata.metadata(_NAME).get_all("Provides-Extra") or []:
        missing = [name for name in _needed(_NAME, extra) if not _is_installed(name)]
        lacks = f"not installed: {', '.join(dict.fromkeys(missing))}"
        remedy = f"pip install '{_NAME}[{extra}]'" if missing else ""
        yield Finding(f"extra {extra}", lacks if missing else "installed", remedy)


def _needed(name: str, extra: str) -> Iterator[str]:
    """What an extra of a package needs, and what the extras need that it asks of others."""
    yield name
    for line in (importlib.metadata.requires(name) or []) if _is_installed(name) else []:
        if re.search(rf"""extra == ["']{extra}["']""", line):
            found = re.match(r"([\w.-]+)(?:\[([\w-]+)\])?", line)
            if found:
                yield from _needed(found[1], found[2]) if found[2] else (found[1],)


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
