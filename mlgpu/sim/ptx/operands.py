"""Operands of instructions: text -> data.

Most are registers, integers and simple addresses: `simple` knows those by their looks.  `careful`
reads any operand token by token and says what is wrong with it.
"""

from __future__ import annotations

import re

from mlgpu.sim.ptx.constants import constant, starts_constant
from mlgpu.sim.ptx.lexer import NAME, Cursor, refuse, unexpected
from mlgpu.sim.ptx.scope import Names
from mlgpu.sim.ptx.syntax import Imm, Mem, Not, Operand, Pair, Reg, Sink, Sym, Vec

_DECIMAL = r"-?(?:0|[1-9]\d{0,17})"
_SIMPLE = re.compile(rf"""\s*(?:
    (?P<name>{NAME}(?:\.\w+)?)
    | (?P<integer>{_DECIMAL})
    | 0[fF](?P<f32>[0-9a-fA-F]{{8}})
    | 0[dD](?P<f64>[0-9a-fA-F]{{16}})
    | \[\s*(?P<base>{NAME})\s*(?:\+\s*(?P<offset>{_DECIMAL})\s*)?\]
    | \{{(?P<vector>[^{{}}\[\]()]*)\}}
    )\s*""", re.ASCII | re.VERBOSE)
_COMMA = re.compile(r",(?![^{}]*\})")
_NO_OPERAND = ("", "}", ")", "]", ",", "@")  # "" is the end of the text
_LONG = 2000  # characters: beyond, only the careful way is sure to be fast


def simple(text: str, names: Names) -> tuple[Operand, ...] | None:
    """The operands, if all of them are of the common forms and their names are known."""
    text = text.replace(", ", ",")
    if "{" in text:
        if len(text) > _LONG:
            return None
        parts = _COMMA.split(text)
    else:
        parts = text.split(",")
    known = names.scope.operands
    try:
        return tuple([known[part] for part in parts])
    except KeyError:
        pass
    operands = []
    for part in parts:
        operand = known.get(part)
        if operand is None:
            operand = _one(part, names)
            if operand is None:
                return None
            known[part] = operand
        operands.append(operand)
    return tuple(operands)


def _one(text: str, names: Names) -> Operand | None:
    match = _SIMPLE.fullmatch(text)
    if match is None:
        return None
    kind = match.lastgroup
    if kind == "name":
        found = names.find(match["name"])
        return found if isinstance(found, (Reg, Vec, Sym)) else None
    if kind == "integer":
        return Imm(int(match["integer"]))
    if kind == "f32" or kind == "f64":
        return Imm(int(match[kind], 16), kind)
    if kind == "vector":
        items = simple(match["vector"], names)
        if items is None or any(isinstance(item, (Vec, Mem)) for item in items):
            return None
        return Vec(items)
    base = names.find(match["base"])
    return Mem(base, int(match["offset"] or 0)) if isinstance(base, (Reg, Sym)) else None


def careful(c: Cursor, names: Names, ends: str = ";") -> tuple[Operand, ...]:
    """Step over operands up to the symbol that ends them, and over it."""
    operands: list[Operand] = []
    if ends != "}":
        if c.accept(ends):
            return ()
        if c.value in _NO_OPERAND:
            c.unexpected(f"an operand or '{ends}'")
    while True:
        if c.value == "[" and ends == ";":
            operands += _memory(c, names)
        elif c.value == "{" and ends == ";":
            c.advance()
            operands.append(Vec(careful(c, names, "}")))
        else:
            operands.append(scalar(c, names))
        if c.accept(ends):
            return tuple(operands)
        if not c.accept(","):
            c.unexpected(f"',' or '{ends}'")


def scalar(c: Cursor, names: Names) -> Operand:
    """Step over a register, constant, address of a variable, `!p`, `a|b` or `_`."""
    first = _single(c, names)
    if isinstance(first, (Reg, Sink)) and c.accept("|"):
        second = _single(c, names)
        if not isinstance(second, (Reg, Sink)):
            c.unexpected("a register or '_' after '|'")
        return Pair(first, second)
    return first


def _single(c: Cursor, names: Names) -> Operand:
    if c.accept("_"):
        return Sink()
    if c.value == "!":
        ahead = Cursor(c.text, c.stop)
        if ahead.kind == "name" and ahead.value != "WARP_SZ":
            c.advance()
            start = c.start
            found = named(c, names)
            if not isinstance(found, Reg):
                refuse(c.text, start, "expected a predicate after '!'")
            return Not(found)
    if starts_constant(c):
        return constant(c)
    found = named(c, names)
    if isinstance(found, Sym) and c.accept("+"):
        return Sym(found.name, _offset(c))
    return found


def named(c: Cursor, names: Names) -> Reg | Vec | Sym:
    """Step over the name of a register or variable; PtxError where nothing has this name."""
    start = c.start
    name = c.name("an operand")
    if c.kind == "directive":
        name += c.value
        c.advance()
    found = names.find(name)
    if found is None:
        unexpected(c.text, start, "a declared register or variable")
    if not isinstance(found, (Reg, Vec, Sym)):
        unexpected(c.text, start, "a register or variable, no label")
    return found


def _memory(c: Cursor, names: Names) -> list[Operand]:
    """`[base+offset]`; what follows a comma inside, as coordinates do, is an operand of its own."""
    c.expect("[")
    start = c.start
    if starts_constant(c):
        base: Reg | Vec | Sym | Imm = constant(c)
    else:
        base = named(c, names)
    if isinstance(base, Vec) or (isinstance(base, Imm) and base.kind != "int"):
        refuse(c.text, start, "expected an address of one register, a variable or an integer")
    memory = Mem(base, _offset(c) if c.accept("+") else 0)
    if c.accept("]"):
        return [memory]
    if not c.accept(","):
        c.unexpected("'+', ',' or ']'")
    return [memory, *_more(c, names)]


def _more(c: Cursor, names: Names) -> list[Operand]:
    operands: list[Operand] = []
    while True:
        if c.accept("{"):
            operands.append(Vec(careful(c, names, "}")))
        else:
            operands.append(scalar(c, names))
        if c.accept("]"):
            return operands
        if not c.accept(","):
            c.unexpected("',' or ']'")


def _offset(c: Cursor) -> int:
    start = c.start
    offset = constant(c)
    if offset.kind != "int":
        refuse(c.text, start, "expected an integer after '+'")
    return offset.value
