import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from mjx_hkl.math.returns import n_step_returns

TIME, GAMMA = 7, 0.9


@pytest.mark.parametrize("seed", range(10))
def test_is_rlaxs_discounted_return_with_ends_inside(seed):
    """A cost at the next state is a reward less; a truncation adds what it bootstraps from."""
    rng = np.random.default_rng(seed)
    reward, value, cost = rng.normal(size=(3, TIME)).astype(np.float32)
    kind = rng.choice(["on", "terminated", "truncated"], size=TIME, p=[0.6, 0.2, 0.2])
    discount = np.where(kind == "terminated", 0.0, GAMMA).astype(np.float32)
    is_last = (kind != "on").astype(np.float32)
    actual = n_step_returns(*map(jnp.asarray, (reward, discount, value, cost, is_last, np.ones(TIME))))
    paid = reward - discount * cost + np.where(kind == "truncated", discount * value, 0.0)
    going_on = np.where(kind == "on", discount, 0.0).astype(np.float32)
    expected = rlax.discounted_returns(jnp.asarray(paid), jnp.asarray(going_on), jnp.asarray(value[-1]))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_what_precedes_a_fault_bootstraps():
    reward, value = jnp.arange(1.0, 5.0), jnp.array([10.0, 20.0, 30.0, 40.0])
    valid = jnp.array([1.0, 1.0, 0.0, 1.0])
    actual = n_step_returns(reward, jnp.full(4, 0.5), value, jnp.zeros(4), jnp.zeros(4), valid)
    assert actual[1] == 2.0 + 0.5 * 20.0
    assert actual[0] == 1.0 + 0.5 * actual[1]
