"""The environment half of a train step: the policy acts in every world and leaves windows behind."""

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.algorithms.window import Window
from mjx_hkl.environments import Timestep, VectorEnvironment, VectorState
from mjx_hkl.models.agent import Agent

Metrics = dict[str, Float[Array, ""]]


@flax.struct.dataclass
class Actor:
    """The worlds, and the latent last used in each; at an episode's start a draw from N(0, 1)."""

    env: VectorState
    latent: Float[Array, "envs latent"]


def init(environment: VectorEnvironment, latent_size: int, key: PRNGKeyArray) -> Actor:
    """Every world at a fresh start."""
    env_key, latent_key = jax.random.split(key)
    latent = jax.random.normal(latent_key, (environment.num_envs, latent_size))
    return Actor(environment.reset(env_key), latent)


def unroll(
    environment: VectorEnvironment, agent: Agent, actor: Actor, key: PRNGKeyArray, length: int
) -> tuple[Actor, Window, Metrics]:
    """`length` steps of every world under the stochastic policy.

    Returns:
      The actor after the last step, a window of each world (batch first), and sums over the episodes
      that ended: `episodes`, `episode_return`, `episode_length`, `success`; `faults` counts all.
    """

    def act(carry: tuple[Actor, dict, dict], key: PRNGKeyArray):
        actor, _, cut_observation = carry
        latent_key, action_key, start_key, env_key = jax.random.split(key, 4)
        observation = actor.env.observation
        with jax.named_scope("act"):
            latent = policy.latent(observation, actor.latent).sample(latent_key)
            latent = jnp.where(policy.draws(actor.env.steps), latent, actor.latent)
            distribution = agent.action(observation, latent)
            action = distribution.sample(action_key)
        env, timestep = environment.step(actor.env, action, env_key)
        ended = timestep.is_last[:, None] > 0
        next_latent = jnp.where(ended, jax.random.normal(start_key, latent.shape), latent)
        truncated = ended & (timestep.discount[:, None] > 0)
        cut_observation = jax.tree.map(
            lambda new, old: jnp.where(truncated, new, old), timestep.next_observation, cut_observation
        )
        step = Window(
            observation=observation,
            latent_tm1=actor.latent,
            episode_step=actor.env.steps,
            action=action,
            behaviour_log_prob=distribution.log_prob(action),
            reward=timestep.reward,
            discount=timestep.discount > 0,
            is_last=timestep.is_last > 0,
            valid=timestep.valid > 0,
        )
        carry = (Actor(env, next_latent), timestep.next_observation, cut_observation)
        return carry, (step, _episode_sums(timestep))

    policy, observation = agent.policy, actor.env.observation
    carry = (actor, observation, observation)
    carry, (steps, sums) = jax.lax.scan(act, carry, jax.random.split(key, length))
    actor, next_observation, cut_observation = carry
    windows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)
    windows = windows.replace(
        latent_tm1=steps.latent_tm1[0],
        episode_step=steps.episode_step[0],
        observation=jax.tree.map(
            lambda seen, following, cut: jnp.concatenate([seen, following[:, None], cut[:, None]], axis=1),
            windows.observation,
            next_observation,
            cut_observation,
        ),
    )
    return actor, windows, jax.tree.map(lambda x: x.sum(0), sums)


def _episode_sums(timestep: Timestep) -> Metrics:
    ended = timestep.is_last * timestep.valid
    return {
        "episodes": ended.sum(),
        "episode_return": (ended * timestep.episode_return).sum(),
        "episode_length": (ended * timestep.episode_length).sum(),
        "success": (ended * timestep.success).sum(),
        "faults": (1.0 - timestep.valid).sum(),
    }
