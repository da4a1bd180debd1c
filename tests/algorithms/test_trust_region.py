"""A trust region on the policy: what it adds to the loss, what it moves, and where its old policy is."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats
from slow_reference import kl
from small import action_of, make_agent, make_window
from test_actor_critic import make as make_discrete
from test_actor_critic import make_discrete_window

from mjx_hkl.algorithms import hierarchy, learner
from mjx_hkl.algorithms.actor_critic import VTrace
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError

UPDATES = 10
ALGORITHM = SVG(trust_region=0.5, target_update_period=3)
KINDS = {
    "isotropic": {},
    "separate, period 2": {"prior": "ar1", "low_level": "separate", "period": 2},
    "distral_two_column": {"low_level": "distral_two_column"},
}
update = jax.jit(learner.update, static_argnames=("algorithm", "total_updates", "frozen"))


def _window(agent, seed=0):
    return make_window(seed, latent_size=agent.policy.latent_size, period=agent.policy.latent_period)


@jax.jit
def _change(agent, old, window):
    """`policy_change` of each step from the agent `old`, and the latents it is at."""
    seen = window.observation
    latents = hierarchy.redraw_latents(agent, seen, window, jax.random.key(0))
    target = hierarchy.Target(old, keeps_policy=True)
    return hierarchy.policy_change(agent, target, seen, seen, window, latents), latents


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_kl_of_both_levels_from_the_old_policy(kind):
    """Step by step, with the formula for Gaussians written out."""
    agent, old = make_agent(**KINDS[kind]), make_agent(**KINDS[kind], seed=1)
    window = _window(agent)
    found, latents = _change(agent, old, window)
    for t, b in np.ndindex(5, 6):
        x, z, z_tm1 = ({k: v[t, b] for k, v in window.observation.items()}, *_at(latents, t, b))
        expected = kl(action_of(old, x, z), action_of(agent, x, z))
        if latents.drawn[t, b, 0]:
            expected += kl(old.policy.high_level(x, z_tm1), agent.policy.high_level(x, z_tm1))
        np.testing.assert_allclose(found[t, b], expected, rtol=2e-4)


def _at(latents, t, b):
    return latents.latent[t, b], latents.latent_tm1[t, b]


def test_it_is_from_the_old_policy_to_the_new():
    """Not the other way around: by SciPy's integrals over single numbers."""
    agent, old = make_agent(low_level="none"), make_agent(low_level="none", seed=1)
    window = _window(agent)
    found, latents = _change(agent, old, window)
    x = {k: v[0, 0] for k, v in window.observation.items()}
    p, q = (action_of(of, x, latents.latent[0, 0]) for of in (old, agent))
    expected = 0.0
    for moments in zip(p.mean, p.scale, q.mean, q.scale, strict=True):
        mean, scale, other, width = map(float, moments)
        before, now = stats.norm(mean, scale), stats.norm(other, width)
        reach = mean - 9 * scale, mean + 9 * scale
        expected += integrate.quad(lambda a, p=before, q=now: p.pdf(a) * (p.logpdf(a) - q.logpdf(a)), *reach)[
            0
        ]
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-4)


@pytest.mark.parametrize("kind", [SVG, VTrace])
def test_its_weight_counts_in_the_loss_and_its_gradient_reaches_the_policy_alone(kind):
    """As a difference to the loss without; the old policy, critic and default policy get none of it."""
    if kind is SVG:
        agent, old, window = make_agent("ar_learned"), make_agent("ar_learned", seed=1), make_window()
    else:
        agent, old = make_discrete(prior="ar_learned"), make_discrete(1, prior="ar_learned")
        window = make_discrete_window(0, 5, 6)
    target, key = hierarchy.Target(old, keeps_policy=True), jax.random.key(0)
    both = jax.jit(jax.value_and_grad(kind.loss, argnums=1, has_aux=True), static_argnums=0)
    (plain, _), before = both(kind(), agent, target, window, key, {})
    (total, metrics), after = both(
        kind(trust_region=0.5, target_update_period=25), agent, target, window, key, {}
    )
    assert metrics["policy_change"] > 0.01
    np.testing.assert_allclose(total - plain, 0.5 * metrics["policy_change"], rtol=1e-3)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), after, before)
    assert min(max(jax.tree.leaves(x)) for x in (moved.policy.high_level, moved.policy.low_level)) > 1e-3
    assert max(jax.tree.leaves((moved.critic, moved.default_policy))) == 0


def test_latents_are_data_so_that_the_low_levels_kl_does_not_move_the_high_level():
    agent, old = make_agent(), make_agent(seed=1)
    old.policy.high_level = agent.policy.high_level  # nothing is left but the low level's

    def total(agent):
        return _change(agent, old, make_window())[0].sum()

    found = jax.jit(jax.grad(total))(agent).policy
    high, low = (
        max(float(jnp.abs(x).max()) for x in jax.tree.leaves(level))
        for level in (found.high_level, found.low_level)
    )
    assert low > 0.1
    assert high < 1e-4 * low  # rounding


def test_policies_that_remember_are_asked_in_order():
    """Ones that say so and keep nothing give the same numbers as ones that do not."""
    agent, old, window = make_agent(), make_agent(seed=1), make_window()
    expected, _ = _change(agent, old, window)
    for of in (agent, old):
        of.policy.high_level.remembers = of.policy.low_level.remembers = True
    assert agent.policy.remembers
    seen = window.observation
    latents = hierarchy.redraw_latents(make_agent(), seen, window, jax.random.key(0))
    target = hierarchy.Target(old, keeps_policy=True)
    found = hierarchy.policy_change(agent, target, seen, seen, window, latents)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_the_old_policy_moves_with_the_other_targets_and_the_kl_is_zero_after_a_copy(rate):
    algorithm = dataclasses.replace(ALGORITHM, target_update_rate=rate, policy_learning_rate=1e-2)
    state = learner.init(make_agent(), algorithm, UPDATES, jax.random.key(0))
    changes = []
    for count in range(1, 8):
        old = state.target.policy
        state, metrics = update(
            state, make_window(count), jax.random.key(count), jnp.int32(count), algorithm, UPDATES
        )
        share = rate if count % 3 == 0 else 0.0
        new = jax.tree.leaves(state.agent.policy)
        for a, b, c in zip(jax.tree.leaves(state.target.policy), jax.tree.leaves(old), new, strict=True):
            np.testing.assert_allclose(a, (1 - share) * b + share * c, rtol=1e-6, atol=1e-7)
        changes.append(float(metrics["policy_change"]))
    after_copies = np.array(changes)[[0, 3, 6]]  # before updates 1, 4 and 7 it was copied
    if rate == 1:
        np.testing.assert_allclose(after_copies, 0.0, atol=1e-5)
        assert min(np.delete(changes, [0, 3, 6])) > 1e-3
    else:
        assert after_copies[1] > 1e-3


def test_a_trust_region_keeps_the_policy_near():
    """The same updates, with a weight that counts: a policy that stays nearer to where it began."""
    ends = []
    for weight in (1e-6, 100.0):
        algorithm = SVG(trust_region=weight, target_update_period=100, policy_learning_rate=1e-2)
        state = learner.init(make_agent(), algorithm, UPDATES, jax.random.key(0))
        for count in range(1, 7):
            state, metrics = update(
                state, make_window(), jax.random.key(count), jnp.int32(count), algorithm, UPDATES
            )
        ends.append(float(metrics["policy_change"]))
    assert ends[1] < 0.3 * ends[0]


def test_without_it_no_target_policy_is_kept():
    state = learner.init(make_agent(), SVG(), UPDATES, jax.random.key(0))
    assert not hasattr(state.target, "policy")
    _, metrics = update(state, make_window(), jax.random.key(0), jnp.int32(1), SVG(), UPDATES)
    assert "policy_change" not in metrics


def test_modules_from_elsewhere_are_the_old_policys_too():
    other = make_agent(seed=1).policy.low_level
    state = learner.init(make_agent(), ALGORITHM, UPDATES, jax.random.key(0))
    state = learner.with_parameters(state, {"policy.low_level": other})
    for a, b in zip(*map(jax.tree.leaves, (state.target.policy.low_level, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_frozen_module_stays_and_the_old_policy_has_the_same_statistics():
    algorithm = dataclasses.replace(ALGORITHM, target_update_period=1, target_update_rate=0.3)
    agent = make_agent(encoders={"proprioception": "normalized", "targets": "normalized"})
    window, frozen = make_window(), ("policy.low_level",)
    state = learner.init(agent, algorithm, UPDATES, jax.random.key(0))
    seen = learner.observe(state, window.observation, frozen)
    after, _ = update(seen, window, jax.random.key(0), jnp.int32(1), algorithm, UPDATES, frozen)
    for policy in (after.agent.policy, after.target.policy):
        for a, b in zip(*map(jax.tree.leaves, (policy.low_level, agent.policy.low_level)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)

    def statistics(policy):
        found = jax.tree_util.tree_leaves_with_path(policy.high_level)
        return [x for path, x in found if "encoders" in jax.tree_util.keystr(path)]

    assert statistics(agent.policy)
    for old, new, target in zip(
        *map(statistics, (agent.policy, after.agent.policy, after.target.policy)), strict=True
    ):
        np.testing.assert_array_equal(target, new)
        assert (new != old).any()


def test_targets_that_are_the_online_networks_leave_no_old_policy():
    table = {"trust_region": 0.1, "target_update_period": 1}
    with pytest.raises(UserError, match="trust_region needs a target_update_period above 1 or"):
        from_table(SVG, table, "recipe")
    from_table(SVG, table | {"target_update_rate": 0.1}, "recipe")
