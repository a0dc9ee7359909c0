"""Short PTX texts for the parser's tests."""

from __future__ import annotations

from mlgpu.sim.ptx.parser import parse
from mlgpu.sim.ptx.syntax import Function, Instruction, Module

HEADER = ".version 8.5\n.target sm_90\n.address_size 64\n"
REGISTERS = (".reg .pred %p<5>; .reg .b16 %rs<5>; .reg .b32 %r<9>; .reg .b64 %rd<9>; "
             ".reg .f32 %f<9>; .reg .f64 %fd<5>;\n")


def module(outer: str) -> Module:
    """The module of some declarations."""
    return parse(HEADER + outer)


def text(body: str, outer: str = "") -> str:
    """A PTX text with one kernel `k`; its body begins in line 7."""
    assert "\n" not in outer
    return f"{HEADER}{outer}\n.visible .entry k(.param .u64 a) {{\n{REGISTERS}{body}\n}}\n"


def kernel(body: str, outer: str = "") -> Function:
    """The kernel of this body."""
    return parse(text(body, outer)).functions["k"]


def instructions(body: str, outer: str = "") -> list[Instruction]:
    """The instructions of a kernel's body."""
    statements = kernel(body, outer).body
    assert statements is not None
    return [s for s in statements if isinstance(s, Instruction)]


def one(body: str, outer: str = "") -> Instruction:
    """The only instruction of a kernel's body."""
    [instruction] = instructions(body, outer)
    return instruction
