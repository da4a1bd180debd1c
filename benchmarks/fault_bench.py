"""What the campaigns of `faults.py` share: a run to break, commands to try, and what came of it."""

import contextlib
import dataclasses
import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from mjx_hkl.cli.main import run

SAME = "goes on to the same end, bit for bit"
SAID_SAME = "says what is damaged, and goes on to the same end"
SAID = "says what is damaged, and the rest stays"
REFUSED = "refused in one line, nothing written"
UNHARMED = "unharmed"
VALID = "valid: another recipe"
GOOD = (SAME, SAID_SAME, SAID, REFUSED, UNHARMED, VALID)

SHORT = """
num_envs = 8
total_env_steps = 3200
log_interval = 160
checkpoint_interval = 160
replay_capacity = 1600
min_replay = 320
evaluation_episodes = 8
"""
_TINY = f"""
extends = "grid-1-step"
{SHORT}
[policy.high_level]
sizes = [8]
[policy.low_level]
sizes = [8]
[critic]
sizes = [8]
[algorithm]
batch_size = 8
"""
_STEPS = 3200
LONGER = ["--total-env-steps", str(_STEPS + 320)]
_TIMES = ("seconds", "environment_steps_per_second", "crc32")


@dataclasses.dataclass(frozen=True)
class Case:
    """What was done to what, and what came of it."""

    done: str
    to: str
    outcome: str
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost or let in."""
        return self.outcome in GOOD


@dataclasses.dataclass(frozen=True)
class Answer:
    """Of a command: its exit code, what it printed, and whether it ended by a traceback."""

    code: int
    out: str
    err: str
    traceback: bool

    @property
    def is_one_line(self) -> bool:
        """Whether it refused as users are promised."""
        return self.code == 2 and not self.traceback and len(self.err.strip().splitlines()) == 1


class Bench:
    """A folder to work in, with a recipe of seconds, a finished run of it, and how that goes on."""

    def __init__(self, folder: Path, seed: int):
        self.folder, self.random = folder, random.Random(seed)
        self.recipe = folder / "tiny.toml"
        self.recipe.write_text(_TINY)
        self.run = folder / "finished"
        must(command("train", self.recipe, "--out", self.run))
        longer = folder / "longer"
        shutil.copytree(self.run, longer)
        must(command("train", longer, "--resume", *LONGER))
        self.end, self.longer = learned(self.run), learned(longer)
        self.evaluation = self.evaluated(self.run / "export").out

    @staticmethod
    def evaluated(agent: Path) -> "Answer":
        """What `evaluate` answers of an agent."""
        return command("evaluate", agent, "--episodes", 8, "--json")

    def is_like_its_own(self, answer: "Answer") -> bool:
        """Whether that is what it answers of the finished run's agent, but for where it lies."""
        return {**json.loads(answer.out), "agent": ""} == {**json.loads(self.evaluation), "agent": ""}

    def copy(self, source: Path) -> Path:
        """A fresh copy of a folder, in the place of the one before."""
        place = self.folder / "copy"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(source, place)
        return place


def command(*arguments: Any) -> Answer:
    """Runs `mjx-hkl` with these arguments, in this process."""
    out, err = io.StringIO(), io.StringIO()
    traceback = False
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = run([str(x) for x in arguments])
        except Started:
            raise
        except SystemExit as ended:  # help was asked for
            code = int(ended.code or 0)
        except BaseException as error:
            code, traceback = 1, True
            print(f"{type(error).__name__}: {error}", file=err)
    return Answer(code, out.getvalue(), err.getvalue(), traceback)


def must(answer: Answer) -> None:
    """Raises where a command failed that nothing was done to."""
    if answer.code:
        raise RuntimeError(answer.err)


def learned(out: Path) -> tuple[Any, ...]:
    """What must be the same, however a run got there: its agent, its metrics but times, its evaluation."""
    card = json.loads((out / "export" / "agent.json").read_text())
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    rows = [{name: x for name, x in row.items() if name not in _TIMES} for row in lines]
    return card["modules"], rows, json.loads((out / "evaluation.json").read_text())


class Started(BaseException):
    """Raised where a valid recipe would begin to compile."""


def compare(expected: Any, out: Path) -> tuple[str, str]:
    """The outcome of a run that should have learned just that, and what differs."""
    try:
        found = learned(out)
    except (OSError, ValueError, KeyError) as error:
        return "lost", str(error)
    for name, a, b in zip(("agent", "metrics", "evaluation"), expected, found, strict=True):
        if a != b:
            return "silently different", f"its {name}"
    return SAME, ""


def refused(answer: Answer, before: dict[Path, bytes], folder: Path) -> tuple[str, str]:
    """The outcome of a command that failed, where the folder should hold what it held before."""
    if answer.traceback or "Traceback" in answer.err:
        return "traceback", answer.err[-400:]
    if not answer.is_one_line:
        return "several lines", answer.err[-400:]
    if contents(folder) != before:
        return "lost", f"files have changed; {answer.err}"
    return REFUSED, ""


def contents(folder: Path) -> dict[Path, bytes]:
    """Of every file in a folder, but for the lock; nothing where there is no folder."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder): path.read_bytes() for path in found}


def start(*arguments: Any, before: str = "", **environment: str) -> subprocess.Popen[str]:
    """Runs `mjx-hkl` with these arguments in a process of its own.

    Args:
      *arguments: of `mjx-hkl`.
      before: Python code that the process runs first.
      **environment: variables beside this process's own.
    """
    code = f"{before}\nfrom mjx_hkl.cli.main import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
