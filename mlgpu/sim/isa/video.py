"""The video instructions: arithmetic on selected bytes and half-words, with a second operation.

The compiler makes only `vabsdiff2` and `vabsdiff4` of CUDA's intrinsics; all have been compared
with an H200.  There many of the one-valued ones with `.sat`, with a second `.min` or `.max`, and
all into `.h1` do not give what the PTX manual says, and neither does `vmad`: those are not known
here.
"""
from __future__ import annotations

import re

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form
from mlgpu.sim.numeric import lanes
from mlgpu.sim.ptx.syntax import Instruction, Operand, Reg

_COMPARE = "eq ne lt le gt ge"


def _selected(operand: Operand) -> tuple[Operand, str]:
    """An operand without its selector, and the selector: `%r1.b3` -> `%r1`, `b3`."""
    if isinstance(operand, Reg) and "." in operand.name:
        name, _, selector = operand.name.partition(".")
        return Reg(name), selector
    return operand, ""


# -- one value: vadd, vsub, ... ------------------------------------------------------------------

def _place(e: Emitter, selector: str) -> tuple[int, int]:
    """Where the selected part starts, and its width."""
    found = re.fullmatch(r"b([0-3])|h([01])|", selector)
    if not found:
        e.fail(f"the selector .{selector}")
    if not selector:
        return 0, 32
    return (8 * int(found[1]), 8) if found[1] else (16 * int(found[2]), 16)


def _value(e: Emitter, operand: Operand, type: str) -> str:
    """The selected part of an operand, as int64."""
    base, selector = _selected(operand)
    start, width = _place(e, selector)
    return f"{e.fn(lanes.part)}({e.use(base, 'u32')}, {start}, {width}, {type[0] == 's'})"


def _scalar(e: Emitter, ins: Instruction, operation: str, types: tuple[str, ...]) -> None:
    """Apply the operation, then add c or put the result in the selected place of c."""
    d, selector = _selected(ins.operands[0])
    start, width = _place(e, selector)
    if start == 16 and width == 16:
        e.fail("GPUs do not agree with the PTX manual on what this does")
    if len(ins.operands) != 3 + ins.has("add") + bool(selector) or len(ins.operands) > 4:
        e.fail("a third source goes with .add or with a part of the destination")
    a, b = (_value(e, operand, type) for operand, type in
            zip(ins.operands[1:3], types, strict=True))
    if ins.has("wrap"):
        b = f"({b} & 31)"
    elif ins.has("clamp"):
        b = f"np.minimum({b}, 32)"
    result = f"{e.fn(lanes.video)}({operation!r}, {a}, {b})"
    if ins.has("add"):
        result = f"{e.fn(lanes.accumulate)}([{result}], {e.use(ins.operands[3], 'u32')})"
    elif selector:
        c = e.use(ins.operands[3], "u32")
        result = f"{e.fn(lanes.merge)}([({start}, {result})], {width}, {c})"
    else:
        result = f"{result}.astype(np.uint32)"
    e.set(d, "u32", result)


@form("vadd", "vsub", "vabsdiff", "vmin", "vmax", types="u32 s32", mods="add", operands=3, most=4)
def scalar(e: Emitter, ins: Instruction) -> None:
    """An operation on one part of a and one of b."""
    if len(ins.mods) < 3:
        e.fail("three types are needed")
    _scalar(e, ins, ins.opcode[1:], ins.mods[1:3])


@form("vset", types="u32 s32", mods=f"{_COMPARE} add", operands=3, most=4)
def vset(e: Emitter, ins: Instruction) -> None:
    """1 where a part of a compares so with one of b, else 0."""
    if len(ins.mods) < 3 or ins.mods[2] not in _COMPARE.split():
        e.fail("two types and a comparison are needed")
    _scalar(e, ins, ins.mods[2], ins.mods[:2])


@form("vshl", "vshr", types="u32 s32", mods="clamp wrap add", operands=3, most=4)
def shift(e: Emitter, ins: Instruction) -> None:
    """A part of a shifted by a part of b."""
    if len(ins.mods) < 4 or ins.has("clamp") == ins.has("wrap"):
        e.fail("three types and .clamp or .wrap are needed")
    _scalar(e, ins, ins.opcode[1:], ins.mods[1:3])


# -- two or four values at once: vadd2, vadd4, ... -----------------------------------------------

_PACKED = "vadd vsub vavrg vabsdiff vmin vmax".split()


@form(*(f"{name}{n}" for name in _PACKED for n in "24"), types="u32 s32", mods="sat add",
      operands=4)
def packed(e: Emitter, ins: Instruction) -> None:
    """An operation on each half-word or byte."""
    if len(ins.mods) < 3:
        e.fail("three types are needed")
    _packed(e, ins, ins.opcode[1:-1], ins.mods[1], ins.mods[2], ins.mods[0] == "s32")


@form("vset2", "vset4", types="u32 s32", mods=f"{_COMPARE} add", operands=4)
def vset_packed(e: Emitter, ins: Instruction) -> None:
    """1 in each half-word or byte where the comparison holds."""
    if len(ins.mods) < 3 or ins.mods[2] not in _COMPARE.split():
        e.fail("two types and a comparison are needed")
    _packed(e, ins, ins.mods[2], ins.mods[0], ins.mods[1], False)


def _packed(e: Emitter, ins: Instruction, operation: str, atype: str, btype: str,
            signed: bool) -> None:
    n = int(ins.opcode[-1])
    width, letter = 32 // n, "h" if n == 2 else "b"
    d, mask = _selected(ins.operands[0])
    (a, first), (b, other) = (_selected(operand) for operand in ins.operands[1:3])
    words = [e.use(operand, "u32") for operand in (a, b)]
    c = e.use(ins.operands[3], "u32")
    if mask and not re.fullmatch(rf"{letter}(?=.)3?2?1?0?", mask):
        e.fail(f"the mask .{mask}")
    kept = [k for k in range(n) if not mask or str(k) in mask]
    if any(k >= n for k in map(int, mask[1:])):
        e.fail(f"the mask .{mask}")
    results = []
    for k in kept:
        values = []
        for selector, type, start in ((first, atype, 0), (other, btype, n)):
            if selector and not re.fullmatch(rf"{letter}[0-{2 * n - 1}]{{{n}}}", selector):
                e.fail(f"the selector .{selector}")
            choice = int(selector[1:][::-1][k]) if selector else start + k
            word = words[choice // n]
            values.append(f"{e.fn(lanes.part)}({word}, {choice % n * width}, {width}, "
                          f"{type[0] == 's'})")
        result = f"{e.fn(lanes.video)}({operation!r}, {', '.join(values)})"
        if ins.has("sat"):
            result = f"{e.fn(lanes.clamp)}({result}, {width}, {signed})"
        results.append((k * width, result))
    if ins.has("add"):
        if ins.has("sat"):
            e.fail("a sum is not saturated")
        text = f"{e.fn(lanes.accumulate)}([{', '.join(r for _, r in results)}], {c})"
    else:
        parts = ", ".join(f"({start}, {result})" for start, result in results)
        text = f"{e.fn(lanes.merge)}([{parts}], {width}, {c})"
    e.set(d, "u32", text)
