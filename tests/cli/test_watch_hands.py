"""Hands on the page of `mjx-hkl watch` reach the world, and a training reaches the page, in a browser."""

import contextlib
import shutil
import socket
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from browser import WEBGL, browser

from mjx_hkl.analysis.viewer import Viewer, serving
from mjx_hkl.analysis.watching import Follower, Session
from mjx_hkl.cli.main import run
from mjx_hkl.experiments.players import find_player
from mjx_hkl.experiments.run_directory import RunDirectory

pytestmark = pytest.mark.pages


@contextlib.contextmanager
def watched(agent, follower=None):
    """A browser's page of an agent that plays in a thread of this process, and its session."""
    session = Session(find_player(str(agent), 1), 0, mean=True)
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    over = threading.Event()
    with browser(*WEBGL) as chromium, serving("localhost", port) as server:
        playing = threading.Thread(target=Viewer(server, session, "agent", follower).run, args=(over.is_set,))
        playing.start()
        try:
            page = chromium.new_page(viewport={"width": 1000, "height": 1400})
            page.set_default_timeout(60_000)
            page.goto(f"http://localhost:{port}")
            page.get_by_role("button", name="Pause").wait_for()
            yield page, session
            page.close()
        finally:
            over.set()
            playing.join()


def eventually(page, is_so):
    """Waits until something is so; at most some ten seconds."""
    for _ in range(100):
        if is_so():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it never was so")


def velocity(session):
    """Over the ground."""
    return np.array(jax.device_get(session.state.pipeline_state.physics.qvel)[:2])


def test_what_hands_do_on_the_page_reaches_the_world():
    with watched("ball-go-to-target") as (page, session):
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Play").wait_for()

        page.get_by_text("All 0", exact=True).click()
        eventually(page, lambda: (session._held == 0).all())
        eventually(page, page.get_by_label("Hold").is_checked)
        page.get_by_text("Step", exact=True).click()
        eventually(page, lambda: session.last is not None and (session.last.latent == 0).all())
        page.get_by_label("Hold").click()
        eventually(page, lambda: np.isnan(session._held).all())

        before = velocity(session)
        page.get_by_role("button", name="Push").click()
        eventually(page, lambda: not np.array_equal(velocity(session), before))
        assert np.linalg.norm(velocity(session) - before) == pytest.approx(1.0, abs=1e-5)

        asked = (session.chosen()["target"] + 1) % 3
        page.get_by_role("combobox", name="target").click()
        page.get_by_role("option", name=f"{asked + 1:.0f}", exact=True).click()
        eventually(page, lambda: session.chosen()["target"] == asked)
        eventually(page, page.get_by_label("Choose").is_checked)


def test_the_page_follows_a_run_that_goes_on_training(tmp_path):
    shutil.copytree(Path(__file__).parents[1] / "formats" / "run-2", tmp_path / "run")
    follower = Follower(RunDirectory(tmp_path / "run"), 0, 320)
    with watched(tmp_path / "run", follower) as (page, session):
        first = session.agent
        page.wait_for_function("document.body.innerText.includes('320 environment steps')")
        assert run(["train", str(tmp_path / "run"), "--resume", "--total-env-steps", "640"]) == 0
        page.wait_for_function("document.body.innerText.includes('640 environment steps')")
        assert session.agent is not first
