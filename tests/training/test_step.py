import dataclasses
import logging
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_hkl.algorithms import learner
from mjx_hkl.algorithms.hierarchy import policy_actions, redraw_latents
from mjx_hkl.algorithms.window import Window, time_major
from mjx_hkl.experiments.build import make_loop, make_train_step, resolve
from mjx_hkl.experiments.recipe import change, load_recipe
from mjx_hkl.experiments.snapshots import agent_of_seed
from mjx_hkl.models.priors import AR1, ARLearned
from mjx_hkl.training import checkpoint, devices
from mjx_hkl.training.views import through_symmetries, under_other_instructions


def leaves_equal(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def loop(tiny_recipe):
    return make_loop(tiny_recipe)


@pytest.mark.accelerator
def test_after_the_start_nothing_is_compiled_and_scalars_alone_are_transferred(loop, caplog):
    """Only the explicit fetch of an interval's metrics may cross between host and device."""
    intervals = loop.intervals(loop.init())
    next(intervals)
    with caplog.at_level(logging.WARNING, logger="jax"), jax.log_compiles():
        with jax.transfer_guard("disallow"):
            for state, rows in intervals:
                pass
        assert not [r for r in caplog.records if "ompil" in r.getMessage()]
        jax.jit(lambda x: x + len(rows))(1.0)  # what a compilation would have looked like
        assert [r for r in caplog.records if "ompil" in r.getMessage()]
    assert int(state.iteration) == 8


@pytest.mark.accelerator
def test_replay_stays_in_place_inside_the_whole_program(loop, tiny_recipe):
    """Ten times the capacity needs no more temporary memory: nothing copies the ring."""
    larger = make_loop(dataclasses.replace(tiny_recipe, replay_capacity=10 * tiny_recipe.replay_capacity))
    growth = devices.tree_bytes(larger.abstract) - devices.tree_bytes(loop.abstract)
    temporary = [x.program.memory_analysis().temp_size_in_bytes for x in (loop, larger)]
    assert temporary[1] - temporary[0] < 0.1 * growth


def test_the_state_keeps_its_types_so_that_jit_compiles_once(tiny_recipe):
    step = make_train_step(tiny_recipe)
    before = jax.eval_shape(step.init, jax.random.key(0))
    after, _ = jax.eval_shape(step.step, before)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
    assert jax.tree.structure(before) == jax.tree.structure(after)


def test_time_limits_end_episodes_as_often_at_the_start_as_later():
    """A tenth of the worlds reach the time limit in a tenth of it: 256 · 40 / 400 ± 4.8, successes apart."""
    recipe = resolve(load_recipe("grid-8-step"))
    step = make_train_step(recipe)
    _, metrics = jax.jit(lambda key: step.step(step.init(key)))(jax.random.key(0))
    assert 256 * 40 / 400 - 3 * 4.8 < metrics["episodes"] - metrics["success"] < 256 * 40 / 400 + 3 * 4.8


def test_no_update_before_min_replay(loop, tiny_recipe):
    step = loop.schedule.train_step
    assert step.warmup == 3  # 80 transitions are there after the fourth step of 20
    rows, agents = [], []
    for state, row in loop.intervals(loop.init()):
        rows += row
        agents.append(jax.device_get(jax.tree.leaves(state.learner.agent)))
    start = jax.device_get(jax.tree.leaves(loop.init().learner.agent))
    same = [all((a == b).all() for a, b in zip(start, agent, strict=True)) for agent in agents]
    assert same == [True, False, False, False]
    assert [row["learner_steps"] for row in rows] == [0, 40, 120, 200]
    assert [row["environment_steps"] for row in rows] == [40, 80, 120, 160]
    assert rows[0]["critic_loss"] is None
    assert rows[1]["critic_loss"] is not None


@pytest.mark.parametrize(
    ("worlds", "windows", "ratio", "updates", "in_effect"),
    [
        (256, 64, 8.0, 32, 8.0),
        (4096, 64, 8.0, 512, 8.0),
        (4096, 0, 1.0, 1, 1.0),  # each window once
        (1, 512, 512.0, 1, 512.0),
        (3, 4, 2.0, 2, 8 / 3),  # 1.5 updates are not to be had
    ],
)
def test_more_worlds_are_followed_by_more_updates(tiny_recipe, worlds, windows, ratio, updates, in_effect):
    algorithm = dataclasses.replace(tiny_recipe.algorithm, batch_size=windows, replay_ratio=ratio)
    step = make_train_step(dataclasses.replace(tiny_recipe, num_envs=worlds, algorithm=algorithm))
    assert (step.updates, step.replay_ratio) == (updates, pytest.approx(in_effect))
    assert step.learner_steps == updates * (windows or worlds) * algorithm.unroll_length


def test_the_greatest_recency_learns_from_the_newest_unroll_alone(tiny_recipe, monkeypatch):
    """While replay fills, when it is full, and when it is written over; an update takes one of each world."""
    algorithm = dataclasses.replace(tiny_recipe.algorithm, replay_ratio=1.0, recency=1e9)
    step = make_train_step(dataclasses.replace(tiny_recipe, algorithm=algorithm, min_replay=20))

    def update(state, window, *rest):
        return state, {"action": window.action}

    monkeypatch.setattr(learner, "update", update)
    state, jitted = jax.jit(step.init)(jax.random.key(0)), jax.jit(step.step)
    for iteration in range(13):
        state, metrics = jitted(state)
        newest = state.replay.windows.action[:, iteration % 10]
        np.testing.assert_array_equal(np.swapaxes(metrics["action"], 0, 1), newest)


def test_a_seed_beside_others_is_the_seed_alone(tiny_recipe):
    alone = make_loop(dataclasses.replace(tiny_recipe, seed=1))
    beside = make_loop(dataclasses.replace(tiny_recipe, seed=0, num_seeds=2))
    *_, (single, single_rows) = alone.intervals(alone.init())
    *_, (both, both_rows) = beside.intervals(beside.init())
    pick = jax.tree.map(lambda x: x[1:], both.replace(iteration=None))
    leaves_equal(single.key, pick.key)
    # the same computation, batched: equal but for the order of float additions
    np.testing.assert_allclose(single.replay.windows.action, pick.replay.windows.action, atol=1e-2)
    q_alone, q_beside = single_rows[0]["q"], both_rows[1]["q"]
    assert q_alone is not None
    assert q_beside is not None
    np.testing.assert_allclose(q_alone, q_beside, rtol=1e-2, atol=1e-3)
    first, second = both.replay.windows.action
    assert np.abs(first - second).max() > 0.1
    assert [row["seed"] for row in both_rows] == [0, 1]
    assert single_rows[0]["environment_steps"] == both_rows[1]["environment_steps"]
    different = [(b[0] != b[1]).any() for b in jax.tree.leaves(both.learner.agent.policy)]
    assert any(different)


def test_what_is_evaluated_and_exported_of_a_seed_is_its_average(tiny_recipe):
    loop = make_loop(dataclasses.replace(tiny_recipe, num_seeds=2))
    *_, (state, _) = loop.intervals(loop.init())
    agent, last = agent_of_seed(state, 1), jax.tree.map(lambda x: x[1], state.learner.agent)
    average = jax.tree.map(lambda x: x[1], state.learner.average)
    leaves_equal(agent.policy, average["policy"])
    leaves_equal(agent.default_policy, average["default_policy"])
    leaves_equal(agent.critic, last.critic)
    pairs = zip(jax.tree.leaves(agent.policy), jax.tree.leaves(last.policy), strict=True)
    assert any((one != other).any() for one, other in pairs)


@pytest.mark.long
@pytest.mark.parametrize("prior", [AR1(), ARLearned(sizes=(8,))])
def test_autoregressive_priors_train(tiny_recipe, prior):
    default = dataclasses.replace(tiny_recipe.default_policy, high_level=prior)
    loop = make_loop(dataclasses.replace(tiny_recipe, default_policy=default))
    *_, (_, rows) = loop.intervals(loop.init())
    assert np.isfinite(rows[0]["critic_loss"])
    assert rows[0]["kl_high"] > 0


def test_the_flat_baseline_trains_on_one_world_and_survives_a_checkpoint(flat_recipe, tmp_path):
    loop = make_loop(flat_recipe)
    *_, (state, rows) = loop.intervals(loop.init())
    assert rows[0]["kl_high"] == 0
    assert np.isfinite(rows[0]["critic_loss"])
    checkpoint.save(tmp_path, state, 160, {}, keep=1)  # its latent is an empty array
    leaves_equal(checkpoint.restore(tmp_path, loop.abstract).state, state)


def test_each_window_is_seen_through_a_symmetry_of_its_own_for_all_its_observations(tiny_recipe):
    """Targets and instruction of a window in one of six orders, against all six written out."""
    step = make_train_step(tiny_recipe)
    windows = jax.jit(lambda key: step.step(step.init(key))[0].replay.windows)(jax.random.key(0))
    windows = jax.tree.map(lambda x: jnp.concatenate([x[:, 0]] * 8), windows)
    seen = jax.jit(lambda key: through_symmetries(step.environment.env, windows, key))(jax.random.key(1))
    before, after = windows.observation, seen.observation
    chosen = []
    for i in range(len(windows.reward)):
        same = [
            (before["targets"][i].reshape(-1, 3, 2)[:, order].reshape(-1, 6) == after["targets"][i]).all()
            and (before["instruction"][i][:, order] == after["instruction"][i]).all()
            for order in map(np.array, permutations(range(3)))
        ]
        assert sum(same) == 1
        chosen.append(same.index(True))
    assert len(set(chosen)) > 2
    np.testing.assert_array_equal(before["proprioception"], after["proprioception"])
    leaves_equal(windows.replace(observation=()), seen.replace(observation=()))


def relabelled_by_hand(x, is_last, discount, valid):
    """Step by step: x > 0 solves the other instruction, which pays 5 where x > 1 too."""
    reward = np.zeros(len(is_last), np.float32)
    is_last, discount, valid = is_last.copy(), discount.copy(), valid.copy()
    for t in range(len(is_last)):
        if is_last[t] and not discount[t]:
            valid[t] = False
            continue
        cut = is_last[t] and t < len(is_last) - 1
        there = x[-1] if cut else x[t + 1]
        reward[t] = 5.0 * (there > 1)
        if there > 0:
            is_last[t], discount[t] = True, False
    return reward, is_last, discount, valid


def test_windows_under_other_instructions():
    """Random windows, with terminations and a truncation inside, against a loop; and the share of them."""
    random, batch, steps = np.random.default_rng(0), 400, 6
    terminates = random.random((batch, steps)) < 0.1
    cut = np.arange(steps) == random.integers(0, 3 * steps, (batch, 1))
    asked = random.integers(0, 2, batch)
    windows = Window(
        observation={
            "x": jnp.asarray(random.normal(size=(batch, steps + 2)) + 0.5, jnp.float32),
            "instruction": jnp.tile(jnp.asarray(asked, jnp.float32)[:, None], (1, steps + 2)),
        },
        carry=(),
        is_first=jnp.zeros(batch, bool),
        action=jnp.asarray(random.normal(size=(batch, steps, 2)), jnp.float32),
        behaviour_log_prob=jnp.asarray(random.normal(size=(batch, steps)), jnp.float32),
        reward=jnp.asarray(7.0 * terminates, jnp.float32),
        discount=jnp.asarray(~terminates),
        is_last=jnp.asarray(terminates | cut),
        valid=jnp.asarray(random.random((batch, steps)) < 0.9),
    )

    def relabel(key, observation):
        x = observation["x"]
        given = {"x": x, "instruction": jnp.ones_like(x)}
        return given, 5.0 * (x > 1), (x > 0).astype(jnp.float32)

    world: Any = SimpleNamespace(relabelling=relabel)
    found = under_other_instructions(world, windows, jax.random.key(0), 0.7)
    changed = np.asarray((found.observation["instruction"] != windows.observation["instruction"]).all(1))
    assert not changed[asked == 1].any()  # it was that one, and all about it is known
    assert changed[asked == 0].mean() == pytest.approx(0.7, abs=0.1)
    for i in range(batch):
        before, after = (jax.tree.map(lambda x, i=i: np.asarray(x[i]), w) for w in (windows, found))
        outcomes = before.reward, before.is_last, before.discount, before.valid
        if changed[i]:
            outcomes = relabelled_by_hand(before.observation["x"], *outcomes[1:])
        for value, expected in zip(
            (after.reward, after.is_last, after.discount, after.valid), outcomes, strict=True
        ):
            np.testing.assert_array_equal(value, expected)
        for same in ("action", "behaviour_log_prob", "is_first"):
            np.testing.assert_array_equal(getattr(after, same), getattr(before, same))


@pytest.mark.long
def test_kept_noise_symmetries_and_other_instructions_train(tiny_recipe):
    algorithm = dataclasses.replace(
        tiny_recipe.algorithm, latents="stored_noise", symmetries=True, relabelled=0.5
    )
    loop = make_loop(dataclasses.replace(tiny_recipe, algorithm=algorithm))
    *_, (state, rows) = loop.intervals(loop.init())
    assert np.isfinite(rows[0]["critic_loss"])
    assert state.replay.windows.noise.latent.shape == (1, 4, 10, 5, 2)  # seeds, worlds, slots, steps, latent


def test_from_kept_noise_ratios_of_choices_are_one_before_anything_is_learned():
    """V-trace's, on a grid, where episodes end inside windows."""
    recipe = resolve(load_recipe("grid-1-step"))
    algorithm = dataclasses.replace(recipe.algorithm, latents="stored_noise")
    step = make_train_step(dataclasses.replace(recipe, algorithm=algorithm))

    def log_probs(key):
        state = step.init(key)
        agent = state.learner.agent
        _, windows, _ = step.act(agent, state.actor, key, state.iteration)
        window = time_major(windows)
        latents = redraw_latents(agent, window.observation, window, key)
        action = policy_actions(agent, window.observation, window, latents)
        steps = len(window.reward)
        found = jax.tree.map(lambda x: x[:steps], action).log_prob(window.action)
        return found, window.behaviour_log_prob, window.is_last

    found, expected, is_last = jax.jit(log_probs)(jax.random.key(0))
    assert is_last[:-1].any()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.long
def test_statistics_are_those_of_all_observations_acted_on_also_before_the_first_update(tiny_recipe):
    """Of each seed, against numpy's of a replay that holds all; targets and evaluation see by the same."""
    recipe = change(
        tiny_recipe, num_seeds=2, encoders={"all": "normalized"}, algorithm={"policy_average_updates": 5}
    )
    loop = make_loop(resolve(recipe))
    for state, rows in loop.intervals(loop.init()):
        steps = int(rows[0]["environment_steps"] or 0)
        for seed in range(2):
            shown = state.replay.windows.observation["targets"][seed, :, : steps // 20, :5]
            shown = np.asarray(shown, np.float64).reshape(steps, -1)
            learner, agent = state.learner, agent_of_seed(state, seed)
            for module in (learner.agent.critic, learner.target.critic, learner.average["policy"].high_level):
                found = jax.tree.map(lambda x: x[seed], module).inputs.encoders.targets  # noqa: B023 - used at once
                assert found.count[...] == steps
                np.testing.assert_allclose(found.mean[...], shown.mean(0), rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(found.variance[...], shown.var(0), rtol=1e-3)
            np.testing.assert_array_equal(
                agent.policy.high_level.inputs.encoders.targets.mean[...], found.mean
            )


@pytest.mark.gpu
def test_the_train_step_runs_on_the_accelerator(loop):
    *_, (state, _) = loop.intervals(loop.init())
    assert all(x.devices() == {jax.devices()[0]} for x in jax.tree.leaves(state.learner))
