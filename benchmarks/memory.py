"""Memory of a run: what `mjx-hkl train` predicts for each device, and what one log interval then takes.

    python benchmarks/memory.py ball-go-to-target [--num-envs 1024] [--replay-capacity 1000000]

An accelerator counts its own bytes; for a CPU it is the peak of the process's resident memory above what it
held before (Linux). The first of two runs is not counted: it starts threads and compiles small programs.
"""

import argparse
import ctypes
import gc
import json
import re
from collections.abc import Callable
from pathlib import Path

import jax

from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_loop, resolve
from mjx_hkl.experiments.recipe import load_recipe, recipe_from_table

LIBC = ctypes.CDLL(None)
M_MMAP_THRESHOLD = -3  # malloc.h


def main() -> None:
    """Prints one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--num-envs", type=int)
    parser.add_argument("--replay-capacity", type=int)
    options = parser.parse_args()
    given = {"num_envs": options.num_envs, "replay_capacity": options.replay_capacity}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        recipe = recipe_from_table({**to_table(load_recipe(options.recipe)), **given}, "command line")
        loop = make_loop(resolve(recipe))
    except UserError as error:
        parser.error(str(error))
    if not jax.local_devices()[0].memory_stats():
        LIBC.mallopt(M_MMAP_THRESHOLD, 65_536)  # fixed; else it grows, and the heap keeps freed buffers
    loop.compile()
    init = jax.jit(loop.init)  # compiled once

    def interval() -> None:
        jax.block_until_ready(next(loop.intervals(init())))

    interval()
    predicted, used = loop.device_bytes(), peak_bytes(interval)
    result = {"recipe": recipe.name, "predicted_bytes": predicted, "used_bytes": used}
    print(json.dumps({**result, "used_to_predicted": used / predicted}))


def peak_bytes(call: Callable[[], None]) -> int:
    """The most that `call` holds at once."""
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        call()
        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] - stats["bytes_in_use"]
    gc.collect()
    LIBC.malloc_trim(0)  # what was freed is no longer resident
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


if __name__ == "__main__":
    main()
