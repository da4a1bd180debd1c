"""A run that learns easier stages first."""

import json
import signal

import jax
import numpy as np
import pytest
import tomli_w

from mjx_hkl.analysis import curves
from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.experiments import training_run
from mjx_hkl.experiments.agents import load_agent
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.training.loop import Loop

NEAR = "ball-go-to-near-target"


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path):
    """Two stages before the world itself; the files that they name lie beside the recipe."""
    (tmp_path / "narrow.toml").write_text(f'extends = "{NEAR}"\nepisode_length = 10')
    table = to_table(tiny_recipe)
    table["ladder"] = [
        {"environment": "narrow.toml", "total_env_steps": 80, "algorithm": {"discount": 0.9}},
        {"environment": NEAR, "total_env_steps": 120},
    ]
    path = tmp_path / "recipe.toml"
    path.write_text(tomli_w.dumps(table), encoding="utf-8")
    return path


def parameters(folder):
    return [np.asarray(x) for x in jax.tree.leaves(load_agent(str(folder)).agent)]


def rows(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.long
def test_each_stage_begins_with_all_of_the_one_before(recipe_file, tmp_path, monkeypatch, capsys):
    begun, intervals = [], Loop.intervals

    def watched(self, state):
        begun.append(state)
        return intervals(self, jax.tree.map(lambda x: x.copy(), state))

    monkeypatch.setattr(Loop, "intervals", watched)
    out = tmp_path / "run"
    stages = [out / "ladder" / "1", out / "ladder" / "2"]
    assert run(["train", str(recipe_file), "--out", str(out)]) == 0
    assert [len(rows(folder)) for folder in (*stages, out)] == [2, 3, 4]
    assert load_recipe(str(stages[0])).algorithm.discount == 0.9
    assert load_recipe(str(out)).algorithm.discount == 0.99
    for state, before in zip(begun[1:], stages, strict=True):
        ends = parameters(before / "export")
        for started, ended in zip(jax.tree.leaves(state.learner.agent), ends, strict=True):
            np.testing.assert_array_equal(started[0], ended)
    (seed,) = curves.read_curves([out], "critic_loss", smooth=1)["tiny"]
    assert list(seed.axes["environment_steps"]) == [280, 320, 360]  # after 200 in the ladder
    seconds = sum(rows(folder)[-1]["seconds"] for folder in (*stages, out))
    assert seed.axes["seconds"][-1] == pytest.approx(seconds)


@pytest.mark.long
def test_a_ladder_goes_on_where_it_was_stopped(recipe_file, tmp_path, monkeypatch, capsys):
    out, stopped = tmp_path / "run", []

    def stop_once(self, rows):
        if not stopped and rows[0]["environment_steps"] == 40 and (out / "ladder" / "2").is_dir():
            stopped.append(True)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("mjx_hkl.cli.progress.Display.interval", stop_once)
    assert run(["train", str(recipe_file), "--out", str(out)]) == 130
    assert f"go on with: mjx-hkl train {out} --resume" in capsys.readouterr().out
    assert not (out / "metrics.jsonl").exists()
    first = (out / "ladder" / "1" / "evaluation.json").stat().st_mtime_ns
    assert run(["train", str(out), "--resume"]) == 0
    assert (out / "ladder" / "1" / "evaluation.json").stat().st_mtime_ns == first
    assert [row["environment_steps"] for row in rows(out / "ladder" / "2")] == [40, 80, 120]
    assert (out / "export" / "agent.json").is_file()


@pytest.mark.long
def test_a_ladder_that_was_stopped_goes_on_in_another_place(recipe_file, tmp_path, monkeypatch):
    out, moved, seen = tmp_path / "run", tmp_path / "moved", []

    def stop_once(self, rows):
        seen.extend(rows)
        if len(seen) == 3:  # the first interval of the second stage
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("mjx_hkl.cli.progress.Display.interval", stop_once)
    assert run(["train", str(recipe_file), "--out", str(out)]) == 130
    (tmp_path / "narrow.toml").unlink()
    out.rename(moved)
    assert run(["train", str(moved), "--resume"]) == 0
    assert [row["environment_steps"] for row in seen] == [40, 80, 40, 80, 120, 40, 80, 120, 160]
    assert (moved / "export" / "agent.json").is_file()


def test_stages_are_checked_before_the_first_one_is_trained(recipe_file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training_run.Loop, "compile", lambda self: pytest.fail("compiled"))
    for change, expected in (
        (
            {"environment": "ant-go-to-near-target"},
            "policy.high_level does not fit the other agent's policy.high_level: body is ant",
        ),
        ({"environment": "nowhere"}, "unknown environment 'nowhere'"),
        ({"policy": {"high_level": {"latent_size": 3}}}, "latent size is 3 there and 2 here"),
        ({"total_env_step": 3}, "ladder: stage 1: unknown field 'total_env_step'"),
    ):
        table = {**to_table(load_recipe(str(recipe_file))), "ladder": [change]}
        recipe_file.write_text(tomli_w.dumps(table), encoding="utf-8")
        assert run(["train", str(recipe_file), "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert expected in error
        assert error.count("\n") == 1
        assert not (tmp_path / "run").exists()


def test_no_stage_but_the_first_releases_a_module(recipe_file, tmp_path, capsys):
    taken = {"agent": "there", "released": ["policy.low_level"], "release_after": 40}
    table = {**to_table(load_recipe(str(recipe_file))), "transfer": taken}
    recipe_file.write_text(tomli_w.dumps(table), encoding="utf-8")
    assert run(["train", str(recipe_file), "--out", str(tmp_path / "run")]) == 2
    assert "transfer.released: only the first stage of a ladder takes modules" in capsys.readouterr().err


def test_no_stage_but_the_first_takes_modules_from_elsewhere(recipe_file, tmp_path, capsys):
    table = to_table(load_recipe(str(recipe_file)))
    table["ladder"][1]["transfer"] = {"agent": "there", "frozen": ["policy.low_level"]}
    recipe_file.write_text(tomli_w.dumps(table), encoding="utf-8")
    assert run(["train", str(recipe_file), "--out", str(tmp_path / "run")]) == 2
    told = "ladder: stage 2 takes all modules from the stage before, and none from there"
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_training_ends_with_success(tiny_recipe, tmp_path, monkeypatch, capsys):
    """In the second of two seeds it comes one interval later."""
    table = {**to_table(tiny_recipe), "num_seeds": 2, "until_success": 0.7, "evaluation_interval": 40}
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(table), encoding="utf-8")
    successes = iter([(0.8, 0.1), (0.8, 0.7), (0.9, 0.9)])
    made = Loop._rows

    def told(self, *given):
        return [row | {"success_rate": x} for row, x in zip(made(self, *given), next(successes), strict=True)]

    monkeypatch.setattr(Loop, "_rows", told)
    out = tmp_path / "run"
    assert run(["train", str(tmp_path / "recipe.toml"), "--out", str(out)]) == 0
    assert {row["environment_steps"] for row in rows(out)} == {40, 80}
    assert "success is 70%" in capsys.readouterr().out
    assert len(json.loads((out / "evaluation.json").read_text())) == 2
