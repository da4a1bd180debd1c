"""Counts of compiled programs, against calculations by hand. The text is the same for every device."""

import jax
import jax.numpy as jnp
import pytest

from mjx_hkl.analysis.counts import by_kind, count, float64, host_callbacks, total
from mjx_hkl.analysis.hlo import parse

PROGRAM = """HloModule jit_step, is_scheduled=true

%fused_add (p.0: f32[8,4], p.1: f32[8,4]) -> f32[8,4] {
  %p.0 = f32[8,4]{1,0} parameter(0)
  %p.1 = f32[8,4]{1,0} parameter(1)
  ROOT %add.1 = f32[8,4]{1,0} add(%p.0, %p.1), metadata={op_name="jit(step)/task/add"}
}

%fused_slice (p.2: f32[100,4], p.3: s32[]) -> f32[1,4] {
  %p.2 = f32[100,4]{1,0} parameter(0)
  %p.3 = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %slice.1 = f32[1,4]{1,0} dynamic-slice(%p.2, %p.3, %zero), dynamic_slice_sizes={1,4}
}

%fused_write (p.4: f32[100,4], p.5: f32[1,4], p.6: s32[]) -> f32[100,4] {
  %p.4 = f32[100,4]{1,0} parameter(0)
  %p.5 = f32[1,4]{1,0} parameter(1)
  %p.6 = s32[] parameter(2)
  %zero.1 = s32[] constant(0)
  ROOT %write.1 = f32[100,4]{1,0} dynamic-update-slice(%p.4, %p.5, %p.6, %zero.1)
}

%body (state: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %state = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %x = f32[8,4]{1,0} get-tuple-element(%state), index=1
  %fusion.1 = f32[8,4]{1,0} fusion(%x, %x), kind=kLoop, calls=%fused_add, \
metadata={op_name="jit(step)/task/add"}
  ROOT %tuple.1 = (s32[], f32[8,4]{1,0}) tuple(%i, %fusion.1)
}

%condition (state.1: (s32[], f32[8,4])) -> pred[] {
  %state.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %five = s32[] constant(5)
  ROOT %less = pred[] compare(%i.1, %five), direction=LT
}

%idle (x.2: f32[8,4]) -> f32[8,4] {
  ROOT %x.2 = f32[8,4]{1,0} parameter(0)
}

%busy (x.3: f32[8,4]) -> f32[8,4] {
  %x.3 = f32[8,4]{1,0} parameter(0)
  %copy.1 = f32[8,4]{1,0} copy(%x.3), metadata={op_name="jit(step)/cond/optimizer/copy"}
  ROOT %copy.2 = f32[8,4]{1,0} copy(%copy.1)
}

ENTRY %main (a: f32[8,4], ring: f32[100,4], at: s32[]) -> f32[8,4] {
  %a = f32[8,4]{1,0} parameter(0)
  %ring = f32[100,4]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %start = (s32[], f32[8,4]{1,0}) tuple(%at, %a)
  %while.1 = (s32[], f32[8,4]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %while.2 = (s32[], f32[8,4]{1,0}) while(%while.1), condition=%condition, body=%body
  %b = f32[8,4]{1,0} get-tuple-element(%while.2), index=1
  %read = f32[1,4]{1,0} fusion(%ring, %at), kind=kLoop, calls=%fused_slice, \
metadata={op_name="jit(step)/replay/dynamic_slice"}
  %written = f32[100,4]{1,0} fusion(%ring, %read, %at), kind=kLoop, calls=%fused_write
  %sum-start = f32[8,4]{1,0} all-reduce-start(%b), to_apply=%add, \
metadata={op_name="jit(step)/critic_loss/sum"}
  %sum-done = f32[8,4]{1,0} all-reduce-done(%sum-start)
  ROOT %chosen = f32[8,4]{1,0} conditional(%at, %sum-done, %sum-done), branch_computations={%busy, %idle}
}
"""


def test_a_program_by_hand():
    """Five rounds of one loop, one of the loop whose length is unknown, which also asks its condition."""
    found = count(parse(PROGRAM))
    assert by_kind(found, "launches") == {
        "task": 5 + 1,
        "other": 1,  # the condition
        "replay": 2,  # the write has no scope but its operand has
        "critic_loss": 1,  # its end is no launch
        "optimizer": 2,  # of the busier branch, one of them without a scope
    }
    array, row, number = 8 * 4 * 4, 4 * 4, 4
    assert by_kind(found, "bytes") == {
        "task": 6 * 3 * array,
        "other": 2 * number + 1,
        "replay": (2 * row + number) + (2 * row + number),  # of the ring a row is touched
        "critic_loss": 2 * array,
        "optimizer": 4 * array,
    }
    assert by_kind(found, "loops") == {"unknown length": 1}
    assert by_kind(found, "collectives") == {"all-reduce of critic_loss": 1}
    assert by_kind(found, "collective bytes") == {"all-reduce of critic_loss": array}


def compiled(function, *arguments):
    return parse(jax.jit(function).lower(*arguments).compile().as_text() or "")


@pytest.mark.parametrize("length", [1, 7])
def test_products_of_a_scan_are_counted_as_often_as_it_runs(length):
    def function(x, weights):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ weights), None), x, None, length=length)[0]

    found = count(compiled(function, jnp.ones((64, 32)), jnp.ones((32, 32))))
    assert by_kind(found, "products") == {"default": length * 2 * 64 * 32 * 32}
    assert not total(found, "loops")


def test_products_of_full_precision_and_of_half_are_told_apart():
    x, half = jnp.ones((16, 8)), jnp.ones((4, 16), jnp.bfloat16)
    text = """ENTRY %main (x: f32[16,8], h: bf16[4,16]) -> f32[16,16] {
  %x = f32[16,8]{1,0} parameter(0)
  %h = bf16[4,16]{1,0} parameter(1)
  %small = bf16[4,4]{1,0} dot(%h, %h), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  ROOT %product = f32[16,16]{1,0} dot(%x, %x), lhs_contracting_dims={1}, rhs_contracting_dims={1}, \
operand_precision={highest,highest}
}
"""
    found = by_kind(count(parse(text)), "products")
    assert found == {"float32": 2 * x.size * 16, "bfloat16": 2 * half.size * 4}


def test_an_elementwise_chain_is_one_launch_that_reads_and_writes_once():
    x = jnp.ones((1024, 32))
    found = count(compiled(lambda x: jnp.tanh(x * 2.0 + 1.0) - x, x))
    assert by_kind(found, "launches") == {"other": 1}
    assert by_kind(found, "bytes") == {"other": 2 * x.nbytes}


def test_a_loop_that_only_its_counter_tells_of_runs_as_often():
    """As a TPU's programs have it: beside the loop nothing is written."""
    text = PROGRAM
    for written, instead in (
        ('"known_trip_count":{"n":"5"}', ""),
        (
            "%start = (s32[], f32[8,4]{1,0}) tuple(%at",
            "%two = s32[] constant(2)\n  %start = (s32[]) tuple(%two",
        ),
        (
            "  ROOT %tuple.1",
            "  %one = s32[] constant(1)\n  %same = s32[] copy(%i)\n  %next = s32[] add(%same, %one)\n"
            "  ROOT %tuple.1",
        ),
        ("tuple(%i, %fusion.1)", "tuple(%next, %fusion.1)"),
    ):
        assert written in text
        text = text.replace(written, instead)
    found = count(parse(text))
    assert by_kind(found, "launches")["task"] == (5 - 2) + 1
    assert by_kind(found, "loops") == {"unknown length": 1}  # the second begins where the first ended


def test_a_loop_whose_end_is_computed_has_an_unknown_length():
    found = count(
        compiled(lambda x: jax.lax.while_loop(lambda x: x.sum() < 9.0, lambda x: x + 1.0, x), jnp.ones(3))
    )
    assert by_kind(found, "loops") == {"unknown length": 1}


@pytest.mark.parametrize(
    ("window", "shapes", "labels", "expected"),
    [
        ("", "f32[64,32] f32[32,16] f32[64,16]", "bf_io->bf", 64 * 32 * 16),
        # Eight small products as one: the batch is a window that meets each matrix once.
        (
            "window={size=8 stride=7 lhs_dilate=8}, ",
            "f32[8,4,5] f32[8,5,6] f32[8,4,6]",
            "0bf_0io->0bf",
            8 * 4 * 5 * 6,
        ),
        # Three taps on ten numbers with a border of zeros: 28 of 30 meet a number.
        ("window={size=3 pad=1_1}, ", "f32[2,10,5] f32[3,5,7] f32[2,10,7]", "b0f_0io->b0f", 28 * 2 * 5 * 7),
    ],
)
def test_a_convolution_counts_what_meets(window, shapes, labels, expected):
    left, right, out = shapes.split()
    text = f"""ENTRY %main (x: {left}, y: {right}) -> {out} {{
  %x = {left}{{1,0}} parameter(0)
  %y = {right}{{1,0}} parameter(1)
  ROOT %product = {out}{{1,0}} convolution(%x, %y), {window}dim_labels={labels}
}}
"""
    assert by_kind(count(parse(text)), "products") == {"default": 2 * expected}


def test_what_lies_in_a_chips_own_memory_is_not_moved():
    text = """ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %near = f32[8,128]{1,0:T(8,128)S(1)} copy(%x)
  ROOT %far = f32[8,128]{1,0:T(8,128)} copy(%near)
}
"""
    assert total(count(parse(text)), "bytes") == 2 * 8 * 128 * 4


def test_cycles_are_those_that_the_compiler_estimates():
    text = PROGRAM.replace("calls=%fused_add,", 'calls=%fused_add, backend_config={"estimated_cycles":"40"},')
    assert by_kind(count(parse(text)), "cycles") == {"task": 6 * 40}


def test_what_an_accelerator_should_not_have_is_seen():
    def function(x):
        return jax.pure_callback(lambda x: x, x, x)

    assert host_callbacks(jax.jit(function).lower(jnp.ones(3)).compile().as_text() or "") == 1
    with jax.enable_x64(True):
        assert float64(jax.jit(jnp.tanh).lower(jnp.ones(3, jnp.float64)).compile().as_text() or "") > 0
    text = jax.jit(jnp.tanh).lower(jnp.ones(3)).compile().as_text() or ""
    assert not host_callbacks(text)
    assert not float64(text)
