"""Kills and full disks: what ends a run at a random moment."""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from fault_bench import SAME, Bench, Case, compare, start

_KILLED = ("reproduce", "train", "export", "two processes", "train")


def kills(bench: Bench, count: int) -> Iterator[Case]:
    """Commands that are killed at random moments, five times each, and called again, until they end."""
    names = ("SIGKILL", "SIGTERM", "SIGINT")
    for number in range(-(-count // 5)):
        out = bench.folder / f"killed-{number}"
        what, done = _KILLED[number % len(_KILLED)], []
        for _ in range(min(5, count - 5 * number)):
            name = bench.random.choice(names)
            started = [next_start(bench, out, what) for _ in range(1 + (what == "two processes"))]
            with contextlib.suppress(subprocess.TimeoutExpired):
                started[0].wait(bench.random.uniform(0.5, 12.0))
            for process in started:
                process.send_signal(getattr(signal, name))
            done.append((name, "".join(process.communicate()[1] for process in started)))
        answer = next_start(bench, out, what)
        error = answer.communicate()[1]
        outcome, detail = (
            _ended(bench, out, what, error) if answer.returncode else _compared(bench, out, what)
        )
        for name, err in done:
            bad = "Traceback" in err
            yield Case(name, what, "traceback" if bad else outcome, err[-400:] if bad else detail)
        shutil.rmtree(out)


def _ended(bench: Bench, out: Path, what: str, error: str) -> tuple[str, str]:
    """Of a command that says it cannot go on: an export that was whole before the kill is there already."""
    return _compared(bench, out, what) if what == "export" and out.exists() else ("lost", error)


def _compared(bench: Bench, out: Path, what: str) -> tuple[str, str]:
    if what == "export":
        answer = bench.evaluated(out)
        same = answer.code == 0 and bench.is_like_its_own(answer)
        return (SAME, "") if same else ("silently different", answer.out + answer.err)
    return compare(bench.end, out / "plain" if what == "reproduce" else out)


def next_start(bench: Bench, out: Path, what: str) -> subprocess.Popen[str]:
    """The next thing a user would type."""
    if what == "export":
        return start("export", bench.run, out)
    if what == "reproduce":
        recipe = bench.folder / "variants.toml"
        recipe.write_text(f'extends = "{bench.recipe.name}"\n[variants.plain]\n')
        return start("reproduce", recipe, "--out", out)
    if any(path.name.isdigit() for path in out.glob("checkpoints/*")):
        return start("train", out, "--resume")
    shutil.rmtree(out, ignore_errors=True)  # it ended before its first checkpoint, and says so
    return start("train", bench.recipe, "--out", out)


def disks(bench: Bench, count: int) -> Iterator[Case]:
    """A disk that is full at a random moment; then there is room again, and the run is resumed."""
    disk = bench.folder / "disk"
    disk.mkdir(exist_ok=True)
    size = sum(path.stat().st_size for path in bench.run.rglob("*") if path.is_file())
    for number in range(count):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={3 * size + 2**20}", "tmpfs", str(disk)],
            capture_output=True,
        )
        if mounted.returncode:
            return  # only the superuser may
        try:
            yield Case("full disk", "train", *_fill(bench, disk, number))
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(bench: Bench, disk: Path, number: int) -> tuple[str, str]:
    out, filler = disk / "run", disk / "filler"
    process = start("train", bench.recipe, "--out", out)
    while not out.exists() and process.poll() is None:
        time.sleep(0.05)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(bench.random.uniform(0.0, 5.0))
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(4096))
            file.flush()
    error = process.communicate()[1]
    if "Traceback" in error:
        return "traceback", error[:1500]
    if process.returncode and len(error.strip().splitlines()) != 1:
        return "several lines", error[:1500]
    filler.unlink(missing_ok=True)
    ended = next_start(bench, out, "train")
    error = ended.communicate()[1]
    return compare(bench.end, out) if not ended.returncode else ("lost", error[-600:])
