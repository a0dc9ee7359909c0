"""Integer products: low and high halves, wide ones, 24 bits, dot products of bytes."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa import carry
from mlgpu.sim.isa.form import form, integer_form, raw
from mlgpu.sim.numeric import integer
from mlgpu.sim.ptx.syntax import SIZES, Instruction

_WIDTHS = "u16 u32 u64 s16 s32 s64"


def product(e: Emitter, ins: Instruction) -> tuple[str, str]:
    """An expression for the product of the first two sources, and its type."""
    type = ins.type
    width = 8 * SIZES[type]
    half = [mod for mod in ins.mods if mod in ("lo", "hi", "wide")]
    if len(half) != 1:
        e.fail("a product of integers is .lo, .hi or .wide")
    if half == ["lo"]:
        a, b = (e.use(operand, raw(type)) for operand in ins.operands[1:3])
        return f"{a} * {b}", raw(type)
    a, b = (e.use(operand, type) for operand in ins.operands[1:3])
    if width == 64:
        if half == ["wide"]:
            e.fail("there is no product of 128 bits")
        high = integer.high_signed if type[0] == "s" else integer.high_unsigned
        return f"{e.fn(high)}({a}, {b})", type
    wide = f"{type[0]}{2 * width}"
    full = f"np.multiply({a}, {b}, dtype=np.{_name(wide)})"
    if half == ["wide"]:
        return full, wide
    return f"({full} >> {width}).astype(np.{_name(type)})", type


def _name(type: str) -> str:
    return f"{'int' if type[0] == 's' else 'uint'}{type[1:]}"


@integer_form("mul", types=_WIDTHS, mods="lo hi wide", operands=3)
def mul(e: Emitter, ins: Instruction) -> None:
    """a * b."""
    value, type = product(e, ins)
    e.set(ins.operands[0], type, value)


@integer_form("mad", "madc", types=_WIDTHS, mods="lo hi wide sat cc", operands=4)
def mad(e: Emitter, ins: Instruction) -> None:
    """a * b + c."""
    value, type = product(e, ins)
    if ins.has("cc") or ins.opcode == "madc":
        if ins.has("wide") or ins.has("sat") or ins.type[1:] == "16":
            e.fail("the carry is that of .lo and .hi of 32 and 64 bits")
        if type != raw(type):
            value = f"({value}).view(np.uint{type[1:]})"
        c = e.use(ins.operands[3], raw(type))
        carry.add_carry(e, ins, e.bind(value), c, ins.opcode == "madc")
    elif ins.has("sat"):
        if not ins.has("hi") or type != "s32":
            e.fail("only .hi.sat.s32 saturates")
        total = f"np.add({value}, {e.use(ins.operands[3], type)}, dtype=np.int64)"
        e.set(ins.operands[0], type, f"{e.fn(integer.saturate32)}({total})")
    else:
        e.set(ins.operands[0], type, f"{value} + {e.use(ins.operands[3], type)}")


@form("mul24", "mad24", types="u32 s32", mods="lo hi sat", operands=3, most=4)
def mul24(e: Emitter, ins: Instruction) -> None:
    """The lower or upper 32 of the 48 bits of a product of 24-bit numbers (+ c)."""
    type = ins.type
    if len(ins.operands) != (3 if ins.opcode == "mul24" else 4) or ins.has("lo") == ins.has("hi"):
        e.fail("mul24 has two sources and mad24 three, each .lo or .hi")
    if ins.has("sat") and not (ins.opcode == "mad24" and ins.has("hi") and type == "s32"):
        e.fail("only mad24.hi.sat.s32 saturates")
    a, b = (e.use(operand, type) for operand in ins.operands[1:3])
    value = f"{e.fn(integer.product24)}({a}, {b})"
    if ins.has("hi"):
        value = f"({value} >> 16)"
    value = f"{value}.astype(np.{_name(type)})"
    if ins.has("sat"):
        total = f"np.add({value}, {e.use(ins.operands[3], type)}, dtype=np.int64)"
        value = f"{e.fn(integer.saturate32)}({total})"
    elif ins.opcode == "mad24":
        value = f"{value} + {e.use(ins.operands[3], type)}"
    e.set(ins.operands[0], type, value)


@form("dp4a", types="u32 s32", operands=4)
def dp4a(e: Emitter, ins: Instruction) -> None:
    """c + the dot product of four bytes and four bytes."""
    a, b = _dot(e, ins)
    c = e.use(ins.operands[3], "u32")
    e.set(ins.operands[0], "u32", f"{e.fn(integer.dot4)}({a}, {b}, {c})")


@form("dp2a", types="u32 s32", mods="lo hi", operands=4)
def dp2a(e: Emitter, ins: Instruction) -> None:
    """c + the dot product of two half-words and two of four bytes."""
    if ins.has("lo") == ins.has("hi"):
        e.fail("dp2a is .lo or .hi")
    a, b = _dot(e, ins)
    c = e.use(ins.operands[3], "u32")
    first = 2 if ins.has("hi") else 0
    e.set(ins.operands[0], "u32", f"{e.fn(integer.dot2)}({a}, {b}, {c}, {first})")


def _dot(e: Emitter, ins: Instruction) -> tuple[str, str]:
    types = [mod for mod in ins.mods if mod in SIZES]
    if len(types) != 2:
        e.fail("a dot product has the types of a and b")
    return e.use(ins.operands[1], types[0]), e.use(ins.operands[2], types[1])
