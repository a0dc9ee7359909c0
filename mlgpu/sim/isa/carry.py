"""Extended-precision addition and subtraction: the carry flag, kept as a predicate `%cc`.

A subtraction adds the complement: its flag is that sum's carry, which is set where nothing is
borrowed.  The PTX manual has it the other way round; only a chain that mixes additions with
subtractions shows the difference, and there GPUs (seen on an H200) do what is done here.
"""

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
    _finish(e, ins, total, " | ".join(carries))


def sub_borrow(e: Emitter, ins: Instruction, a: str, b: str, borrow_in: bool) -> None:
    """Set the destination to a - b (- 1 where the flag is off), and the flag after `.cc`."""
    difference = e.bind(f"{a} - {b}")
    carries = [f"({a} >= {b})"]
    if borrow_in:
        partial, difference = difference, e.bind(f"{difference} - ~{e.use(flag(e), 'pred')}")
        carries.append(f"({difference} <= {partial})")
    _finish(e, ins, difference, " & ".join(carries))


def _finish(e: Emitter, ins: Instruction, value: str, carries: str) -> None:
    new = e.bind(carries) if ins.has("cc") else ""
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
    """a - b, less 1 where the flag is off."""
    a, b = (e.use(operand, raw(ins.type)) for operand in ins.operands[1:])
    sub_borrow(e, ins, a, b, borrow_in=True)
