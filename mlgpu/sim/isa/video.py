"""The video instructions: arithmetic on selected bytes and half-words, with a second operation."""

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


# -- one value: vadd, vsub, ... --------------------------------------------------------------------

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


def _scalar(e: Emitter, ins: Instruction, result: str, signed: bool) -> None:
    """Saturate the result, then combine it with c or put it in the selected place of c."""
    d, selector = _selected(ins.operands[0])
    start, width = _place(e, selector)
    second = [mod for mod in ins.mods if mod in ("add", "min", "max")]
    extra = bool(second) + bool(selector)
    if len(ins.operands) != 3 + extra or extra > 1:
        e.fail("a third source goes with a second operation or with a part of the destination")
    if ins.has("sat"):
        result = f"{e.fn(lanes.clamp)}({result}, {width}, {signed})"
    if second:
        c = e.use(ins.operands[3], "u32")
        result = f"{e.fn(lanes.second)}({second[0]!r}, {signed}, {result}, {c})"
    elif selector:
        c = e.use(ins.operands[3], "u32")
        result = f"{e.fn(lanes.merge)}([({start}, {result})], {width}, {c})"
    else:
        result = f"{result}.astype(np.uint32)"
    e.set(d, "u32", result)


@form("vadd", "vsub", "vabsdiff", "vmin", "vmax", types="u32 s32", mods="sat add min max",
      operands=3, most=4)
def scalar(e: Emitter, ins: Instruction) -> None:
    """An operation on one part of a and one of b."""
    if len(ins.mods) < 3:
        e.fail("three types are needed")
    a, b = (_value(e, ins.operands[k], ins.mods[k]) for k in (1, 2))
    result = f"{e.fn(lanes.video)}({ins.opcode[1:]!r}, {a}, {b})"
    _scalar(e, ins, result, ins.mods[0] == "s32")


@form("vset", types="u32 s32", mods=f"{_COMPARE} add min max", operands=3, most=4)
def vset(e: Emitter, ins: Instruction) -> None:
    """1 where a part of a compares so with one of b, else 0."""
    if len(ins.mods) < 3 or ins.mods[2] not in _COMPARE.split():
        e.fail("two types and a comparison are needed")
    a, b = (_value(e, ins.operands[k], ins.mods[k - 1]) for k in (1, 2))
    _scalar(e, ins, f"{e.fn(lanes.video)}({ins.mods[2]!r}, {a}, {b})", False)


@form("vshl", "vshr", types="u32 s32", mods="sat clamp wrap add min max", operands=3, most=4)
def shift(e: Emitter, ins: Instruction) -> None:
    """A part of a shifted by a part of b."""
    if len(ins.mods) < 4 or ins.has("clamp") == ins.has("wrap"):
        e.fail("three types and .clamp or .wrap are needed")
    a, b = (_value(e, ins.operands[k], ins.mods[k]) for k in (1, 2))
    b = f"({b} & 31)" if ins.has("wrap") else f"np.minimum({b}, 32)"
    result = f"{e.fn(lanes.video)}({ins.opcode[1:]!r}, {a}, {b})"
    _scalar(e, ins, result, ins.mods[0] == "s32")


@form("vmad", types="u32 s32", mods="sat po shr7 shr15", operands=4)
def vmad(e: Emitter, ins: Instruction) -> None:
    """a * b + c (+ 1), scaled and saturated."""
    if len(ins.mods) < 3:
        e.fail("three types are needed")
    signed = "s32" in ins.mods[1:3]
    a, b = (_value(e, ins.operands[k], ins.mods[k]) for k in (1, 2))
    c = _value(e, ins.operands[3], "s32" if signed else "u32")
    scale = 7 if ins.has("shr7") else 15 if ins.has("shr15") else 0
    flags = f"{scale}, {ins.has('sat')}, {ins.has('po')}, {signed}"
    e.set(ins.operands[0], "u32", f"{e.fn(lanes.multiply_add)}({a}, {b}, {c}, {flags})")


# -- two or four values at once: vadd2, vadd4, ... -------------------------------------------------

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
