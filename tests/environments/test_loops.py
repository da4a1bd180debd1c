"""Loops of known length against JAX's own of unknown length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mujoco import mjx

from mjx_hkl.environments import make_world
from mjx_hkl.environments.engines.loops import with_known_rounds


@jax.jit
def halve(pair):
    """Halves x until it is below the limit; counts how often."""
    x, limit = pair

    def goes_on(carry):
        return carry[0] > limit

    def body(carry):
        return carry[0] / jnp.float32(2.0), carry[1] + 1

    return jax.lax.while_loop(goes_on, body, (jnp.sin(x) + x, jnp.int32(0)))


def test_rounds_after_a_loops_end_change_nothing():
    pairs = jnp.array([0.1, 1.0, 3.0, 90.0, 100.0]), jnp.array([1.0, 0.5, 3.0, 9.0, 0.5])
    expected = jax.vmap(lambda *pair: halve(pair))(*pairs)
    assert expected[1].max() == 8
    found = jax.vmap(lambda *pair: with_known_rounds(halve, 8)(pair))(*pairs)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    short = jax.vmap(lambda *pair: with_known_rounds(halve, 2)(pair))(*pairs)
    np.testing.assert_array_equal(short[1], np.minimum(expected[1], 2))


@pytest.mark.parametrize("name", ["ant-go-to-target", "ball-move-box-easy"])
def test_the_engine_steps_as_mjx_does(name):
    """Of 16 worlds, in contact with the ground, some need one iteration of the solver and some two."""
    engine = make_world(name, "mjx").engine
    model = mjx.put_model(engine.model, impl="jax")
    data = mjx.make_data(engine.model, impl="jax")
    velocity = jax.random.normal(jax.random.key(0), (16, engine.model.nv))
    worlds = jax.vmap(lambda v: data.replace(qvel=v))(velocity)
    expected = jax.jit(jax.vmap(lambda data: mjx.step(model, data)))(worlds)
    found = jax.jit(jax.vmap(lambda data: engine._step(({}, data))))(worlds)
    for part in ("qpos", "qvel", "qacc_warmstart"):
        np.testing.assert_allclose(getattr(found, part), getattr(expected, part), rtol=1e-4, atol=1e-4)
