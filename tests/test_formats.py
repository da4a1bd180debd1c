"""Agents and checkpoints of every format so far, as they were written then: read, or refused in one line.

`formats/run-1` was written before checkpoints had digests, `formats/agent-1` before there were cards of
today's form. `formats/run-2` and `formats/agent-2` are of one run. Add those of a new format; change none.
"""

import json
import shutil
from pathlib import Path

import pytest

from mjx_hkl.cli.main import run

FORMATS = Path(__file__).parent / "formats"
LONGER = ["--total-env-steps", "480"]


def resumed(number, tmp_path):
    out = tmp_path / f"run-{number}"
    shutil.copytree(FORMATS / f"run-{number}", out)
    return run(["train", str(out), "--resume", *LONGER]), out


@pytest.mark.parametrize("number", [1, 2])
def test_a_run_of_each_format_goes_on(number, tmp_path):
    code, out = resumed(number, tmp_path)
    assert code == 0
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["environment_steps"] == 480


def test_both_end_alike(tmp_path):
    """Format 2 only adds digests."""
    modules = [
        json.loads((resumed(number, tmp_path)[1] / "export" / "agent.json").read_text())["modules"]
        for number in (1, 2)
    ]
    assert modules[0] == modules[1]


def test_a_later_format_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    shutil.copytree(FORMATS / "run-2", tmp_path / "run")
    monkeypatch.setattr("mjx_hkl.training.checkpoint.FORMAT_VERSION", 1)
    assert run(["train", str(tmp_path / "run"), "--resume", *LONGER]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has format version 2; this mjx-hkl reads 1: use a newer mjx-hkl" in line


def test_an_agent_of_format_2_is_read(capsys):
    assert run(["evaluate", str(FORMATS / "agent-2"), "--episodes", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["episodes"] == 4


@pytest.mark.parametrize("command", ["evaluate", "inspect"])
def test_an_agent_of_format_1_is_refused_in_one_line(command, capsys):
    assert run([command, str(FORMATS / "agent-1")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "has format version 1; this mjx-hkl 0.1.0 reads 2: export the agent again" in line
