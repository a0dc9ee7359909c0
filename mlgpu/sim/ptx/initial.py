"""The initial value of a variable, as bytes and as addresses to be filled in."""

from __future__ import annotations

import math
import re
import struct

from mlgpu.sim.ptx.constants import constant, starts_constant
from mlgpu.sim.ptx.lexer import Cursor, refuse
from mlgpu.sim.ptx.syntax import SIZES, Imm, Variable

_NUMBER = r"-?(?:0|[1-9]\d{0,18})"
_PLAIN = re.compile(rf"\s*((?:{_NUMBER}\s*,\s*)*{_NUMBER})\s*(?=\}})", re.ASCII)
_LARGEST = 1 << 28  # bytes written down


def initial(c: Cursor, variable: Variable, shape: list[int | None],
            symbols: list[tuple[str, int]]) -> int:
    """Step over what follows `=`: sets `init` and `relocations`, adds the symbols it names.

    The answer is how many elements, or rows, the outermost braces hold.
    """
    value = _Value(c, variable.type, symbols)
    count = value.level(shape, 0) if shape else value.element(0)
    variable.init = bytes(value.bytes)
    variable.relocations = tuple(value.relocations)
    return count


class _Value:
    def __init__(self, c: Cursor, type: str, symbols: list[tuple[str, int]]) -> None:
        self.c = c
        self.type = type
        self.size = SIZES[type]
        self.symbols = symbols
        self.bytes = bytearray()
        self.relocations: list[tuple[int, int, str, int, bool]] = []

    def level(self, shape: list[int | None], offset: int) -> int:
        """A pair of braces; elements that are not given are zero."""
        c, limit = self.c, shape[0]
        if c.value != "{":
            c.unexpected("'{'")
        plain = _PLAIN.match(c.text, c.stop) if len(shape) == 1 and self.type[0] in "bus" else None
        if plain:
            numbers = plain[1].split(",")
            if limit is not None and len(numbers) > limit:
                refuse(c.text, plain.start(1), f"{len(numbers)} values for {limit} elements")
            mask = (1 << 8 * self.size) - 1
            self.put(offset, b"".join([(int(n) & mask).to_bytes(self.size, "little")
                                       for n in numbers]))
            c.stop = plain.end()
            c.advance()
            c.expect("}")
            return len(numbers)
        c.advance()
        step = math.prod(n for n in shape[1:] if n is not None) * self.size
        count = 0
        if c.accept("}"):
            return count
        while True:
            if limit is not None and count >= limit:
                c.unexpected(f"'}}' after {limit} elements")
            if len(shape) > 1:
                self.level(shape[1:], offset + count * step)
            else:
                self.element(offset + count * step)
            count += 1
            if not c.accept(","):
                c.expect("}")
                return count

    def element(self, offset: int) -> int:
        """A number, an address, or one byte of an address."""
        c, start = self.c, self.c.start
        if not starts_constant(c):
            self.address(offset)
            return 1
        value = constant(c)
        if c.accept("("):
            self.masked(offset, value, start)
            c.expect(")")
        else:
            self.put(offset, self.encoded(value, start))
        return 1

    def put(self, offset: int, value: bytes) -> None:
        if offset > _LARGEST:
            refuse(self.c.text, self.c.start, f"an initial value of more than {_LARGEST:,} bytes")
        self.bytes.extend(bytes(offset - len(self.bytes)))
        self.bytes += value

    def encoded(self, value: Imm, start: int) -> bytes:
        """The bytes of a number in the variable's type; integers are cut, as ptxas does."""
        kind, text = self.type[0], self.c.text
        right = kind == "b" or (value.kind != "int") == (kind == "f")
        if not right or self.type in ("f16", "f16x2"):
            refuse(text, start, f"a .{self.type} variable cannot start as this constant")
        if value.kind == "int":
            return (value.value & (1 << 8 * self.size) - 1).to_bytes(self.size, "little")
        bits = value.value.to_bytes(4 if value.kind == "f32" else 8, "little")
        if len(bits) == self.size:
            return bits
        number = struct.unpack("<f" if value.kind == "f32" else "<d", bits)[0]
        try:
            return struct.pack({4: "<f", 8: "<d"}[self.size], number)
        except (KeyError, OverflowError):
            refuse(text, start, f"the constant {number} does not fit .{self.type}")

    def address(self, offset: int) -> None:
        """`name`, `name+4`, `generic(name)+4`."""
        start = self.c.start
        name, addend, generic = self.symbol()
        if self.type[0] == "f" or self.size not in (4, 8):
            refuse(self.c.text, start, f"an address does not fit .{self.type}")
        self.put(offset, bytes(self.size))
        self.relocations.append((offset, self.size, name, addend, generic))

    def symbol(self) -> tuple[str, int, bool]:
        c = self.c
        start = c.start
        name = c.name("a constant or the name of a variable or function")
        generic = name == "generic" and c.accept("(")
        if generic:
            start = c.start
            name = c.name("the name of a variable")
            c.expect(")")
        self.symbols.append((name, start))
        if not c.accept("+"):
            return name, 0, generic
        start = c.start
        addend = constant(c)
        if addend.kind != "int":
            refuse(c.text, start, "expected an integer after '+'")
        return name, addend.value, generic

    def masked(self, offset: int, mask: Imm, start: int) -> None:
        """`0xFF00(name)`, byte 1 of an address; joined to byte 0, which stands before it."""
        text = self.c.text
        byte = (mask.value.bit_length() - 1) // 8
        if self.size != 1 or not 0 <= byte < 8 or mask != Imm(0xFF << 8 * byte):
            refuse(text, start, "expected a mask of one byte, such as 0xFF00, for a .u8")
        symbol = self.symbol()
        self.put(offset, b"\0")
        if byte == 0:
            self.relocations.append((offset, 1, *symbol))
            return
        if not self.relocations or self.relocations[-1] != (offset - byte, byte, *symbol):
            refuse(text, start, f"byte {byte} of an address must follow its byte {byte - 1}")
        self.relocations[-1] = (offset - byte, byte + 1, *symbol)
