"""Logic on words and predicates: and, or, xor, not, and `lop3`, any function of three bits."""

from __future__ import annotations

import threading

import numpy as np

from mlgpu.sim.emit import Emitter
from mlgpu.sim.isa.form import form, pair, raw
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.ptx.syntax import Imm, Instruction

_BITS = "pred b16 b32 b64"
_SIGNS = {"and": "&", "or": "|", "xor": "^"}


@form("and", "or", "xor", types=_BITS, operands=3)
def logic(e: Emitter, ins: Instruction) -> None:
    """a & b, a | b, a ^ b."""
    a, b = (e.use(operand, ins.type) for operand in ins.operands[1:])
    e.set(ins.operands[0], ins.type, f"{a} {_SIGNS[ins.opcode]} {b}")


@form("not", types=_BITS, operands=2)
def invert(e: Emitter, ins: Instruction) -> None:
    """~a."""
    e.set(ins.operands[0], ins.type, f"~{e.use(ins.operands[1], ins.type)}")


@form("cnot", types="b16 b32 b64", operands=2)
def cnot(e: Emitter, ins: Instruction) -> None:
    """1 where a is 0, else 0."""
    zero = f"({e.use(ins.operands[1], ins.type)} == 0)"
    e.set(ins.operands[0], ins.type, f"{zero}.astype(np.{DTYPES[ins.type].name})")


@form("lop3", types="b32", mods="and or", operands=5, most=6)
def lop3(e: Emitter, ins: Instruction) -> None:
    """Any bitwise function of three words; `.and` and `.or` also make a predicate of it."""
    d, p = pair(e, ins.operands[0])
    *sources, table = ins.operands[1:5]
    if not isinstance(table, Imm) or not 0 <= table.value <= 255:
        e.fail("lop3 needs a table from 0 to 255")
    if table.value in (0, 255):
        value = e.const(np.full((1, 1), -(table.value == 255), np.int32).view(np.uint32))
    else:
        names = dict(zip("abc", (e.use(operand, "b32") for operand in sources), strict=True))
        value = "".join(names.get(char, char) for char in shortest(table.value))
    combine = [mod for mod in ins.mods if mod in _SIGNS]
    if bool(combine) != (len(ins.operands) == 6) or len(combine) > 1:
        e.fail("lop3 with a predicate is lop3.and or lop3.or with six operands")
    if combine:
        value = e.bind(value)
        other = e.use(ins.operands[5], "pred")
        holds = e.bind(f"({value} != 0) {_SIGNS[combine[0]]} {other}")
        # Two destinations under one guard: the guard itself, if it is one of them, goes last.
        e.set(d, "b32", value)
        e.set(p, "pred", holds)
    else:
        e.set(d, raw("b32"), value)


_INPUTS = {0xF0: "a", 0xCC: "b", 0xAA: "c"}
_found: list[dict[int, str]] = [dict(_INPUTS)]  # per number of operators: table -> expression
_known: dict[int, str] = dict(_INPUTS)
_LOCK = threading.Lock()  # machines of several threads may search at once


def shortest(table: int) -> str:
    """An expression of a, b and c with the fewest operators that has this truth table.

    Searched by the number of operators, as far as asked for so far; tables of constants and of a
    single input have none.
    """
    with _LOCK:
        while table not in _known:
            size = len(_found)
            new: dict[int, str] = {}
            for left in range(size):
                _combine(_found[left], _found[size - 1 - left], new)
            for bits, text in _found[size - 1].items():
                new.setdefault(bits ^ 0xFF, f"~{text}")
            _found.append({bits: text for bits, text in new.items() if bits not in _known})
            _known.update(_found[-1])
        return _known[table]


def _combine(xs: dict[int, str], ys: dict[int, str], new: dict[int, str]) -> None:
    for x, left in xs.items():
        for y, right in ys.items():
            for sign, bits in (("&", x & y), ("|", x | y), ("^", x ^ y)):
                if bits not in _known and bits not in new:
                    new[bits] = f"({left} {sign} {right})"
