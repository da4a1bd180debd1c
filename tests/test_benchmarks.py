"""The scripts under benchmarks/, as far as they go in no time."""

import argparse
import dataclasses
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from brax.envs.base import State
from tensorboardX.record_writer import RecordWriter

from mjx_hkl.environments import FlatWorld, VectorEnvironment, make_world
from mjx_hkl.experiments.build import resolve
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.experiments.run_directory import RunDirectory

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_accelerators_script_names_what_no_time_was_left_for(tmp_path):
    done = run("accelerator.py", str(tmp_path), "--quick", "--minutes", "0")
    assert done.returncode == 0, done.stderr
    for task in ("tests", "env ball 128", "train quadruped 64 mjx", "training", "memory", "seeds ball 2"):
        assert task in done.stdout
    assert (tmp_path / "throughput.png").stat().st_size > 1000


def test_the_accelerators_script_shows_what_it_measured_beside_the_bound():
    bound = {"binds": "launches", "environment_steps_per_second": 200_000.0}
    results = {
        "bound ball 4096": {"bound": bound},
        "bound ant 4096": {"bound": bound},  # was not run
        "bound quadruped 4096": {"error": "no compiler"},
        "train ball 4096 mjx": {"environment_steps_per_second": 50_000.0},
        "train quadruped 4096 mjx": {"environment_steps_per_second": 10_000.0},
    }
    assert list(load("accelerator").beside_bound(results)) == [
        "ball 4096: 50,000 steps/s measured, 200,000 at most by launches: 25%"
    ]


def test_the_compiled_table_goes_on_with_what_is_done(tmp_path):
    """Nothing is compiled: it is in the file."""
    out = tmp_path / "compile.jsonl"
    bound = {"binds": "bandwidth", "environment_steps_per_second": 1234.5}
    result = {
        "argument_bytes": 2**20,
        "temporary_bytes": 2**21,
        "launches": None,
        "fits": True,
        "bound": bound,
    }
    out.write_text(json.dumps({"key": ["ball", 1024, "v5e"], **result}) + "\n")
    done = run("compile_table.py", str(out), "--bodies", "ball", "--num-envs", "1024", "--for", "v5e")
    assert done.returncode == 0, done.stderr
    assert "| ball | 1,024 | v5e | yes | 3 MiB | – | 1,234 | bandwidth |" in done.stdout


def test_the_accelerators_script_tries_again_what_failed_and_keeps_the_rest(tmp_path):
    (tmp_path / "results.json").write_text('{"memory": {"error": "no"}, "startup": {"last_lines": []}}')
    left = run("accelerator.py", str(tmp_path), "--quick", "--minutes", "0").stdout
    assert "memory" in left.split("no time left for")[1]
    assert "startup" not in left.split("no time left for")[1]


@pytest.mark.parametrize("script", ["memory.py", "startup.py", "peers.py", "vision.py"])
def test_a_mistake_is_told_in_one_line(script):
    done = run(script, "ball-go-to-tarmac")
    assert done.returncode == 2
    assert "did you mean ball-go-to-target" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["grid-1-step", "--peers", "brax-sac"], "brax-sac does not have categorical actions"),
        (["ball-go-to-target", "--num-envs", "-4"], "num_envs"),
        (["ball-go-to-target", "--evaluations", "1"], "--evaluations must be at least 2"),
        (["ball-go-to-target", "--episodes", "0"], "--episodes must be at least 1"),
        (["ball-go-to-target", "--out", "no/where.json"], "cannot write no/where.json"),
        (["ant-to-gap:shared"], "starts from another agent"),
        (["brax-reacher", "--peers", "fast-td3"], "fast-td3 needs --tries FILE with the `values`"),
    ],
)
def test_peers_say_before_they_run_what_cannot_be(arguments, expected):
    done = run("peers.py", *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_peers_train_in_one_environment(monkeypatch, capsys):
    monkeypatch.syspath_prepend(BENCHMARKS)
    options = argparse.Namespace(recipe="ball-multi-task:three_tasks", num_envs=None, total_env_steps=None)
    with pytest.raises(SystemExit):
        load("peers").prepare(argparse.ArgumentParser(), options)
    assert "ball-multi-task:three_tasks has several environments" in capsys.readouterr().err


def test_a_peers_seconds_are_without_those_it_compiles_in():
    """Parts of 30 and 9 s with compilation, then 3 s each, slower towards the end."""
    ends = [30.0, 39.0, 42.0, 45.0, 48.0, 51.0, 58.0]
    peer_trainers = load("peer_trainers")
    point = peer_trainers.Point(1, 30.0, 0.5, 2.0)
    found = peer_trainers.without_compiling([point._replace(seconds=end) for end in ends])
    assert [point.seconds for point in found] == [3.0, 6.0, 9.0, 12.0, 15.0, 18.0, 25.0]
    assert peer_trainers.without_compiling([point]) == [point]


def test_brax_is_not_stopped_before_it_has_trained_without_compiling(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    peer_trainers, steps = load("peer_trainers"), []

    def train(progress_fn, **_):
        told = {"eval/episode_success": 0.5, "eval/episode_reward": 1.0}
        for i in range(1, 9):
            steps.append(i)
            progress_fn(i, told | {"training/walltime": 100.0 + i})

    recipe = load_recipe("ball-go-to-target")
    plan = peer_trainers.Plan(seed=0, evaluations=8, episodes=2, steps=1, seconds=1.0)
    points = peer_trainers.train_brax(train, recipe, plan)
    assert steps == [1, 2, 3]
    assert [point.seconds for point in points] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("name", ["ball-go-to-target", "playground:CartpoleBalance", "brax:reacher"])
@pytest.mark.filterwarnings("ignore:Brax System", "ignore:Accessing .* directly from")
def test_brax_begins_episodes_of_all_worlds(name):
    if name.startswith("playground:"):
        pytest.importorskip("mujoco_playground")
    worlds = load("fresh_starts").wrap(FlatWorld(make_world(name)), episode_length=5, action_repeat=1)
    state = jax.eval_shape(worlds.reset, jax.random.split(jax.random.PRNGKey(0), 3))  # as Brax draws keys
    after = jax.eval_shape(worlds.step, state, jnp.zeros((3, worlds.action_size)))
    alike = [jax.tree.map(lambda x: (x.shape, x.dtype), x) for x in (state.obs, after.obs)]
    assert alike[0] == alike[1]
    assert jax.tree.structure(state) == jax.tree.structure(after)


class Drawn:
    """What it shows is drawn at the start and then counts up; it succeeds with the third step."""

    def reset(self, rng):
        drawn, zero = jax.random.uniform(rng, (1,)), jnp.zeros(())
        info = {"age": zero, "drawn": drawn}
        return State(
            pipeline_state=None, obs=drawn, reward=zero, done=zero, metrics={"success": zero}, info=info
        )

    def step(self, state, action):
        age = state.info["age"] + 1
        success = jnp.maximum(state.metrics["success"], 1.0 * (age == 3))  # stays, as in foreign worlds
        return state.replace(
            obs=state.obs + 1,
            reward=age,
            done=1.0 * (age == 3),
            metrics={"success": success},
            info={**state.info, "age": age},
        )


def test_each_episode_of_a_brax_trainer_has_a_start_of_its_own():
    """Two worlds of three steps, or of two where the time limit is shorter; five episodes of each."""
    for length, limit in ((3, 10), (2, 2)):
        worlds = load("fresh_starts").wrap(Drawn(), episode_length=limit)
        state = worlds.reset(jax.random.split(jax.random.PRNGKey(0), 2))  # as Brax draws keys
        step, starts = jax.jit(worlds.step), [state.obs]
        for count in range(1, 5 * length + 1):
            state = step(state, jnp.zeros((2, 1)))
            is_last = count % length == 0
            np.testing.assert_array_equal(state.done, is_last)
            np.testing.assert_array_equal(state.info["truncation"], is_last and limit == 2)
            np.testing.assert_array_equal(state.info["steps"], (count - 1) % length + 1)
            np.testing.assert_array_equal(state.reward, (count - 1) % length + 1)
            np.testing.assert_array_equal(state.metrics["success"], is_last and limit == 10)
            np.testing.assert_array_equal(state.info["age"], 0 if is_last else count % length)
            if is_last:
                starts.append(state.obs)
        np.testing.assert_array_equal(state.info["drawn"], starts[-1])
        assert len(np.unique(starts)) == 12  # also those of the first reset
        assert np.max(starts) < 1.0


@pytest.mark.filterwarnings("ignore:Brax System", "ignore:Accessing .* directly from")
@pytest.mark.parametrize(
    ("name", "seconds", "least"),
    [("ball-go-to-target", 5.0, 320), ("brax-reacher", 5.0, 0), ("brax-reacher", 0.0, 320)],
)
def test_peers_have_the_whole_budget_but_where_seconds_are_compared(monkeypatch, name, seconds, least):
    monkeypatch.syspath_prepend(BENCHMARKS)
    recipe = dataclasses.replace(load_recipe(name), total_env_steps=320)
    options = argparse.Namespace(seed=1, evaluations=4, episodes=8, seconds=seconds)
    plan = load("peers").plan_of(recipe, options)
    assert (plan.steps, plan.seconds, plan.episodes) == (least, seconds, 8)


def test_peers_are_compared_by_return_at_equal_seconds(monkeypatch):
    """Ours takes 20 s. The other's 9 after 30 s comes too late; after 10 s it is ahead."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    point, peers = load("peer_trainers").Point, load("peers")
    ours = [point(100, 10.0, 0.0, 3.0), point(200, 20.0, 0.0, 7.0)]
    other = [point(100, 9.0, 0.0, 4.0), point(200, 19.0, 0.0, 5.0), point(300, 30.0, 0.0, 9.0)]
    runs = [
        {"peer": name, "seed": 0, "environment_steps_per_second": 10.0, "points": points}
        for name, points in (("brax-ppo", other), ("mjx-hkl", ours))
    ]
    assert peers.table_of_returns(runs).splitlines() == [
        "| | seeds | steps/s with learning | return after 10 s | after 20 s |",
        "|---|---|---|---|---|",
        "| mjx-hkl | 1 | 10 | 3.0 | 7.0 |",
        "| brax-ppo | 1 | 10 | 4.0 | 5.0 |",
    ]
    assert peers.table_of_returns(runs[:1]).splitlines()[2:] == ["| brax-ppo | 1 | 10 | 4.0 | 9.0 |"]
    assert len(peers.table_of_returns([]).splitlines()) == 2


def test_frames_are_not_counted_of_a_world_without_a_camera():
    done = run("vision.py", "ball-go-to-target")
    assert done.returncode == 2
    assert "ball-go-to-target has no camera" in done.stderr
    assert "Traceback" not in done.stderr


def test_fast_td3_projects_returns_as_rlax_does():
    fast_td3 = load("fast_td3")
    support = jnp.linspace(-10.0, 70.0, 51)
    probabilities = jax.nn.softmax(3.0 * jax.random.normal(jax.random.key(0), (7, 51)))
    reward = jnp.array([0.0, 60.0, -20.0, 5.0, 0.0, 3.0, 90.0])
    discount = jnp.array([0.99, 0.0, 0.5, 0.9, 1.0, 0.0, 0.3])
    moved = reward[:, None] + discount[:, None] * support
    expected = jax.vmap(rlax.categorical_l2_project, (0, 0, None))(moved, probabilities, support)
    np.testing.assert_allclose(
        fast_td3.project(probabilities, reward, discount, support), expected, atol=1e-5
    )


def test_fast_td3s_returns_end_with_the_episode():
    rng = np.random.default_rng(0)
    reward, last = rng.normal(size=(4, 50)), rng.random((4, 50)) < 0.3
    returns, ends = load("fast_td3").n_step_return(jnp.asarray(reward), jnp.asarray(last), 0.9)
    for world in range(50):
        expected = 0.0
        for step in range(4):
            expected += 0.9**step * reward[step, world]
            if last[step, world]:
                break
        assert ends[world] == step
        np.testing.assert_allclose(returns[world], expected, rtol=1e-5)


class Halves:
    """Episodes of two steps with a number to be halved in each: the best return is 0, from everywhere."""

    action_size = 1

    def reset(self, rng):
        x, zero = jax.random.uniform(rng, (1,), minval=-1.0), jnp.zeros(())
        return State(None, {"x": x, "age": zero[None]}, zero, zero, {})

    def step(self, state, action):
        x, age = state.obs["x"], state.obs["age"] + 1.0
        reward = -5.0 * jnp.abs(action - x / 2).sum()
        return state.replace(obs={"x": -x, "age": age}, reward=reward, done=(age[0] > 1).astype(jnp.float32))


@pytest.mark.parametrize("n_step", [1, 2])
def test_fast_td3_learns_to_halve(n_step):
    fast_td3 = load("fast_td3")
    settings = fast_td3.Settings(
        actor_sizes=(32, 32),
        critic_sizes=(64, 64),
        batch_size=256,
        capacity=50,  # goes around
        n_step=n_step,
        learning_rate=2e-3,
        weight_decay=1e-3,
        values=(-10.0, 2.0),
        noise=(0.05, 0.5),
    )
    learner = fast_td3.FastTD3(VectorEnvironment(Halves(), 32, 10), settings)  # pyright: ignore[reportArgumentType]
    state = jax.jit(learner.run, static_argnums=1)(learner.init(jax.random.key(0)), 600)
    x = jnp.linspace(-0.9, 0.9, 19)[:, None]
    before, after = (learner.act(state, jnp.concatenate([jnp.full_like(x, age), x], 1)) for age in (0.0, 1.0))
    assert float(jnp.abs(before - x / 2).mean()) < 0.08  # a policy of zeros: 0.24
    assert float(jnp.abs(after - x / 2).mean()) < 0.08


def test_peers_have_the_recipes_replay_ratio_in_whole_updates():
    """Updates times batch over worlds is the ratio, whatever the batch was meant to be."""
    recipe = load_recipe("ball-go-to-target")
    updates_of = load("peer_trainers").updates_of
    assert updates_of(recipe, 8.0) == (3, 683)  # 640 wanted
    assert updates_of(recipe, 8.0, 256) == (8, 256)
    assert updates_of(recipe, 0.5, 2048) == (1, 128)


def test_fast_td3_trains_on_a_recipes_world(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    recipe = dataclasses.replace(resolve(load_recipe("ball-go-to-target")), num_envs=8, total_env_steps=320)
    trainers = load("peer_trainers")
    points = trainers.train_fast_td3(
        recipe, trainers.Plan(seed=0, evaluations=2, episodes=128, steps=320, seconds=0.0), {"n_step": 3}
    )
    assert [point.steps for point in points] == [160, 320]
    assert 0.0 < points[0].seconds < points[1].seconds
    assert all(0.0 <= point.success <= 1.0 for point in points)


def test_the_table_of_peers_is_by_seconds_and_tells_how_many_there_were(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peers, point = load("peers"), load("peer_trainers").Point(1, 120.0, 0.5, 30.0)
    ways = {"a": (None, None), "b": (4.0, 70.0), "c": (20.0, 30.4), "d": (9.0, None)}
    runs = [
        {
            "peer": peer,
            "environment_steps_per_second": 1000.0,
            "seconds_to_50%": half,
            "seconds_to_80%": most,
            "final_success_rate": 0.5,
            "points": [point],
        }
        for peer, (half, most) in ways.items()
    ]
    rows = peers.table(runs).splitlines()[2:]
    assert [[cell.strip() for cell in row.split("|")][1:6] for row in rows] == [
        ["c", "1", "1,000", "20", "30"],
        ["b", "1", "1,000", "4.0", "70"],
        ["d", "1", "1,000", "9.0", "not in 120"],
        ["a", "1", "1,000", "not in 120", "not in 120"],
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[brax-pp0]\nx = {}", "there is no peer brax-pp0"),
        ("[brax-ppo]\nlearning_rate = 1", "[brax-ppo] needs a table"),
        ("[brax-ppo", "cannot read"),
    ],
)
def test_tries_of_peers_that_say_something_wrong_are_told_in_one_line(tmp_path, text, told):
    tries = tmp_path / "tries.toml"
    tries.write_text(text)
    done = run("peers.py", "ball-go-to-target", "--tries", str(tries))
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_nothing_is_lost_by_a_few_faults(tmp_path):
    """Kills, damaged files, wrong recipes and command lines; the script does all of them by the hundreds."""
    done = run("faults.py", "--quick", "--out", str(tmp_path / "faults.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "faults.json").read_text())
    assert {name: len(cases) for name, cases in found.items() if cases} == {
        "kills": 2,
        "damage": 24,
        "recipes": 40,
    }


def test_the_soak_tells_leaks_and_cut_files(tmp_path):
    soak = load("soak")
    flat = {"open_files": 20.0, "threads": 9.0, "environment_steps_per_second": 100.0}
    samples = [{"resident_bytes": 1000.0 + growth, **flat} for growth in range(100)]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps({"environment_steps": steps}) + "\n" for steps in (40, 80, 160))
    )
    found = soak.told(samples, RunDirectory(tmp_path))
    assert not found["is_flat"]  # 1099 is more than 1.02 of 1019
    assert found["rows_missing"] == 1
    assert soak.told([{**x, "resident_bytes": 1000.0} for x in samples], RunDirectory(tmp_path))["is_flat"]
    events = tmp_path / "events"
    writer = RecordWriter(str(events))
    writer.write(b"one")
    writer.write(b"two")
    writer.close()
    assert soak.count_records(events) == 2
    events.write_bytes(events.read_bytes()[:-1])
    assert soak.count_records(events) == 0
