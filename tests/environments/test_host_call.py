import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from mjx_hkl.environments.engines import host_call
from mjx_hkl.environments.engines.host_call import host_call as call


def sums(x):
    """(x0, x1, x2) to (x0 + x1, x1 + x2)."""
    return x[..., :-1] + x[..., 1:]


@pytest.mark.parametrize("batch", [(), (5,), (2, 4)])
def test_it_is_the_function_over_any_batch(batch):
    x = np.random.default_rng(0).normal(size=(*batch, 3)).astype(np.float32)

    def function(x):
        return call("test_sums", sums, x, 2)

    for _ in batch:
        function = jax.vmap(function)
    np.testing.assert_array_equal(jax.jit(function)(x), sums(x))


def test_it_runs_in_every_step_of_a_scan():
    @jax.jit
    def run(x):
        return jax.lax.scan(lambda x, _: (call("test_halves", lambda x: x / 2, x, 1), x), x, None, length=4)

    end, seen = run(jnp.array([8.0]))
    np.testing.assert_array_equal(end, [0.5])
    np.testing.assert_array_equal(seen[:, 0], [8, 4, 2, 1])


def test_what_it_raises_is_told():
    def fails(x):
        raise ArithmeticError("the ground is gone")

    program = jax.jit(lambda x: call("test_fails", fails, x, 1))
    with pytest.raises(jax.errors.JaxRuntimeError, match="ArithmeticError: the ground is gone"):
        jax.block_until_ready(program(jnp.zeros(1)))


@pytest.mark.parametrize(
    ("where", "name", "value"), [(host_call, "_version", (1, 0)), (jax, "default_backend", "gpu")]
)
def test_another_interface_or_backend_is_left_to_jax(monkeypatch, where, name, value):
    x = jnp.array([1.0, 2.0, 3.0])
    with monkeypatch.context() as patch:
        patch.setattr(where, name, lambda: value)
        program = jax.jit(lambda x: call("test_other", sums, x, 2)).lower(x)
    np.testing.assert_array_equal(program.compile()(x), [3, 5])
    assert "test_other" not in host_call._kept


def test_a_program_with_it_is_kept_in_the_compilation_cache(tmp_path):
    kept = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in kept}
    for name, value in kept.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    try:
        jax.jit(lambda x: 3.0 * call("test_sums", sums, x, 2)).lower(jnp.zeros(3)).compile()
        assert list(tmp_path.glob("jit*"))
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
