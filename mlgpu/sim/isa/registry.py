"""The table of instructions: opcode -> the function that writes its Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlgpu.sim.emit import Emitter
    from mlgpu.sim.ptx.syntax import Instruction

Emit = Callable[["Emitter", "Instruction"], None]
INSTRUCTIONS: dict[str, Emit] = {}


def instruction(*opcodes: str) -> Callable[[Emit], Emit]:
    """Declare the function that emits these opcodes."""
    def declare(emit: Emit) -> Emit:
        for opcode in opcodes:
            assert opcode not in INSTRUCTIONS, opcode
            INSTRUCTIONS[opcode] = emit
        return emit
    return declare
