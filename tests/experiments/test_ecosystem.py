"""Bodies, tasks and environments of a user's own; other people's environments; other people's trainers."""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loading import physics_environment

from mjx_hkl.cli.main import run
from mjx_hkl.environments import FlatWorld, PhysicsWorld, VectorEnvironment, make_world
from mjx_hkl.experiments import build
from mjx_hkl.experiments.recipe import Recipe, recipe_to_toml
from mjx_hkl.specs import ArraySpec

EXAMPLE = Path(__file__).parents[2] / "docs" / "example"
SHORT = ["--num-envs", "4", "--total-env-steps", "400", "--log-interval", "200", "--min-replay", "100"]
SHORT += ["--evaluation-episodes", "4", "--replay-capacity", "400", "--algorithm.batch-size", "8"]


@pytest.mark.long
def test_the_worked_example_trains_from_anywhere(tmp_path, monkeypatch, capfd):
    """Its own body, its own task, its own environment and recipe, as docs/your-own-world.md shows them."""
    monkeypatch.chdir(tmp_path)
    assert run(["train", str(EXAMPLE / "puck.toml"), "--out", "run", *SHORT]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["environment_steps"] >= 400
    assert np.isfinite(rows[-1]["critic_loss"])
    capfd.readouterr()
    assert run(["evaluate", "run", "--episodes", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["episode_length"] == 100


def test_the_guide_shows_the_files_of_the_example():
    guide = (EXAMPLE.parent / "your-own-world.md").read_text()
    for name in ("puck.xml", "keep_close.py", "puck-keep-close.toml", "puck.toml"):
        assert (EXAMPLE / name).read_text().strip() in guide, f"{name} differs from the guide"


def train_on(environment, recipe, tmp_path):
    """A short run of our agent on somebody else's environment; its metrics and its evaluation."""
    recipe = dataclasses.replace(recipe, environment=environment, information=type(recipe.information)())
    (tmp_path / "mine.toml").write_text(recipe_to_toml(recipe))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs
        assert run(["train", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "run")]) == 0
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    return rows, json.loads((tmp_path / "run" / "evaluation.json").read_text())


def test_our_agent_trains_on_a_brax_environment(tiny_recipe, tmp_path):
    rows, _ = train_on("brax:inverted_pendulum", tiny_recipe, tmp_path)
    assert np.isfinite(rows[-1]["critic_loss"])
    assert rows[-1]["episode_return"] == pytest.approx(rows[-1]["episode_length"])  # 1 for each step


@pytest.mark.skipif(
    importlib.util.find_spec("mujoco_playground") is None, reason="Playground is not installed"
)
def test_our_agent_trains_on_a_playground_environment(tiny_recipe, tmp_path):
    rows, evaluation = train_on("playground:CartpoleBalance", tiny_recipe, tmp_path)
    assert np.isfinite(rows[-1]["critic_loss"])
    (found,) = evaluation
    assert found["episode_length"] == 1000  # Playground's, of a cart-pole that no fall ends
    assert 0 < found["episode_return"] <= 1000  # a product of terms in [0, 1] each step


def test_only_the_critic_sees_what_no_robot_senses():
    """MuJoCo Playground's `privileged_state`."""
    world: Any = SimpleNamespace(
        observation_specs={"state": ArraySpec((3,)), "privileged_state": ArraySpec((9,))},
        low_level_information=("state", "privileged_state"),
        action_kind="gaussian",
    )
    seen = build.resolve(Recipe(environment="playground:Go1JoystickFlatTerrain"), world).information
    assert seen.critic == ("state", "privileged_state")
    assert seen.high_level == seen.low_level == seen.default == ("state",)


def test_bench_env_measures_a_brax_environment(capfd):
    assert run(["bench", "env", "brax:fast", "--num-envs", "4", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["environment_steps_per_second"] > 0


def test_an_adapted_environment_is_the_original_step_for_step():
    from brax import envs

    original, adapted = envs.get_environment("fast"), make_world("brax:fast")
    key, action = jax.random.key(0), jnp.ones(adapted.action_size) * 0.3
    theirs, ours = original.reset(key), adapted.reset(key)
    for _ in range(3):
        theirs, ours = original.step(theirs, action), jax.jit(adapted.step)(ours, action)
        np.testing.assert_allclose(ours.obs["observation"], np.asarray(theirs.obs))
        np.testing.assert_allclose(ours.reward, theirs.reward)
        assert bool(ours.done) == bool(theirs.done)


def test_a_fault_in_an_adapted_environment_is_masked():
    world = make_world("brax:fast")
    environment = VectorEnvironment(world, 2, 10)
    state = environment.reset(jax.random.key(0))
    broken = functools.partial(
        jax.tree.map, lambda x: x * jnp.array([1.0, jnp.nan])[:, None] if x.ndim == 2 else x
    )
    state = state.replace(env=state.env.replace(pipeline_state=broken(state.env.pipeline_state)))
    after, timestep = environment.step(state, jnp.zeros((2, world.action_size)), jax.random.key(1))
    for leaf in jax.tree.leaves((timestep.next_observation, timestep.reward, after.observation)):
        assert np.isfinite(leaf).all()


def test_brax_ppo_trains_on_our_world_unchanged(monkeypatch):
    """Their trainer, their wrappers, their networks; a two-line stand-in for what JAX has dropped."""
    from brax.training.agents.ppo import train as ppo

    if not hasattr(jax, "device_put_replicated"):
        monkeypatch.setattr(
            jax,
            "device_put_replicated",
            lambda x, devices: jax.tree.map(lambda y: jnp.stack([y]), x),
            raising=False,
        )
    world = FlatWorld(PhysicsWorld(physics_environment("ball-go-to-target")))
    seen = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make_policy, parameters, _ = ppo.train(
            environment=world,
            num_timesteps=640,
            episode_length=20,
            num_envs=8,
            num_eval_envs=4,
            num_evals=2,
            batch_size=8,
            num_minibatches=2,
            unroll_length=5,
            num_updates_per_batch=1,
            progress_fn=lambda steps, metrics: seen.append((steps, metrics["eval/episode_reward"])),
        )
        act = make_policy(parameters)
        action, _ = act(world.reset(jax.random.key(0)).obs, jax.random.key(1))
    assert seen[-1][0] >= 640
    assert np.isfinite(seen[-1][1])
    assert action.shape == (2,)


def test_a_flat_world_is_the_world_in_one_vector():
    world = PhysicsWorld(physics_environment("ball-move-box-easy"))
    flat = FlatWorld(world)
    assert flat.observation_size == sum(world.observation_size.values())
    key, action = jax.random.key(0), jnp.ones(2)
    state, flat_state = (
        jax.jit(world.step)(world.reset(key), action),
        jax.jit(flat.step)(flat.reset(key), action),
    )
    np.testing.assert_allclose(
        flat_state.obs, np.concatenate([state.obs[k] for k in sorted(state.obs)]), atol=1e-6
    )


@pytest.fixture(scope="module")
def fast_run(tiny_recipe, tmp_path_factory):
    """A run in a world of others that does not tell of success, and what its training printed."""
    folder = tmp_path_factory.mktemp("fast")
    recipe = dataclasses.replace(
        tiny_recipe,
        environment="brax:fast episode_length=20",
        information=type(tiny_recipe.information)(),
        evaluation_interval=80,
    )
    (folder / "mine.toml").write_text(recipe_to_toml(recipe))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert run(["train", str(folder / "mine.toml"), "--out", str(folder / "run")]) == 0
    return folder, " ".join(printed.getvalue().split())


@pytest.mark.long
def test_where_nothing_can_succeed_people_are_told_the_return(fast_run, monkeypatch, capfd):
    folder, printed = fast_run
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text())[0]
    told = f"return {evaluation['episode_return']:.1f}"
    assert "success" not in printed
    assert f"mean actions: {told}, length 20" in printed
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert f"return {rows[-1]['episode_return']:.1f} kl" in printed
    assert f"mean policy {rows[-1]['evaluation_return']:.1f}" in printed
    assert told in (folder / "run" / "export" / "README.md").read_text()
    assert "success" not in (folder / "run" / "export" / "README.md").read_text()

    monkeypatch.chdir(folder)
    monkeypatch.setattr("mjx_hkl.experiments.agents._FOLDERS", (folder / "checkpoints",))
    for command in (
        ["export", "run", "checkpoints/told", "--episodes", "4"],
        ["list", "agents"],
        ["evaluate", "run"],
    ):
        assert run(command) == 0
        shown = capfd.readouterr().out
        assert "return" in shown
        assert "success" not in shown


def test_programs_find_the_same_keys_where_nothing_can_succeed(fast_run, capfd):
    folder, _ = fast_run
    keys = []
    for agent in (str(folder / "run"), "random:ball-go-to-near-target"):
        assert run(["evaluate", agent, "--episodes", "2", "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        keys.append(found.keys())
    assert keys[0] == keys[1]
    assert found["can_succeed"]
    about = json.loads((folder / "run" / "export" / "agent.json").read_text())
    assert about["evaluation"]["success_rate"] == 0
    assert about["evaluation"]["can_succeed"] is False
    assert about["world"]["environment"] == {"name": "brax:fast", "episode_length": 20}


def test_an_agent_plays_in_its_world_with_its_arguments(fast_run, capfd):
    folder, _ = fast_run
    assert run(["evaluate", str(folder / "run" / "export"), "--episodes", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["episode_length"] == 20
    assert run(["evaluate", "random:brax:fast episode_length=7", "--episodes", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["episode_length"] == 7
    assert run(["bench", "env", "brax:fast episode_length=7", "--num-envs", "2", "--json"]) == 0


def test_variants_where_nothing_can_succeed_are_compared_by_return(tiny_recipe, tmp_path, capfd):
    recipe = dataclasses.replace(
        tiny_recipe, environment="brax:fast episode_length=20", information=type(tiny_recipe.information)()
    )
    text = recipe_to_toml(recipe) + "\n[variants.one]\n"
    (tmp_path / "mine.toml").write_text(text)
    assert run(["reproduce", str(tmp_path / "mine.toml"), "--out", str(tmp_path / "out")]) == 0
    pictures = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"episode_return.png"}
