import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_hkl.errors import UserError
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import (
    CriticConfig,
    DefaultPolicyConfig,
    EncoderConfig,
    Information,
    ModelConfig,
    PolicyConfig,
)

SIZES = {"proprioception": 5, "targets": 4, "instruction": 3}
ACTIONS, LATENT = 2, 3


def make(prior="isotropic", kind="hierarchical", own="shared", **information):
    seen = {
        "high_level": tuple(SIZES),
        "low_level": ("proprioception",),
        "critic": tuple(SIZES),
        "default": ("proprioception",),
    }
    config = ModelConfig(
        information=Information(**seen | information),
        policy=PolicyConfig(kind=kind, high_level=(16, LATENT), low_level=(16,)),
        default_policy=DefaultPolicyConfig(
            high_level=prior, low_level=own, high_level_sizes=(16,), low_level_sizes=(16,)
        ),
        critic=CriticConfig((16, 16)),
    )
    return Agent(SIZES, ACTIONS, config, jax.random.key(0))


def observe(key=0, batch=6):
    keys = jax.random.split(jax.random.key(key), len(SIZES))
    return {name: jax.random.normal(k, (batch, n)) for k, (name, n) in zip(keys, SIZES.items(), strict=True)}


def outputs(agent, observation):
    latent = jnp.ones((6, agent.policy.latent_size))
    own = agent.default_policy.action(agent.policy, observation, latent)
    return {
        **({} if own is None else {"default": own}),
        "high_level": agent.policy.latent(observation, latent),
        "low_level": agent.action(observation, latent),
        "critic": agent.critic(observation, latent, jnp.ones((6, ACTIONS))),
    }


@pytest.mark.parametrize("hidden", list(SIZES))
@pytest.mark.parametrize("module", ["high_level", "low_level", "critic", "default"])
def test_a_module_cannot_read_a_group_it_was_not_given(module, hidden):
    everything = {name: tuple(SIZES) for name in ("high_level", "low_level", "critic", "default")}
    seen = everything | {module: tuple(name for name in SIZES if name != hidden)}
    agent = make(**{"own": "separate", **seen})
    observation = observe()
    perturbed = observation | {hidden: observation[hidden] + 1.0}
    before, after = outputs(agent, observation), outputs(agent, perturbed)
    for name in before:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before[name], after[name])
        assert all(jax.tree.leaves(same)) == (name == module)


def test_the_default_policy_sees_no_observation_at_all():
    for prior in ("isotropic", "ar1", "ar_learned"):
        latent = jnp.ones((6, LATENT))
        assert make(prior).default_policy.latent(latent).mean.shape == (6, LATENT)


def test_scales_stay_inside_their_bounds_whatever_the_input():
    agent = make()
    huge = {name: 1e4 * group for name, group in observe().items()}
    for name, (low, high) in {"high_level": (0.05, 1.0), "low_level": (0.05, 1.0)}.items():
        scale = outputs(agent, huge)[name].scale
        assert ((scale >= low) & (scale <= high)).all()
    assert (jnp.abs(outputs(agent, huge)["low_level"].mean) <= 1).all()


@pytest.mark.parametrize(("prior", "sees"), [("isotropic", False), ("ar1", True), ("ar_learned", True)])
def test_the_previous_latent_is_seen_exactly_with_autoregressive_priors(prior, sees):
    agent, observation = make(prior), observe()
    a = agent.policy.latent(observation, jnp.zeros((6, LATENT)))
    b = agent.policy.latent(observation, jnp.ones((6, LATENT)))
    assert agent.policy.is_autoregressive == sees
    assert bool((a.mean != b.mean).any()) == sees


def test_priors_are_those_of_the_paper():
    z = jnp.array([[0.5, -1.0, 2.0]])
    isotropic = make("isotropic").default_policy.latent(z)
    np.testing.assert_array_equal(isotropic.mean, jnp.zeros((1, LATENT)))
    np.testing.assert_array_equal(isotropic.scale, jnp.ones((1, LATENT)))
    ar1 = make("ar1").default_policy.latent(z)
    np.testing.assert_allclose(ar1.mean, 0.95 * z)
    np.testing.assert_allclose(ar1.scale, np.sqrt(1 - 0.95**2), rtol=1e-6)
    learned = make("ar_learned").default_policy
    assert learned.high_level is not None
    assert (learned.latent(z).mean != learned.latent(2 * z).mean).any()


def test_a_flat_policy_has_no_latent_and_no_kl():
    agent = make("none", kind="flat", own="none", low_level=tuple(SIZES))
    observation, latent_tm1 = observe(), jnp.zeros((6, 0))
    latent = agent.policy.latent(observation, latent_tm1)
    assert latent.mean.shape == (6, 0)
    kl = latent.kl_divergence(agent.default_policy.latent(latent_tm1))
    np.testing.assert_array_equal(kl, jnp.zeros(6))
    assert agent.action(observation, latent.mean).mean.shape == (6, ACTIONS)


def make_flat(own):
    return make("none", kind="flat", own=own, low_level=tuple(SIZES))


def test_distral_hides_the_task_from_the_default_policy():
    """F.2: but not where that is a branch on the policy's own features."""
    observation = observe()
    elsewhere = observation | {"targets": observation["targets"] + 1.0}
    for own, hides in (("distral", True), ("distral_two_column", True), ("distral_shared", False)):
        agent = make_flat(own)
        here, there = (outputs(agent, x)["default"].mean for x in (observation, elsewhere))
        assert bool((here == there).all()) == hides


def test_two_columns_are_added_before_the_bounds():
    agent, observation, latent = make_flat("distral_two_column"), observe(), jnp.zeros((6, 0))
    raw = [
        low_level.head.linear(low_level.torso(low_level.inputs(observation)))
        for low_level in (agent.policy.low_level, agent.default_policy.low_level)
    ]
    mean, scale = jnp.split(raw[0] + raw[1], 2, axis=-1)
    action = agent.action(observation, latent)
    np.testing.assert_allclose(action.mean, jnp.tanh(mean), atol=1e-6)
    np.testing.assert_allclose(action.scale, 0.05 + 0.95 / (1 + np.exp(-scale)), rtol=1e-5)


def test_boxes_pass_an_encoder_of_their_own():
    """Appendix G; what else a module sees is joined as it is."""
    sizes = {"proprioception": 5, "boxes": 18}
    config = ModelConfig(
        Information(*4 * [tuple(sizes)]), PolicyConfig(low_level=(16,)), encoder=EncoderConfig(boxes=(50,))
    )
    low_level = Agent(sizes, ACTIONS, config, jax.random.key(0)).policy.low_level
    assert low_level.torso.layers[0].in_features == 5 + 50 + config.policy.latent_size
    observation = {name: jnp.ones(n) for name, n in sizes.items()}
    encoder = low_level.inputs.boxes.layers[0]
    expected = jax.nn.elu(observation["boxes"] @ encoder.kernel[...] + encoder.bias[...])
    joined = low_level.inputs(observation)
    np.testing.assert_allclose(joined, jnp.concatenate([observation["proprioception"], expected]), atol=1e-6)


def test_of_twin_critics_the_least_counts():
    config = ModelConfig(Information(*4 * [tuple(SIZES)]), critic=CriticConfig((16, 16), num_critics=2))
    critic = Agent(SIZES, ACTIONS, config, jax.random.key(0)).critic
    inputs = observe(), jnp.ones((6, config.policy.latent_size)), jnp.ones((6, ACTIONS))
    each = critic.each(*inputs)
    assert each.shape == (2, 6)
    assert (each[0] != each[1]).all()
    np.testing.assert_array_equal(critic(*inputs), np.minimum(*each))


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="a flat policy has no latent"):
        ModelConfig(policy=PolicyConfig(kind="flat"))
    with pytest.raises(ValueError, match="a latent needs a prior"):
        ModelConfig(default_policy=DefaultPolicyConfig(low_level="distral"))
    with pytest.raises(ValueError, match="no latent to keep"):
        ModelConfig(
            policy=PolicyConfig(kind="flat", latent_period=2),
            default_policy=DefaultPolicyConfig(high_level="none", low_level="distral"),
        )
    with pytest.raises(ValueError, match="below its greatest"):
        PolicyConfig(latent_scale=(1.0, 0.5))
    with pytest.raises(UserError, match="unknown observation group 'target'; did you mean targets"):
        Information(("targets",), ("target",), ("targets",), ("targets",)).check(SIZES)
    with pytest.raises(UserError, match="twice"):
        Information(("targets",), ("targets", "targets"), ("targets",), ("targets",)).check(SIZES)
    with pytest.raises(UserError, match=r"information.critic names no observation group"):
        Information(("targets",), ("targets",), (), ("targets",)).check(SIZES)
