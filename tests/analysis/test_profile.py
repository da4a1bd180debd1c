import warnings

import jax
import jax.numpy as jnp
import pytest

from mjx_hkl.analysis.hlo import parse
from mjx_hkl.analysis.parts import parts_of
from mjx_hkl.analysis.profile import profile

PROGRAM = """
%body (state: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %q = f32[8]{0} add(%x, %x), metadata={op_name="jit(f)/while/transpose(jvp(critic_loss))/add"}
  %a = f32[8]{0} add(%x, %q), metadata={op_name="jit(f)/task/vmap(physics)/add"}
  %cast = f32[8]{0} bitcast(%q)
  %product.1 = f32[8]{0} fusion(%x, %cast), kind=kCustom, calls=%fused, metadata={stack_frame_id=7}
  %noise = f32[8]{0} rng(%q), metadata={op_name="jit(f)/while/random_bits"}
  ROOT %left = f32[8]{0} copy(%noise)
}
"""


def test_operations_are_of_their_innermost_scope_and_those_without_of_what_they_compute_with():
    assert parts_of(parse(PROGRAM)) == {
        "x": "other",
        "q": "critic_loss",
        "a": "physics",
        "cast": "critic_loss",
        "product.1": "critic_loss",
        "noise": "other",
        "left": "other",
    }


def test_shares_are_of_the_durations_that_jaxs_own_reader_gives(tmp_path):
    @jax.jit
    def work(x):
        with jax.named_scope("physics"):
            x = jax.lax.fori_loop(0, 50, lambda _, y: jnp.tanh(y @ y), x)
        with jax.named_scope("task"):
            return jnp.sort(x.ravel())

    x = jnp.eye(64)
    program = work.lower(x).compile()
    jax.block_until_ready(program(x))
    shares = profile(program, lambda: program(x), tmp_path)
    assert {"physics", "task"} <= set(shares)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)

    (trace,) = tmp_path.rglob("*.xplane.pb")
    text = program.as_text()
    assert text
    part_of = parts_of(parse(text))
    nanoseconds = dict.fromkeys(shares, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as an error, its warning would end the process
        for plane in jax.profiler.ProfileData.from_file(str(trace)).planes:
            for line in plane.lines:
                for event in line.events:
                    operation = str(dict(event.stats).get("hlo_op", ""))
                    if operation and not operation.startswith(("while", "call.")):
                        nanoseconds[part_of[operation]] += event.duration_ns
    total = sum(nanoseconds.values())
    assert shares == pytest.approx({part: time / total for part, time in nanoseconds.items()})
