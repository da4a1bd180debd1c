"""Which part of the train step an operation of a compiled program belongs to, by the code's named scopes."""

import re
from collections import Counter

from mjx_hkl.analysis.hlo import Instruction, Program

PARTS = (
    "window",
    "act",
    "physics",
    "task",
    "vision",
    "reset",
    "replay",
    "latents",
    "policy_loss",
    "targets",
    "critic_loss",
    "default_policy_loss",
    "optimizer",
)
"""Scopes of the train step: the unroll's (`window` is its bookkeeping; `task` scene, rewards, observations;
`vision` a camera's pictures; `reset` fresh starts), replay, and the update's, gradients included (`targets`:
the sums of Retrace, V-trace or n steps)."""

OTHER = "other"


def parts_of(program: Program) -> dict[str, str]:
    """The part of each instruction, by its name.

    It is the innermost scope. Where XLA has rewritten an instruction, many matrix products among them, its
    scopes are gone: a fusion is then of the part that most of what it fuses is of, anything else of that of
    its first operand with one.
    """
    found: dict[str, str] = {}
    for computation in program.computations.values():
        for instruction in computation.instructions.values():
            found[instruction.name] = _part(program, instruction, found)
    return found


def _part(program: Program, instruction: Instruction, found: dict[str, str]) -> str:
    if "/" in instruction.op_name:  # else all that is left is the name of the operation
        return part_of_scopes(instruction.op_name) or OTHER
    fused = program.computations.get(instruction.named("calls"))
    inside = [part_of_scopes(inner.op_name) for inner in fused.instructions.values()] if fused else []
    most = Counter(part for part in inside if part).most_common(1)
    if most:
        return most[0][0]
    operands = (found.get(name, OTHER) for name in instruction.operands)
    return next((part for part in operands if part != OTHER), OTHER)


def part_of_scopes(op_name: str) -> str:
    """The innermost scope of an `op_name` that is a part; empty where none is."""
    return next((scope for scope in reversed(re.findall(r"\w+", op_name)) if scope in PARTS), "")
