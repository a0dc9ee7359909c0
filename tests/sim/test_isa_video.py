"""The video instructions of the simulated GPU against Python's integers."""

from __future__ import annotations

import operator

import pytest
from sim.straight import run_line
from sim.straightcheck import bits, check, signed

from mlgpu.sim.errors import PtxError, UnsupportedError

COMPARE = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
           "gt": operator.gt, "ge": operator.ge}
OPERATIONS = {"add": lambda x, y: x + y, "sub": lambda x, y: x - y,
              "absdiff": lambda x, y: abs(x - y), "min": min, "max": max,
              "avrg": lambda x, y: x + y + (x + y >= 0) >> 1}


def part(value: int, start: int, width: int, type: str) -> int:
    wrap = signed if type == "s32" else bits
    return wrap(value >> start, width)


def clamp(value: int, width: int, type: str) -> int:
    low, high = (-1 << width - 1, (1 << width - 1) - 1) if type == "s32" else (0, (1 << width) - 1)
    return min(max(value, low), high)


def place(selector: str) -> tuple[int, int]:
    """Where a selector's part starts, and its width."""
    if not selector:
        return 0, 32
    width = 8 if selector[0] == "b" else 16
    return width * int(selector[1:]), width


WORDS = {"%a": "b32", "%b": "b32"}
TRIPLE = {**WORDS, "%c": "b32"}
TYPES = [("u32", "u32", "u32"), ("s32", "s32", "s32"), ("s32", "u32", "s32"),
         ("u32", "s32", "u32")]


def scalar(operation, types, asel: str, bsel: str, dsel: str = "", add: bool = False):
    atype, btype = types

    def reference(a: int, b: int, c: int = 0) -> int:
        t = operation(part(a, *place(asel), atype), part(b, *place(bsel), btype)) + add * c
        start, width = place(dsel)
        field = (1 << width) - 1 << start
        return t << start & field | c & ~field
    return reference


def dotted(selector: str) -> str:
    return f".{selector}" if selector else ""


@pytest.mark.parametrize("opcode", ["add", "sub", "absdiff", "min", "max"])
@pytest.mark.parametrize("types", TYPES)
def test_scalar(opcode, types):
    head, operation = f"v{opcode}.{'.'.join(types)}", OPERATIONS[opcode]
    for asel, bsel in (("", ""), ("b0", "h1"), ("b3", "b2"), ("h0", "")):
        tail = f"%a{dotted(asel)}, %b{dotted(bsel)}"
        check(f"{head} %d, {tail};", WORDS, {"%d": "b32"},
              scalar(operation, types[1:], asel, bsel))
        check(f"{head}.add %d, {tail}, %c;", TRIPLE, {"%d": "b32"},
              scalar(operation, types[1:], asel, bsel, add=True))
        for dsel in ("b0", "b3", "h0"):
            check(f"{head} %d.{dsel}, {tail}, %c;", TRIPLE, {"%d": "b32"},
                  scalar(operation, types[1:], asel, bsel, dsel))


@pytest.mark.parametrize("opcode", ["shl", "shr"])
@pytest.mark.parametrize("mode", ["clamp", "wrap"])
@pytest.mark.parametrize("atype", ["u32", "s32"])
def test_scalar_shifts(opcode, mode, atype):
    def operation(x: int, n: int) -> int:
        n = n % 32 if mode == "wrap" else min(n, 32)
        return x << n if opcode == "shl" else x >> n

    for bsel in ("", "b1"):
        check(f"v{opcode}.{atype}.{atype}.u32.{mode} %d, %a, %b{dotted(bsel)};", WORDS,
              {"%d": "b32"}, scalar(operation, (atype, "u32"), "", bsel))


@pytest.mark.parametrize("name", COMPARE)
def test_scalar_set(name):
    for types in (("u32", "s32"), ("s32", "s32"), ("u32", "u32")):
        operation, head = COMPARE[name], f"vset.{'.'.join(types)}.{name}"
        check(f"{head} %d, %a.b1, %b.b2;", WORDS, {"%d": "b32"},
              scalar(operation, types, "b1", "b2"))
        check(f"{head}.add %d, %a, %b, %c;", TRIPLE, {"%d": "b32"},
              scalar(operation, types, "", "", add=True))


def packed(operation, n: int, types, sat: bool = False, asel: str = "", bsel: str = "",
           mask: str = "", add: bool = False):
    dtype, atype, btype = types
    width, every = 32 // n, "".join(map(str, range(n)[::-1]))
    asel, bsel = asel or every, bsel or "".join(str(int(k) + n) for k in every)
    kept = [k for k in range(n) if str(k) in (mask or every)]

    def chosen(a: int, b: int, selector: str, k: int, type: str) -> int:
        return part(b << 32 | a, width * int(selector[n - 1 - k]), width, type)

    def reference(a: int, b: int, c: int) -> int:
        results = {}
        for k in kept:
            t = operation(chosen(a, b, asel, k, atype), chosen(a, b, bsel, k, btype))
            results[k] = clamp(t, width, dtype) if sat else t
        if add:
            return c + sum(results.values())
        return sum(bits(results[k] if k in results else c >> k * width, width) << k * width
                   for k in range(n))
    return reference


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("opcode", OPERATIONS)
@pytest.mark.parametrize("types", TYPES)
def test_packed(n, opcode, types):
    head, operation = f"v{opcode}{n}.{'.'.join(types)}", OPERATIONS[opcode]
    check(f"{head} %d, %a, %b, %c;", TRIPLE, {"%d": "b32"}, packed(operation, n, types))
    check(f"{head}.sat %d, %a, %b, %c;", TRIPLE, {"%d": "b32"},
          packed(operation, n, types, sat=True))
    check(f"{head}.add %d, %a, %b, %c;", TRIPLE, {"%d": "b32"},
          packed(operation, n, types, add=True))


@pytest.mark.parametrize(("n", "mask", "asel", "bsel"), [
    (2, "h1", "h00", "h12"), (2, "h10", "h31", "h20"), (4, "b20", "b0123", "b4567"),
    (4, "b3", "b7210", "b0000"), (4, "b321", "", "b1357")])
def test_packed_selectors(n, mask, asel, bsel):
    types = ("s32", "s32", "u32")
    for add in (False, True):
        check(f"vsub{n}.s32.s32.u32{'.add' if add else ''} "
              f"%d.{mask}, %a{dotted(asel)}, %b{dotted(bsel)}, %c;", TRIPLE, {"%d": "b32"},
              packed(OPERATIONS["sub"], n, types, asel=asel[1:], bsel=bsel[1:], mask=mask[1:],
                     add=add))


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("name", COMPARE)
def test_packed_set(n, name):
    for atype, btype in (("u32", "u32"), ("s32", "s32"), ("s32", "u32")):
        for add in (False, True):
            check(f"vset{n}.{atype}.{btype}.{name}{'.add' if add else ''} %d, %a, %b, %c;", TRIPLE,
                  {"%d": "b32"}, packed(COMPARE[name], n, ("u32", atype, btype), add=add))


@pytest.mark.parametrize("text", [
    "vadd.s32.s32 %d, %a, %b", "vadd.s32.s32.s32 %d, %a, %b, %c", "vadd.s32.s32.s32.add %d, %a, %b",
    "vadd.s32.s32.s32.add %d.b0, %a, %b, %c", "vadd.s32.s32.s32 %d, %a.b4, %b",
    "vset.s32.s32 %d, %a, %b", "vset.s32.lt.s32 %d, %a, %b", "vshl.u32.u32.u32 %d, %a, %b",
    "vadd.s32.s32.s32.sat %d, %a, %b", "vmin.s32.s32.s32.max %d, %a, %b, %c",
    "vadd.s32.s32.s32 %d.h1, %a, %b, %c", "vadd4.s32.s32.s32.sat.add %d, %a, %b, %c",
    "vadd4.s32.s32.s32 %d, %a, %b", "vadd4.s32.s32.s32 %d.b4, %a, %b, %c",
    "vadd2.s32.s32.s32 %d.h2, %a, %b, %c", "vadd2.s32.s32.s32 %d, %a.h40, %b, %c",
    "vadd4.s32.s32.s32 %d, %a.b321, %b, %c", "vset4.u32.u32 %d, %a, %b, %c",
    "vadd4.s32 %d, %a, %b, %c",
])
def test_malformed(text):
    registers = {f"%{name}": "b32" for name in "abcd"}
    with pytest.raises((PtxError, UnsupportedError), match=r"test\.cu:1|PTX line"):
        run_line(text, registers, {name: [1] for name in registers})
