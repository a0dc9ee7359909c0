"""Integer addition, division and the like; multiplication has a file of its own."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa import carry
from mlgpu.sim.isa.form import form, integer_form, raw
from mlgpu.sim.numeric import integer, lanes
from mlgpu.sim.ptx.syntax import Instruction

_WIDTHS = "u16 u32 u64 s16 s32 s64"
_PACKED = ("u16x2", "s16x2")


@integer_form("add", "sub", types=f"{_WIDTHS} b32 b64 u16x2 s16x2", mods="sat cc", operands=3)
def add(e: Emitter, ins: Instruction) -> None:
    """a + b, a - b."""
    d, *sources = ins.operands
    adds, sign = ins.opcode == "add", "+" if ins.opcode == "add" else "-"
    if ins.has("sat"):
        if ins.type != "s32" or ins.has("cc"):
            e.fail("only .sat.s32 saturates")
        a, b = (e.use(operand, "s32") for operand in sources)
        ufunc = "np.add" if adds else "np.subtract"
        wide = f"{ufunc}({a}, {b}, dtype=np.int64)"
        e.set(d, "s32", f"{e.fn(integer.saturate32)}({wide})")
        return
    a, b = (e.use(operand, raw(ins.type)) for operand in sources)
    if ins.type in _PACKED:
        if not adds or ins.has("cc"):
            e.fail("half-words are only added")
        e.set(d, "u32", f"{e.fn(lanes.add_halves)}({a}, {b})")
    elif ins.has("cc"):
        (carry.add_carry if adds else carry.sub_borrow)(e, ins, a, b, False)
    else:
        e.set(d, raw(ins.type), f"{a} {sign} {b}")


@integer_form("div", types=_WIDTHS, operands=3)
def div(e: Emitter, ins: Instruction) -> None:
    """a / b rounded toward zero."""
    a, b = (e.use(operand, ins.type) for operand in ins.operands[1:])
    e.set(ins.operands[0], ins.type, f"{e.fn(integer.quotient)}({a}, {b})")


@form("rem", types=_WIDTHS, operands=3)
def rem(e: Emitter, ins: Instruction) -> None:
    """What `div` leaves."""
    a, b = (e.use(operand, ins.type) for operand in ins.operands[1:])
    e.set(ins.operands[0], ins.type, f"{e.fn(integer.remainder)}({a}, {b})")


@integer_form("abs", types="s16 s32 s64", operands=2)
def absolute(e: Emitter, ins: Instruction) -> None:
    """|a|; the smallest number stays as it is."""
    e.set(ins.operands[0], ins.type, f"np.abs({e.use(ins.operands[1], ins.type)})")


@integer_form("neg", types="s16 s32 s64", operands=2)
def neg(e: Emitter, ins: Instruction) -> None:
    """-a."""
    e.set(ins.operands[0], raw(ins.type), f"-{e.use(ins.operands[1], raw(ins.type))}")


@integer_form("min", "max", types=f"{_WIDTHS} u16x2 s16x2", mods="relu", operands=3)
def extremum(e: Emitter, ins: Instruction) -> None:
    """The smaller, the larger; with .relu no less than 0."""
    d, *sources = ins.operands
    smaller, signed = ins.opcode == "min", ins.type[0] == "s"
    if ins.has("relu") and ins.type not in ("s32", "s16x2"):
        e.fail("only .s32 and .s16x2 have .relu")
    a, b = (e.use(operand, ins.type) for operand in sources)
    if ins.type in _PACKED:
        choose = e.fn(lanes.min_halves if smaller else lanes.max_halves)
        value = f"{choose}({a}, {b}, {signed})"
        if ins.has("relu"):
            zero = e.const(np.zeros((1, 1), np.uint32))
            value = f"{e.fn(lanes.max_halves)}({value}, {zero}, True)"
    else:
        value = f"np.{'minimum' if smaller else 'maximum'}({a}, {b})"
        if ins.has("relu"):
            value = f"np.maximum({value}, 0)"
    e.set(d, ins.type, value)


@form("sad", types=_WIDTHS, operands=4)
def sad(e: Emitter, ins: Instruction) -> None:
    """c + |a - b|."""
    a, b = (e.use(operand, ins.type) for operand in ins.operands[1:3])
    c = e.use(ins.operands[3], raw(ins.type))
    # The distance of two signed numbers may need all bits: it is right as an unsigned one.
    distance = f"(np.maximum({a}, {b}) - np.minimum({a}, {b})).view(np.uint{ins.type[1:]})"
    e.set(ins.operands[0], raw(ins.type), f"{c} + {distance}")
