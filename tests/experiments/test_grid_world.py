"""The grid world from the command line: train, transfer to another body, draw the KL."""

import base64
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mjx_hkl.analysis import kl_field, report
from mjx_hkl.cli import train
from mjx_hkl.cli.main import run
from mjx_hkl.environments import make_world
from mjx_hkl.environments.grid import CellWorld
from mjx_hkl.experiments.agent_format import module_parameters, read_agent

SHORT = (
    *("--num-envs", "4", "--total-env-steps", "160", "--log-interval", "80", "--evaluation-episodes", "4"),
    *("--algorithm.batch-size", "4"),
)
HIGH_LEVEL = ("policy.high_level", "default_policy.high_level")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "grid"
    assert run(["train", "grid-1-step", "--out", str(out), *SHORT]) == 0
    return out


@pytest.mark.long
def test_the_high_level_moves_to_another_body(trained, tmp_path):
    out = tmp_path / "transferred"
    taken = ["--transfer.agent", str(trained), "--transfer.frozen", *HIGH_LEVEL]
    longer = ["--environment", "grid-2-step", "--policy.high-level.latent-period", "2"]
    assert run(["train", "grid-1-step", "--out", str(out), *SHORT, *taken, *longer]) == 0
    before, after = (module_parameters(read_agent(path / "export").agent) for path in (trained, out))
    for name in before:
        pairs = zip(*map(jax.tree.leaves, (before[name], after[name])), strict=True)
        assert all((a == b).all() for a, b in pairs) == (name in HIGH_LEVEL), name


def test_the_low_level_does_not(trained, tmp_path, capsys):
    taken = ["--transfer.agent", str(trained), "--transfer.frozen", "policy.low_level"]
    arguments = ["train", "grid-1-step", "--environment", "grid-2-step", "--out", str(tmp_path / "no")]
    assert run([*arguments, *SHORT, *taken]) == 2
    assert "body is 1-step there and 2-step here" in capsys.readouterr().err


def test_an_export_keeps_what_its_actions_are(trained):
    about = json.loads((trained / "export" / "agent.json").read_text())
    assert about["recipe"]["policy"]["actions"] == "categorical"
    assert about["modules"]["critic"]["sees"] == ["coordinates", "proprioception", "latent"]


def test_the_kl_of_a_move_is_that_of_a_loop(trained):
    """KL after each move of each cell, sample by sample, without vmap over cells."""
    agent, world, goal = read_agent(trained / "export").agent, make_world("grid-1-step"), (2, 5)
    assert isinstance(world, CellWorld)
    field = kl_field.kl_field(agent, world, goal)
    assert np.isnan(field.kl[0, 0]).tolist() == [False, True, True, False]  # walls below and to the left
    assert np.isnan(field.kl[2, 5]).all()  # the episode is over
    assert np.isnan(field.kl[2, 4]).tolist() == [True, False, False, False]  # and this move ends it

    def see(column, row):
        cells = jnp.array([column, row, *goal]) * 2 / 7 - 1
        return {"coordinates": cells, "proprioception": jnp.zeros(2)}

    samples = 20_000
    keys = jax.random.split(jax.random.key(1), 2)
    start, noise = (jax.random.normal(key, (samples, agent.policy.latent_size)) for key in keys)
    many = {name: jnp.broadcast_to(x, (samples, *x.shape)) for name, x in see(6, 1).items()}
    z = agent.policy.high_level(many, start).draw(noise)
    moved = {name: jnp.broadcast_to(x, (samples, *x.shape)) for name, x in see(5, 1).items()}
    total = agent.policy.high_level(moved, z).kl_divergence(agent.default_policy.high_level(z)).mean()
    np.testing.assert_allclose(field.kl[6, 1, 2], total, rtol=0.15)


def test_nearing_the_goal_counts(trained):
    """A field made by hand that is least where a move nears the goal, and one that is most."""
    agent, world = read_agent(trained / "export").agent, make_world("grid-1-step")
    assert isinstance(world, CellWorld)
    field = kl_field.kl_field(agent, world, (4, 4))
    known = ~np.isnan(field.kl)
    towards = np.where(known, np.where(field.nears, 0.0, 1.0), np.nan)
    assert kl_field.KLField((4, 4), towards, field.nears).share_towards_goal == 1.0
    in_corners = 4 / (64 - 5)  # where both moves near the goal; it and its neighbours do not count
    assert kl_field.KLField((4, 4), -towards, field.nears).share_towards_goal == pytest.approx(in_corners)
    assert 0.5 < field.share_by_chance < 0.6


def test_the_field_is_drawn(trained, tmp_path, capsys):
    out = tmp_path / "field.png"
    assert run(["plot-kl-field", str(trained), "--out", str(out), "--goal", "1", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["goal"] == [1, 1]
    assert 0 <= found["towards_goal"] <= 1
    assert out.stat().st_size > 10_000


def test_an_episode_is_drawn(trained, tmp_path):
    """The goal's square is green, and nothing else is."""
    out = tmp_path / "start.png"
    assert run(["render", str(trained), str(out), "--width", "320", "--height", "320"]) == 0
    image = np.asarray(Image.open(out)).astype(int)
    green = (image[..., 1] > 150) & (image[..., 0] < 100) & (image[..., 2] < 150)
    cell = (320 - 24) / 8
    assert 0.5 * (0.8 * cell) ** 2 < green.sum() < 1.1 * (0.8 * cell) ** 2
    video = tmp_path / "episodes.mp4"
    assert run(["render", str(trained), str(video), "--episodes", "1"]) == 0
    assert video.stat().st_size > 1000


def test_training_ends_with_a_report(trained):
    page = (trained / "report.html").read_text()
    assert "mean policy, 4 episodes" in page
    assert f"mjx-hkl report {trained} --out report.html" in page  # for a video
    (machine,) = json.loads((trained / "machines.json").read_text())
    assert machine["device"] in page
    assert f"jax {machine['versions']['jax']}" in page


def test_a_report_shows_the_agent(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report.agents, "_EPISODES", 1)
    out = tmp_path / "report.html"
    assert run(["report", str(trained), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: grid-1-step, ")
    page = out.read_text()
    (video,) = re.findall(r'<video [^>]*src="data:video/mp4;base64,([^"]*)"', page)
    assert base64.b64decode(video)[4:8] == b"ftyp"
    (poster,) = re.findall(r'<video [^>]*poster="data:image/jpeg;base64,([^"]*)"', page)
    assert base64.b64decode(poster).startswith(b"\xff\xd8")


def test_a_run_does_not_fail_with_its_report(trained, monkeypatch):
    said = []
    monkeypatch.setattr(report, "write_report", lambda *_, **__: 1 / 0)
    train._report(trained, said.append)
    assert said == ["no report: division by zero"]
    monkeypatch.setattr(report, "is_possible", lambda: False)
    train._report(trained, said.append)
    assert len(said) == 1


def random_walks():
    """E.1 under uniform actions as a Markov chain: success, mean and mean square of lengths, mean return."""
    size, limit = 8, 400
    moves, walls = np.zeros((size**2, size**2)), np.zeros(size**2)
    for cell in range(size**2):
        x, y = divmod(cell, size)
        for dx, dy in ((0, 1), (0, -1), (-1, 0), (1, 0)):
            is_wall = not (0 <= x + dx < size and 0 <= y + dy < size)
            walls[cell] += is_wall / 4
            moves[cell, cell if is_wall else (x + dx) * size + y + dy] += 1 / 4
    success = length = square = total = 0.0
    for goal in range(size**2):
        alive = np.full(size**2, 1 / (size**2 - 1))
        alive[goal] = 0.0
        for step in range(limit):
            length, square = length + alive.sum(), square + (2 * step + 1) * alive.sum()
            total -= 0.1 * alive.sum() + 0.2 * alive @ walls
            alive = alive @ moves
            success, total = success + alive[goal], total + alive[goal]
            alive[goal] = 0.0
    return (x / size**2 for x in (success, length, square, total))


def test_a_random_agent_does_as_a_markov_chain_says(capsys):
    """World, time limit, returns and evaluation at once, within four standard errors."""
    count = 4096
    assert run(["evaluate", "random:grid-1-step", "--episodes", str(count), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    success, length, square, total = random_walks()
    errors = {
        "success_rate": (success, np.sqrt(success * (1 - success))),
        "episode_length": (length, np.sqrt(square - length**2)),
        "episode_return": (total, found["episode_return_std"]),
    }
    for name, (expected, deviation) in errors.items():
        assert found[name] == pytest.approx(expected, abs=4 * deviation / np.sqrt(count)), name


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "grid-1-step", *SHORT, "--algorithm.kind", "svg"], "'svg' does not learn the categorical"),
        (["train", "grid-1-step", *SHORT, "--policy.actions", "gaussian"], "are categorical"),
        (["train", "ball-go-to-target", *SHORT, "--policy.actions", "categorical"], "are gaussian"),
        (["plot-kl-field", "RUN", "--goal", "8", "0"], "outside a grid of 8 cells"),
        (["plot-kl-field", "RUN", "--out", "field.gif"], "must end in .png"),
        (["plot-kl-field", "nobody"], "unknown agent 'nobody'"),
    ],
)
def test_mistakes(trained, arguments, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run([str(trained) if x == "RUN" else x for x in arguments]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())
