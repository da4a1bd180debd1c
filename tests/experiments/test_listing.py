"""`mjx-hkl list` and `mjx-hkl bench` tell what there is, and how fast it is."""

import json

import pytest

from mjx_hkl.cli.main import run


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
