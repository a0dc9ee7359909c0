"""Constants of PTX: literals in every form, and expressions of them."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable

from mlgpu.sim.ptx.lexer import Cursor, refuse
from mlgpu.sim.ptx.syntax import Imm

WARP_SIZE = 32
_DEPTH = 24  # of nested parentheses and signs
_INTEGER: dict[str, tuple[int, Callable[[int, int], int]]] = {  # how tightly it binds
    "||": (0, lambda a, b: int(bool(a) or bool(b))),
    "&&": (1, lambda a, b: int(bool(a) and bool(b))),
    "|": (2, operator.or_), "^": (3, operator.xor), "&": (4, operator.and_),
    "==": (5, lambda a, b: int(a == b)), "!=": (5, lambda a, b: int(a != b)),
    "<": (6, lambda a, b: int(a < b)), "<=": (6, lambda a, b: int(a <= b)),
    ">": (6, lambda a, b: int(a > b)), ">=": (6, lambda a, b: int(a >= b)),
    "<<": (7, operator.lshift), ">>": (7, operator.rshift),
    "+": (8, operator.add), "-": (8, operator.sub),
    "*": (9, operator.mul), "/": (9, lambda a, b: _quotient(a, b)),
    "%": (9, lambda a, b: a - b * _quotient(a, b)),
}
_REAL: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


def starts_constant(c: Cursor) -> bool:
    """Whether a constant expression can begin with this token."""
    return c.kind == "number" or c.value in ("(", "-", "+", "~", "!", "WARP_SZ")


def constant(c: Cursor) -> Imm:
    """Step over a constant expression."""
    if c.kind == "number" and c.value[:2] in ("0f", "0F", "0d", "0D"):
        bits = int(c.value[2:], 16)
        kind = "f32" if c.value[1] in "fF" else "f64"
        c.advance()
        return Imm(bits, kind)
    value = _choice(c, 0)
    if isinstance(value, float):
        return Imm(int.from_bytes(struct.pack("<d", value), "little"), "f64")
    return Imm(value)


def integer(c: Cursor, what: str) -> int:
    """Step over an integer literal that is not negative, or WARP_SZ."""
    start = c.start
    value = _literal(c, what)
    if isinstance(value, float):
        refuse(c.text, start, f"expected {what}, found {c.text[start:c.start].strip()}")
    return value


def _choice(c: Cursor, depth: int) -> int | float:
    value = _operation(c, 0, depth)
    if not c.accept("?"):
        return value
    yes = _choice(c, _deeper(c, depth))
    c.expect(":")
    no = _choice(c, _deeper(c, depth))
    return yes if value else no


def _operation(c: Cursor, tightness: int, depth: int) -> int | float:
    """The longest expression of operators that bind at least so tightly."""
    left = _unary(c, depth)
    while c.kind == "symbol" and c.value in _INTEGER and _INTEGER[c.value][0] >= tightness:
        symbol, start = c.value, c.start
        tight, compute = _INTEGER[symbol]
        c.advance()
        right = _operation(c, tight + 1, depth)
        if symbol in "/%" and not right:
            refuse(c.text, start, "this constant is divided by zero")
        if isinstance(left, float) and isinstance(right, float) and symbol in _REAL:
            left = _finite(c, start, _REAL[symbol](left, right))
        elif isinstance(left, float) or isinstance(right, float):
            refuse(c.text, start, f"'{symbol}' cannot join these constants")
        elif symbol in ("<<", ">>") and not 0 <= right < 64:
            refuse(c.text, start, f"a constant of 64 bits is shifted by {right}")
        else:
            left = _wrapped(compute(left, right))
    return left


def _unary(c: Cursor, depth: int) -> int | float:
    start = c.start
    if c.accept("("):
        if c.value in (".s64", ".u64"):
            cast = c.value
            c.advance()
            c.expect(")")
            value = _unary(c, _deeper(c, depth))
            if isinstance(value, float):
                refuse(c.text, start, f"expected an integer after '({cast})'")
            value &= (1 << 64) - 1
            return value - (1 << 64) if cast == ".s64" and value >> 63 else value
        value = _choice(c, _deeper(c, depth))
        c.expect(")")
        return value
    for sign in "-+~!":
        if c.accept(sign):
            value = _unary(c, _deeper(c, depth))
            if isinstance(value, float):
                if sign in "~!":
                    refuse(c.text, start, f"expected an integer after '{sign}'")
                return -value if sign == "-" else value
            return {"-": -value, "+": value, "~": ~value, "!": int(not value)}[sign]
    return _literal(c, "a constant")


def _literal(c: Cursor, what: str) -> int | float:
    word, start = c.value, c.start
    if word == "WARP_SZ":
        c.advance()
        return WARP_SIZE
    if c.kind != "number" or word[:2] in ("0f", "0F", "0d", "0D"):
        c.unexpected(what)
    hexadecimal = word[:2] in ("0x", "0X")
    if not hexadecimal and ("." in word or "e" in word.lower()):
        c.advance()
        return _finite(c, start, float(word))
    digits = word.rstrip("U")
    base = 16 if hexadecimal else 2 if word[:2] in ("0b", "0B") else 8 if word[0] == "0" else 10
    if base == 8 and not set(digits) <= set("01234567"):
        c.unexpected("an octal constant, as it begins with 0")
    if len(digits) > 80 or (value := int(digits, base)) >> 64:
        refuse(c.text, start, f"the constant {word[:60]} does not fit 64 bits")
    c.advance()
    return value


def _quotient(a: int, b: int) -> int:
    """Division that rounds to zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _wrapped(value: int) -> int:
    """The value as 64 bits hold it, where they do not hold it as it is."""
    return value if -(1 << 63) <= value < 1 << 64 else value & (1 << 64) - 1


def _finite(c: Cursor, start: int, value: float) -> float:
    if abs(value) == float("inf"):
        refuse(c.text, start, "this constant is greater than any double")
    return value


def _deeper(c: Cursor, depth: int) -> int:
    if depth == _DEPTH:
        refuse(c.text, c.start, f"this constant is nested more than {_DEPTH} deep")
    return depth + 1
