"""Runs whose files are damaged: told, nothing lost, and nothing other than what was."""

import json
import shutil

import jax
import numpy as np
import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import training_run
from mjx_hkl.experiments.recipe import change, recipe_to_toml
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.training import checkpoint
from mjx_hkl.training.divergence import Divergence

LONGER = ["--total-env-steps", "200"]
TIMES = ("seconds", "environment_steps_per_second", "crc32")


@pytest.fixture(scope="module")
def recipe_file(tiny_recipe, tmp_path_factory):
    """Of runs of 160 steps, with a checkpoint from 40 steps before."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    constant = {"learning_rate_decay": 0.0}  # which is a share of the run, that is lengthened here
    path.write_text(recipe_to_toml(change(tiny_recipe, checkpoint_interval=40, algorithm=constant)))
    return path


@pytest.fixture
def damaged(finished, tmp_path):
    """A copy of it, whose last checkpoint has lost its arrays."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    empty_arrays(out / "checkpoints" / "160")
    return out


def empty_arrays(checkpoint):
    # Which of these files its index refers to depends on when each was written: all of them.
    for data in (checkpoint / "state").glob("ocdbt.process_*/d/*"):
        data.write_bytes(b"")


def what_it_learned(out):
    """Digests of the agent's modules, and all metrics but times."""
    modules = json.loads((out / "export" / "agent.json").read_text())["modules"]
    lines = (out / "metrics.jsonl").read_text().splitlines()
    rows = [{name: x for name, x in json.loads(line).items() if name not in TIMES} for line in lines]
    return modules, rows


@pytest.mark.long
def test_where_the_last_checkpoint_is_damaged_it_goes_on_from_the_one_before(finished, damaged, capsys):
    whole = damaged.with_name("whole")
    shutil.copytree(finished, whole)
    assert run(["train", str(whole), "--resume", *LONGER]) == 0
    capsys.readouterr()
    assert run(["train", str(damaged), "--resume", *LONGER]) == 0
    told = capsys.readouterr().out
    assert "160 is incomplete or damaged" in told
    assert "left untouched but for its name, now 160.damaged" in told
    assert "going on from 120 environment steps" in told
    assert sorted(path.name for path in (damaged / "checkpoints").iterdir()) == ["160", "160.damaged", "200"]
    assert what_it_learned(damaged) == what_it_learned(whole)


def test_where_all_checkpoints_are_damaged_nothing_is_compiled_or_changed(damaged, monkeypatch, capsys):
    empty_arrays(damaged / "checkpoints" / "120")
    before = {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file()}
    monkeypatch.setattr(training_run.Loop, "compile", lambda self: pytest.fail("compiled"))
    assert run(["train", str(damaged), "--resume", *LONGER]) == 2
    error = capsys.readouterr().err
    assert "160 is incomplete or damaged" in error
    assert "120 is incomplete or damaged" in error
    assert len(error.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in damaged.rglob("*") if path.is_file()} == before


def test_an_agent_of_a_damaged_checkpoint_is_refused(damaged, capsys):
    assert run(["evaluate", str(damaged), "--episodes", "4"]) == 2
    assert "160 is incomplete or damaged" in capsys.readouterr().err


def test_a_changed_line_of_metrics_is_told_and_kept_and_the_others_stay(finished, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace('"environment_steps": 80', '"environment_steps": 81')
    (out / "metrics.jsonl").write_text("".join(lines))
    for command in (["inspect", str(out)], ["plot", str(out)]):
        assert run(command) == 2
        assert "metrics.jsonl: line 2 is damaged; --resume leaves that out" in capsys.readouterr().err
    assert run(["train", str(out), "--resume", *LONGER]) == 0
    assert "line 2 is damaged; left as metrics.jsonl.damaged, and left out" in capsys.readouterr().out
    assert (out / "metrics.jsonl.damaged").read_text() == "".join(lines)
    assert [row["environment_steps"] for row in what_it_learned(out)[1]] == [40, 120, 160, 200]


def test_missing_metrics_are_told(finished, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    whole = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(whole[: len(whole) // 2])
    assert run(["train", str(out), "--resume", *LONGER]) == 0
    assert "metrics.jsonl ends after 80 of 160 environment steps" in capsys.readouterr().out


def test_metrics_of_an_older_version_are_read(finished, tmp_path):
    """They have no checksums."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    new = ("crc32", "updates", "skipped_updates")
    old = [{name: x for name, x in row.items() if name not in new} for row in rows]
    (out / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    assert RunDirectory(out).read_metrics() == old


@pytest.mark.parametrize("line", ["[]", "null", '{"environment_steps": "x"}', '{"seed": 0}', "\xff"])
def test_what_is_no_row_is_told(line, finished, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    with (out / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    assert run(["inspect", str(out)]) == 2
    assert "metrics.jsonl: line 5 is damaged" in capsys.readouterr().err


def test_a_checksum_is_not_damaged_away(finished, tmp_path):
    """A bit of its name turned would make the line one of an older version."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    whole = (out / "metrics.jsonl").read_text()
    (out / "metrics.jsonl").write_text(whole.replace('"crc32"', '"crc22"', 1))
    with pytest.raises(UserError, match="line 1 is damaged"):
        RunDirectory(out).read_metrics()


def test_skipped_updates_are_written_for_a_look(recipe_file, tmp_path, capsys):
    out = tmp_path / "run"
    absurd = ["--algorithm.policy-learning-rate", "1e30", "--algorithm.critic-learning-rate", "1e30"]
    assert run(["train", str(recipe_file), "--out", str(out), *absurd, "--debug-divergence"]) == 2
    assert "learning diverged: no update's gradient was finite" in capsys.readouterr().err
    files = list((out / "skipped_updates").glob("update-*.npz"))
    rows = RunDirectory(out).read_metrics()
    assert 0 < len(files) == sum(row["skipped_updates"] for row in rows) <= 10
    with np.load(files[0]) as found:
        assert found["batch.reward"].shape == (5, 4)  # time, windows
        assert found["batch.observation.targets"].shape[:2] == (7, 4)
        assert np.isfinite(found["agent.policy.low_level.head.linear.kernel"]).all()


def test_a_seed_that_had_diverged_still_has_after_a_resume():
    told = []
    row = {"seed": 1, "environment_steps": 40, "updates": 5, "skipped_updates": 0, "critic_loss": 1.0}
    divergence = Divergence(told.append, {1})
    rows = divergence.marked([row, {**row, "seed": 2}])
    assert [x["diverged"] for x in rows] == [True, False]
    divergence.tell(rows)
    assert told == []
    divergence.tell([{**row, "seed": 2, "skipped_updates": 3}, row])
    divergence.tell([{**row, "seed": 2, "skipped_updates": 3}, row])
    assert len(told) == 1
    assert "updates were skipped: 3 of seed 2" in told[0]
    with pytest.raises(UserError, match="learning diverged: no update's gradient was finite after 40"):
        divergence.tell(divergence.marked([{**row, "seed": 2, "updates": 0, "skipped_updates": 3}, row]))


def test_a_stage_without_metrics_does_not_hide_the_next(tmp_path):
    """Of a ladder whose first stage has lost its metrics, and whose second has a damaged line."""
    row = {"seed": 0, "environment_steps": 40, "seconds": 3.0}
    for number, text in ((2, json.dumps(row) + "\n[]\n"), (3, json.dumps({**row, "seconds": 4.0}) + "\n")):
        stage = RunDirectory(tmp_path).stage(number)
        stage.path.mkdir(parents=True)
        stage.metrics.write_text(text)
    assert [stage.path.name for stage in RunDirectory(tmp_path).stages] == ["2", "3"]
    assert RunDirectory(tmp_path).seconds_of_ladder == 7.0


@pytest.mark.parametrize(
    ("raised", "told"),
    [("the valve is stuck", "the valve is stuck"), ("RESOURCE_EXHAUSTED: Out of memory", "lower num_envs")],
)
def test_a_program_that_fails_while_it_runs_is_one_line_and_the_checkpoints_stay(
    raised, told, finished, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    shutil.copytree(finished, out)

    class Program:
        def memory_analysis(self):
            return None

        def __call__(self, state):
            raise jax.errors.JaxRuntimeError(raised)

    with monkeypatch.context() as patched:
        patched.setattr(training_run.Loop, "program", Program())
        assert run(["train", str(out), "--resume", *LONGER]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["120", "160"]


def of_cleaning_up():
    """Orbax's, whose thread does not start: closing it fails too."""
    error = RuntimeError("cannot join thread before it is started")
    error.__context__ = RuntimeError("can't start new thread")
    return error


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (OSError(28, "No space left on device"), "room"),
        (ValueError("RESOURCE_EXHAUSTED: Error writing to file"), "room"),
        (MemoryError(), "memory"),
        (RuntimeError("can't start new thread"), "memory"),
        (of_cleaning_up(), "memory"),
    ],
)
def test_what_a_checkpoint_has_no_place_for_is_one_line(error, missing):
    with pytest.raises(UserError, match=f"^no {missing} for a checkpoint; what was there before"):  # noqa: SIM117
        with checkpoint.writing("a checkpoint"):
            raise error


@pytest.mark.parametrize(
    "error", [MemoryError("std::bad_alloc"), RuntimeError("can't start new thread"), of_cleaning_up()]
)
def test_a_command_that_gets_no_memory_says_so_in_one_line(error, monkeypatch, capsys):
    def fails(arguments):
        raise error

    monkeypatch.setattr("mjx_hkl.cli.list.main", fails)
    assert run(["list"]) == 2
    assert capsys.readouterr().err == f"error: the machine has no more memory for this: {error}\n"
