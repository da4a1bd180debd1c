"""Small agents of every kind, and experience with everything that can happen in it."""

import jax
import jax.numpy as jnp
import numpy as np

from mjx_hkl.algorithms.window import LatentNoise, Window
from mjx_hkl.config import from_table
from mjx_hkl.models.agent import DEFAULT_LOW_LEVEL, HIGH_LEVEL, LOW_LEVEL, PRIOR, Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.steps import Carry
from mjx_hkl.specs import ArraySpec

SPECS, ACTIONS, LATENT = {"proprioception": ArraySpec((3,)), "targets": ArraySpec((2,))}, 2, 2
ACTING = (HIGH_LEVEL, LOW_LEVEL, PRIOR, DEFAULT_LOW_LEVEL)
FLAT = ("none", "distral", "distral_two_column", "distral_shared")


def make_agent(
    prior="isotropic",
    low_level="shared",
    *,
    seed=0,
    period=1,
    num_critics=1,
    actions="gaussian",
    state_values=False,
    encoders=None,
    latent_size=LATENT,
    flat=None,
):
    """An agent away from the small initial heads, so that everything depends on everything."""
    flat = low_level in FLAT if flat is None else flat
    hidden, everything = ("proprioception",), tuple(SPECS)
    prior_sizes = {"sizes": [8]} if prior == "ar_learned" else {}
    has_sizes = low_level not in ("shared", "none", "distral_shared")
    table = {
        "information": {
            "high_level": everything,
            "low_level": everything if flat else hidden,
            "critic": everything,
            "default": hidden,
        },
        "policy": {
            "high_level": "none"
            if flat
            else {"sizes": [8], "latent_size": latent_size, "latent_period": period},
            "low_level": {"sizes": [8]},
            "actions": actions,
        },
        "default_policy": {
            "high_level": "none" if flat else {"kind": prior} | prior_sizes,
            "low_level": {"kind": low_level} | ({"sizes": [8]} if has_sizes else {}),
        },
        "critic": {"sizes": [8, 8], "num_critics": num_critics},
        "encoders": encoders or {},
        "state_values": state_values,
    }
    config = from_table(ModelConfig, table, "small agent")
    leaves, structure = jax.tree.flatten(Agent(SPECS, ACTIONS, config, jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 7), len(leaves))
    moved = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(structure, moved)


def make_window(seed=0, *, steps=5, batch=6, latent_size=LATENT, period=1):
    """Random experience; some episodes terminate, are truncated or fail inside the window.

    Of four worlds and more, one has each of these ends for certain.
    """
    rng = np.random.default_rng(seed)
    kinds = ["on", "terminated", "truncated", "fault"]
    kind = rng.choice(kinds, p=[0.6, 0.15, 0.15, 0.1], size=(steps, batch))
    kind[:, 0], kind[1, 1], kind[-1, 2] = "on", "truncated", "truncated"
    kind[2:, 1] = kind[:-1, 2] = "on"
    if batch > 3:
        kind[0, 3], kind[1, 3] = "terminated", "fault"
    for column in kind.T:  # an episode is no shorter than a window: at most one truncation
        column[np.flatnonzero(column == "truncated")[1:]] = "on"

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return Window(
        observation={name: normal(steps + 2, batch, spec.size) for name, spec in SPECS.items()},
        carry=Carry(
            latent=normal(batch, latent_size),
            age=jnp.asarray(rng.integers(0, 50, batch) % period, jnp.int32),
            memory=dict.fromkeys(ACTING, ()),
        ),
        is_first=jnp.asarray(rng.random(batch) < 0.2, jnp.float32),
        action=normal(steps, batch, ACTIONS),
        behaviour_log_prob=normal(steps, batch) - 2.0,
        reward=normal(steps, batch),
        discount=jnp.asarray((kind == "on") | (kind == "truncated"), jnp.float32),
        is_last=jnp.asarray(kind != "on", jnp.float32),
        valid=jnp.asarray(kind != "fault", jnp.float32),
    )


def with_noise(window, policy, seed=0):
    """The window with the noise that a behaviour drew latents from."""
    rng = np.random.default_rng(seed)
    shape = (*window.reward.shape, policy.latent_size)
    latent, start = (jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(2))
    return window.replace(noise=LatentNoise(latent, start if policy.remembers else ()))


def noise_of(window, latent_size, key):
    """Noise and starts that the learner's key gives its latents, or the window does where it has them."""
    steps, batch = window.reward.shape
    if window.noise:
        after = jax.random.normal(key, (2, batch, latent_size))
        noise = jnp.concatenate([window.noise.latent, after])
        return noise, window.noise.start if len(window.noise.start) else noise  # where nothing asks for it
    noise_key, start_key = jax.random.split(key)
    noise = jax.random.normal(noise_key, (steps + 2, batch, latent_size))
    return noise, jax.random.normal(start_key, (steps + 1, batch, latent_size))


def action_of(agent, observation, latent):
    """π^L(a | z, x)."""
    return agent.default_policy.low_level.policy_action(agent.policy.low_level, (), observation, latent)[1]


def default_action_of(agent, default_policy, observation, latent):
    """π0^L(a | z, x); None where it adds no KL."""
    low_level = default_policy.low_level
    return low_level(agent.policy.low_level, observation, latent) if low_level.adds_kl else None


def next_index(window, t, b):
    """The observation that step t truly led to: the last one if a truncation cut the window there."""
    steps = len(window.reward)
    truncated = window.is_last[t, b] and window.discount[t, b]
    return steps + 1 if truncated and t < steps - 1 else t + 1


def at(observation, t, b):
    """The observation x_t of window b."""
    return {name: group[t, b] for name, group in observation.items()}
