"""Whether an instruction's operands are of the class of its types.

PTX lets untyped registers (`.b32`) hold anything and takes `.s32` for `.u32`, but a register of
floats is none for an integer instruction, nor the other way round.
"""

from __future__ import annotations

from functools import lru_cache

from mlgpu.sim.emit import Emitter
from mlgpu.sim.ptx.syntax import TYPES, Imm, Instruction, Operand, Pair, Reg, Vec

_FLOATS = frozenset("f16 f16x2 f32 f64".split())
_INTEGERS = frozenset("u8 u16 u32 u64 s8 s16 s32 s64".split())
# The operands that have the first type, and those that have the last one.
_TWO_TYPES: dict[str, tuple[slice, slice]] = {
    "cvt": (slice(0, 1), slice(1, 2)), "set": (slice(0, 1), slice(1, 3)),
    "slct": (slice(0, 3), slice(3, 4))}
# Where some operands have other types than that of the instruction, those that have it.
_SOME = {"ld": slice(0, 1), "ldu": slice(0, 1), "st": slice(1, 2), "atom": slice(0, 4),
         "red": slice(0, 2), "redux": slice(0, 2)}
_OTHERS = frozenset("mma wmma cp mbarrier cvta createpolicy".split())
_ONE_TYPE = frozenset("""abs activemask and atom bfe bfi bfind brev clz cvta div ex2 ld ldu lop3 mad
    match max mbarrier min mov mul neg not or popc prmt red redux rem selp setp shf shfl shl shr st
    vote xor""".split())
_ROUNDINGS = frozenset("rn rz rm rp rna rs rni rzi rmi rpi".split())
_WHOLE = frozenset("shl shr shf bfe bfi bfind brev bmsk szext fns prmt lop3 popc clz".split())


def check(e: Emitter, ins: Instruction) -> None:
    """PtxError where a register cannot hold what the instruction gives or takes."""
    wrong, parts = _rules(ins.opcode, ins.mods)
    if wrong:
        e.malformed(wrong)
    for part, type in parts:
        _check(e, ins.operands[part], type)
    if ins.opcode in _WHOLE and any(isinstance(o, Imm) and o.kind != "int" for o in ins.operands):
        e.malformed(f"a floating-point constant for {ins.opcode}")


@lru_cache(4096)
def _rules(opcode: str, mods: tuple[str, ...]) -> tuple[str, list[tuple[slice, str]]]:
    """What is wrong with the modifiers, or which operands have which type."""
    types = [m for m in mods if m in TYPES]
    plain = [m for m in mods if m not in TYPES]
    if opcode not in ("mma", "wmma"):  # .row.row
        if len(set(plain)) < len(plain):
            return "a modifier given twice", []
        if sum(m in _ROUNDINGS for m in plain) > 1:
            return "two rounding modes", []
    if len(types) == 2 and opcode in _TWO_TYPES:
        return "", [(part, t) for part, t in zip(_TWO_TYPES[opcode], types, strict=True)
                    if t in _FLOATS | _INTEGERS]
    if len(types) > 1 and opcode in _ONE_TYPE:
        return f"{opcode} has one type, not .{' and .'.join(types)}", []
    if len(types) == 1 and opcode not in _OTHERS and types[0] in _FLOATS | _INTEGERS:
        return "", [(_SOME.get(opcode, slice(None)), types[0])]
    return "", []


def _check(e: Emitter, operands: tuple[Operand, ...], type: str) -> None:
    """Refuse registers and constants of the other class; type is one of integers or floats."""
    floats = type in _FLOATS
    unfit = _INTEGERS if floats else _FLOATS
    for operand in operands:
        if isinstance(operand, Reg):
            if e.registers.get(operand.name) in unfit:
                e.malformed(f"{operand.name} is a register of .{e.registers[operand.name]}, the "
                            f"operand is .{type}")
        elif isinstance(operand, Imm):
            if floats and operand.kind == "int":
                e.malformed(f"the integer {operand.value} for an operand of .{type}; write a "
                            "constant such as 0f3F800000")
            if not floats and operand.kind != "int":
                e.malformed(f"a floating-point constant for an operand of .{type}")
        elif isinstance(operand, (Vec, Pair)):
            items = operand.items if isinstance(operand, Vec) else (operand.first, operand.second)
            _check(e, items, type)
