"""The actor-critic with V-trace for a hierarchical policy: the losses of B.3.

It differs from SVG(0) in two things: the critic is V(z, x), and the policy follows the policy gradient of
the actions taken, through log π(a|z, x), instead of a gradient through sampled ones. Both gradients flow
through the reparameterized z into the high level.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.algorithms.config import AlgorithmConfig
from mjx_hkl.algorithms.hierarchy import Target, divergence, redraw_latents, total_loss, window_mean
from mjx_hkl.algorithms.window import Window, following
from mjx_hkl.math.v_trace import v_trace
from mjx_hkl.models.agent import Agent


def loss(
    agent: Agent, target: Target, window: Window, key: PRNGKeyArray, config: AlgorithmConfig
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Sum of policy, critic and default policy loss (eq. 22 to 25); see `svg.loss`.

    The paper has no target networks here: a `target_update_period` of 1 makes them the online ones.
    """
    stop = jax.lax.stop_gradient
    steps = window.reward.shape[0]
    observation = window.observation

    latents = redraw_latents(agent.policy, window, key)
    latent = latents.latent
    with jax.named_scope("policy_loss"):
        action = agent.action(observation, latent)
        kl_high, kl_low = divergence(agent, target.default_policy, observation, latents, action)
    kl = kl_high + kl_low
    entropy = action.entropy()

    log_prob_t = jax.tree.map(lambda x: x[:steps], action).log_prob(window.action)
    ratio_t = jnp.exp(stop(log_prob_t) - window.behaviour_log_prob)
    with jax.named_scope("critic_loss"):
        value_target = target.critic(observation, stop(latent))
    corrected = stop(
        v_trace(
            value_t=value_target[:steps],
            reward_t=config.reward_scale * window.reward,
            discount_t=config.discount * window.discount,
            value_tp1=following(value_target, window),
            cost_tp1=following(config.kl_cost * kl, window),
            ratio_t=ratio_t,
            is_last_t=window.is_last,
            valid_t=window.valid,
            rho_clip=config.rho_clip,
            trace_clip=config.trace_clip,
        )
    )
    with jax.named_scope("critic_loss"):
        value = agent.critic.each(jax.tree.map(lambda x: x[:steps], observation), stop(latent[:steps]))

    mean = functools.partial(window_mean, window=window)
    policy_gradient = mean(log_prob_t * corrected.advantage)
    policy_loss = -policy_gradient + config.kl_cost * mean(kl) - config.entropy_cost * mean(entropy)
    critic_loss = 0.5 * mean(jnp.square(corrected.target - value).sum(0))
    total, metrics = total_loss(
        agent, window, latents, action, policy_loss, critic_loss, config.distillation_cost
    )
    return total, metrics | {
        "kl_high": mean(kl_high),
        "kl_low": mean(kl_low),
        "value": mean(value.mean(0)),
        "value_target": mean(corrected.target),
        "ratio": mean(jnp.minimum(config.rho_clip, ratio_t)),
    }
