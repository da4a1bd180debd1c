"""SVG(0) with Retrace for a hierarchical policy: the losses of Algorithm 2.

Time-major windows; every quantity is computed for all K + 2 observations of a window at once.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.algorithms.config import AlgorithmConfig
from mjx_hkl.algorithms.hierarchy import Target, divergence, redraw_latents, total_loss, window_mean
from mjx_hkl.algorithms.window import Window, following
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.math.retrace import retrace, traces
from mjx_hkl.math.returns import n_step_returns
from mjx_hkl.models.agent import Agent


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
    with jax.named_scope("policy_loss"):
        action = agent.action(observation, latent)
        assert isinstance(action, Gaussian), "the gradient flows through a"
        kl_high, kl_low = divergence(agent, target.default_policy, observation, latents, action)
        # E_π Q_ψ'(a, z, x), eq. 18: the gradient flows through a, and through z into a, not through Q's z.
        noise = jax.random.normal(action_key, (config.action_samples, *action.mean.shape))
        q_policy = jax.vmap(
            lambda noise: target.critic(observation, stop(latent), action.reparameterized(noise))
        )(noise).mean(0)
    kl = kl_high + kl_low
    entropy = action.entropy()

    action_t = jax.tree.map(lambda x: x[:steps], action)
    trace_t = traces(action_t.log_prob(window.action), window.behaviour_log_prob, config.retrace_lambda)
    reward_t, discount_t = config.reward_scale * window.reward, config.discount * window.discount
    value_tp1, cost_tp1 = following(q_policy, window), following(config.kl_cost * kl, window)
    if config.returns == "n_step":  # Algorithm 1
        q_target = n_step_returns(reward_t, discount_t, value_tp1, cost_tp1, window.is_last, window.valid)
    else:  # eq. 19: V̂_{s+1} − α KL_{s+1} at the state that truly followed
        with jax.named_scope("critic_loss"):
            q_t = target.critic(observation_t, latent[:steps], window.action)
        q_target = retrace(
            q_t=q_t,
            reward_t=reward_t,
            discount_t=discount_t,
            value_tp1=value_tp1 - cost_tp1,
            trace_t=trace_t,
            is_last_t=window.is_last,
            valid_t=window.valid,
        )
    q_target = stop(q_target)
    with jax.named_scope("critic_loss"):
        q = agent.critic.each(observation_t, stop(latent[:steps]), window.action)

    mean = functools.partial(window_mean, window=window)
    policy_loss = -mean(q_policy - config.kl_cost * kl + config.entropy_cost * entropy)
    critic_loss = mean(jnp.square(q_target - q).sum(0))
    total, metrics = total_loss(
        agent, window, latents, action, policy_loss, critic_loss, config.distillation_cost
    )
    return total, metrics | {
        "kl_high": mean(kl_high),
        "kl_low": mean(kl_low),
        "q": mean(q.mean(0)),
        "q_target": mean(q_target),
        "trace": mean(trace_t),
        "action_scale": mean(action.scale.mean(-1)),
    }
