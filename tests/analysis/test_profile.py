from mjx_hkl.analysis.profile import _parts

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
    assert _parts(PROGRAM) == {
        "x": "other",
        "q": "critic_loss",
        "a": "physics",
        "cast": "critic_loss",
        "product.1": "critic_loss",
        "noise": "other",
        "left": "other",
    }
