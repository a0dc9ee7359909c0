"""Comparisons and selections."""

from __future__ import annotations

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import first_type, form, integer_form, pair, raw
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import Imm, Instruction, Operand

_SIGNS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
          "lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
_BOOLEAN = {"and": "&", "or": "|", "xor": "^"}
_TYPES = "b16 b32 b64 u16 u32 u64 s16 s32 s64"
_MODS = " ".join((*_SIGNS, *_BOOLEAN))


def _compared(e: Emitter, ins: Instruction) -> str:
    """An array of booleans: the comparison of the first two sources."""
    signs = [_SIGNS[mod] for mod in ins.mods if mod in _SIGNS]
    combine = [mod for mod in ins.mods if mod in _BOOLEAN]
    if len(signs) != 1 or len(combine) != len(ins.operands) - 3:
        e.fail("a comparison has one operator, and a boolean one where it has a third source")
    if ins.type[0] == "b" and not (ins.has("eq") or ins.has("ne")):
        e.fail("bits are compared by .eq and .ne alone")
    if ins.type[0] == "s" and any(ins.has(mod) for mod in ("lo", "ls", "hi", "hs")):
        e.fail("signed numbers are compared by .lt, .le, .gt and .ge")
    a, b = (e.use(operand, ins.type) for operand in ins.operands[1:3])
    return e.bind(f"{a} {signs[0]} {b}")


def _combined(e: Emitter, ins: Instruction, holds: str) -> str:
    """An expression: the comparison combined with the predicate that the instruction names."""
    for mod in ins.mods:
        if mod in _BOOLEAN:
            return f"{holds} {_BOOLEAN[mod]} {e.use(ins.operands[3], 'pred')}"
    return holds


@integer_form("setp", types=_TYPES, mods=_MODS, operands=3, most=4)
def setp(e: Emitter, ins: Instruction) -> None:
    """p = (a cmp b) op c; q = !(a cmp b) op c."""
    p, q = pair(e, ins.operands[0])
    holds = _compared(e, ins)
    results = [(p, _combined(e, ins, holds)), (q, _combined(e, ins, f"~{holds}"))]
    set_predicates(e, ins, results)


def set_predicates(e: Emitter, ins: Instruction, results: list[tuple[Operand, str]]) -> None:
    """Set several destinations under one guard; the guard, where it is one of them, goes last."""
    bound = [(operand, e.bind(text)) for operand, text in results]
    for operand, name in sorted(bound, key=lambda result: result[0] == ins.guard):
        e.set(operand, "pred", name)


@integer_form("set", types=f"{_TYPES} f32 f16 bf16", mods=_MODS, operands=3, most=4)
def set_(e: Emitter, ins: Instruction) -> None:
    """All ones (or 1.0) where the comparison holds, else 0."""
    result = first_type(ins)
    if result not in ("u32", "s32", "f32", "f16", "bf16"):
        e.fail("the result of set is .u32, .s32, .f32, .f16 or .bf16")
    holds = f"({_combined(e, ins, _compared(e, ins))}).astype(np.{DTYPES[result].name})"
    if result in ("u32", "s32"):
        holds = f"-{holds}"
    elif result == "bf16":
        holds = f"{holds} * 0x3f80"
    e.set(ins.operands[0], result, holds)


@form("selp", types=f"{_TYPES} f32 f64", operands=4)
def selp(e: Emitter, ins: Instruction) -> None:
    """p ? a : b."""
    *values, chosen = ins.operands[1:]
    type = bits_type(ins.type, values)
    a, b = (e.use(operand, type) for operand in values)
    e.set(ins.operands[0], type, f"where({e.use(chosen, 'pred')}, {a}, {b})")


@form("slct", types=f"{_TYPES} f32 f64", mods="ftz", operands=4)
def slct(e: Emitter, ins: Instruction) -> None:
    """c >= 0 ? a : b."""
    *values, c = ins.operands[1:]
    if ins.type not in ("s32", "f32"):
        e.fail("slct looks at an .s32 or .f32")
    type = bits_type(first_type(ins), values)
    a, b = (e.use(operand, type) for operand in values)
    sign = e.use(c, ins.type)
    # Flushed to zero, a negative subnormal is not below 0.
    holds = f"{sign} > -1.17549435e-38" if ins.has("ftz") else f"{sign} >= 0"
    e.set(ins.operands[0], type, f"where({holds}, {a}, {b})")


def bits_type(type: str, operands: list[Operand]) -> str:
    """The type under which values are moved: floats as they are, all else as unsigned bits.

    A float whose constant is given by its bits also counts as bits.
    """
    whole = any(isinstance(operand, Imm) and operand.kind == "int" for operand in operands)
    return type if type in ("f32", "f64") and not whole else raw(type)
