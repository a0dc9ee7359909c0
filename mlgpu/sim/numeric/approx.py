"""The approximate instructions: within the bounds of the PTX manual, and no better than hardware.

Code that compares approximations for equality, takes `lg2.approx` of numbers next to one, or feeds
large or tiny angles to `sin.approx`, must fail here as it does on a GPU.  So results are cut where
hardware is not exact: angles become a fixed-point number of turns, logarithms one of bits, as on an
H200.  Powers of two and the special values of the manual's tables are exact.  Compared with an
H200, most results are the same or next to each other; `tanh` has the error that the manual allows,
of which the H200 makes 1/32.

All functions take float32 unless they say otherwise, support subnormals (the `.ftz` forms flush
before and after), and expect `np.errstate(all="ignore")` around them.
"""

from __future__ import annotations

import numpy as np

from mlgpu.sim.numeric.rounding import Array

_F4, _F8, _I4, _I8 = np.dtype("f4"), np.dtype("f8"), np.dtype("i4"), np.dtype("i8")
_ONE = np.float32(1)
_TINY = np.float32(2.0 ** -126)  # the smallest normal float32


def _cut(x: Array) -> Array:
    """float64 as float32, truncated: wrong in the last bit about half the time."""
    return (x.view(_I8) & ~np.int64(0x1fffffff)).view(_F8).astype(_F4)


def _cut_off_powers(x: Array) -> Array:
    """As `_cut`, but nothing falls on a power of two that does not lie there.

    Code that refines a reciprocal in integers (NVRTC's own 128-bit division does) relies on the
    mantissa not to wrap.
    """
    r = _cut(x).view(_I4)
    fell = (r & np.int32(0x7fffff)) == 0
    if fell.any():
        fell &= (x.view(_I8) & np.int64(0x1fffffff)) != 0
        fell &= r.view(_F4) - r.view(_F4) == 0  # infinity stays, too
        r = r + fell
    return r.view(_F4)


# -- powers and logarithms of two ------------------------------------------------------------------

# (2^f - 1) / f for f in [-1/2, 1/2], fitted to the least relative error of 2^f (2^-28.9).
_POWER = tuple(np.float32(c) for c in (
    0.00015353375, 0.0013398879, 0.0096184369, 0.055503324, 0.24022648, 0.69314718))


def _power(x: Array) -> tuple[Array, Array]:
    """The whole number n next to x, and 2^(x - n) to about one unit in the last place."""
    n = np.rint(x)
    f = x - n
    p = f * _POWER[0]
    for c in _POWER[1:]:
        p += c
        p *= f
    p += _ONE
    return n, p


def ex2(x: Array) -> Array:
    """2^x."""
    n, p = _power(np.minimum(np.maximum(x, np.float32(-151)), np.float32(128)))
    return np.ldexp(p, n.astype(_I4))


def ex2_flushed(x: Array) -> Array:
    """2^x with subnormal results as zero: the `.ftz` form, which most kernels use."""
    n, p = _power(np.minimum(np.maximum(x, np.float32(-127)), np.float32(128)))
    bits = n.astype(_I4)
    bits <<= np.int32(23)
    bits += p.view(_I4)
    r = bits.view(_F4)
    r *= (x >= np.float32(-126)).astype(_F4)  # NaN stays
    return r


_UNIT = 1.5 * 2.0 ** 30  # adding it rounds a small float64 to a multiple of 2^-22


def ex2_half(x: Array) -> Array:
    """2^x for a float16 that is cut: what is too large for one is infinite."""
    r = ex2(x)
    return np.where(r < np.float32(65536), r, r * np.float32(np.inf))


def lg2(x: Array) -> Array:
    """log2 x, by the series of the inverse hyperbolic tangent.

    What is below 2^-22 is lost, as on hardware: next to one hardly a digit is right.
    """
    bits = x.astype(_F8).view(_I8)
    e = (bits - np.int64(0x3fe6a09e00000000)) >> np.int64(52)  # from half a power of two, at sqrt 2
    m = (bits - (e << np.int64(52))).view(_F8)
    s = (m - 1) / (m + 1)
    square = s * s
    t = square * (1 / 13)
    for k in (11, 9, 7, 5, 3):
        t += 1 / k
        t *= square
    t += 1
    t *= s
    t *= 2 / np.log(2)
    t += e
    t += _UNIT
    t -= _UNIT
    r = _cut(t)
    if not (x.min(initial=1) > 0 and x.max(initial=1) < np.inf):
        r = np.where(x > 0, np.where(x == np.inf, x, r),
                     np.where(x == 0, np.float32(-np.inf), np.float32(np.nan)))
    return r


# -- reciprocals, roots, quotients -----------------------------------------------------------------

def rcp(x: Array) -> Array:
    """1 / x."""
    return _cut_off_powers(np.divide(1.0, x, dtype=_F8))


def sqrt(x: Array) -> Array:
    """The square root."""
    return _cut(np.sqrt(x, dtype=_F8))


def rsqrt(x: Array) -> Array:
    """1 / sqrt x; -inf for -0."""
    return _cut(1.0 / np.sqrt(x, dtype=_F8))


def div(a: Array, b: Array) -> Array:
    """a / b as a * (1 / b); beyond 2^126 the reciprocal is subnormal, and is taken as zero.

    A subnormal b, of which the reciprocal may be infinite, is scaled first, and a with it.
    """
    size = np.abs(b)
    tiny = size < _TINY
    if tiny.any():
        scale = np.where(tiny, np.float32(2.0 ** 24), _ONE)
        a, b = a * scale, b * scale
    near: Array = size <= np.float32(2.0 ** 126)
    return a * (_ONE / b * near.astype(_F4))


def div_full(a: Array, b: Array) -> Array:
    """a / b as a * (1 / b) with a reciprocal that has any exponent it needs."""
    exact = np.divide(1.0, b, dtype=_F8)
    bits = exact.view(_I8) + np.int64(1 << 28)
    r = np.where(np.isfinite(exact), (bits & ~np.int64(0x1fffffff)).view(_F8), exact)
    return (a * r).astype(_F4)


def rcp64(x: Array) -> Array:
    """1 / x of float64 to its upper 32 bits, from the upper 32 bits of x, subnormals flushed."""
    return _upper(1.0 / _upper(x))


def rsqrt64(x: Array) -> Array:
    """1 / sqrt x of float64 to its upper 32 bits, from the upper 32 bits of x; flushed likewise."""
    return _upper(1.0 / np.sqrt(_upper(x)))


def _upper(x: Array) -> Array:
    bits = x.view(_I8) & ~np.int64(0xffffffff)
    size = bits & np.int64(0x7fffffffffffffff)
    bits = np.where(size < np.int64(0x0010000000000000), bits ^ size, bits)
    return np.where(size > np.int64(0x7ff0000000000000), np.int64(0x7fffffff00000000),
                    bits).view(_F8)


# -- angles ---------------------------------------------------------------------------------------

_TURN, _HALF, _QUARTER = 2.0 ** 25, 2.0 ** 24, 2.0 ** 23  # in steps


def _steps(x: Array) -> Array:
    """|x| within one turn, as a whole number of steps of 2^-25 turns.

    Hardware multiplies by 1 / 2 pi in float32, rounding towards zero, and drops what is smaller.
    """
    turns = np.abs(x).astype(_F8)
    turns *= float(np.float32(0.15915494))
    turns = (turns.view(_I8) & ~np.int64(0x1fffffff)).view(_F8)
    turns -= np.trunc(turns)
    turns *= _TURN
    return np.trunc(turns, out=turns)


def _sine(steps: Array) -> Array:
    """The sine of steps within a turn; past a quarter the bits are inverted, as on hardware."""
    half = steps >= _HALF
    steps = steps - half * _HALF
    r = np.sin(np.minimum(steps, _HALF - 1 - steps) * (2 * np.pi / _TURN)).astype(_F4)
    return np.where(half, -r, r)


def sin(x: Array) -> Array:
    """The sine; how far off it is grows with x, and what is below 2^-25 turns is zero."""
    return np.copysign(_ONE, x) * _sine(_steps(x))


def cos(x: Array) -> Array:
    """The cosine; how far off it is grows with x."""
    steps = _steps(x)
    steps += _QUARTER
    steps -= (steps >= _TURN) * _TURN
    return _sine(steps)


def tanh(x: Array) -> Array:
    """The hyperbolic tangent to 12 bits; subnormal x is its own."""
    r = (np.tanh(x, dtype=_F8).astype(_F4).view(_I4) & ~np.int32(0xfff)).view(_F4)
    return np.where(np.abs(x) < _TINY, x, r)
