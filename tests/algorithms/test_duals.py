"""Costs that are learned: α holds the KL at a target, α_H the entropy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from small import LATENT, make_agent, make_window
from test_actor_critic import make as make_discrete
from test_actor_critic import make_discrete_window

from mjx_hkl.algorithms import hierarchy, learner
from mjx_hkl.algorithms.actor_critic import VTrace
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError

ALGORITHM = SVG(kl_cost=0.3, entropy_cost=0.2, target_kl=1.5, target_entropy=0.7, dual_learning_rate=0.05)
UPDATES = 2000


def _with_constant_heads(agent):
    """Heads that do not look at their inputs, so that all distributions are one."""
    for level in (agent.policy.high_level, agent.policy.low_level):
        level.head.linear.kernel[...] = jnp.zeros_like(level.head.linear.kernel[...])
    return agent


@pytest.mark.long
def test_the_gradient_of_a_cost_is_how_far_its_target_is_off():
    """KL and entropy of the same Gaussians at every step, by their textbook formulas and by SciPy."""
    agent, window = _with_constant_heads(make_agent()), make_window()
    own = ALGORITHM.parameters(agent, jax.random.key(0))
    observation = {name: x[0, 0] for name, x in window.observation.items()}
    high = agent.policy.high_level(observation, jnp.zeros(LATENT))
    low = agent.policy.low_level(observation, jnp.zeros(LATENT))
    mean, scale = np.asarray(high.mean), np.asarray(high.scale)
    kl = np.sum((scale**2 + mean**2 - 1) / 2 - np.log(scale))  # to N(0, 1)
    entropy = stats.norm(scale=np.asarray(low.scale)).entropy().sum()
    found, metrics = jax.grad(SVG.loss, argnums=5, has_aux=True)(
        ALGORITHM, agent, hierarchy.Target(agent), window, jax.random.key(0), own
    )
    np.testing.assert_allclose(found["log_kl_cost"], 1.5 - kl, rtol=1e-4)
    np.testing.assert_allclose(found["log_entropy_cost"], entropy - 0.7, rtol=1e-4)
    np.testing.assert_allclose((metrics["kl_cost"], metrics["entropy_cost"]), (0.3, 0.2), rtol=1e-6)


@pytest.mark.long
@pytest.mark.parametrize("name", ["kl", "entropy"])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_cost_rises_where_it_must(name, side):
    """By the learner's own optimizers: α where the KL is above its target, α_H where entropy is below."""
    agent, window = make_agent(), make_window()
    _, metrics = SVG.loss(ALGORITHM, agent, hierarchy.Target(agent), window, jax.random.key(1), _own(agent))
    now = metrics["kl_high"] + metrics["kl_low"] if name == "kl" else metrics["entropy"]
    target = float(now) + 0.01 * side
    algorithm = dataclasses.replace(ALGORITHM, **{f"target_{name}": target})
    state = learner.init(agent, algorithm, UPDATES, jax.random.key(0))
    after, _ = learner.update(state, window, jax.random.key(1), jnp.int32(1), algorithm, UPDATES)
    change = after.own[f"log_{name}_cost"] - state.own[f"log_{name}_cost"]
    rises = side < 0 if name == "kl" else side > 0
    np.testing.assert_allclose(change, 0.05 if rises else -0.05, rtol=1e-3)  # Adam's first step


def _own(agent):
    return ALGORITHM.parameters(agent, jax.random.key(0))


@pytest.mark.parametrize("kind", [SVG, VTrace])
def test_the_costs_that_losses_use_are_the_learned_ones_and_no_loss_but_theirs_moves_them(kind):
    if kind is SVG:
        agent, window = make_agent(), make_window()
    else:
        agent, window = make_discrete(), make_discrete_window(0, 5, 6)
    learned = kind(kl_cost=0.3, entropy_cost=0.2, target_kl=1.5, target_entropy=0.7)
    own = {"log_kl_cost": jnp.log(0.6), "log_entropy_cost": jnp.log(0.1)}
    given = agent, hierarchy.Target(agent), window, jax.random.key(0)
    total, metrics = learned.loss(*given, own)
    plain, expected = kind(kl_cost=0.6, entropy_cost=0.1).loss(*given, {})
    off = 1.5 - expected["kl_high"] - expected["kl_low"], expected["entropy"] - 0.7
    np.testing.assert_allclose(total, plain + off[0] * jnp.log(0.6) + off[1] * jnp.log(0.1), rtol=1e-5)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    assert set(metrics) - set(expected) == {"kl_cost", "entropy_cost"}


def test_kl_and_entropy_come_to_their_targets():
    """The policy learns on, from the same few windows, and starts 0.7 and 1.4 nats away."""
    algorithm = dataclasses.replace(
        ALGORITHM, target_entropy=0.4, policy_learning_rate=3e-3, dual_learning_rate=0.02
    )
    state = learner.init(make_agent(), algorithm, UPDATES, jax.random.key(0))
    windows = jax.tree.map(lambda *x: jnp.stack(x), *(make_window(seed) for seed in range(4)))

    def step(state, count):
        window = jax.tree.map(lambda x: x[count % 4], windows)
        return learner.update(state, window, jax.random.key(count), count, algorithm, UPDATES)

    _, metrics = jax.jit(lambda state: jax.lax.scan(step, state, 1 + jnp.arange(UPDATES)))(state)
    kl, entropy = (np.asarray(x) for x in (metrics["kl_high"] + metrics["kl_low"], metrics["entropy"]))
    assert abs(kl[:100].mean() - 1.5) > 0.5
    assert abs(entropy[:100].mean() - 0.4) > 0.5
    np.testing.assert_allclose(kl[-1000:].mean(), 1.5, atol=0.15)
    np.testing.assert_allclose(entropy[-1000:].mean(), 0.4, atol=0.15)


def test_without_targets_nothing_is_learned():
    assert SVG().parameters(make_agent(), jax.random.key(0)) == {}


@pytest.mark.parametrize("name", ["kl", "entropy"])
def test_a_cost_of_zero_cannot_be_learned(name):
    table = {f"target_{name}": 1.0, f"{name}_cost": 0.0}
    with pytest.raises(UserError, match=f"{name}_cost must be above 0 with target_{name}"):
        from_table(SVG, table, "recipe")


def test_a_policy_without_a_default_policy_has_no_kl_to_hold():
    with pytest.raises(UserError, match="target_kl: this policy has no default policy"):
        learner.init(make_agent(low_level="none"), ALGORITHM, UPDATES, jax.random.key(0))
