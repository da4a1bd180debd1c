"""What every algorithm shares: on-policy latents of a window, the KL of two levels, target networks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mjx_hkl.algorithms.window import Window, cut_inside, episode_steps
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.critic import Critic
from mjx_hkl.models.default_policy import DefaultPolicy
from mjx_hkl.models.networks import Distribution, Observation
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


@jax.named_scope("latents")
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
        return Latents(distribution, distribution.reparameterized(noise), latent_tm1, drawn)

    # The last observation follows the step whose episode was cut, the others the step before.
    starts = jax.random.normal(start_key, (num_observations - 1, batch, policy.latent_size))
    is_first = jnp.concatenate([jnp.zeros_like(window.is_last[:1]), window.is_last])
    is_first = is_first.at[-1].set(0.0)  # the state after the window's last step is the true one
    cut = jnp.concatenate([cut_inside(window), jnp.zeros_like(window.is_last[:1])])
    drawn = policy.draws(episode_steps(window))

    def draw(kept, observation, noise, drawn):
        history = jax.lax.stop_gradient(kept)
        distribution = policy.latent(observation, history)
        latent = jnp.where(drawn, distribution.reparameterized(noise), kept)
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
    agent: Agent,
    default_policy: DefaultPolicy,
    observation: Observation,
    latents: Latents,
    action: Distribution,
) -> tuple[Float[Array, "time batch"], Float[Array, "time batch"]]:
    """KL of the two levels (eq. 7, 8): π^H to π0^H at steps that draw a latent, π^L to π0^L at every step."""
    kl_high = latents.distribution.kl_divergence(default_policy.latent(latents.latent_tm1))
    kl_high = latents.drawn[..., 0] * kl_high
    default_action = default_policy.action(agent.policy, observation, latents.latent)
    if default_action is None:
        return kl_high, jnp.zeros_like(kl_high)
    return kl_high, action.kl_divergence(default_action)  # pyright: ignore - of one kind


def window_mean(x: Float[Array, "_ batch"], window: Window) -> Float[Array, ""]:
    """Mean of values at observations, or at steps, over the steps that may be learned from."""
    steps = window.reward.shape[0]
    return (x[:steps] * window.valid).sum() / jnp.maximum(window.valid.sum(), 1.0)


def total_loss(
    agent: Agent,
    window: Window,
    latents: Latents,
    action: Distribution,
    policy_loss: Float[Array, ""],
    critic_loss: Float[Array, ""],
    distillation_cost: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The losses of policy and critic with that of distillation: φ follows the policy, which does not follow.

    Returns:
      The sum, and the metrics every algorithm has.
    """
    stop = jax.lax.stop_gradient
    with jax.named_scope("default_policy_loss"):
        kl_high, kl_low = divergence(
            stop(agent), agent.default_policy, window.observation, *stop((latents, action))
        )
    default_policy_loss = window_mean(kl_high + kl_low, window)
    scale = latents.distribution.scale
    metrics = {
        "policy_loss": policy_loss,
        "critic_loss": critic_loss,
        "default_policy_loss": default_policy_loss,
        "entropy": window_mean(action.entropy(), window),
        "latent_scale": window_mean(scale.mean(-1), window) if scale.shape[-1] else jnp.zeros(()),
    }
    return policy_loss + critic_loss + distillation_cost * default_policy_loss, metrics
