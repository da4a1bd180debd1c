"""The commands on real, small input: train, stop, resume, evaluate, export, inspect, list, bench."""

import dataclasses
import json
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import build, training_run, transfer
from mjx_hkl.experiments.agent_format import read_agent
from mjx_hkl.experiments.copies import Copies
from mjx_hkl.experiments.recipe import load_recipe, recipe_to_toml
from mjx_hkl.experiments.reporter import Silent, announce
from mjx_hkl.experiments.run_directory import RunDirectory

COMMON = (
    "environment_steps",
    "learner_steps",
    "seconds",
    "environment_steps_per_second",
    "kl_high",
    "kl_low",
)


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def session_starts(folder):
    """Steps from which each file of events, oldest first, replaces those before it."""
    starts = []
    for file in sorted(folder.glob("events.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):  # a TFRecord: length, its checksum, data, its checksum
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            if event.HasField("session_log"):
                starts.append(event.step)
    return starts


def test_a_run_leaves_what_it_promises(finished, tiny_recipe):
    found = rows(finished)
    assert [row["environment_steps"] for row in found] == [40, 80, 120, 160]
    assert found[-1]["learner_steps"] == 200
    for name in (*COMMON, "episode_return", "success_rate", "critic_loss", "policy_loss", "faults"):
        assert name in found[-1]
    assert list((finished / "tensorboard").glob("events.*"))
    assert (finished / "checkpoints" / "160").is_dir()
    evaluation = json.loads((finished / "evaluation.json").read_text())
    assert evaluation[0]["episodes"] == tiny_recipe.evaluation_episodes
    assert evaluation[0]["deterministic"]


def test_a_run_of_a_world_of_ours_has_no_files_of_a_user(finished, tiny_recipe):
    names = {
        "recipe.toml",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "evaluation.json",
        "machines.json",
        "report.html",
        "export",
        ".lock",
    }
    assert {path.name for path in finished.iterdir()} == names
    assert {path.name for path in (finished / "export").iterdir()} == {
        "agent.json",
        "README.md",
        "parameters",
    }
    assert (finished / "recipe.toml").read_text() == recipe_to_toml(tiny_recipe)
    card = json.loads((finished / "export" / "agent.json").read_text())
    assert card["recipe"] == to_table(tiny_recipe)


def test_mean_policies_are_evaluated_on_a_schedule_that_changes_nothing_else(finished, recipe_file, tmp_path):
    """Every 60 steps, at the end of log intervals of 40; the last one is that of the end."""
    out = tmp_path / "watched"
    assert run(["train", str(recipe_file), "--out", str(out), "--evaluation-interval", "60"]) == 0
    found = rows(out)
    assert [row["evaluation_success_rate"] is None for row in found] == [True, False, False, False]
    (evaluation,) = json.loads((out / "evaluation.json").read_text())
    assert found[-1]["evaluation_return"] == evaluation["episode_return"]
    for row, other in zip(found, rows(finished), strict=True):
        assert row["critic_loss"] == other["critic_loss"]
    scores = [(row["evaluation_success_rate"], row["evaluation_return"]) for row in found[1:]]
    bests = [(row["evaluation_best_success_rate"], row["evaluation_best_return"]) for row in found[1:]]
    assert bests == [max(scores[: i + 1]) for i in range(3)]
    kept = json.loads((out / "best" / "agent.json").read_text())["evaluation"]
    assert (kept["success_rate"], kept["episode_return"]) == max(scores)
    assert RunDirectory(out).best_scores(120) == {0: bests[1]}  # what a resume from there begins with


def test_the_written_recipe_repeats_the_run(finished, tmp_path):
    assert run(["train", str(finished / "recipe.toml"), "--out", str(tmp_path / "again")]) == 0
    skip = {"seconds", "environment_steps_per_second", "crc32"}
    for a, b in zip(rows(finished), rows(tmp_path / "again"), strict=True):
        assert {k: v for k, v in a.items() if k not in skip} == {k: v for k, v in b.items() if k not in skip}


def test_one_process_at_a_time_trains_in_a_folder(finished, recipe_file, tmp_path, capsys):
    with RunDirectory(finished).held():
        assert run(["train", str(finished), "--resume"]) == 2
    assert f"another process is training in {finished}" in capsys.readouterr().err
    with RunDirectory(tmp_path / "new").held():  # began while the other compiled
        assert run(["train", str(recipe_file), "--out", str(tmp_path / "new")]) == 2
    assert "another process is training" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "new").iterdir()] == [".lock"]


def test_a_run_that_goes_on_is_no_longer_evaluated(finished, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(finished, longer)
    RunDirectory(longer).begin(load_recipe(str(longer)), Copies.of(()))
    assert not (longer / "evaluation.json").exists()
    with pytest.raises(UserError, match="has not ended"):
        transfer._folders(str(longer))


def test_a_run_says_when_nothing_will_be_learned(recipe_file, tmp_path, capsys):
    options = ["--total-env-steps", "40"]
    assert run(["train", str(recipe_file), "--out", str(tmp_path / "short"), *options]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "nothing will be learned: the first update comes after 80 environment steps" in shown


@pytest.mark.parametrize(("ratio", "said"), [(2.0, "ratio 2,"), (2.2, "ratio 2 (the nearest to 2.2),")])
def test_a_run_says_its_replay_ratio_of_whole_updates(tiny_recipe, ratio, said):
    algorithm = dataclasses.replace(tiny_recipe.algorithm, replay_ratio=ratio)
    recipe, lines = dataclasses.replace(tiny_recipe, algorithm=algorithm), []

    class Listening(Silent):
        def say(self, text):
            lines.append(text)

    announce(recipe, build.make_loop(recipe), Listening())
    assert said in lines[0]


def test_a_finished_run_goes_on_when_given_more_steps(recipe_file, tmp_path):
    """As if it had been given them at once, where the learning rates stay: a decay is a share of the run."""
    out, whole = tmp_path / "run", tmp_path / "whole"
    constant = ["--algorithm.learning-rate-decay", "0"]
    assert run(["train", str(recipe_file), "--out", str(whole), *constant]) == 0
    assert run(["train", str(recipe_file), "--out", str(out), "--total-env-steps", "80", *constant]) == 0
    assert run(["train", str(out), "--resume", "--total-env-steps", "160"]) == 0
    assert session_starts(out / "tensorboard") == [1, 81]
    skip = {"seconds", "environment_steps_per_second", "crc32"}
    for a, b in zip(rows(whole), rows(out), strict=True):
        assert {k: v for k, v in a.items() if k not in skip} == {k: v for k, v in b.items() if k not in skip}


def test_resume_refuses_another_recipe_and_a_second_run_the_same_folder(finished, capsys):
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    assert run(["train", str(finished), "--resume", "--algorithm.kl-cost", "0.5"]) == 2
    assert "algorithm.kl_cost is 0.001 there and 0.5 here" in capsys.readouterr().err
    assert run(["train", str(finished), "--out", str(finished)]) == 2
    assert "already holds a run; continue it with: mjx-hkl train" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("given", ["", "recipe.toml"])
def test_a_run_is_not_begun_anew_by_accident(finished, given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert run(["train", str(finished / given)]) == 2
    assert f"error: {finished} is a run: continue it with --resume, or give" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("minutes", "saves"), [("1e-9", [40, 80, 120, 160]), ("0", [160]), ("5", [160])])
def test_checkpoints_are_written_by_time_too(recipe_file, tmp_path, monkeypatch, minutes, saves):
    found = []
    monkeypatch.setattr(training_run.checkpoint, "save", lambda *given: found.append(given[2]))
    options = ["--checkpoint-minutes", minutes]
    assert run(["train", str(recipe_file), "--out", str(tmp_path / "run"), *options]) == 0
    assert found == saves


def test_a_run_builds_its_world_once(recipe_file, tmp_path, monkeypatch):
    made, make = [], build.make_world
    monkeypatch.setattr(build, "make_world", lambda *given: made.append(given) or make(*given))
    assert run(["train", str(recipe_file), "--out", str(tmp_path / "run")]) == 0
    assert len(made) == 1


def test_a_damaged_checkpoint_is_told_before_anything_is_compiled(finished, tmp_path, monkeypatch, capsys):
    shutil.copytree(finished, tmp_path / "run")
    # Which of these files the checkpoint's index refers to depends on when each was written: all of them.
    for data in (tmp_path / "run" / "checkpoints" / "160" / "state").glob("ocdbt.process_*/d/*"):
        data.write_bytes(data.read_bytes()[:100])
    monkeypatch.setattr(training_run.Loop, "compile", lambda self: pytest.fail("compiled"))
    assert run(["train", str(tmp_path / "run"), "--resume", "--total-env-steps", "200"]) == 2
    assert "is incomplete or damaged" in capsys.readouterr().err


def test_diverged_learning_is_told_and_not_saved(recipe_file, tmp_path, capsys):
    out = tmp_path / "run"
    absurd = ["--algorithm.policy-learning-rate", "1e30", "--algorithm.critic-learning-rate", "1e30"]
    assert run(["train", str(recipe_file), "--out", str(out), *absurd]) == 2
    assert "learning diverged: " in capsys.readouterr().err
    assert not (out / "checkpoints").exists()
    assert all(json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
    assert "NaN" not in (out / "metrics.jsonl").read_text()
    diverged = [row["diverged"] for row in rows(out)]
    assert (diverged[0], diverged[-1]) == (False, True)  # learning begins with the second row


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_saves_says_how_to_go_on_and_goes_on(number, recipe_file, tmp_path):
    out = tmp_path / "run"
    arguments = ["train", str(recipe_file), "--out", str(out), "--total-env-steps", "4000000"]
    code = f"from mjx_hkl.cli.main import run; raise SystemExit(run({arguments!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 240
    while not (out / "metrics.jsonl").exists() or not (out / "metrics.jsonl").read_text():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors  # what follows it in a script must not begin
    assert "Traceback" not in errors
    assert f"go on with: mjx-hkl train {out} --resume" in shown
    stopped = rows(out)[-1]["environment_steps"]
    assert [path.name for path in (out / "checkpoints").iterdir()] == [str(stopped)]
    assert run(["train", str(out), "--resume", "--total-env-steps", str(stopped + 40)]) == 0
    assert [row["environment_steps"] for row in rows(out)] == list(range(40, stopped + 41, 40))


def test_several_seeds_have_their_own_metrics_exports_and_evaluations(recipe_file, tmp_path):
    out = tmp_path / "run"
    assert run(["train", str(recipe_file), "--out", str(out), "--num-seeds", "2"]) == 0
    found = rows(out)
    assert [row["seed"] for row in found] == [0, 1] * 4
    assert found[-1]["critic_loss"] != found[-2]["critic_loss"]
    assert len(json.loads((out / "evaluation.json").read_text())) == 2
    first, second = (read_agent(out / "export" / f"seed_{i}").agent for i in range(2))
    kernels = [agent.critic.members[0].value.kernel[...] for agent in (first, second)]
    assert (kernels[0] != kernels[1]).any()
    assert sorted(p.name for p in (out / "tensorboard").iterdir()) == ["seed_0", "seed_1"]


def test_everything_written_is_inside_the_run(finished):
    assert not [path for path in Path(finished).parent.iterdir() if path != finished]
