"""docs/carry-it-away.md: its example plays without JAX, and sees what our worlds show."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import jax
import mujoco
import numpy as np
import pytest

from mjx_hkl.environments import make_world
from mjx_hkl.experiments.agents import load_agent

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from mjx_hkl.experiments.onnx.export import write_policy  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "example" / "play_numpy.py"
WORLDS = {"ball-go-to-target": "ball-go-to-target", "ball-to-ant": "ant-go-to-near-target"}

PLAY = """
import runpy, sys
sys.argv = [sys.argv[1], *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not {"jax", "mjx_hkl", "flax", "onnx", "onnxruntime"} & set(sys.modules)
"""


@pytest.fixture(scope="module", params=WORLDS)
def carried(request, tmp_path_factory):
    """A folder that was exported, and the world of its agent."""
    known, world = load_agent(request.param), make_world(WORLDS[request.param], engine="mujoco")
    folder = tmp_path_factory.mktemp("carried") / request.param
    write_policy(folder, known, world, stochastic=False)
    return folder, known, world


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("play_numpy", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_reaches_its_targets_without_jax(carried, tmp_path):
    folder, *_ = carried
    done = subprocess.run(
        [sys.executable, "-c", PLAY, str(EXAMPLE), str(folder), "60"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    (success,) = re.findall(r"success ([\d.]+)%", done.stdout)
    assert float(success) >= 90.0  # our own evaluations of these agents: 100 and 99 %


def test_the_model_is_that_of_our_world(carried):
    folder, _, world = carried
    model = mujoco.MjModel.from_xml_path(str(folder / "world.xml"))
    ours = world.engine.model
    for name in ("body_mass", "body_pos", "geom_size", "geom_pos", "pair_friction", "dof_damping"):
        # MJCF is written with six digits
        np.testing.assert_allclose(getattr(model, name), getattr(ours, name), rtol=1e-5, atol=1e-6)
    assert (model.opt.timestep, model.opt.iterations) == (ours.opt.timestep, ours.opt.iterations)


def test_it_sees_and_does_what_ours_do(carried, example):
    folder, known, world = carried
    about, tables, parameters, model = example.load(folder)
    data, random = mujoco.MjData(model), np.random.default_rng(0)
    step, act = jax.jit(world.step), jax.jit(known.agent.step)
    state = jax.jit(world.reset)(jax.random.key(0))
    latent, carry, noise = np.zeros(about["latent_size"]), known.agent.start(()), known.agent.no_noise(())
    session = onnxruntime.InferenceSession(folder / "policy.onnx", providers=["CPUExecutionProvider"])
    after = [np.zeros((1, *leaf["shape"]), leaf["dtype"]) for leaf in about["carry"].values()]
    for t in range(12):
        physics, task = state.pipeline_state.physics, state.pipeline_state.task
        data.qpos[:], data.qvel[:], data.qacc[:] = physics.qpos, physics.qvel, physics.qacc
        mujoco.mj_kinematics(model, data)
        seen = example.observe(model, data, tables, np.asarray(task.positions), int(task.selected))
        assert seen.keys() == state.obs.keys()
        for name, group in seen.items():
            np.testing.assert_allclose(group, state.obs[name], atol=1e-5, err_msg=name)
        action, latent = example.act(about, parameters, seen, t, latent)
        carry, acted = act(carry, state.obs, t == 0, noise)
        np.testing.assert_allclose(action, acted.action, atol=1e-4)
        given = {name: np.asarray(group)[None] for name, group in state.obs.items()}
        given |= {f"carry.{name}": x for name, x in zip(about["carry"], after, strict=True)}
        found, *after = session.run(None, {"is_first": np.array([t == 0]), **given})
        np.testing.assert_allclose(found[0], acted.action, atol=1e-5)
        state = step(state, random.uniform(-1, 1, world.action_size).astype(np.float32))


def test_it_says_which_networks_it_does_not_know(carried, example):
    about, _, parameters, _ = example.load(carried[0])
    about["networks"]["policy"]["low_level"]["layer_norm"] = True
    seen = dict.fromkeys([*about["modules"]["policy.low_level"]], np.zeros(1))
    with pytest.raises(SystemExit, match="has networks that this script does not know"):
        example.mean("policy.low_level", about, parameters, seen)


def test_the_pages_own_lines_run(tmp_path, monkeypatch):
    known = load_agent("ball-go-to-target-ar-learned")
    write_policy(tmp_path / "carried", known, make_world("ball-go-to-target", engine="mujoco"), False)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (DOCS / "carry-it-away.md").read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    assert names["action"].shape == (1, 2)
    assert names["carry"]["carry.latent"].any()
