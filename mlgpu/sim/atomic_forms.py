"""What the assembler makes of an atomic: it decides how many lanes go, and how often.

As seen in what ptxas gives for sm_80 and sm_90.  Where all threads have one address, the warp's
values are joined first, and one lane goes for all; adding 1 to shared memory counts lanes instead
of serving them one by one; what shared memory cannot do itself is a loop around a
compare-and-swap, which takes two passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mlgpu.sim import categories
from mlgpu.sim.code import Code
from mlgpu.sim.ptx.syntax import Imm, Instruction, Mem, Operand, Reg

_WORDS = frozenset({"u32", "s32", "b32"})
_JOINED = frozenset({"add", "min", "max", "and", "or", "xor"})


class Form(NamedTuple):
    """How an atomic goes."""

    joined: bool  # once a warp, where all threads have the same address
    counted: bool  # the lanes of one word of shared memory go together
    passes: int  # over the banks of shared memory, where nothing is in the way


def form(ins: Instruction, used: set[str]) -> Form:
    """The form of an atomic; `used` are the registers that the kernel reads."""
    alone = kind_of(ins, used) == "red"
    words, value = ins.type in _WORDS, ins.operands[-1]
    if words:
        joined = not _JOINED.isdisjoint(ins.mods) if alone else ins.has("add")
    else:
        joined = ins.has("add") and ins.type in ("u64", "s64") and isinstance(value, Imm)
    counted = alone and words and ins.has("add") and value == Imm(1)
    swap = ins.has("cas") or not (words or ins.has("exch"))
    return Form(joined, counted, 2 if swap else 1)


def kind_of(ins: Instruction, used: set[str]) -> str:
    """`categories.access`; an atomic whose result nobody reads is a reduction, as the assembler
    makes it."""
    kind = categories.access(ins)
    if kind == "atom" and not any(r in used for r in _registers(ins.operands[0])):
        return "red"
    return kind


def used_registers(code: Code) -> set[str]:
    """The registers that some instruction reads."""
    used: set[str] = set()
    for part in code.parts:
        for ins in (*part.instructions, *([part.end] if part.end is not None else [])):
            operands = ins.operands
            if operands and ins.opcode not in ("bar", "barrier", "brx", "nanosleep") and not (
                    isinstance(operands[0], Mem)):
                operands = operands[1:]
            for operand in operands:
                used.update(_registers(operand))
            if ins.guard is not None:
                used.add(ins.guard.name)
    return used


def _registers(operand: Operand) -> Iterator[str]:
    if isinstance(operand, Reg):
        yield operand.name
        return
    for name in ("base", "reg", "first", "second"):
        inner = getattr(operand, name, None)
        if inner is not None:
            yield from _registers(inner)
    for item in getattr(operand, "items", ()):
        yield from _registers(item)
