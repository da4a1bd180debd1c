"""What goes on where it was stopped: ladders, experiments, runs that have succeeded or are large."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import tomli_w

from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import reproduce, training_run
from mjx_hkl.experiments.build import make_loop
from mjx_hkl.experiments.reporter import Silent
from mjx_hkl.training import checkpoint, devices
from mjx_hkl.training.loop import Loop


@pytest.fixture
def ladder(tiny_recipe, tmp_path):
    """A recipe with one stage before the world itself."""
    stage = {"environment": "ball-go-to-near-target", "total_env_steps": 80}
    path = tmp_path / "climb.toml"
    path.write_text(tomli_w.dumps({**to_table(tiny_recipe), "ladder": [stage]}), encoding="utf-8")
    return path


@pytest.fixture
def stopped(ladder, tmp_path, monkeypatch):
    """A ladder that was stopped in its first stage, after a checkpoint, and the folder of its experiment."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(
            "mjx_hkl.cli.progress.Display.interval", lambda self, rows: signal.raise_signal(signal.SIGINT)
        )
        assert run(["reproduce", str(ladder), "--out", str(out)]) == 130
    assert steps(out / "tiny" / "ladder" / "1") == [40]
    return out


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def steps(folder):
    return [row["environment_steps"] for row in rows(folder)]


def test_an_experiment_goes_on_in_the_stage_of_a_ladder(stopped, ladder, monkeypatch, capsys):
    begun, intervals = [], Loop.intervals

    def watched(self, state):
        begun.append(int(state.iteration))
        return intervals(self, state)

    monkeypatch.setattr(Loop, "intervals", watched)
    assert run(["train", str(ladder), "--out", str(stopped / "tiny")]) == 2
    assert "continue it with: mjx-hkl train" in capsys.readouterr().err
    assert run(["reproduce", str(ladder), "--out", str(stopped)]) == 0
    assert begun == [2, 0]  # of four train steps, then the recipe itself
    assert steps(stopped / "tiny" / "ladder" / "1") == [40, 80]
    assert (stopped / "tiny" / "export" / "agent.json").is_file()


def test_a_ladder_does_not_go_on_with_another_recipe(stopped, capsys):
    path = stopped / "tiny"
    before = (path / "recipe.toml").read_bytes()
    assert run(["train", str(path), "--resume", "--algorithm.kl-cost", "0.5"]) == 2
    assert "holds a run of another recipe: algorithm.kl_cost" in capsys.readouterr().err
    assert (path / "recipe.toml").read_bytes() == before


def test_a_ladder_that_is_not_there_is_not_begun_by_resume(ladder, tmp_path, capsys):
    assert run(["train", str(ladder), "--resume", "--out", str(tmp_path / "typo")]) == 2
    assert "holds no run to resume" in capsys.readouterr().err
    assert not (tmp_path / "typo").exists()


@pytest.fixture(scope="module")
def short(tiny_recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "short.toml"
    table = {**to_table(tiny_recipe), "total_env_steps": 80, "evaluation_interval": 40, "until_success": 0.7}
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return path


def succeeding(monkeypatch):
    """Every interval's success is 80 %."""
    made = Loop._rows
    monkeypatch.setattr(
        Loop, "_rows", lambda self, *given: [row | {"success_rate": 0.8} for row in made(self, *given)]
    )


def test_a_run_that_had_succeeded_when_it_was_killed_ends_there(short, tmp_path, monkeypatch, capsys):
    succeeding(monkeypatch)
    out = tmp_path / "run"
    assert run(["train", str(short), "--out", str(out)]) == 0
    whole, evaluation = (out / "metrics.jsonl").read_text(), (out / "evaluation.json").read_text()
    (out / "evaluation.json").unlink()  # as if killed while it evaluated
    assert run(["train", str(out), "--resume"]) == 0
    assert (out / "metrics.jsonl").read_text() == whole
    assert (out / "evaluation.json").read_text() == evaluation
    assert capsys.readouterr().out.count("success is 70%") == 2


def test_the_last_state_is_evaluated_once(short, tmp_path, monkeypatch):
    calls, evaluate = [], training_run.evaluate
    monkeypatch.setattr(training_run, "evaluate", lambda *a, **k: calls.append(1) or evaluate(*a, **k))
    assert run(["train", str(short), "--out", str(tmp_path / "run"), "--until-success", "0"]) == 0
    assert len(calls) == 2  # after 40 and 80 steps


def test_a_state_that_is_on_the_device_already_counts_once(tiny_recipe, tmp_path, monkeypatch):
    """There is room for what training takes, and while a checkpoint is restored for nothing more."""
    loop = make_loop(tiny_recipe)
    loop.compile()
    needed = int(loop.device_bytes() / (1 - devices.KEEP_FREE)) + 1000
    state = devices.tree_bytes(loop.abstract)
    restored, restore = [], checkpoint.restore
    monkeypatch.setattr(checkpoint, "restore", lambda *given: restored.append(1) or restore(*given))
    monkeypatch.setattr(devices, "available_bytes", lambda: needed - state * len(restored))
    out = tmp_path / "run"
    training_run.train(tiny_recipe, out)
    training_run.train(tiny_recipe, out, resume=True)
    assert restored
    monkeypatch.setattr(devices, "available_bytes", lambda: 1)
    with pytest.raises(UserError, match="needs 5 B, but only 4 B"):
        devices.require_fits(5, "it", "lower it", held=4)


@pytest.mark.long
def test_an_experiment_may_move_and_be_named_from_elsewhere(tiny_recipe, tmp_path, monkeypatch, capsys):
    """A variant's checkpoint knows the run it took modules from by the path of its day."""
    table = {**to_table(tiny_recipe), "total_env_steps": 80}
    taken = {"agent": ":first", "initial": ["policy.high_level"]}
    table["variants"] = {"first": {}, "second": {"transfer": taken}}
    (tmp_path / "pair.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run(["reproduce", "pair.toml", "--out", "pair"]) == 0
    (tmp_path / "pair" / "second" / "evaluation.json").unlink()
    assert run(["reproduce", "pair.toml", "--out", str(tmp_path / "pair")]) == 0
    shutil.move(tmp_path / "pair", tmp_path / "moved")
    capsys.readouterr()
    assert run(["reproduce", "pair.toml", "--out", "moved"]) == 0
    assert "second: already there" in capsys.readouterr().out


OPTIMIZED = """
import signal, sys
from mjx_hkl.cli.main import run
from mjx_hkl.cli.progress import Display
recipe, whole, parts = sys.argv[1:]
assert run(["train", recipe, "--out", whole]) == 0
with_interval, Display.interval = Display.interval, lambda self, rows: signal.raise_signal(signal.SIGINT)
assert run(["train", recipe, "--out", parts]) == 130
Display.interval = with_interval
assert run(["train", parts, "--resume"]) == 0
"""


@pytest.mark.long
def test_a_resumed_run_ends_bit_for_bit_in_programs_as_users_compile_them(tiny_recipe, tmp_path):
    """Other tests leave LLVM's optimizations out."""
    (tmp_path / "tiny.toml").write_text(tomli_w.dumps(to_table(tiny_recipe)), encoding="utf-8")
    environment = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
    arguments = [tmp_path / name for name in ("tiny.toml", "whole", "parts")]
    command = [sys.executable, "-c", OPTIMIZED, *map(str, arguments)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    whole, parts = (
        json.loads((tmp_path / x / "export" / "agent.json").read_text()) for x in ("whole", "parts")
    )
    assert whole["modules"] == parts["modules"]  # with SHA-256 of their parameters
    times = {"seconds", "environment_steps_per_second", "crc32"}
    ends = [
        [{k: x for k, x in row.items() if k not in times} for row in rows(tmp_path / run)]
        for run in ("whole", "parts")
    ]
    assert ends[0] == ends[1]


def test_reproduce_passes_on_that_code_is_trusted(tiny_recipe, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(reproduce, "train", lambda *given, **how: told.append(how) or _Finished)
    runs = {"one": tiny_recipe}
    assert reproduce.reproduce(runs, tmp_path, Silent(), trust_code=True)
    assert [how["trust_code"] for how in told] == [True]


class _Finished:
    finished = True
