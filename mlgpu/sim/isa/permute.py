"""`prmt`: four bytes chosen from two words."""

from __future__ import annotations

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form
from mlgpu.sim.numeric import bits
from mlgpu.sim.ptx.syntax import Imm, Instruction

# The four modes by number are selectors picked by the two lowest bits of the control.
_MODES = {
    "f4e": (0x3210, 0x4321, 0x5432, 0x6543),  # four bytes forward from there
    "b4e": (0x5670, 0x6701, 0x7012, 0x0123),  # four bytes backward from there, around the end
    "rc8": (0x0000, 0x1111, 0x2222, 0x3333),  # one byte everywhere
    "ecl": (0x3210, 0x3211, 0x3222, 0x3333),  # no byte below it
    "ecr": (0x0000, 0x1110, 0x2210, 0x3210),  # no byte above it
    "rc16": (0x1010, 0x3232, 0x1010, 0x3232),  # one half-word twice
}


@form("prmt", types="b32", mods=" ".join(_MODES), operands=4)
def prmt(e: Emitter, ins: Instruction) -> None:
    """Bytes of b:a in any order, or their signs."""
    a, b = (e.use(operand, "b32") for operand in ins.operands[1:3])
    control = ins.operands[3]
    table = [_MODES[mod] for mod in ins.mods if mod in _MODES]
    if len(table) > 1:
        e.fail("prmt with more than one mode")
    if isinstance(control, Imm):
        selector = table[0][control.value & 3] if table else control.value & 0xFFFF
        text = _fixed(e, a, b, selector)
    else:
        text = e.use(control, "u32")
        if table:
            text = f"{e.const(np.array(table[0], np.uint32))}[{text} & 3]"
        text = f"{e.fn(bits.permute)}({a}, {b}, {text})"
    e.set(ins.operands[0], "b32", text)


def _fixed(e: Emitter, a: str, b: str, selector: int) -> str:
    """The permutation by a known selector: bytes moved equally far make one shift and one mask."""
    moved: dict[tuple[str, int], int] = {}  # (source, bits to the left) -> mask of the result
    signs: dict[tuple[str, int], int] = {}
    for k in range(4):
        choice = selector >> (4 * k) & 15
        key = (b if choice & 4 else a), 8 * (k - (choice & 3))
        group = signs if choice & 8 else moved
        group[key] = group.get(key, 0) | 0xFF << (8 * k)
    terms = [_masked(name, left, mask) for (name, left), mask in moved.items()]
    # A sign bit lands on the lowest bit of its byte; times 255 fills the byte with it.
    spread = [_masked(name, left - 7, mask & 0x01010101) for (name, left), mask in signs.items()]
    if spread:
        terms.append(f"({' | '.join(spread)}) * 255")
    return " | ".join(terms)


def _masked(name: str, left: int, mask: int) -> str:
    """The name shifted and masked, where the shift does not already leave just the mask."""
    kept = 0xFFFFFFFF << left & 0xFFFFFFFF if left >= 0 else 0xFFFFFFFF >> -left
    shifted = name if not left else f"({name} << {left})" if left > 0 else f"({name} >> {-left})"
    return shifted if kept == mask else f"({shifted} & {mask:#x})"
