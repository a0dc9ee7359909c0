"""C's printf on the bytes that a kernel passes."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

CONVERSION = re.compile(r"%([-+ #0]*)(\*|\d+)?(?:\.(\*|\d+))?(hh|h|ll|l|j|z|t|L)?"
                        r"([diouxXeEfFgGaAcsp%])")
WIDEST = 4095  # characters of one number at most, as C asks for


def text(form: str, values: bytes, string: Callable[[int], str]) -> str:
    """The line that a format and its packed arguments give.

    int and char arguments take 4 bytes, long, double and pointers 8, each at a multiple of its
    size; `string` reads a C string at an address.
    """
    at = 0

    def take(kind: str) -> int | float:
        nonlocal at
        size = struct.calcsize(kind)
        at = -(-at // size) * size
        if at + size > len(values):
            return 0
        value: int | float = struct.unpack_from("<" + kind, values, at)[0]
        at += size
        return value

    def convert(found: re.Match[str]) -> str:
        flags, width, precision, length, kind = found.groups()
        if kind == "%":
            return "%"
        if width == "*":
            width = str(int(take("i")))
        if precision == "*":
            precision = str(int(take("i")))
        width = _limited(width)
        precision = None if precision and precision[0] == "-" else _limited(precision)
        spec = f"%{flags}{width or ''}{'.' + precision if precision is not None else ''}"
        wide = length in ("l", "ll", "j", "z", "t")
        if kind in "di":
            return (spec + "d") % _narrow(int(take("q" if wide else "i")), length, True)
        if kind in "ouxX":
            number = _narrow(int(take("Q" if wide else "I")), length, False)
            if kind == "o" and "#" in flags:  # C writes 010 where Python writes 0o10
                return (spec.replace("#", "") + "s") % f"0{number:o}".replace("00", "0", 1)
            return (spec + ("d" if kind == "u" else kind)) % number
        if kind in "aA":
            value = float(take("d")).hex()
            return value.upper() if kind == "A" else value
        if kind in "eEfFgG":
            return (spec + kind) % take("d")
        if kind == "c":
            return (spec + "c") % chr(int(take("i")) & 0xFF)
        if kind == "s":
            return (spec + "s") % string(int(take("Q")))
        return (spec + "s") % f"{int(take('Q')):#x}"

    return CONVERSION.sub(convert, form)


def _limited(number: str | None) -> str | None:
    """A width or precision, at most WIDEST."""
    if number is None or len(number.lstrip("-0")) < len(str(WIDEST)):
        return number
    sign = "-" * number.startswith("-")
    digits = number.lstrip("-0")
    return sign + (digits if len(digits) == len(str(WIDEST)) and int(digits) <= WIDEST
                   else str(WIDEST))


def _narrow(value: int, length: str | None, signed: bool) -> int:
    """`%hd` and `%hhd` print the low part of their argument."""
    bits = {"h": 16, "hh": 8}.get(length or "")
    if bits is None:
        return value
    value &= (1 << bits) - 1
    return value - (1 << bits) if signed and value >> (bits - 1) else value
