"""Declarations of variables, parameters and registers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlgpu.sim.ptx.constants import integer
from mlgpu.sim.ptx.initial import initial
from mlgpu.sim.ptx.lexer import Cursor, refuse
from mlgpu.sim.ptx.syntax import SIZES, Variable

FUNDAMENTAL = frozenset("""b8 b16 b32 b64 b128 u8 u16 u32 u64 s8 s16 s32 s64
    f16 f16x2 f32 f64 pred""".split())
_WIDTHS = {".v2": 2, ".v4": 4}
_DIMENSIONS = 16
_LARGEST = 1 << 48  # bytes: what a device can address


@dataclass(frozen=True)
class Registers:
    """Declared registers: one of this name or, with a count, `name0`, `name1`, …"""

    name: str
    type: str
    width: int  # how many a vector register has, or 0
    count: int | None
    start: int  # of the name in the text


@dataclass(frozen=True)
class Declared:
    """A declared variable, and what the rest of the module has yet to confirm."""

    variable: Variable
    start: int  # of the name in the text
    symbols: list[tuple[str, int]]  # names in its initial value, and where


def registers(c: Cursor) -> list[Registers]:
    """Step over what follows `.reg`, with the semicolon."""
    type, _, width = _head(c, register=True)
    found = []
    while True:
        start = c.start
        name = c.name("the name of a register")
        count = None
        if c.accept("<"):
            count = integer(c, "the number of registers")
            c.expect(">")
        found.append(Registers(name, type, width, count, start))
        if not c.accept(","):
            c.expect(";")
            return found


def variables(c: Cursor, space: str, linkage: str = "") -> list[Declared]:
    """Step over what follows the state space, with the semicolon."""
    type, align, width = _head(c, register=False)
    found = []
    while True:
        start = c.start
        name = c.name("the name of a variable")
        shape = _shape(c)
        variable = Variable(name, space, type, align, linkage=linkage, scalar=not shape)
        symbols: list[tuple[str, int]] = []
        if c.value == "=":
            if space not in ("global", "const") or linkage == "extern":
                refuse(c.text, c.start,
                       f"{name} takes no initial value, as it is .{linkage or space}")
            c.advance()
            rows = initial(c, variable, shape + [width] * bool(width), symbols)
            if shape and shape[0] is None:
                shape[0] = rows
        _measure(c, start, variable, shape, width)
        if not variable.size and not (linkage == "extern" and variable.count is None):
            refuse(c.text, start, f"the size of {name} is not given")
        found.append(Declared(variable, start, symbols))
        if not c.accept(","):
            c.expect(";")
            return found


def parameters(c: Cursor, unnamed: bool = False) -> list[Declared]:
    """Step over a parenthesised list of parameters; those of a prototype have no names."""
    c.expect("(")
    found: list[Declared] = []
    if c.accept(")"):
        return found
    while True:
        if c.value not in (".param", ".reg"):
            c.unexpected("'.param', '.reg' or ')'")
        space = c.value[1:]
        c.advance()
        type, align, width = _head(c, register=space == "reg")
        if c.accept(".ptr"):  # what it points to is a hint for the optimiser
            if c.value in (".global", ".const", ".shared", ".local"):
                c.advance()
            if c.value == ".align":
                _alignment(c)
        start = c.start
        if unnamed and c.accept("_"):
            name = "_"
        else:
            name = c.name("the name of a parameter")
        shape = _shape(c)
        variable = Variable(name, space, type, align, scalar=not shape)
        _measure(c, start, variable, shape, width)
        found.append(Declared(variable, start, []))
        if not c.accept(","):
            c.expect(")")
            return found
        if variable.count is None:
            refuse(c.text, start, f"{name} has no size, which only the last parameter may lack")


def attribute(c: Cursor) -> bool:
    """Step over `.attribute(…)`, where there is one: it says how memory migrates."""
    if not c.accept(".attribute"):
        return False
    c.expect("(")
    depth = 1
    while depth:
        if c.kind == "end" or c.value in (";", "{"):
            c.unexpected("')'")
        depth += (c.value == "(") - (c.value == ")")
        c.advance()
    return True


def _head(c: Cursor, *, register: bool) -> tuple[str, int, int]:
    """Step over alignment, vector width and type: the type, its alignment in bytes, the width."""
    align = width = 0
    while True:
        if c.value == ".align" and not register:
            align = _alignment(c)
        elif c.value in _WIDTHS and not width:
            width = _WIDTHS[c.value]
            c.advance()
        elif not attribute(c):
            break
    type = c.value[1:]
    if c.kind != "directive" or type not in FUNDAMENTAL:
        c.unexpected("a type such as .b32")
    if type == "pred" and (width or not register):
        refuse(c.text, c.start, "a predicate can only be a register by itself")
    if SIZES[type] * width > 16:
        refuse(c.text, c.start, f"a vector of {width} .{type} is larger than 16 bytes")
    c.advance()
    return type, align or SIZES[type] * (width or 1), width


def _alignment(c: Cursor) -> int:
    c.advance()
    start = c.start
    align = integer(c, "the bytes of an alignment")
    if align < 1 or align & (align - 1):
        refuse(c.text, start, f"the alignment {align} is not a power of two")
    return align


def _shape(c: Cursor) -> list[int | None]:
    """Step over the brackets of an array; None is the size of `[]`."""
    shape: list[int | None] = []
    while c.accept("["):
        if not shape and c.accept("]"):
            shape.append(None)
            continue
        if len(shape) == _DIMENSIONS:
            refuse(c.text, c.start, f"an array of more than {_DIMENSIONS} dimensions")
        shape.append(integer(c, "the size of an array"))
        c.expect("]")
    return shape


def _measure(c: Cursor, start: int, variable: Variable, shape: list[int | None],
             width: int) -> None:
    sizes = [n for n in shape if n is not None]
    variable.count = None if len(sizes) < len(shape) else math.prod(sizes) * (width or 1)
    if variable.size > _LARGEST:
        refuse(c.text, start, f"{variable.name} has {variable.size:,} bytes, more than a device")
