"""Images in replay: stored or drawn again, shifted, encoded once, and seen by nobody who must not."""

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from seeing import Seeing, image_of

from mjx_hkl.algorithms import replay
from mjx_hkl.algorithms.window import time_major
from mjx_hkl.environments.world import VISION, VISION_STATE
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_environment, make_loop, make_train_step, resolve
from mjx_hkl.experiments.recipe import change
from mjx_hkl.experiments.reporter import Silent, announce
from mjx_hkl.models.images import ConvEncoder
from mjx_hkl.training import devices
from mjx_hkl.training.views import shifted

SEES = {
    "high_level": [VISION, "proprioception"],
    "low_level": ["proprioception"],
    "critic": [VISION, "proprioception"],
    "default": ["proprioception"],
}
CONV = {"kind": "conv", "channels": [2], "kernel": [4], "stride": [4], "embedding": 5}


@pytest.fixture(scope="module")
def world(ball):
    return Seeing(ball)


@pytest.fixture(scope="module")
def recipe(tiny_recipe):
    return change(tiny_recipe, min_replay=20, information=SEES, encoders={VISION: CONV | {"shared": True}})


def state_after(recipe, world, steps=3):
    step = make_train_step(recipe, world)

    def run(key):
        state, metrics = step.init(key), {}
        for _ in range(steps):
            state, metrics = step.step(state)
        return state, metrics

    return step, *jax.jit(run)(jax.random.key(0))


@pytest.fixture(scope="module")
def learned(recipe, world):
    return state_after(recipe, world)


def test_replay_keeps_bytes_and_no_more_than_it_needs(recipe, world, tiny_recipe):
    def kept(recipe):
        step = make_train_step(recipe, world)
        return step, jax.eval_shape(lambda: step.init(jax.random.key(0)).replay)

    step, stored = kept(recipe)
    assert {name for name, _ in stored.layout.arrays} == {"float32", "uint8", "bool", "int32"}
    drawn, nothing = (kept(x)[1] for x in (change(recipe, images="drawn"), tiny_recipe))
    groups = [set(_groups(ring)) for ring in (stored, drawn, nothing)]
    images = _groups(stored)[VISION]
    assert images.dtype == jnp.uint8
    assert groups[0] - groups[2] == {VISION}
    assert groups[1] - groups[2] == {VISION_STATE}
    bare = devices.tree_bytes(nothing)
    for kind, ring in (("stored", stored), ("drawn", drawn)):
        assert step.images_bytes[kind] == devices.tree_bytes(ring) - bare
    # Each of 8 x 8 x 3 bytes, or 9 numbers of 4: all steps of all windows and the two observations after.
    assert step.images_bytes["stored"] == np.prod(images.shape[:2]) * (5 + 2) * 192
    assert step.images_bytes["drawn"] == np.prod(images.shape[:2]) * (5 + 2) * 36


def _groups(ring):
    return jax.eval_shape(lambda ring: ring.windows.observation, ring)


@pytest.mark.long
def test_images_drawn_again_are_those_that_were_stored(recipe, world, learned):
    """The same program but for where images come from: learning is the same to rounding."""
    (_, stored, metrics), (_, drawn, expected) = learned, state_after(change(recipe, images="drawn"), world)
    windows, again = (
        state.replay.windows.observation[name][:, :3]  # what three train steps have written
        for state, name in ((stored, VISION), (drawn, VISION_STATE))
    )
    np.testing.assert_array_equal(windows, world.drawing({VISION_STATE: again}))
    written = np.asarray(again[:, 0, 0])
    for state, image in zip(written, np.asarray(windows[:, 0, 0]), strict=True):
        np.testing.assert_array_equal(image[..., 0], image_of(state))
    assert float(metrics["updates"]) > 0
    for a, b in zip(*map(jax.tree.leaves, (stored.learner.agent, drawn.learner.agent)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    np.testing.assert_allclose(metrics["critic_loss"], expected["critic_loss"], rtol=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_a_shared_encoder_is_run_once_for_all_who_see(recipe, world, monkeypatch, shared):
    """Once for the agent and once for its target; else by the high level, and by each critic at each use."""
    calls = []

    def counted(encoder, x, call=ConvEncoder.__call__):
        calls.append(x.shape[:-3])
        return call(encoder, x)

    step = make_train_step(change(recipe, encoders={VISION: CONV | {"shared": shared}}), world)
    state = jax.eval_shape(step.init, jax.random.key(0))

    def loss(state, key):
        windows = time_major(replay.sample(state.replay, key, 4, jnp.ones((), jnp.int32)))
        return step.algorithm.loss(state.learner.agent, state.learner.target, windows, key, {})

    monkeypatch.setattr(ConvEncoder, "__call__", counted)
    jax.eval_shape(loss, state, jax.random.key(1))
    # High level, target critic for the policy and for Q, critic.
    assert calls == ([(7, 4)] * 2 if shared else [(7, 4)] * 2 + [(5, 4)] * 2)


def test_policy_and_critic_move_a_shared_encoder_and_its_target_follows(learned):
    step, state, _ = learned
    first = jax.jit(step.init)(jax.random.key(0)).learner
    for a, b in zip(*map(jax.tree.leaves, (first.agent.encoders, state.learner.agent.encoders)), strict=True):
        assert np.abs(a - b).max() > 0
    target = jax.tree.leaves(state.learner.target.encoders)
    rate, period = step.algorithm.target_update_rate, step.algorithm.target_update_period
    assert rate < 1, "a Polyak average is behind"
    assert period == 3
    for begun, now, old in zip(
        *map(jax.tree.leaves, (first.agent.encoders, state.learner.agent.encoders)), target, strict=True
    ):
        moved, followed = np.linalg.norm(now - begun), np.linalg.norm(old - begun)
        assert 0 < followed < moved


def test_a_window_is_shifted_as_one_with_its_edges_repeated(learned):
    """Against NumPy's own padding: some offset, one for all images of a window, gives them all."""
    _, state, _ = learned
    windows = jax.tree.map(lambda x: jnp.concatenate([x[:, 0]] * 8), state.replay.windows)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, windows.observation[VISION].shape, np.uint8)
    windows = windows.replace(observation={**windows.observation, VISION: jnp.asarray(images)})
    seen = jax.jit(lambda key: shifted(windows, key, 2))(jax.random.key(1))
    offsets = []
    for before, after in zip(images, np.asarray(seen.observation[VISION]), strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2), (0, 0)), "edge")
        found = [
            (y, x) for y in range(5) for x in range(5) if (padded[:, y : y + 8, x : x + 8] == after).all()
        ]
        assert len(found) == 1
        offsets += found
    assert {y for y, _ in offsets} == {x for _, x in offsets} == set(range(5))
    others = [w.replace(observation=w.observation | {VISION: ()}) for w in (windows, seen)]
    for a, b in zip(*map(jax.tree.leaves, others), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.long
def test_it_learns_from_shifted_images_that_are_drawn_again(recipe, world, learned):
    algorithm = dataclasses.replace(recipe.algorithm, image_shift=1)
    _, _, plain = learned
    _, _, metrics = state_after(change(recipe, algorithm=algorithm, images="drawn"), world)
    assert np.isfinite(metrics["critic_loss"])
    assert metrics["critic_loss"] != plain["critic_loss"]


def test_the_low_level_does_not_see_the_image(learned):
    """Another image moves the latent; with that held, the distribution of actions stays, bit for bit."""
    _, state, _ = learned
    agent, observation = state.learner.agent, state.actor.env.observation
    other = {**observation, VISION: 255 - observation[VISION]}
    carry, first = agent.start((4,)), jnp.ones(4, bool)
    noise = agent.noise(jax.random.key(0), (4,))
    (_, a), (_, b) = (agent.step(carry, seen, first, noise) for seen in (observation, other))
    assert (np.abs(a.latents.latent - b.latents.latent) > 0).any(-1).all()

    def acts(seen):
        return agent.default_policy.low_level.policy_action(
            agent.policy.low_level, (), seen, a.latents.latent
        )[1]

    for x, y in zip(*map(jax.tree.leaves, (acts(observation), acts(other))), strict=True):
        np.testing.assert_array_equal(x, y)


def test_by_default_no_module_sees_what_images_are_drawn_from(world, tiny_recipe):
    open_recipe = change(tiny_recipe, information={name: [] for name in SEES}, encoders={"all": "mlp"})
    resolved = resolve(open_recipe, world)
    assert not resolved.information.is_seen(VISION_STATE)
    assert VISION_STATE not in resolved.encoders
    assert VISION in resolved.information.high_level
    assert VISION not in resolved.information.low_level


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"information": SEES | {"critic": [VISION_STATE]}}, "information.critic names vision_state"),
        ({"information": SEES | {"low_level": [VISION]}}, "information.low_level names vision: a low level"),
        ({"algorithm": {"relabelled": 0.5}}, "algorithm.relabelled: "),
        (
            {"information": {name: ["proprioception"] for name in SEES}, "algorithm": {"image_shift": 2}},
            "image_shift",
        ),
    ],
)
def test_what_cannot_be_is_told_in_a_line(recipe, world, changes, told):
    world = Seeing(world._world)
    world.relabelling = lambda *_: None
    with pytest.raises(UserError) as error:
        make_environment(change(recipe, **changes), world=cast(Any, world))
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_images_without_an_encoder_or_a_camera_are_told_in_a_line(recipe, world, ball, tiny_recipe):
    bare = dataclasses.replace(recipe, encoders={})
    with pytest.raises(UserError, match=r'8x8x3 uint8.*\[encoders.vision\] with kind = "conv"'):
        make_loop(bare, world).abstract  # noqa: B018 - before anything is compiled
    with pytest.raises(UserError, match='images is "drawn", but ball-go-to-target has no camera'):
        make_environment(change(tiny_recipe, images="drawn"), world=ball)


def test_the_memory_of_images_is_told_before_the_run(recipe, world):
    said = []

    class Reporter(Silent):
        def say(self, text):
            said.append(text)

    announce(recipe, make_loop(recipe, world), Reporter())
    assert said[-1].startswith("images in replay: ")
    assert said[-1].endswith("now: stored")
