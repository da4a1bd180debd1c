"""One agent in several environments, from the command line: two grids at once, then a third."""

import json
import shutil

import jax
import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.agent_format import module_parameters, read_agent
from mjx_hkl.experiments.build import make_loop, resolve
from mjx_hkl.experiments.recipe import change, load_recipe, recipe_from_table

BOTH = """
extends = "grid-1-step"
environment = ["grid-1-step", "worlds/small.toml"]
num_envs = 4
total_env_steps = 320
log_interval = 160
evaluation_interval = 160
evaluation_episodes = 5
information = { high_level = ["coordinates", "task"], low_level = ["proprioception"] }
policy = { high_level = { sizes = [8] }, low_level = { sizes = [8] } }
default_policy = { high_level = "isotropic" }
critic = { sizes = [8] }
algorithm = { batch_size = 4 }
"""
SMALL = 'extends = "grid-1-step"\nsize = 3\nepisode_length = 20\n'  # as long as a window
OTHER = """
extends = "both.toml"
environment = "worlds/other.toml"
information = { high_level = ["coordinates"] }
"""
NAMES = ["grid-1-step", "small"]
LOW = "policy.low_level"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "worlds").mkdir()
    for name, text in (
        ("both", BOTH),
        ("other", OTHER),
        ("worlds/small", SMALL),
        ("worlds/other", 'extends = "grid-1-step"\nsize = 5\n'),
    ):
        (folder / f"{name}.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "both"
    assert run(["train", str(folder / "both.toml"), "--out", str(out)]) == 0
    return out


def rows(out):
    skip = ("seconds", "environment_steps_per_second")
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in row.items() if name not in skip} for row in found]


def test_metrics_and_evaluations_tell_of_each_environment(trained):
    *_, last = rows(trained)
    (evaluation,) = json.loads((trained / "evaluation.json").read_text())
    assert list(evaluation["tasks"]) == NAMES
    assert evaluation["episodes"] == 6  # five are no whole number of each
    for name in NAMES:
        assert last[f"evaluation_return/{name}"] == evaluation["tasks"][name]["episode_return"]
        assert f"success_rate/{name}" in last
    assert last["evaluation_return"] == sum(last[f"evaluation_return/{name}"] for name in NAMES) / 2
    assert last["episode_return/small"] is not None  # its episodes end, however they go


def test_a_moved_run_resumes_as_if_it_had_not_stopped(trained, folder, tmp_path, capsys):
    stopped, moved = tmp_path / "stopped", tmp_path / "elsewhere" / "moved"
    command = ["train", str(folder / "both.toml"), "--out", str(stopped)]
    assert run([*command, "--total-env-steps", "160"]) == 0
    assert run([*command, "--resume", "--environment", "grid-1-step", "grid-2-step"]) == 2
    assert "holds a run of another recipe: " in capsys.readouterr().err
    moved.parent.mkdir()
    shutil.move(stopped, moved)
    assert run(["train", str(moved), "--resume", "--total-env-steps", "320"]) == 0
    assert rows(moved)[-1] == rows(trained)[-1]


def test_an_agent_plays_in_all_or_in_one(trained, tmp_path, capsys):
    out = tmp_path / "agent"
    assert run(["export", str(trained), str(out)]) == 0
    capsys.readouterr()
    assert run(["evaluate", str(out), "--episodes", "4", "--json"]) == 0
    of_all = json.loads(capsys.readouterr().out)
    assert run(["evaluate", str(out), "--episodes", "2", "--environment", "small", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"agent": str(out), **of_all["tasks"]["small"]}
    assert run(["evaluate", str(out), "--environment", "smal"]) == 2
    assert "unknown environment 'smal'; did you mean small?" in capsys.readouterr().err
    assert run(["render", str(out), str(tmp_path / "small.png"), "--environment", "small"]) == 0
    capsys.readouterr()
    assert run(["inspect", str(out), "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["world"]["observation"]["task"]["shape"] == [2]
    assert about["world"]["environment"]["environments"]["small"]["size"] == 3
    assert about["modules"]["policy.high_level"]["sees"][:2] == ["coordinates", "task"]


def test_what_does_not_see_the_task_moves_to_another_environment(trained, folder, tmp_path, capsys):
    taken = ["train", str(folder / "other.toml"), "--transfer.agent", str(trained), "--transfer.frozen"]
    assert run([*taken, "policy.high_level", "--out", str(tmp_path / "no")]) == 2
    assert "input is coordinates, task there and coordinates here" in capsys.readouterr().err
    assert run([*taken, LOW, "--out", str(tmp_path / "other")]) == 0
    before, after = (
        module_parameters(read_agent(out / "export").agent) for out in (trained, tmp_path / "other")
    )
    for a, b in zip(jax.tree.leaves(before[LOW]), jax.tree.leaves(after[LOW]), strict=True):
        assert (a == b).all()


def test_what_a_recipe_of_several_does_not_say():
    """High level and critic see the task, low levels do not; each environment has as many worlds."""
    table = to_table(load_recipe("grid-1-step"))
    names = ["grid-1-step", "grid-2-step", "grid-4-step"]
    recipe = resolve(
        recipe_from_table({**table, "environment": names, "num_envs": None, "information": {}}, "")
    )
    seen = recipe.information
    assert seen.low_level == seen.default == ("proprioception",)
    assert seen.high_level == seen.critic == ("coordinates", "proprioception", "task")
    assert recipe.num_envs is not None
    assert recipe.num_envs % 3 == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"environment": ["grid-1-step"]}, "a list needs several; name a single one without a list"),
        ({"environment": ["grid-1-step", "grid-1-step"]}, "grid-1-step is there twice"),
        ({"environment": 3}, "environment: input should be a name or a list of names, not 3"),
        ({"num_envs": 7}, "num_envs 7 cannot be shared evenly by 2 environments: make it 6"),
        ({"algorithm": {"symmetries": True}}, "symmetries is for a single environment, not for several"),
        ({"algorithm": {"relabelled": 0.5}}, "relabelled is for a single environment, not for several"),
    ],
)
def test_mistakes(changes, expected):
    several = {"environment": ["grid-1-step", "grid-2-step"], "num_envs": 4, **changes}

    def make():
        make_loop(resolve(change(load_recipe("grid-1-step"), **several)))

    with pytest.raises(UserError, match=expected):
        make()
