"""What a run was trained on: device and versions, in its machines.json."""

import dataclasses
import json
import platform
import time

from mjx_hkl import __version__
from mjx_hkl.config import from_table, to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import versions
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.whole import write_whole
from mjx_hkl.training import devices


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where a run was started or resumed; empty is not known.

    Attributes:
      started: date and time, UTC.
      device: in words.
      python: its version.
      versions: of packages.
    """

    started: str = ""
    device: str = ""
    python: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)


def note(run: RunDirectory, num_devices: int) -> None:
    """Adds this machine to those of the run: an entry for each start and resume."""
    this = Machine(
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        devices.describe(num_devices),
        platform.python_version(),
        {"mjx-hkl": __version__, **versions()},
    )
    entries = [to_table(machine) for machine in (*machines(run), this)]
    write_whole(run.machines, json.dumps(entries, indent=2) + "\n")


def machines(run: RunDirectory) -> list[Machine]:
    """Those so far; none of a run from before they were noted, or where the file is damaged."""
    try:
        found = json.loads(run.machines.read_text(encoding="utf-8"))
        return [from_table(Machine, entry, str(run.machines)) for entry in found]
    except (OSError, ValueError, TypeError, AttributeError, UserError):
        return []
