"""The environment half of a train step: the policy acts in every world, and its steps become windows."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mjx_hkl.algorithms.window import LatentNoise, Window, over
from mjx_hkl.environments import SeveralState, Timestep, VectorState, Worlds
from mjx_hkl.models.agent import LOW_LEVEL, Agent
from mjx_hkl.models.encoders import encode
from mjx_hkl.models.steps import Carry, Noise, Step
from mjx_hkl.training.exploration import Exploration
from mjx_hkl.training.metrics import term_name

Metrics = dict[str, Float[Array, ""]]
_EPISODE_SUMS = ("episodes", "episode_return", "episode_length", "success", "faults")
_BY_TASK = ("episodes", "episode_return", "success")


@flax.struct.dataclass
class Actor:
    """The worlds, what the agent carries in each, whether an episode begins there, what exploration keeps."""

    env: VectorState | SeveralState
    carry: Carry
    is_first: Bool[Array, " envs"]
    noise: Any


_AS_THE_POLICY = Exploration()


def init(
    environment: Worlds,
    agent: Agent,
    key: PRNGKeyArray,
    exploration: Exploration = _AS_THE_POLICY,
) -> Actor:
    """Every world at a fresh start."""
    batch = (environment.num_envs,)
    noise = exploration.start((*batch, agent.action_size))
    return Actor(environment.reset(key), agent.start(batch), jnp.ones(batch, bool), noise)


@jax.named_scope("window")
def unroll(
    environment: Worlds,
    agent: Agent,
    actor: Actor,
    key: PRNGKeyArray,
    length: int,
    keeps_noise: bool = False,
    exploration: Exploration = _AS_THE_POLICY,
    behaviour_samples: int = 0,
    forgets: tuple[str, ...] = (),
    keeps_latents: bool = False,
) -> tuple[Actor, Window, Metrics]:
    """`length` steps of every world under the stochastic policy.

    The μ that windows keep is of the scaled distribution at the action taken, given x and z. Where noise is
    correlated that is its marginal: what the noise of the steps before tells of the action is left out.

    Args:
      environment: the worlds.
      agent: whose policy acts.
      actor: before the first step.
      key: consumed.
      length: K.
      keeps_noise: whether windows keep the noise that latents were drawn from.
      exploration: how the noise of actions differs from the policy's own.
      behaviour_samples: further latents that μ(a|x) is a mean over.
      forgets: observation groups that windows do without.
      keeps_latents: whether windows hold latents as actions, with their density.

    Returns:
      The actor after the last step, a window of each world (batch first), and sums over the episodes
      that ended: `episodes`, `episode_return` and those of its terms, `episode_length`, `success`; `faults`
      counts all. Of several environments some are there by their names too, like `success/NAME`, which is
      only of those that tell of success.
    """

    def kept_of(observation: Mapping[str, Array]) -> dict[str, Array]:
        return {name: group for name, group in observation.items() if name not in forgets}

    def act(carry: tuple[Actor, dict, dict, dict], key: PRNGKeyArray):
        actor, _, cut_observation, sums = carry
        noise_key, env_key = jax.random.split(key)
        observation = actor.env.observation
        with jax.named_scope("act"):
            fresh = agent.noise(noise_key, actor.is_first.shape)
            kept, noise = exploration.correlated(actor.noise, fresh, actor.is_first)
            next_carry, acted = agent.step(actor.carry, observation, actor.is_first, noise)
            acted = exploration.scaled(acted, noise.action)
        env, timestep = environment.step(actor.env, acted.action, env_key)
        following, ended = kept_of(timestep.next_observation), timestep.is_last > 0
        truncated = ended & (timestep.discount > 0)
        cut_observation = jax.tree.map(
            lambda new, old: jnp.where(over(truncated, new), new, old),
            following,
            cut_observation,
        )
        step = Window(
            observation=kept_of(observation),
            carry=(),  # of the window's start alone, below
            is_first=(),  # pyright: ignore[reportArgumentType] - likewise
            action=acted.latents.latent if keeps_latents else acted.action,
            behaviour_log_prob=acted.latents.distribution.log_prob(acted.latents.latent)
            if keeps_latents
            else _log_prob(agent, actor, acted, noise, noise_key, behaviour_samples),
            reward=timestep.reward,
            discount=timestep.discount > 0,
            is_last=ended,
            valid=timestep.valid > 0,
            noise=_of_latents(agent, noise) if keeps_noise else (),
        )
        sums = jax.tree.map(jnp.add, sums, _of_episodes(timestep))
        return (Actor(env, next_carry, ended, kept), following, cut_observation, sums), step

    start, observation = actor, kept_of(actor.env.observation)
    zero = jnp.zeros(environment.num_envs)
    sums = dict.fromkeys([*_EPISODE_SUMS, *map(term_name, actor.env.episode_terms)], zero)
    carry = (actor, observation, observation, sums)
    carry, steps = jax.lax.scan(act, carry, jax.random.split(key, length))
    actor, next_observation, cut_observation, sums = carry
    windows = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), steps)
    windows = windows.replace(
        carry=start.carry,
        is_first=start.is_first,
        observation=jax.tree.map(
            lambda seen, following, cut: jnp.concatenate([seen, following[:, None], cut[:, None]], axis=1),
            windows.observation,
            next_observation,
            cut_observation,
        ),
    )
    windows, lost = _without_broken(windows)
    sums["faults"] += lost
    of_tasks = {
        f"{name}/{task}": of_task
        for name in _BY_TASK
        for task, of_task in environment.by_task(sums[name]).items()
        if name != "success" or environment.tasks[task].env.can_succeed
    }
    return actor, windows, jax.tree.map(jnp.sum, {**sums, **of_tasks})


def seen(windows: Window, length: int) -> dict[str, Array]:
    """Observations to learn statistics from: those acted on; in windows without a valid step, their mean.

    Args:
      windows: of `unroll`, batch first.
      length: K.
    """
    whole = jnp.any(windows.valid > 0, axis=1)

    def filled(x: Array) -> Array:
        x = x[:, :length]
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        total = jnp.sum(jnp.where(over(whole, x), x, 0.0), axis=(0, 1))
        mean = total / jnp.maximum(1, length * jnp.sum(whole))
        return jnp.where(over(whole, x), x, mean)

    return jax.tree.map(filled, windows.observation)


def _without_broken(windows: Window) -> tuple[Window, Float[Array, " envs"]]:
    """The windows, all zero and not valid where a number is not finite, and how many steps are lost so.

    What a world's task observes may be no number though its physics is sound. It must not reach statistics,
    replay or a network: gradients would be NaN, masked or not.
    """
    numbers = [x for x in jax.tree.leaves(windows) if jnp.issubdtype(x.dtype, jnp.floating)]
    flat = jnp.concatenate([x.reshape(len(x), -1) for x in numbers], axis=1)
    whole = jnp.all(jnp.isfinite(flat), axis=1)
    kept = jax.tree.map(lambda x: jnp.where(over(whole, x), x, jnp.zeros_like(x)), windows)
    return kept, jnp.where(whole, 0.0, jnp.sum(windows.valid, axis=1))


def _log_prob(
    agent: Agent, actor: Actor, acted: Step, noise: Noise, key: PRNGKeyArray, samples: int
) -> Float[Array, " envs"]:
    """Log μ(a|x) at the latent, or by `Agent.log_marginal` with further ones; `key` is that of `noise`."""
    if not samples:
        return acted.distribution.log_prob(acted.action)
    memory = agent.restart(actor.carry, actor.is_first, noise.start).memory[LOW_LEVEL]
    observation = encode(agent.encoders, actor.env.observation)
    key = jax.random.fold_in(key, 3)  # 0 to 2 are those of the noise
    others = jax.random.normal(key, (samples, *acted.latents.latent.shape))
    return agent.log_marginal(memory, observation, acted.latents, others, acted.action)


def _of_latents(agent: Agent, noise: Noise) -> LatentNoise:
    return LatentNoise(noise.latent, noise.start if agent.policy.remembers else ())


def _of_episodes(timestep: Timestep) -> dict[str, Float[Array, " envs"]]:
    """What each world adds to the sums; they are taken over worlds once, after the last step."""
    ended = timestep.is_last * timestep.valid

    def of_ended(x: Array) -> Array:  # what a fault ended may be no number
        return jnp.where(ended > 0, x, 0.0)

    return {
        "episodes": ended,
        "episode_return": of_ended(timestep.episode_return),
        "episode_length": ended * timestep.episode_length,
        "success": of_ended(timestep.success),
        "faults": 1.0 - timestep.valid,
        **{term_name(name): of_ended(total) for name, total in timestep.episode_terms.items()},
    }
