import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from slow_reference import SlowActorCritic
from small import ACTIONS, LATENT, make_agent, make_window, noise_of, with_noise

from mjx_hkl.algorithms import hierarchy, learner
from mjx_hkl.algorithms.actor_critic import VTrace

ALGORITHM = VTrace(
    discount=0.9,
    kl_cost=0.3,
    entropy_cost=0.2,
    reward_scale=0.5,
    rho_clip=1.5,
    trace_clip=0.8,
)
AGENTS = {
    "ar_learned": {"prior": "ar_learned"},
    "separate, period 2": {"prior": "ar1", "low_level": "separate", "period": 2},
    "distral": {"low_level": "distral"},
}
gradients = jax.jit(jax.grad(VTrace.loss, argnums=1, has_aux=True), static_argnums=0)


def make(seed=0, **kind):
    return make_agent(seed=seed, actions="categorical", state_values=True, **kind)


def make_discrete_window(seed, steps, batch, latent_size=LATENT, period=1):
    window = make_window(seed, steps=steps, batch=batch, latent_size=latent_size, period=period)
    rng = np.random.default_rng(seed)
    return window.replace(
        action=jnp.asarray(rng.integers(0, ACTIONS, (steps, batch))),
        behaviour_log_prob=jnp.log(jnp.asarray(rng.uniform(0.2, 0.9, (steps, batch)), jnp.float32)),
    )


@pytest.mark.parametrize(
    ("kind", "keeps_noise", "actions"),
    [
        *((kind, False, "categorical") for kind in AGENTS),
        ("separate, period 2", True, "categorical"),
        ("separate, period 2", False, "gaussian"),
    ],
)
def test_losses_and_gradients_are_those_of_b3(kind, keeps_noise, actions):
    """Against eq. 21 to 25 in loops, with the indicator of infrequent latents counted step by step."""
    steps, batch = 4, 4
    agent, other = (
        make_agent(seed=seed, actions=actions, state_values=True, **AGENTS[kind]) for seed in (0, 1)
    )
    target = hierarchy.Target(other)
    latent_size = agent.policy.latent_size
    make_experience = make_discrete_window if actions == "categorical" else make_window
    window = make_experience(
        5, steps=steps, batch=batch, latent_size=latent_size, period=agent.policy.latent_period
    )
    if keeps_noise:
        window = with_noise(window, agent.policy)
    key = jax.random.key(3)
    noise, starts = noise_of(window, latent_size, key)
    slow = SlowActorCritic(
        target,
        window,
        noise=noise,
        starts=starts,
        config=ALGORITHM,
    )
    actual, metrics = gradients(ALGORITHM, agent, target, window, key, {})
    policy_loss, by_policy = jax.value_and_grad(slow.policy_loss)(agent)
    critic_loss, by_critic = jax.value_and_grad(slow.critic_loss, argnums=1)(agent, agent.critic)
    default_loss, by_default = jax.value_and_grad(slow.default_policy_loss, argnums=1)(
        agent, agent.default_policy
    )
    np.testing.assert_allclose(metrics["policy_loss"], policy_loss, rtol=2e-4)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss, rtol=2e-4)
    np.testing.assert_allclose(metrics["default_policy_loss"], default_loss, rtol=2e-4)
    expected = {"policy": by_policy.policy, "critic": by_critic, "default_policy": by_default}
    for name, gradient in expected.items():
        for a, b in zip(*map(jax.tree.leaves, (getattr(actual, name), gradient)), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-5, err_msg=name)


def test_the_policy_gradient_reaches_the_high_level_through_z():
    agent, window = make(), make_discrete_window(0, 5, 6)
    algorithm = dataclasses.replace(ALGORITHM, kl_cost=0.0, entropy_cost=0.0)
    target = hierarchy.Target(agent)
    found, _ = gradients(algorithm, agent, target, window, jax.random.key(0), {})
    assert sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(found.policy.high_level)) > 1e-3


@pytest.mark.long
def test_a_period_of_one_makes_the_targets_the_online_networks():
    """The paper has no targets here."""
    algorithm = dataclasses.replace(ALGORITHM, target_update_period=1)
    state = learner.init(make(prior="ar_learned"), algorithm, 1, jax.random.key(0))
    window = make_discrete_window(0, 5, 6)
    after, _ = learner.update(state, window, jax.random.key(0), jnp.int32(1), algorithm, 1)
    new, target = jax.tree.leaves(hierarchy.Target(after.agent)), jax.tree.leaves(after.target)
    for a, b in zip(new, target, strict=True):
        np.testing.assert_array_equal(a, b)
