"""`mjx-hkl watch`: its mistakes, and the page as a browser shows it."""

import importlib.util
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from browser import WEBGL, browser
from PIL import Image

from mjx_hkl.analysis.viewer import Viewer, serving
from mjx_hkl.analysis.watching import Follower, Session
from mjx_hkl.cli.main import run
from mjx_hkl.experiments.players import find_player
from mjx_hkl.experiments.run_directory import RunDirectory

pytestmark = pytest.mark.pages

WATCH = "import sys; from mjx_hkl.cli.main import run; sys.exit(run(['watch', *sys.argv[1:]]))"


def fails(capsys, *arguments):
    """Runs a command line that must fail; returns its one line."""
    assert run(["watch", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1, err
    return err


def test_an_agent_that_is_not_there(capsys):
    assert "unknown agent 'ball-move-box-esy'; did you mean ball-move-box-easy" in fails(
        capsys, "ball-move-box-esy"
    )


def test_without_viser(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "viser" else find(name)
    )
    assert fails(capsys, "grid-1-step") == "error: watch needs viser: pip install 'mjx-hkl[watch]'\n"


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        told = fails(capsys, "random:grid-1-step", "--port", str(port))
    assert f"port {port} of localhost: Address already in use; give another --port" in told


def test_a_port_that_is_none(capsys):
    assert "port: input should be less than or equal to 65535" in fails(
        capsys, "grid-1-step", "--port", "80800"
    )


def test_a_run_without_a_checkpoint(capsys, tmp_path):
    (tmp_path / "recipe.toml").write_text('extends = "grid-1-step"\n')
    assert f"{tmp_path} has no checkpoint yet" in fails(capsys, str(tmp_path))


def test_an_environment_that_the_agent_does_not_know(capsys):
    assert "unknown environment 'ant-gap'" in fails(capsys, "random:grid-1-step", "--environment", "ant-gap")


def test_a_world_that_has_no_model(capsys):
    assert "cannot be drawn: it has no MuJoCo model" in fails(
        capsys, "random:brax:fast", "--port", str(free())
    )


def free():
    with socket.create_server(("localhost", 0)) as server:
        return server.getsockname()[1]


def test_a_run_is_followed_while_it_trains(tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "formats" / "run-2", tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    session = Session(find_player(str(run.path), 1), 0, mean=True)
    follower, first = Follower(run, 0, 320), session.agent
    ends = time.monotonic() + 60
    with serving("localhost", free()) as server:
        viewer = Viewer(server, session, "run", follower)
        assert "320 environment steps" in viewer._panel._numbers.content
        shutil.copytree(run.checkpoints / "320", run.checkpoints / "960")
        viewer.run(lambda: session.agent is not first or time.monotonic() > ends)
        assert "960 environment steps" in viewer._panel._numbers.content
    assert session.agent is not first
    assert session.steps + session.episodes > 0


@pytest.fixture(scope="module")
def page():
    """The page of an agent, and what its console said."""
    port = free()
    arguments = [sys.executable, "-c", WATCH, "ball-go-to-target", "--port", str(port)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with (
        browser(*WEBGL) as chromium,
        subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment) as watching,
    ):
        try:
            line = watching.stdout.readline()
            assert line == f"watch ball-go-to-target at http://localhost:{port} (Ctrl-C ends)\n"
            page = chromium.new_page(viewport={"width": 900, "height": 600})
            page.set_default_timeout(60_000)
            console = []
            page.on("console", lambda said: console.append(said.text) if said.type == "error" else None)
            page.on("pageerror", lambda error: console.append(str(error)))
            page.goto(f"http://localhost:{port}")
            page.wait_for_selector("canvas")
            page.get_by_role("button", name="Pause").wait_for()
            yield page, console
            page.close()
            watching.send_signal(signal.SIGINT)
            assert watching.wait(120) == 0
        finally:
            watching.kill()  # else a failure waits for a server that nobody stops


def number(page, name):
    """What the table of numbers says of one of them."""
    return page.locator("tr", has=page.locator(f"td:text-is('{name}')")).locator("td").last.inner_text()


def paused(page):
    """Presses pause; returns once it is told."""
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Play").wait_for()
    page.wait_for_timeout(300)


def playing(page):
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()


def test_the_page_shows_the_world_and_its_controls(page):
    page, console = page
    page.wait_for_function("document.body.innerText.includes('nats')")
    text = page.inner_text("body")
    for label in (
        "ball-go-to-target",
        "Step",
        "New start",
        "Instruction",
        "target",
        "Latent z",
        "z4",
        "KL high",
    ):
        assert label in text
    assert page.locator("canvas").first.bounding_box()["width"] > 400
    page.wait_for_timeout(4000)  # the world is drawn, and plots have their lines
    paused(page)
    if folder := os.environ.get("MJX_HKL_SCREENSHOTS"):
        for button in page.locator(".mantine-Notification-closeButton").all():  # of rendering in software
            button.click()
        page.set_viewport_size({"width": 1280, "height": 1120})
        page.wait_for_timeout(3000)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256)
        picture.save(Path(folder) / "watch.png", optimize=True)
    playing(page)
    assert console == []


def test_pause_stops_time_and_a_step_is_one_control_step(page):
    page, console = page
    paused(page)
    page.get_by_role("button", name="New start").or_(page.get_by_text("New start")).first.click()
    page.wait_for_function("document.body.innerText.includes('0.0 s')")
    page.wait_for_timeout(500)
    assert number(page, "time") == "0.0 s"
    for _ in range(4):
        page.get_by_text("Step", exact=True).click()
        page.wait_for_timeout(100)
    page.wait_for_function("!document.body.innerText.includes('0.0 s')")
    stopped = number(page, "time")
    page.wait_for_timeout(500)
    assert number(page, "time") == stopped
    playing(page)
    page.wait_for_timeout(1500)
    assert number(page, "time") != stopped
    assert console == []
