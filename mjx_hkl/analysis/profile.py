"""Where the time of a compiled program goes, from JAX's profiler: shares by the named scopes of the code."""

import gzip
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from mjx_hkl.analysis.hlo import parse
from mjx_hkl.analysis.parts import OTHER, parts_of

_CONTAINERS = ("while", "conditional", "call.")  # their time is that of what they run


def profile(program: jax.stages.Compiled, call: Callable[[], Any], folder: Path) -> dict[str, float]:
    """Runs `call`, which runs the program, under the profiler.

    Args:
      program: compiled.
      call: runs it once, warm.
      folder: where the trace is left, for TensorBoard, XProf or Perfetto.

    Returns:
      The share of all busy time of each of `PARTS`, by the innermost scope an operation lies in, gradients
      included, and of `other`; largest first. Empty where the profiler saw no operation.
    """
    with jax.profiler.trace(folder):
        jax.block_until_ready(call())
    part_of = parts_of(parse(program.as_text() or ""))
    # Not with `jax.profiler.ProfileData`: where warnings are errors, jaxlib 0.12 ends the process in it,
    # as it makes a type without a module.
    (trace,) = sorted(folder.glob("plugins/profile/*/*.trace.json.gz"))[-1:]
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    # Of an accelerator the host's events show only who launched what.
    accelerators = {event["pid"] for event in events if _process(event).startswith("/device:")}
    busy: dict[str, float] = defaultdict(float)
    for event in events:
        name = event.get("args", {}).get("hlo_op", "")
        if name and not name.startswith(_CONTAINERS) and (not accelerators or event["pid"] in accelerators):
            busy[part_of.get(name, OTHER)] += event["dur"]
    total = sum(busy.values())
    return {part: time / total for part, time in sorted(busy.items(), key=lambda item: -item[1])}


def _process(event: dict[str, Any]) -> str:
    """The name of a process, where an event of the trace gives one."""
    return event["args"]["name"] if event.get("name") == "process_name" else ""
