"""Floating-point instructions against exact rationals, and approximations against their bounds."""

from __future__ import annotations

import itertools
import operator
from fractions import Fraction
from math import copysign, inf, isnan, nan

import mpmath
import numpy as np
import pytest
from sim import exact
from sim.straight import run_line

from mlgpu.sim.errors import PtxError, UnsupportedError
from mlgpu.sim.numeric import approx, double

F16, BF16, F32, F64 = (exact.FORMATS[name] for name in ("f16", "bf16", "f32", "f64"))
MODES = ("rn", "rz", "rm", "rp")
REGISTER = {"f16": "b16", "bf16": "b16", "f32": "f32", "f64": "f64"}


def run(op: str, type: str, *operands: np.ndarray, result: str | None = None) -> np.ndarray:
    """The bits of the result of an instruction on operands given as bits, one thread each."""
    inputs = {f"%x{k}": x for k, x in enumerate(operands)}
    registers = {name: f"b{8 * x.itemsize}" for name, x in inputs.items()}
    registers["%d"] = result or REGISTER[type]
    out = run_line(f"{op} %d, {', '.join(inputs)}", registers, inputs)["%d"]
    return out.view(f"u{out.itemsize}")[0] if out.dtype.kind != "b" else out[0]


def floats(f: exact.Format, bits: np.ndarray) -> list[float]:
    return [f.decode(int(b)) for b in bits]


def same(f: exact.Format, got: np.ndarray, want: list[int], *operands: np.ndarray,
         canonical: bool = True) -> None:
    """All bits equal; with `canonical` off, any NaN is as good as another."""
    got, want = got.astype(np.uint64), np.array(want, np.uint64)
    wrong = got != want
    if not canonical:
        size = got & np.uint64(f.sign - 1)
        wrong &= ~((size > np.uint64(f.infinity)) & (want == np.uint64(f.nan)))
    for k in np.flatnonzero(wrong)[:1]:
        at = [f.decode(int(x[k])).hex() for x in operands]
        raise AssertionError(f"{wrong.sum()} of {got.size}: {at} -> {f.decode(int(got[k])).hex()} "
                             f"({int(got[k]):#x}), not {int(want[k]):#x}")


# -- arithmetic -----------------------------------------------------------------------------------

EXACT = {"add": (exact.add, 2), "sub": (lambda x, y, mode: exact.add(x, -y, mode), 2),
         "mul": (exact.mul, 2), "fma": (exact.fma, 3), "mad": (exact.fma, 3),
         "div": (exact.div, 2), "sqrt": (exact.sqrt, 1),
         "rcp": (lambda x, mode: exact.div(1.0, x, mode), 1)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("type", ["f32", "f64"])
@pytest.mark.parametrize("op", list(EXACT))
def test_rounds_once_by_every_mode(op, type, mode):
    f, (reference, count) = exact.FORMATS[type], EXACT[op]
    operands = exact.operand_bits(f, max(count, 2), 800, seed=len(op) + count)[:count]
    got = run(f"{op}.{mode}.{type}", type, *operands)
    want = [f.encode(reference(*values, mode), mode)
            for values in zip(*(floats(f, x) for x in operands), strict=True)]
    same(f, got, want, *operands, canonical=False)


def test_fma_of_ties_and_of_what_is_left_of_cancelled_products():
    rng = np.random.default_rng(3)
    a, b = (rng.integers(1, 1 << 24, 3000).astype(np.float32) for _ in range(2))
    product = a.astype(np.float64) * b
    near = product.astype(np.float32)
    tie = np.ldexp(np.float32(1), np.frexp(near)[1] - 25).astype(np.float32)
    for c in (-near, -near * np.float32(1 + 2.0 ** -22), near * np.float32(2.0 ** 26) + near,
              tie, -tie, tie * np.float32(2.0 ** -70), near * np.float32(2.0 ** -60)):
        bits = [x.view(np.uint32) for x in (a, b, c)]
        got = run("fma.rn.f32", "f32", *bits)
        want = [F32.encode(exact.fma(float(x), float(y), float(z), "rn"))
                for x, y, z in zip(a, b, c, strict=True)]
        same(F32, got, want, *bits)


def test_fma_with_subnormal_results_is_rounded_once():
    rng = np.random.default_rng(4)
    a = np.ldexp(rng.integers(1 << 23, 1 << 24, 4000), -23).astype(np.float32)
    b = np.ldexp(rng.integers(1 << 23, 1 << 24, 4000), rng.integers(-175, -145, 4000))
    b = b.astype(np.float32)
    c = np.ldexp(rng.integers(0, 1 << 6, 4000), -149).astype(np.float32)
    bits = [x.view(np.uint32) for x in (a, b, c)]
    want = [F32.encode(exact.fma(float(x), float(y), float(z), "rn"))
            for x, y, z in zip(a, b, c, strict=True)]
    same(F32, run("fma.rn.f32", "f32", *bits), want, *bits)


@pytest.mark.parametrize("type", ["f32", "f16", "bf16"])
def test_fma_next_to_a_tie_between_subnormals(type):
    # (1 + e) (1 - e) is just below one: the product is just below half of the least subnormal, and
    # a sum in fewer bits than it takes lies on the tie
    f = exact.FORMATS[type]
    least = 2 - f.bias - f.precision  # the exponent of the least subnormal
    e = 2.0 ** (1 - f.precision)
    rng = np.random.default_rng(27)
    c = (rng.integers(1, 1 << (f.precision - 1), 500) | 1) * 2.0 ** least
    c[::2] *= -1
    a = np.full(500, (1 + e) * 2.0 ** ((least - 1) // 2))
    b = np.full(500, (1 - e) * 2.0 ** (least - 1 - (least - 1) // 2))
    b[::3] *= -1
    values = list(zip(a.tolist(), b.tolist(), c.tolist(), strict=True))
    operands = [np.array([f.encode(x) for x in column], f"u{(f.sign << 1).bit_length() // 8}")
                for column in zip(*values, strict=True)]
    want = [f.encode(exact.fma(*v, "rn")) for v in values]
    same(f, run(f"fma.rn.{type}", type, *operands), want, *operands)
    # the tie itself, which the sum would have been rounded to, goes elsewhere
    ties = [f.encode(Fraction(x) + (1 if y > 0 else -1) * Fraction(2) ** (least - 1))
            for (_, y, x) in values]
    assert sum(t != w for t, w in zip(ties, want, strict=True)) > 100


@pytest.mark.parametrize("mode", MODES)
def test_double_fma_of_ties_cancellation_and_tiny_products(mode):
    rng = np.random.default_rng(5)
    a, b = (rng.integers(-(1 << 53), 1 << 53, 500) * 2.0 ** rng.integers(-30, 30, 500)
            for _ in range(2))
    product = a * b
    cases = [-product, product * 2.0 ** -54, np.spacing(product) / 2, -np.spacing(product) / 4,
             product * 2.0 ** 53 * (1 + 2.0 ** -52), -product * (1 + 2.0 ** -51)]
    parts = [(a, b, c) for c in cases] + [(a * 2.0 ** -530, b * 2.0 ** -530, c * 2.0 ** -1060)
                                          for c in cases]
    x, y, z = (np.concatenate(column) for column in zip(*parts, strict=True))
    bits = [v.view(np.uint64) for v in (x, y, z)]
    want = [F64.encode(exact.fma(*values, mode), mode)
            for values in zip(x.tolist(), y.tolist(), z.tolist(), strict=True)]
    same(F64, run(f"fma.{mode}.f64", "f64", *bits), want, *bits, canonical=False)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma", "div", "rcp", "sqrt"])
def test_ftz_flushes_operands_and_results(op):
    reference, count = EXACT[op]
    operands = exact.operand_bits(F32, max(count, 2), 500, seed=9)[:count]
    for mode in ("rn", "rz"):
        want = []
        for values in zip(*(floats(F32, x) for x in operands), strict=True):
            bits = F32.encode(reference(*(exact.flushed(x, F32) for x in values), mode), mode)
            want.append(F32.encode(exact.flushed(F32.decode(bits), F32)))
        got = run(f"{op}.{mode}.ftz.f32", "f32", *operands)
        same(F32, got, want, *operands, canonical=False)


def test_ftz_flushes_what_an_earlier_instruction_left():
    registers = {"%a": "f32", "%b": "f32", "%d": "f32"}
    tiny = np.float32([1e-39, 2.0 ** -126])
    # the product of the first line is subnormal, and not flushed; the second line must see zero
    out = run_line("mul.f32 %b, %a, 0f3F000000; add.ftz.f32 %d, %b, 0f00000000; mul.f32 %b, %b, "
                   "0f7F000000", registers, {"%a": tiny})
    assert out["%d"].tolist() == [[0.0, 0.0]]
    assert (out["%b"] > 0).all()
    # a result already flushed is used as it is, also after a move under a predicate
    registers["%p"] = "pred"
    out = run_line("add.ftz.f32 %b, %a, %a; @%p add.f32 %b, %a, 0f00000000; add.ftz.f32 %d, %b, "
                   "0f00000000", registers, {"%a": tiny, "%p": [True, False]})
    assert out["%d"].tolist() == [[0.0, 2.0 ** -125]]


@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma"])
def test_sat_holds_results_between_zero_and_one(op):
    reference, count = EXACT[op]
    operands = exact.operand_bits(F32, count, 500, seed=10)
    want = [saturated(F32, reference(*values, "rm"), "rm")
            for values in zip(*(floats(F32, x) for x in operands), strict=True)]
    same(F32, run(f"{op}.rm.sat.f32", "f32", *operands), want, *operands)


def saturated(f: exact.Format, value: float | Fraction, mode: str) -> int:
    value = f.decode(f.encode(value, mode))
    return f.encode(0.0 if isnan(value) or value <= 0 else min(value, 1.0))


# -- half precision -------------------------------------------------------------------------------

def both_halves(*operands: np.ndarray) -> list[np.ndarray]:
    """Words with the operands in the lower halves, and in reverse order in the upper ones."""
    return [x.astype(np.uint32) | x[::-1].astype(np.uint32) << 16 for x in operands]


@pytest.mark.parametrize("type", ["f16", "bf16"])
@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma"])
def test_half_arithmetic_rounds_once(op, type):
    f, (reference, count) = exact.FORMATS[type], EXACT[op]
    operands = exact.operand_bits(f, count, 3000, seed=count)
    want = [f.encode(reference(*values, "rn"))
            for values in zip(*(floats(f, x) for x in operands), strict=True)]
    same(f, run(f"{op}.rn.{type}", type, *operands), want, *operands)
    words = run(f"{op}.rn.{type}x2", type, *both_halves(*operands), result="b32")
    same(f, words & 0xffff, want, *operands)
    same(f, words >> 16, want[::-1], *operands)


@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_half_fma_of_ties_decided_by_the_smallest_bits(type):
    f = exact.FORMATS[type]
    rng = np.random.default_rng(6)
    unit = 1 << (f.precision - 1)
    one = f.bias << (f.precision - 1)
    a, b = (one + rng.integers(0, 2 * unit, 4000) for _ in range(2))
    c = rng.integers(0, f.infinity, 4000) | rng.integers(0, 2, 4000) * f.sign
    operands = [x.astype(np.uint16) for x in (a, b, c)]
    want = [f.encode(exact.fma(*values, "rn"))
            for values in zip(*(floats(f, x) for x in operands), strict=True)]
    same(f, run(f"fma.rn.{type}", type, *operands), want, *operands)


def test_half_modifiers():
    operands = exact.operand_bits(F16, 3, 1000, seed=11)
    values = list(zip(*(floats(F16, x) for x in operands), strict=True))
    want = [saturated(F16, exact.fma(*v, "rn"), "rn") for v in values]
    same(F16, run("fma.rn.sat.f16", "f16", *operands), want, *operands)
    want = []
    for v in values:
        exactly = exact.fma(*v, "rn")
        want.append(F16.encode(exactly) if isnan(exactly) or exactly > 0 else 0)
    same(F16, run("fma.rn.relu.f16", "f16", *operands), want, *operands)
    want = []
    for v in values:
        result = exact.fma(*(exact.flushed(x, F16) for x in v), "rn")
        # flushed unless rounded to 11 bits it is normal
        tiny = abs(result) < (1 - 2.0 ** -12) * 2.0 ** -14
        want.append(F16.encode(copysign(0.0, result) if tiny else result))
    same(F16, run("fma.rn.ftz.f16", "f16", *operands), want, *operands)
    same(F16, run("fma.rn.ftz.f16x2", "f16", *both_halves(*operands), result="b32") >> 16,
         want[::-1], *operands)
    want = [F16.encode(exact.flushed(exact.flushed(v[0], F16) * 1.0, F16)) for v in values]
    same(F16, run("abs.ftz.f16", "f16", operands[0]), [w & 0x7fff for w in want], operands[0],
         canonical=False)


def test_what_half_flushes_is_decided_by_rounding_to_eleven_bits():
    # operands and results of an H200
    smallest, below_one, above_one = 0x0400, 0x3bff, 0x3c01
    x, y = np.array([[smallest, 0x8400, smallest], [below_one, below_one, above_one]], np.uint16)
    assert run("mul.ftz.f16", "f16", x, y).tolist() == [0, 0x8000, 0x0401]
    assert run("mul.f16", "f16", x, y).tolist() == [smallest, 0x8400, 0x0401]
    # 2^-14 (1 - 2^-14) has too many bits to stay below 2^-14
    a, b, c = (np.array([code], np.uint16) for code in (0x8400, 0x0400, smallest))
    assert run("fma.rn.ftz.f16", "f16", a, b, c).tolist() == [smallest]


@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_mixed_precision_adds_and_multiplies_in_float32(type):
    f = exact.FORMATS[type]
    narrow = exact.operand_bits(f, 2, 500, seed=12)
    wide = exact.operand_bits(F32, 2, narrow.shape[1], seed=13)[0][:narrow.shape[1]]
    columns = [floats(f, narrow[0]), floats(f, narrow[1]), floats(F32, wide)]
    for mode in MODES:
        want = [F32.encode(exact.fma(*v, mode), mode) for v in zip(*columns, strict=True)]
        got = run(f"fma.{mode}.f32.{type}", "f32", *narrow, wide)
        same(F32, got, want, wide, canonical=False)
        want = [F32.encode(exact.add(x, -y, mode), mode)
                for x, y in zip(columns[0], columns[2], strict=True)]
        same(F32, run(f"sub.{mode}.f32.{type}", "f32", narrow[0], wide), want, wide,
             canonical=False)


@pytest.mark.parametrize("op", ["add", "sub", "mul", "fma"])
def test_pairs_of_float32(op):
    reference, count = EXACT[op]
    operands = exact.operand_bits(F32, count, 500, seed=14)
    words = [x.astype(np.uint64) | x[::-1].astype(np.uint64) << np.uint64(32) for x in operands]
    for mode, ftz in (("rn", ""), ("rp", ""), ("rz", ".ftz")):
        want = []
        for values in zip(*(floats(F32, x) for x in operands), strict=True):
            if ftz:
                values = [exact.flushed(x, F32) for x in values]
            bits = F32.encode(reference(*values, mode), mode)
            want.append(F32.encode(exact.flushed(F32.decode(bits), F32)) if ftz else bits)
        got = run(f"{op}.{mode}{ftz}.f32x2", "f32", *words, result="b64")
        same(F32, got & np.uint64(0xffffffff), want, *operands, canonical=False)
        same(F32, got >> np.uint64(32), want[::-1], *operands, canonical=False)


# -- shapes ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("line", [
    "add.f32 %d, %a, %b", "fma.rn.f32 %d, %a, %b, %c", "fma.rn.f32 %d, %c, %a, %b",
    "fma.rm.f32 %d, %a, %b, %c", "max.f32 %d, %a, %b", "div.full.f32 %d, %a, %b",
    "fma.rn.ftz.sat.f32 %d, %b, %a, %c"])
def test_what_blocks_or_threads_share_is_broadcast(line):
    rng = np.random.default_rng(7)
    few = rng.integers(-8, 8, (3, 16)).astype(np.float32) / 8  # many sums are ties or cancel
    full = {"%a": np.broadcast_to(few[:, :1], (3, 16)), "%b": np.broadcast_to(few[:1], (3, 16)),
            "%c": np.broadcast_to(few[1, 1] * np.float32(2.0 ** 24), (3, 16))}
    small = {"%a": few[:, :1], "%b": few[:1], "%c": np.full((1, 1), few[1, 1] * 2.0 ** 24, "f4")}
    registers = dict.fromkeys(("%a", "%b", "%c", "%d"), "f32")
    want = run_line(line, registers, {k: np.ascontiguousarray(v) for k, v in full.items()})["%d"]
    assert np.array_equal(run_line(line, registers, small)["%d"], want)


def test_packed_operands_may_be_shared():
    words = np.arange(8, dtype=np.uint32) * 0x3c01 + 0x3c003c00
    registers = {"%a": "b32", "%b": "b32", "%d": "b32"}
    for line in ("fma.rn.f16x2 %d, %a, %b, %a", "min.bf16x2 %d, %a, %b"):
        want = run_line(line, registers, {"%a": words, "%b": np.full(8, words[3])})["%d"]
        got = run_line(line, registers, {"%a": words, "%b": words[3:4].reshape(1, 1)})["%d"]
        assert np.array_equal(got, want)


# -- extrema, signs -------------------------------------------------------------------------------

def extremum(op: str, values: tuple[float, ...], mods: str) -> float:
    """The manual's min_num and min_nan, one operand after another."""
    signs = [copysign(1, v) for v in values]
    if "abs" in mods:
        values = tuple(abs(v) for v in values)
    result = values[0]
    for v in values[1:]:
        if isnan(result) or isnan(v):
            result = nan if "NaN" in mods or (isnan(result) and isnan(v)) else (
                v if isnan(result) else result)
        elif result == v == 0:
            signs_of_zero = {copysign(1, result), copysign(1, v)}
            result = copysign(0.0, min(signs_of_zero) if op == "min" else max(signs_of_zero))
        else:
            result = min(result, v) if op == "min" else max(result, v)
    if "xorsign" in mods and not isnan(result):
        result = copysign(result, signs[0] * signs[1])
    return result


@pytest.mark.parametrize("op", ["min", "max"])
@pytest.mark.parametrize("type", ["f32", "f64", "f16", "bf16"])
def test_extrema(op, type):
    f = exact.FORMATS[type]
    operands = exact.operand_bits(f, 2, 1000, seed=15)
    columns = [floats(f, x) for x in operands]
    for mods in [""] if type == "f64" else ["", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"]:
        want = [f.encode(extremum(op, v, mods)) for v in zip(*columns, strict=True)]
        same(f, run(f"{op}{mods}.{type}", type, *operands), want, *operands)
        if f.exponent + f.precision == 16:
            words = run(f"{op}{mods}.{type}x2", type, *both_halves(*operands), result="b32")
            same(f, words & 0xffff, want, *operands)
            same(f, words >> 16, want[::-1], *operands)
    if type in ("f32", "f16"):
        columns = [[exact.flushed(x, f) for x in column] for column in columns]
        want = [f.encode(extremum(op, v, "")) for v in zip(*columns, strict=True)]
        same(f, run(f"{op}.ftz.{type}", type, *operands), want, *operands)


@pytest.mark.parametrize("mods", ["", ".NaN", ".abs", ".NaN.abs"])
def test_extrema_of_three(mods):
    operands = exact.operand_bits(F32, 3, 1000, seed=16)
    columns = [floats(F32, x) for x in operands]
    for op in ("min", "max"):
        want = [F32.encode(extremum(op, v, mods)) for v in zip(*columns, strict=True)]
        same(F32, run(f"{op}{mods}.f32", "f32", *operands), want, *operands)


def test_extrema_of_signalling_nans_are_nan():
    x = np.array([0x7f800001, 0xff800004], np.uint32)
    y = np.array([0x7f800002, 0x7f800008], np.uint32)
    for op in ("min", "max", "min.NaN", "max.NaN"):
        assert run(f"{op}.f32", "f32", x, y).tolist() == [0x7fffffff] * 2


def test_extrema_with_a_constant_zero():
    x = np.array([-0.0, 0.0, nan, -1.0, 2.0], np.float32)
    registers = {"%a": "f32", "%d": "f32"}
    got = run_line("max.f32 %d, %a, 0f00000000", registers, {"%a": x})["%d"]
    assert np.signbit(got).tolist() == [[False] * 5]
    assert got.tolist() == [[0, 0, 0, 0, 2]]
    got = run_line("min.f32 %d, 0f80000000, %a", registers, {"%a": x})["%d"]
    assert np.signbit(got).tolist() == [[True] * 5]
    assert got.tolist() == [[0, 0, 0, -1, 0]]


@pytest.mark.parametrize("type", ["f32", "f64", "f16", "bf16"])
def test_signs_are_bits(type):
    f = exact.FORMATS[type]
    bits = exact.operand_bits(f, 2, 50, 17)[0]
    mask = bits.dtype.type(f.sign)
    assert np.array_equal(run(f"neg.{type}", type, bits), bits ^ mask)
    assert np.array_equal(run(f"abs.{type}", type, bits), bits & ~mask)
    if f.precision < 24:
        words = both_halves(bits)[0]
        assert np.array_equal(run(f"neg.{type}x2", type, words, result="b32"), words ^ 0x80008000)
        assert np.array_equal(run(f"abs.{type}x2", type, words, result="b32"), words & 0x7fff7fff)
    else:
        other = np.roll(bits, 7)
        assert np.array_equal(run(f"copysign.{type}", type, other, bits),
                              bits & ~mask | other & mask)
    if type == "f32":
        want = [F32.encode(-exact.flushed(x, F32)) for x in floats(F32, bits)]
        same(F32, run("neg.ftz.f32", "f32", bits), want, bits, canonical=False)


# -- comparisons and selection --------------------------------------------------------------------

ORDERED = {"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le,
           "gt": operator.gt, "ge": operator.ge}


def compared(test: str, x: float, y: float) -> bool:
    either = isnan(x) or isnan(y)
    if test in ("num", "nan"):
        return either == (test == "nan")
    if test in ORDERED:
        return not either and ORDERED[test](x, y)
    return either or ORDERED[test[:-1]](x, y)


TESTS = [*ORDERED, *(f"{test}u" for test in ORDERED), "num", "nan"]


@pytest.mark.parametrize("type", ["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("test", TESTS)
def test_comparisons(test, type):
    f = exact.FORMATS[type]
    operands = exact.operand_bits(f, 2, 300, seed=18)
    want = np.array([compared(test, x, y) for x, y in zip(*(floats(f, v) for v in operands),
                                                          strict=True)])
    registers = {"%a": REGISTER[type], "%b": REGISTER[type], "%p": "pred", "%q": "pred",
                 "%c": "pred", "%d": "b32", "%h": "b16"}
    third = np.arange(want.size) % 3 == 0
    inputs = {"%a": operands[0], "%b": operands[1], "%c": third}
    out = run_line(f"setp.{test}.{type} %p|%q, %a, %b", registers, inputs)
    assert np.array_equal(out["%p"][0], want)
    assert np.array_equal(out["%q"][0], ~want)
    for boolean, combine in (("and", np.logical_and), ("or", np.logical_or),
                             ("xor", np.logical_xor)):
        out = run_line(f"setp.{test}.{boolean}.{type} %p|%q, %a, %b, !%c", registers, inputs)
        assert np.array_equal(out["%p"][0], combine(want, ~third))
        assert np.array_equal(out["%q"][0], combine(~want, ~third))
        out = run_line(f"set.{test}.{boolean}.u32.{type} %d, %a, %b, %c", registers, inputs)
        assert np.array_equal(out["%d"][0], np.where(combine(want, third), 0xffffffff, 0))
    for result, true in (("s32", 0xffffffff), ("f32", 0x3f800000)):
        out = run_line(f"set.{test}.{result}.{type} %d, %a, %b", registers, inputs)
        assert np.array_equal(out["%d"][0], np.where(want, true, 0))
    for result, true in (("u16", 0xffff), ("f16", 0x3c00), ("bf16", 0x3f80)):
        out = run_line(f"set.{test}.{result}.{type} %h, %a, %b", registers, inputs)
        assert np.array_equal(out["%h"][0], np.where(want, true, 0))
    if f.precision < 24:
        inputs["%a"], inputs["%b"] = both_halves(*operands)
        registers["%a"] = registers["%b"] = "b32"
        out = run_line(f"setp.{test}.or.{type}x2 %p|%q, %a, %b, %c", registers, inputs)
        assert np.array_equal(out["%p"][0], want | third)
        assert np.array_equal(out["%q"][0], want[::-1] | third)
        high = want[::-1] & third
        for result, true in ((f"{type}x2", 0x3c00 if type == "f16" else 0x3f80), ("u32", 0xffff)):
            out = run_line(f"set.{test}.and.{result}.{type}x2 %d, %a, %b, %c", registers, inputs)
            assert np.array_equal(out["%d"][0], (want & third) * true | (high * true) << 16)


def test_comparison_of_a_register_with_itself_and_ftz():
    registers = {"%a": "f32", "%b": "f32", "%p": "pred"}
    x = np.array([nan, 1.0, inf, 1e-40, -1e-40], np.float32)
    out = run_line("setp.nan.f32 %p, %a, %a", registers, {"%a": x})
    assert out["%p"].tolist() == [[True, False, False, False, False]]
    out = run_line("setp.eq.ftz.f32 %p, %a, 0f00000000", registers, {"%a": x})
    assert out["%p"].tolist() == [[False, False, False, True, True]]


@pytest.mark.parametrize("type", ["f32", "f64"])
def test_kinds_of_numbers(type):
    f = exact.FORMATS[type]
    bits = exact.operand_bits(f, 2, 200, seed=19)[0]
    size = bits & bits.dtype.type(f.sign - 1)
    infinity, normal = (bits.dtype.type(v) for v in (f.infinity, 1 << (f.precision - 1)))
    want = {"finite": size < infinity, "infinite": size == infinity, "number": size <= infinity,
            "notanumber": size > infinity, "subnormal": (size > 0) & (size < normal),
            "normal": ((size >= normal) & (size < infinity)) | (size == 0)}
    for kind, expected in want.items():
        got = run(f"testp.{kind}.{type}", type, bits, result="pred")
        assert np.array_equal(got, expected), kind


def test_selection():
    x = np.array([1.0, -0.0, nan, -1e-40, -2.0], np.float32)
    registers = {"%a": "f32", "%b": "f32", "%c": "f32", "%d": "f32", "%p": "pred", "%l": "b64"}
    out = run_line("selp.f32 %d, %a, 0f40000000, %p", registers,
                   {"%a": x, "%p": [True, False, True, True, False]})
    assert np.array_equal(out["%d"], np.float32([[1, 2, nan, -1e-40, 2]]), equal_nan=True)
    out = run_line("slct.f32.f32 %d, 0f3F800000, 0f40000000, %c", registers, {"%c": x})
    assert out["%d"].tolist() == [[1, 1, 2, 2, 2]]
    out = run_line("slct.ftz.u64.f32 %l, 5, 6, %c", registers, {"%c": x})
    assert out["%l"].tolist() == [[5, 5, 6, 5, 6]]


# -- approximations -------------------------------------------------------------------------------

def points(low: float, high: float, seed: int = 20) -> np.ndarray:
    """float32 numbers of every size between two positive ones."""
    rng = np.random.default_rng(seed)
    first, last = (int(np.float32(v).view(np.uint32)) for v in (low, high))
    return rng.integers(first, last, 3000, np.uint32, endpoint=True).view(np.float32)


def truth(function, x: np.ndarray) -> list[mpmath.mpf]:
    with mpmath.workprec(200):
        return [function(mpmath.mpf(float(v))) for v in x]


def relative(got: np.ndarray, want: list[mpmath.mpf]) -> float:
    return max(float(abs(mpmath.mpf(float(g)) / w - 1)) for g, w in zip(got, want, strict=True))


def absolute(got: np.ndarray, want: list[mpmath.mpf]) -> float:
    return max(float(abs(mpmath.mpf(float(g)) - w)) for g, w in zip(got, want, strict=True))


def ulps(got: np.ndarray, want: list[mpmath.mpf]) -> float:
    """Units in the last place of float32 between the results and the correctly rounded ones."""
    nearest = np.array([float(w) for w in want]).astype(np.float32)
    bits = [v.view(np.int32).astype(np.int64) for v in (got, nearest)]
    return int(np.abs(bits[0] - bits[1]).max())


def approximate(op: str, x: np.ndarray, *more: np.ndarray) -> np.ndarray:
    return run(op, "f32", *(v.view(np.uint32) for v in (x, *more))).view(np.float32)


TINIEST, SMALLEST, GREATEST = 1e-45, 2.0 ** -126, 3.4028234e38


def test_ex2_within_two_ulp_and_not_exact():
    x = np.random.default_rng(26).uniform(-150, 128, 4000).astype(np.float32)
    x = np.concatenate([x, points(1e-30, 1), -points(1e-30, 1)])
    want = truth(lambda v: mpmath.power(2, v), x)
    for op in ("ex2.approx.f32", "ex2.approx.ftz.f32"):
        keep = x > (-149 if op == "ex2.approx.f32" else -126)
        got = approximate(op, x)
        kept = [w for w, k in zip(want, keep, strict=True) if k]
        assert ulps(got[keep], kept) <= 2
        nearest = np.array([float(w) for w in kept]).astype(np.float32)
        assert 0.01 < (got[keep] != nearest).mean() < 0.5
    assert (got[x < -126] == 0).all()
    whole = np.arange(-160, 135).astype(np.float32)
    with np.errstate(over="ignore"):
        powers = np.ldexp(np.float32(1), np.arange(-160, 135))
    assert np.array_equal(approximate("ex2.approx.f32", whole), powers)
    flushed = np.where(whole < -126, 0, powers)
    assert np.array_equal(approximate("ex2.approx.ftz.f32", whole), flushed)


@pytest.mark.parametrize(("op", "function", "bound", "high"), [
    ("rcp", lambda v: 1 / v, 2.0 ** -23, 2.0 ** 126),
    ("sqrt", mpmath.sqrt, 2.0 ** -23, GREATEST),
    ("rsqrt", lambda v: 1 / mpmath.sqrt(v), 2.0 ** -22.9, GREATEST)])
def test_roots_within_their_bounds_and_not_exact(op, function, bound, high):
    x = points(SMALLEST, high)
    want = truth(function, x)
    got = approximate(f"{op}.approx.f32", x)
    assert relative(got, want) <= bound
    assert np.array_equal(approximate(f"{op}.approx.ftz.f32", x), got)
    nearest = np.array([float(w) for w in want]).astype(np.float32)
    assert 0.3 < (got != nearest).mean() < 0.7
    exactly = np.ldexp(np.float32(1), np.arange(-124, 126, 1 if op == "rcp" else 2))
    assert np.array_equal(approximate(f"{op}.approx.f32", exactly).astype(np.float64),
                          [float(v) for v in truth(function, exactly)])
    tiny = points(TINIEST, SMALLEST)
    if op != "rcp":
        assert relative(approximate(f"{op}.approx.f32", tiny), truth(function, tiny)) <= bound
    assert (approximate(f"{op}.approx.ftz.f32", tiny) == (0 if op == "sqrt" else inf)).all()
    large = points(2.0 ** 126, GREATEST)
    if op == "rcp":
        assert (approximate("rcp.approx.f32", tiny[tiny < 2.0 ** -129]) == inf).all()
        assert ulps(approximate("rcp.approx.f32", large), truth(function, large)) <= 1
        assert (approximate("rcp.approx.ftz.f32", large[large > 2.0 ** 126]) == 0).all()


def test_lg2_within_its_bounds_and_not_exact():
    x = points(0.5, 2)
    got, want = approximate("lg2.approx.f32", x), truth(lambda v: mpmath.log(v, 2), x)
    assert absolute(got, want) <= 2.0 ** -22
    nearest = np.array([float(w) for w in want]).astype(np.float32)
    assert 0.3 < (got != nearest).mean() < 0.95
    # next to one an H200 is far off, too: -1.2e-8, 2.79e-7
    x = np.array([1 - 2.0 ** -24, 1 + 2.0 ** -23], np.float32)
    assert approximate("lg2.approx.f32", x).tolist() == [0.0, 2.0 ** -22]
    x = np.concatenate([points(TINIEST, 0.5), points(2, GREATEST)])
    want = truth(lambda v: mpmath.log(v, 2), x)
    assert relative(approximate("lg2.approx.f32", x), want) <= 2.0 ** -22
    powers = np.ldexp(np.float32(1), np.arange(-149, 128))
    assert np.array_equal(approximate("lg2.approx.f32", powers), np.arange(-149, 128))
    assert np.isneginf(approximate("lg2.approx.ftz.f32", powers[:23])).all()


@pytest.mark.parametrize(("op", "function"), [("sin", mpmath.sin), ("cos", mpmath.cos)])
def test_sines_are_good_near_zero_and_bad_far_away(op, function):
    for limit, bound in ((6.2831855, 2.0 ** -20.5), (314.15927, 2.0 ** -14.7)):
        x = np.concatenate([points(1e-3, limit), -points(1e-3, limit)])
        assert absolute(approximate(f"{op}.approx.f32", x), truth(function, x)) <= bound
    # angles of rotary embeddings at large positions: a GPU's error is thousands of ulp
    far = np.arange(1e5, 1e5 + 200, dtype=np.float32)
    error = absolute(approximate(f"{op}.approx.f32", far), truth(function, far))
    assert 1e-3 < error < 2e-2


# An angle and the turns, cut to 2^-25, that an H200 makes of it: its results are within 2^-22 of
# the functions of these turns.
TURNS = [(1.0386e-7, 0), (1.9216381e-7, 1), (5.9192615e-7, 3), (-1.0185892e-6, -5),
         (6.2831855, -1), (314.15927, -127), (-618286.7, 2 ** 24 + 2 ** 22), (1e-30, 0)]


def test_sines_are_of_whole_steps_of_a_turn():
    x = np.array([angle for angle, _ in TURNS], np.float32)
    steps = np.array([float(step) for _, step in TURNS]) * 2.0 ** -25
    for op, function in (("sin", np.sin), ("cos", np.cos)):
        got = approximate(f"{op}.approx.f32", x)
        assert np.abs(got - function(2 * np.pi * steps)).max() < 2.0 ** -22
    got = approximate("sin.approx.f32", x)
    assert np.array_equal(got[:4], np.sin(2 * np.pi * steps[:4]).astype(np.float32))
    assert approximate("sin.approx.f32", -x)[0] == 0
    assert np.signbit(approximate("sin.approx.f32", -x)[0])
    assert approximate("cos.approx.f32", np.float32([0, 1e-30, 1e-7])).tolist() == [1, 1, 1]
    quarter = np.float32([1.5707964, -1.5707964])  # cos is 0 here or one step away
    assert (np.abs(approximate("cos.approx.f32", quarter)) <= 2 * np.pi * 2.0 ** -24).all()


def test_tanh_to_eleven_bits():
    x = np.concatenate([points(1e-30, 20), -points(1e-30, 20)])
    got, want = approximate("tanh.approx.f32", x), truth(mpmath.tanh, x)
    error = relative(got, want)
    assert 2.0 ** -12.1 < error <= 2.0 ** -11
    tiny = points(TINIEST, SMALLEST / 2)
    assert np.array_equal(approximate("tanh.approx.f32", tiny), tiny)


def test_division_approximate_and_full():
    rng = np.random.default_rng(21)
    a, b = points(2.0 ** -60, 2.0 ** 60, 22), points(2.0 ** -60, 2.0 ** 60, 23)
    a[::2] *= -1
    whole = rng.integers(1, 1000, a.size).astype(np.float32)
    for op in ("div.approx.f32", "div.full.f32"):
        for x, y in ((a, b), (whole * b.view(np.uint32).astype(np.float32), whole)):
            with mpmath.workprec(200):
                want = [mpmath.mpf(float(p)) / mpmath.mpf(float(q))
                        for p, q in zip(x, y, strict=True)]
            got = approximate(op, x, y)
            assert ulps(got, want) <= 2
            nearest = np.array([float(w) for w in want]).astype(np.float32)
            assert 0.05 < (got != nearest).mean() < 0.6
    # 9 / 7 * 7 and its like: quotients that a programmer may take to be exact
    product = whole * np.float32(7)
    assert 0 < (approximate("div.full.f32", product, np.full_like(whole, 7)) != whole).mean() < 0.9
    tiny = np.concatenate([points(TINIEST, SMALLEST / 2, 28), np.float32([0, 1e-20])])
    assert np.array_equal(approximate("div.approx.f32", tiny, tiny[::-1])[3:-3] != 0,
                          np.ones(tiny.size - 6, bool))
    few = np.float32([0, 1e-40, -1e-45, 1e-45, 3.0])
    with np.errstate(all="ignore"):
        want = few / np.float32(1e-45)
    assert np.array_equal(approximate("div.approx.f32", few, np.full_like(few, 1e-45)), want)
    large = points(2.0 ** 126, GREATEST, 24)[:100]
    large = large[large > 2.0 ** 126]
    one = np.ones_like(large)
    assert (approximate("div.approx.f32", -one, large) == 0).all()
    assert np.signbit(approximate("div.approx.f32", -one, large)).all()
    assert np.isnan(approximate("div.approx.f32", one * np.float32(inf), large)).all()
    with mpmath.workprec(200):
        want = [1 / mpmath.mpf(float(v)) for v in large]
    assert ulps(approximate("div.full.f32", one, large), want) <= 2
    special = np.array([0.0, -0.0, inf, -inf, nan, 1.0], np.float32)
    x, y = (v.ravel() for v in np.meshgrid(special, special))
    with np.errstate(all="ignore"):
        want = x / y
    for op in ("div.approx.f32", "div.full.f32"):
        got = approximate(op, x, y)
        assert np.array_equal(got, want, equal_nan=True)
        number = ~np.isnan(want)
        assert np.array_equal(np.signbit(got)[number], np.signbit(want)[number])


SPECIAL = [-inf, -1.0, -0.0, 0.0, inf, nan]
TABLES = {
    "ex2.approx.f32": [0.0, 0.5, 1.0, 1.0, inf, nan],
    "ex2.approx.ftz.f32": [0.0, 0.5, 1.0, 1.0, inf, nan],
    "lg2.approx.f32": [nan, nan, -inf, -inf, inf, nan],
    "rcp.approx.f32": [-0.0, -1.0, -inf, inf, 0.0, nan],
    "rcp.approx.ftz.f32": [-0.0, -1.0, -inf, inf, 0.0, nan],
    "sqrt.approx.f32": [nan, nan, -0.0, 0.0, inf, nan],
    "rsqrt.approx.f32": [nan, nan, -inf, inf, 0.0, nan],
    "sin.approx.f32": [nan, None, -0.0, 0.0, nan, nan],
    "cos.approx.f32": [nan, None, 1.0, 1.0, nan, nan],
    "tanh.approx.f32": [-1.0, None, -0.0, 0.0, 1.0, nan],
    "rcp.approx.ftz.f64": [-0.0, -1.0, -inf, inf, 0.0, nan],
    "rsqrt.approx.ftz.f64": [nan, nan, -inf, inf, 0.0, nan],
    "rsqrt.approx.f64": [nan, nan, -inf, inf, 0.0, nan],
    "ex2.approx.f16": [0.0, 0.5, 1.0, 1.0, inf, nan],
    "ex2.approx.ftz.bf16": [0.0, 0.5, 1.0, 1.0, inf, nan],
    "tanh.approx.f16": [-1.0, None, -0.0, 0.0, 1.0, nan],
    "tanh.approx.bf16": [-1.0, None, -0.0, 0.0, 1.0, nan],
}


@pytest.mark.parametrize("op", list(TABLES))
def test_special_values_are_those_of_the_manual(op):
    type = op.split(".")[-1]
    f = exact.FORMATS[type]
    dtype = f"u{(f.sign << 1).bit_length() // 8}"
    got = floats(f, run(op, type, np.array([f.encode(x) for x in SPECIAL], dtype)))
    for x, g, want in zip(SPECIAL, got, TABLES[op], strict=True):
        if want is not None:
            assert (g == want and copysign(1, g) == copysign(1, want)) or (
                isnan(g) and isnan(want)), f"{op} of {x} is {g}"


@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_half_approximations_over_all_numbers(type):
    f = exact.FORMATS[type]
    bits = np.arange(65536, dtype=np.uint16)
    x = np.array(floats(f, bits))
    number = np.isfinite(x)
    words = both_halves(bits)[0]
    got = run(f"tanh.approx.{type}", type, bits)
    error = np.abs(np.array(floats(f, got))[number] - np.tanh(x[number]))
    assert error.max() <= (2.0 ** -10.987 if type == "f16" else 2.0 ** -8)
    assert (np.array(floats(f, got))[number] != np.tanh(x[number])).any()
    packed = run(f"tanh.approx.{type}x2", type, words, result="b32")
    assert np.array_equal(packed, both_halves(got)[0])
    op = "ex2.approx" if type == "f16" else "ex2.approx.ftz"
    got = run(f"{op}.{type}", type, bits)
    least, most = float(Fraction(2) ** (1 - f.bias)), f.decode(f.infinity - 1)
    with np.errstate(all="ignore"):
        want = np.exp2(x)
    inside = number & (want >= least) & (want <= most)
    error = np.abs(np.array(floats(f, got))[inside] / want[inside] - 1)
    assert error.max() <= (2.0 ** -9.9 if type == "f16" else 2.0 ** -7)
    assert error.max() > (2.0 ** -11 if type == "f16" else 2.0 ** -8)
    below = number & (want < least)
    if type == "bf16":
        assert (np.array(floats(f, got))[below] == 0).all()
    else:
        assert np.abs(np.array(floats(f, got))[below] - want[below]).max() < 2.0 ** -24
    assert np.isinf(np.array(floats(f, got))[number & (want >= 2.0 ** (f.bias + 1))]).all()
    packed = run(f"{op}.{type}x2", type, words, result="b32")
    assert np.array_equal(packed, both_halves(got)[0])


def test_gross_approximations_of_double():
    rng = np.random.default_rng(25)
    x = np.ldexp(rng.uniform(1, 2, 2000), rng.integers(-1000, 1000, 2000))
    for op, function in (("rcp", lambda v: 1 / v), ("rsqrt", lambda v: 1 / np.sqrt(v))):
        got = run(f"{op}.approx.ftz.f64", "f64", x.view(np.uint64))
        assert (got & np.uint64(0xffffffff) == 0).all()
        error = np.abs(got.view(np.float64) / function(x) - 1)
        assert 2.0 ** -20.5 < error.max() < 2.0 ** -18.9  # operand and result are cut to 20 bits
        upper = x.view(np.uint64) & np.uint64(0xffffffff00000000)
        assert np.array_equal(got, run(f"{op}.approx.ftz.f64", "f64", upper))
    tiny = np.array([5e-324, -1e-310]).view(np.uint64)
    assert run("rcp.approx.ftz.f64", "f64", tiny).view(np.float64).tolist() == [inf, -inf]
    large = np.array([1.5e308, -1.5e308])
    got = run("rcp.approx.ftz.f64", "f64", large.view(np.uint64)).view(np.float64)
    assert got.tolist() == [0, 0]
    assert np.signbit(got).tolist() == [False, True]
    nans = np.array([0x7ff8000000000000, 0x7ff0000100000000, 0x7ff0000000000001], np.uint64)
    got = run("rcp.approx.ftz.f64", "f64", nans)  # the upper half of the last is infinity
    assert got.tolist() == [0x7fffffff00000000, 0x7fffffff00000000, 0]
    got = run("rsqrt.approx.f64", "f64", x.view(np.uint64)).view(np.float64)
    assert np.abs(got * np.sqrt(x) - 1).max() < 2.0 ** -51


# -- the functions behind them --------------------------------------------------------------------

def test_functions_take_no_elements():
    none = np.empty((1, 0), np.float32)
    with np.errstate(all="ignore"):
        assert approx.lg2(none).shape == (1, 0)
        assert approx.ex2_flushed(none).shape == (1, 0)
        assert double.fma64(*[none.astype(np.float64)] * 3).shape == (1, 0)
    for line in ("fma.rn.f32 %d, %a, %a, %a", "fma.rm.f32 %d, %a, %a, %a", "max.f32 %d, %a, %a",
                 "cvt.rn.f16.f32 %d, %a", "cvt.rzi.s32.f32 %d, %a", "cvt.rni.u8.f32 %d, %a"):
        out = run_line(line, {"%a": "f32", "%d": "b32"}, {"%a": none})
        assert out["%d"].shape == (1, 0)


@pytest.mark.parametrize("line", [
    "add.rna.f32 %a, %a, %a", "add.sat.f64 %d, %d, %d", "add.ftz.bf16 %h, %h, %h",
    "mul.rz.f16 %h, %h, %h", "fma.rz.f16 %h, %h, %h, %h", "fma.rn.oob.f16 %h, %h, %h, %h",
    "fma.rn.f32 %a, %a, %a", "div.f16 %h, %h, %h", "min.xorsign.abs.f32 %a, %a, %a, %a",
    "min.f64 %d, %d, %d, %d", "max.sat.f32 %a, %a, %a", "setp.hi.f32 %p, %a, %a",
    "setp.eq.and.f32 %p, %a, %a", "setp.eq.f32 %p, %a, %a, %p", "set.eq.f64.f32 %d, %a, %a",
    "testp.finite.infinite.f32 %p, %a", "rsqrt.rn.f32 %a, %a", "sqrt.approx.f64 %d, %d",
    "rcp.approx.f64 %d, %d", "sin.approx.f64 %d, %d", "ex2.approx.ftz.f16 %h, %h",
    "ex2.approx.bf16 %h, %h", "tanh.approx.ftz.f32 %a, %a", "add.rn.f32.f16x2 %a, %h, %a",
    "rem.f32 %a, %a, %a", "abs.sat.f32 %a, %a", "copysign.f16 %h, %h, %h"])
def test_what_ptx_does_not_have_is_refused(line):
    registers = {"%a": "f32", "%d": "f64", "%h": "b16", "%p": "pred"}
    inputs = {"%a": np.float32([1]), "%d": np.float64([1]), "%h": np.uint16([1]), "%p": [True]}
    with pytest.raises((PtxError, UnsupportedError), match=r"test\.cu:1"):
        run_line(line, registers, inputs)


def test_combinations_of_modifiers_are_all_known():
    registers = {"%a": "f32", "%d": "f32"}
    for op, mode, ftz, sat in itertools.product(("add", "mul", "fma"), MODES, ("", ".ftz"),
                                                ("", ".sat")):
        operands = ", ".join(["%a"] * (3 if op == "fma" else 2))
        out = run_line(f"{op}.{mode}{ftz}{sat}.f32 %d, {operands}", registers,
                       {"%a": np.float32([0.25])})
        assert out["%d"][0, 0] == {"add": 0.5, "mul": 0.0625, "fma": 0.3125}[op]
