"""What the run's device is and what fits it: defaults, memory, the compilation cache."""

import contextlib
import ctypes
import os
from pathlib import Path

import jax
import psutil

from mjx_hkl.errors import UserError

_M_ARENA_MAX = -8  # of malloc.h

_DEFAULT_ENVS = {"cpu": 256}
ENVS_OF_ACCELERATOR = 4096
KEEP_FREE = 0.1  # of the device's memory, for what is not counted


def default_num_envs() -> int:
    """A few hundred worlds on a CPU, thousands on an accelerator."""
    return _DEFAULT_ENVS.get(jax.default_backend(), ENVS_OF_ACCELERATOR)


def default_num_devices() -> int:
    """One, or all that several processes have: each must have work."""
    return 1 if jax.process_count() == 1 else jax.device_count()


def describe(count: int = 1) -> str:
    """The device, or several of them, in words."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        name = f"CPU, {os.cpu_count()} cores"
        return name if count == 1 else f"{name} as {count} devices"
    name = f"{device.device_kind} ({device.platform})"
    return name if count == 1 else f"{count} x {name}"


def available_bytes() -> int:
    """Memory that a run may take on the device now."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return psutil.virtual_memory().available


def tree_bytes(tree: object) -> int:
    """Bytes of all arrays (or shapes of arrays) of a pytree."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


def require_fits(needed: int, what: str, remedy: str, held: int = 0) -> None:
    """Raises UserError where `needed` bytes, of which `held` are taken already, are more than there are."""
    available = held + int(available_bytes() * (1 - KEEP_FREE))
    if needed > available:
        raise UserError(
            f"{what} needs {format_bytes(needed)}, but only {format_bytes(available)} of the device's memory"
            f" can be used; {remedy}"
        )


def format_bytes(count: float) -> str:
    """For people: 1.5 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def use_compilation_cache() -> None:
    """Compiled programs are kept between runs in JAX_COMPILATION_CACHE_DIR or the user's cache folder."""
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(home / "mjx-hkl" / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def share_arenas() -> None:
    """Threads share one arena of the C library for each core; nothing where that library is not GNU's.

    Those that write a checkpoint come and go, and each would leave an arena behind, full of free memory.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, max(2, os.cpu_count() or 2))
