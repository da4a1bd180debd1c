import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from mjx_hkl.math.gaussian import Gaussian

means = st.floats(-3, 3, width=32)
scales = st.floats(0.0625, 2, width=32)


def _vector(mean, scale):
    return Gaussian(jnp.array([mean, 0.5 * mean]), jnp.array([scale, 0.5 * scale]))


@settings(deadline=None, max_examples=30)
@given(means, scales, st.floats(-4, 4, width=32))
def test_log_prob_is_scipys(mean, scale, value):
    p, x = _vector(mean, scale), np.array([value, -value], np.float32)
    expected = stats.norm.logpdf(x, np.asarray(p.mean, float), np.asarray(p.scale, float)).sum()
    np.testing.assert_allclose(p.log_prob(jnp.asarray(x)), expected, rtol=2e-4, atol=2e-4)


@settings(deadline=None, max_examples=20)
@given(means, scales)
def test_entropy_is_scipys(mean, scale):
    p = _vector(mean, scale)
    expected = stats.norm.entropy(np.asarray(p.mean, float), np.asarray(p.scale, float)).sum()
    np.testing.assert_allclose(p.entropy(), expected, rtol=1e-5, atol=1e-5)


def test_entropy_has_a_real_gradient():
    # dH/dσ = 1/σ
    scale = jnp.array([0.3, 0.7])
    gradient = jax.grad(lambda s: Gaussian(jnp.zeros(2), s).entropy())(scale)
    np.testing.assert_allclose(gradient, 1 / scale, rtol=1e-6)


def test_kl_is_the_integral():
    for mp, sp, mq, sq in [(0.3, 0.5, -0.2, 1.0), (0.0, 1.0, 0.0, 1.0), (1.0, 0.2, 0.8, 0.4)]:
        p, q = stats.norm(mp, sp), stats.norm(mq, sq)
        expected, _ = integrate.quad(
            lambda x, p=p, q=q: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), mp - 12 * sp, mp + 12 * sp
        )
        actual = Gaussian(jnp.array([mp]), jnp.array([sp])).kl_divergence(
            Gaussian(jnp.array([mq]), jnp.array([sq]))
        )
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_kl_sums_over_the_event_and_of_nothing_is_zero():
    def kl(mean, scale):
        p = Gaussian(jnp.array([mean]), jnp.array([scale]))
        return p.kl_divergence(Gaussian(jnp.zeros_like(p.mean), jnp.ones_like(p.mean)))

    parts = kl([0.1], [0.3]) + kl([0.2], [0.4])
    np.testing.assert_allclose(kl([0.1, 0.2], [0.3, 0.4]), parts, rtol=1e-6)
    empty = Gaussian(jnp.zeros((3, 0)), jnp.zeros((3, 0)))
    np.testing.assert_array_equal(empty.kl_divergence(empty), jnp.zeros(3))


def test_samples_have_the_mean_and_scale():
    p = Gaussian(jnp.full((200_000, 1), 0.7), jnp.full((200_000, 1), 0.3))
    x = p.draw(p.noise(jax.random.key(0), p.mean.shape))
    np.testing.assert_allclose([x.mean(), x.std()], [0.7, 0.3], atol=3e-3)
