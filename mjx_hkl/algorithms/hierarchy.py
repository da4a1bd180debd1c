"""What every algorithm shares: on-policy latents of a window, the KL of two levels, target networks."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.algorithms.window import LatentNoise, Window, in_order
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.math.recursion import UNROLL
from mjx_hkl.models.agent import DEFAULT_LOW_LEVEL, HIGH_LEVEL, LOW_LEVEL, PRIOR, Agent, DefaultPolicy, Policy
from mjx_hkl.models.default_base import Given
from mjx_hkl.models.modules import Distribution, Observation, restarted
from mjx_hkl.models.steps import Carry, Latents


class Target(nnx.Module):
    """φ' and ψ', the target networks: copies of default policy, critic and shared encoders.

    With `keeps_policy` also θ', which is π_old of a trust region. Without, there is no such attribute.
    """

    policy: Policy

    def __init__(self, agent: Agent, keeps_policy: bool = False):
        self.default_policy: DefaultPolicy = agent.default_policy
        self.critic: Any = agent.critic
        self.encoders: nnx.Dict = agent.encoders
        if keeps_policy:
            self.policy = agent.policy

    def renewed(self, agent: Agent) -> "Target":
        """The same parts of another agent."""
        return Target(agent, hasattr(self, "policy"))


@jax.named_scope("latents")
def redraw_latents(agent: Agent, observation: Observation, window: Window, key: PRNGKeyArray) -> Latents:
    """Draws the window's latents anew, z_t = f^H(x_t, ε_t), from the policy as it is now (B.2). Time-major.

    ε is fresh, or what the behaviour drew where the window keeps it: then z_t changes with the policy alone.
    Where the policy remembers, latents are drawn in order from the stored carry, and an episode that starts
    inside the window begins with z_{t−1} ~ N(0, 1). Where it does not, they are drawn all at once.

    Args:
      agent: whose policy draws.
      observation: of the window, shared encoders' groups encoded.
      window: time-major.
      key: consumed.
    """
    policy = agent.policy
    noise, starts = _kept_noise(window, key) if window.noise else _fresh_noise(policy, window, key)
    if not policy.remembers:
        return policy.draw(agent.start(noise.shape[:2]), observation, noise)[1]
    given = agent, observation, window, noise, starts
    if policy.high_level.remembers:  # gradients go back through its memory, in order
        return draw_in_order(*given)
    # To draw twice takes a CPU half as long again, and saves a GPU hundreds of launches.
    return jax.lax.platform_dependent(*given, cpu=draw_in_order, default=draw_twice)


def _fresh_noise(policy: Policy, window: Window, key: PRNGKeyArray) -> LatentNoise:
    """Noise of all observations."""
    steps, batch = window.reward.shape
    noise_key, start_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (steps + 2, batch, policy.latent_size))
    if not policy.remembers:
        return LatentNoise(noise, ())
    # One less than observations: the last follows a cut and begins no episode.
    starts = jax.random.normal(start_key, (steps + 1, batch, policy.latent_size))
    return LatentNoise(noise, jnp.concatenate([starts, starts[-1:]]))


def _kept_noise(window: Window, key: PRNGKeyArray) -> LatentNoise:
    """The behaviour's noise; fresh for the two observations after the last step, which begin no episode."""
    kept: LatentNoise = window.noise
    fresh = jax.random.normal(key, (2, *kept.latent.shape[1:]))
    starts = jax.tree.map(lambda x: jnp.concatenate([x, fresh]), kept.start)  # () stays ()
    return LatentNoise(jnp.concatenate([kept.latent, fresh]), starts)


def draw_in_order(
    agent: Agent, observation: Observation, window: Window, noise: Array, starts: Array
) -> Latents:
    """`redraw_latents` of a policy that remembers, one step after the other, and so are the gradients."""
    return _in_order(agent, observation, window, noise, starts)[1]


def draw_twice(
    agent: Agent, observation: Observation, window: Window, noise: Array, starts: Array
) -> Latents:
    """`draw_in_order` to rounding, with the gradients of all steps at once.

    No gradient goes through z_{t−1}. So it is drawn first, in order, and all the rest needs no order.
    """
    before, drawn = _in_order(*jax.lax.stop_gradient((agent, observation)), window, noise, starts, UNROLL)
    latents = agent.policy.draw(before, observation, noise)[1]
    latent = latents.latent
    if agent.policy.latent_period > 1:  # the gradient of a kept latent goes to the step that drew it
        latent = in_order(_keep, window.carry.latent, window, latent, latents.drawn, unroll=UNROLL)
    # z_t is z_{t−1} of the next step to the last bit.
    return latents._replace(latent=drawn.latent + (latent - jax.lax.stop_gradient(latent)))


def _in_order(
    agent: Agent, observation: Observation, window: Window, noise: Array, starts: Array, unroll: int = 1
) -> tuple[Carry, Latents]:
    """What the policy remembered before each step, and what it drew."""

    def step(
        carry: Carry, is_first: Array, observation: Observation, noise: Array, start: Array
    ) -> tuple[Carry, tuple[Carry, Latents]]:
        before = agent.restart(carry, is_first, start)
        after, latents = agent.policy.draw(before, observation, noise)
        return after, (before, latents)

    return in_order(step, window.carry, window, observation, noise, starts, unroll=unroll)


def _keep(kept: Array, is_first: Array, latent: Array, drawn: Array) -> tuple[Array, Array]:
    latent = jnp.where(drawn, latent, kept)
    return latent, latent


def policy_actions(
    agent: Agent | Target, observation: Observation, window: Window, latents: Latents
) -> Distribution:
    """π^L(a_t | z_t, x_t) along the window. Time-major."""
    low_level = agent.policy.low_level

    def act(memory: Any, observation: Observation, latent: Array) -> tuple[Any, Distribution]:
        return agent.default_policy.low_level.policy_action(low_level, memory, observation, latent)

    return _along(low_level, act, LOW_LEVEL, window, observation, latents.latent)


def log_marginal(
    agent: Agent, observation: Observation, window: Window, latents: Latents, key: PRNGKeyArray, samples: int
) -> Float[Array, "time batch"]:
    """Log π(a_t | x_t) of the window's actions, by `Agent.log_marginal` with so many further latents."""
    low_level, (steps, batch) = agent.policy.low_level, window.reward.shape
    noise = jax.random.normal(key, (steps + 2, samples, batch, agent.policy.latent_size))
    action = _at_all(window.action)

    def act(memory: Any, observation: Observation, latents: Latents, *given: Array) -> tuple[Any, Array]:
        after, _ = agent.default_policy.low_level.policy_action(
            low_level, memory, observation, latents.latent
        )
        return after, agent.log_marginal(memory, observation, latents, *given)

    return _along(low_level, act, LOW_LEVEL, window, observation, latents, noise, action)[:steps]


class Divergence(NamedTuple):
    """What a policy costs for differing from its default policy, at all observations of a window.

    Attributes:
      high: KL(π^H ‖ π0^H) of the latents, or log π^H − log g (eq. 16).
      low: KL(π^L ‖ π0^L) of the actions, or a bound on it (eq. 15).
      parts: what `low` consists of, as metrics.
    """

    high: Float[Array, "time batch"]
    low: Float[Array, "time batch"]
    parts: dict[str, Float[Array, "time batch"]]


def divergence(
    agent: Agent,
    default_policy: DefaultPolicy,
    observation: Observation,
    window: Window,
    latents: Latents,
    action: Distribution,
    key: PRNGKeyArray,
) -> Divergence:
    """The KL of the two levels (eq. 7, 8): high at steps that draw a latent, low at every step.

    Args:
      agent: whose policy it is.
      default_policy: π0, with its target parameters or its own.
      observation: of the window, shared encoders' groups encoded.
      window: time-major.
      latents: of the window.
      action: π^L(a_t | z_t, x_t).
      key: of the actions and latents that bounds are estimates with; else not used.
    """
    high_level, low_level = default_policy.high_level, default_policy.low_level
    action_key, noise_key = jax.random.split(jax.random.fold_in(key, 3))  # 0 to 2 are those of the loss
    sampled: Any = ()
    if high_level.infers or low_level.adds_kl:
        sampled = action.draw(action.noise(action_key, _event_shape(action)))
    if high_level.infers:
        guessed = high_level(latents.latent_tm1, observation, sampled)
        high = -latents.distribution.entropy() - guessed.log_prob(latents.latent)
    else:
        prior = _along(high_level, high_level.step, PRIOR, window, latents.latent_tm1)
        high = latents.distribution.kl_divergence(prior)
    high = latents.drawn[..., 0] * high
    if not low_level.adds_kl:
        return Divergence(high, jnp.zeros_like(high), {})
    noise, of_taken = jax.random.normal(noise_key, (2, *high.shape, low_level.noise_size))
    low_level_of_policy, given = agent.policy.low_level, Given(sampled, noise)

    def remember(memory: Any, observation: Observation, *step: Array) -> tuple[Any, Any]:
        return low_level.remembered(memory, low_level_of_policy, observation, *step), memory

    memory = ()
    if low_level.remembers:  # in order; all the rest is done at once
        step = latents.latent, _at_all(window.action), of_taken
        memory = _along(low_level, remember, DEFAULT_LOW_LEVEL, window, observation, *step)
    low = low_level.cost(memory, low_level_of_policy, observation, latents.latent, action, given)
    return Divergence(high, low.kl, low.parts)


def _event_shape(action: Any) -> tuple[int, ...]:
    return jax.tree.leaves(action)[0].shape


def _at_all(action: Array) -> Array:
    """A window's actions, with the last in the place of those that its last two observations do not have."""
    return jnp.concatenate([action, action[-1:], action[-1:]])


def policy_change(
    agent: Agent,
    target: Target,
    observation: Observation,
    target_observation: Observation,
    window: Window,
    latents: Latents,
) -> Float[Array, "time batch"]:
    """KL(π_old ‖ π) of both levels, π_old the target policy: what a trust region holds small. Time-major.

    As `divergence`, π_old^H to π^H at steps that draw a latent, π_old^L to π^L at every step, both at the
    window's latents. These are data here: the gradient goes to π's parameters, and through no latent.

    Args:
      agent: π.
      target: π_old, which keeps the policy.
      observation: as the agent's shared encoders give it.
      target_observation: as the target's do.
      window: time-major.
      latents: of the window.
    """
    latents = jax.lax.stop_gradient(latents)

    def levels(of: Agent | Target, observation: Observation) -> tuple[Gaussian, Any]:
        high_level = of.policy.high_level
        drawn_from = _along(high_level, high_level.step, HIGH_LEVEL, window, observation, latents.latent_tm1)
        return drawn_from, policy_actions(of, observation, window, latents)

    (old_high, old_low), (high, low) = levels(target, target_observation), levels(agent, observation)
    return latents.drawn[..., 0] * old_high.kl_divergence(high) + old_low.kl_divergence(low)


def _along(module: Any, function: Any, name: str, window: Window, *inputs: Any) -> Any:
    """A module's `function` of its memory and inputs along a window: at once, or in order if it remembers."""
    if not module.remembers:
        return function((), *inputs)[1]

    def step(memory: Any, is_first: Array, *inputs: Any) -> tuple[Any, Any]:
        return function(restarted(module, memory, is_first), *inputs)

    return in_order(step, window.carry.memory[name], window, *inputs)


def window_mean(x: Float[Array, "_ batch"], window: Window, burn_in: int = 0) -> Float[Array, ""]:
    """Mean of values at observations, or at steps, over the steps that may be learned from.

    The first `burn_in` steps of each window may not: they are there to bring memories up to date.
    """
    valid = window.valid[burn_in:]
    return (x[burn_in : window.reward.shape[0]] * valid).sum() / jnp.maximum(valid.sum(), 1.0)
