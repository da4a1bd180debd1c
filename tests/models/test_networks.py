import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

from mjx_hkl.models.critics import ValueNetwork
from mjx_hkl.models.networks import elu, tanh_layer_norm


def test_elu_is_that_of_jax_with_its_slope():
    x = jnp.concatenate([jnp.linspace(-30.0, 30.0, 2001), jnp.array([-1e-8, 0.0, 1e-8, 3e38, -3e38])])
    np.testing.assert_allclose(elu(x), jax.nn.elu(x), atol=2e-7, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(elu))(x), jax.vmap(jax.grad(jax.nn.elu))(x), atol=2e-7)


def test_tanh_of_layer_norm_is_that_of_flax_with_its_gradients():
    keys = jax.random.split(jax.random.key(0), 4)
    x = 3.0 * jax.random.normal(keys[0], (7, 33)) + 5.0
    scale, bias = 1.0 + 0.3 * jax.random.normal(keys[1], (33,)), 0.3 * jax.random.normal(keys[2], (33,))
    weight = jax.random.normal(keys[3], x.shape)
    norm = linen.LayerNorm(use_fast_variance=False)

    def flaxs(x, scale, bias):
        return jnp.tanh(jnp.asarray(norm.apply({"params": {"scale": scale, "bias": bias}}, x)))

    np.testing.assert_allclose(tanh_layer_norm(x, scale, bias), flaxs(x, scale, bias), atol=2e-6)
    found, expected = (
        jax.grad(lambda *args, f=f: (weight * f(*args)).sum(), argnums=(0, 1, 2))(x, scale, bias)
        for f in (tanh_layer_norm, flaxs)
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
