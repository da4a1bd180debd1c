"""The actor-critic with V-trace for a hierarchical policy: the losses of B.3.

It differs from SVG(0) in two things: the critic is V(z, x), and the policy follows the policy gradient of
the actions taken, through log π(a|z, x), instead of a gradient through sampled ones. Both gradients flow
through the reparameterized z into the high level.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from mjx_hkl.algorithms.algorithm import Algorithm, Loss
from mjx_hkl.algorithms.hierarchy import (
    Target,
    divergence,
    policy_actions,
    redraw_latents,
)
from mjx_hkl.algorithms.window import Window, following
from mjx_hkl.config import Positive, PositiveFloat
from mjx_hkl.math.v_trace import v_trace
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.encoders import encode


@dataclasses.dataclass(frozen=True)
class VTrace(Algorithm):
    """State values and the policy gradient (B.3), for discrete actions, on fresh windows."""

    state_values: ClassVar[bool] = True

    target_update_period: Positive = 1
    """Updates between moves of the target parameters; 1, with a rate of 1, is none of them, as in B.3."""
    rho_clip: PositiveFloat = 1.0
    """ρ̄ of V-trace."""
    trace_clip: PositiveFloat = 1.0
    """c̄ of V-trace."""

    def loss(
        self, agent: Agent, target: Target, window: Window, key: PRNGKeyArray, own: Mapping[str, Any]
    ) -> Loss:
        """Sum of policy, critic and default policy loss (eq. 22 to 25); see `SVG.loss`.

        The paper has no target networks here, and by default there are none.
        """
        stop = jax.lax.stop_gradient
        steps = window.reward.shape[0]
        kl_cost, entropy_cost = self.costs(own)
        observation = encode(agent.encoders, window.observation)
        target_observation = encode(target.encoders, window.observation)

        latents = redraw_latents(agent, observation, window, key)
        latent = latents.latent
        with jax.named_scope("policy_loss"):
            action: Any = policy_actions(agent, observation, window, latents)
            kl_high, kl_low, _ = divergence(
                agent, target.default_policy, target_observation, window, latents, action, key
            )
        kl = self.kl_of_levels(kl_high, kl_low)
        entropy = action.entropy()

        log_prob_t = jax.tree.map(lambda x: x[:steps], action).log_prob(window.action)
        of_ratio_t = self.of_ratio(log_prob_t, agent, observation, window, latents, key)
        ratio_t = jnp.exp(stop(of_ratio_t) - window.behaviour_log_prob)
        with jax.named_scope("critic_loss"):
            value_target = target.critic(target_observation, stop(latent))
        corrected = stop(
            v_trace(
                value_t=value_target[:steps],
                reward_t=self.reward_scale * window.reward,
                discount_t=self.discount * window.discount,
                value_tp1=following(value_target, window),
                cost_tp1=following(kl_cost * kl, window),
                ratio_t=ratio_t,
                is_last_t=window.is_last,
                valid_t=window.valid,
                rho_clip=self.rho_clip,
                trace_clip=self.trace_clip,
            )
        )
        with jax.named_scope("critic_loss"):
            observation_t = jax.tree.map(lambda x: x[:steps], observation)
            errors, value = agent.critic.errors(corrected.target, observation_t, stop(latent[:steps]))

        mean = functools.partial(self.mean, window=window)
        policy_gradient = mean(log_prob_t * corrected.advantage)
        policy_loss = -policy_gradient + kl_cost * mean(kl) - entropy_cost * mean(entropy)
        policy_loss, change = self.with_trust_region(
            policy_loss, agent, target, observation, target_observation, window, latents
        )
        critic_loss = 0.5 * mean(errors.sum(0))
        total, metrics = self.with_distillation(
            policy_loss, critic_loss, agent, observation, window, latents, action, key
        )
        metrics |= change | {
            "kl_high": mean(kl_high),
            "kl_low": mean(kl_low),
            "value": mean(value.mean(0)),
            "value_target": mean(corrected.target),
            "ratio": mean(jnp.minimum(self.rho_clip, ratio_t)),
        }
        return self.with_duals((total, metrics), own, mean(kl), mean(entropy))
