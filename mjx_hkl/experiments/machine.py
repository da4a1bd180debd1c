"""What a run was trained on: device and versions, in its machines.json."""

import json
import platform
import time
from typing import Any

from mjx_hkl import __version__
from mjx_hkl.experiments.agent_format import versions
from mjx_hkl.experiments.run_directory import RunDirectory, write_whole
from mjx_hkl.training import devices


def note(run: RunDirectory, num_devices: int) -> None:
    """Adds this machine to those of the run: an entry for each start and resume."""
    entry = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "device": devices.describe(num_devices),
        "python": platform.python_version(),
        "versions": {"mjx-hkl": __version__, **versions()},
    }
    write_whole(run.machines, json.dumps([*machines(run), entry], indent=2) + "\n")


def machines(run: RunDirectory) -> list[dict[str, Any]]:
    """The entries so far; none of a run from before there were any, or of a damaged file."""
    try:
        found = json.loads(run.machines.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
