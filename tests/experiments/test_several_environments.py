"""One agent in several environments, from the command line: two grids at once, then a third."""

import json
import shutil
import warnings

import jax
import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.experiments import training_run
from mjx_hkl.experiments.agent_format import module_parameters, read_agent
from mjx_hkl.experiments.build import make_loop, resolve, world_of
from mjx_hkl.experiments.ladder import require_alike
from mjx_hkl.experiments.recipe import Recipe, change, load_recipe, recipe_from_table
from mjx_hkl.experiments.saves_and_stops import have_succeeded
from mjx_hkl.models.encoders import NormalizedFields
from mjx_hkl.training.metrics import Row

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
    skip = ("seconds", "environment_steps_per_second", "crc32")
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in row.items() if name not in skip} for row in found]


@pytest.mark.long
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


@pytest.mark.long
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
        (
            {"environment": ["easy/dog.toml", "hard/dog.toml"]},
            "easy/dog.toml and hard/dog.toml are both called dog: give one file another name",
        ),
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


ONE, TWO = "grid-1-step", ["grid-1-step", "grid-2-step"]
UNTOLD = {"high_level": ["coordinates"], "critic": ["coordinates", "proprioception"]}
SAY = r"say information\.high_level and information\.critic, without 'task'"


@pytest.mark.parametrize(
    ("ends", "stage", "expected"),
    [
        (ONE, TWO, "stage 1 has several environments, the recipe itself one"),
        (TWO, ONE, "stage 1 has one environment, the recipe itself several"),
    ],
)
def test_a_ladder_of_one_and_of_several_says_who_sees_what(ends, stage, expected, tmp_path):
    recipe = change(Recipe(ONE), environment=ends, ladder=[{"environment": stage}])
    with pytest.raises(UserError, match=f"ladder: {expected}.*{SAY}"):
        training_run.train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=SAY):
        require_alike(change(recipe, information={**UNTOLD, "high_level": ["coordinates", "task"]}))
    require_alike(change(recipe, information=UNTOLD))
    require_alike(change(recipe, ladder=[{"environment": ends}]))


@pytest.fixture(scope="module")
def with_theirs():
    """One world of our own and one of Brax, both of two actions, for two devices."""
    recipe = Recipe(("ball-go-to-target", "brax:reacher"), num_devices=2)
    with warnings.catch_warnings(action="ignore"):  # Brax's
        return recipe, world_of(recipe)


def test_ours_among_theirs_take_an_engine_that_devices_share(with_theirs):
    _, world = with_theirs
    assert not world.not_shared
    assert world.backend.startswith("mjx, ")


def test_groups_are_normalized_by_default_where_all_are_others(with_theirs):
    recipe, world = with_theirs
    assert resolve(recipe, world).encoders == {}
    theirs = Recipe(("brax:fast", "brax:fast episode_length=500"), num_devices=1)
    assert resolve(theirs, world_of(theirs)).encoders == {"observation": NormalizedFields()}


def test_low_levels_that_share_no_group_are_told_apart(with_theirs):
    recipe, world = with_theirs
    expected = (
        r"no group is the low level's in all environments.*ball-go-to-target: proprioception \d+;"
        r" brax:reacher: observation \d+\): say what it sees, --information\.low-level GROUP"
    )
    with pytest.raises(UserError, match=expected):
        make_loop(resolve(recipe, world), world)


def test_training_ends_with_success_in_each_that_tells_of_it():
    row: Row = {"success_rate": 0.9, "success_rate/a": 1.0, "success_rate/b": 0.6}
    assert have_succeeded([row], 0.6)
    assert not have_succeeded([row], 0.7)
    assert not have_succeeded([row, row | {"success_rate/b": None}], 0.6)
    assert not have_succeeded([row], 0.0)


def test_a_kl_field_is_of_one_grid(trained, tmp_path, capsys):
    assert run(["plot-kl-field", str(trained), "--out", str(tmp_path / "field.png")]) == 2
    assert "is an agent of several environments; a field is of" in capsys.readouterr().err
