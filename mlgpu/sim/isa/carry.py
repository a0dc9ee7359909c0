"""Extended-precision addition and subtraction: the carry flag, kept as a predicate `%cc`."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, raw
from mlgpu.sim.ptx.syntax import Instruction, Reg

_WORDS = "u32 s32 b32 u64 s64 b64"


def flag(e: Emitter) -> Reg:
    """The carry flag of PTX, as a register."""
    e.registers.setdefault("%cc", "pred")
    return Reg("%cc")


def add_carry(e: Emitter, ins: Instruction, a: str, b: str, carry_in: bool) -> None:
    """Set the destination to a + b (+ carry), and the flag where the instruction has `.cc`."""
    total = e.bind(f"{a} + {b}")
    carries = [f"({total} < {b})"]
    if carry_in:
        partial, total = total, e.bind(f"{total} + {e.use(flag(e), 'pred')}")
        carries.append(f"({total} < {partial})")
    _finish(e, ins, total, carries)


def sub_borrow(e: Emitter, ins: Instruction, a: str, b: str, borrow_in: bool) -> None:
    """Set the destination to a - b (- borrow), and the flag where the instruction has `.cc`."""
    difference = e.bind(f"{a} - {b}")
    borrows = [f"({a} < {b})"]
    if borrow_in:
        partial, difference = difference, e.bind(f"{difference} - {e.use(flag(e), 'pred')}")
        borrows.append(f"({difference} > {partial})")
    _finish(e, ins, difference, borrows)


def _finish(e: Emitter, ins: Instruction, value: str, flags: list[str]) -> None:
    new = e.bind(" | ".join(flags)) if ins.has("cc") else ""
    e.set(ins.operands[0], raw(ins.type), value)
    if new:
        e.set(flag(e), "pred", new)


@form("addc", types=_WORDS, mods="cc", operands=3)
def addc(e: Emitter, ins: Instruction) -> None:
    """a + b + carry."""
    a, b = (e.use(operand, raw(ins.type)) for operand in ins.operands[1:])
    add_carry(e, ins, a, b, carry_in=True)


@form("subc", types=_WORDS, mods="cc", operands=3)
def subc(e: Emitter, ins: Instruction) -> None:
    """a - b - borrow."""
    a, b = (e.use(operand, raw(ins.type)) for operand in ins.operands[1:])
    sub_borrow(e, ins, a, b, borrow_in=True)
