"""Videos as a user makes them: a process of its own, because MuJoCo chooses OpenGL when it is imported."""

import os
import re
import subprocess
import sys

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

RENDER = "import sys; from mjx_hkl.cli.main import run; sys.exit(run(['render', *sys.argv[1:]]))"


def render(folder, *arguments):
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", RENDER, *arguments],
        cwd=folder,
        env={**environment, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "rendering needs OpenGL" in done.stderr or "cannot render" in done.stderr:
        pytest.skip(f"no OpenGL without a display here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_a_video_has_every_episode(tmp_path):
    size = ["--width", "64", "--height", "48", "--episodes", "2"]
    assert "2 episodes" in render(tmp_path, "random:ball-move-box-easy", "ball.mp4", *size)
    assert [path.name for path in tmp_path.iterdir()] == ["ball.mp4"]
    # its own report: two episodes of 10 s at 20 frames a second, and half a second of pause after each
    decode = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(tmp_path / "ball.mp4"), "-f", "null", "-"]
    report = subprocess.run(decode, capture_output=True, text=True, check=True).stderr
    assert "64x48" in report
    assert "20 fps" in report
    frames = int(re.findall(r"frame=\s*(\d+)", report)[-1])
    assert 400 <= frames <= 430


def test_a_picture_shows_the_selected_target_in_green(tmp_path):
    render(tmp_path, "random:ball-move-box-easy", "ball.png", "--width", "320", "--height", "240")
    image = np.asarray(Image.open(tmp_path / "ball.png")).astype(int)
    assert image.shape == (240, 320, 3)
    red, green, blue = np.moveaxis(image, -1, 0)
    assert ((green > 1.5 * red) & (green > 1.5 * blue)).sum() > 50


@pytest.mark.long
def test_a_pretrained_agent_is_shown(tmp_path):
    size = ["--width", "64", "--height", "48", "--episodes", "1"]
    assert "1 episode" in render(tmp_path, "ball-to-ant", "ant.mp4", *size)
    assert (tmp_path / "ant.mp4").stat().st_size > 1000


def test_other_peoples_worlds_are_drawn(tmp_path):
    size = ["--width", "64", "--height", "48", "--episodes", "2"]
    shown = render(tmp_path, "random:brax:inverted_pendulum episode_length=8", "pole.mp4", *size)
    assert "2 episodes" in shown
    assert (tmp_path / "pole.mp4").stat().st_size > 500


COMPARE = """
import importlib.util, sys, warnings
warnings.simplefilter("ignore")
from mjx_hkl.analysis.opengl import choose_opengl
choose_opengl()
import jax, jax.numpy as jnp, numpy as np
from mjx_hkl.environments import make_world

def compare(name, camera, seen):
    world = make_world(name)
    state = jax.jit(world.step)(jax.jit(world.reset)(jax.random.key(0)), jnp.ones(world.action_size))
    with world.renderer(64, 48) as draw:
        ours = draw(jax.device_get(world.visible(state)))
    (expected,) = world._env.render([seen(state)], 48, 64, camera)
    np.testing.assert_array_equal(ours, expected)
    assert ours.std() > 1
    print(name, "as theirs")

compare("brax:halfcheetah", "track", lambda state: state.pipeline_state)
compare("brax:inverted_pendulum", None, lambda state: state.pipeline_state)
if importlib.util.find_spec("mujoco_playground"):
    compare("playground:CheetahRun", "side", lambda state: state)
try:
    make_world("brax:fast").renderer(64, 48)
except Exception as error:
    print(error)
"""


@pytest.mark.long
def test_their_pictures_are_those_of_their_own_renderers(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE],
        env={**environment, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "cannot render" in done.stderr:
        pytest.skip(f"no OpenGL without a display here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("as theirs") >= 2
    assert "brax:fast cannot be drawn: it has no MuJoCo model" in done.stdout
