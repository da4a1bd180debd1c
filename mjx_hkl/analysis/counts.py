"""What a compiled program does in one call, counted from its text.

A loop's body counts as many times as it runs. Where the program does not say how often, it counts once, and
the loop as one of unknown length. Of a conditional the branch with the most launches counts.
"""

import functools
import math
import re
from collections import Counter

import numpy as np

from mjx_hkl.analysis.hlo import Computation, Instruction, Program, Shape
from mjx_hkl.analysis.parts import OTHER, parts_of

Counts = Counter[tuple[str, str]]
"""By what is counted and of which kind it is:

  launches, bytes: by part of the train step; bytes are read from the device's memory or written to it.
  cycles: by part, as XLA estimates them; a TPU's programs have them, and no launches.
  products: floating point operations of matrix products and convolutions, by precision.
  collectives, collective bytes: by opcode and part; bytes are what each device gives.
  loops: of `unknown length`.
"""

_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "add-dependency"),
    *("opt-barrier", "partition-id", "replica-id"),
}
_COLLECTIVES = (
    *("all-reduce", "all-gather", "all-to-all", "ragged-all-to-all"),
    *("reduce-scatter", "collective-permute", "collective-broadcast"),
)
_SLICES = ("slice", "dynamic-slice", "gather")
_UPDATES = ("dynamic-update-slice", "scatter")
_CALLBACK = re.compile(r'custom_call_target="[^"]*callback| send\(.*is_host_transfer=true')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_FLOAT64 = re.compile(r"\b(?:f64|c128)\[")


def count(program: Program) -> Counts:
    """Of one call of the program."""
    return _Count(program).of(program.entry, OTHER)


def by_kind(counts: Counts, what: str) -> dict[str, int]:
    """What was counted of each kind, most first."""
    return {kind: number for (of, kind), number in counts.most_common() if of == what}


def total(counts: Counts, what: str) -> int:
    """What was counted of all kinds."""
    return sum(by_kind(counts, what).values())


def host_callbacks(text: str) -> int:
    """Lines of a compiled program at which it asks the host."""
    return sum(bool(_CALLBACK.search(line)) for line in text.splitlines())


def float64(text: str) -> int:
    """Lines of a compiled program that have numbers of double precision."""
    return sum(bool(_FLOAT64.search(line)) for line in text.splitlines())


class _Count:
    def __init__(self, program: Program):
        self._program, self._computations = program, program.computations
        self._part_of = parts_of(program)
        self._known: dict[tuple[str, str], Counts] = {}

    def of(self, name: str, part: str) -> Counts:
        """A computation; `part` is of what has none of its own, that of the loop around it."""
        if (name, part) not in self._known:
            found: Counts = Counter()
            computation = self._computations[name]
            for instruction in computation.instructions.values():
                own = self._part_of[instruction.name]
                found.update(self._instruction(computation, instruction, part if own == OTHER else own))
            self._known[name, part] = found
        return self._known[name, part]

    def _instruction(self, computation: Computation, x: Instruction, part: str) -> Counts:
        if x.opcode in _FREE or x.opcode.endswith("-done"):
            return Counter()
        if x.opcode == "while":
            return self._loop(computation, x, part)
        if x.opcode == "conditional":
            branches = (self.of(branch, part) for branch in x.branches)
            return max(branches, key=lambda counts: (total(counts, "launches"), total(counts, "bytes")))
        if x.opcode in ("call", "async-start"):
            return self.of(x.named("to_apply") or x.named("calls"), part)
        found: Counts = Counter({("launches", part): 1})
        fused = self._computations.get(x.named("calls")) if x.opcode.startswith("fusion") else None
        if fused:
            found["bytes", part] = _fusion_bytes(fused)
            found.update(self._products_in(fused))
        else:
            found["bytes", part] = _bytes(computation, x)
            found.update(_products(computation, x))
        if cycles := _CYCLES.search(x.attributes):
            found["cycles", part] = int(cycles[1])
        collective = x.opcode.removesuffix("-start")
        if collective in _COLLECTIVES:
            kind = f"{collective} of {part}"
            found["collectives", kind] = 1
            given = (shape for name in x.operands for shape in computation.instructions[name].shapes)
            found["collective bytes", kind] = sum(shape.bytes for shape in given)
        return found

    def _loop(self, around: Computation, x: Instruction, part: str) -> Counts:
        body = self.of(x.named("body"), part)
        trips = self._program.trips(around, x)
        if trips is not None:  # the host counts and does not ask the condition
            return Counter({key: trips * number for key, number in body.items()})
        return body + self.of(x.named("condition"), part) + Counter({("loops", "unknown length"): 1})

    def _products_in(self, fused: Computation) -> Counts:
        found: Counts = Counter()
        for x in fused.instructions.values():
            inner = self._computations.get(x.named("calls")) if x.opcode == "fusion" else None
            found.update(self._products_in(inner) if inner else _products(fused, x))
        return found


def _fusion_bytes(fused: Computation) -> int:
    parameters = [x for x in fused.instructions.values() if x.opcode == "parameter"]
    return sum(_read(fused, x) for x in parameters) + _written(fused, fused.instructions[fused.root])


def _read(fused: Computation, x: Instruction) -> int:
    """What is read of an argument of a fusion: where it is only sliced, the slices."""
    read = 0
    for user in fused.users.get(x.name, ()):
        is_first = user.operands[0] == x.name
        if user.opcode in _SLICES and is_first:
            read += user.bytes
        elif user.opcode == "bitcast":
            read += _read(fused, user)
        elif not (user.opcode in _UPDATES and is_first):  # which write in place
            return x.bytes
    return min(read, x.bytes)


def _written(fused: Computation, x: Instruction) -> int:
    """What is written of a result of a fusion: where it is updated in place, the update."""
    operands = [fused.instructions[name] for name in x.operands]
    if x.opcode == "tuple":
        return sum(_written(fused, operand) for operand in operands)
    if x.opcode == "bitcast":
        return _written(fused, operands[0])
    return _update_bytes(x, operands) if x.opcode in _UPDATES else x.bytes


def _update_bytes(x: Instruction, operands: list[Instruction]) -> int:
    """Of what is written into arrays: their number is that of the results."""
    if x.opcode == "dynamic-update-slice":  # array, update, where it begins
        return operands[1].bytes
    return sum(update.bytes for update in operands[-len(x.shapes) :])  # arrays, places, updates


def _bytes(computation: Computation, x: Instruction) -> int:
    """What an instruction that is no fusion reads and writes."""
    if x.opcode in _SLICES:
        return 2 * x.bytes
    if x.opcode in _UPDATES:
        return 2 * _update_bytes(x, [computation.instructions[name] for name in x.operands])
    read = _operand_bytes(computation, x)
    if x.opcode.endswith("-start"):  # its result holds its operands too
        return 2 * read
    # A library's second result is where it works, and the status.
    return read + (x.shapes[0].bytes if x.opcode == "custom-call" and x.shapes else x.bytes)


def _operand_bytes(computation: Computation, x: Instruction) -> int:
    return sum(computation.instructions[name].bytes for name in x.operands)


def _products(computation: Computation, x: Instruction) -> Counts:
    if x.opcode not in ("dot", "convolution"):
        return Counter()
    left, right = (computation.instructions[name].shapes[0] for name in x.operands[:2])
    (out,) = x.shapes
    number = _dot(x, left, out) if x.opcode == "dot" else _convolution(x, left, right, out)
    return Counter({("products", _precision(x, left, right)): number})


def _precision(x: Instruction, *operands: Shape) -> str:
    """Of the units that compute a product: the names of an accelerator's peaks."""
    if all(shape.bytes == 2 * shape.elements for shape in operands):
        return "bfloat16"
    asked = re.search(r"operand_precision=\{([^}]*)\}", x.attributes)
    return "float32" if asked and "high" in asked[1] else "default"


def _dot(x: Instruction, left: Shape, out: Shape) -> int:
    return 2 * out.elements * math.prod(left.dims[i] for i in x.dims("lhs_contracting_dims"))


def _convolution(x: Instruction, left: Shape, right: Shape, out: Shape) -> int:
    """Twice the products of pairs that meet: on a TPU a matrix product is a convolution, mostly of holes."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", x.attributes)
    assert labels, x.attributes
    inputs, kernel, outputs = labels.groups()
    pairs = out.dims[outputs.index("b")] * out.dims[outputs.index("f")] * right.dims[kernel.index("i")]
    window = dict(
        re.findall(r"(\w+)=([\w\-x]+)", (re.search(r"window=\{([^}]*)\}", x.attributes) or [""])[0])
    )
    for i in range(len(inputs) - 2):
        axis = str(i)
        sizes = (dims.dims[of.index(axis)] for dims, of in ((left, inputs), (right, kernel), (out, outputs)))
        pairs *= _meetings(*sizes, *(_of_axis(window.get(name, ""), i, default) for name, default in _WINDOW))
    return 2 * pairs


_WINDOW = (("stride", "1"), ("pad", "0_0"), ("lhs_dilate", "1"), ("rhs_dilate", "1"))


def _of_axis(values: str, axis: int, default: str) -> int:
    """An axis's number of `2x3`, or of `1_0x0_0` the first, the padding before it."""
    return int((values.split("x")[axis] if values else default).split("_")[0])


@functools.cache  # a product of many small matrices is a large window, the same in each layer
def _meetings(size: int, kernel: int, out: int, stride: int, pad: int, hole: int, kernel_hole: int) -> int:
    """Pairs of a place of the result and one of the kernel that meet a number of the input, not a hole."""
    first = np.arange(out) * stride - pad
    meets = (first + place * kernel_hole for place in range(kernel))
    return sum(int(((at >= 0) & (at <= (size - 1) * hole) & (at % hole == 0)).sum()) for at in meets)
