"""π(a|x) and μ(a|x) by samples of the latent, against integrals over a latent of one number; in ratios."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats
from small import ACTIONS, LATENT, SPECS, action_of, make_agent, make_window
from test_actor_critic import make as make_discrete
from test_actor_critic import make_discrete_window

from mjx_hkl.algorithms import hierarchy, learner
from mjx_hkl.algorithms.actor_critic import VTrace
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError
from mjx_hkl.models.steps import Latents

OBSERVATION = {name: jnp.linspace(-1.0, 1.0, spec.shape[0]) for name, spec in SPECS.items()}
GRID = np.linspace(-9.0, 9.0, 4001)  # of ε


def _drawn(agent, count, key):
    """`count` times the same observation: it, and latents of fresh noise."""
    many = {name: jnp.broadcast_to(x, (count, *x.shape)) for name, x in OBSERVATION.items()}
    noise = jax.random.normal(key, (count, agent.policy.latent_size))
    return many, agent.policy.draw(agent.start((count,)), many, noise)[1]


def _integral(agent, action):
    """∫ π^H(z) π^L(action|z) dz by the trapezoid rule."""
    high = agent.policy.high_level(OBSERVATION, jnp.zeros(1))
    z = high.mean + high.scale * jnp.asarray(GRID, jnp.float32)[:, None]
    many = {name: jnp.broadcast_to(x, (len(GRID), *x.shape)) for name, x in OBSERVATION.items()}
    low = action_of(agent, many, z)
    density = stats.norm.pdf(action, np.asarray(low.mean, float), np.asarray(low.scale, float)).prod(-1)
    return np.trapezoid(density * stats.norm.pdf(GRID), GRID)


def test_many_samples_give_the_integral():
    agent = make_agent(latent_size=1)
    keys = jax.random.split(jax.random.key(0), 3)
    many, latents = _drawn(agent, 3, keys[0])
    action = 0.7 * jax.random.normal(keys[1], (3, ACTIONS))
    noise = jax.random.normal(keys[2], (40_000, 3, 1))
    found = agent.log_marginal((), many, latents, noise, action)
    expected = np.log([_integral(agent, np.asarray(a)) for a in action])
    np.testing.assert_allclose(found, expected, atol=0.05)
    at_z = action_of(agent, many, latents.latent).log_prob(action)
    assert np.abs(at_z - expected).max() > 0.2  # what a single latent gives


@pytest.mark.parametrize("samples", [0, 1, 4])
def test_with_independent_latents_it_is_unbiased_for_the_density(samples):
    agent, count = make_agent(latent_size=1), 100_000
    keys = jax.random.split(jax.random.key(1), 2)
    many, latents = _drawn(agent, count, keys[0])
    noise = jax.random.normal(keys[1], (samples, count, 1))
    action = jnp.array([0.3, -0.2])
    found = agent.log_marginal((), many, latents, noise, jnp.broadcast_to(action, (count, ACTIONS)))
    _is_mean_of(np.exp(np.asarray(found, float)), _integral(agent, np.asarray(action)))


@pytest.mark.parametrize("samples", [0, 1, 4])
def test_with_the_latent_that_drew_the_action_ratios_are_unbiased(samples):
    """E f(a) / mean = ∫ f(a) da = 1 for a density f, here a Gaussian within reach of the policy."""
    agent, count = make_agent(latent_size=1), 100_000
    keys = jax.random.split(jax.random.key(2), 3)
    many, latents = _drawn(agent, count, keys[0])
    low = action_of(agent, many, latents.latent)
    action = low.draw(jax.random.normal(keys[1], (count, ACTIONS)))
    noise = jax.random.normal(keys[2], (samples, count, 1))
    found = np.asarray(agent.log_marginal((), many, latents, noise, action), float)
    centre, width = np.asarray(low.mean, float).mean(0), 0.5 * np.asarray(low.scale, float).min(0)
    f = stats.norm.pdf(np.asarray(action, float), centre, width).prod(-1)
    _is_mean_of(f / np.exp(found), 1.0)


def _is_mean_of(samples, expected):
    error = samples.std() / np.sqrt(len(samples))
    assert error < 0.02 * expected
    assert abs(samples.mean() - expected) < 4 * error


def test_a_kept_latent_is_the_only_one():
    agent = make_agent(latent_size=1)
    many, latents = _drawn(agent, 2, jax.random.key(0))
    latents = Latents(latents.distribution, latents.latent, latents.latent_tm1, jnp.array([[True], [False]]))
    action = jnp.full((2, ACTIONS), 0.1)
    found = agent.log_marginal((), many, latents, jax.random.normal(jax.random.key(1), (7, 2, 1)), action)
    at_z = action_of(agent, many, latents.latent).log_prob(action)
    np.testing.assert_allclose(found[1], at_z[1], rtol=1e-5)
    assert abs(found[0] - at_z[0]) > 1e-3


@pytest.mark.parametrize("kind", [SVG, VTrace])
def test_ratios_of_losses_are_of_the_means(kind):
    """Traces and V-trace's ratios from the policy's densities at each latent, summed by SciPy."""
    n, key = 3, jax.random.key(3)
    agent, window = make_agent(prior="ar1"), make_window()
    if kind is VTrace:
        agent, window = make_discrete(prior="ar1"), make_discrete_window(0, 5, 6)
    _, metrics = jax.jit(kind.loss, static_argnums=0)(
        kind(behaviour_samples=n), agent, hierarchy.Target(agent), window, key, {}
    )
    latent_key = jax.random.split(key)[0] if kind is SVG else key
    latents = jax.jit(hierarchy.redraw_latents)(agent, window.observation, window, latent_key)
    noise = jax.random.normal(jax.random.fold_in(key, 2), (7, n, 6, LATENT))
    ratio = np.zeros((5, 6))
    for t in range(5):
        x = {name: group[t] for name, group in window.observation.items()}
        mean, scale = latents.distribution.mean[t], latents.distribution.scale[t]
        all_latents = [latents.latent[t], *(mean + scale * e for e in noise[t])]
        log_probs = [_log_prob(action_of(agent, x, z), window.action[t]) for z in all_latents]
        ratio[t] = special.logsumexp(log_probs, axis=0) - np.log(n + 1) - window.behaviour_log_prob[t]
    expected = np.minimum(1.0, np.exp(ratio))[np.asarray(window.valid) > 0].mean()
    np.testing.assert_allclose(metrics["trace" if kind is SVG else "ratio"], expected, rtol=1e-4)


def test_a_low_level_that_remembers_is_asked_in_order():
    """One that says so and keeps nothing gives the same numbers as one that does not."""
    agent, window, key = make_agent(), make_window(), jax.random.key(0)
    seen = window.observation
    latents = jax.jit(hierarchy.redraw_latents)(agent, seen, window, key)
    log_marginal = jax.jit(hierarchy.log_marginal, static_argnums=5)
    expected = log_marginal(agent, seen, window, latents, key, 3)
    agent.policy.low_level.remembers = True
    found = log_marginal(agent, seen, window, latents, key, 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def _log_prob(distribution, action):
    if hasattr(distribution, "logits"):
        return special.log_softmax(distribution.logits, -1)[np.arange(len(action)), np.asarray(action)]
    return stats.norm.logpdf(action, np.asarray(distribution.mean), np.asarray(distribution.scale)).sum(-1)


def test_stored_noise_and_flat_policies_have_no_use_for_it():
    with pytest.raises(UserError, match="behaviour_samples needs latents 'redrawn'"):
        from_table(SVG, {"behaviour_samples": 2, "latents": "stored_noise"}, "recipe")
    with pytest.raises(UserError, match="a flat policy has no latents"):
        learner.init(make_agent(low_level="none"), SVG(behaviour_samples=2), 1, jax.random.key(0))
