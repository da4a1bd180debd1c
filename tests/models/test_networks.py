import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from mjx_hkl.models.critics import ValueNetwork
from mjx_hkl.models.networks import (
    MLP,
    CategoricalHead,
    GatedLinear,
    GaussianHead,
    elu,
    layer_norm,
    tanh_layer_norm,
)


def test_elu_is_that_of_jax_with_its_slope():
    x = jnp.concatenate([jnp.linspace(-30.0, 30.0, 2001), jnp.array([-1e-8, 0.0, 1e-8, 3e38, -3e38])])
    np.testing.assert_allclose(elu(x), jax.nn.elu(x), atol=2e-7, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(elu))(x), jax.vmap(jax.grad(jax.nn.elu))(x), atol=2e-7)


@pytest.mark.parametrize(
    ("ours", "activation", "shape"),
    [
        (tanh_layer_norm, jnp.tanh, (7, 33)),
        (layer_norm, lambda x: x, (7, 33)),
        (layer_norm, lambda x: x, (2, 3, 4, 33)),
        (layer_norm, lambda x: x, (33,)),
    ],
)
def test_layer_norms_are_those_of_flax_with_their_gradients(ours, activation, shape):
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3.0 * jax.random.normal(keys[0], shape) + 5.0
    scale, bias = 1.0 + 0.3 * jax.random.normal(keys[1], (33,)), 0.3 * jax.random.normal(keys[2], (33,))
    weight = jax.random.normal(keys[3], x.shape)
    norm = linen.LayerNorm(use_fast_variance=False)

    def flaxs(x, scale, bias):
        return activation(jnp.asarray(norm.apply({"params": {"scale": scale, "bias": bias}}, x)))

    np.testing.assert_allclose(ours(x, scale, bias), flaxs(x, scale, bias), atol=2e-6)
    found, expected = (
        jax.grad(lambda *args, f=f: (weight * f(*args)).sum(), argnums=(0, 1, 2))(x, scale, bias)
        for f in (ours, flaxs)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_value_network_takes_any_leading_axes():
    network = ValueNetwork(5, (8, 4), 2, rngs=nnx.Rngs(0))
    inputs = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))

    def alone(x):
        hidden = network.rest(jnp.tanh(network.norm(network.first(x))))
        return network.value(hidden)

    expected = np.array([[[alone(x) for x in rows] for rows in steps] for steps in inputs])
    np.testing.assert_allclose(network(inputs), expected, atol=1e-5)
    np.testing.assert_allclose(network(inputs[1, 2]), expected[1, 2], atol=1e-5)
    np.testing.assert_allclose(network(inputs[1, 2, 3]), expected[1, 2, 3], atol=1e-5)


@pytest.mark.parametrize("normalizes", [False, True])
def test_layers_are_followed_by_layer_norm_where_they_are_asked_to_be(normalizes):
    """By flax's own layers, with scales and biases that matter."""
    mlp = MLP(5, (8, 4), normalizes, rngs=nnx.Rngs(0))
    mlp = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), mlp)
    assert len(mlp.norms) == (2 if normalizes else 0)
    inputs = 3.0 * jax.random.normal(jax.random.key(0), (2, 3, 5))
    expected = inputs
    for i, layer in enumerate(mlp.layers):
        expected = layer(expected)
        expected = jax.nn.elu(mlp.norms[i](expected) if normalizes else expected)
    np.testing.assert_allclose(mlp(inputs), expected, atol=1e-5)


def test_a_gated_layer_is_a_linear_map_times_one_plus_tanh_of_another():
    layer = GatedLinear(5, 3, rngs=nnx.Rngs(0))
    kernel, bias = np.asarray(layer.linear.kernel[...]), 0.3 * np.arange(6)
    assert layer.linear.bias is not None
    layer.linear.bias[...] = jnp.asarray(bias, jnp.float32)
    x = np.random.default_rng(0).normal(size=(2, 4, 5))
    value, gate = x @ kernel[:, :3] + bias[:3], x @ kernel[:, 3:] + bias[3:]
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), value * (1.0 + np.tanh(gate)), atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_the_first_layer_alone_is_gated_where_it_is_asked_to_be(gated):
    mlp = MLP(5, (8, 4), gated=gated, rngs=nnx.Rngs(0))
    network = ValueNetwork(5, (8, 4), 2, gated=gated, rngs=nnx.Rngs(0))
    assert [isinstance(layer, GatedLinear) for layer in (*mlp.layers, network.first)] == [gated, False, gated]
    plain = jax.tree.leaves(MLP(5, (8, 4), rngs=nnx.Rngs(0)))
    assert gated or all((a == b).all() for a, b in zip(plain, jax.tree.leaves(mlp), strict=True))


def test_heads_start_with_lecuns_weights_times_their_gain():
    """By default with a tenth of them, to the last bit: agents are published that started so."""

    def kernel(scale, outputs):
        init = nnx.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
        return init(nnx.Rngs(0).params(), (30, outputs))

    bounds = (0.05, 1.0)
    for gain, scale in (((), 1e-2), ((0.1,), 1e-2), ((1.0,), 1.0), ((2.0,), 4.0)):
        gaussian = GaussianHead(30, 3, bounds, *gain, rngs=nnx.Rngs(0))
        np.testing.assert_array_equal(gaussian.linear.kernel[...], kernel(scale, 6))
        categorical = CategoricalHead(30, 4, *gain, rngs=nnx.Rngs(0))
        np.testing.assert_array_equal(categorical.linear.kernel[...], kernel(scale, 4))
    wide = GaussianHead(400, 500, bounds, 0.5, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(np.std(wide.linear.kernel[...]), 0.5 / np.sqrt(400), rtol=0.01)
