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

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboardX.proto.event_pb2 import Event

from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.environments import load_environment
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import build, training_run, transfer
from mjx_hkl.experiments.agent_format import read_agent, read_card
from mjx_hkl.experiments.agents import load_agent
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


@pytest.fixture(scope="module")
def recipe_file(tiny_recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(recipe_to_toml(tiny_recipe))
    return path


@pytest.fixture(scope="module")
def finished(recipe_file, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run(["train", str(recipe_file), "--out", str(out)]) == 0
    return out


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


def test_an_export_loads_without_the_run(finished, tmp_path):
    moved = tmp_path / "agent"
    (finished / "export").rename(moved)
    try:
        exported, card = read_agent(moved), read_card(moved)
        trained = load_agent(str(finished))
    finally:
        moved.rename(finished / "export")
    for a, b in zip(jax.tree.leaves(exported.agent), jax.tree.leaves(trained.agent), strict=True):
        np.testing.assert_array_equal(a, b)
    assert exported.recipe == trained.recipe
    assert exported.world == trained.world
    assert card.evaluation.episodes == 4


def test_an_export_is_plain_orbax(finished):
    with ocp.StandardCheckpointer() as checkpointer:
        modules = checkpointer.restore((finished / "export" / "parameters").absolute())
    assert modules.keys() == {"policy.high_level", "policy.low_level", "critic"}
    assert modules["policy.high_level"]["head"]["linear"]["kernel"].shape == (8, 4)
    about = json.loads((finished / "export" / "agent.json").read_text())
    world, modules = about["world"], about["modules"]
    sizes = {"instruction": 3, "proprioception": 14, "targets": 6}
    assert world["observation"] == {name: {"shape": [n], "dtype": "float32"} for name, n in sizes.items()}
    assert world["action_size"] == 2
    assert world["environment"]["task"]["num_targets"] == 3
    assert modules["policy.low_level"]["sees"] == ["proprioception", "latent"]
    assert modules["default_policy.low_level"]["stands_for"] == "policy.low_level"
    bound = {name for name, module in modules.items() if module["bound_to_body"]}
    assert bound == {"policy.low_level", "critic"}
    high_level = (23 * 8 + 8) + (8 * 4 + 4)  # 23 inputs, 8 units, mean and scale of 2 latents
    assert modules["policy.high_level"]["parameters"] == high_level
    assert {"jax", "flax", "mujoco", "mujoco-mjx"} <= about["versions"].keys()
    card = (finished / "export" / "README.md").read_text()
    assert "ball-go-to-target" in card
    assert "see agent.json" in card  # no recipe is called tiny
    assert f"success {about['evaluation']['success_rate']:.1%}" in card


def test_a_damaged_export_is_refused(finished, tmp_path):
    assert run(["export", str(finished), str(tmp_path / "agent"), "--episodes", "4"]) == 0
    files = [p for p in (tmp_path / "agent").rglob("*") if p.is_file() and p.name != "agent.json"]
    data = max(files, key=lambda p: p.stat().st_size)  # of parameters
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(UserError, match="incomplete or damaged"):
        read_agent(tmp_path / "agent")


def test_an_export_with_a_changed_number_is_refused(finished, tmp_path):
    """As after a bit has turned on a disk, of which Orbax does not always tell."""
    shutil.copytree(finished / "export", tmp_path / "agent")
    parameters = (tmp_path / "agent" / "parameters").absolute()
    with ocp.StandardCheckpointer() as checkpointer:
        modules = checkpointer.restore(parameters)
        modules["policy.low_level"]["head"]["linear"]["kernel"][0, 0] += 1e-3
        checkpointer.save(parameters, modules, force=True)
    with pytest.raises(UserError, match=r"is damaged: policy\.low_level has changed"):
        read_agent(tmp_path / "agent")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"world": 3}, "agent.json: world: input should be a table, not 3"),
        ({"world": {"observation": {"targets": "x"}}}, "world.observation.targets: input should be a table"),
        ({"world": {"observation": {"targets": {"shape": [6], "dtype": "x"}}}}, "'x' is no type of numbers"),
        (
            {"world": {"observation": {"targets": {"shape": [6]}}}},
            "json: information.high_level: unknown observation",
        ),
        ({"world": {"action_size": "two"}}, "world.action_size: input should be a valid integer, not 'two'"),
        (
            {"recipe": {"algorithm": {"updates_per_unroll": 32, "batch_size": 64}}},
            "agent.json: recipe: algorithm.updates_per_unroll is gone; say algorithm.replay_ratio",
        ),
        ({"modules": {"critic": 3}}, "agent.json: modules.critic: input should be"),
        ({"format_version": 1}, "has format version 1; this mjx-hkl 0.1.0 reads 2: export the agent again"),
    ],
)
def test_an_export_that_says_something_wrong_is_refused(finished, tmp_path, change, expected):
    shutil.copytree(finished / "export", tmp_path / "agent")
    about = json.loads((tmp_path / "agent" / "agent.json").read_text())
    for name, value in change.items():
        inner = name == "world" and isinstance(value, dict)
        about[name] = {**about[name], **value} if inner else value
    (tmp_path / "agent" / "agent.json").write_text(json.dumps(about))
    with pytest.raises(UserError) as told:
        read_agent(tmp_path / "agent")
    assert expected in str(told.value)


def test_an_export_without_parameters_is_refused(finished, tmp_path):
    shutil.copytree(finished / "export", tmp_path / "agent")
    shutil.rmtree(tmp_path / "agent" / "parameters")
    with pytest.raises(UserError, match="incomplete or damaged"):
        read_agent(tmp_path / "agent")


def test_evaluate_is_one_json_object_and_agrees_with_the_run(finished, capfd):
    assert run(["evaluate", str(finished), "--episodes", "4", "--json"]) == 0
    of_run = json.loads(capfd.readouterr().out)
    assert run(["evaluate", str(finished / "export"), "--episodes", "4", "--json"]) == 0
    of_export = json.loads(capfd.readouterr().out)
    assert of_run.pop("agent") != of_export.pop("agent")
    assert of_run == of_export == json.loads((finished / "evaluation.json").read_text())[0]


@pytest.mark.parametrize("part", ["", "export"])
def test_an_agent_is_not_evaluated_in_a_world_that_has_changed(finished, part, capsys, monkeypatch):
    changed = dataclasses.replace(load_environment("ball-go-to-target"), episode_length=300)
    monkeypatch.setattr("mjx_hkl.environments.load_environment", lambda name: changed)
    assert run(["evaluate", str(finished / part), "--episodes", "4"]) == 2
    assert "episode_length is 400 there and 300 here" in capsys.readouterr().err


def test_inspect_tells_of_runs_and_exports(finished, capsys):
    assert run(["inspect", str(finished), "--json"]) == 0
    about_run = json.loads(capsys.readouterr().out)
    assert about_run["checkpoint_environment_steps"] == 160
    assert run(["inspect", str(finished / "export"), "--json"]) == 0
    about_agent = json.loads(capsys.readouterr().out)
    assert about_agent["recipe"]["name"] == "tiny"
    counts = {name: module["parameters"] for name, module in about_agent["modules"].items()}
    assert {name: module["parameters"] for name, module in about_run["modules"].items()} == {
        name: count for name, count in counts.items() if count
    }
    assert run(["inspect", str(finished / "export")]) == 0
    assert "sees: proprioception, latent" in capsys.readouterr().out


def test_inspect_tells_of_a_run_without_a_checkpoint(finished, tmp_path, capsys):
    lacking = shutil.ignore_patterns("checkpoints", "evaluation.json")
    shutil.copytree(finished, tmp_path / "run", ignore=lacking)
    assert run(["inspect", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["checkpoint_environment_steps"], found["finished"]) == (None, False)
    assert (found["total_env_steps"], found["last_metrics"]["environment_steps"]) == (160, 160)
    assert run(["inspect", str(tmp_path / "run")]) == 0
    assert "checkpoint_environment_steps: none" in capsys.readouterr().out


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
def test_a_run_is_not_begun_anew_by_accident(finished, given, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert run(["train", str(finished / given)]) == 2
    assert f"error: {finished} is a run: continue it with --resume, or give" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    assert not Path("runs").exists()


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


def test_an_agent_is_read_without_the_rest_of_its_checkpoint(finished, monkeypatch):
    """No world is built, and what is not the agent's is not restored."""
    monkeypatch.setattr("mjx_hkl.experiments.build.make_world", lambda *_: pytest.fail("built a world"))
    restored, read = {}, ocp.CheckpointManager.restore

    def restore(self, step, args):
        found = read(self, step, args=args)
        restored.update(found.get("state", {}))
        return found

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    load_agent(str(finished))
    assert restored
    assert all(name.startswith(("learner.agent.", "learner.average.")) for name in restored)


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


def test_list_tells_programs_what_has_a_name(capsys):
    assert run(["list", "envs", "ball-go-to-near", "--json"]) == 0
    (near, *others) = json.loads(capsys.readouterr().out)["envs"]
    assert (near["environment"], near["body"]) == ("ball-go-to-near-target", "ball")
    assert all("ball-go-to-near" in row["environment"] for row in others)
    assert run(["list", "agents", "no such name", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"agents": []}
    assert run(["list", "agents", "no such name"]) == 2
    assert "no agents whose name contains 'no such name'" in capsys.readouterr().err


def test_list_names_what_is_there(capsys):
    assert run(["list"]) == 0
    shown = capsys.readouterr().out
    for name in ("ball-go-to-target", "quadruped-go-to-target", "push_speed 0.5", "isotropic"):
        assert name in shown, shown
    assert run(["list", "envs", "ball-go-to-target"]) == 0
    assert "proprioception 14" in capsys.readouterr().out
    assert run(["list", "agents"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["ball-to-ant"]]
    assert line.strip().split(maxsplit=2)[1:] == ["ant-go-to-near-target", "success 100.0%, return 60.0"]


def test_bench_train_reports_what_it_promises(recipe_file, tmp_path, capfd):
    trace = tmp_path / "trace"
    told = ["--num-seeds", "2", "--profile", str(trace), "--json"]
    assert run(["bench", "train", str(recipe_file), *told]) == 0
    found = json.loads(capfd.readouterr().out)
    for name in (
        "environment_steps_per_second",
        "learner_steps_per_second",
        "simulation_seconds",
        "learning_seconds",
        "compile_seconds",
        "device_bytes",
        "insert_seconds",
        "insert_seconds_at_10x_capacity",
    ):
        assert found[name] > 0
    assert found["2_seeds"]["ratio_to_one_seed"] == pytest.approx(
        found["2_seeds"]["environment_steps_per_second"] / found["environment_steps_per_second"]
    )
    shares = found["profile"]
    assert sum(shares.values()) == pytest.approx(1.0)
    assert {"physics", "task", "reset", "replay", "policy_loss", "critic_loss", "optimizer"} < set(shares)
    assert list(trace.rglob("*.xplane.pb"))


def test_bench_env_reports_the_ratio_to_raw_physics(capfd):
    engines = ["mjx", "mujoco"]
    assert run(["bench", "env", "ball-go-to-target", "--engine", *engines, "--num-envs", "4", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert list(found["engines"]) == engines
    for engine in found["engines"].values():
        expected = engine["environment_steps_per_second"] / found["raw_environment_steps_per_second"]
        assert engine["ratio_to_raw"] == pytest.approx(expected)
    assert found["contacts"] == 1  # a sphere on a plane
    assert found["constraint_rows"] == 6  # two for each of three directions of a condim of 4


def test_everything_written_is_inside_the_run(finished):
    assert {path.name for path in finished.iterdir()} == {
        "recipe.toml",
        "metrics.jsonl",
        "tensorboard",
        "checkpoints",
        "export",
        "evaluation.json",
        "machines.json",
        "report.html",
        ".lock",
    }
    assert not [path for path in Path(finished).parent.iterdir() if path != finished]
