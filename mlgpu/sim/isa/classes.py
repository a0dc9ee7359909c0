"""Whether an instruction's registers are of the class of its types.

PTX lets untyped registers (`.b32`) hold anything and takes `.s32` for `.u32`, but a register of
floats is none for an integer instruction, nor the other way round.
"""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.ptx.syntax import TYPES, Imm, Instruction, Not, Operand, Pair, Reg, Vec

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
    if ins.opcode in _WHOLE and any(isinstance(o, Imm) and o.kind != "int" for o in ins.operands):
        e.malformed(f"a floating-point constant for {ins.opcode}")
    types = [m for m in ins.mods if m in TYPES]
    plain = [m for m in ins.mods if m not in TYPES]
    if ins.opcode not in ("mma", "wmma"):  # .row.row
        if len(set(plain)) < len(plain):
            e.malformed("a modifier given twice")
        if sum(m in _ROUNDINGS for m in plain) > 1:
            e.malformed("two rounding modes")
    if len(types) == 2 and ins.opcode in _TWO_TYPES:
        first, last = _TWO_TYPES[ins.opcode]
        _check(e, ins.operands[first], types[0])
        _check(e, ins.operands[last], types[1])
    elif len(types) > 1 and ins.opcode in _ONE_TYPE:
        e.malformed(f"{ins.opcode} has one type, not .{' and .'.join(types)}")
    elif len(types) == 1 and ins.opcode not in _OTHERS:
        _check(e, ins.operands[_SOME.get(ins.opcode, slice(None))], types[0])


def _check(e: Emitter, operands: tuple[Operand, ...], type: str) -> None:
    unfit = (_INTEGERS if type in _FLOATS else _FLOATS if type in _INTEGERS else frozenset())
    for operand in operands:
        if isinstance(operand, Reg) and e.registers.get(operand.name) in unfit:
            e.malformed(f"{operand.name} is a register of .{e.registers[operand.name]}, the "
                        f"operand is .{type}")
        elif isinstance(operand, Imm) and operand.kind != "int" and type in _INTEGERS:
            e.malformed(f"a floating-point constant for an operand of .{type}")
        elif isinstance(operand, Imm) and operand.kind == "int" and type in _FLOATS:
            e.malformed(f"the integer {operand.value} for an operand of .{type}; write a constant "
                        f"such as 0f3F800000")
        elif isinstance(operand, (Vec, Pair)):
            items = operand.items if isinstance(operand, Vec) else (operand.first, operand.second)
            _check(e, items, type)
        elif isinstance(operand, Not):
            _check(e, (operand.reg,), type)
