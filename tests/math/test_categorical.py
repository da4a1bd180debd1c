import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from mjx_hkl.math.categorical import Categorical

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=3, max_size=3)


@settings(deadline=None, max_examples=30)
@given(LOGITS, LOGITS, st.integers(0, 2))
def test_is_scipys(p_logits, q_logits, value):
    p, q = Categorical(jnp.array(p_logits)), Categorical(jnp.array(q_logits))
    p_probs, q_probs = special.softmax(np.array([p_logits, q_logits], float), axis=-1)
    np.testing.assert_allclose(p.log_prob(jnp.array(value)), np.log(p_probs[value]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(p.entropy(), stats.entropy(p_probs), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(p.kl_divergence(q), stats.entropy(p_probs, q_probs), rtol=1e-3, atol=1e-5)
    assert p_probs[p.draw(jnp.zeros(len(p_probs)))] == p_probs.max()


def test_samples_have_their_probabilities():
    logits = jnp.array([0.0, 1.0, -1.0])
    p = Categorical(jnp.broadcast_to(logits, (100_000, 3)))
    drawn = p.draw(p.noise(jax.random.key(0), p.logits.shape))
    counts = np.bincount(np.asarray(drawn), minlength=3)
    assert stats.chisquare(counts, special.softmax(np.asarray(logits, float)) * counts.sum()).pvalue > 1e-3
