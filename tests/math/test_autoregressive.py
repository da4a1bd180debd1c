import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx_hkl.math.autoregressive import ar1


@pytest.mark.parametrize("coefficient", [0.0, 0.5, 0.95])
def test_marginal_stays_standard_normal_and_correlation_is_the_coefficient(coefficient):
    z0 = jax.random.normal(jax.random.key(0), (200_000, 1))
    z = z0
    for i in range(3):
        z = ar1(z, coefficient).draw(jax.random.normal(jax.random.key(1 + i), z.shape))
    np.testing.assert_allclose([z.mean(), z.std()], [0.0, 1.0], atol=1e-2)
    np.testing.assert_allclose(np.corrcoef(z0[:, 0], z[:, 0])[0, 1], coefficient**3, atol=1e-2)


def test_coefficient_zero_is_isotropic():
    prior = ar1(jnp.array([2.0, -3.0]), 0.0)
    np.testing.assert_array_equal(prior.mean, jnp.zeros(2))
    np.testing.assert_array_equal(prior.scale, jnp.ones(2))
