"""Latent variable models of default policy and policy (Appendix A): bounds against exact values."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from small import LATENT, make_agent, make_window

from mjx_hkl.algorithms import hierarchy
from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.algorithms.window import Window
from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.agent import DEFAULT_LOW_LEVEL, Agent, DefaultPolicy
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.default_base import DefaultLowLevel
from mjx_hkl.models.marginal_defaults import LatentVariableLowLevel
from mjx_hkl.models.modules import Module, restarted
from mjx_hkl.models.priors import AR1Prior
from mjx_hkl.models.steps import Carry, Latents
from mjx_hkl.specs import ArraySpec

SAMPLES, STEPS = 20_000, 4


class Chain(LatentVariableLowLevel):
    """A latent variable model made of functions."""

    def __init__(self, prior, posterior, decoder, size=1, first=0.0):
        self.latent_size = self.noise_size = size
        self.prior, self.posterior, self.decoder, self.first = prior, posterior, decoder, first

    def start(self, batch):
        return jnp.full((*batch, self.latent_size), self.first)


def negative_bound(low_level, observation, actions):
    """−E_f[log π0(τ, y) / f(y|τ)] of one trajectory, and its standard error.

    The policy is all but deterministic, so the trajectory is the one that its actions make.
    """
    many = {name: jnp.broadcast_to(x[:, None, None], (len(x), SAMPLES, 1)) for name, x in observation.items()}
    many = {name: jnp.concatenate([x, x[-1:], x[-1:]]) for name, x in many.items()}
    taken = jnp.broadcast_to(jnp.asarray(actions)[:, None, None], (STEPS, SAMPLES, 1))
    policy = Gaussian(
        jnp.concatenate([taken, taken[-1:], taken[-1:]]), jnp.full((STEPS + 2, SAMPLES, 1), 1e-5)
    )
    window = window_of(taken, {DEFAULT_LOW_LEVEL: low_level.start((SAMPLES,))}, many)
    default = DefaultPolicy(AR1Prior(0.0), low_level)
    cost = hierarchy.divergence(make_agent(), default, many, window, no_latents(), policy, jax.random.key(1))
    total = np.asarray(cost.low + policy.entropy())[:STEPS].sum(0)
    return total.mean(), total.std() / np.sqrt(SAMPLES)


def window_of(actions, memory, observation):
    steps, batch, _ = actions.shape
    zeros, ones = jnp.zeros((steps, batch)), jnp.ones((steps, batch))
    carry = Carry(jnp.zeros((batch, 0)), jnp.zeros(batch, jnp.int32), memory)
    return Window(observation, carry, jnp.ones(batch), actions, zeros, zeros, ones, zeros, ones)


def no_latents():
    nothing = jnp.zeros((STEPS + 2, SAMPLES, 0))
    drawn = jnp.ones((STEPS + 2, SAMPLES, 1), bool)
    return Latents(Gaussian(nothing, nothing), nothing, nothing, drawn)


C, Q, W, R = 0.8, 0.7, 1.3, 0.5  # y_t = C y_{t−1} + Q η,  a_t = W y_t + R ξ


def linear_gaussian():
    """Log p(a_1, ..., a_T) of some actions, and f(y_t | y_{t−1}, a_t, ..., a_T) of each step in numbers."""
    actions = np.array([0.3, -1.1, 0.8, 2.0])
    latents = np.zeros((STEPS, STEPS))
    for i in range(STEPS):
        for j in range(STEPS):
            latents[i, j] = sum(Q**2 * C ** (i - k) * C ** (j - k) for k in range(min(i, j) + 1))
    covariance = W**2 * latents + R**2 * np.eye(STEPS)
    exact = stats.multivariate_normal(np.zeros(STEPS), covariance).logpdf(actions)  # pyright: ignore
    # Information that the actions from step t on give of y_t, backwards: exp(−½ λ y² + ν y).
    gain, offset, scale = (np.zeros(STEPS) for _ in range(3))
    precision, linear = 0.0, 0.0
    for t in reversed(range(STEPS)):
        precision, linear = precision + W**2 / R**2, linear + W * actions[t] / R**2
        variance = 1 / (1 / Q**2 + precision)
        gain[t], offset[t], scale[t] = variance * C / Q**2, variance * linear, np.sqrt(variance)
        # y_t integrated out of N(y_t; C y_{t−1}, Q²) exp(−½ λ y_t² + ν y_t)
        share = 1 / (1 + Q**2 * precision)
        precision, linear = C**2 * precision * share, C * linear * share
    return actions, exact, {"gain": gain, "offset": offset, "scale": scale}


def linear_chain(posterior):
    return Chain(
        lambda before: Gaussian(C * before, jnp.full_like(before, Q)),
        posterior,
        lambda observation, y: Gaussian(W * y, jnp.full_like(y, R)),
    )


def test_the_bound_of_a_latent_variable_model_is_exact_where_its_posterior_is():
    """Eq. 15, a chain of Gaussians: scipy's density of the actions, latents integrated out."""
    actions, exact, numbers = linear_gaussian()
    smoother = linear_chain(
        lambda before, observation, action: Gaussian(
            observation["gain"] * before + observation["offset"], observation["scale"]
        )
    )
    numbers = {name: jnp.asarray(x, jnp.float32) for name, x in numbers.items()}
    bound, error = negative_bound(smoother, numbers, jnp.asarray(actions, jnp.float32))
    assert error < 0.02
    assert abs(bound + exact) < 5 * error


def test_the_bound_of_a_latent_variable_model_holds_where_its_posterior_is_a_filter():
    """Which is told of the past alone, as the shipped one is."""
    actions, exact, numbers = linear_gaussian()
    variance = 1 / (1 / Q**2 + W**2 / R**2)
    filtering = linear_chain(
        lambda before, observation, action: Gaussian(
            variance * (C * before / Q**2 + W * action / R**2), jnp.full_like(before, np.sqrt(variance))
        )
    )
    numbers = {name: jnp.asarray(x, jnp.float32) for name, x in numbers.items()}
    bound, error = negative_bound(filtering, numbers, jnp.asarray(actions, jnp.float32))
    assert -exact + 5 * error < bound < -exact + 1.0


class Bernoulli(NamedTuple):
    """Of 0 and 1, drawn from standard normal noise."""

    one: jax.Array

    def draw(self, noise):
        return (jax.scipy.stats.norm.cdf(noise) < self.one).astype(jnp.float32)

    def kl_divergence(self, other):
        pairs = ((self.one, other.one), (1 - self.one, 1 - other.one))
        return sum(p * jnp.log(p / q) for p, q in pairs).sum(-1)


def test_the_bound_of_a_discrete_model_is_forward_backwards():
    """Eq. 15 with two states, f exact (Appendix A), against the forward recursion."""
    start, stay = 0.3, np.array([[0.9, 0.1], [0.25, 0.75]])  # stay[i, j] = p(y_t = j | y_{t−1} = i)
    means, scale = np.array([-1.0, 1.5]), 0.8
    actions = np.array([-0.7, 0.4, 1.2, -1.5])
    emission = stats.norm.pdf(actions[:, None], means, scale)
    forward = np.array([1 - start, start]) * emission[0]
    for t in range(1, STEPS):
        forward = (forward @ stay) * emission[t]
    exact = np.log(forward.sum())
    backward = np.ones((STEPS + 1, 2))
    for t in reversed(range(STEPS)):
        backward[t] = stay @ (
            emission[t] * backward[t + 1]
        )  # of what comes from t on, by the state before it
    following = emission * backward[1:]

    def prior(before, is_start=None):
        return Bernoulli(jnp.where(before < 0, start, jnp.where(before > 0.5, stay[1, 1], stay[0, 1])))

    def posterior(before, observation, action):
        one = prior(before).one
        weights = one * observation["one"], (1 - one) * observation["zero"]
        return Bernoulli(weights[0] / (weights[0] + weights[1]))

    def decoder(observation, y):
        return Gaussian(jnp.where(y > 0.5, means[1], means[0]), jnp.full_like(y, scale))

    model = Chain(prior, posterior, decoder, first=-1.0)
    numbers = {"zero": jnp.asarray(following[:, 0]), "one": jnp.asarray(following[:, 1])}
    bound, error = negative_bound(model, numbers, jnp.asarray(actions, jnp.float32))
    assert abs(bound + exact) < 5 * error
    assert error < 0.02


class Fixed(DefaultLowLevel):
    """N(0, scale²), whatever is seen."""

    adds_kl = True

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, low_level, observation, latent):
        return Gaussian(jnp.zeros_like(latent), jnp.full_like(latent, self.scale))


@pytest.mark.parametrize("scale", [1.0, 1.7])
def test_the_bound_of_a_policy_with_latents_of_its_own_is_exact_where_its_posterior_is(scale):
    """Eq. 16: z ~ N(0, 1), a = W z + R ξ; KL of a Gaussian of known variance to π0."""
    shape = (STEPS + 2, SAMPLES, 1)
    z = jax.random.normal(jax.random.key(3), shape)
    policy = Gaussian(W * z, jnp.full(shape, R))
    variance = W**2 + R**2

    class Guess(Module):
        infers = True

        def __call__(self, before, observation, action):
            return Gaussian(W * action / variance, jnp.full_like(action, scale * R / np.sqrt(variance)))

    default = DefaultPolicy(Guess(), Fixed(0.9))
    standard = Gaussian(jnp.zeros(shape), jnp.ones(shape))
    latents = Latents(standard, z, jnp.zeros(shape), jnp.ones(shape, bool))
    window = window_of(jnp.zeros((STEPS, SAMPLES, 1)), {}, {})
    cost = hierarchy.divergence(make_agent(), default, {}, window, latents, policy, jax.random.key(4))
    each = np.asarray(cost.high + cost.low).ravel()
    error = each.std() / np.sqrt(len(each))
    exact = np.log(0.9 / np.sqrt(variance)) + variance / (2 * 0.9**2) - 0.5
    if scale == 1.0:
        assert abs(each.mean() - exact) < 5 * error
    else:
        assert each.mean() > exact + 5 * error


def test_the_papers_agent_is_the_special_case_of_a_shared_latent():
    """Eq. 17: y is z, f is π^H and π0^L is π^L: the bound is today's KL of the high level."""
    agent, window = make_agent("isotropic"), make_window()
    key = jax.random.key(0)
    latents = hierarchy.redraw_latents(agent, window.observation, window, key)
    action = hierarchy.policy_actions(agent, window.observation, window, latents)
    today = hierarchy.divergence(
        agent, agent.default_policy, window.observation, window, latents, action, key
    )

    class Policy(NamedTuple):
        """π^H, whose sample is the policy's own."""

        of: Gaussian
        latent: jax.Array

        def draw(self, noise):
            return self.latent

        def kl_divergence(self, other):
            return self.of.kl_divergence(other)

    of = latents.distribution
    seen = window.observation | {"mean": of.mean, "scale": of.scale, "z": latents.latent}
    model = Chain(
        agent.default_policy.high_level,
        lambda before, observation, action: Policy(
            Gaussian(observation["mean"], observation["scale"]), observation["z"]
        ),
        agent.policy.low_level,
        LATENT,
    )
    default = DefaultPolicy(AR1Prior(0.0), model)
    memory = window.carry.memory | {DEFAULT_LOW_LEVEL: model.start((6,))}
    window = window.replace(carry=window.carry.replace(memory=memory))
    keys = jax.random.split(jax.random.key(1), 2000)
    each = jax.jit(
        jax.vmap(lambda key: hierarchy.divergence(agent, default, seen, window, latents, action, key).low)
    )(keys)
    error = np.asarray(each).std(0) / np.sqrt(len(keys))
    assert (np.abs(np.asarray(each).mean(0) - today.high) < 6 * error + 1e-5).all()


def remembering(kind, flat):
    agent = make_agent("isotropic", kind, flat=flat)
    window = make_window(latent_size=agent.policy.latent_size)
    start = agent.default_policy.low_level.start((6,))
    started = jax.tree.map(lambda x: x + 0.3, start)
    memory = window.carry.memory | {DEFAULT_LOW_LEVEL: started}
    return agent, window.replace(carry=window.carry.replace(memory=memory))


KINDS = [("feed_forward", True), ("feed_forward", False), ("lstm", True), ("lstm", False)]
KINDS += [("latent_variable", True), ("latent_variable", False)]


@pytest.mark.parametrize(("kind", "flat"), KINDS)
def test_each_loss_moves_its_own_parameters_alone(kind, flat):
    """Without the KL's cost the policy's loss is that of no default policy, and distillation goes on."""
    agent, window = remembering(kind, flat)
    target = hierarchy.Target(make_agent("isotropic", kind, flat=flat, seed=1))
    gradients = jax.jit(jax.grad(SVG.loss, argnums=1, has_aux=True), static_argnums=0)
    (with_kl, metrics), (without, _) = (
        gradients(SVG(kl_cost=cost), agent, target, window, jax.random.key(0), {}) for cost in (0.3, 0.0)
    )
    assert np.isfinite(list(metrics.values())).all()
    assert ("reconstruction" in metrics) == (kind == "latent_variable")

    def norm(tree):
        return float(sum(jnp.abs(x).sum() for x in jax.tree.leaves(tree)))

    for part in jax.tree.leaves(with_kl.default_policy.low_level):
        assert jnp.abs(part).sum() > 0
    jax.tree.map(np.testing.assert_array_equal, with_kl.default_policy, without.default_policy)
    assert norm(jax.tree.map(jnp.subtract, with_kl.policy, without.policy)) > 1e-3


def test_a_posterior_without_a_latent_is_said_in_a_line():
    table = {
        "policy": {"high_level": "none"},
        "default_policy": {"high_level": "posterior", "low_level": "none"},
    }
    with pytest.raises(UserError, match="'posterior' does not suit a flat policy"):
        from_table(ModelConfig, table, "agent")


@pytest.mark.parametrize("low_level", ["shared", "separate"])
def test_a_posterior_over_a_default_policy_that_sees_the_latent_is_refused(low_level):
    """Nothing would hold the actions: a latent that the posterior can tell costs nothing."""
    table = {"default_policy": {"high_level": "posterior", "low_level": low_level}}
    with pytest.raises(UserError, match=f"low_level '{low_level}' sees the latent"):
        from_table(ModelConfig, table, "agent")


def test_a_posterior_moves_with_distillation_and_the_policy_with_what_it_says():
    agent, window = make_agent("posterior", "feed_forward"), make_window()
    target = hierarchy.Target(make_agent("posterior", "feed_forward", seed=1))
    gradients, metrics = jax.grad(SVG.loss, argnums=1, has_aux=True)(
        SVG(kl_cost=0.3), agent, target, window, jax.random.key(0), {}
    )
    for part in jax.tree.leaves((gradients.default_policy, gradients.policy)):
        assert jnp.abs(part).sum() > 0
    assert np.isfinite(list(metrics.values())).all()


@pytest.mark.parametrize(("kind", "flat"), [kind for kind in KINDS if kind[0] != "feed_forward"])
def test_a_default_policy_remembers_in_a_window_what_it_did_while_acting(kind, flat):
    """With the noise of no latents: the memory before each step, and afresh where an episode begins."""
    agent, window = remembering(kind, flat)
    low_level, batch = agent.default_policy.low_level, 6
    carry, seen = agent.start((batch,)), []
    carry = carry.replace(memory=carry.memory | {DEFAULT_LOW_LEVEL: window.carry.memory[DEFAULT_LOW_LEVEL]})
    first = window.is_first > 0
    for t in range(5):
        observation = {name: x[t] for name, x in window.observation.items()}
        noise = agent.no_noise((batch,))
        before = agent.restart(carry, first, noise.start).memory[DEFAULT_LOW_LEVEL]
        carry, step = agent.step(carry, observation, first, noise)
        after = low_level.remembered(
            before, agent.policy.low_level, observation, step.latents.latent, step.action, noise.default
        )
        jax.tree.map(np.testing.assert_array_equal, carry.memory[DEFAULT_LOW_LEVEL], after)
        seen.append(before)
        first = window.is_last[t] > 0
    begins = np.asarray(window.is_last[:4]) > 0
    after = jax.tree.map(lambda *x: np.stack(x[1:]), *seen)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[begins], 0.0), after)
    jax.tree.map(lambda x: np.testing.assert_array_equal((x[~begins] != 0).any(-1), True), after)


def test_an_lstms_actions_along_a_window_are_those_step_by_step():
    agent, window = remembering("lstm", True)
    low_level, memory, first = (
        agent.default_policy.low_level,
        window.carry.memory[DEFAULT_LOW_LEVEL],
        window.is_first,
    )
    latents = hierarchy.redraw_latents(agent, window.observation, window, jax.random.key(0))
    action = hierarchy.policy_actions(agent, window.observation, window, latents)
    cost = hierarchy.divergence(
        agent, agent.default_policy, window.observation, window, latents, action, jax.random.key(0)
    )
    for t in range(5):
        observation = {name: x[t] for name, x in window.observation.items()}
        memory = restarted(low_level, memory, first > 0)
        memory, own = low_level.step(memory, None, observation, jnp.zeros((6, 0)))
        expected = Gaussian(action.mean[t], action.scale[t]).kl_divergence(own)
        np.testing.assert_allclose(cost.low[t], expected, rtol=1e-4, atol=1e-5)
        first = window.is_last[t]


def test_steps_of_the_burn_in_are_not_learned_from():
    window = make_window()
    values = jax.random.normal(jax.random.key(0), (7, 6))
    mean = hierarchy.window_mean(values, window, 2)
    valid = np.asarray(window.valid)[2:]
    np.testing.assert_allclose(mean, (np.asarray(values)[2:5] * valid).sum() / valid.sum(), rtol=1e-6)
    agent, target = make_agent("ar1"), hierarchy.Target(make_agent("ar1", seed=1))
    rewards = window.reward.at[:2].set(1e6)  # of the first two steps, which no later target contains
    losses = [
        SVG.loss(SVG(burn_in=2), agent, target, window.replace(reward=reward), jax.random.key(0), {})[0]
        for reward in (window.reward, rewards)
    ]
    assert losses[0] == losses[1]


def test_a_burn_in_that_leaves_nothing_is_said_in_a_line():
    with pytest.raises(UserError, match="burn_in 10 leaves nothing of an unroll_length of 10"):
        from_table(Algorithm, {"burn_in": 10, "unroll_length": 10}, "recipe")


def test_a_prior_that_is_none_is_said_in_a_line():
    seen = {"high_level": ["x"], "low_level": ["x"], "critic": ["x"], "default": ["x"]}
    low_level = {"kind": "latent_variable", "prior": "posterior"}
    table = {
        "information": seen,
        "policy": {"high_level": "none", "actions": "gaussian"},
        "default_policy": {"high_level": "none", "low_level": low_level},
    }
    with pytest.raises(UserError, match="prior must be one over y_t"):
        Agent({"x": ArraySpec((2,))}, 3, from_table(ModelConfig, table, "agent"), jax.random.key(0))


def test_scaled_actions_that_a_default_policy_would_not_remember_are_said_in_a_line():
    agent = make_agent("isotropic", "latent_variable", flat=True)
    with pytest.raises(UserError, match="exploration_scale: this default policy remembers"):
        SVG(exploration_scale=(0.5, 2.0)).parameters(agent, jax.random.key(0))


def test_a_latent_variable_model_of_discrete_actions_is_said_in_a_line():
    table = {
        "information": {"high_level": ["x"], "low_level": ["x"], "critic": ["x"], "default": ["x"]},
        "policy": {"high_level": "none", "actions": "categorical"},
        "default_policy": {"high_level": "none", "low_level": "latent_variable"},
    }
    with pytest.raises(UserError, match="latent_variable needs Gaussian actions"):
        Agent({"x": ArraySpec((2,))}, 3, from_table(ModelConfig, table, "agent"), jax.random.key(0))


def test_a_posterior_of_discrete_actions_is_said_in_a_line():
    table = {
        "information": {"high_level": ["x"], "low_level": ["x"], "critic": ["x"], "default": ["x"]},
        "policy": {"actions": "categorical"},
        "default_policy": {"high_level": "posterior", "low_level": "feed_forward"},
    }
    with pytest.raises(UserError, match="posterior sees actions, which must be Gaussian"):
        Agent({"x": ArraySpec((2,))}, 3, from_table(ModelConfig, table, "agent"), jax.random.key(0))
