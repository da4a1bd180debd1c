import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from mjx_hkl.math.retrace import retrace, traces

TIME, GAMMA = 7, 0.9


def _random(seed):
    rng = np.random.default_rng(seed)
    window = {
        "q_t": rng.normal(size=TIME),
        "reward_t": rng.normal(size=TIME),
        "value_tp1": rng.normal(size=TIME),
        "trace_t": rng.uniform(size=TIME),
    }
    return rng, {name: x.astype(np.float32) for name, x in window.items()}


def _slow(q_t, reward_t, discount_t, value_tp1, trace_t, is_last_t, valid_t):
    """Eq. 19 as it is written, one sum of products for each t, cut where an episode ends."""
    targets = []
    for t in range(TIME):
        target, product = q_t[t], 1.0
        for s in range(t, TIME):
            if s > t:
                if is_last_t[s - 1]:
                    break
                product *= discount_t[s - 1] * trace_t[s]
            target += valid_t[s] * product * (reward_t[s] + discount_t[s] * value_tp1[s] - q_t[s])
        targets.append(target)
    return np.array(targets)


@pytest.mark.parametrize("seed", range(20))
def test_is_the_written_sum_with_ends_and_faults_inside(seed):
    rng, window = _random(seed)
    kind = rng.choice(["on", "terminated", "truncated", "fault"], size=TIME, p=[0.6, 0.15, 0.15, 0.1])
    window["discount_t"] = np.where((kind == "on") | (kind == "truncated"), GAMMA, 0.0).astype(np.float32)
    window["is_last_t"] = (kind != "on").astype(np.float32)
    window["valid_t"] = (kind != "fault").astype(np.float32)
    actual = retrace(**{name: jnp.asarray(x) for name, x in window.items()})
    np.testing.assert_allclose(actual, _slow(**window), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_is_rlaxs_without_ends(seed):
    _, window = _random(seed)
    ones = np.ones(TIME, np.float32)
    actual = retrace(
        **{name: jnp.asarray(x) for name, x in window.items()},
        discount_t=jnp.asarray(GAMMA * ones),
        is_last_t=jnp.asarray(0 * ones),
        valid_t=jnp.asarray(ones),
    )
    expected = rlax.general_off_policy_returns_from_q_and_v(
        q_t=window["q_t"][1:],
        v_t=window["value_tp1"],
        r_t=window["reward_t"],
        discount_t=GAMMA * ones,
        c_t=window["trace_t"][1:],
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_on_policy_with_full_traces_is_the_discounted_return():
    # With Q = V = 0 inside and c = 1 every δ is a reward: the target is the Monte Carlo return.
    reward = jnp.arange(1.0, 4.0)
    zero, one = jnp.zeros(3), jnp.ones(3)
    actual = retrace(zero, reward, 0.5 * one, zero, one, zero, one)
    np.testing.assert_allclose(actual, [1 + 0.5 * 2 + 0.25 * 3, 2 + 0.5 * 3, 3.0], rtol=1e-6)


def test_traces_are_truncated_ratios():
    actual = traces(jnp.log(jnp.array([0.2, 0.8])), jnp.log(jnp.array([0.4, 0.4])), 0.9)
    np.testing.assert_allclose(actual, [0.45, 0.9], rtol=1e-6)
