import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mjx_hkl.algorithms import learner, svg
from mjx_hkl.algorithms.config import AlgorithmConfig
from mjx_hkl.algorithms.window import Window, cut_inside, following
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import CriticConfig, DefaultPolicyConfig, Information, ModelConfig, PolicyConfig

SIZES, ACTIONS, LATENT, STEPS, BATCH = {"proprioception": 3, "targets": 2}, 2, 2, 5, 6
CONFIG = AlgorithmConfig(
    discount=0.9, retrace_lambda=0.8, kl_cost=0.3, entropy_cost=0.2, reward_scale=0.5, target_update_period=3
)


def make_agent(prior, seed=0):
    config = ModelConfig(
        information=Information(tuple(SIZES), ("proprioception",), tuple(SIZES)),
        policy=PolicyConfig(high_level=(8, LATENT), low_level=(8,)),
        default_policy=DefaultPolicyConfig(high_level=prior, high_level_sizes=(8,)),
        critic=CriticConfig((8, 8)),
    )
    agent = Agent(SIZES, ACTIONS, config, jax.random.key(seed))
    # away from the small initial heads, so that everything depends on everything
    return jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(seed + 7), x.shape), agent)


def make_window(seed=0):
    """Random experience; some episodes terminate, are truncated or fail inside the window."""
    rng = np.random.default_rng(seed)
    kinds = ["on", "terminated", "truncated", "fault"]
    kind = rng.choice(kinds, p=[0.6, 0.15, 0.15, 0.1], size=(STEPS, BATCH))
    kind[:, 0], kind[1, 1], kind[-1, 2] = "on", "truncated", "truncated"
    kind[2:, 1] = kind[:-1, 2] = "on"
    for column in kind.T:  # an episode is no shorter than a window: at most one truncation
        column[np.flatnonzero(column == "truncated")[1:]] = "on"

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return Window(
        observation={name: normal(STEPS + 2, BATCH, n) for name, n in SIZES.items()},
        latent_tm1=normal(BATCH, LATENT),
        action=normal(STEPS, BATCH, ACTIONS),
        behaviour_log_prob=normal(STEPS, BATCH) - 2.0,
        reward=normal(STEPS, BATCH),
        discount=jnp.asarray((kind == "on") | (kind == "truncated"), jnp.float32),
        is_last=jnp.asarray(kind != "on", jnp.float32),
        valid=jnp.asarray(kind != "fault", jnp.float32),
    )


def at(observation, t, b):
    return {name: group[t, b] for name, group in observation.items()}


def next_index(window, t, b):
    """The observation that step t truly led to: the last one if a truncation cut the window there."""
    truncated = window.is_last[t, b] and window.discount[t, b]
    return STEPS + 1 if truncated and t < STEPS - 1 else t + 1


def test_what_follows_a_step_is_the_state_it_led_to():
    window = make_window()
    values = jnp.arange((STEPS + 2) * BATCH, dtype=jnp.float32).reshape(STEPS + 2, BATCH)
    actual = following(values, window)
    assert cut_inside(window).sum() > 0
    for t in range(STEPS):
        for b in range(BATCH):
            if window.discount[t, b]:
                assert actual[t, b] == values[next_index(window, t, b), b]


@pytest.mark.parametrize("prior", ["ar1", "ar_learned"])
def test_latents_are_drawn_in_order_from_the_stored_one_and_afresh_in_a_new_episode(prior):
    agent, window = make_agent(prior), make_window()
    latents = svg.redraw_latents(agent.policy, window, jax.random.key(0))
    for b in range(BATCH):
        np.testing.assert_array_equal(latents.latent_tm1[0, b], window.latent_tm1[b])
        for t in range(STEPS):
            if not window.is_last[t, b] or t == STEPS - 1:
                np.testing.assert_array_equal(latents.latent_tm1[t + 1, b], latents.latent[t, b])
            elif t + 1 < STEPS:  # a draw that has nothing to do with the episode before
                assert (latents.latent_tm1[t + 1, b] != latents.latent[t, b]).all()
            if next_index(window, t, b) == STEPS + 1:
                np.testing.assert_array_equal(latents.latent_tm1[-1, b], latents.latent[t, b])
        for t in range(STEPS + 2):
            expected = agent.policy.latent(at(window.observation, t, b), latents.latent_tm1[t, b])
            np.testing.assert_allclose(latents.distribution.mean[t, b], expected.mean, atol=1e-5)
            np.testing.assert_allclose(latents.distribution.scale[t, b], expected.scale, atol=1e-5)


def _slow_losses(agent, target, window, latents, action_noise, config):
    """Algorithm 2 as it is written, one window and one step at a time, in numpy."""

    def normal_log_prob(x, mean, scale):
        return float((-0.5 * ((x - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)).sum())

    def kl(p, q):
        terms = np.log(q.scale / p.scale) + (p.scale**2 + (p.mean - q.mean) ** 2) / (2 * q.scale**2) - 0.5
        return float(terms.sum())

    def numpy(gaussian):
        return type(gaussian)(np.asarray(gaussian.mean), np.asarray(gaussian.scale))

    policy_loss = critic_loss = default_loss = 0.0
    for b in range(BATCH):
        kl_high, v_hat, distillation, entropy, actions = [], [], [], [], []
        for t in range(STEPS + 2):
            x, z, z_tm1 = at(window.observation, t, b), latents.latent[t, b], latents.latent_tm1[t, b]
            high = numpy(agent.policy.latent(x, z_tm1))
            low = numpy(agent.policy.action(x, z))
            kl_high.append(kl(high, numpy(target.default_policy.latent(z_tm1))))
            distillation.append(kl(high, numpy(agent.default_policy.latent(z_tm1))))
            entropy.append(float((0.5 * np.log(2 * np.pi * np.e * low.scale**2)).sum()))
            a = low.mean + low.scale * action_noise[t, b]
            v_hat.append(float(target.critic(x, z, jnp.asarray(a))))
            actions.append(low)
        for t in range(STEPS):
            if not window.valid[t, b]:
                continue
            q_target, product = None, 1.0
            for s in range(t, STEPS):
                x, z = at(window.observation, s, b), latents.latent[s, b]
                if s > t:
                    if window.is_last[s - 1, b]:
                        break
                    ratio = np.exp(
                        normal_log_prob(window.action[s, b], *actions[s]) - window.behaviour_log_prob[s, b]
                    )
                    product *= config.discount * config.retrace_lambda * min(1.0, float(ratio))
                q = float(target.critic(x, z, window.action[s, b]))
                q_target = q if q_target is None else q_target
                n = next_index(window, s, b)
                bootstrap = config.discount * window.discount[s, b] * (v_hat[n] - config.kl_cost * kl_high[n])
                if window.valid[s, b]:
                    q_target += product * (config.reward_scale * window.reward[s, b] + bootstrap - q)
            x, z = at(window.observation, t, b), latents.latent[t, b]
            critic_loss += float(q_target - agent.critic(x, z, window.action[t, b])) ** 2
            policy_loss -= v_hat[t] - config.kl_cost * kl_high[t] + config.entropy_cost * entropy[t]
            default_loss += distillation[t]
    count = float(window.valid.sum())
    return policy_loss / count, critic_loss / count, default_loss / count


@pytest.mark.parametrize("prior", ["isotropic", "ar1", "ar_learned"])
def test_losses_are_those_of_algorithm_2(prior):
    agent, target, window = make_agent(prior), svg.Target(make_agent(prior, 1)), make_window()
    key = jax.random.key(3)
    _, metrics = svg.loss(agent, target, window, key, CONFIG)
    latent_key, action_key = jax.random.split(key)
    latents = svg.redraw_latents(agent.policy, window, latent_key)
    noise = np.asarray(jax.random.normal(action_key, (1, STEPS + 2, BATCH, ACTIONS)))[0]
    expected = _slow_losses(agent, target, window, latents, noise, CONFIG)
    actual = [metrics[name] for name in ("policy_loss", "critic_loss", "default_policy_loss")]
    np.testing.assert_allclose(actual, expected, rtol=2e-4, atol=2e-4)


def _gradients(agent, target, window, config=CONFIG):
    return jax.grad(svg.loss, has_aux=True)(agent, target, window, jax.random.key(0), config)[0]


def _norm(tree):
    return float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(tree)))


def test_the_policy_gradient_flows_through_a_and_not_through_qs_own_z():
    """With a critic blind to actions nothing is left of the policy gradient, though Q depends on z."""
    agent, window = make_agent("isotropic"), make_window()
    config = dataclasses.replace(CONFIG, kl_cost=0.0, entropy_cost=0.0)
    target = svg.Target(make_agent("isotropic", 1))
    assert _norm(_gradients(agent, target, window, config).policy.high_level) > 1e-3  # by z into a
    kernel = target.critic.first.kernel
    blind = kernel[...].at[-ACTIONS:].set(0.0)
    target.critic.first.kernel = nnx.Param(blind)
    assert _norm(_gradients(agent, target, window, config).policy) == 0.0


def test_distillation_moves_the_default_policy_and_not_the_policy():
    agent, window = make_agent("ar_learned"), make_window()
    target = svg.Target(make_agent("ar_learned", 1))
    before = _gradients(agent, target, window)
    other = make_agent("ar_learned", 5)
    agent.default_policy = other.default_policy  # what is distilled into changes; its target does not
    after = _gradients(agent, target, window)
    assert _norm(before.default_policy) > 1e-3
    for a, b in zip(jax.tree.leaves(before.policy), jax.tree.leaves(after.policy), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_invalid_does_not_matter():
    agent, target, window = make_agent("isotropic"), svg.Target(make_agent("isotropic", 1)), make_window()
    assert (window.valid == 0).any()
    garbage = jnp.where(window.valid > 0, window.reward, 1e6)
    before, _ = svg.loss(agent, target, window, jax.random.key(0), CONFIG)
    after, _ = svg.loss(agent, target, window.replace(reward=garbage), jax.random.key(0), CONFIG)
    assert before == after


def test_the_target_is_renewed_every_period():
    state = learner.init(make_agent("ar_learned"), CONFIG)
    update = jax.jit(learner.update, static_argnames="config")
    for count in range(1, 7):
        old = state.target
        state, _ = update(state, make_window(count), jax.random.key(count), jnp.int32(count), config=CONFIG)
        source = svg.Target(state.agent) if count % 3 == 0 else old
        for a, b in zip(jax.tree.leaves(state.target), jax.tree.leaves(source), strict=True):
            np.testing.assert_array_equal(a, b)
        assert (jax.tree.leaves(state.agent)[0] != jax.tree.leaves(state.target)[0]).any() == (count % 3 != 0)


def test_each_module_has_its_own_learning_rate():
    config = dataclasses.replace(CONFIG, critic_learning_rate=1e-30)
    state = learner.init(make_agent("ar_learned"), config)
    after, _ = learner.update(state, make_window(), jax.random.key(0), jnp.int32(1), config)

    def moved(module):
        old, new = (jax.tree.leaves(getattr(learned.agent, module)) for learned in (state, after))
        return any((a != b).any() for a, b in zip(old, new, strict=True))

    assert moved("policy")
    assert moved("default_policy")
    assert not moved("critic")
