"""SVG(0) in the latent space of a frozen low level (Appendix A)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loading import physics_environment
from small import ACTIONS, LATENT, make_agent, make_window

from mjx_hkl.algorithms import hierarchy
from mjx_hkl.algorithms.latent_svg import LatentSVG
from mjx_hkl.config import from_table
from mjx_hkl.environments import PhysicsWorld, VectorEnvironment
from mjx_hkl.errors import UserError
from mjx_hkl.experiments.build import make_environment, resolve
from mjx_hkl.experiments.recipe import load_recipe
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.critics import MLPCritic
from mjx_hkl.training import acting

WORLD = VectorEnvironment(PhysicsWorld(physics_environment("ball-go-to-target"), "mujoco"), 8, 400)


def acting_in_latents(size=LATENT):
    """A small agent for the Ball."""
    table = {
        "information": {
            "high_level": ["targets", "instruction"],
            "low_level": ["proprioception"],
            "critic": ["targets"],
            "default": ["proprioception"],
        },
        "policy": {"high_level": {"sizes": [8], "latent_size": size}, "low_level": {"sizes": [8]}},
        "critic": {"sizes": [8, 8], "clip_actions": True},
        "acts_in_latents": True,
    }
    config = from_table(ModelConfig, table, "small agent")
    return Agent(WORLD.env.observation_specs, 2, config, jax.random.key(0))


@pytest.mark.long
def test_windows_hold_latents_and_their_density():
    agent = acting_in_latents(3)
    actor = acting.init(WORLD, agent, jax.random.key(0))
    _, window, _ = acting.unroll(WORLD, agent, actor, jax.random.key(1), 4, keeps_latents=True)
    assert window.action.shape == (8, 4, 3)
    seen = {name: x[:, :4] for name, x in window.observation.items()}
    distribution = agent.policy.high_level(seen, jnp.zeros((8, 4, 3)))
    np.testing.assert_allclose(window.behaviour_log_prob, distribution.log_prob(window.action), rtol=1e-5)


def test_the_critic_is_of_latents_alone():
    critic = acting_in_latents(3).critic
    assert isinstance(critic, MLPCritic)
    assert critic.sees == ("targets", "action")
    assert critic.inputs.size == WORLD.env.observation_size["targets"] + 3


def test_latents_are_not_clipped_where_actions_are():
    critic, none = acting_in_latents(3).critic, jnp.zeros((1, 0))
    observation = {"targets": jnp.zeros((1, WORLD.env.observation_size["targets"]))}
    values = [critic(observation, none, jnp.full((1, 3), x)) for x in (1.0, 2.0)]
    assert values[0] != values[1]


def test_the_gradient_of_the_policy_is_that_of_q_through_the_latent():
    """By hand: −E dQ/dz dz/dθ, of the KL and of the entropy, over the steps that are valid."""
    agent = agent_of_latents()
    target = hierarchy.Target(agent_of_latents(seed=1))
    window, key = make_window(), jax.random.key(0)
    algorithm = LatentSVG(kl_cost=0.3, entropy_cost=0.2)
    gradients, _ = jax.grad(LatentSVG.loss, argnums=1, has_aux=True)(
        algorithm, agent, target, window, key, {}
    )

    noise = jax.random.normal(jax.random.split(key)[1], (1, 7, 6, LATENT))[0]
    none = jnp.zeros((7, 6, 0))

    def loss(high_level):
        policy = high_level(window.observation, jnp.zeros((7, 6, LATENT)))
        q = target.critic(window.observation, none, policy.draw(noise))
        prior = Gaussian(jnp.zeros_like(policy.mean), jnp.ones_like(policy.mean))
        gain = q - 0.3 * policy.kl_divergence(prior) + 0.2 * policy.entropy()
        return -(gain[:5] * window.valid).sum() / window.valid.sum()

    expected = jax.grad(loss)(agent.policy.high_level)
    for a, b in zip(jax.tree.leaves(gradients.policy.high_level), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    for part in jax.tree.leaves(gradients.policy.low_level):
        np.testing.assert_array_equal(part, 0.0)


def agent_of_latents(seed=0):
    """A small agent whose critic judges latents; there are as many numbers in those as in actions."""
    assert LATENT == ACTIONS
    agent, without = make_agent("isotropic", seed=seed), make_agent(low_level="none", seed=seed)
    agent.critic = without.critic
    return agent


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ({"low_level": "none"}, "a flat policy has none"),
        ({"prior": "ar1"}, "needs latents that each step draws afresh"),
        ({"period": 3}, "needs latents that each step draws afresh"),
        ({"prior": "posterior", "low_level": "feed_forward"}, "needs latents that each step draws afresh"),
        ({"low_level": "separate"}, "needs default_policy.low_level shared"),
    ],
)
def test_an_agent_whose_latents_are_no_actions_is_said_in_a_line(agent, words):
    with pytest.raises(UserError, match=words):
        LatentSVG().parameters(make_agent(**agent), jax.random.key(0))


@pytest.mark.parametrize(
    "changes",
    [
        {"behaviour_samples": 4},
        {"latents": "stored_noise"},
        {"exploration_scale": [0.5, 2.0]},
        {"exploration_correlation": 0.9},
        {"symmetries": True},
        {"relabelled": 0.5},
    ],
)
def test_options_of_latents_that_are_no_actions_are_said_in_a_line(changes):
    with pytest.raises(UserError, match=f"{next(iter(changes))} is for latents that are not the action"):
        from_table(LatentSVG, changes, "recipe")


def test_a_low_level_that_is_not_frozen_is_said_in_a_line():
    recipe = load_recipe("ball-go-to-target-plain")
    recipe = dataclasses.replace(recipe, algorithm=LatentSVG())
    with pytest.raises(UserError, match=r"'latent_svg' leaves policy\.low_level as it is: take one"):
        make_environment(resolve(recipe))
