"""SVG(0) with Retrace for a hierarchical policy: the losses of Algorithm 2.

Time-major windows; every quantity is computed for all K + 2 observations of a window at once.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mjx_hkl.algorithms.config import AlgorithmConfig
from mjx_hkl.algorithms.window import Window, cut_inside, episode_steps, following
from mjx_hkl.math import gaussian
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.math.retrace import retrace, traces
from mjx_hkl.math.returns import n_step_returns
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.critic import Critic
from mjx_hkl.models.default_policy import DefaultPolicy
from mjx_hkl.models.networks import Observation
from mjx_hkl.models.policy import Policy


class Target(nnx.Module):
    """φ' and ψ': what the target networks are copies of. The online policy gives π."""

    def __init__(self, agent: Agent):
        self.default_policy: DefaultPolicy = agent.default_policy
        self.critic: Critic = agent.critic


class Latents(NamedTuple):
    """On-policy latents of a window: π^H, z, the z_{t−1} each was conditioned on, and whether z is new."""

    distribution: Gaussian
    latent: Float[Array, "time batch latent"]
    latent_tm1: Float[Array, "time batch latent"]
    drawn: Bool[Array, "time batch 1"]


def redraw_latents(policy: Policy, window: Window, key: PRNGKeyArray) -> Latents:
    """z_t = f^H(x_t, ε_t) along the window, not the behaviour's (Algorithm 2, B.2).

    With an autoregressive prior the draws run in order from the stored latent; an episode that starts
    inside the window begins from a draw of N(0, 1). z_{t−1} is history: no gradient flows through it. With
    a latent period (eq. 27) a latent is kept until the next draw, and the actions in between move π^H.
    """
    num_observations, batch = next(iter(window.observation.values())).shape[:2]
    noise_key, start_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (num_observations, batch, policy.latent_size))
    if not policy.remembers:
        latent_tm1 = jnp.zeros_like(noise)  # neither the policy nor its prior looks at it
        distribution = policy.latent(window.observation, latent_tm1)
        drawn = jnp.ones((num_observations, batch, 1), bool)
        return Latents(distribution, gaussian.sample(distribution, noise), latent_tm1, drawn)

    # The last observation follows the step whose episode was cut, the others the step before.
    starts = jax.random.normal(start_key, (num_observations - 1, batch, policy.latent_size))
    is_first = jnp.concatenate([jnp.zeros_like(window.is_last[:1]), window.is_last])
    is_first = is_first.at[-1].set(0.0)  # the state after the window's last step is the true one
    cut = jnp.concatenate([cut_inside(window), jnp.zeros_like(window.is_last[:1])])
    drawn = policy.draws(episode_steps(window))

    def draw(kept, observation, noise, drawn):
        history = jax.lax.stop_gradient(kept)
        distribution = policy.latent(observation, history)
        latent = jnp.where(drawn, gaussian.sample(distribution, noise), kept)
        return Latents(distribution, latent, history, drawn)

    def follow(carry, step):
        latent_tm1, latent_at_cut = carry
        observation, noise, start, is_first, is_cut, drawn = step
        latents = draw(jnp.where(is_first[:, None] > 0, start, latent_tm1), observation, noise, drawn)
        return (latents.latent, jnp.where(is_cut[:, None] > 0, latents.latent, latent_at_cut)), latents

    in_order = jax.tree.map(lambda x: x[:-1], window.observation)
    (_, latent_at_cut), latents = jax.lax.scan(
        follow,
        (window.latent_tm1, window.latent_tm1),
        (in_order, noise[:-1], starts, is_first, cut, drawn[:-1]),
    )
    last = jax.tree.map(lambda x: x[-1], window.observation)
    final = draw(latent_at_cut, last, noise[-1], drawn[-1])
    return jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), latents, final)


def divergence(
    agent: Agent, default_policy: DefaultPolicy, observation: Observation, latents: Latents, action: Gaussian
) -> tuple[Float[Array, "time batch"], Float[Array, "time batch"]]:
    """KL of the two levels (eq. 7, 8): π^H to π0^H at steps that draw a latent, π^L to π0^L at every step."""
    kl_high = gaussian.kl_divergence(latents.distribution, default_policy.latent(latents.latent_tm1))
    kl_high = latents.drawn[..., 0] * kl_high
    default_action = default_policy.action(agent.policy, observation, latents.latent)
    if default_action is None:
        return kl_high, jnp.zeros_like(kl_high)
    return kl_high, gaussian.kl_divergence(action, default_action)


def loss(
    agent: Agent, target: Target, window: Window, key: PRNGKeyArray, config: AlgorithmConfig
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Sum of policy, critic and default policy loss; each moves only its own parameters.

    But with two columns (F.2) the default policy's is a part of the policy, and both losses move it.

    Args:
      agent: θ, φ, ψ, differentiated.
      target: φ', ψ'.
      window: a time-major batch.
      key: consumed.
      config: α, α_H, γ, λ, M.

    Returns:
      The loss and scalar metrics.
    """
    stop = jax.lax.stop_gradient
    latent_key, action_key = jax.random.split(key)
    steps = window.reward.shape[0]
    observation = window.observation
    observation_t = jax.tree.map(lambda x: x[:steps], observation)

    latents = redraw_latents(agent.policy, window, latent_key)
    latent = latents.latent
    action = agent.action(observation, latent)
    kl_high, kl_low = divergence(agent, target.default_policy, observation, latents, action)
    kl = kl_high + kl_low
    entropy = gaussian.entropy(action)

    # E_π Q_ψ'(a, z, x), eq. 18: the gradient flows through a, and through z into a, not through Q's own z.
    noise = jax.random.normal(action_key, (config.action_samples, *action.mean.shape))
    q_policy = jax.vmap(
        lambda noise: target.critic(observation, stop(latent), gaussian.sample(action, noise))
    )(noise).mean(0)

    action_t = jax.tree.map(lambda x: x[:steps], action)
    trace_t = traces(
        gaussian.log_prob(action_t, window.action), window.behaviour_log_prob, config.retrace_lambda
    )
    reward_t, discount_t = config.reward_scale * window.reward, config.discount * window.discount
    value_tp1, cost_tp1 = following(q_policy, window), following(config.kl_cost * kl, window)
    if config.returns == "n_step":  # Algorithm 1
        q_target = n_step_returns(reward_t, discount_t, value_tp1, cost_tp1, window.is_last, window.valid)
    else:  # eq. 19: V̂_{s+1} − α KL_{s+1} at the state that truly followed
        q_target = retrace(
            q_t=target.critic(observation_t, latent[:steps], window.action),
            reward_t=reward_t,
            discount_t=discount_t,
            value_tp1=value_tp1 - cost_tp1,
            trace_t=trace_t,
            is_last_t=window.is_last,
            valid_t=window.valid,
        )
    q_target = stop(q_target)
    q = agent.critic.each(observation_t, stop(latent[:steps]), window.action)

    # Distillation: φ follows the policy; the policy does not follow back.
    kl_distilled = divergence(stop(agent), agent.default_policy, observation, *stop((latents, action)))

    def mean(x: Float[Array, "_ batch"]) -> Float[Array, ""]:
        return (x[:steps] * window.valid).sum() / jnp.maximum(window.valid.sum(), 1.0)

    policy_loss = -mean(q_policy - config.kl_cost * kl + config.entropy_cost * entropy)
    critic_loss = mean(jnp.square(q_target - q).sum(0))
    default_policy_loss = mean(kl_distilled[0] + kl_distilled[1])
    metrics = {
        "policy_loss": policy_loss,
        "critic_loss": critic_loss,
        "default_policy_loss": default_policy_loss,
        "kl_high": mean(kl_high),
        "kl_low": mean(kl_low),
        "entropy": mean(entropy),
        "q": mean(q.mean(0)),
        "q_target": mean(q_target),
        "trace": mean(trace_t),
        "action_scale": mean(action.scale.mean(-1)),
        "latent_scale": mean(latents.distribution.scale.mean(-1)) if latent.shape[-1] else jnp.zeros(()),
    }
    return policy_loss + critic_loss + config.distillation_cost * default_policy_loss, metrics
