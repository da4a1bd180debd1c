"""What agents do in the worlds of training, for people to look at: nothing of it is kept or learned from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from mjx_hkl.training.step import TrainState, TrainStep


class Probe(NamedTuple):
    """Latents and actions of the sampled policy; an action that is a choice is one number."""

    latents: Float[Array, "time worlds latent"]
    actions: Shaped[Array, "time worlds action"]


_KEY = 0x9B0E  # apart from the keys that training draws from


def probe(train_step: TrainStep, state: TrainState) -> Probe:
    """One more unroll of every world from where it stands, as its policy alone acts; the state stays.

    The train step does not return what it acts by, so that it is the same program, and as fast, whether
    anybody looks or not.
    """
    environment, agent = train_step.worlds(state.iteration), state.learner.agent

    def act(carry: tuple, key: PRNGKeyArray) -> tuple[tuple, Probe]:
        env, remembered, is_first = carry
        noise_key, env_key = jax.random.split(key)
        noise = agent.noise(noise_key, is_first.shape)
        remembered, step = agent.step(remembered, env.observation, is_first, noise)
        env, timestep = environment.step(env, step.action, env_key)
        action = step.action if step.action.ndim > 1 else step.action[:, None]
        return (env, remembered, timestep.is_last > 0), Probe(step.latents.latent, action)

    key = jax.random.fold_in(jax.random.key(_KEY), state.iteration)
    keys = jax.random.split(key, train_step.algorithm.unroll_length)
    actor = state.actor
    return jax.lax.scan(act, (actor.env, actor.carry, jnp.asarray(actor.is_first)), keys)[1]
