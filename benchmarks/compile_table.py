"""The train step of every body, compiled for accelerators that need not be there, at several sizes.

    python benchmarks/compile_table.py OUT.jsonl [--bodies ball] [--num-envs 1024] [--for v5e]

Runs `mjx-hkl bench compile` for each in a process of its own, minutes each on two cores. What is done is kept
in the file, one JSON object a line: called again it goes on, and tries again what failed. Prints the table in
Markdown. All of it is counted and bounded, nothing is measured.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BODIES = ("ball", "ant", "quadruped", "humanoid")
NUM_ENVS = (1024, 4096, 16384)
DEVICES = ("h100", "a100", "v5e")
MJX_HKL = (sys.executable, "-c", "from mjx_hkl.cli.main import main; main()")
HEAD = "| body | worlds | for | fits | state and temporaries | launches | bound, steps/s | what binds |"

Key = tuple[str, int, str]  # body, worlds, device


def main() -> None:
    """Compiles what is not yet in the file, then prints all of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--bodies", nargs="+", choices=BODIES, default=BODIES)
    parser.add_argument("--num-envs", nargs="+", type=int, default=NUM_ENVS)
    parser.add_argument("--for", nargs="+", dest="devices", default=DEVICES)
    options = parser.parse_args()
    done = dict(read(options.out))
    for key in itertools.product(options.bodies, options.num_envs, options.devices):
        if "bound" not in done.get(key, {}):
            print(*key, file=sys.stderr, flush=True)
            done[key] = compile_for(*key)
            lines = (json.dumps({"key": key, **result}) for key, result in sorted(done.items()))
            options.out.write_text("\n".join(lines) + "\n")
    print("\n".join(table(done)))


def read(path: Path) -> Iterator[tuple[Key, dict[str, Any]]]:
    """What the file holds."""
    for line in path.read_text().splitlines() if path.is_file() else ():
        result = json.loads(line)
        body, num_envs, device = result.pop("key")
        yield (body, num_envs, device), result


def compile_for(body: str, num_envs: int, device: str) -> dict[str, Any]:
    """What the command prints, or why there is nothing."""
    told = [f"{body}-go-to-target", "--num-envs", str(num_envs), "--for", device, "--json"]
    done = subprocess.run([*MJX_HKL, "bench", "compile", *told], capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["?"])[-1]}
    return json.loads(done.stdout)


def table(results: dict[Key, dict[str, Any]]) -> Iterator[str]:
    """In Markdown."""
    yield HEAD
    yield "|---|---:|---|---|---:|---:|---:|---|"
    for (body, num_envs, device), result in sorted(results.items()):
        start = f"| {body} | {num_envs:,} | {device} |"
        if "error" in result:
            yield f"{start} {result['error']} | | | | |"
            continue
        held = result["argument_bytes"] + result["temporary_bytes"]
        launches = "–" if result["launches"] is None else f"{result['launches']:,}"
        fits, bound = "yes" if result["fits"] else "no", result["bound"]
        steps = f"{bound['environment_steps_per_second']:,.0f}"
        yield f"{start} {fits} | {held / 2**20:,.0f} MiB | {launches} | {steps} | {bound['binds']} |"


if __name__ == "__main__":
    main()
