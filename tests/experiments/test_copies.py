"""Runs and agents of a user's own world: moved, given away, edited, damaged."""

import dataclasses
import json
import os
import re
import shutil
from pathlib import Path

import jax
import mujoco
import numpy as np
import pytest
from PIL import Image

import mjx_hkl
from mjx_hkl import user_code
from mjx_hkl.analysis import curves
from mjx_hkl.cli.main import run
from mjx_hkl.config import to_table
from mjx_hkl.experiments import card, copies
from mjx_hkl.experiments.agents import load_agent
from mjx_hkl.training import checkpoint

EXAMPLE = Path(__file__).parents[2] / "docs" / "example"
LOW = "policy.low_level"
RECIPE = """
environment = "worlds/mine.toml"
num_envs = 4
total_env_steps = 80
log_interval = 40
min_replay = 20
replay_capacity = 200
evaluation_episodes = 4
policy = { high_level = { sizes = [8], latent_size = 2 }, low_level = { sizes = [8] } }
default_policy = { high_level = "parts/learned_coefficient.py:LearnedCoefficient" }
critic = { sizes = [8] }
algorithm = { batch_size = 4, replay_ratio = 2.0, unroll_length = 5 }
"""
BASE = """
body = "../bodies/puck.xml"
episode_length = 20
arena = { kind = "area", size = 4.0 }
task = { kind = "../tasks/keep_close.py:KeepClose", reach = 0.5 }
"""
MESH = '<geom type="mesh" mesh="shell" contype="0" conaffinity="0" mass="0"/>'
MOTORS = """<mujoco><actuator>
  <motor name="ahead" site="centre" gear="5 0 0 0 0 0" ctrllimited="true" ctrlrange="-1 1"/>
  <motor name="turn" joint="turn" gear="0.5" ctrllimited="true" ctrlrange="-1 1"/>
</actuator></mujoco>"""
SHELL = "v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
COPIES = {
    "files/bodies/motors.xml",
    "files/bodies/puck.xml",
    "files/meshes/shell.obj",
    "files/parts/learned_coefficient.py",
    "files/tasks/distances.py",
    "files/tasks/keep_close.py",
    "files/worlds/mine.toml",
}


def project(folder):
    """A world of many files, and a prior: what a user's folder may hold."""
    puck = (EXAMPLE / "puck.xml").read_text()
    puck = re.sub("<actuator>.*</actuator>", '<include file="motors.xml"/>', puck, flags=re.DOTALL)
    puck = puck.replace("<site", f"{MESH}<site")
    puck = puck.replace(
        "<worldbody>",
        '<compiler meshdir="../meshes"/><asset><mesh name="shell" file="shell.obj"/></asset><worldbody>',
    )
    task = (EXAMPLE / "keep_close.py").read_text()
    task = task.replace("import dataclasses\n", "import dataclasses\n\nimport distances\n")
    files = {
        "mine.toml": RECIPE,
        "worlds/base.toml": BASE,
        "worlds/mine.toml": 'extends = "base.toml"\n[task]\nreach = 0.7',
        "bodies/puck.xml": puck,
        "bodies/motors.xml": MOTORS,
        "meshes/shell.obj": SHELL,
        "tasks/keep_close.py": task.replace("reach: float = 1.0", "reach: float = distances.FAR"),
        "tasks/distances.py": "FAR = 1.0\n",
        "tasks/unrelated.py": "raise RuntimeError",
        "parts/learned_coefficient.py": (EXAMPLE / "learned_coefficient.py").read_text(),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def train(given, out, *options):
    return run(["train", str(given), "--out", str(out), *map(str, options)])


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The run of a project whose files are gone, where it was."""
    folder = tmp_path_factory.mktemp("origin")
    assert train(project(folder / "project") / "mine.toml", folder / "run") == 0
    (folder / "project").rename(folder / "kept")
    return folder / "run"


@pytest.fixture
def moved(origin, tmp_path):
    """A copy of the run in another place."""
    return Path(shutil.copytree(origin, tmp_path / "elsewhere" / "moved"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A user who has never trained with this code."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "nobody"))
    monkeypatch.setattr(user_code, "_trusted", set())


def evaluation(agent, capsys, *options):
    capsys.readouterr()
    assert run(["evaluate", str(agent), "--episodes", "4", "--json", *options]) == 0
    return json.loads(capsys.readouterr().out) | {"agent": "any"}


def refusal(capsys, *arguments):
    """The one line that a command ends with."""
    capsys.readouterr()
    assert run([str(x) for x in arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def metrics(out):
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k and k != "crc32"} for row in rows]


def test_a_run_and_its_agent_hold_all_that_they_need_and_no_path(origin):
    for folder in (origin, origin / "export"):
        listed = json.loads((folder / "files" / "digests.json").read_text())
        assert set(listed["files"]) == COPIES
        found = {str(path.relative_to(folder)) for path in (folder / "files").rglob("*") if path.is_file()}
        assert found == {*COPIES, "files/digests.json"}
    agent = [p for p in (origin / "export").rglob("*") if p.is_file()]
    about = json.dumps(checkpoint.about(origin / "checkpoints"))
    texts = [(origin / "recipe.toml").read_text(), about, *(p.read_text(errors="ignore") for p in agent)]
    assert not any(str(origin.parent) in text for text in texts)


def test_a_moved_run_evaluates_and_goes_on_bit_for_bit(origin, moved, tmp_path, capsys):
    assert evaluation(origin, capsys) == evaluation(moved, capsys)
    assert run(["train", str(moved), "--resume", "--total-env-steps", "160"]) == 0
    assert train(origin.parent / "kept" / "mine.toml", tmp_path / "straight", "--total-env-steps", "160") == 0
    assert metrics(moved) == metrics(tmp_path / "straight")
    (seeds,) = curves.read_curves([moved, tmp_path / "straight"], "critic_loss", smooth=1).values()
    assert len(seeds) == 1  # of one recipe, and one repeats the other
    assert set(json.loads((moved / "files" / "digests.json").read_text())["files"]) == COPIES


def test_a_moved_run_is_exported_and_trained_anew(moved, tmp_path, capsys):
    assert run(["export", str(moved), str(tmp_path / "agent")]) == 0
    exported = json.loads((tmp_path / "agent" / "files" / "digests.json").read_text())
    assert exported == json.loads((moved / "export" / "files" / "digests.json").read_text())
    assert train(moved / "recipe.toml", tmp_path / "again") == 0
    shutil.rmtree(moved)
    assert metrics(tmp_path / "again")[-1]["environment_steps"] == 80
    assert evaluation(tmp_path / "agent", capsys) == evaluation(tmp_path / "again", capsys)


def test_a_moved_agent_evaluates_and_is_inspected_without_its_run(origin, moved, tmp_path, capsys):
    agent = moved.rename(tmp_path / "run") / "export"
    agent = agent.rename(tmp_path / "agent")
    shutil.rmtree(tmp_path / "run")
    assert evaluation(agent, capsys) == evaluation(origin, capsys)
    assert run(["inspect", str(agent), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"]["environment"] == str(
        agent / "files/worlds/mine.toml"
    )
    known = mjx_hkl.load_agent(str(agent))
    assert mjx_hkl.make_worlds(known.recipe.environment, 2).env.episode_length == 20


@pytest.mark.long
def test_modules_are_taken_from_a_moved_agent(moved, tmp_path, capsys):
    """Its body is the same where its files are, whatever their paths."""
    mine = project(tmp_path / "another" / "place") / "mine.toml"
    options = ["--transfer.agent", moved / "export", "--transfer.frozen", LOW, "--seed", 3]
    assert train(mine, tmp_path / "new", *options) == 0
    old, new = (load_agent(str(x)).agent.policy.low_level for x in (moved / "export", tmp_path / "new"))
    for a, b in zip(*map(jax.tree.leaves, (old, new)), strict=True):
        np.testing.assert_array_equal(a, b)
    motors = mine.parent / "bodies" / "motors.xml"
    motors.write_text(motors.read_text().replace("0.5", "0.6"))
    error = refusal(capsys, "train", mine, "--out", tmp_path / "third", *options)
    assert re.search(r"body is puck.xml \(\w{8}\) there and puck.xml \(\w{8}\) here", error)


@pytest.mark.long
def test_a_file_that_was_edited_is_told_and_the_runs_copy_goes_on(tmp_path, capsys):
    mine = project(tmp_path / "project") / "mine.toml"
    assert train(mine, tmp_path / "run") == 0
    before = evaluation(tmp_path / "run", capsys)
    task, base = mine.parent / "tasks" / "keep_close.py", mine.parent / "worlds" / "base.toml"
    task.write_text("raise RuntimeError('edited')")
    assert run(["evaluate", str(tmp_path / "run"), "--episodes", "4", "--json"]) == 0
    out, error = capsys.readouterr()
    assert json.loads(out) | {"agent": "any"} == before
    told = f"{task} has changed since {tmp_path / 'run'} began: it goes on with its own copy"
    assert error == f"note: {told}\n"
    base.write_text(BASE.replace("4.0", "5.0"))
    assert (
        run(["train", str(mine), "--out", str(tmp_path / "run"), "--resume", "--total-env-steps", "120"]) == 0
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{base}, {task} have changed since" in shown or f"{task}, {base} have changed since" in shown
    assert metrics(tmp_path / "run")[-1]["environment_steps"] == 120


MARK = "\nimport os\nos.environ['IT_RAN'] = 'yes'\n"


@pytest.mark.parametrize("part", ["", "export"])
@pytest.mark.usefixtures("elsewhere")
def test_code_of_somebody_else_runs_where_it_is_trusted(moved, part, capsys):
    given = moved / part
    commands = (["evaluate", given, "--episodes", 4], ["inspect", given])
    for command in commands:
        error = refusal(capsys, *command)
        assert (
            f"files/parts/learned_coefficient.py in {given} is code that you have not trained with" in error
        )
        assert "--trust-code" in error
    with pytest.raises(mjx_hkl.UserError, match="trust_code=True"):
        mjx_hkl.load_agent(str(given))
    for command in commands:
        assert run([*map(str, command), "--trust-code"]) == 0
    assert mjx_hkl.load_agent(str(given), trust_code=True).recipe.num_envs == 4


@pytest.mark.long
@pytest.mark.usefixtures("elsewhere")
def test_every_way_to_foreign_code_asks(moved, tmp_path, capsys):
    mine = EXAMPLE / "puck.toml"
    took = ["--transfer.agent", moved, "--transfer.frozen", LOW, "--out", tmp_path / "new"]
    for command in (
        ["train", moved, "--resume"],
        ["train", moved / "recipe.toml", "--out", tmp_path / "new"],
        ["train", mine, *took],
        ["export", moved, tmp_path / "agent"],
        ["bench", "train", moved],
        ["plot", moved, "--out", tmp_path / "curves.png"],
        ["report", moved, "--out", tmp_path / "report.html"],
        ["render", moved / "export", tmp_path / "episode.mp4"],
        ["watch", moved / "export"],
        ["export", moved / "export", tmp_path / "policy", "--format", "onnx"],
        ["plot-kl-field", moved],
        ["reproduce", moved / "recipe.toml", "--out", tmp_path / "again"],
        ["evaluate", f"random:{moved / 'files' / 'worlds' / 'mine.toml'}"],
    ):
        assert "--trust-code" in refusal(capsys, *command), command
    with pytest.raises(mjx_hkl.UserError, match=r"keep_close\.py in .*moved"):
        mjx_hkl.make_worlds(str(moved / "files" / "worlds" / "mine.toml"), 2)
    assert run(["export", str(moved), str(tmp_path / "agent"), "--episodes", "4", "--trust-code"]) == 0
    assert run(["train", str(moved), "--resume", "--total-env-steps", "120", "--trust-code"]) == 0
    user_code._trusted.clear()
    shutil.copytree(moved, tmp_path / "copy")
    assert evaluation(tmp_path / "copy", capsys)["episodes"] == 4  # it was trained with: known from then on


def test_changed_code_does_not_run_beside_code_that_is_known(moved, capsys, monkeypatch):
    """Also where the list of digests was changed with it."""
    monkeypatch.delenv("IT_RAN", raising=False)
    agent, manifest = moved / "export", moved / "export" / "files" / "digests.json"
    place = "files/tasks/distances.py"
    (agent / place).write_text((agent / place).read_text() + MARK)
    listed = json.loads(manifest.read_text())
    listed["files"][place] = user_code.Source(agent / place, (agent / place).read_bytes()).sha256
    manifest.write_text(json.dumps(listed))
    assert f"{place} in {agent} is code" in refusal(capsys, "evaluate", agent)
    assert "IT_RAN" not in os.environ
    assert run(["evaluate", str(agent), "--episodes", "4", "--trust-code"]) == 0
    assert os.environ.pop("IT_RAN") == "yes"


@pytest.mark.parametrize("option", [[], ["--trust-code"]])
def test_code_outside_of_an_agent_does_not_run(moved, option, capsys, monkeypatch):
    monkeypatch.delenv("IT_RAN", raising=False)
    agent, outside = moved / "export", moved / "outside.py"
    own = "files/parts/learned_coefficient.py"
    outside.write_text((agent / own).read_text() + MARK)
    card = (agent / "agent.json").read_text()
    (agent / "agent.json").write_text(card.replace(own, str(outside)))
    assert "outside.py, which is outside of it" in refusal(capsys, "evaluate", agent, *option)
    assert "IT_RAN" not in os.environ


@pytest.mark.parametrize("part", ["", "export"])
def test_a_world_outside_of_a_run_is_no_way_around(moved, tmp_path, part, capsys, monkeypatch):
    monkeypatch.delenv("IT_RAN", raising=False)
    outside = project(tmp_path / "outside")
    task = outside / "tasks" / "keep_close.py"
    task.write_text(task.read_text() + MARK)
    file = moved / part / ("agent.json" if part else "recipe.toml")
    file.write_text(file.read_text().replace("files/worlds/mine.toml", str(outside / "worlds" / "mine.toml")))
    expected = "mine.toml, which is outside of it" if part else "outside/tasks/keep_close.py in "
    assert expected in refusal(capsys, "evaluate", moved / part)
    assert "IT_RAN" not in os.environ


def test_a_recipe_named_like_a_file_is_not_looked_for_there(tmp_path, tiny_recipe, monkeypatch):
    monkeypatch.delenv("IT_RAN", raising=False)
    (tmp_path / "evil.py").write_text(MARK)
    evil = tmp_path / "evil.toml"
    evil.write_text('environment = "ball-go-to-target"\n[critic]\nkind = "evil.py:Critic"')
    assert not card.is_as_named(dataclasses.replace(tiny_recipe, name=str(evil)))
    assert os.environ.pop("IT_RAN", None) is None


@pytest.mark.parametrize("part", ["", "export"])
@pytest.mark.parametrize("damage", ["changed", "missing", "swapped", "unlisted"])
def test_a_damaged_copy_is_told_in_one_line(moved, part, damage, capsys):
    folder = moved / part
    files, expected = folder / "files", "has changed since it was written"
    if damage == "changed":
        (files / "meshes" / "shell.obj").write_text(SHELL.replace(".1", ".2"))
    elif damage == "missing":
        (files / "bodies" / "motors.xml").unlink()
        expected = "motors.xml is missing"
    elif damage == "swapped":
        a, b = files / "tasks" / "keep_close.py", files / "tasks" / "distances.py"
        text = a.read_text()
        a.write_text(b.read_text())
        b.write_text(text)
    else:
        (files / "digests.json").unlink()
        expected = "in files/digests.json"
    assert expected in refusal(capsys, "evaluate", folder)


@pytest.mark.parametrize("outside", ["/etc/world.toml", "../../world.toml", "files/../../world.toml"])
def test_an_agent_that_names_a_file_elsewhere_is_refused(moved, outside, capsys):
    card = moved / "export" / "agent.json"
    about = json.loads(card.read_text())
    about["recipe"]["environment"] = outside
    card.write_text(json.dumps(about))
    assert "which is outside of it; an agent holds all its files" in refusal(capsys, "evaluate", card.parent)


SCENE = """<mujoco>
  <compiler texturedir="pictures" {}/>
  <include file="parts/ground.xml"/>
  <asset>
    <mesh name="shell" file="shell.obj"/>
    <texture name="wood" type="2d" file="wood.png"/>
    <hfield name="hills" file="hills.png" size="1 1 1 1"/>
    <model name="lamp" file="lamp/lamp.xml"/>
  </asset>
  <worldbody>
    <geom type="mesh" mesh="shell"/>
    <body><attach model="lamp" body="lamp" prefix="a"/></body>
  </worldbody>
</mujoco>"""
GROUND = '<mujoco><worldbody><geom name="ground" type="hfield" hfield="hills"/></worldbody></mujoco>'
LAMP = """<mujoco><asset><mesh name="bulb" file="bulb.obj"/></asset>
<worldbody><body name="lamp"><geom type="mesh" mesh="bulb"/></body></worldbody></mujoco>"""


@pytest.mark.parametrize("meshes", ["../meshes", "absolute"])
def test_all_that_a_body_names_is_copied(tmp_path, meshes):
    """C MuJoCo compiles the copy, and finds includes, meshes, textures, height fields and other models."""
    folder = tmp_path / "project"
    for name in ("bodies/parts", "bodies/pictures", "bodies/lamp", "meshes"):
        (folder / name).mkdir(parents=True)
    scene = folder / "bodies" / "scene.xml"
    meshes = str(folder / "meshes") if meshes == "absolute" else meshes
    scene.write_text(SCENE.format(f'meshdir="{meshes}"'))
    (folder / "bodies" / "parts" / "ground.xml").write_text(GROUND)
    (folder / "bodies" / "lamp" / "lamp.xml").write_text(LAMP)
    for mesh in ("meshes/shell.obj", "bodies/lamp/bulb.obj"):
        (folder / mesh).write_text(SHELL)
    for picture in ("bodies/pictures/wood", "meshes/hills"):
        image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
        image.save(folder / f"{picture}.png")
    (folder / "world.toml").write_text('body = "bodies/scene.xml"')
    before = mujoco.MjModel.from_xml_path(str(scene))
    told = copies.told_body(str(scene))
    placed = copies.Copies.of(copies.user_files({"environment": str(folder / "world.toml")}))
    placed.write(tmp_path / "copy", with_originals=False)
    folder.rename(tmp_path / "gone")
    copy = tmp_path / "copy" / "files" / "bodies" / "scene.xml"
    after = mujoco.MjModel.from_xml_path(str(copy))
    assert (after.nmeshvert, after.ntexdata, after.nhfielddata) == (8, before.ntexdata, 64)
    assert copies.told_body(str(copy)) == told


def test_a_recipe_of_ours_needs_no_files():
    for name in ("ball-go-to-target", "grid-1-step", "ant-go-to-target-ladder"):
        assert copies.user_files(to_table(mjx_hkl.load_recipe(name))) == ()
