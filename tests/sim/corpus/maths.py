"""Mathematical functions, wide integers, bits."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from sim.corpus.program import program

from mlgpu import sim

Array = np.ndarray[Any, Any]


def _check(name: str, found: Array, exact: Array, ulps: float) -> None:
    """Within so many units in the last place of the exact value; infinities and NaN as they are."""
    with np.errstate(over="ignore"):
        rounded = exact.astype(found.dtype)
    finite = np.isfinite(rounded)
    assert_array_equal(found[~finite], rounded[~finite], name)
    error = np.abs(found[finite].astype(exact.dtype) - exact[finite])
    allowed = ulps * np.spacing(np.abs(rounded[finite])).astype(exact.dtype)
    worst = (error / allowed).max()
    assert worst <= 1, f"{name}: {worst * ulps:.2f} units in the last place"


# The bounds of the CUDA programming guide; half a unit more for the rounding of the reference.
FLOAT = [("expf", np.exp, 2), ("expm1f", np.expm1, 2), ("logf", np.log, 2), ("log1pf", np.log1p, 2),
         ("tanhf", np.tanh, 3), ("erff", special.erf, 3), ("erfcf", special.erfc, 5),
         ("sinf", np.sin, 2.5), ("cosf", np.cos, 2.5), ("tanf", np.tan, 4.5),
         ("atanf", np.arctan, 2.5), ("asinhf", np.arcsinh, 3.5), ("cbrtf", np.cbrt, 1.5),
         ("exp2f", np.exp2, 2.5), ("log2f", np.log2, 1.5), ("lgammaf", special.gammaln, 6.5),
         ("normcdff", special.ndtr, 5.5), ("sqrtf", np.sqrt, 0.501),
         ("rsqrtf", lambda x: 1 / np.sqrt(x), 2.5), ("1/x", lambda x: 1 / x, 0.501)]


@program("maths.cu")
def float_functions(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-9, 9, 60), rng.uniform(0, 2, 30), 10 ** rng.uniform(-6, 1, 30),
                        [0.0, 1.0, -1.0, 2.0, 1e-40, 3e-39, 87.5, -20.0, np.inf, np.nan]])
    x = x.astype(np.float32)
    n = x.size
    out = m.empty((n, 20), np.float32)
    mod.kernel("float_functions").launch(5, 32, (out, m.array(x), np.int32(n)))
    found = out.numpy()
    with np.errstate(all="ignore"):
        for k, (name, function, ulps) in enumerate(FLOAT):
            used = np.isfinite(x) | np.isnan(x) if name in ("sinf", "cosf", "tanf") else x == x
            if name == "lgammaf":
                used = used & (x >= 0)
            _check(name, found[used, k], function(x[used].astype(np.float64)), ulps)
            assert np.isnan(found[np.isnan(x), k]).all()
    assert np.isnan(found[np.isinf(x)][:, 7:10]).all()


@program("maths.cu")
def big_angles(m: sim.Machine, mod: Any) -> None:
    x = np.array([1e5, -1.2e5, 3.3e6, 1e8, -7.7e12, 1e20, 3.4e38, 105615.0, 0.5, 48039.0],
                 np.float32)
    out = m.empty((x.size, 2), np.float32)
    mod.kernel("big_angles").launch(1, 32, (out, m.array(x), np.int32(x.size)))
    wide = x.astype(np.float64)
    _check("sincosf", out.numpy(), np.stack([np.sin(wide), np.cos(wide)], 1), 2.5)


@program("maths.cu")
def two_arguments(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(1)
    n = 90
    x, y = rng.uniform(-9, 9, (2, n)).astype(np.float32)
    x[::3] = np.abs(x[::3])
    y[::5] = np.rint(y[::5])
    x[:6], y[:6] = [0, 1, -2, 1e-38, 1e30, -0.0], [0, 1e30, 3, -3, 1e-3, -1]
    out = m.empty((n, 8), np.float32)
    mod.kernel("two_arguments").launch(3, 32, (out, m.array(x), m.array(y), np.int32(n)))
    found, a, b = out.numpy(), x.astype(np.float64), y.astype(np.float64)
    with np.errstate(all="ignore"):
        _check("powf", found[:, 0], np.power(a, b), 8)
        _check("atan2f", found[:, 1], np.arctan2(a, b), 3.5)
        _check("hypotf", found[:, 2], np.hypot(a, b), 3.5)
        assert_array_equal(found[:, 3], np.fmod(a, b))
        rest = [math.remainder(p, q) if q else np.nan for p, q in zip(a, b, strict=True)]
        assert_array_equal(found[:, 4], rest)
        power = np.clip(b, -2**31, 2**31 - 1).astype(np.int64)
        assert_array_equal(found[:, 5], np.ldexp(a, np.clip(power, -999, 999)).astype(np.float32))
        assert_array_equal(found[:, 6], np.nextafter(x, y))
        _check("division", found[:, 7], a / b, 0.501)


def _down(exact: Array) -> Array:
    near = exact.astype(np.float32)
    return np.where(near > exact, np.nextafter(near, np.float32(-np.inf)), near)


def _up(exact: Array) -> Array:
    return -_down(-exact)


def _towards_zero(exact: Array) -> Array:
    return np.where(exact > 0, _down(exact), _up(exact))


@program("maths.cu")
def roundings(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(2)
    n = 100
    x, y = (rng.choice([-1, 1], (2, n)) * 2 ** rng.uniform(-9, 9, (2, n))).astype(np.float32)
    x[:8] = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.25, 3.0]
    f, k = m.empty((n, 16), np.float32), m.empty((n, 6), np.int32)
    mod.kernel("roundings").launch(4, 32, (f, k, m.array(x), m.array(y), np.int32(n)))
    a, b = x.astype(np.float64), y.astype(np.float64)
    expected = [np.floor(a), np.ceil(a), np.trunc(a), np.rint(a),
                np.trunc(a + np.copysign(0.5, a)), _down(a + b), _up(a + b), _towards_zero(a + b),
                _down(a * b), _up(a * b), _down(a / b), _up(a / b),
                _towards_zero(np.sqrt(np.abs(a))), (a * b + 1).astype(np.float32),
                np.clip(x, 0, 1), np.copysign(y, x)]
    assert_array_equal(f.numpy(), np.stack(expected, 1))
    whole = [np.rint(a), np.floor(a), np.ceil(a), np.trunc(a), np.maximum(np.rint(a), 0),
             np.rint(b)]
    assert_array_equal(k.numpy(), np.stack(whole, 1))


# Relative tolerances: what the guide states, and what SciPy's own functions are good for.
DOUBLE = [("exp", np.exp, 1e-15), ("log", lambda x: np.log(np.abs(x)), 1e-15),
          ("sin", np.sin, 1e-15), ("cos", np.cos, 1e-15), ("erf", special.erf, 2e-15),
          ("lgamma", special.gammaln, 1e-13), ("tgamma", special.gamma, 1e-13),
          ("pow", lambda x: np.abs(x) ** 1.7, 2e-15), ("tanh", np.tanh, 1e-15),
          ("sqrt", lambda x: np.sqrt(np.abs(x)), 1e-16), ("1/x", lambda x: 1 / x, 1e-16),
          ("cbrt", np.cbrt, 1e-15), ("expm1", np.expm1, 1e-15),
          ("fmod", lambda x: np.fmod(x, 0.7), 0)]


@program("maths.cu")
def double_functions(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(-15, 15, 40), rng.uniform(0, 3, 20),
                        10 ** rng.uniform(-9, 1, 9),
                        [0.0, 1.0, 2.5, 1e-310, 1e5, -3e6, 1e22, np.nan]])
    out = m.empty((x.size, 14), np.float64)
    mod.kernel("double_functions").launch(3, 32, (out, m.array(x), np.int32(x.size)))
    with np.errstate(all="ignore"):
        for k, (name, function, rtol) in enumerate(DOUBLE):
            used = (x > -1e5) | (x != x)  # the gamma functions have poles there
            if name == "lgamma":  # SciPy's gives an infinity for subnormals
                used &= (x < 1e15) & ((np.abs(x) > 1e-300) | (x == 0))
            found, exact = out.numpy()[used, k], function(x[used])
            assert_allclose(found, exact, rtol=rtol, atol=1e-15 if name == "lgamma" else 0,
                            err_msg=name)
    assert np.isnan(out.numpy()[-1]).all()
    assert_allclose(out.numpy()[-3, 2:4], [np.sin(-3e6), np.cos(-3e6)], rtol=1e-15)


@program("maths.cu")
def approximations(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(4)
    x = rng.uniform(0.01, 3, 80).astype(np.float32)
    out = m.empty((80, 8), np.float32)
    mod.kernel("approximations").launch(3, 32, (out, m.array(x), np.int32(80)))
    found, v = out.numpy(), x.astype(np.float64)
    for k, (exact, rtol, atol) in enumerate((
            (np.exp(v), 1e-6, 0), (np.log(v), 5e-7, 4e-7), (np.sin(v), 0, 4e-7),
            (np.cos(v), 0, 4e-7), (v**1.5, 3e-6, 0), (1 / v, 3e-7, 0), (np.log2(v), 5e-7, 4e-7),
            (10**v, 2e-6, 0))):
        assert_allclose(found[:, k], exact, rtol=rtol, atol=atol)


def _softplus(m: sim.Machine, mod: Any, rtol: float) -> None:
    x = np.random.default_rng(5).uniform(-3, 25, 70).astype(np.float32)
    out = m.empty(70, np.float32)
    mod.kernel("softplus").launch(3, 32, (out, m.array(x), np.int32(70)))
    v = x.astype(np.float64)
    expected = np.where(v > 20, v, np.log1p(np.exp(v)) / np.sqrt(2 + np.sin(v)))
    assert_allclose(out.numpy(), expected, rtol=rtol)


@program("maths.cu")
def softplus(m: sim.Machine, mod: Any) -> None:
    _softplus(m, mod, 3e-6)


@program("maths.cu", options=("--use_fast_math",))
def softplus_fast(m: sim.Machine, mod: Any) -> None:
    _softplus(m, mod, 1e-5)


def _signed(v: int) -> int:
    return (v + 2**63) % 2**64 - 2**63


def _quotient(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


@program("maths.cu")
def wide_integers(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(6)
    n = 80
    x, y = rng.integers(0, 2**64, (2, n), np.uint64)
    y[::3] >>= np.uint64(40)
    x[::4] >>= np.uint64(35)
    y |= np.uint64(1 << 9)
    out = m.empty((n, 10), np.uint64)
    mod.kernel("wide_integers").launch(3, 32, (out, m.array(x), m.array(y), np.int32(n)))
    expected = []
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        s, shift, small = _signed(a), b & 63, b >> 40 | 3
        row = [a * b, a * b >> 64, s * _signed(b) >> 64, a // b, a % b,
               _quotient(s, _signed(b | 1)), s - _quotient(s, small) * small, a >> shift,
               s >> shift, (a << shift) ^ (a >> 32)]
        expected.append([v % 2**64 for v in row])
    assert_array_equal(out.numpy(), np.array(expected, np.uint64))


@program("maths.cu", options=("--device-int128",))
def power_modulo(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(7)
    n = 20
    base, exponent = rng.integers(0, 2**64, n, np.uint64), rng.integers(0, 2**10, n, np.uint32)
    out = m.empty(n, np.uint64)
    for modulus in (2**61 - 1, 1_000_000_007):
        args = out, m.array(base), m.array(exponent), np.uint64(modulus), np.int32(n)
        mod.kernel("power_modulo").launch(1, 32, args)
        expected = [pow(b, e, modulus) for b, e in zip(base.tolist(), exponent.tolist(),
                                                       strict=True)]
        assert_array_equal(out.numpy(), np.array(expected, np.uint64))


@program("maths.cu")
def add_256(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(8)
    n = 40
    x, y = rng.integers(0, 2**32, (2, n, 8), np.uint32)
    y[::2] = ~x[::2]  # the carry runs through all words
    y[::2, 0] += np.uint32(1)
    out = m.empty((n, 8), np.uint32)
    mod.kernel("add_256").launch(2, 32, (out, m.array(x), m.array(y), np.int32(n)))
    for a, b, found in zip(x, y, out.numpy(), strict=True):
        numbers = [int.from_bytes(v.tobytes(), "little") for v in (a, b, found)]
        assert (numbers[0] + numbers[1]) % 2**256 == numbers[2]


@program("maths.cu")
def bit_tricks(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(9)
    n = 70
    x, y = rng.integers(0, 2**32, (2, n), np.uint32)
    x[:3], y[:4] = [0, 1, 2**31], [0, 32, 63, 31]
    x[10:30] >>= rng.integers(0, 32, 20, np.uint32)
    out = m.empty((n, 20), np.uint32)
    mod.kernel("bit_tricks").launch(3, 32, (out, m.array(x), m.array(y), np.int32(n)))

    def bytes_of(a: int, b: int, selector: int) -> int:
        return sum(((b << 32 | a) >> 8 * (selector >> 4 * k & 7) & 255) << 8 * k for k in range(4))

    expected = []
    for a, b in zip(x.tolist(), y.tolist(), strict=True):
        wide, both, s, t = a << 32 | b, b << 32 | a, _signed(a << 32) >> 32, _signed(b << 32) >> 32
        shift, clamped = b & 31, min(b & 63, 32)
        row = [int(f"{a:032b}"[::-1], 2), a.bit_count(), (a & -a).bit_length(),
               32 - a.bit_length(), bytes_of(a, b, 0x6420), bytes_of(a, b, b & 0x7777),
               both << shift >> 32, both >> shift, both << clamped >> 32, both >> clamped,
               wide.bit_count(), 64 - wide.bit_length(), (wide & -wide).bit_length(),
               int(f"{wide:064b}"[::-1], 2) >> 16, a * b >> 32, s * t >> 32, abs(s - t) + 5,
               abs(a - b) + 5, (a & b) | (~a & ~b & 0x0F0F0F0F),
               (a & 0xFFFFFF) * (b & 0xFFFFFF) + (s + t >> 1) + (a + b + 1 >> 1)]
        expected.append([v % 2**32 for v in row])
    assert_array_equal(out.numpy(), np.array(expected, np.uint32))


@program("maths.cu")
def bit_fields(m: sim.Machine, mod: Any) -> None:
    rng = np.random.default_rng(10)
    n = 80
    x = rng.integers(0, 2**32, n, np.uint32)
    x[:3] = 0, 2**32 - 1, 1
    position, length = rng.integers(0, 40, (2, n))
    length[:9:2] = 0
    places = (position | length << 8).astype(np.uint32)
    out = m.empty((n, 5), np.uint32)
    mod.kernel("bit_fields").launch(3, 32, (out, m.array(x), m.array(places), np.int32(n)))
    expected = []
    for a, p, k in zip(x.tolist(), position.tolist(), length.tolist(), strict=True):
        field = a >> p & (1 << k) - 1
        sign = a >> min(p + k - 1, 31) & 1 if k else 0
        have = max(0, min(k, 32 - p))
        signed = field | (-1 << have if sign else 0)
        window = ((1 << k) - 1) << p & 0xFFFFFFFF
        top = a.bit_length() - 1
        magnitude = ~a % 2**32 if a >> 31 else a
        row = [field, signed, a << p & window | ~a & ~window, top,
               31 - (magnitude.bit_length() - 1) if magnitude else -1]
        expected.append([v % 2**32 for v in row])
    assert_array_equal(out.numpy(), np.array(expected, np.uint32))


@program("maths.cu")
def crc32(m: sim.Machine, mod: Any) -> None:
    text = np.random.default_rng(11).integers(0, 256, (40, 23), np.uint8)
    out = m.empty(40, np.uint32)
    mod.kernel("crc32").launch(2, 32, (out, m.array(text), np.int32(23), np.int32(40)))
    assert_array_equal(out.numpy(), [zlib.crc32(row.tobytes()) for row in text])


@program("maths.cu")
def mandelbrot(m: sim.Machine, mod: Any) -> None:
    width, height, limit = 21, 10, 40
    out = m.empty((height, width), np.uint16)
    args = out, np.int32(width), np.int32(height), np.int32(limit)
    mod.kernel("mandelbrot").launch((3, 3), (8, 4), args)
    y, x = np.indices((height, width))
    cr, ci = -2.0 + 3.0 * x / width, -1.0 + 2.0 * y / height
    zr, zi, count = np.zeros_like(cr), np.zeros_like(cr), np.zeros(cr.shape, int)
    for _ in range(limit):
        inside = zr * zr + zi * zi <= 4
        count += inside
        zr, zi = (np.where(inside, zr * zr - zi * zi + cr, zr),
                  np.where(inside, (zr + zr) * zi + ci, zi))
    assert_array_equal(out.numpy(), count)
