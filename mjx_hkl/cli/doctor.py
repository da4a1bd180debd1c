"""`mjx-hkl doctor`."""

import dataclasses
import json

from mjx_hkl.analysis.opengl import choose_opengl
from mjx_hkl.cli.arguments import parse


@dataclasses.dataclass(frozen=True)
class DoctorCommand:
    """Say what this machine has, and how to get what is missing: device, versions, memory, OpenGL, extras.

    Ends with 1 where something does not work that should; an extra may be missing.
    """

    json: bool = False
    """Print one JSON object and nothing else."""


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    command = parse(DoctorCommand, "doctor", arguments)

    from mjx_hkl.analysis.doctor import examine

    found = []
    for finding in examine(choose_opengl):
        found.append(finding)
        if not command.json:
            mark = "!" if finding.is_problem else "-" if finding.remedy else "+"
            remedy = f"; {finding.remedy}" if finding.remedy else ""
            print(f"{mark} {finding.what}: {finding.found}{remedy}", flush=True)
    problems = sum(finding.is_problem for finding in found)
    if command.json:
        print(json.dumps({"problems": problems, "findings": [dataclasses.asdict(x) for x in found]}))
    elif problems:
        print(f"{problems} {'problem' if problems == 1 else 'problems'}: the lines with !")
    return int(problems > 0)
