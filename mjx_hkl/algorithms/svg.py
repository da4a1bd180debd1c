"""SVG(0) with Retrace for a hierarchical policy: the losses of Algorithm 2.

Time-major windows; every quantity is computed for all K + 2 observations of a window at once.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.algorithms.algorithm import Algorithm, Loss
from mjx_hkl.algorithms.hierarchy import (
    Target,
    divergence,
    policy_actions,
    redraw_latents,
)
from mjx_hkl.algorithms.window import Window, following
from mjx_hkl.config import Few, Fraction
from mjx_hkl.math.retrace import retrace, traces
from mjx_hkl.math.returns import n_step_returns
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.encoders import encode
from mjx_hkl.models.modules import Observation
from mjx_hkl.models.steps import Latents


@dataclasses.dataclass(frozen=True)
class SVG(Algorithm):
    """Action values, whose gradient moves the policy through sampled actions (Algorithms 1 and 2)."""

    action_kinds: ClassVar[tuple[str, ...]] = ("gaussian",)  # the gradient flows through a

    returns: Literal["retrace", "n_step"] = "retrace"
    """Q targets: retrace (Algorithm 2), or n-step returns (Algorithm 1), off-policy without a
    correction."""
    retrace_lambda: Fraction = 1.0
    """λ of Retrace's traces."""
    action_samples: Few = 1
    """M of eq. 18: samples of a in E_π Q."""

    def __post_init__(self):
        super().__post_init__()
        if self.returns == "n_step" and self.behaviour_samples:
            raise ValueError(
                "behaviour_samples is for the ratios of returns 'retrace': with 'n_step' leave it 0"
            )

    def loss(
        self, agent: Agent, target: Target, window: Window, key: PRNGKeyArray, own: Mapping[str, Any]
    ) -> Loss:
        """Sum of policy, critic and default policy loss; each moves only its own parameters.

        But with two columns (F.2) the default policy's is a part of the policy, and both losses move it.
        """
        stop = jax.lax.stop_gradient
        latent_key, action_key = jax.random.split(key)
        steps = window.reward.shape[0]
        kl_cost, entropy_cost = self.costs(own)
        observation = encode(agent.encoders, window.observation)
        target_observation = encode(target.encoders, window.observation)
        observation_t, target_observation_t = jax.tree.map(
            lambda x: x[:steps], (observation, target_observation)
        )

        latents = redraw_latents(agent, observation, window, latent_key)
        with jax.named_scope("policy_loss"):
            action, latent = self.acted(agent, observation, window, latents)
            kl_high, kl_low, _ = divergence(
                agent, target.default_policy, target_observation, window, latents, action, key
            )
            # E_π Q_ψ'(a, z, x), eq. 18: gradients flow through a, and through z into a, not through Q's z.
            noise = jax.random.normal(action_key, (self.action_samples, *action.mean.shape))
            q_policy = jax.vmap(
                lambda noise: target.critic(target_observation, stop(latent), action.draw(noise))
            )(noise).mean(0)
        kl = self.kl_of_levels(kl_high, kl_low)
        entropy = action.entropy()

        action_t = jax.tree.map(lambda x: x[:steps], action)
        log_prob_t = action_t.log_prob(window.action)
        log_prob_t = self.of_ratio(log_prob_t, agent, observation, window, latents, key)
        trace_t = traces(log_prob_t, window.behaviour_log_prob, self.retrace_lambda)
        reward_t, discount_t = self.reward_scale * window.reward, self.discount * window.discount
        value_tp1, cost_tp1 = following(q_policy, window), following(kl_cost * kl, window)
        if self.returns == "n_step":  # Algorithm 1
            q_target = n_step_returns(reward_t, discount_t, value_tp1, cost_tp1, window.is_last, window.valid)
        else:  # eq. 19: V̂_{s+1} − α KL_{s+1} at the state that truly followed
            with jax.named_scope("critic_loss"):
                q_t = target.critic(target_observation_t, latent[:steps], window.action)
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
            errors, q = agent.critic.errors(q_target, observation_t, stop(latent[:steps]), window.action)

        mean = functools.partial(self.mean, window=window)
        policy_loss = -mean(q_policy - kl_cost * kl + entropy_cost * entropy)
        policy_loss, change = self.with_trust_region(
            policy_loss, agent, target, observation, target_observation, window, latents
        )
        critic_loss = mean(errors.sum(0))
        total, metrics = self.with_distillation(
            policy_loss, critic_loss, agent, observation, window, latents, action, key
        )
        metrics |= change | {
            "kl_high": mean(kl_high),
            "kl_low": mean(kl_low),
            "q": mean(q.mean(0)),
            "q_target": mean(q_target),
            "trace": mean(trace_t),
            "action_scale": mean(action.scale.mean(-1)),
        }
        return self.with_duals((total, metrics), own, mean(kl), mean(entropy))

    def acted(
        self, agent: Agent, observation: Observation, window: Window, latents: Latents
    ) -> tuple[Any, Float[Array, "time batch latent"]]:
        """The distribution of what windows hold as actions, and the latent that the critic sees beside it."""
        return policy_actions(agent, observation, window, latents), latents.latent
