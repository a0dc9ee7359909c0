"""The forms of an instruction: which types, modifiers and operands it may have.

PTX text may be anything, so each instruction says what it understands, and what it does not is
refused with the instruction and its source line before its own function runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.registry import Emit, instruction
from mlgpu.sim.ptx.syntax import SIZES, TYPES, Instruction, Operand, Pair, Sink

FLOATS = frozenset("f16 f16x2 bf16 bf16x2 f32 f32x2 f64".split())


def form(*opcodes: str, types: str = "", mods: str = "", operands: int, most: int = 0) -> Declare:
    """Declare the function that emits these opcodes, and what they look like.

    A type or modifier outside `types` and `mods` is refused, and so is a number of operands other
    than `operands` (or up to `most`).  Without `types`, the instruction needs none.
    """
    known = frozenset(types.split()) | frozenset(mods.split())
    return Declare(opcodes, known, range(operands, (most or operands) + 1), typed=bool(types))


def integer_form(*opcodes: str, types: str, mods: str = "", operands: int,
                 most: int = 0) -> Declare:
    """As `form`, for opcodes whose floating-point types are emitted elsewhere."""
    known = frozenset(types.split()) | frozenset(mods.split())
    return Declare(opcodes, known, range(operands, (most or operands) + 1), floats=True)


class Declare:
    """The decorator that `form` returns."""

    def __init__(self, opcodes: tuple[str, ...], known: frozenset[str], operands: range,
                 floats: bool = False, typed: bool = True) -> None:
        self.opcodes = opcodes
        self.known = known
        self.operands = operands
        self.floats = floats
        self.typed = typed

    def __call__(self, emit: Emit) -> Emit:
        """Register the function behind the check."""
        def checked(e: Emitter, ins: Instruction) -> None:
            if self.floats and ins.type in FLOATS:
                floating(e, ins)
                return
            for mod in ins.mods:
                if mod not in self.known:
                    e.fail(f"{ins.opcode} has no .{mod} here")
            if self.typed and not ins.type:
                e.malformed(f"{ins.opcode} without a type")
            if len(ins.operands) not in self.operands:
                e.malformed(f"{ins.opcode} with {len(ins.operands)} operands")
            emit(e, ins)
        instruction(*self.opcodes)(checked)
        return emit


def floating(e: Emitter, ins: Instruction) -> None:
    """Emit the floating-point form of an opcode."""
    from mlgpu.sim.isa.floating import FLOAT  # here, since that file declares forms itself
    if ins.opcode not in FLOAT:
        e.fail(f"{ins.opcode} has no .{ins.type}")
    FLOAT[ins.opcode](e, ins)


def one_of(e: Emitter, ins: Instruction, words: Iterable[str], what: str) -> str:
    """The one modifier of a list that the instruction has."""
    found = [mod for mod in ins.mods if mod in words]
    if len(found) != 1:
        e.malformed(f"{ins.opcode} with {' and '.join(found) or 'no'} {what}; it has one of "
                    f"{', '.join(words)}")
    return found[0]


def first_type(ins: Instruction) -> str:
    """The first type among the modifiers: that of the result, where it has its own."""
    return next(mod for mod in ins.mods if mod in TYPES)


def raw(type: str) -> str:
    """The unsigned type as wide: for whatever treats all bits alike."""
    return f"u{8 * SIZES[type]}"


def pair(e: Emitter, operand: Operand) -> tuple[Operand, Operand]:
    """The two destinations of an instruction that may have one: `p|q`."""
    if isinstance(operand, Pair):
        return operand.first, operand.second
    return operand, Sink()
