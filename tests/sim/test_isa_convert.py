"""Conversions against exact rationals, and those to small formats also against ml_dtypes."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor, frexp, inf, isinf, isnan, nan

import ml_dtypes
import numpy as np
import pytest
from sim import exact
from sim.straight import run_line

from mlgpu.sim.errors import UnsupportedError

FLOATS = {name: exact.FORMATS[name] for name in ("f16", "bf16", "f32", "f64")}
INTEGERS = {name: np.dtype(f"{'i' if name[0] == 's' else 'u'}{int(name[1:]) // 8}")
            for name in "u8 s8 u16 s16 u32 s32 u64 s64".split()}
MODES = ("rn", "rz", "rm", "rp")
SMALL = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2,
         "e2m3": ml_dtypes.float6_e2m3fn, "e3m2": ml_dtypes.float6_e3m2fn,
         "e2m1": ml_dtypes.float4_e2m1fn}


def width(type: str) -> int:
    """Bytes of a scalar type."""
    return int(type.lstrip("bfsu")) // 8


def convert(line: str, register: str, *operands: np.ndarray) -> np.ndarray:
    """The bits that `cvt… %d, …` leaves in a register, for operands as bits."""
    inputs = {f"%x{k}": x for k, x in enumerate(operands)}
    registers = {name: f"b{8 * x.itemsize}" for name, x in inputs.items()} | {"%d": register}
    out = run_line(f"{line} %d, {', '.join(inputs)}", registers, inputs)["%d"]
    return out.view(f"u{out.itemsize}")[0]


def operands(f: exact.Format, seed: int, random: int = 600) -> np.ndarray:
    """Special numbers, random ones, and many of middling size, where integers are."""
    bits = exact.operand_bits(f, 2, random, seed)[0]
    special = np.array(exact.special_bits(f), bits.dtype)
    rng = np.random.default_rng(seed)
    halves = np.concatenate([np.arange(-600, 600) / 2, rng.integers(-70000, 70000, 200) / 2,
                             np.ldexp(rng.uniform(-1, 1, 300), rng.integers(0, 66, 300)),
                             *(base + np.arange(-3, 4) / 2 for power in (7, 8, 15, 16, 31, 32, 63,
                                                                         64)
                               for base in (2.0 ** power, -2.0 ** power))])
    return np.concatenate([special, bits[-random:],
                           np.array([f.encode(x) for x in halves.tolist()], bits.dtype)])


# -- integers -------------------------------------------------------------------------------------

def whole(x: float, mode: str) -> int:
    return {"rni": round, "rzi": int, "rmi": floor, "rpi": ceil}[mode](x)


@pytest.mark.parametrize("source", list(FLOATS))
@pytest.mark.parametrize("to", list(INTEGERS))
def test_floats_to_integers_are_clamped(to, source):
    bits = operands(FLOATS[source], seed=1)
    values = [FLOATS[source].decode(int(b)) for b in bits]
    limits = np.iinfo(INTEGERS[to])
    mask = (1 << limits.bits) - 1
    of_nan = 1 << (limits.bits - 1) if source == "f64" or limits.bits == 64 else 0
    for mode in ("rni", "rzi", "rmi", "rpi"):
        want = []
        for x in values:
            if isnan(x):
                want.append(of_nan)
            else:
                clamped = x if isinf(x) else whole(x, mode)
                want.append(int(min(max(clamped, limits.min), limits.max)) & mask)
        got = convert(f"cvt.{mode}.{to}.{source}", f"b{limits.bits}", bits)
        assert np.array_equal(got, np.array(want, np.uint64)), mode
    # without anything out of range the conversion takes another way
    kept = np.array([not isnan(x) and limits.min <= x <= limits.max // 2 for x in values])
    want = [int(x) & mask for x, k in zip(values, kept, strict=True) if k]
    got = convert(f"cvt.rzi.{to}.{source}", f"b{limits.bits}", bits[kept])
    assert np.array_equal(got, np.array(want, np.uint64))


def integers(type: str) -> np.ndarray:
    """Around zero, the powers of two, and the limits; random ones; ties of every float."""
    limits = np.iinfo(INTEGERS[type])
    rng = np.random.default_rng(2)
    near = [0, *(s * (1 << k) + d for k in range(65) for s in (-1, 1) for d in (-1, 0, 1))]
    for precision in (8, 11, 24, 53):
        for k in range(precision, 64):
            tie = (1 << k) + (1 << (k - precision))
            near += [s * (tie + d + (e << (k - precision + 1))) for s in (-1, 1)
                     for d in (-1, 0, 1) for e in (0, 1)]
    near += [65504, 65519, 65520, 65536, -65519, -65520, limits.min, limits.max]
    inside = sorted({v for v in near if limits.min <= v <= limits.max})
    random = rng.integers(limits.min, limits.max, 300, INTEGERS[type], endpoint=True)
    return np.concatenate([np.array(inside, INTEGERS[type]), random])


@pytest.mark.parametrize("source", list(INTEGERS))
@pytest.mark.parametrize("to", list(FLOATS))
def test_integers_to_floats_round_once(to, source):
    values, f = integers(source), FLOATS[to]
    for mode in MODES:
        want = [f.encode(Fraction(int(v)), mode) for v in values]
        got = convert(f"cvt.{mode}.{to}.{source}", f"b{8 * width(to)}", values)
        assert np.array_equal(got, np.array(want, np.uint64)), mode
    want = [f.encode(float(min(max(int(v), 0), 1))) for v in values]
    got = convert(f"cvt.rn.sat.{to}.{source}", f"b{8 * width(to)}", values)
    assert np.array_equal(got, np.array(want, np.uint64))


@pytest.mark.parametrize("source", list(INTEGERS))
@pytest.mark.parametrize("to", list(INTEGERS))
def test_integers_wrap_or_saturate(to, source):
    values, limits = integers(source), np.iinfo(INTEGERS[to])
    mask = (1 << limits.bits) - 1
    want = np.array([int(v) & mask for v in values], np.uint64)
    assert np.array_equal(convert(f"cvt.{to}.{source}", f"b{limits.bits}", values), want)
    want = np.array([min(max(int(v), limits.min), limits.max) & mask for v in values], np.uint64)
    assert np.array_equal(convert(f"cvt.sat.{to}.{source}", f"b{limits.bits}", values), want)


def test_registers_may_be_wider_than_the_types():
    registers = {"%a": "b32", "%s": "s16", "%l": "b64"}
    words = np.array([0x12345680, 0x1234007f], np.uint32)
    out = run_line("cvt.s16.s8 %s, %a; cvt.s8.s32 %l, %a", registers, {"%a": words})
    assert out["%s"].tolist() == [[-128, 127]]
    assert out["%l"].view(np.int64).tolist() == [[-128, 127]]
    out = run_line("cvt.rn.f16.f32 %l, %a", registers, {"%a": np.float32([1, -2])})
    assert out["%l"].tolist() == [[0x3c00, 0xc000]]
    out = run_line("cvt.u64.u16 %l, %a; cvt.rn.f32.u8 %a, %a", registers, {"%a": words})
    assert out["%l"].tolist() == [[0x5680, 0x7f]]
    assert out["%a"].view(np.float32).tolist() == [[128, 127]]


@pytest.mark.parametrize("type", ["u16", "s16", "u8", "s8", "u4", "s4", "u2", "s2"])
def test_pack_saturates_two_integers_below_a_third(type):
    bits, signed = int(type[1:]), type[0] == "s"
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    a, b = np.meshgrid([low - 1, low, -1, 0, 1, high, high + 1, 2**31 - 1, -2**31],
                       [-3, 0, 5, 70000])
    a, b = a.ravel().astype(np.int32), b.ravel().astype(np.int32)
    c = np.arange(a.size, dtype=np.uint32) * 0x9e3779b1
    clamp = [np.clip(x.astype(np.int64), low, high) & ((1 << bits) - 1) for x in (a, b)]
    want = clamp[0] << bits | clamp[1]
    if bits == 16:
        got = convert(f"cvt.pack.sat.{type}.s32", "b32", a, b)
    else:
        want = (want | c.astype(np.int64) << (2 * bits)) & 0xffffffff
        got = convert(f"cvt.pack.sat.{type}.s32.b32", "b32", a, b, c)
    assert np.array_equal(got, want)


# -- floats ---------------------------------------------------------------------------------------

def thresholds(f: exact.Format, source: exact.Format) -> np.ndarray:
    """Numbers of the source format on, next to, and halfway between numbers of the other."""
    codes = [c + d for c in exact.special_bits(f) for d in (0, 1)
             if c & (f.sign - 1) < f.infinity]
    values = []
    for code in codes:
        low, high = f.decode(code), f.decode(code + 1)
        if isnan(low) or isnan(high) or isinf(high):
            low, high = f.decode(f.infinity - 2), f.decode(f.infinity - 1)
            high, low = high + (high - low) if f.exponent < 11 else high, high
        middle = low + (high - low) / 2
        values += [low, high, middle]
    bits = [source.encode(x) for x in values]
    near = [b + d for b in bits for d in (-1, 0, 1) if 0 <= b + d < 2 * source.sign]
    return np.array(near, f"u{(source.sign << 1).bit_length() // 8}")


@pytest.mark.parametrize("source", list(FLOATS))
@pytest.mark.parametrize("to", list(FLOATS))
def test_floats_to_floats_round_once(to, source):
    f, g = FLOATS[to], FLOATS[source]
    bits = np.concatenate([operands(g, seed=3), thresholds(f, g)])
    values = [g.decode(int(b)) for b in bits]
    register = f"b{8 * width(to)}"
    if to == source:
        for mode in ("rni", "rzi", "rmi", "rpi"):
            want = [f.encode(whole_float(x, mode)) for x in values]
            compare(f, convert(f"cvt.{mode}.{to}.{source}", register, bits), want)
        return
    shorter = f.precision < g.precision or f.exponent < g.exponent
    for mode in MODES if shorter else [""]:
        want = [f.encode(x, mode or "rn") for x in values]
        got = convert(f"cvt{mode and '.' + mode}.{to}.{source}", register, bits)
        compare(f, got, want)
        if to != "bf16":
            got = convert(f"cvt{mode and '.' + mode}.sat.{to}.{source}", register, bits)
            compare(f, got, [f.encode(0.0 if isnan(x) or x <= 0 else min(x, 1.0), mode or "rn")
                             for x in values])


def whole_float(x: float, mode: str) -> float:
    if isnan(x) or isinf(x):
        return x
    return float(np.copysign(float(whole(x, mode)), x))


def compare(f: exact.Format, got: np.ndarray, want: list[int]) -> None:
    """Equal bits; any NaN of float32 and float64 will do."""
    got, want = got.astype(np.uint64), np.array(want, np.uint64)
    wrong = got != want
    if f.precision >= 24:
        wrong &= ~((got & np.uint64(f.sign - 1)) > f.infinity) | (
            want & np.uint64(f.sign - 1) != f.nan)
    assert not wrong.any(), [(hex(g), hex(w)) for g, w in zip(got[wrong], want[wrong],
                                                              strict=True)][:5]


def test_flushing_applies_to_float32_only():
    tiny = np.array([1e-40, -1e-40], np.float32).view(np.uint32)
    assert convert("cvt.ftz.f64.f32", "b64", tiny).view(np.float64).tolist() == [0, 0]
    assert np.signbit(convert("cvt.ftz.f64.f32", "b64", tiny).view(np.float64)).tolist() == [
        False, True]
    assert convert("cvt.rpi.ftz.f32.f32", "f32", tiny).tolist() == [0, 0x80000000]
    assert convert("cvt.rpi.f32.f32", "f32", tiny).tolist() == [0x3f800000, 0x80000000]
    assert convert("cvt.rpi.ftz.s32.f32", "s32", tiny).tolist() == [0, 0]
    assert convert("cvt.rpi.s32.f32", "s32", tiny).tolist() == [1, 0]
    wide = np.array([1e-40, -1e-40]).view(np.uint64)
    assert convert("cvt.rn.ftz.f32.f64", "f32", wide).tolist() == [0, 0x80000000]
    assert (convert("cvt.rn.f32.f64", "f32", wide).view(np.float32) != 0).all()
    small = np.array([0x0001, 0x8001], np.uint16)
    assert convert("cvt.ftz.f32.f16", "f32", small).view(np.float32).tolist() == [2.0 ** -24,
                                                                                   -2.0 ** -24]
    assert convert("cvt.ftz.f32.bf16", "f32", small).tolist() == [0, 0x80000000]
    assert convert("cvt.f32.bf16", "f32", small).tolist() == [0x10000, 0x80010000]
    for ftz in ("", ".ftz"):  # an H200 does not flush for float16, whatever the manual says
        assert convert(f"cvt.rp{ftz}.f16.f32", "b16", tiny).tolist() == [1, 0x8000]
        assert convert(f"cvt.rm{ftz}.f16.f32", "b16", tiny).tolist() == [0, 0x8001]
    assert convert("cvt.rp.bf16.f32", "b16", tiny).tolist() == [2, 0x8001]
    assert convert("cvt.rp.ftz.bf16.f32", "b16", tiny).tolist() == [0, 0x8000]


# -- packed and short floats from float32 ----------------------------------------------------------

def clamped(f: exact.Format, x: float, mode: str, relu: bool, finite: bool) -> int:
    bits = f.encode(x, mode, finite)
    return 0 if relu and not isnan(x) and bits & f.sign else bits


MODIFIERS = [("", ""), (".relu", ""), ("", ".satfinite"), (".relu", ".satfinite")]


@pytest.mark.parametrize(("relu", "finite"), MODIFIERS)
@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_pairs_of_halves(type, relu, finite):
    f, g = FLOATS[type], FLOATS["f32"]
    bits = np.concatenate([operands(g, seed=4), thresholds(f, g)])
    values = [g.decode(int(b)) for b in bits]
    for mode in ("rn", "rz"):
        want = np.array([clamped(f, x, mode, bool(relu), bool(finite)) for x in values], np.uint32)
        got = convert(f"cvt.{mode}{relu}{finite}.{type}.f32", "b16", bits)
        assert np.array_equal(got, want)
        got = convert(f"cvt.{mode}{relu}{finite}.{type}x2.f32", "b32", bits[::-1], bits)
        assert np.array_equal(got, want[::-1] << 16 | want)


@pytest.mark.parametrize(("relu", "finite"), MODIFIERS)
@pytest.mark.parametrize("mode", ["rna", "rn", "rz"])
def test_tf32(mode, relu, finite):
    f, g = exact.FORMATS["tf32"], FLOATS["f32"]
    bits = np.concatenate([operands(g, seed=5), thresholds(f, g)])
    values = [g.decode(int(b)) for b in bits]
    got = convert(f"cvt.{mode}{relu}{finite}.tf32.f32", "b32", bits)
    want = [clamped(f, x, mode, bool(relu), bool(finite)) for x in values]
    number = np.array([not isnan(x) for x in values])
    assert np.array_equal(got[number], np.array(want, np.uint32)[number] << 13)
    if mode == "rna" and not relu:  # cut, as on an H200
        cut = (bits[~number] & 0xffffe000) - (0x2000 if finite else 0)
        assert np.array_equal(got[~number], cut)
    elif mode != "rna":
        assert (got[~number] == 0x7fffffff).all()


# -- eight bits and fewer -------------------------------------------------------------------------

def code(name: str, x: float, mode: str = "rn", relu: bool = False) -> int:
    f = exact.FORMATS[name]
    if isnan(x):
        return f.nan
    bits = f.encode(x, mode, finite=True)
    return 0 if relu and bits & f.sign else bits


def joined(name: str, high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return high.astype(np.uint16) << (4 if name == "e2m1" else 8) | low


@pytest.mark.parametrize("source", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", list(SMALL))
def test_small_formats(name, source):
    f, g = exact.FORMATS[name], FLOATS[source]
    register = "b8" if name == "e2m1" else "b16"
    bits = np.arange(65536, dtype=np.uint16)[::7] if source != "f32" else np.concatenate(
        [operands(g, seed=6), thresholds(f, g)])
    values = [g.decode(int(b)) for b in bits]
    for mode in ("rn", "rz"):
        for relu in ("", ".relu"):
            want = np.array([code(name, x, mode, bool(relu)) for x in values], np.uint8)
            op = f"cvt.{mode}.satfinite{relu}.{name}x2"
            if source == "f32":
                got = convert(f"{op}.f32", register, bits[::-1], bits)
            else:
                words = bits[::-1].astype(np.uint32) << 16 | bits
                got = convert(f"{op}.{source}x2", register, words)
            assert np.array_equal(got, joined(name, want[::-1], want))
    # and once more by another's rounding, within the range where both do the same
    x = np.array(values, np.float32)
    inside = np.abs(x) <= f.decode(f.infinity - 1)
    x[~inside] = 0
    theirs = x.astype(SMALL[name]).view(np.uint8)
    ours = np.array([code(name, v) for v in x.tolist()], np.uint8)
    assert np.array_equal(theirs, ours)


@pytest.mark.parametrize("to", ["f16", "bf16"])
@pytest.mark.parametrize("name", list(SMALL))
def test_small_formats_back(name, to):
    f, g = exact.FORMATS[name], FLOATS[to]
    codes = np.arange(2 * f.sign, dtype=np.uint8)
    words = joined(name, codes[::-1], codes)
    want = [g.encode(f.decode(int(c))) for c in codes]
    theirs = codes.view(SMALL[name]).astype(np.float32)
    assert [g.encode(x) for x in theirs.tolist()] == want
    words = words.astype(np.uint8) if name == "e2m1" else words
    for relu in ("", ".relu"):
        if relu:
            want = [0 if w & g.sign and w & (g.sign - 1) <= g.infinity else w for w in want]
        got = convert(f"cvt.rn{relu}.{to}x2.{name}x2", "b32", words)
        assert np.array_equal(got & 0xffff, want)
        assert np.array_equal(got >> 16, want[::-1])


def exponent_code(x: float, mode: str, finite: bool) -> int:
    """The power of two not above x, or the one not below it; 2^-127 is the least."""
    if isnan(x) or isinf(x) or x == 0:
        return 255 if isnan(x) else 0 if x == 0 else 255 - finite
    part, power = frexp(x)
    power += (mode == "rp" and part > 0.5) - 1
    return min(max(power, -127) + 127, 255 - finite)


@pytest.mark.parametrize("source", ["f32", "bf16"])
def test_exponents_only(source):
    g = FLOATS[source]
    bits = operands(g, seed=7)
    if source == "f32":
        bits = np.concatenate([bits, np.array([1, 0x400000, 0x400001, 0x7f000001], np.uint32)])
    values = [abs(g.decode(int(b))) for b in bits]
    for mode in ("rz", "rp"):
        for finite in ("", ".satfinite"):
            want = [exponent_code(x, mode, bool(finite)) for x in values]
            op = f"cvt.{mode}{finite}.ue8m0x2.{source}"
            if source == "f32":
                got = convert(op, "b16", bits[::-1], bits)
            else:
                got = convert(op + "x2", "b16", bits[::-1].astype(np.uint32) << 16 | bits)
            want = np.array(want, np.uint16)
            assert np.array_equal(got, want[::-1] << 8 | want), mode + finite
    codes = np.arange(256, dtype=np.uint16)
    got = convert("cvt.rn.bf16x2.ue8m0x2", "b32", codes[::-1] << 8 | codes)
    want = [FLOATS["bf16"].encode(2.0 ** (k - 127)) for k in range(255)] + [0x7fff]
    assert np.array_equal(got, np.array(want[::-1]) << 16 | want)


@pytest.mark.parametrize("source", ["f32", "f16", "bf16"])
def test_five_bits_of_exponent_without_a_sign(source):
    f, g = exact.Format("ue5m3", 4, 5, "nan"), FLOATS[source]
    bits = np.concatenate([operands(g, seed=12), thresholds(f, g)])
    values = [abs(g.decode(int(b))) for b in bits]
    for mode in ("rn", "rz", "rp"):
        for finite in ("", ".satfinite"):
            want = np.array([f.encode(x, mode, bool(finite)) for x in values], np.uint16)
            op = f"cvt.{mode}{finite}.ue5m3x2.{source}"
            if source == "f32":
                got = convert(op, "b16", bits[::-1], bits)
            else:
                got = convert(op + "x2", "b16", bits[::-1].astype(np.uint32) << 16 | bits)
            assert np.array_equal(got, want[::-1] << 8 | want), mode + finite
    codes = np.arange(256, dtype=np.uint16)
    got = convert("cvt.rn.bf16x2.ue5m3x2", "b32", codes)
    assert np.array_equal(got & 0xffff, [FLOATS["bf16"].encode(f.decode(int(c))) for c in codes])


# -- stochastic rounding --------------------------------------------------------------------------

def stochastic(f: exact.Format, x: float, random: int, bits: int, relu: bool) -> int:
    """Add the random bits just below the last one that the format keeps, and cut."""
    if isnan(x) or isinf(x):
        return code_or_nan(f, x, relu)
    size = Fraction(abs(x))
    cut = f.encode(float(size), "rz", finite=True)
    low = Fraction(f.decode(cut))
    unit = Fraction(f.decode(max(cut, 1))) - Fraction(f.decode(max(cut, 1) - 1))
    if cut >= 1 << (f.precision - 1) and cut % (1 << (f.precision - 1)) == 0:
        unit = Fraction(f.decode(cut + 1)) - low if cut + 1 < f.infinity else unit * 2
    up = (size - low) / unit + Fraction(random, 1 << bits) >= 1
    result = min(cut + up, f.infinity - 1)
    if np.signbit(x):
        return 0 if relu else result | f.sign
    return result


def code_or_nan(f: exact.Format, x: float, relu: bool) -> int:
    bits = f.nan if isnan(x) else f.encode(x, finite=True)
    return 0 if relu and bits & f.sign else bits


@pytest.mark.parametrize("relu", ["", ".relu"])
@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_stochastic_rounding_to_halves(type, relu):
    f, g, bits = FLOATS[type], FLOATS["f32"], 13 if type == "f16" else 16
    x = operands(g, seed=8)
    values = [g.decode(int(b)) for b in x]
    random = np.random.default_rng(9).integers(0, 1 << 32, x.size, np.uint32)
    random[::3] = 0
    got = convert(f"cvt.rs{relu}.satfinite.{type}x2.f32", "b32", x, x, random)
    mask = (1 << bits) - 1
    for shift in (16, 0):
        want = [stochastic(f, v, int(r) >> shift & mask, bits, bool(relu))
                for v, r in zip(values, random, strict=True)]
        assert np.array_equal(got >> shift & 0xffff, want)


@pytest.mark.parametrize("name", list(SMALL))
def test_stochastic_rounding_to_small_formats(name):
    f, g = exact.FORMATS[name], FLOATS["f32"]
    x = np.concatenate([operands(g, seed=10), thresholds(f, g)])
    values = [g.decode(int(b)) for b in x]
    random = np.random.default_rng(11).integers(0, 1 << 32, x.size, np.uint32)
    width = 4 if name == "e2m1" else 8
    registers = {"%a": "f32", "%b": "f32", "%r": "b32", "%d": f"b{4 * width}"}
    out = run_line(f"cvt.rs.satfinite.{name}x4.f32 %d, {{%a, %b, %b, %a}}, %r", registers,
                   {"%a": x, "%b": x[::-1], "%r": random})["%d"][0]
    for place, operand in ((3, values), (2, values[::-1]), (1, values[::-1]), (0, values)):
        want = []
        for v, r in zip(operand, random.tolist(), strict=True):
            if name == "e2m1":
                r = (r >> 8 if place >= 2 else r) & 0xff00ff
                r = r >> 8 | r & 0xff
            else:
                r = r >> 16 if place >= 2 else r & 0xffff
            want.append(stochastic(f, v, r, 16, False))
        assert np.array_equal(out >> (width * place) & ((1 << width) - 1), want), place


# -- refusals -------------------------------------------------------------------------------------

@pytest.mark.parametrize("line", [
    "cvt.s32 %i, %a", "cvt.rn.rz.f16.f32 %h, %a", "cvt.rn.s32.f32 %i, %a", "cvt.rni.f32.s32 %a, %i",
    "cvt.rni.f16.f32 %h, %a", "cvt.rna.f16.f32 %h, %a", "cvt.rm.tf32.f32 %i, %a",
    "cvt.rn.f16x2.f32 %i, %a", "cvt.rs.f16x2.f32 %i, %a, %a", "cvt.rn.e4m3x2.f32 %h, %a",
    "cvt.rm.satfinite.e4m3x2.f32 %h, %a, %a", "cvt.rn.satfinite.e4m3x4.f32 %i, {%a, %a, %a, %a}",
    "cvt.rs.satfinite.e4m3x4.f32 %i, {%a, %a}, %i", "cvt.rz.f16x2.e4m3x2 %i, %h",
    "cvt.rn.f32.e4m3x2 %a, %h", "cvt.rn.satfinite.f32.f64 %a, %g", "cvt.rn.f32.f64 %a, %g, %g",
    "cvt.rn.s2f6x2.f32 %h, %a, %a", "cvt.pack.s16.s32 %i, %i, %i", "cvt.pack.sat.u8.s32 %i, %i, %i",
    "cvt.pack.sat.u16.s32.b32 %i, %i, %i, %i", "cvt.rn.ftx.f16.f32 %h, %a"])
def test_what_ptx_does_not_have_is_refused(line):
    registers = {"%a": "f32", "%g": "f64", "%h": "b16", "%i": "b32"}
    inputs = {"%a": np.float32([1]), "%g": np.float64([1]), "%h": np.uint16([1]),
              "%i": np.uint32([1])}
    with pytest.raises(UnsupportedError, match=r"test\.cu:1"):
        run_line(line, registers, inputs)


def test_constants_are_converted():
    registers = {"%a": "f32", "%h": "b16", "%l": "s64"}
    out = run_line("cvt.rn.f16.f32 %h, 0f3FC00000; cvt.rzi.s64.f32 %l, 0fC0200000; "
                   "cvt.rn.f32.s32 %a, -7", registers, {"%a": np.float32([0])})
    assert out["%h"].tolist() == [[0x3e00]]
    assert out["%l"].tolist() == [[-2]]
    assert out["%a"].tolist() == [[-7]]


def test_nan_and_infinity_of_both_signs_are_canonical_in_short_formats():
    x = np.array([nan, -nan, inf, -inf], np.float32)
    x.view(np.uint32)[1] = 0xff800001
    bits = x.view(np.uint32)
    assert convert("cvt.rn.f16.f32", "b16", bits).tolist() == [0x7fff, 0x7fff, 0x7c00, 0xfc00]
    assert convert("cvt.rn.bf16.f32", "b16", bits).tolist() == [0x7fff, 0x7fff, 0x7f80, 0xff80]
    assert convert("cvt.rz.bf16.f32", "b16", bits).tolist() == [0x7fff, 0x7fff, 0x7f80, 0xff80]
