"""Small agents of three groups of observations, and what they are shown."""

import jax
import jax.numpy as jnp

from mjx_hkl.config import from_table
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.specs import ArraySpec

SPECS = {
    name: ArraySpec((size,)) for name, size in {"proprioception": 5, "targets": 4, "instruction": 3}.items()
}


GROUPS = list(SPECS)


ACTIONS, LATENT = 2, 3


EVERYTHING = dict.fromkeys(("high_level", "low_level", "critic", "default"), GROUPS)


SMALL = {
    "policy": {"high_level": {"sizes": [16], "latent_size": LATENT}, "low_level": {"sizes": [16]}},
    "critic": {"sizes": [16, 16]},
}


def build(specs=SPECS, **table):
    return Agent(specs, ACTIONS, from_table(ModelConfig, table, "test"), jax.random.key(0))


def make(prior="isotropic", own="shared", **information):
    """A small agent whose low level sees the body alone."""
    seen = EVERYTHING | {"low_level": ["proprioception"], "default": ["proprioception"]} | information
    own = {"kind": own, "sizes": [16]} if own == "separate" else own
    return build(**SMALL, information=seen, default_policy={"high_level": prior, "low_level": own})


def make_flat(own):
    """A small agent without a latent, whose default policy sees the body alone."""
    policy = {"high_level": "none", "low_level": {"sizes": [16]}}
    own = {"kind": own} | ({"sizes": [16]} if own in ("distral", "distral_two_column") else {})
    information = EVERYTHING | {"default": ["proprioception"]}
    return build(information=information, policy=policy, default_policy={"low_level": own})


def observe(key=0, batch=6):
    keys = dict(zip(SPECS, jax.random.split(jax.random.key(key), len(SPECS)), strict=True))
    return {name: jax.random.normal(keys[name], (batch, *spec.shape)) for name, spec in SPECS.items()}


def outputs(agent, observation):
    latent = jnp.ones((6, agent.policy.latent_size))
    low_level, own = agent.policy.low_level, agent.default_policy.low_level
    return {
        **({"default": own(low_level, observation, latent)} if own.adds_kl else {}),
        "high_level": agent.policy.high_level(observation, latent),
        "low_level": own.policy_action(low_level, (), observation, latent)[1],
        "critic": agent.critic(observation, latent, jnp.ones((6, ACTIONS))),
    }
