"""Exported agents: plain Orbax, whole or refused, evaluated and inspected like the run that they are of."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.environments import load_environment
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import read_agent, read_card
from mjx_hkl.experiments.agents import load_agent


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
