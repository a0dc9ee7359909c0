"""Integer arithmetic of the simulated GPU against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from sim.straight import run_line
from sim.straightcheck import bits, check, of_type, signed, width_of

from mlgpu.sim.errors import PtxError, UnsupportedError

TYPES = "u16 u32 u64 s16 s32 s64".split()
PACKED = ("u16x2", "s16x2")


def register(type: str) -> str:
    """The type a register has in PTX: bits."""
    return f"b{width_of(type)}"


def two(opcode: str, type: str, reference, result: str = "", pools=None) -> None:
    check(f"{opcode} %d, %a, %b;", {"%a": type, "%b": type}, {"%d": result or type}, reference,
          pools)


def three(opcode: str, type: str, reference, c: str = "") -> None:
    check(f"{opcode} %d, %a, %b, %c;", {"%a": type, "%b": type, "%c": c or type}, {"%d": c or type},
          reference)


def clamp(value: int, type: str) -> int:
    w = width_of(type)
    low, high = (-1 << (w - 1), (1 << (w - 1)) - 1) if type[0] == "s" else (0, (1 << w) - 1)
    return min(max(value, low), high)


def halves(value: int, type: str) -> list[int]:
    wrap = signed if type[0] == "s" else bits
    return [wrap(value, 16), wrap(value >> 16, 16)]


def by_halves(operation, type: str):
    def reference(a: int, b: int) -> int:
        pairs = zip(halves(a, type), halves(b, type), strict=True)
        low, high = (bits(operation(x, y), 16) for x, y in pairs)
        return high << 16 | low
    return reference


def toward_zero(a: int, b: int) -> int:
    if b == 0:
        return -1
    magnitude = abs(a) // abs(b)
    return magnitude if (a < 0) == (b < 0) else -magnitude


@pytest.mark.parametrize("type", TYPES)
def test_add_and_sub(type):
    two(f"add.{type}", type, lambda a, b: a + b)
    two(f"sub.{type}", type, lambda a, b: a - b)


def test_saturating_add_and_sub():
    two("add.sat.s32", "s32", lambda a, b: clamp(a + b, "s32"))
    two("sub.sat.s32", "s32", lambda a, b: clamp(a - b, "s32"))


@pytest.mark.parametrize("type", PACKED)
def test_packed_halves(type):
    two(f"add.{type}", type, by_halves(lambda x, y: x + y, type))
    two(f"min.{type}", type, by_halves(min, type))
    two(f"max.{type}", type, by_halves(max, type))


def test_relu():
    two("min.s32.relu", "s32", lambda a, b: max(min(a, b), 0))
    two("max.relu.s32", "s32", lambda a, b: max(a, b, 0))
    two("min.s16x2.relu", "s16x2", by_halves(lambda x, y: max(min(x, y), 0), "s16x2"))
    two("max.s16x2.relu", "s16x2", by_halves(lambda x, y: max(x, y, 0), "s16x2"))


def test_registers_of_bits_and_constants():
    given = {"%a": [0x7FFFFFFF, 5]}
    registers = {"%a": "b32", "%d": "b32"}
    got = run_line("add.s32 %d, %a, -6;", registers, given)["%d"]
    assert got.tolist() == [[0x7FFFFFF9, 0xFFFFFFFF]]
    assert got.dtype == np.uint32
    assert run_line("max.s32 %d, %a, -2147483648;", registers, given)["%d"].tolist() \
        == [[0x7FFFFFFF, 5]]


def test_guarded():
    registers = {"%a": "b32", "%d": "b32", "%p": "pred"}
    given = {"%a": [1, 2, 3], "%d": [7, 8, 9], "%p": [True, False, True]}
    assert run_line("@%p add.s32 %d, %a, %a;", registers, given)["%d"].tolist() == [[2, 8, 6]]
    assert run_line("@!%p mul.lo.s32 %d, %a, %d;", registers, given)["%d"].tolist() == [[7, 16, 9]]


# -- products --------------------------------------------------------------------------------------

@pytest.mark.parametrize("type", TYPES)
def test_products(type):
    w = width_of(type)
    two(f"mul.lo.{type}", type, lambda a, b: a * b)
    two(f"mul.hi.{type}", type, lambda a, b: a * b >> w)
    three(f"mad.lo.{type}", type, lambda a, b, c: a * b + c)
    three(f"mad.hi.{type}", type, lambda a, b, c: (a * b >> w) + c)


@pytest.mark.parametrize("type", ["u16", "u32", "s16", "s32"])
def test_wide_products(type):
    wide = f"{type[0]}{2 * width_of(type)}"
    two(f"mul.wide.{type}", type, lambda a, b: a * b, wide)
    three(f"mad.wide.{type}", type, lambda a, b, c: a * b + c, wide)


def test_mad_hi_sat():
    three("mad.hi.sat.s32", "s32", lambda a, b, c: clamp((a * b >> 32) + c, "s32"))


@pytest.mark.parametrize("type", ["u32", "s32"])
def test_24_bits(type):
    def low(value: int) -> int:
        return signed(value, 24) if type == "s32" else bits(value, 24)

    two(f"mul24.lo.{type}", type, lambda a, b: low(a) * low(b))
    two(f"mul24.hi.{type}", type, lambda a, b: low(a) * low(b) >> 16)
    three(f"mad24.lo.{type}", type, lambda a, b, c: low(a) * low(b) + c)
    three(f"mad24.hi.{type}", type, lambda a, b, c: (low(a) * low(b) >> 16) + c)


def test_mad24_hi_sat():
    def reference(a: int, b: int, c: int) -> int:
        return clamp(signed(signed(a, 24) * signed(b, 24) >> 16, 32) + c, "s32")

    three("mad24.hi.sat.s32", "s32", reference)


@pytest.mark.parametrize("atype", ["u32", "s32"])
@pytest.mark.parametrize("btype", ["u32", "s32"])
def test_dot_products(atype, btype):
    def parts(value: int, width: int, type: str) -> list[int]:
        wrap = signed if type == "s32" else bits
        return [wrap(value >> k, width) for k in range(0, 32, width)]

    def dp4a(a: int, b: int, c: int) -> int:
        return c + sum(x * y for x, y in zip(parts(a, 8, atype), parts(b, 8, btype), strict=True))

    def dp2a(first: int):
        def reference(a: int, b: int, c: int) -> int:
            pairs = zip(parts(a, 16, atype), parts(b, 8, btype)[first:first + 2], strict=True)
            return c + sum(x * y for x, y in pairs)
        return reference

    three(f"dp4a.{atype}.{btype}", "b32", dp4a)
    three(f"dp2a.lo.{atype}.{btype}", "b32", dp2a(0))
    three(f"dp2a.hi.{atype}.{btype}", "b32", dp2a(2))


# -- division and the like -------------------------------------------------------------------------

@pytest.mark.parametrize("type", TYPES)
def test_division(type):
    two(f"div.{type}", type, toward_zero)
    two(f"rem.{type}", type, lambda a, b: a - b * toward_zero(a, b) if b else -1)


@pytest.mark.parametrize("type", TYPES)
def test_extrema_and_sad(type):
    two(f"min.{type}", type, min)
    two(f"max.{type}", type, max)
    three(f"sad.{type}", type, lambda a, b, c: c + abs(a - b))


@pytest.mark.parametrize("type", ["s16", "s32", "s64"])
def test_abs_and_neg(type):
    check(f"abs.{type} %d, %a;", {"%a": type}, {"%d": type}, abs)
    check(f"neg.{type} %d, %a;", {"%a": register(type)}, {"%d": register(type)}, lambda a: -a)


# -- carries ---------------------------------------------------------------------------------------

WORDS = ["u32", "s32", "u64", "s64"]


def carry_check(text: str, type: str, reference, sources: str = "ab") -> None:
    """The reference takes unsigned numbers and gives the exact result, which tells the flag.

    The flag is a carry; of a subtraction, that of adding the complement: no borrow.
    """
    w = width_of(type)
    names = {f"%{name}": f"u{w}" for name in sources}
    given = {**names, "%cc": "pred"}

    def both(*values: int) -> tuple[int, bool]:
        exact = reference(*values)
        return exact, (exact >= 0) if text.startswith("sub") else exact >= 1 << w

    check(text, given, {"%d": register(type), "%cc": "pred"} if ".cc." in text
          else {"%d": register(type)},
          both if ".cc." in text else lambda *values: reference(*values))


@pytest.mark.parametrize("type", WORDS)
def test_carry_and_borrow(type):
    carry_check(f"add.cc.{type} %d, %a, %b;", type, lambda a, b, c: a + b)
    carry_check(f"addc.cc.{type} %d, %a, %b;", type, lambda a, b, c: a + b + c)
    carry_check(f"addc.{type} %d, %a, %b;", type, lambda a, b, c: a + b + c)
    carry_check(f"sub.cc.{type} %d, %a, %b;", type, lambda a, b, c: a - b)
    carry_check(f"subc.cc.{type} %d, %a, %b;", type, lambda a, b, c: a - b - 1 + c)
    carry_check(f"subc.{type} %d, %a, %b;", type, lambda a, b, c: a - b - 1 + c)


@pytest.mark.parametrize("type", WORDS)
@pytest.mark.parametrize("opcode", ["mad", "madc"])
def test_products_with_carry(type, opcode):
    w = width_of(type)
    carries = opcode == "madc"

    def part(a: int, b: int, half: str) -> int:
        if half == "lo":
            return bits(a * b, w)
        return bits(of_type(a, type) * of_type(b, type) >> w, w)

    for half in ("lo", "hi"):
        for cc in (".cc", "") if carries else (".cc",):
            carry_check(f"{opcode}.{half}{cc}.{type} %d, %a, %b, %c;", type,
                        lambda a, b, c, flag, half=half: part(a, b, half) + c + carries * flag,
                        "abc")


def test_flag_between_addition_and_subtraction():
    """As an H200 has it: 3 - 1 borrows nothing, and sets the flag."""
    registers = {f"%{name}": "b32" for name in "abdef"}
    got = run_line("sub.cc.u32 %d, %a, %b; addc.u32 %e, 0, 0; add.cc.u32 %d, %a, %b;"
                   "subc.u32 %f, 10, 1;", registers, {"%a": [3, 1], "%b": [1, 0xFFFFFFFF]})
    assert got["%e"].tolist() == [[1, 0]]
    assert got["%f"].tolist() == [[8, 9]]


def test_128_bits():
    """A chain of carries, as big-number code has it: the flag stays between instructions."""
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 1 << 32, (4, 500), np.uint32) for _ in range(2))
    b[:, :250] = ~a[:, :250]  # long carries
    b[0, :125] += 1
    lines = {"add": ["add.cc", "addc.cc", "addc.cc", "addc"],
             "sub": ["sub.cc", "subc.cc", "subc.cc", "subc"]}
    registers = {f"%{name}{k}": "b32" for name in "abd" for k in range(4)}
    given = {f"%{name}{k}": array[k] for name, array in (("a", a), ("b", b)) for k in range(4)}

    def number(words) -> list[int]:
        return [sum(int(words[k][i]) << 32 * k for k in range(4)) for i in range(500)]

    for sign, opcodes in lines.items():
        text = "".join(f"{op}.u32 %d{k}, %a{k}, %b{k};" for k, op in enumerate(opcodes))
        got = run_line(text, registers, given)
        have = number([got[f"%d{k}"][0] for k in range(4)])
        factor = 1 if sign == "add" else -1
        for x, y, z in zip(number(a), number(b), have, strict=True):
            assert z == bits(x + factor * y, 128)


def test_guarded_carry():
    registers = {"%a": "b32", "%d": "b32", "%p": "pred", "%cc": "pred"}
    given = {"%a": [0xFFFFFFFF] * 2, "%d": [5, 5], "%p": [True, False], "%cc": [False, False]}
    got = run_line("@%p add.cc.u32 %d, %a, %a; @%p addc.u32 %d, %d, 0;", registers, given)
    assert got["%d"].tolist() == [[0xFFFFFFFF, 5]]
    assert got["%cc"].tolist() == [[True, False]]


# -- refusals --------------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    "add.sat.u32 %a, %b, %c", "add.s32 %a, %b", "add.s32 %a, %b, %c, %d", "add.foo.s32 %a, %b, %c",
    "add %a, %b, %c", "mul.s32 %a, %b, %c", "mul.lo.hi.s32 %a, %b, %c", "mul.wide.u64 %e, %e, %e",
    "mad.lo.sat.s32 %a, %b, %c, %d", "madc.wide.u32 %e, %a, %b, %e", "min.relu.u32 %a, %b, %c",
    "mul24.lo.s32 %a, %b, %c, %d", "mad24.lo.s32 %a, %b, %c", "mad24.lo.sat.s32 %a, %b, %c, %d",
    "dp4a.s32 %a, %b, %c, %d", "dp2a.s32.s32 %a, %b, %c, %d", "div %a, %b, %c", "abs.u32 %a, %b",
    "add.s32 5, %b, %c", "add.s32 %a, {%b, %c}, %d", "add.s64 %e, %a, %b", "sad %a, %b, %c, %d",
    "add.sat.cc.s32 %a, %b, %c", "sub.u16x2 %a, %b, %c", "addc.u16 %a, %b, %c", "neg.s32 %a, [%e]",
])
def test_malformed(text):
    registers = {f"%{name}": "b32" for name in "abcd"} | {"%e": "b64"}
    with pytest.raises((PtxError, UnsupportedError), match=r"test\.cu:1|PTX line"):
        run_line(text, registers, {name: [1] for name in registers})
