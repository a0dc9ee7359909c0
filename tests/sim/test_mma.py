"""Products of matrices spread over a warp, against the PTX manual's formulas written out lane by
lane and NumPy's products in float64 and int64."""

import zlib
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from mlgpu.sim.numeric.fragments import (
    ldmatrix_registers,
    movmatrix,
    stmatrix_rows,
    wmma_fragment,
)
from mlgpu.sim.numeric.mma_forms import mma_function, wmma_function

WARPS = 5
SYNC = ("sync", "aligned")


def rng_of(name):
    """Random numbers of a test's own, the same in every run."""
    return np.random.default_rng(zlib.crc32(name.encode()))


# -- the manual's formulas: (row, column) of element i of a lane -----------------------------------
# g is "groupID", t is "threadID_in_group".  Each is copied from the section of its shape.

def g(lane):
    return lane >> 2


def t(lane):
    return lane % 4


def a_884_f16_row(lane, i):
    return lane % 4 if lane < 16 else lane % 4 + 4, i


def a_884_f16_col(lane, i):
    return i % 4 if lane < 16 else i % 4 + 4, lane % 4


def b_884_f16_row(lane, i):
    return lane % 4, i if lane < 16 else i + 4


def b_884_f16_col(lane, i):
    return i, lane % 4 if lane < 16 else lane % 4 + 4


def c_884_f16(lane, i):
    return lane % 4 if lane < 16 else lane % 4 + 4, i


def c_884_f32(lane, i):
    x = (lane & 0b1) + (i & 0b10)
    return x if lane < 16 else x + 4, (i & 0b100) + (lane & 0b10) + (i & 0b1)


def a_884_f64(lane, i):
    return lane >> 2, lane % 4


def b_884_f64(lane, i):
    return lane % 4, lane >> 2


def c_88(lane, i):
    return g(lane), t(lane) * 2 + (i & 1)


def a_8816_i8(lane, i):
    return g(lane), t(lane) * 4 + i


def b_8816_i8(lane, i):
    return t(lane) * 4 + i, g(lane)


def a_8832_i4(lane, i):
    return g(lane), t(lane) * 8 + (i & 7)


def b_8832_i4(lane, i):
    return t(lane) * 8 + (i & 7), g(lane)


def a_88128_b1(lane, i):
    return g(lane), t(lane) * 32 + (i & 31)


def b_88128_b1(lane, i):
    return t(lane) * 32 + (i & 31), g(lane)


def a_1684(lane, i):
    return (g(lane) if i == 0 else g(lane) + 8), t(lane)


def b_1684(lane, i):
    return t(lane), g(lane)


def c_168(lane, i):
    return (g(lane) if i < 2 else g(lane) + 8), t(lane) * 2 + (i & 1)


def a_1688_f16(lane, i):
    return (g(lane) if i in (0, 1) else g(lane) + 8), t(lane) * 2 + (i & 1)


def b_1688_f16(lane, i):
    return t(lane) * 2 + i, g(lane)


def a_1688_word(lane, i):
    return (g(lane) if i in (0, 2) else g(lane) + 8), (t(lane) if i in (0, 1) else t(lane) + 4)


def b_1688_word(lane, i):
    return (t(lane) if i == 0 else t(lane) + 4), g(lane)


def a_16816_f16(lane, i):
    row = g(lane) if 0 <= i < 2 or 4 <= i < 6 else g(lane) + 8
    return row, t(lane) * 2 + (i & 1) + (0 if i < 4 else 8)


def b_16816_f16(lane, i):
    return t(lane) * 2 + (i & 1) + (0 if i < 2 else 8), g(lane)


def a_16816_f64(lane, i):
    if i % 2 == 0:
        return g(lane), i * 2 + t(lane)
    return g(lane) + 8, i * 2 - 2 + t(lane)


def b_16816_f64(lane, i):
    return t(lane) + i * 4, g(lane)


def a_16816_i8(lane, i):
    return (g(lane) if i < 4 else g(lane) + 8), t(lane) * 4 + (i & 3)


def b_16816_i8(lane, i):
    return t(lane) * 4 + i, g(lane)


def a_16832_i8(lane, i):
    row = g(lane) if 0 <= i < 4 or 8 <= i < 12 else g(lane) + 8
    return row, t(lane) * 4 + (i & 3) + (0 if i < 8 else 16)


def b_16832_i8(lane, i):
    return t(lane) * 4 + (i & 3) + (0 if i < 4 else 16), g(lane)


def a_16832_i4(lane, i):
    return (g(lane) if i < 8 else g(lane) + 8), t(lane) * 8 + (i & 7)


def b_16832_i4(lane, i):
    return t(lane) * 8 + (i & 7), g(lane)


def a_16864_i4(lane, i):
    row = g(lane) if 0 <= i < 8 or 16 <= i < 24 else g(lane) + 8
    return row, t(lane) * 8 + (i & 7) + (0 if i < 16 else 32)


def b_16864_i4(lane, i):
    return t(lane) * 8 + (i & 7) + (0 if i < 8 else 32), g(lane)


def a_168128_b1(lane, i):
    return (g(lane) if i < 32 else g(lane) + 8), t(lane) * 32 + (i & 31)


def b_168128_b1(lane, i):
    return t(lane) * 32 + i, g(lane)


def a_168256_b1(lane, i):
    row = g(lane) if 0 <= i < 32 or 64 <= i < 96 else g(lane) + 8
    return row, t(lane) * 32 + (i & 31) + (0 if i < 64 else 128)


def b_168256_b1(lane, i):
    return t(lane) * 32 + (i & 31) + (0 if i < 32 else 128), g(lane)


# -- between matrices and registers ----------------------------------------------------------------

BITS = {"f16": 16, "bf16": 16, "tf32": 32, "f32": 32, "s32": 32, "f64": 64, "s8": 8, "u8": 8,
        "s4": 4, "u4": 4, "b1": 1, "e4m3": 8, "e5m2": 8, "e3m2": 8, "e2m3": 8, "e2m1": 8}
CODES = {8: "u1", 16: "u2", 32: "u4", 64: "u8"}
REGISTER = {"f32": "f4", "f64": "f8", "s32": "i4"}


def spread(codes, place, bits, type):
    """Registers with the codes (W, rows, columns) of a matrix's elements where `place` says."""
    rows, cols = codes.shape[1:]
    number = rows * cols // 32
    wide = max(32, bits)
    per = wide // bits
    registers = [np.zeros((len(codes), 32), f"u{wide // 8}") for _ in range(number // per)]
    for lane in range(32):
        for i in range(number):
            code = codes[(slice(None), *place(lane, i))].astype(f"u{wide // 8}")
            registers[i // per][:, lane] |= code << registers[0].dtype.type(i % per * bits)
    return [r.view(REGISTER.get(type, r.dtype)) for r in registers]


def collect(registers, place, bits, rows, cols):
    """The codes (W, rows, columns) in registers; fails where an element is missing."""
    codes = np.full((len(registers[0]), rows, cols), -1, "i8")
    wide = max(32, bits)
    per = wide // bits
    for lane in range(32):
        for i in range(len(registers) * per):
            word = registers[i // per][:, lane].view(f"u{wide // 8}")
            code = word >> word.dtype.type(i % per * bits) & word.dtype.type((1 << bits) - 1)
            codes[(slice(None), *place(lane, i))] = code.view("i8") if bits == 64 else code
    return codes


def decode(codes, type):
    """The float64 or int64 values of codes."""
    if type == "f16":
        return codes.astype("u2").view("f2").astype("f8")
    if type == "bf16":
        return codes.astype("u2").view(ml_dtypes.bfloat16).astype("f8")
    if type == "tf32":
        return (codes.astype("u4") >> 13 << 13).view("f4").astype("f8")
    if type in ("f32", "f64", "s32"):
        narrow = codes.astype(CODES[BITS[type]]).view(REGISTER[type])
        return narrow.astype("i8" if type == "s32" else "f8")
    if type in ("s8", "u8"):
        return codes.astype("u1").view("i1" if type == "s8" else "u1").astype("i8")
    if type in ("s4", "u4"):
        values = codes.astype("i8")
        return np.where((values > 7) & (type == "s4"), values - 16, values)
    narrow = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2,
              "e3m2": ml_dtypes.float6_e3m2fn, "e2m3": ml_dtypes.float6_e2m3fn,
              "e2m1": ml_dtypes.float4_e2m1fn}[type]
    return codes.astype("u1").view(narrow).astype("f8")


def draw(rng, type, shape):
    """Random codes of finite elements; of moderate size where sums could overflow float32."""
    if type in ("f32", "tf32"):
        return rng.standard_normal(shape).astype("f4").view("u4")
    if type == "f64":
        return rng.standard_normal(shape).view("u8")
    if type == "bf16":
        return rng.standard_normal(shape).astype(ml_dtypes.bfloat16).view("u2")
    if type == "f16":
        return (rng.standard_normal(shape) * 2.0 ** rng.integers(-20, 5, shape)).astype(
            "f2").view("u2")
    if type == "s32":
        return rng.integers(0, 1 << 32, shape, dtype="u4")
    bits = {"e3m2": 6, "e2m3": 6, "e2m1": 4}.get(type, BITS[type])
    codes = rng.integers(0, 1 << bits, shape).astype("u1")
    if type in ("e4m3", "e5m2"):
        codes[~np.isfinite(decode(codes, type))] = 0x7B  # the largest of e5m2, 352 of e4m3
    return codes


def contained(codes, type, bits):
    """Codes as they sit in their containers: in the middle of 8 bits for e2m1."""
    return codes << 2 if type == "e2m1" and bits == 8 else codes


def expect(got, a, b, c, dtype):
    """Compare with A B + C computed in float64: each addition may round, and the result once."""
    rounding = 2.0 ** (-53 if dtype == "f64" else -24)
    with np.errstate(all="ignore"):
        want, size = a @ b + c, np.abs(a) @ np.abs(b) + np.abs(c)
        bound = (a.shape[-1] + 2) * rounding * size
        if dtype == "f16":
            bound += 1.01 * 2.0 ** -11 * np.abs(want) + 2.0 ** -25
            want = np.where(np.abs(want) >= 65520, np.copysign(np.inf, want), want)
        finite = np.isfinite(want)
        assert np.all(np.abs(got - want)[finite] <= bound[finite])
    assert np.array_equal(got[~finite], want[~finite], equal_nan=True)


def in_halves(a, b, c):
    """A B + C of 8-bit floats as an H200 has it in float16: the pairs k % 4 < 2 first, C last."""
    def rounded(x):
        with np.errstate(over="ignore"):
            return x.astype("f2").astype("f8")

    first = np.arange(a.shape[-1]) % 4 < 2
    half = rounded(a[..., first] @ b[:, first])
    with np.errstate(invalid="ignore"):
        return rounded(rounded(half + a[..., ~first] @ b[:, ~first]) + c)


# -- every form of mma -----------------------------------------------------------------------------

def floats(shape, places, types, accumulators):
    return [(f"{shape}.row.col.{d}.{a}.{b}.{c}", places, a, b, c, d)
            for a, b in types for d, c in accumulators]


BOTH = (("f16", "f16"), ("f32", "f32"))
F32, F64 = (("f32", "f32"),), (("f64", "f64"),)
FP8 = [(a, b) for a in ("e4m3", "e5m2") for b in ("e4m3", "e5m2")]
FLOATS = [
    *floats("m16n8k8", (a_1688_f16, b_1688_f16, c_168), [("f16", "f16")], BOTH),
    *floats("m16n8k16", (a_16816_f16, b_16816_f16, c_168), [("f16", "f16")], BOTH),
    *floats("m16n8k8", (a_1688_f16, b_1688_f16, c_168), [("bf16", "bf16")], F32),
    *floats("m16n8k16", (a_16816_f16, b_16816_f16, c_168), [("bf16", "bf16")], F32),
    *floats("m16n8k4", (a_1684, b_1684, c_168), [("tf32", "tf32")], F32),
    *floats("m16n8k8", (a_1688_word, b_1688_word, c_168), [("tf32", "tf32")], F32),
    *floats("m8n8k4", (a_884_f64, b_884_f64, c_88), [("f64", "f64")], F64),
    *floats("m16n8k4", (a_1684, b_1684, c_168), [("f64", "f64")], F64),
    *floats("m16n8k8", (a_1688_word, b_1688_word, c_168), [("f64", "f64")], F64),
    *floats("m16n8k16", (a_16816_f64, b_16816_f64, c_168), [("f64", "f64")], F64),
    *floats("m16n8k16", (a_16816_i8, b_16816_i8, c_168), FP8, BOTH),
    *floats("m16n8k32", (a_16832_i8, b_16832_i8, c_168), FP8, BOTH),
    *floats("kind::f8f6f4.m16n8k32", (a_16832_i8, b_16832_i8, c_168),
            [("e4m3", "e2m1"), ("e3m2", "e5m2"), ("e2m1", "e2m3"), ("e2m3", "e3m2")], BOTH),
]
INTEGERS = [(f"{shape}.row.col{sat}.s32.{a}.{b}.s32", places, a, b)
            for shape, places, types in [
                ("m8n8k16", (a_8816_i8, b_8816_i8, c_88), ("s8", "u8")),
                ("m16n8k16", (a_16816_i8, b_16816_i8, c_168), ("s8", "u8")),
                ("m16n8k32", (a_16832_i8, b_16832_i8, c_168), ("s8", "u8")),
                ("m8n8k32", (a_8832_i4, b_8832_i4, c_88), ("s4", "u4")),
                ("m16n8k32", (a_16832_i4, b_16832_i4, c_168), ("s4", "u4")),
                ("m16n8k64", (a_16864_i4, b_16864_i4, c_168), ("s4", "u4"))]
            for a in types for b in types for sat in ("", ".satfinite")]
BITWISE = [(f"{shape}.row.col.s32.b1.b1.s32.{op}.popc", places)
           for shape, places in [("m8n8k128", (a_88128_b1, b_88128_b1, c_88)),
                                 ("m16n8k128", (a_168128_b1, b_168128_b1, c_168)),
                                 ("m16n8k256", (a_168256_b1, b_168256_b1, c_168))]
           for op in ("xor", "and")]


def sizes(mods):
    shape = next(m for m in mods if m.startswith("m") and m[1].isdigit())
    m, rest = shape[1:].split("n")
    n, k = rest.split("k")
    return int(m), int(n), int(k)


def modifiers(text):
    return (*SYNC, *text.replace(".kind", " kind").replace(".", " ").split())


@pytest.mark.parametrize(("text", "places", "a", "b", "c", "d"), FLOATS,
                         ids=[form[0] for form in FLOATS])
def test_floating_point(text, places, a, b, c, d):
    mods = modifiers(text)
    m, n, k = sizes(mods)
    rng = rng_of(text)
    codes = [draw(rng, a, (WARPS, m, k)), draw(rng, b, (WARPS, k, n)), draw(rng, c, (WARPS, m, n))]
    registers = [spread(contained(codes[i], type, BITS[type]), places[i], BITS[type], type)
                 for i, type in enumerate((a, b, c))]
    product = mma_function(mods)
    with np.errstate(all="ignore"):
        out = product(*registers)
    values = [decode(codes[i], type) for i, type in enumerate((a, b, c))]
    got = decode(collect(out, places[2], BITS[d], m, n).view("u8"), d)
    if product.in_halves:
        same = got == in_halves(*values)
        assert same.mean() > 0.99  # float32 on the way may turn a tie
    else:
        expect(got, *values, d)
    assert product.in_halves == (d == "f16" and "e" in a and "kind" not in text)
    assert [r.dtype for r in out] == [np.dtype(REGISTER.get(d, "u4"))] * len(out)
    assert [len(r) for r in registers] == [x.registers for x in (product.a, product.b, product.c)]


@pytest.mark.parametrize(("text", "places", "a", "b"), INTEGERS, ids=[f[0] for f in INTEGERS])
def test_integers(text, places, a, b):
    mods = modifiers(text)
    m, n, k = sizes(mods)
    rng = rng_of(text)
    codes = [draw(rng, a, (WARPS, m, k)), draw(rng, b, (WARPS, k, n)),
             draw(rng, "s32", (WARPS, m, n))]
    codes[2][0] = 0x7FFFFFFF - rng.integers(0, 300, (m, n))  # overflows upwards
    codes[2][1] = 0x80000000 + rng.integers(0, 300, (m, n))  # and downwards
    codes[0][2], codes[1][2] = 0x88 >> (8 - BITS[a]) & 0xFF, 0x88 >> (8 - BITS[b]) & 0xFF
    registers = [spread(codes[i], places[i], BITS[type], type)
                 for i, type in enumerate((a, b, "s32"))]
    exact = decode(codes[0], a) @ decode(codes[1], b) + decode(codes[2], "s32")
    assert exact.max() > 0x7FFFFFFF
    want = (np.clip(exact, -1 << 31, (1 << 31) - 1) if "satfinite" in mods
            else (exact + (1 << 31)) % (1 << 32) - (1 << 31))
    out = mma_function(mods)(*registers)
    assert np.array_equal(decode(collect(out, places[2], 32, m, n), "s32"), want)


@pytest.mark.parametrize(("text", "places"), BITWISE, ids=[form[0] for form in BITWISE])
def test_single_bits(text, places):
    mods = modifiers(text)
    m, n, k = sizes(mods)
    rng = rng_of(text)
    a, b = draw(rng, "b1", (WARPS, m, k)), draw(rng, "b1", (WARPS, k, n))
    c = draw(rng, "s32", (WARPS, m, n))
    registers = [spread(codes, places[i], bits, type)
                 for i, (codes, bits, type) in enumerate(((a, 1, "b1"), (b, 1, "b1"),
                                                          (c, 32, "s32")))]
    pairs = np.logical_xor if "xor" in mods else np.logical_and
    counts = pairs(a[:, :, :, None], b[:, None]).sum(axis=2)
    want = (counts + decode(c, "s32") + (1 << 31)) % (1 << 32) - (1 << 31)
    out = mma_function(mods)(*registers)
    assert np.array_equal(decode(collect(out, places[2], 32, m, n), "s32"), want)


@pytest.mark.parametrize("layouts", ["row.row", "row.col", "col.row", "col.col"])
@pytest.mark.parametrize(("d", "c"), [("f16", "f16"), ("f32", "f16"), ("f32", "f32")])
def test_four_products_of_m8n8k4(layouts, d, c):
    """Lanes 0-3 and 16-19 make the first product, 4-7 and 20-23 the second, and so on."""
    mods = modifiers(f"m8n8k4.{layouts}.{d}.f16.f16.{c}")
    left, right = mods[3:5]
    rng = rng_of(layouts + d + c)
    a, b, first = (draw(rng, "f16", (4, WARPS, 8, 4)), draw(rng, "f16", (4, WARPS, 4, 8)),
                   draw(rng, c, (4, WARPS, 8, 8)))
    place = {"a": {"row": a_884_f16_row, "col": a_884_f16_col}[left],
             "b": {"row": b_884_f16_row, "col": b_884_f16_col}[right],
             "c": c_884_f16 if c == "f16" else c_884_f32,
             "d": c_884_f16 if d == "f16" else c_884_f32}

    def registers(codes, place, type, number):
        bits = BITS[type]
        out = [np.zeros((WARPS, 32), "u4") for _ in range(number * bits // 32)]
        for lane in range(32):
            for i in range(number):
                code = codes[lane % 16 // 4][(slice(None), *place(lane, i))].astype("u4")
                out[i * bits // 32][:, lane] |= code << np.uint32(i * bits % 32)
        return [r.view(REGISTER.get(type, "u4")) for r in out]

    with np.errstate(all="ignore"):
        out = mma_function(mods)(registers(a, place["a"], "f16", 4),
                                 registers(b, place["b"], "f16", 4),
                                 registers(first, place["c"], c, 8))
    assert len(out) == (4 if d == "f16" else 8)
    for p in range(4):
        lanes = [lane for lane in range(32) if lane % 16 // 4 == p]
        got = np.full((WARPS, 8, 8), np.nan)
        for lane in lanes:
            for i in range(8):
                word = out[i * BITS[d] // 32][:, lane].view("u4") >> np.uint32(i * BITS[d] % 32)
                got[(slice(None), *place["d"](lane, i))] = decode(word & 0xFFFFFFFF >> 32 - BITS[d],
                                                                  d)
        expect(got, decode(a[p], "f16"), decode(b[p], "f16"), decode(first[p], c), d)


# -- special values --------------------------------------------------------------------------------

def multiply(text, places, a, b, c):
    """One warp's product of values given as codes."""
    mods = modifiers(text)
    m, n, _ = sizes(mods)
    types = [mod for mod in mods if mod in BITS][-3:]
    registers = [spread(codes[None], places[i], BITS[types[i]], types[i])
                 for i, codes in enumerate((a, b, c))]
    with np.errstate(all="ignore"):
        out = mma_function(mods)(*registers)
    d = types[2]
    return decode(collect(out, places[2], BITS[d], m, n).view("u8"), d)[0]


HALF = (a_16816_f16, b_16816_f16, c_168)


def f16(values):
    return np.asarray(values, "f2").view("u2")


def test_infinities_and_nan_go_where_they_belong():
    a, b = np.ones((16, 16)), np.ones((16, 8))
    a[2, 3], a[5, 0], a[6, 1], a[6, 2] = np.inf, np.nan, np.inf, -np.inf
    b[3, 4] = 0.0
    got = multiply("m16n8k16.row.col.f32.f16.f16.f32", HALF, f16(a), f16(b),
                   np.zeros((16, 8), "u4"))
    want = np.full((16, 8), 16.0)
    want[:, 4] = 15.0
    want[2], want[2, 4], want[5], want[6] = np.inf, np.nan, np.nan, np.nan
    assert np.array_equal(got, want, equal_nan=True)


def test_subnormal_halves_count():
    tiny = 2.0 ** -24
    got = multiply("m16n8k16.row.col.f32.f16.f16.f32", HALF, f16(np.full((16, 16), tiny)),
                   f16(np.full((16, 8), 1.0)), np.zeros((16, 8), "u4"))
    assert np.all(got == 16 * tiny)
    got = multiply("m16n8k16.row.col.f16.f16.f16.f16", HALF, f16(np.full((16, 16), tiny)),
                   f16(np.full((16, 8), 0.75)), f16(np.zeros((16, 8))))
    assert np.all(got == 12 * tiny)


def test_a_half_accumulator_rounds_once():
    got = multiply("m16n8k16.row.col.f16.f16.f16.f16", HALF, f16(np.full((16, 16), 0.25)),
                   f16(np.ones((16, 8))), f16(np.full((16, 8), 2048.0)))
    assert np.all(got == 2052.0)  # halves are 2 apart there: 2048 + 0.25 is 2048 each time
    got = multiply("m16n8k16.row.col.f16.f16.f16.f16", HALF, f16(np.full((16, 16), 100.0)),
                   f16(np.full((16, 8), 100.0)), f16(np.zeros((16, 8))))
    assert np.all(got == np.inf)


@pytest.mark.parametrize(("text", "places"), [
    ("m16n8k8.row.col.f32.bf16.bf16.f32", (a_1688_f16, b_1688_f16, c_168)),
    ("m16n8k8.row.col.f32.tf32.tf32.f32", (a_1688_word, b_1688_word, c_168))])
def test_sums_may_leave_float32_and_come_back(text, places):
    shift = 16 if "bf16" in text else 0
    word = {x: np.float32(x).view("u4") >> shift for x in (2.0 ** 100, -(2.0 ** 100), 1.0, 0.0)}
    a, b = np.full((16, 8), word[2.0 ** 100]), np.full((8, 8), word[2.0 ** 100])
    a[:, 4:] = word[-(2.0 ** 100)]  # 2^200 four times, and as often away again
    a[3], a[5, 4:] = word[1.0], word[0.0]
    a[4, 0], b[0, 1:] = word[1.0], word[0.0]
    got = multiply(text, places, a.astype(f"u{4 - shift // 8}"), b.astype(f"u{4 - shift // 8}"),
                   np.full((16, 8), np.float32(7).view("u4")))
    want = np.full((16, 8), 7.0)
    want[:, 1:] = -np.inf  # the first product is missing
    want[3] = 8 * 2.0 ** 100
    want[3, 1:] = 7 * 2.0 ** 100
    want[4, 0] = -np.inf
    want[5] = np.inf
    assert np.array_equal(got, want)


def test_doubles_are_added_by_fused_operations_in_order():
    rng = rng_of("fused")
    a, b, c = (rng.standard_normal(shape) for shape in ((16, 16), (16, 8), (16, 8)))
    got = multiply("m16n8k16.row.col.f64.f64.f64.f64", (a_16816_f64, b_16816_f64, c_168),
                   *(x.view("u8") for x in (a, b, c)))
    for row, column in np.ndindex(16, 8):
        total = c[row, column]
        for k in range(16):
            total = float(Fraction(a[row, k]) * Fraction(b[k, column]) + Fraction(total))
        assert got[row, column] == total


def test_the_low_bits_of_tf32_are_ignored():
    word = np.float32(1 + 2.0 ** -10 + 2.0 ** -11 + 2.0 ** -23).view("u4")
    got = multiply("m16n8k8.row.col.f32.tf32.tf32.f32", (a_1688_word, b_1688_word, c_168),
                   np.full((16, 8), word), np.full((8, 8), np.float32(1).view("u4")),
                   np.zeros((16, 8), "u4"))
    assert np.all(got == 8 * (1 + 2.0 ** -10))


@pytest.mark.parametrize(("type", "largest", "code"), [("e4m3", 448.0, 0x7E),
                                                       ("e5m2", 57344.0, 0x7B)])
def test_fp8_up_to_its_largest_and_beyond(type, largest, code):
    places = (a_16832_i8, b_16832_i8, c_168)
    a, b = np.zeros((16, 32), "u1"), np.zeros((32, 8), "u1")
    one = 0x38 if type == "e4m3" else 0x3C
    a[0, 0], a[1, 1], a[2, 2] = code, code + 1, code | 0x80
    b[:, :] = one
    got = multiply(f"m16n8k32.row.col.f32.{type}.{type}.f32", places, a, b, np.zeros((16, 8), "u4"))
    assert np.all(got[0] == largest)
    assert np.all(got[2] == -largest)
    assert np.all(np.isnan(got[1]) if type == "e4m3" else got[1] == np.inf)
    assert np.all(got[3:] == 0)


# -- block scaling ---------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "a", "b", "chunks", "scale"), [
    ("m16n8k32.row.col.kind::mxf8f6f4.block_scale.f32.e4m3.e5m2.f32.ue8m0",
     "e4m3", "e5m2", 1, "ue8m0"),
    ("m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::1X.f32.e3m2.e2m1.f32.ue8m0",
     "e3m2", "e2m1", 1, "ue8m0"),
    ("m16n8k64.row.col.kind::mxf4.block_scale.f32.e2m1.e2m1.f32.ue8m0", "e2m1", "e2m1", 2, "ue8m0"),
    ("m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::2X.f32.e2m1.e2m1.f32.ue8m0",
     "e2m1", "e2m1", 2, "ue8m0"),
    ("m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X.f32.e2m1.e2m1.f32.ue4m3",
     "e2m1", "e2m1", 4, "ue4m3"),
])
def test_block_scaling(text, a, b, chunks, scale):
    mods = (*SYNC, *text.split("."))
    m, n, k = sizes(mods)
    rng = rng_of(text)
    bits = 4 if k == 64 else 8
    places = (a_16864_i4, b_16864_i4, c_168) if k == 64 else (a_16832_i8, b_16832_i8, c_168)
    codes = [draw(rng, a, (WARPS, m, k)), draw(rng, b, (WARPS, k, n)),
             draw(rng, "f32", (WARPS, m, n))]
    registers = [spread(contained(codes[0], a, bits), places[0], bits, a),
                 spread(contained(codes[1], b, bits), places[1], bits, b),
                 spread(codes[2], places[2], 32, "f32")]
    for thread_a, thread_b, byte in ((0, 3, 0), (1, 1, {1: 3, 2: 2, 4: 0}[chunks])):
        data = [rng.integers(110, 140, (WARPS, 32, 4)).astype("u1") for _ in range(2)]
        if scale == "ue4m3":
            data = [rng.integers(0, 127, (WARPS, 32, 4)).astype("u1") for _ in range(2)]
        left, right = np.zeros((WARPS, m, k)), np.zeros((WARPS, k, n))

        def worth(code):
            return (2.0 ** (code.astype("i8") - 127) if scale == "ue8m0"
                    else code.view(ml_dtypes.float8_e4m3fn).astype("f8"))

        for row in range(m):
            # the pair of the quad: its lower lane has rows 0 to 7, its upper lane rows 8 to 15
            lane = 4 * (row % 8) + 2 * thread_a + row // 8
            for chunk in range(chunks):
                part = slice(chunk * k // chunks, (chunk + 1) * k // chunks)
                left[:, row, part] = worth(data[0][:, lane, byte + chunk])[:, None]
        for col in range(n):
            for chunk in range(chunks):
                part = slice(chunk * k // chunks, (chunk + 1) * k // chunks)
                right[:, part, col] = worth(data[1][:, 4 * col + thread_b, byte + chunk])[:, None]
        selectors = [np.full((WARPS, 32), x, "u2") for x in (byte, thread_a, byte, thread_b)]
        words = [d.reshape(WARPS, -1).view("u4") for d in data]
        out = mma_function(mods)(*registers, [words[0], *selectors[:2], words[1], *selectors[2:]])
        got = decode(collect(out, c_168, 32, m, n).view("u8"), "f32")
        expect(got, decode(codes[0], a) * left, decode(codes[1], b) * right,
               decode(codes[2], "f32"), "f32")


# -- what is refused -------------------------------------------------------------------------------

@pytest.mark.parametrize("text", [
    "m16n8k16.row.col.f32.f16.f16", "m16n8k16.row.col.f32.f16.bf16.f32",
    "m16n8k16.col.row.f32.f16.f16.f32", "m16n8k32.row.col.f32.f16.f16.f32",
    "m16n8k16.row.col.f16.bf16.bf16.f16", "m16n8k16.row.col.f32.f16.f16.f16",
    "m8n8k4.row.col.f16.f16.f16.f32", "m16n8k16.row.col.satfinite.f32.f16.f16.f32",
    "m16n8k16.row.col.s32.s8.s4.s32", "m16n8k16.row.col.f32.s8.s8.f32",
    "m8n8k4.row.col.f64.f64.f64.f64.rz", "m8n8k128.row.col.s32.b1.b1.s32",
    "m8n8k128.row.col.s32.b1.b1.s32.xor", "m8n8k128.row.col.satfinite.s32.b1.b1.s32.xor.popc",
    "m16n8k16.row.col.f32.f16.f16.f32.popc", "m16n8k32.row.col.f32.e3m2.e3m2.f32",
    "row.col.f32.f16.f16.f32", "m16n8k16.row.f32.f16.f16.f32", "m16n8k.row.col.f32.f16.f16.f32",
    "sp.m16n8k16.row.col.f32.f16.f16.f32", "sp::ordered_metadata.m16n8k16.row.col.f32.f16.f16.f32",
    "m16n8k32.row.col.kind::mxf8f6f4.f32.e4m3.e4m3.f32",
    "m16n8k32.row.col.kind::f8f6f4.block_scale.f32.e4m3.e4m3.f32.ue8m0",
    "m16n8k32.row.col.kind::mxf8f6f4.block_scale.scale_vec::2X.f32.e4m3.e4m3.f32.ue8m0",
    "m16n8k64.row.col.kind::mxf4nvf4.block_scale.f32.e2m1.e2m1.f32.ue8m0",
    "m16n8k64.row.col.kind::mxf4.block_scale.f32.e2m1.e2m1.f32.ue4m3",
    "m16n8k16.row.col.f32.f16.f16.f32.ue8m0", "m16n8k16.row.col.rn.f32.f16.f16.f32",
])
def test_unknown_products_are_refused(text):
    with pytest.raises(ValueError, match=r"^mma\.sync\.aligned\."):
        mma_function((*SYNC, *text.split(".")))


def test_the_aligned_warp_is_asked_for():
    with pytest.raises(ValueError, match=r"needs \.sync, \.aligned"):
        mma_function(("sync", *"m16n8k16.row.col.f32.f16.f16.f32".split(".")))


# -- ldmatrix, stmatrix, movmatrix -----------------------------------------------------------------

@pytest.mark.parametrize("num", [1, 2, 4])
@pytest.mark.parametrize("trans", [False, True])
def test_ldmatrix(num, trans):
    rows = rng_of("rows").integers(0, 1 << 16, (WARPS, 8 * num, 8), dtype="u2")
    registers = ldmatrix_registers(rows, num, trans)
    assert len(registers) == num
    for matrix, register in enumerate(registers):
        assert register.shape == (WARPS, 32)
        assert register.dtype == np.uint32
        for lane in range(32):
            # four lanes hold a row, two neighbours each; of the transpose where it is asked for
            for half in range(2):
                row, col = lane // 4, 2 * (lane % 4) + half
                if trans:
                    row, col = col, row
                assert np.array_equal(register[:, lane] >> (16 * half) & 0xFFFF,
                                      rows[:, 8 * matrix + row, col])


@pytest.mark.parametrize("num", [1, 2, 4])
@pytest.mark.parametrize("trans", [False, True])
def test_stmatrix_undoes_ldmatrix(num, trans):
    rows = rng_of("rows").integers(0, 1 << 16, (WARPS, 8 * num, 8), dtype="u2")
    assert np.array_equal(stmatrix_rows(ldmatrix_registers(rows, num, trans), trans), rows)


def test_movmatrix_transposes():
    rows = rng_of("rows").integers(0, 1 << 16, (WARPS, 8, 8), dtype="u2")
    plain, = ldmatrix_registers(rows, 1, trans=False)
    turned, = ldmatrix_registers(rows, 1, trans=True)
    assert np.array_equal(movmatrix(plain), turned)
    assert np.array_equal(movmatrix(turned), plain)


@pytest.mark.parametrize("transposed", [False, True])
def test_ldmatrix_feeds_mma(transposed):
    """The addresses of every tensor-core GEMM: lane l gives row l % 16, columns from 8 (l / 16)."""
    rng = rng_of("gemm")
    a, b = (rng.integers(-4, 5, (WARPS, 16, 16)).astype("f2"),
            rng.integers(-4, 5, (WARPS, 16, 8)).astype("f2"))
    rows_a = np.stack([a[:, lane % 16, 8 * (lane // 16):8 * (lane // 16) + 8]
                       for lane in range(32)], 1)
    if transposed:  # B lies in memory as (N, K): its columns are rows there
        rows_b = np.stack([b.swapaxes(1, 2)[:, lane % 8, 8 * (lane // 8):8 * (lane // 8) + 8]
                           for lane in range(16)], 1)
    else:
        rows_b = np.stack([b[:, lane] for lane in range(16)], 1)
    registers_a = ldmatrix_registers(rows_a.view("u2"), 4, trans=False)
    registers_b = ldmatrix_registers(rows_b.view("u2"), 2, trans=not transposed)
    zero = [np.zeros((WARPS, 32), "u4")] * 2
    product = mma_function(modifiers("m16n8k16.row.col.f16.f16.f16.f16"))
    out = product(registers_a, registers_b, zero)
    got = stmatrix_rows(out, trans=False).view("f2")
    assert np.array_equal(got, a @ b)
    assert np.array_equal(stmatrix_rows(out, trans=True).view("f2").reshape(WARPS, 2, 8, 8),
                          (a @ b).reshape(WARPS, 2, 8, 8).swapaxes(2, 3))


# -- wmma ------------------------------------------------------------------------------------------

# Registers of A, B and C or D, from the manual's tables of fragments.
WMMA = [
    ("m16n16k16", "f16", 8, 8, {"f16": 4, "f32": 8}),
    ("m32n8k16", "f16", 8, 8, {"f16": 4, "f32": 8}),
    ("m8n32k16", "f16", 8, 8, {"f16": 4, "f32": 8}), ("m16n16k16", "bf16", 4, 4, {"f32": 8}),
    ("m8n32k16", "bf16", 2, 8, {"f32": 8}), ("m32n8k16", "bf16", 8, 2, {"f32": 8}),
    ("m16n16k16", "s8", 2, 2, {"s32": 8}), ("m8n32k16", "u8", 1, 4, {"s32": 8}),
    ("m32n8k16", "s8", 4, 1, {"s32": 8}), ("m16n16k8", "tf32", 4, 4, {"f32": 8}),
    ("m8n8k4", "f64", 1, 1, {"f64": 2}), ("m8n8k32", "s4", 1, 1, {"s32": 2}),
    ("m8n8k32", "u4", 1, 1, {"s32": 2}), ("m8n8k128", "b1", 1, 1, {"s32": 2}),
]
WMMA_FORMS = [(shape, type, left, right, c, d)
              for shape, type, _, _, ends in WMMA
              for left in ("row", "col") for right in ("row", "col") for c in ends for d in ends
              if BITS[type] >= 8 or (left, right) == ("row", "col")]


@pytest.mark.parametrize(("shape", "type", "a", "b", "ends"), WMMA)
def test_wmma_fragments_have_the_manuals_registers(shape, type, a, b, ends):
    assert wmma_fragment("a", shape, type).registers == a
    assert wmma_fragment("b", shape, type).registers == b
    for end, number in ends.items():
        assert wmma_fragment("c", shape, end).registers == number
        assert wmma_fragment("d", shape, end).registers == number


def bytes_of(codes, bits):
    """The bytes of rows of codes: sub-byte elements lie low bits first."""
    if bits >= 8:
        return np.ascontiguousarray(codes.astype(CODES[bits])).view("u1")
    ones = np.unpackbits(codes.astype("u1")[..., None], axis=-1, bitorder="little")[..., :bits]
    return np.packbits(ones.reshape(*codes.shape[:-1], -1), axis=-1, bitorder="little")


def load(matrix, shape, type, layout, codes, extra):
    """What the engine does for wmma.load: the registers of a matrix (W, rows, cols) of codes."""
    wmma = wmma_fragment(matrix, shape, type)
    lines = codes if layout == "row" else codes.swapaxes(1, 2)
    lines = np.concatenate([lines, np.zeros((*lines.shape[:2], extra), lines.dtype)], axis=2)
    memory = bytes_of(lines, BITS[type]).reshape(len(codes), -1)
    offsets = wmma.offsets(layout, lines.shape[2])
    if extra == 0:
        assert wmma.default_stride(layout) == lines.shape[2]
    cells = memory[:, offsets[..., None] + np.arange(wmma.item)]
    return wmma.pack(np.ascontiguousarray(cells).view(f"u{wmma.item}")[..., 0])


@pytest.mark.parametrize(("shape", "type", "left", "right", "c", "d"), WMMA_FORMS,
                         ids=["-".join(form) for form in WMMA_FORMS])
def test_wmma(shape, type, left, right, c, d):
    types = [d, c] if type == "f16" else [d, type, type, c]
    op = ("xor", "popc") if type == "b1" else ()
    mods = ("mma", *op, *SYNC, left, right, shape, *types)
    m, n, k = sizes(mods)
    rng = rng_of("".join(mods))
    a, b, first = (draw(rng, type, (WARPS, m, k)), draw(rng, type, (WARPS, k, n)),
                   draw(rng, c, (WARPS, m, n)))
    extra = 128 if left == right or type == "b1" else 0  # elements between the rows in memory
    with np.errstate(all="ignore"):
        out = wmma_function(mods).flat([*load("a", shape, type, left, a, extra),
                                        *load("b", shape, type, right, b, 0),
                                        *load("c", shape, c, right, first, extra)])
    wmma = wmma_fragment("d", shape, d)
    assert len(out) == wmma.registers
    for layout in ("row", "col"):
        height, width = (m, n) if layout == "row" else (n, m)
        memory = np.full((WARPS, height * (width + 3) * wmma.item), 255, "u1")
        offsets = wmma.offsets(layout, width + 3)[..., None] + np.arange(wmma.item)
        items = np.ascontiguousarray(wmma.unpack(out))
        memory[:, offsets] = items.view("u1").reshape(WARPS, 32, -1, wmma.item)
        stored = memory.view(CODES[BITS[d]]).reshape(WARPS, height, width + 3)[:, :, :width]
        got = decode(stored if layout == "row" else stored.swapaxes(1, 2), d)
        if type == "b1":
            want = np.logical_xor(a[:, :, :, None], b[:, None]).sum(axis=2) + decode(first, c)
            assert np.array_equal(got, (want + (1 << 31)) % (1 << 32) - (1 << 31))
        elif d == "s32":
            want = decode(a, type) @ decode(b, type) + decode(first, c)
            assert np.array_equal(got, (want + (1 << 31)) % (1 << 32) - (1 << 31))
        else:
            expect(got, decode(a, type), decode(b, type), decode(first, c), d)


@pytest.mark.parametrize("case", WMMA, ids=lambda case: f"{case[0]}-{case[1]}")
def test_wmma_moves_each_element_once(case):
    """Each item of the matrix belongs to one lane, and what `run` joins lies side by side."""
    shape, type, _, _, ends = case
    for matrix, kind in [("a", type), ("b", type), *(("c", end) for end in ends)]:
        wmma = wmma_fragment(matrix, shape, kind)
        for layout in ("row", "col"):
            stride = 8 * wmma.default_stride(layout)
            offsets = wmma.offsets(layout, np.array([stride, 2 * stride]))
            assert offsets.shape == (2, *wmma.fragment.rows.shape)
            assert len(np.unique(offsets[0])) == offsets[0].size == wmma.fragment.rows.size
            run = wmma.run(layout)
            steps = np.diff(offsets[0].reshape(32, -1, run), axis=2)
            assert np.all(steps == wmma.item)


def test_wmma_scaled_in_registers():
    """Elementwise work on all registers of a fragment is elementwise work on the matrix."""
    c = np.arange(256, dtype="f4").reshape(1, 16, 16)
    registers = [2 * r for r in load("c", "m16n16k16", "f32", "row", c.view("u4"), 0)]
    wmma = wmma_fragment("d", "m16n16k16", "f32")
    out = np.zeros(256, "f4")
    out[wmma.offsets("col", 16) // 4] = wmma.unpack(registers)[0].view("f4")
    assert np.array_equal(out.reshape(16, 16), 2 * c[0].T)


def test_wmma_saturates():
    a = np.full((1, 16, 16), 127, "u1")
    c = np.full((1, 16, 16), 0x7FFFFFF0, "u4")
    registers = (load("a", "m16n16k16", "s8", "row", a, 0),
                 load("b", "m16n16k16", "s8", "col", a, 0),
                 load("c", "m16n16k16", "s32", "row", c, 0))
    mods = ("mma", *SYNC, "row", "col", "m16n16k16", "s32", "s8", "s8", "s32")
    assert np.all(np.stack(wmma_function((*mods, "satfinite"))(*registers)) == 0x7FFFFFFF)
    assert np.all(np.stack(wmma_function(mods)(*registers)) < 0)


@pytest.mark.parametrize("text", [
    "mma.sync.aligned.row.col.m16n16k8.f32.f32", "mma.sync.aligned.row.col.m16n8k16.f32.f32",
    "mma.sync.aligned.row.col.m16n16k16.f32.bf16.f16.f32", "mma.sync.aligned.row.m16n16k16.f32.f32",
    "mma.sync.aligned.row.col.m16n16k16.f16.bf16.bf16.f16",
    "mma.sync.aligned.row.row.m8n8k32.s32.s4.s4.s32", "mma.sync.aligned.row.col.m16n16k16.f32",
    "mma.sync.aligned.row.col.m16n16k16.s32.s8.u8.s32",
    "mma.sync.aligned.row.col.m16n16k16.s32.s32", "sync.aligned.row.col.m16n16k16.f32.f32",
    "mma.sync.aligned.row.col.m8n8k128.s32.b1.b1.s32",
    "mma.sync.aligned.row.col.m16n16k16.f32.e4m3.e4m3.f32",
    "mma.sync.aligned.row.col.m16n16k16.f32.f32.satfinite",
])
def test_unknown_wmma_is_refused(text):
    with pytest.raises(ValueError, match=r"^(wmma\.|there is no wmma)"):
        wmma_function(tuple(text.split(".")))


@pytest.mark.parametrize(("matrix", "shape", "type"), [
    ("a", "m16n16k16", "f32"), ("b", "m16n8k16", "f16"), ("c", "m16n16k8", "f16"),
    ("e", "m16n16k16", "f32"), ("a", "m16n16", "f16"), ("c", "m8n8k4", "f32"), ("a", "x", "f16")])
def test_unknown_wmma_fragments_are_refused(matrix, shape, type):
    with pytest.raises(ValueError, match=r"there is no wmma|is not the shape"):
        wmma_fragment(matrix, shape, type)
