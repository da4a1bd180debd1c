"""Agents: who sees what, priors, latents, encoders, and what is refused."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_agents import (
    ACTIONS,
    EVERYTHING,
    GROUPS,
    LATENT,
    SMALL,
    SPECS,
    build,
    make,
    make_flat,
    observe,
    outputs,
)

from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError
from mjx_hkl.models.config import Information, ModelConfig
from mjx_hkl.specs import ArraySpec


@pytest.mark.parametrize("hidden", GROUPS)
@pytest.mark.parametrize("module", ["high_level", "low_level", "critic", "default"])
def test_a_module_cannot_read_a_group_it_was_not_given(module, hidden):
    seen: dict[str, Any] = EVERYTHING | {module: [name for name in GROUPS if name != hidden]}
    agent = make(own="separate", **seen)
    observation = observe()
    perturbed = observation | {hidden: observation[hidden] + 1.0}
    before, after = outputs(agent, observation), outputs(agent, perturbed)
    for name in before:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before[name], after[name])
        assert all(jax.tree.leaves(same)) == (name == module)


@pytest.mark.parametrize("prior", ["isotropic", "ar1", "ar_learned"])
def test_the_prior_sees_no_observation_at_all(prior):
    """Along a window whose observations differ in every group, at equal latents before: the same prior."""
    agent = make(prior)
    carry = agent.start((6,)).replace(latent=jax.random.normal(jax.random.key(1), (6, LATENT)))
    first, noise = jnp.zeros(6, bool), agent.no_noise((6,))
    (_, here), (_, there) = (agent.step(carry, observe(key), first, noise) for key in (0, 1))
    assert (here.latents.distribution.mean != there.latents.distribution.mean).all()
    np.testing.assert_array_equal(here.prior.mean, there.prior.mean)
    np.testing.assert_array_equal(here.prior.scale, there.prior.scale)


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
    a = agent.policy.high_level(observation, jnp.zeros((6, LATENT)))
    b = agent.policy.high_level(observation, jnp.ones((6, LATENT)))
    assert agent.policy.remembers == sees
    assert bool((a.mean != b.mean).any()) == sees


def test_priors_are_those_of_the_paper():
    z = jnp.array([[0.5, -1.0, 2.0]])
    isotropic = make("isotropic").default_policy.high_level(z)
    np.testing.assert_array_equal(isotropic.mean, jnp.zeros((1, LATENT)))
    np.testing.assert_array_equal(isotropic.scale, jnp.ones((1, LATENT)))
    ar1 = make("ar1").default_policy.high_level(z)
    np.testing.assert_allclose(ar1.mean, 0.95 * z)
    np.testing.assert_allclose(ar1.scale, np.sqrt(1 - 0.95**2), rtol=1e-6)
    learned = make("ar_learned").default_policy.high_level
    assert (learned(z).mean != learned(2 * z).mean).any()


def test_a_flat_policy_has_no_latent_and_no_kl():
    agent, observation, latent_tm1 = make_flat("none"), observe(), jnp.zeros((6, 0))
    latent = agent.policy.high_level(observation, latent_tm1)
    assert latent.mean.shape == (6, 0)
    kl = latent.kl_divergence(agent.default_policy.high_level(latent_tm1))
    np.testing.assert_array_equal(kl, jnp.zeros(6))
    assert not agent.default_policy.low_level.adds_kl
    assert outputs(agent, observation)["low_level"].mean.shape == (6, ACTIONS)


def test_distral_hides_the_task_from_the_default_policy():
    """F.2: but not where that is a branch on the policy's own features."""
    observation = observe()
    elsewhere = observation | {"targets": observation["targets"] + 1.0}
    for own, hides in (("distral", True), ("distral_two_column", True), ("distral_shared", False)):
        agent = make_flat(own)
        here, there = (outputs(agent, x)["default"].mean for x in (observation, elsewhere))
        assert bool((here == there).all()) == hides


def test_two_columns_are_added_before_the_bounds():
    agent, observation = make_flat("distral_two_column"), observe()
    raw = [
        low_level.head.linear(low_level.torso(low_level.inputs(observation)))
        for low_level in (agent.policy.low_level, agent.default_policy.low_level)
    ]
    mean, scale = jnp.split(raw[0] + raw[1], 2, axis=-1)
    action = outputs(agent, observation)["low_level"]
    np.testing.assert_allclose(action.mean, jnp.tanh(mean), atol=1e-6)
    np.testing.assert_allclose(action.scale, 0.05 + 0.95 / (1 + np.exp(-scale)), rtol=1e-5)


def with_boxes(**encoder):
    specs = {"proprioception": ArraySpec((5,)), "boxes": ArraySpec((18,))}
    information = {name: list(specs) for name in EVERYTHING}
    agent = build(specs, information=information, encoders={"boxes": {"sizes": [50], **encoder}})
    return agent, {name: jnp.linspace(-1.0, 1.0, spec.size) for name, spec in specs.items()}


def elu_layer(layer, x):
    return jax.nn.elu(x @ layer.kernel[...] + layer.bias[...])


def test_boxes_pass_an_encoder_of_each_modules_own():
    """Appendix G; what else a module sees is joined as it is."""
    agent, observation = with_boxes()
    low_level = agent.policy.low_level
    assert low_level.torso.layers[0].in_features == 5 + 50 + agent.policy.latent_size
    expected = elu_layer(low_level.inputs.encoders.boxes.mlp.layers[0], observation["boxes"])
    joined = low_level.inputs(observation)
    np.testing.assert_allclose(joined, jnp.concatenate([observation["proprioception"], expected]), atol=1e-6)
    modules = agent.policy.high_level, agent.policy.low_level, agent.critic
    kernels = [module.inputs.encoders.boxes.mlp.layers[0].kernel[...] for module in modules]
    assert all((a != b).any() for a, b in itertools.combinations(kernels, 2))


def test_a_shared_encoder_is_one_module_that_all_see_through():
    """A step's latent and action, by the one encoder's parameters and those of the torsos."""
    agent, observation = with_boxes(shared=True)
    assert set(agent.modules()) >= {"encoders.boxes", "policy.high_level"}
    assert not agent.policy.low_level.inputs.encoders
    encoded = observation | {"boxes": elu_layer(agent.encoders.boxes.mlp.layers[0], observation["boxes"])}
    batched = jax.tree.map(lambda x: x[None], observation)
    _, step = agent.step(agent.start((1,)), batched, jnp.ones(1, bool), agent.no_noise((1,)))
    latent = agent.policy.high_level(encoded, jnp.zeros(10)).mean
    np.testing.assert_allclose(step.latents.latent[0], latent, atol=1e-6)
    np.testing.assert_allclose(step.action[0], agent.policy.low_level(encoded, latent).mean, atol=1e-6)


def test_integers_are_brought_to_the_order_of_one():
    """An image of bytes, against the same layer on numbers from 0 to 1."""
    specs = {"vision": ArraySpec((8, 8, 3), "uint8")}
    information = {name: ["vision"] for name in EVERYTHING}
    agent = build(specs, **SMALL, information=information, encoders={"vision": {"sizes": [20]}})
    image = jax.random.randint(jax.random.key(0), (4, 8, 8, 3), 0, 256).astype(jnp.uint8)
    encoder = agent.policy.low_level.inputs.encoders.vision
    expected = elu_layer(encoder.mlp.layers[0], np.asarray(image, float).reshape(4, -1) / 255)
    np.testing.assert_allclose(encoder(image), expected, atol=1e-5)
    with pytest.raises(UserError, match=r"'vision' is 8x8x3 uint8, no vector of numbers: give it an encoder"):
        build(specs, **SMALL, information=information)


def test_gains_are_of_the_policys_heads_alone_and_change_nothing_else():
    """Not those of priors and default low levels, and nothing that a transfer compares."""

    def with_gains(*gains):
        levels = zip(("high_level", "low_level"), gains, strict=True)
        policy = {level: {"sizes": [16], "head_gain": gain} for level, gain in levels}
        default = {"high_level": "ar_learned", "low_level": "separate"}
        return build(information=EVERYTHING, policy=policy, default_policy=default)

    usual, other = with_gains(0.1, 0.1), with_gains(0.4, 0.8)
    factors = {"policy.high_level.head": 4.0, "policy.low_level.head": 8.0}
    pairs = zip(jax.tree_util.tree_leaves_with_path(usual), jax.tree.leaves(other), strict=True)
    for (path, before), after in pairs:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        factor = next((x for head, x in factors.items() if name.startswith(head)), 1.0)
        np.testing.assert_allclose(after, factor * before, rtol=1e-6 if factor > 1 else 0, err_msg=name)
    for name, module in usual.modules().items():
        assert module.fits() == other.modules()[name].fits()


@pytest.mark.parametrize("kind", ["mlp", "hl_gauss"])
def test_every_hidden_layer_may_be_normalized(kind):
    """Outputs, by flax's layers; of the critic the first layer is as it was."""
    table = {
        "policy": {
            name: {"sizes": [16, 8], "layer_norm": True, "gated": True}
            for name in ("high_level", "low_level")
        },
        "critic": {"kind": kind, "sizes": [16, 8, 4], "layer_norm": True, "gated": True},
    }
    agent = build(information=EVERYTHING, **table)
    agent = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), agent)
    observation, latent, action = observe(), jnp.ones((6, 10)), jnp.ones((6, ACTIONS))

    def features(x, torso):
        for layer, norm in zip(torso.layers, torso.norms, strict=True):
            x = jax.nn.elu(norm(layer(x)))
        return x

    seen = jnp.concatenate([observation[name] for name in GROUPS], axis=-1)
    high_level, low_level = agent.policy.high_level, agent.policy.low_level
    for found, module, inputs in (
        (high_level(observation, latent), high_level, seen),
        (low_level(observation, latent), low_level, jnp.concatenate([seen, latent], axis=-1)),
    ):
        expected = module.head(features(inputs, module.torso))
        np.testing.assert_allclose(found.mean, expected.mean, atol=1e-5)
        np.testing.assert_allclose(found.scale, expected.scale, atol=1e-5)
    (member,) = agent.critic.members
    first = jnp.tanh(member.norm(member.first(jnp.concatenate([seen, latent, action], axis=-1))))
    raw = member.value(features(first, member.rest))
    np.testing.assert_allclose(agent.critic.raw(observation, latent, action)[0], raw, atol=1e-4)


def test_a_latent_is_kept_for_its_period_and_drawn_afresh_in_a_new_episode():
    table = SMALL | {"policy": {"high_level": {"latent_size": LATENT, "latent_period": 3}}}
    agent = build(**table, information=EVERYTHING)
    carry, changed = agent.start((6,)), []
    for t, first in enumerate([1, 0, 0, 0, 0, 1, 0, 0, 0]):
        noise = agent.noise(jax.random.key(t), (6,))
        after, step = agent.step(carry, observe(t), jnp.full(6, bool(first)), noise)
        changed.append((after.latent != carry.latent).all())
        assert (step.latents.drawn == changed[-1]).all()
        carry = after
    assert changed == [True, False, False, True, False, True, False, False, True]


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ({"policy": {"high_level": "none"}, "default_policy": {"high_level": "ar1", "low_level": "none"}},
         "default_policy.high_level 'ar1' does not suit a flat policy; one of isotropic, none does"),
        ({"policy": {"high_level": "none"}}, "default_policy.low_level 'shared' does not suit a flat policy"),
        ({"default_policy": {"low_level": "distral"}}, "does not suit a policy with a latent; one of shared"),
        ({"policy": {"high_level": {"kind": "none", "latent_period": 2}}}, "unknown field 'latent_period'"),
        ({"policy": {"high_level": {"scale": [1.0, 0.5]}}}, "below its greatest"),
        ({"policy": {"high_level": "mpl"}}, "did you mean mlp"),
        ({"default_policy": {"high_level": {"kind": "ar1", "coefficient": 1.0}}}, "should be less than 1"),
        ({"critic": {"sizes": []}}, "at least one layer"),
        ({"critic": {"layer_norm": "all"}}, "layer_norm: input should be a valid boolean, not 'all'"),
        ({"policy": {"high_level": {"head_gain": 0.0}}}, "head_gain: input should be greater than 0"),
        ({"policy": {"low_level": {"head_gain": 1e3}}}, "head_gain: input should be less than or equal"),
        ({"policy": {"high_level": {"kind": "none", "head_gain": 1.0}}}, "unknown field 'head_gain'"),
        ({"critic": {"kind": "hl_gauss", "value_range": [3.0, 3.0]}}, "least value below its greatest"),
        ({"critic": {"kind": "hl_gauss", "num_bins": 1}}, "num_bins: input should be greater than or equal"),
        ({"critic": {"num_critics": 10**12}}, "num_critics: input should be less than or equal to 1000"),
        ({"critic": {"sizes": [10**25]}}, "sizes.0"),
        ({"policy": {"low_level": {"sizes": [8] * 101}}}, "at most 100 items"),
    ],
)  # fmt: skip
def test_contradictions_are_refused(table, match):
    with pytest.raises(UserError, match=match):
        from_table(ModelConfig, table, "test")


def test_information_names_groups_that_are_there():
    some, twice = ("targets",), ("targets", "targets")
    with pytest.raises(UserError, match="unknown observation group 'target'; did you mean targets"):
        Information(some, ("target",), some, some).check(SPECS)
    with pytest.raises(UserError, match="twice"):
        Information(some, twice, some, some).check(SPECS)
    with pytest.raises(UserError, match=r"information.critic names no observation group"):
        Information(some, some, (), some).check(SPECS)


def test_a_bounded_latent_does_not_grow_from_step_to_step():
    """A high level with large weights, which feeds on its own latents; with means b tanh(μ / b) below b."""
    found = {}
    for bound in (0.0, 3.0):
        high_level = {"sizes": [16], "latent_size": LATENT, "mean_bound": bound}
        table = SMALL | {"policy": {"high_level": high_level, "low_level": {"sizes": [16]}}}
        agent = build(**table, information=EVERYTHING, default_policy={"high_level": "ar1"})
        module = agent.policy.high_level
        observation, latent = observe(), jnp.full((6, LATENT), 1e-2)
        small = module(observation, latent).mean
        weights = module.head.linear.kernel[...]
        module.head.linear.kernel[...] = 300.0 * weights
        for _ in range(30):
            latent = module(observation, latent).mean
        found[bound] = small, np.abs(latent).max()
    np.testing.assert_allclose(
        found[3.0][0], found[0.0][0], rtol=0.02, atol=1e-4
    )  # tanh is the identity near 0
    assert found[0.0][1] > 1e6
    assert found[3.0][1] <= 3.0


def test_a_policy_may_begin_at_its_autoregressive_prior():
    """Its mean is c z_{t−1} + μ; where μ is 0 and σ is √(1 − c²) there is nothing to pay."""
    c, sigma = 0.95, np.sqrt(1 - 0.95**2)
    tables = {
        name: SMALL["policy"]
        | {"high_level": {"sizes": [16], "latent_size": LATENT, "scale": [1e-3, 2 * sigma - 1e-3], **more}}
        for name, more in {"plain": {}, "carried": {"coefficient": c}}.items()
    }
    agents = {
        name: build(policy=policy, information=EVERYTHING, default_policy={"high_level": "ar1"})
        for name, policy in tables.items()
    }
    observation, latent = observe(), 2 * jax.random.normal(jax.random.key(1), (6, LATENT))
    plain, carried = (agents[name].policy.high_level for name in ("plain", "carried"))
    before = plain(observation, latent)
    np.testing.assert_allclose(carried(observation, latent).mean, before.mean + c * latent, rtol=1e-6)
    np.testing.assert_array_equal(carried(observation, latent).scale, before.scale)
    carried.head.linear.kernel[...] = 0.0
    prior = agents["carried"].default_policy.high_level(latent)
    np.testing.assert_allclose(carried(observation, latent).kl_divergence(prior), 0.0, atol=1e-6)
    assert plain.fits() != carried.fits()
    with pytest.raises(UserError, match="coefficient is of the latent before"):
        build(policy=tables["carried"], information=EVERYTHING)
