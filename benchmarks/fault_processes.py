"""Kills, full disks, and other things that happen to a run from outside."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
import unittest.mock
from collections.abc import Iterator
from pathlib import Path

from fault_bench import LONGER, REFUSED, Bench, Case, command, compare, contents, refused, start


def kills(bench: Bench, count: int) -> Iterator[Case]:
    """Runs that are killed at random moments, five times each, and resumed, until they end."""
    names = ("SIGKILL", "SIGTERM", "SIGINT")
    for number in range(-(-count // 5)):
        out = bench.folder / f"killed-{number}"
        what, done = ("reproduce", "train")[number % 4 > 0], []
        for _ in range(min(5, count - 5 * number)):
            name = bench.random.choice(names)
            process = _start(bench, out, what)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(bench.random.uniform(0.5, 12.0))
            process.send_signal(getattr(signal, name))
            done.append((name, process.communicate()[1]))
        answer = _start(bench, out, what)
        error = answer.communicate()[1]
        found = out / "plain" if what == "reproduce" else out
        outcome, detail = compare(bench.end, found) if not answer.returncode else ("lost", error)
        for name, err in done:
            bad = "Traceback" in err
            yield Case(name, what, "traceback" if bad else outcome, err[-400:] if bad else detail)
        shutil.rmtree(out)


def _start(bench: Bench, out: Path, what: str) -> subprocess.Popen[str]:
    """The next thing a user would type."""
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
    ended = _start(bench, out, "train")
    error = ended.communicate()[1]
    return compare(bench.end, out) if not ended.returncode else ("lost", error[-600:])


def others(bench: Bench, count: int) -> Iterator[Case]:
    """Two processes in one folder, a folder that is removed while training, a clock set back."""
    for _ in range(-(-count // 3)):
        out = bench.folder / "shared"
        first = start("train", bench.recipe, "--out", out)
        while not (out / "recipe.toml").exists() and first.poll() is None:
            time.sleep(0.05)
        second = start("train", out, "--resume")
        error = second.communicate()[1]
        first.communicate()
        refused = second.returncode == 2 and len(error.strip().splitlines()) == 1
        ended = not second.returncode and not error  # the first had ended by then
        outcome = compare(bench.end, out) if ended or refused else ("let in", error[-400:])
        yield Case("a second process", "the same folder", *outcome)
        shutil.rmtree(out)

        removed = start("train", bench.recipe, "--out", out)
        while not (out / "metrics.jsonl").exists() and removed.poll() is None:
            time.sleep(0.05)
        shutil.rmtree(out, ignore_errors=True)
        error = removed.communicate()[1]
        bad = "Traceback" in error or (removed.returncode and len(error.strip().splitlines()) != 1)
        yield Case("removed", "folder", "traceback" if bad else REFUSED, error[-600:] if bad else "")
        shutil.rmtree(out, ignore_errors=True)

        run_folder = bench.copy(bench.run)
        yesterday = time.time() - 86400.0
        with unittest.mock.patch("time.time", lambda yesterday=yesterday: yesterday):
            answer = command("train", run_folder, "--resume", *LONGER)
        outcome = compare(bench.longer, run_folder) if not answer.code else ("lost", answer.err[-400:])
        yield Case("set back", "clock", *outcome)
        if os.geteuid():
            yield _read_only(bench)


def _read_only(bench: Bench) -> Case:
    run_folder = bench.copy(bench.run)
    for path in (run_folder, *run_folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(run_folder)
    answer = command("train", run_folder, "--resume", *LONGER)
    case = Case("read-only", "folder", *refused(answer, before, run_folder))
    for path in (run_folder, *run_folder.rglob("*")):
        path.chmod(0o755)
    return case
