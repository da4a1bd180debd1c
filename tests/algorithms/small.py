"""Small agents of every kind, and experience with everything that can happen in it."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_hkl.algorithms.window import Window
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import CriticConfig, DefaultPolicyConfig, Information, ModelConfig, PolicyConfig

SIZES, ACTIONS, LATENT = {"proprioception": 3, "targets": 2}, 2, 2
FLAT = ("none", "distral", "distral_two_column", "distral_shared")


def make_agent(
    high_level="isotropic",
    low_level="shared",
    *,
    seed=0,
    period=1,
    num_critics=1,
    actions="gaussian",
    state_values=False,
):
    """An agent away from the small initial heads, so that everything depends on everything."""
    flat = low_level in FLAT
    hidden = ("proprioception",)
    config = ModelConfig(
        information=Information(tuple(SIZES), tuple(SIZES) if flat else hidden, tuple(SIZES), hidden),
        policy=PolicyConfig(
            kind="flat" if flat else "hierarchical",
            high_level=(8, LATENT),
            low_level=(8,),
            latent_period=period,
            actions=actions,
        ),
        default_policy=DefaultPolicyConfig(
            high_level="none" if flat else high_level,
            low_level=low_level,
            high_level_sizes=(8,),
            low_level_sizes=(8,),
        ),
        critic=CriticConfig((8, 8), num_critics),
        state_values=state_values,
    )
    leaves, structure = jax.tree.flatten(Agent(SIZES, ACTIONS, config, jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 7), len(leaves))
    moved = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def make_window(seed=0, *, steps=5, batch=6, latent_size=LATENT):
    """Random experience; some episodes terminate, are truncated or fail inside the window."""
    rng = np.random.default_rng(seed)
    kinds = ["on", "terminated", "truncated", "fault"]
    kind = rng.choice(kinds, p=[0.6, 0.15, 0.15, 0.1], size=(steps, batch))
    kind[:, 0], kind[1, 1], kind[-1, 2] = "on", "truncated", "truncated"
    kind[2:, 1] = kind[:-1, 2] = "on"
    for column in kind.T:  # an episode is no shorter than a window: at most one truncation
        column[np.flatnonzero(column == "truncated")[1:]] = "on"

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return Window(
        observation={name: normal(steps + 2, batch, n) for name, n in SIZES.items()},
        latent_tm1=normal(batch, latent_size),
        episode_step=jnp.asarray(rng.integers(0, 50, batch), jnp.int32),
        action=normal(steps, batch, ACTIONS),
        behaviour_log_prob=normal(steps, batch) - 2.0,
        reward=normal(steps, batch),
        discount=jnp.asarray((kind == "on") | (kind == "truncated"), jnp.float32),
        is_last=jnp.asarray(kind != "on", jnp.float32),
        valid=jnp.asarray(kind != "fault", jnp.float32),
    )


def next_index(window, t, b):
    """The observation that step t truly led to: the last one if a truncation cut the window there."""
    steps = len(window.reward)
    truncated = window.is_last[t, b] and window.discount[t, b]
    return steps + 1 if truncated and t < steps - 1 else t + 1


def at(observation, t, b):
    """The observation x_t of window b."""
    return {name: group[t, b] for name, group in observation.items()}
