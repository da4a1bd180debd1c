"""A compiled program as XLA prints it, read into computations and instructions; nothing is counted here."""

import dataclasses
import functools
import math
import re
from collections import defaultdict

_HEAD = re.compile(r"(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_SHAPE = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^{}]*\})?")
_OPERAND = re.compile(r"%([\w.\-]+)")
_ON_CHIP = re.compile(r":T\(.*S\(1\)")  # a TPU's layout in its vector memory


@dataclasses.dataclass(frozen=True)
class Shape:
    """Of one array."""

    dtype: str
    dims: tuple[int, ...]
    on_chip: bool = False  # in memory of the chip itself, so that reading it costs no bandwidth

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Without padding; 0 for what is no array."""
        bits = re.search(r"\d+", self.dtype)
        return self.elements * (max(1, int(bits[0]) // 8) if bits else int(self.dtype == "pred"))


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      shapes: of its result, a tuple's one after the other.
      operands: names of instructions of the same computation.
      given: the text in the parentheses behind the opcode: a constant's value.
      attributes: the text behind them.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    given: str
    attributes: str

    @property
    def bytes(self) -> int:
        """Of its result, in the device's memory."""
        return sum(shape.bytes for shape in self.shapes if not shape.on_chip)

    @property
    def op_name(self) -> str:
        """The named scopes of the code that it comes from; empty where XLA has lost them."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def named(self, attribute: str) -> str:
        """The computation that an attribute names; empty where it has none."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""

    def dims(self, attribute: str) -> tuple[int, ...]:
        """The numbers of an attribute like `lhs_contracting_dims={1,2}`."""
        found = re.search(rf"\b{attribute}=\{{([\d,]*)\}}", self.attributes)
        return _numbers(found[1]) if found else ()

    @property
    def branches(self) -> list[str]:
        """The computations that a conditional chooses from."""
        found = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if found:
            return _OPERAND.findall(found[1])
        return [self.named("true_computation"), self.named("false_computation")]


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name; operands come before what uses them."""

    instructions: dict[str, Instruction]
    root: str

    def element(self, name: str) -> int | None:
        """Which element of a tuple an instruction takes, or copies; None where it takes none."""
        taken = self._copied(name)
        found = re.search(r"\bindex=(\d+)", taken.attributes)
        return int(found[1]) if found and taken.opcode == "get-tuple-element" else None

    def member(self, name: str, element: int) -> str:
        """The instruction that makes an element of a tuple; the tuple itself where that is not seen."""
        return (
            self.instructions[name].operands[element] if self.instructions[name].opcode == "tuple" else name
        )

    def constant(self, name: str) -> int | None:
        """The whole number that an instruction is, or copies; None where it is none."""
        found = self._copied(name)
        is_number = found.opcode == "constant" and re.fullmatch(r"-?\d+", found.given)
        return int(found.given) if is_number else None

    def _copied(self, name: str) -> Instruction:
        """What an instruction copies; itself where it is no copy."""
        found = self.instructions[name]
        return self._copied(found.operands[0]) if found.opcode == "copy" else found

    @functools.cached_property
    def users(self) -> dict[str, list[Instruction]]:
        """The instructions that use each one."""
        found: dict[str, list[Instruction]] = defaultdict(list)
        for instruction in self.instructions.values():
            for operand in dict.fromkeys(instruction.operands):
                found[operand].append(instruction)
        return found


@dataclasses.dataclass(frozen=True)
class Program:
    """Computations by name."""

    computations: dict[str, Computation]
    entry: str

    def trips(self, around: Computation, loop: Instruction) -> int | None:
        """How often a loop in a computation runs; None where the program does not say.

        For a GPU and a CPU, XLA writes it beside the loop. For a TPU it is found where the loop's condition
        is that a counter, which goes up by one, is less than a constant.
        """
        stated = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if stated:
            return int(stated[1])
        condition, body = (self.computations[loop.named(name)] for name in ("condition", "body"))
        test = condition.instructions[condition.root]
        if test.opcode != "compare" or "direction=LT" not in test.attributes:
            return None
        counter = condition.element(test.operands[0])
        if counter is None:
            return None
        after = body.instructions[body.member(body.root, counter)]
        counts = after.opcode == "add" and body.element(after.operands[0]) == counter
        start = around.constant(around.member(loop.operands[0], counter))
        end = condition.constant(test.operands[1])
        if not counts or body.constant(after.operands[1]) != 1 or start is None or end is None:
            return None
        return max(0, end - start)


def parse(text: str) -> Program:
    """Reads what `jax.stages.Compiled.as_text` gives."""
    computations: dict[str, Computation] = {}
    entry, name, root = "", "", ""
    instructions: dict[str, Instruction] = {}
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head and not line.startswith("HloModule"):
            name, instructions, root = head[2], {}, ""
            entry = name if head[1] or not entry else entry
        elif line.startswith("}") and name:
            computations[name] = Computation(instructions, root)
            name = ""
        elif name and (match := _INSTRUCTION.match(line)):
            instructions[match[2]] = _instruction(match[2], line[match.end() :])
            root = match[2] if match[1] or not root else root
    return Program(computations, entry)


def _instruction(name: str, text: str) -> Instruction:
    """From what stands behind the `=`: the type, the opcode, the operands in parentheses, the attributes."""
    end = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    kind, rest = text[:end], text[end:].lstrip()
    opening = rest.index("(")
    closing = _closing(rest, opening)
    shapes = tuple(
        Shape(dtype, _numbers(dims), bool(_ON_CHIP.search(layout)))
        for dtype, dims, layout in _SHAPE.findall(kind)
    )
    operands = tuple(_OPERAND.findall(rest, opening, closing))
    return Instruction(
        name, rest[:opening], shapes, operands, rest[opening + 1 : closing], rest[closing + 1 :]
    )


def _closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens there is closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opening):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.start()
    return len(text) - 1


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)
