import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import integrate, stats
from small import (
    ACTIONS,
    LATENT,
    SPECS,
    action_of,
    at,
    default_action_of,
    make_agent,
    make_window,
    next_index,
)

from mjx_hkl.algorithms import hierarchy
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.models.agent import PRIOR

STEPS, BATCH, KEY = 5, 6, jax.random.key(9)
redraw_latents, divergence = jax.jit(hierarchy.redraw_latents), jax.jit(hierarchy.divergence)
loss = jax.jit(SVG.loss, static_argnums=0)
gradients = jax.jit(jax.grad(SVG.loss, argnums=1, has_aux=True), static_argnums=0)
ALGORITHM = SVG(discount=0.9, retrace_lambda=0.8, kl_cost=0.3, entropy_cost=0.2, reward_scale=0.5)


@pytest.mark.parametrize("prior", ["ar1", "ar_learned"])
def test_latents_are_drawn_in_order_from_the_stored_one_and_afresh_in_a_new_episode(prior):
    agent, window = make_agent(prior), make_window()
    latents = redraw_latents(agent, window.observation, window, jax.random.key(0))
    for b in range(BATCH):
        goes_on = latents.latent_tm1[0, b] == window.carry.latent[b]
        assert not goes_on.any() if window.is_first[b] else goes_on.all()
        for t in range(STEPS):
            if not window.is_last[t, b] or t == STEPS - 1:
                np.testing.assert_array_equal(latents.latent_tm1[t + 1, b], latents.latent[t, b])
            elif t + 1 < STEPS:  # a draw that has nothing to do with the episode before
                assert (latents.latent_tm1[t + 1, b] != latents.latent[t, b]).all()
            if next_index(window, t, b) == STEPS + 1:
                np.testing.assert_array_equal(latents.latent_tm1[-1, b], latents.latent[t, b])
        for t in range(STEPS + 2):
            expected = agent.policy.high_level(at(window.observation, t, b), latents.latent_tm1[t, b])
            np.testing.assert_allclose(latents.distribution.mean[t, b], expected.mean, atol=1e-5)
            np.testing.assert_allclose(latents.distribution.scale[t, b], expected.scale, atol=1e-5)


@pytest.mark.parametrize("prior", ["isotropic", "ar1"])
def test_a_latent_is_kept_for_its_period_and_its_kl_counted_once(prior):
    agent, window = make_agent(prior, period=3), make_window(period=3)
    whole = window.replace(
        is_last=jnp.zeros((STEPS, BATCH)),
        discount=jnp.ones((STEPS, BATCH)),
        valid=jnp.ones((STEPS, BATCH)),
        is_first=jnp.zeros(BATCH),
    )
    whole = whole.replace(carry=whole.carry.replace(age=jnp.arange(BATCH) % 3))
    latents = redraw_latents(agent, whole.observation, whole, jax.random.key(0))
    action = action_of(agent, whole.observation, latents.latent)
    kl_high, *_ = divergence(agent, agent.default_policy, whole.observation, whole, latents, action, KEY)
    before = whole.carry.latent
    for t in range(STEPS + 1):
        draws = (np.arange(BATCH) + t) % 3 == 0
        changed = (latents.latent[t] != before).all(-1)
        np.testing.assert_array_equal(changed, draws)
        np.testing.assert_array_equal(kl_high[t] > 0, draws)
        before = latents.latent[t]


GRU = f"{Path(__file__).parents[2] / 'docs' / 'example' / 'gru_prior.py'}:GRU"
REMEMBERING = [("ar1", 1), ("ar_learned", 1), ("ar1", 3), ("isotropic", 3), (GRU, 1), (GRU, 2)]


@pytest.mark.parametrize(("prior", "period"), REMEMBERING)
def test_an_accelerators_way_to_draw_latents_gives_the_numbers_and_gradients_of_the_order(prior, period):
    """Episodes begin and are cut inside; gradients of everything that is drawn, by agent and observation."""
    agent, window = make_agent(prior, period=period), make_window(period=period)
    memory = window.carry.memory | {PRIOR: agent.default_policy.high_level.start((BATCH,))}
    window = window.replace(carry=window.carry.replace(memory=memory))
    shape = (STEPS + 2, BATCH, LATENT)
    noise, starts, *weights = (jax.random.normal(jax.random.key(i), shape) for i in range(5))
    arguments = window, noise, starts

    def weighed(agent, observation, draw):
        latents = draw(agent, observation, *arguments)
        drawn = (latents.latent, latents.distribution.mean, latents.distribution.scale)
        return sum((w * jnp.sin(x)).sum() for w, x in zip(weights, drawn, strict=True)), latents

    both = jax.jit(jax.grad(weighed, argnums=(0, 1), has_aux=True), static_argnums=2)
    expected, actual = (
        both(agent, window.observation, draw) for draw in (hierarchy.draw_in_order, hierarchy.draw_twice)
    )
    assert _norm(expected[0][0].policy.high_level) > 1
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_on_an_accelerator_no_gradient_of_latents_is_in_order(platform):
    """Two layers ask for three products backwards: those of all steps at once."""
    agent, window = make_agent("ar1"), make_window()

    def total(agent):
        latents = hierarchy.redraw_latents(agent, window.observation, window, jax.random.key(0))
        return (latents.latent + latents.distribution.scale).sum()

    def products(function):
        lowered = jax.jit(function).trace(agent).lower(lowering_platforms=(platform,))
        return lowered.as_text().count("stablehlo.dot_general")

    assert products(jax.value_and_grad(total)) == products(total) + 3


def _gradients(agent, target, window, algorithm=ALGORITHM):
    return gradients(algorithm, agent, target, window, jax.random.key(0), {})[0]


def _norm(tree):
    return float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(tree)))


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_the_policy_gradient_flows_through_a_and_not_through_qs_own_z(kind):
    """With a critic blind to actions nothing is left of the policy gradient, though Q depends on z."""
    agent, window = make_agent("isotropic", kind), make_window()
    algorithm = dataclasses.replace(ALGORITHM, kl_cost=0.0, entropy_cost=0.0)
    target = hierarchy.Target(make_agent("isotropic", kind, seed=1))
    assert _norm(_gradients(agent, target, window, algorithm).policy.high_level) > 1e-3  # by z into a
    kernel = target.critic.members[0].first.kernel
    target.critic.members[0].first.kernel = nnx.Param(kernel[...].at[-ACTIONS:].set(0.0))
    assert _norm(_gradients(agent, target, window, algorithm).policy) == 0.0


# With two columns the default policy is a part of the policy, which its loss therefore also moves.
KINDS = [("ar_learned", "shared"), ("isotropic", "separate"), ("none", "distral"), ("none", "distral_shared")]


@pytest.mark.parametrize(("prior", "kind"), KINDS)
def test_distillation_moves_the_default_policy_and_not_the_policy(prior, kind):
    def make(seed=0):
        return make_agent(prior, kind, seed=seed)

    agent, window = make(), make_window(latent_size=make().policy.latent_size)
    target = hierarchy.Target(make(1))
    before = _gradients(agent, target, window)
    agent.default_policy = make(5).default_policy  # what is distilled into changes; its target does not
    after = _gradients(agent, target, window)
    assert _norm(before.default_policy) > 1e-3
    for a, b in zip(jax.tree.leaves(before.policy), jax.tree.leaves(after.policy), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_invalid_does_not_matter():
    agent, window = make_agent("isotropic"), make_window()
    target = hierarchy.Target(make_agent("isotropic", seed=1))
    assert (window.valid == 0).any()
    garbage = jnp.where(window.valid > 0, window.reward, 1e6)
    before, _ = loss(ALGORITHM, agent, target, window, jax.random.key(0), {})
    after, _ = loss(ALGORITHM, agent, target, window.replace(reward=garbage), jax.random.key(0), {})
    assert before == after


def _divergence(agent, seed=0):
    window = make_window(seed, latent_size=agent.policy.latent_size)
    latents = redraw_latents(agent, window.observation, window, jax.random.key(seed))
    action = action_of(agent, window.observation, latents.latent)
    kl = divergence(agent, agent.default_policy, window.observation, window, latents, action, KEY)[:2]
    return window.observation, latents, action, kl


@pytest.mark.parametrize("kind", ["distral", "distral_two_column", "distral_shared"])
def test_the_kl_of_flat_policies_is_scipys_integral(kind):
    agent = make_agent(low_level=kind)
    observation, latents, action, (kl_high, kl_low) = _divergence(agent)
    default = default_action_of(agent, agent.default_policy, observation, latents.latent)
    np.testing.assert_array_equal(kl_high, jnp.zeros_like(kl_high))
    for t in range(3):
        expected = 0.0
        for i in range(ACTIONS):
            p = stats.norm(float(action.mean[t, 0, i]), float(action.scale[t, 0, i]))
            q = stats.norm(float(default.mean[t, 0, i]), float(default.scale[t, 0, i]))
            reach = p.mean() - 9 * p.std(), p.mean() + 9 * p.std()
            expected += integrate.quad(lambda a, p=p, q=q: p.pdf(a) * (p.logpdf(a) - q.logpdf(a)), *reach)[0]
        np.testing.assert_allclose(kl_low[t, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_kl_of_both_levels_bounds_that_of_the_actions(seed):
    """Eq. 6, by Monte Carlo: KL(a|x) <= KL(z|x) + E_z KL(a|z,x)."""
    agent = make_agent("isotropic", "separate", seed=seed)
    observation = {name: jax.random.normal(jax.random.key(seed), spec.shape) for name, spec in SPECS.items()}
    draws, actions = 4000, 4000
    keys = jax.random.split(jax.random.key(seed + 1), 3)
    high = agent.policy.high_level(observation, jnp.zeros(2))
    z = high.mean + high.scale * jax.random.normal(keys[0], (draws, 2))
    z_default = jax.random.normal(keys[1], (draws, 2))
    many = {name: jnp.broadcast_to(group, (draws, *group.shape)) for name, group in observation.items()}
    low = action_of(agent, many, z)
    low_default = default_action_of(agent, agent.default_policy, many, z)
    marginal_default = default_action_of(agent, agent.default_policy, many, z_default)
    a = np.asarray(low.mean + low.scale * jax.random.normal(keys[2], (draws, ACTIONS)))[:actions]

    def log_marginal(mixture):
        each = stats.norm.logpdf(a[:, None], np.asarray(mixture.mean), np.asarray(mixture.scale)).sum(-1)
        return np.logaddexp.reduce(each, axis=1) - np.log(draws)

    kl_of_actions = (log_marginal(low) - log_marginal(marginal_default)).mean()
    kl_high = high.kl_divergence(agent.default_policy.high_level(jnp.zeros(2)))
    kl_low = low.kl_divergence(low_default).mean()
    assert 0.05 < kl_of_actions < kl_high + kl_low


def test_separate_with_tied_weights_is_shared():
    """Eq. 9 becomes eq. 10: the same losses, the same gradient of the policy, no KL of the low level."""
    shared, separate = make_agent("ar1", "shared"), make_agent("ar1", "separate")
    target = make_agent("ar1", "separate", seed=1)
    for agent in (separate, target):
        agent.policy = shared.policy
        own, low_level = agent.default_policy.low_level, shared.policy.low_level
        own.inputs, own.torso, own.head = low_level.inputs, low_level.torso, low_level.head
    separate.critic = shared.critic
    plain_target = make_agent("ar1", "shared", seed=1)
    plain_target.critic = target.critic
    window = make_window()
    one, metrics = loss(ALGORITHM, separate, hierarchy.Target(target), window, jax.random.key(0), {})
    other, _ = loss(ALGORITHM, shared, hierarchy.Target(plain_target), window, jax.random.key(0), {})
    np.testing.assert_allclose(metrics["kl_low"], 0.0, atol=1e-6)
    np.testing.assert_allclose(one, other, rtol=1e-5)
    actual = _gradients(separate, hierarchy.Target(target), window).policy
    expected = _gradients(shared, hierarchy.Target(plain_target), window).policy
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
