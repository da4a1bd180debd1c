import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from mjx_hkl.math.v_trace import v_trace

TIME, GAMMA = 9, 0.9


@pytest.mark.parametrize("rho_clip", [1.0, 1.7])
@pytest.mark.parametrize("seed", range(10))
def test_is_rlaxs_between_ends_and_faults(seed, rho_clip):
    """A cost at the next state is a reward less; an episode's end or a fault ends rlax's sequence."""
    rng = np.random.default_rng(seed)
    value, reward, after, cost = rng.normal(size=(4, TIME)).astype(np.float32)
    ratio = np.exp(rng.normal(size=TIME)).astype(np.float32)
    kind = rng.choice(["on", "terminated", "truncated", "fault"], size=TIME, p=[0.6, 0.15, 0.15, 0.1])
    discount = np.where((kind == "on") | (kind == "truncated"), GAMMA, 0.0).astype(np.float32)
    is_last, valid = (kind != "on").astype(np.float32), (kind != "fault").astype(np.float32)
    value_tp1 = np.where(kind == "on", np.append(value[1:], after[-1]), after).astype(np.float32)
    arguments = (value, reward, discount, value_tp1, cost, ratio, is_last, valid)
    actual = v_trace(*map(jnp.asarray, arguments), rho_clip=rho_clip, trace_clip=1.0)
    start = 0
    for t in range(TIME):
        if kind[t] == "fault":  # what came before bootstraps from the state the fault began in
            _compare(actual, arguments, slice(start, t), rho_clip)
            assert actual.advantage[t] == 0
        elif is_last[t] or t == TIME - 1:
            _compare(actual, arguments, slice(start, t + 1), rho_clip)
        start = t + 1 if is_last[t] else start


def _compare(actual, arguments, part, rho_clip):
    value, reward, discount, value_tp1, cost, ratio, *_ = (jnp.asarray(x[part]) for x in arguments)
    if not len(value):
        return
    expected = rlax.vtrace_td_error_and_advantage(
        value,
        value_tp1,
        reward - discount * cost,
        discount,
        ratio,
        clip_rho_threshold=rho_clip,
        clip_pg_rho_threshold=rho_clip,
    )
    np.testing.assert_allclose(actual.target[part], value + expected.errors, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(actual.advantage[part], expected.pg_advantage, rtol=1e-4, atol=1e-4)


def test_traces_are_clipped_apart_from_the_ratios():
    """v_0 = V_0 + δ_0 + γ min(c̄, w_0) δ_1, by hand."""
    ratio = jnp.array([2.0, 3.0])
    zero, one = jnp.zeros(2), jnp.ones(2)
    found = v_trace(zero, jnp.array([1.0, 10.0]), 0.5 * one, zero, zero, ratio, zero, one, 2.5, 0.8)
    np.testing.assert_allclose(found.target, [2.0 + 0.5 * 0.8 * 25.0, 25.0])
    np.testing.assert_allclose(found.advantage, [2.0 * (1.0 + 0.5 * 25.0), 25.0])
