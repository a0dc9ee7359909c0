"""Which products of matrices there are: from the modifiers of `mma` and `wmma` to the function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from mlgpu.sim.numeric.fragments import (
    accumulator,
    extents,
    multiplicand_a,
    multiplicand_b,
    volta_a,
    volta_accumulator,
    volta_b,
    wmma_fragment,
)
from mlgpu.sim.numeric.mma import Operand, Product


@dataclass(frozen=True)
class _Family:
    """Multiplicands that go together."""

    types: tuple[str, ...]
    bits: int  # of an element's container
    shapes: tuple[str, ...]  # of `mma`
    accumulators: tuple[str, ...]


_F16 = _Family(("f16",), 16, ("m8n8k4", "m16n8k8", "m16n8k16"), ("f16", "f32"))
_FP8 = _Family(("e4m3", "e5m2"), 8, ("m16n8k16", "m16n8k32"), ("f16", "f32"))
_S4 = _Family(("s4", "u4"), 4, ("m8n8k32", "m16n8k32", "m16n8k64"), ("s32",))
_B1 = _Family(("b1",), 1, ("m8n8k128", "m16n8k128", "m16n8k256"), ("s32",))
_FAMILIES = (
    _F16, _S4, _B1, _FP8,
    _Family(("bf16",), 16, ("m16n8k8", "m16n8k16"), ("f32",)),
    _Family(("tf32",), 32, ("m16n8k4", "m16n8k8"), ("f32",)),
    _Family(("f64",), 64, ("m8n8k4", "m16n8k4", "m16n8k8", "m16n8k16"), ("f64",)),
    _Family(("s8", "u8"), 8, ("m8n8k16", "m16n8k16", "m16n8k32"), ("s32",)),
)
_NARROW = ("e4m3", "e5m2", "e3m2", "e2m3", "e2m1")
_KINDS = {
    "kind::f8f6f4": _Family(_NARROW, 8, ("m16n8k32",), ("f16", "f32")),
    "kind::mxf8f6f4": _Family(_NARROW, 8, ("m16n8k32",), ("f32",)),
    "kind::mxf4": _Family(("e2m1",), 4, ("m16n8k64",), ("f32",)),
    "kind::mxf4nvf4": _Family(("e2m1",), 4, ("m16n8k64",), ("f32",)),
}
# By the kind: the sizes of its scale vectors and the types of scales that go with each.
_SCALES: dict[str, dict[str, tuple[str, ...]]] = {
    "kind::mxf8f6f4": {"scale_vec::1X": ("ue8m0",)},
    "kind::mxf4": {"scale_vec::2X": ("ue8m0",)},
    "kind::mxf4nvf4": {"scale_vec::2X": ("ue8m0",), "scale_vec::4X": ("ue8m0", "ue4m3")},
}
_TYPES = frozenset({"f16", "f32", "s32", "ue8m0", "ue4m3", *_NARROW}
                   .union(*(family.types for family in _FAMILIES)))


class _Words:
    """The modifiers, sorted; those that nobody takes are refused in the end."""

    def __init__(self, opcode: str, mods: tuple[str, ...]) -> None:
        self.text = ".".join((opcode, *mods))
        self.shape = next((m for m in mods if m[:1] == "m" and m[1:2].isdigit()), "")
        self.layouts = tuple(m for m in mods if m in ("row", "col"))
        self.types = tuple(m for m in mods if m in _TYPES)
        self.flags = set(mods).difference(self.layouts, self.types, {self.shape})
        if not self.shape or len(self.layouts) != 2 or not {"sync", "aligned"} <= self.flags:
            self.refuse("needs .sync, .aligned, a shape and two layouts")
        self.flags -= {"sync", "aligned"}

    def take(self, *names: str) -> str:
        """The one of these modifiers that is there, or ""."""
        for name in names:
            if name in self.flags:
                self.flags.remove(name)
                return name
        return ""

    def product(self, d: str, a: str, b: str, c: str, family: _Family, chunks: int = 0,
                scale: str = "", repeated: int = 0) -> Product:
        """The product of these types with the modifiers left; multiplicands may be repeated to
        fill so many registers."""
        bits = self.take("xor", "and") if family is _B1 else ""
        if family is _B1 and not (bits and self.take("popc")):
            self.refuse("needs .xor.popc or .and.popc")
        saturate = d == "s32" and not bits and bool(self.take("satfinite"))
        if d == "f64":
            self.take("rn")
        if self.flags:
            self.refuse(f"is not known: no .{' .'.join(sorted(self.flags))}")
        m, n, k = extents(self.shape)
        packed = max(1, 32 // family.bits)
        left, right = multiplicand_a(m, k, packed), multiplicand_b(k, n, packed)
        first = accumulator(m, n, 2 if c == "f16" else 1)
        last = accumulator(m, n, 2 if d == "f16" else 1)
        return Product(Operand(left, a, family.bits, repeated or left.registers),
                       Operand(right, b, family.bits, repeated or right.registers),
                       Operand(first, c, 16, first.registers), Operand(last, d, 16, last.registers),
                       saturate=saturate, bits=bits, chunks=chunks, scale=scale,
                       in_halves=family is _FP8 and d == "f16")

    def refuse(self, why: str) -> NoReturn:
        raise ValueError(f"{self.text} {why}")


@cache
def mma_function(mods: tuple[str, ...]) -> Product:
    """The product of an `mma` with these modifiers.  ValueError where there is none.

    Rounding of f64 other than `.rn` and the sparse `mma.sp` are not known.
    """
    words = _Words("mma", mods)
    kind = words.take(*_KINDS)
    sizes = _SCALES.get(kind, {}) if words.take("block_scale") else {}
    if len(words.types) != (5 if sizes else 4) or bool(sizes) != (kind in _SCALES):
        words.refuse("needs the types of D, A, B, C, and of scales with .block_scale and its kind")
    d, a, b, c = words.types[:4]
    found = [_KINDS[kind]] if kind else [f for f in _FAMILIES if a in f.types]
    if not found or b not in found[0].types or words.shape not in found[0].shapes:
        words.refuse("is not known: no such types of A and B for the shape")
    family = found[0]
    volta = family is _F16 and words.shape == "m8n8k4"
    if c not in family.accumulators or (c != d and (not volta or d != "f32")):
        words.refuse("is not known: no such types of C and D for those of A and B")
    if words.layouts != ("row", "col") and not volta:
        words.refuse("is not known: the shape is there only for .row.col")
    if sizes:
        size = words.take(*sizes) or (next(iter(sizes)) if len(sizes) == 1 else "")
        if words.types[4] not in sizes.get(size, ()):
            words.refuse("is not known: no such scales for the kind")
        return words.product(d, a, b, c, family, int(size[-2]), words.types[4])
    return _volta(words, d, c) if volta else words.product(d, a, b, c, family)


def _volta(words: _Words, d: str, c: str) -> Product:
    if words.flags:
        words.refuse(f"is not known: no .{' .'.join(sorted(words.flags))}")
    left, right = volta_a(words.layouts[0]), volta_b(words.layouts[1])
    first, last = volta_accumulator(c), volta_accumulator(d)
    return Product(Operand(left, "f16", 16, 2), Operand(right, "f16", 16, 2),
                   Operand(first, c, 16, first.registers), Operand(last, d, 16, last.registers),
                   count=4)


@cache
def wmma_function(mods: tuple[str, ...]) -> Product:
    """The product of a `wmma.mma` with these modifiers, "mma" among them.  ValueError if none."""
    words = _Words("wmma", mods)
    if not words.take("mma"):
        words.refuse("is not a product")
    if len(words.types) not in (2, 4):
        words.refuse("needs the types of D and C, and of A and B where they are not f16")
    d, a, b, c = words.types if len(words.types) == 4 else (words.types[0], "f16", "f16",
                                                            words.types[1])
    family = next(family for family in _FAMILIES if a in family.types)
    if a != b or not {c, d} <= {*family.accumulators}:
        words.refuse("is not known: no such types together")
    if family in (_S4, _B1) and words.layouts != ("row", "col"):
        words.refuse("is not known: the shape is there only for .row.col")
    registers = [wmma_fragment(matrix, words.shape, type).registers
                 for matrix, type in zip("abcd", (a, b, c, d), strict=True)]
    return words.product(d, a, b, c, family, repeated=registers[0] if a == "f16" else 0)
