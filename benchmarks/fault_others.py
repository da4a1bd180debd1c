"""What else happens to a run from outside."""

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import time
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_bench import (
    LONGER,
    REFUSED,
    SHORT,
    Bench,
    Case,
    command,
    compare,
    contents,
    learned,
    refused,
    start,
)
from fault_processes import next_start

_ENGINE_RAISES = """
from mjx_hkl.environments.engines.rollout import MujocoEngine
rollout, calls = MujocoEngine._rollout, iter(range({calls}))
def raising(*given):
    if next(calls, None) is None:
        raise RuntimeError("the valve is stuck")
    return rollout(*given)
MujocoEngine._rollout = raising
"""


def others(bench: Bench, count: int) -> Iterator[Case]:
    """One after the other, until there are so many."""
    for number in range(count):
        yield _OTHERS[number % len(_OTHERS)](bench)


def _second_process(bench: Bench) -> Case:
    out = _fresh(bench)
    first = start("train", bench.recipe, "--out", out)
    _wait_for(out / "recipe.toml", first)
    second = start("train", out, "--resume")
    error = second.communicate()[1]
    first.communicate()
    is_refused = second.returncode == 2 and len(error.strip().splitlines()) == 1
    ended = not second.returncode and not error  # the first had ended by then
    outcome = compare(bench.end, out) if ended or is_refused else ("let in", error[-400:])
    return Case("a second process", "the same folder", *outcome)


def _removed(bench: Bench) -> Case:
    out = _fresh(bench)
    process = start("train", bench.recipe, "--out", out)
    _wait_for(out / "metrics.jsonl", process)
    shutil.rmtree(out, ignore_errors=True)
    error = process.communicate()[1]
    bad = "Traceback" in error or (process.returncode and len(error.strip().splitlines()) != 1)
    return Case("removed", "folder", "traceback" if bad else REFUSED, error[-600:] if bad else "")


def _clock_set_back(bench: Bench) -> Case:
    run_folder = bench.copy(bench.run)
    yesterday = time.time() - 86400.0
    with unittest.mock.patch("time.time", return_value=yesterday):
        answer = command("train", run_folder, "--resume", *LONGER)
    outcome = compare(bench.longer, run_folder) if not answer.code else ("lost", answer.err[-400:])
    return Case("set back", "clock", *outcome)


def _read_only(bench: Bench) -> Case:
    """By permissions, or for the superuser, whom they do not hold, by a mount of its own."""
    run_folder = bench.copy(bench.run)
    paths = (run_folder, *run_folder.rglob("*"))
    if os.geteuid():
        for path in paths:
            path.chmod(0o555 if path.is_dir() else 0o444)
    else:
        subprocess.run(["mount", "--bind", str(run_folder), str(run_folder)], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", str(run_folder)], check=True)
    before = contents(run_folder)
    answer = command("train", run_folder, "--resume", *LONGER)
    case = Case("read-only", "folder", *refused(answer, before, run_folder))
    if os.geteuid():
        for path in paths:
            path.chmod(0o755)
    else:
        subprocess.run(["umount", "-l", str(run_folder)], check=True)
    return case


def _memory_limit(bench: Bench) -> Case:
    """Little more memory than it has, from a random moment on; then it is resumed with enough."""
    out = _fresh(bench)
    process = start("train", bench.recipe, "--out", out)
    _wait_for(out / "metrics.jsonl", process)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(bench.random.uniform(0.0, 3.0))
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + bench.random.randrange(2**22)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
    error = process.communicate()[1]
    if "Traceback" in error:
        return Case("memory limit", "train", "traceback", error[-1500:])
    ended = next_start(bench, out, "train")
    error = ended.communicate()[1]
    outcome = compare(bench.end, out) if not ended.returncode else ("lost", error[-600:])
    return Case("memory limit", "train", *outcome)


def _engine_that_raises(bench: Bench) -> Case:
    """The host's physics engine raises inside the jitted step; then it is resumed with one that does not."""
    recipe, whole, out = bench.folder / "puck.toml", bench.folder / "puck-run", _fresh(bench)
    if not whole.exists():
        example = Path(__file__).resolve().parents[1] / "docs" / "example" / "puck.toml"
        recipe.write_text(f'extends = "{example}"\n{SHORT}engine = "mujoco"\n')
        start("train", recipe, "--out", whole).communicate()
    calls = bench.random.randrange(50, 400)
    process = start("train", recipe, "--out", out, before=_ENGINE_RAISES.format(calls=calls))
    error = process.communicate()[1]
    if process.returncode != 2 or "the valve is stuck" not in error or len(error.strip().splitlines()) != 1:
        return Case("raises", "physics engine", "several lines", error[-1500:])
    if not any(path.name.isdigit() for path in out.glob("checkpoints/*")):
        return Case("raises", "physics engine", REFUSED)
    ended = start("train", out, "--resume")
    error = ended.communicate()[1]
    outcome = compare(learned(whole), out) if not ended.returncode else ("lost", error[-600:])
    return Case("raises", "physics engine", *outcome)


def _damaged_for_two(bench: Bench) -> Case:
    """Two processes resume a run whose newest checkpoint has a file that one of them may not need."""
    together = bench.folder / "together"
    if not together.exists():
        _must_end(_two("train", bench.recipe, "--out", together))
    whole, damaged = bench.folder / "together-longer", bench.copy(together)
    if not whole.exists():
        shutil.copytree(together, whole)
        _must_end(_two("train", whole, "--resume", *LONGER))
    newest = max(
        (x for x in (damaged / "checkpoints").iterdir() if x.name.isdigit()), key=lambda x: int(x.name)
    )
    data = sorted(newest.glob("state/ocdbt.process_*/d/*"))
    bench.random.choice(data).write_bytes(b"")
    try:
        _must_end(_two("train", damaged, "--resume", *LONGER))
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        return Case("damaged", "checkpoint of two processes", "lost", str(error)[-600:])
    return Case("damaged", "checkpoint of two processes", *compare(learned(whole), damaged))


def _two(*arguments: object) -> list[subprocess.Popen[str]]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    variables = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "JAX_NUM_PROCESSES": "2"}
    return [start(*arguments, "--distributed", **variables, JAX_PROCESS_ID=str(index)) for index in (0, 1)]


def _must_end(processes: list[subprocess.Popen[str]]) -> None:
    """Raises where one of them fails, or hangs."""
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise RuntimeError("".join(errors))


def _fresh(bench: Bench) -> Path:
    """A place for a run, with nothing there."""
    out = bench.folder / "other"
    shutil.rmtree(out, ignore_errors=True)
    return out


def _wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.05)


_OTHERS: tuple[Callable[[Bench], Case], ...] = (
    _second_process,
    _removed,
    _clock_set_back,
    _read_only,
    _memory_limit,
    _engine_that_raises,
    _damaged_for_two,
)
