"""Encoders that normalize a group by running statistics, against numpy's of everything seen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.encoders import NormalizedFields, observed
from mjx_hkl.models.statistics import Statistic, learned, with_learned
from mjx_hkl.specs import ArraySpec

SPECS = {"body": ArraySpec((3,)), "targets": ArraySpec((2,))}


def encoder(bound=10.0):
    return NormalizedFields(bound=bound).build(SPECS["body"], nnx.Rngs(0))


def make_agent(**encoders):
    everything = dict.fromkeys(("high_level", "low_level", "critic", "default"), tuple(SPECS))
    table = {
        "information": everything,
        "policy": {"high_level": {"sizes": [4], "latent_size": 2}, "low_level": {"sizes": [4]}},
        "critic": {"sizes": [4]},
        "encoders": encoders,
    }
    return Agent(SPECS, 2, from_table(ModelConfig, table, "test"), jax.random.key(0))


def statistics(tree):
    leaves = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, Statistic))
    return [np.asarray(x[...]) for x in leaves if isinstance(x, Statistic)]


def test_before_anything_is_seen_a_group_is_as_it_is():
    x = jnp.array([[-3.0, 0.5, 4.0]])
    np.testing.assert_array_equal(encoder()(x), x)


def test_statistics_are_numpys_of_all_that_was_seen_whatever_the_batches():
    """Of batches of unequal sizes and places, far from 0 against their spread."""
    rng = np.random.default_rng(0)
    batches = [
        rng.normal(place, scale, size=(*shape, 3)) + np.array([0.0, 300.0, -5.0])
        for place, scale, shape in [(0, 1, (4, 5)), (3, 0.1, (1,)), (-2, 2, (7, 2, 3)), (1, 1, (100,))]
    ]
    module, seen = encoder(), np.zeros((0, 3))
    for batch in batches:
        module = module.observed(jnp.asarray(batch, jnp.float32))
        seen = np.concatenate([seen, batch.reshape(-1, 3)])
        assert float(module.count[...]) == len(seen)
        np.testing.assert_allclose(module.mean[...], seen.mean(0), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(module.variance[...], seen.var(0), rtol=1e-3)
    expected = (seen - seen.mean(0)) / seen.std(0)
    np.testing.assert_allclose(module(jnp.asarray(seen, jnp.float32)), expected, atol=2e-3)


def test_what_is_normalized_is_bounded():
    module = encoder(bound=1.5).observed(jnp.array([[-1.0] * 3, [1.0] * 3]))
    np.testing.assert_allclose(module(jnp.array([[-9.0, 1.2, 9.0]])), [[-1.5, 1.2, 1.5]], rtol=1e-6)


def test_what_never_changes_is_close_to_zero():
    """However the mean of many equal numbers is rounded."""
    constant = jnp.full((1000, 3), 0.1) * jnp.array([1.0, 30.0, 0.0])
    module = encoder().observed(constant).observed(constant)
    assert np.abs(module(constant)).max() < 0.2


def test_each_module_measures_for_itself_and_frozen_ones_do_not():
    agent = make_agent(body="normalized")
    observation = {"body": jnp.arange(12.0).reshape(2, 2, 3), "targets": jnp.ones((2, 2, 2))}
    after = agent.observed(observation, frozen=("policy.low_level",))
    for module, count in ((after.policy.high_level, 4), (after.policy.low_level, 0), (after.critic, 4)):
        assert float(module.inputs.encoders.body.count[...]) == count
    assert float(agent.critic.inputs.encoders.body.count[...]) == 0  # the given agent is as it was
    np.testing.assert_allclose(after.critic.inputs.encoders.body.mean[...], [4.5, 5.5, 6.5])


def test_a_frozen_part_of_a_module_does_not_measure_either():
    agent = make_agent(body="normalized")
    part = "policy.low_level.inputs"
    after = agent.observed({"body": jnp.ones((5, 3)), "targets": jnp.ones((5, 2))}, frozen=(part,))
    assert float(after.policy.low_level.inputs.encoders.body.count[...]) == 0
    assert float(after.critic.inputs.encoders.body.count[...]) == 5


@pytest.mark.parametrize("frozen", [(), ("encoders.targets",)])
def test_a_shared_encoder_measures_once_for_all(frozen):
    agent = make_agent(targets={"kind": "normalized", "shared": True})
    after = agent.observed({"body": jnp.ones((5, 3)), "targets": jnp.full((5, 2), 2.0)}, frozen)
    assert float(after.encoders.targets.count[...]) == (0 if frozen else 5)
    assert len(statistics(after)) == 3


def test_encoders_without_statistics_are_as_they_were():
    agent = make_agent(body={"kind": "mlp", "sizes": [2]}, targets={"kind": "mlp", "shared": True})
    nothing = jax.make_jaxpr(lambda x: agent.observed(x))(
        {"body": jnp.ones((5, 3)), "targets": jnp.ones((5, 2))}
    )
    assert not nothing.eqns
    assert not statistics(agent)
    assert len(jax.tree.leaves(learned(agent))) == len(jax.tree.leaves(agent))


def test_what_is_learned_and_what_is_measured_are_told_apart():
    agent = make_agent(body="normalized")
    observation = {"body": jnp.arange(12.0).reshape(4, 3), "targets": jnp.ones((4, 2))}
    other = jax.tree.map(lambda x: x + 1.0, agent.observed(observation))
    without = learned(agent)
    assert len(jax.tree.leaves(without)) == len(jax.tree.leaves(agent)) - 3 * 3
    joined = with_learned(other, without)
    for a, b in zip(statistics(joined), statistics(other), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(*map(jax.tree.leaves, (learned(joined), without)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_module_of_ones_own_measures_through_its_inputs():
    """Wherever in a module they are."""
    low_level = make_agent(body="normalized").policy.low_level
    after = observed({"deep": [low_level]}, {"body": jnp.ones((5, 3))})
    assert float(after["deep"][0].inputs.encoders.body.count[...]) == 5


def test_an_image_cannot_be_normalized():
    with pytest.raises(UserError, match="takes vectors of numbers, not 8x8x3 uint8"):
        NormalizedFields().build(ArraySpec((8, 8, 3), "uint8"), nnx.Rngs(0))
