"""Breaks runs on purpose, many times, and counts what comes of it: docs/reliability.md has the numbers.

    python benchmarks/faults.py --out faults.json                # about an hour on two CPU cores
    python benchmarks/faults.py --quick                          # a minute
    python benchmarks/faults.py --campaigns damage recipes       # some of it

Kills of training and `reproduce` at random moments, damage to every kind of file, recipes and command lines
with a mistake, tasks whose numbers are not finite, full disks (superuser only), and a few others. Nothing may
be lost, nothing may be different without being told, and mistakes are told in one line. Ends with 1 where
that is not so. One JSON object, and a table.
"""

import argparse
import collections
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_bench import Bench, Case
from fault_files import damage
from fault_numbers import numbers
from fault_others import others
from fault_processes import disks, kills
from fault_recipes import recipes

from mjx_hkl.training import devices

CAMPAIGNS: dict[str, tuple[Callable[[Bench, int], Iterator[Case]], int, int]] = {
    "kills": (kills, 100, 2),
    "damage": (damage, 1000, 24),
    "recipes": (recipes, 1000, 40),
    "numbers": (numbers, 63, 0),
    "disks": (disks, 20, 0),
    "others": (others, 42, 0),
}
"""By name: what it does, how many cases, and how many where it is to be quick."""


def main() -> int:
    """Runs the campaigns; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few cases of the quick campaigns")
    parser.add_argument("--cases", type=int, help="of each campaign, instead of its own number")
    parser.add_argument("--campaigns", nargs="+", choices=CAMPAIGNS, default=list(CAMPAIGNS))
    parser.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    given = parser.parse_args()
    devices.use_compilation_cache()
    found: dict[str, list[Case]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.seed)
        for name in given.campaigns:
            start, found[name] = time.perf_counter(), []
            campaign, *counts = CAMPAIGNS[name]
            count = given.cases or counts[given.quick]
            for case in campaign(bench, count) if count else ():
                found[name].append(case)
                if not case.is_good:
                    print(f"{name}: {case.done}, {case.to}: {case.outcome}: {case.detail}", flush=True)
            print(f"{name}: {len(found[name])} cases in {time.perf_counter() - start:.0f} s", flush=True)
    print(table(found))
    if given.out:
        cases = {name: [dataclasses.asdict(case) for case in cases] for name, cases in found.items()}
        given.out.write_text(json.dumps(cases, indent=1) + "\n")
    return int(not all(case.is_good for cases in found.values() for case in cases))


def table(found: dict[str, list[Case]]) -> str:
    """Markdown: how often what came of what."""
    lines = ["| | cases | what came of it |", "|---|---:|---|"]
    for name, cases in found.items():
        counts = collections.Counter(case.outcome for case in cases).most_common()
        lines.append(f"| {name} | {len(cases)} | {'; '.join(f'{n} {outcome}' for outcome, n in counts)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
