import jax
import jax.numpy as jnp
import numpy as np

from mjx_hkl.models.networks import elu


def test_elu_is_that_of_jax_with_its_slope():
    x = jnp.concatenate([jnp.linspace(-30.0, 30.0, 2001), jnp.array([-1e-8, 0.0, 1e-8, 3e38, -3e38])])
    np.testing.assert_allclose(elu(x), jax.nn.elu(x), atol=2e-7, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(elu))(x), jax.vmap(jax.grad(jax.nn.elu))(x), atol=2e-7)
