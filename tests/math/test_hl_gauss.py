"""HL-Gauss against scipy's normal distribution."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mjx_hkl.math.hl_gauss import hl_gauss


@pytest.mark.parametrize("value", [-3.0, 0.0, 0.37, 9.99, 10.0])
def test_bins_have_the_mass_of_a_gaussian_cut_to_the_range(value):
    low, high, count, smoothing = -5.0, 10.0, 30, 0.75
    edges = np.linspace(low, high, count + 1)
    cut = stats.truncnorm((low - value) / 0.375, (high - value) / 0.375, value, 0.375)
    found = np.asarray(hl_gauss(jnp.array([value]), low, high, count, smoothing))[0]
    np.testing.assert_allclose(found, np.diff(cut.cdf(edges)), atol=2e-6)
    assert found.sum() == pytest.approx(1.0, abs=1e-6)


def test_the_mean_of_the_bins_is_the_value_inside_and_the_range_bounds_it():
    centres = np.arange(-4.75, 10.0, 0.5)
    bins = hl_gauss(jnp.array([-2.0, 3.3, 7.1]), -5.0, 10.0, 30, 0.75)
    np.testing.assert_allclose(bins @ centres, [-2.0, 3.3, 7.1], atol=1e-3)
    beyond = hl_gauss(jnp.array([-1e6, 1e6]), -5.0, 10.0, 30, 0.75)
    np.testing.assert_allclose(beyond, hl_gauss(jnp.array([-5.0, 10.0]), -5.0, 10.0, 30, 0.75))
