"""Counting and finding bits, bit fields, shifts."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, raw
from mlgpu.sim.numeric import bits
from mlgpu.sim.ptx.syntax import SIZES, Imm, Instruction, Operand


@form("popc", "clz", types="b32 b64", operands=2)
def count(e: Emitter, ins: Instruction) -> None:
    """How many bits are set; how many zeros lead.  Always a 32-bit result."""
    function = bits.popcount if ins.opcode == "popc" else bits.leading_zeros
    e.set(ins.operands[0], "u32", f"{e.fn(function)}({e.use(ins.operands[1], ins.type)})")


@form("bfind", types="u32 u64 s32 s64", mods="shiftamt", operands=2)
def bfind(e: Emitter, ins: Instruction) -> None:
    """The position of the highest bit that is not a sign bit."""
    a = e.use(ins.operands[1], ins.type)
    e.set(ins.operands[0], "u32", f"{e.fn(bits.find_leading)}({a}, {ins.has('shiftamt')})")


@form("fns", types="b32", operands=4)
def fns(e: Emitter, ins: Instruction) -> None:
    """The position of the n-th bit set from a base on."""
    mask, base, offset = ins.operands[1:]
    values = f"{e.use(mask, 'u32')}, {e.use(base, 'u32')}, {e.use(offset, 's32')}"
    e.set(ins.operands[0], "u32", f"{e.fn(bits.find_nth)}({values})")


@form("brev", types="b32 b64", operands=2)
def brev(e: Emitter, ins: Instruction) -> None:
    """The bits in the opposite order."""
    e.set(ins.operands[0], ins.type, f"{e.fn(bits.reverse)}({e.use(ins.operands[1], ins.type)})")


@form("bfe", types="u32 u64 s32 s64", operands=4)
def bfe(e: Emitter, ins: Instruction) -> None:
    """A bit field, extended.

    As the manual has it also where a constant start lies beyond a signed field of 32 bits: there
    ptxas makes all ones of it, though of the same start in a register it makes the sign.
    """
    a, start, length = ins.operands[1:]
    value, width = e.use(a, ins.type), 8 * SIZES[ins.type]
    if isinstance(start, Imm) and isinstance(length, Imm) and ins.type[0] == "u":
        first, size = _constant(start, width), _constant(length, width)
        shifted = f"({value} >> {first})" if first else value
        if first >= width:
            shifted = f"({value} & 0)"
        field = (1 << size) - 1
        text = shifted if first + size >= width else f"{shifted} & {field:#x}"
    else:
        place = f"{_place(e, start, width)}, {_place(e, length, width)}"
        text = f"{e.fn(bits.extract)}({value}, {place})"
    e.set(ins.operands[0], ins.type, text)


@form("bfi", types="b32 b64", operands=5)
def bfi(e: Emitter, ins: Instruction) -> None:
    """b with a bit field replaced by the lowest bits of a."""
    a, b = (e.use(operand, ins.type) for operand in ins.operands[1:3])
    start, length = ins.operands[3:]
    width = 8 * SIZES[ins.type]
    if isinstance(start, Imm) and isinstance(length, Imm):
        every, first = (1 << width) - 1, _constant(start, width)
        field = ((1 << _constant(length, width)) - 1) << first & every
        moved = a if not first else f"({a} << {first})"
        if not field:
            text = b
        elif field == every:
            text = a
        elif field + (1 << first) == every + 1:
            text = f"({b} & {every ^ field:#x}) | {moved}"  # the shift leaves nothing else
        else:
            text = f"({b} & {every ^ field:#x}) | ({moved} & {field:#x})"
    else:
        place = f"{_place(e, start, width)}, {_place(e, length, width)}"
        text = f"{e.fn(bits.insert)}({a}, {b}, {place})"
    e.set(ins.operands[0], ins.type, text)


def _place(e: Emitter, operand: Operand, width: int) -> str:
    """A start or length of a bit field, as an unsigned number of the width.

    Beyond 255 the manual says nothing; GPUs take the lowest 8 bits for a field of 32, and what it
    says for a field of 64.
    """
    if isinstance(operand, Imm):
        return e.use(Imm(_constant(operand, width)), f"u{width}")
    value = e.use(operand, "u32")
    return f"({value} & 0xff)" if width == 32 else f"{value}.astype(np.uint64)"


def _constant(operand: Imm, width: int) -> int:
    """The same of a constant; beyond the width all are alike."""
    return min(operand.value & (0xFF if width == 32 else 0xFFFFFFFF), 64)


@form("bmsk", types="b32", mods="clamp wrap", operands=3)
def bmsk(e: Emitter, ins: Instruction) -> None:
    """A mask of so many bits from a position on."""
    start, length = (_wrapped(e, ins, operand) for operand in ins.operands[1:])
    e.set(ins.operands[0], "b32", f"{e.fn(bits.mask)}({start}, {length})")


@form("szext", types="u32 s32", mods="clamp wrap", operands=3)
def szext(e: Emitter, ins: Instruction) -> None:
    """The lowest bits of a number, extended."""
    a, length = e.use(ins.operands[1], ins.type), _wrapped(e, ins, ins.operands[2])
    if ins.has("clamp"):
        length = f"np.minimum({length}, 32)"
    e.set(ins.operands[0], ins.type, f"{e.fn(bits.extend)}({a}, {length})")


def _wrapped(e: Emitter, ins: Instruction, operand: Operand) -> str:
    if ins.has("clamp") == ins.has("wrap"):
        e.fail(f"{ins.opcode} is .clamp or .wrap")
    value = e.use(operand, "u32")
    return f"({value} & 31)" if ins.has("wrap") else value


@form("shl", types="b16 b32 b64", operands=3)
def shl(e: Emitter, ins: Instruction) -> None:
    """a << b; 0 where b is the width or more."""
    a = e.use(ins.operands[1], ins.type)
    e.set(ins.operands[0], ins.type, f"{a} << {_amount(e, ins.operands[2], ins.type, 0)}")


@form("shr", types="b16 b32 b64 u16 u32 u64 s16 s32 s64", operands=3)
def shr(e: Emitter, ins: Instruction) -> None:
    """a >> b; 0 or the sign where b is the width or more."""
    a = e.use(ins.operands[1], ins.type)
    signed = int(ins.type[0] == "s")
    e.set(ins.operands[0], ins.type, f"{a} >> {_amount(e, ins.operands[2], ins.type, signed)}")


def _amount(e: Emitter, operand: Operand, type: str, signed: int) -> str:
    """A shift's amount, an unsigned 32-bit operand, at most the width (less one if signed)."""
    width = 8 * SIZES[type]
    if isinstance(operand, Imm):
        return e.use(Imm(min(operand.value & 0xFFFFFFFF, width - signed)), type)
    value = e.use(operand, "u32")
    if width == 32 and not signed:
        return value
    limited = f"np.minimum({value}, {width - signed})"
    return f"{limited}.astype(np.{'int' if signed else 'uint'}{width})"


@form("shf", types="b32", mods="l r clamp wrap", operands=4)
def shf(e: Emitter, ins: Instruction) -> None:
    """Two words as one, shifted left (the upper word) or right (the lower word)."""
    if ins.has("l") == ins.has("r") or ins.has("clamp") == ins.has("wrap"):
        e.fail("shf is .l or .r, and .clamp or .wrap")
    low, high = (e.use(operand, "u32") for operand in ins.operands[1:3])
    amount = ins.operands[3]
    if isinstance(amount, Imm):
        n = amount.value & 31 if ins.has("wrap") else min(amount.value & 0xFFFFFFFF, 32)
        left = n if ins.has("l") else 32 - n
        text = {0: high, 32: low}.get(left, f"({high} << {left}) | ({low} >> {32 - left})")
    else:
        count = e.use(amount, "u32")
        limited = f"({count} & 31)" if ins.has("wrap") else f"np.minimum({count}, 32)"
        function = bits.funnel_left if ins.has("l") else bits.funnel_right
        text = f"{e.fn(function)}({low}, {high}, {limited})"
    e.set(ins.operands[0], raw(ins.type), text)
