"""Hours of training, watched from outside: memory, file handles, threads and throughput should stay flat.

    python benchmarks/soak.py ball-go-to-target --minutes 120 --out soak.json

The recipe is trained in a process of its own with far more environment steps than fit, and stopped by
SIGTERM. Then its metrics and its TensorBoard events are read whole. One JSON object, with a sample every ten
seconds of resident bytes, open files and threads, and a picture beside it. Memory is flat where its greatest
sample after the second tenth is within 2 % of the greatest in the second tenth. Linux only.
"""

import argparse
import itertools
import json
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib

from mjx_hkl.experiments.run_directory import RunDirectory

matplotlib.use("agg")
import matplotlib.pyplot as plt


def main() -> int:
    """Trains, samples, prints; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between samples (default 10)")
    parser.add_argument("--out", type=Path, help="a JSON file to write, and a .png beside it")
    given, options = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder) / "run")
        samples, code, error = watched(given, run, options)
        if code != 130 or len(samples) < 10:  # that of a run that was stopped
            print(error or "too short: fewer than ten samples", file=sys.stderr)
            return 1
        found = {"recipe": given.recipe, "minutes": given.minutes, **told(samples, run)}
    print(json.dumps(found))
    if given.out:
        given.out.write_text(json.dumps({**found, "samples": samples}) + "\n")
        draw(samples, given.out.with_suffix(".png"))
    return 0


def watched(given: Any, run: RunDirectory, options: list[str]) -> tuple[list[dict[str, float]], int, str]:
    """Samples of a training, its exit code, and what it said on stderr."""
    code = "from mjx_hkl.cli.main import main; main()"
    steps = ["--total-env-steps", "2000000000", "--algorithm.learning-rate-decay", "0"]
    command = ["train", given.recipe, "--out", str(run.path), *steps, *options]
    start, samples = time.monotonic(), []
    errors = run.path.with_name("stderr")
    with errors.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL, stderr=file
        )
    while process.poll() is None and time.monotonic() - start < 60.0 * given.minutes:
        time.sleep(given.every)
        rows = run.read_metrics()
        if rows and process.poll() is None:
            samples.append(
                {"seconds": time.monotonic() - start, **of_process(process.pid), **_speed(rows[-1])}
            )
    process.send_signal(signal.SIGTERM)
    return samples, process.wait(), errors.read_text()


def of_process(pid: int) -> dict[str, float]:
    """What the kernel tells of a process."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "resident_bytes": 1024.0 * int(status["VmRSS"].split()[0]),
        "open_files": float(len(list(Path(f"/proc/{pid}/fd").iterdir()))),
        "threads": float(status["Threads"]),
    }


def _speed(row: dict[str, Any]) -> dict[str, float]:
    return {name: float(row[name]) for name in ("environment_steps", "environment_steps_per_second")}


def told(samples: list[dict[str, float]], run: RunDirectory) -> dict[str, Any]:
    """Greatest values and throughput, of the second tenth and after it, and whether files are whole."""
    tenth = len(samples) // 10
    early, late = samples[tenth : 2 * tenth], samples[2 * tenth :]
    rows, events = run.read_metrics(), list(run.path.glob("tensorboard/**/events.*"))
    found: dict[str, Any] = {}
    for name in ("resident_bytes", "open_files", "threads"):
        found[name] = {"early": max(x[name] for x in early), "late": max(x[name] for x in late)}
    speeds = [x["environment_steps_per_second"] for x in samples]
    found["environment_steps_per_second"] = {
        "early": statistics.median(speeds[tenth : 2 * tenth]),
        "late": statistics.median(speeds[-tenth:]),
    }
    return found | {
        "is_flat": found["resident_bytes"]["late"] <= 1.02 * found["resident_bytes"]["early"],
        "rows": len(rows),
        "rows_missing": _missing(rows),
        "events": sum(count_records(file) for file in events),
    }


def _missing(rows: list[dict[str, Any]]) -> int:
    """Log intervals that have no row."""
    steps = sorted({row["environment_steps"] for row in rows})
    gaps = [b - a for a, b in itertools.pairwise(steps)]
    return sum(gap // min(gaps) - 1 for gap in gaps)


def count_records(file: Path) -> int:
    """TFRecords of a file of events, each a length, checksum, data, checksum; 0 if the last is cut."""
    data, at, count = file.read_bytes(), 0, 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        at += length + 16
        count += 1
    return count if at == len(data) else 0


def draw(samples: list[dict[str, float]], path: Path) -> None:
    """Memory, files and threads, and throughput over minutes."""
    minutes = [x["seconds"] / 60.0 for x in samples]
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(7, 6), layout="constrained")
    axes[0].plot(minutes, [x["resident_bytes"] / 2**20 for x in samples])
    axes[0].set_ylabel("resident MiB")
    for name in ("open_files", "threads"):
        axes[1].plot(minutes, [x[name] for x in samples], label=name.replace("_", " "))
    axes[1].legend()
    axes[2].plot(minutes, [x["environment_steps_per_second"] for x in samples])
    axes[2].set_ylabel("environment steps/s")
    axes[2].set_xlabel("minutes")
    for axis in axes:
        axis.set_ylim(bottom=0)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
