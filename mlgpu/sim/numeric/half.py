"""float16, bfloat16 and tf32: to and from float32 and float64, and values packed two in one.

float16 arrays are NumPy's; bfloat16 and tf32 are their bits in unsigned integers.  Arithmetic is
done in float32, which holds sums and products of two such values closely enough for a second
rounding to change nothing; multiply-add is `rounding.fma32_for`.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from mlgpu.sim.numeric.rounding import Array, narrow

_F2, _F4, _F8 = np.dtype("f2"), np.dtype("f4"), np.dtype("f8")
_U2, _U4 = np.dtype("u2"), np.dtype("u4")

_NEARLY_NORMAL = np.float32(2.0 ** -14 * (1 - 2.0 ** -12))

# As bits of a float32: 2^-14, 2^16; and what lies between the exponents' biases.
_SMALLEST, _TOO_LARGE, _BIAS = np.uint32(0x38800000), np.uint32(0x47800000), np.uint32(126 << 10)


# -- packed ---------------------------------------------------------------------------------------

def unpack(x: Array, dtype: np.dtype[np.generic]) -> Array:
    """The values of packed registers, along a new last axis, lowest first."""
    return np.ascontiguousarray(x)[..., None].view(dtype)


def pack(parts: Array, dtype: np.dtype[np.generic]) -> Array:
    """Registers with the values of the last axis."""
    return np.ascontiguousarray(parts).view(dtype)[..., 0]


# -- float16 --------------------------------------------------------------------------------------

@cache
def _half_values() -> Array:
    values = np.arange(65536, dtype=_U2).view(_F2).astype(_F4)
    values.view(_U4)[np.isnan(values)] = 0x7fffffff
    return values


def half_to_float(x: Array) -> Array:
    """float16 as float32; NaN is canonical."""
    return _half_values().take(x.view(_U2))


def float_to_half(x: Array) -> Array:
    """The nearest float16 of float32.

    Adding 2^13 times the power of two below |x| leaves the rounded significand in the last bits.
    """
    u = x.view(_U4)
    size = u & np.uint32(0x7fffffff)
    sign = (u ^ size) >> np.uint32(16)
    invalid = size.max(initial=0) > 0x7f800000
    nan = size > np.uint32(0x7f800000) if invalid else None
    np.minimum(size, _TOO_LARGE, out=size)
    power = size & np.uint32(0x7f800000)
    np.maximum(power, _SMALLEST, out=power)
    power += np.uint32(13 << 23)
    rounded = (size.view(_F4) + power.view(_F4)).view(_U4)
    rounded -= power
    power >>= np.uint32(13)
    rounded += power
    rounded -= _BIAS
    rounded |= sign
    h = rounded.astype(_U2)
    if nan is not None:
        h[nan] = 0x7fff
    return h.view(_F2)


def flush_to_half(x: Array) -> Array:
    """float32 for a float16 that is flushed: zero where it would be subnormal.

    As on hardware, what is rounded to the smallest normal number with as many bits as that has
    (and not on the coarser grid of the subnormals) stays.
    """
    return x * (np.abs(x) >= _NEARLY_NORMAL).astype(_F4)


def float_to_half_by(x: Array, mode: str) -> Array:
    """float16 of float32 or float64, by any mode; NaN is canonical."""
    if mode == "rn":
        return float_to_half(narrow(x, _F4, "odd") if x.dtype == _F8 else x)
    h = narrow(x, _F2, mode)
    h.view(_U2)[np.isnan(x)] = 0x7fff
    return h


# -- bfloat16 and tf32: the upper bits of a float32 ------------------------------------------------

def bfloat_to_float(x: Array) -> Array:
    """bfloat16 as float32."""
    return (x.astype(_U4) << np.uint32(16)).view(_F4)


def float_to_bfloat(x: Array) -> Array:
    """The nearest bfloat16 of float32; NaN is canonical."""
    u = x.view(_U4)
    t = u >> np.uint32(16)
    t &= np.uint32(1)
    t += np.uint32(0x7fff)
    t += u
    t >>= np.uint32(16)
    h = t.astype(_U2)
    nan = x != x
    if nan.any():
        h[nan] = 0x7fff
    return h


def float_to_bfloat_by(x: Array, mode: str) -> Array:
    """bfloat16 of float32 or float64, by any mode; NaN is canonical."""
    if x.dtype == _F8:
        x = narrow(x, _F4, "odd")
    if mode == "rn":
        return float_to_bfloat(x)
    h = (round_bits(x, 16, mode) >> np.uint32(16)).astype(_U2)
    h[np.isnan(x)] = 0x7fff
    return h


def float_to_tf32(x: Array, mode: str, finite: bool = False) -> Array:
    """tf32 (the upper 19 bits of a float32) by any mode; NaN is canonical.

    But as on an H200, "rna" cuts a NaN's bits, which leaves infinity where only low ones were set,
    and `finite` what is before that.
    """
    nan: Array = np.full((1, 1), 0x7fffffff, _U4)
    if mode == "rna":
        nan = (x.view(_U4) & ~np.uint32(0x1fff)) - np.uint32(0x2000 * finite)
    return np.where(np.isnan(x), nan, round_bits(x, 13, mode))


def round_bits(x: Array, drop: int, mode: str) -> Array:
    """The bits of float32 with the last ones rounded off, by any mode, also "rna" (ties away)."""
    u = x.view(_U4)
    mask = np.uint32((1 << drop) - 1)
    half = np.uint32(1 << (drop - 1))
    if mode == "rn":
        u = u + (half - np.uint32(1)) + (u >> np.uint32(drop) & np.uint32(1))
    elif mode == "rna":
        u = u + half
    elif mode in ("rm", "rp"):
        outward = np.signbit(x) == (mode == "rm")
        u = np.where(outward & ~np.isinf(x), u + mask, u)
    return u & ~mask


# -- both, as bits -------------------------------------------------------------------------------

def flush16(x: Array) -> Array:
    """float16 as bits, subnormals as zeros of their sign."""
    return x & np.where(x & 0x7c00, _U2.type(0xffff), _U2.type(0x8000))


def smaller(a: Array, b: Array, infinity: int, nan: bool) -> Array:
    """The smaller of 16-bit floats given as bits; -0 is below +0.

    A single NaN yields the other operand, or with `nan` the canonical NaN.
    """
    return _ordered(np.minimum, a, b, infinity, nan, 0x7fff)


def larger(a: Array, b: Array, infinity: int, nan: bool) -> Array:
    """The larger of 16-bit floats given as bits; otherwise as `smaller`."""
    return _ordered(np.maximum, a, b, infinity, nan, -0x8000)


def _ordered(choose: np.ufunc, a: Array, b: Array, infinity: int, nan: bool, last: int) -> Array:
    """Bits order as integers once those of negative numbers are turned over."""
    keys, numbers = [], []
    for bits in (a, b):
        key = bits.view("i2")
        key = key ^ ((key >> 15) & 0x7fff)
        number = (bits & _U2.type(0x7fff)) <= _U2.type(infinity)
        keys.append(np.where(number, key, key.dtype.type(last)))
        numbers.append(number)
    key = choose(*keys)
    both = numbers[0] & numbers[1] if nan else numbers[0] | numbers[1]
    return np.where(both, (key ^ ((key >> 15) & 0x7fff)).view(_U2), _U2.type(0x7fff))


def with_sign(r: Array, a: Array, b: Array, infinity: int) -> Array:
    """The bits r with the product of the signs of a and b, or r itself if it is NaN."""
    signed = r & 0x7fff | (a ^ b) & 0x8000
    return np.where((r & 0x7fff) > infinity, r, signed)


def join(high: Array, low: Array) -> Array:
    """Words of two 16-bit floats."""
    return (high.view(_U2).astype(_U4) << np.uint32(16)) | low.view(_U2)
