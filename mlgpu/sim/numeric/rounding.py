"""Rounding as NVIDIA's float32 and float64 units do it: every direction, exact multiply-add.

The nearest value is NumPy's.  The other directions look at the sign of what the nearest one lost,
and step to the neighbour where it lies on the wrong side.  A sum that float64 does not hold is
known by that nearest sum and what it lost; where a second rounding could go wrong, it is "rounded
to odd": cut, with the last bit set if anything was lost.  A later rounding to at least two bits
fewer then comes out as if from the exact value.

All functions expect `np.errstate(all="ignore")` around them, and leave their operands alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_F4, _F8, _I4, _I8 = np.dtype("f4"), np.dtype("f8"), np.dtype("i4"), np.dtype("i8")
_TINY = np.float32(2.0 ** -126)  # the smallest normal float32
_LOWEST = np.iinfo(_I8).min


# -- pieces ---------------------------------------------------------------------------------------

def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """The nearest float64 of a + b, and exactly what it lost."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def to_odd(s: Array, lost: Array) -> Array:
    """The sum s + lost rounded to odd, where s is its nearest float64."""
    bits = s.view(_I8)
    outward = (lost > 0) == (s > 0)
    step = ((bits & 1) == 0) & (np.abs(lost) > 0)  # `lost` is NaN where s is infinite
    odd: Array = bits + step * (2 * outward - 1)
    return odd.view(_F8)


def step(r: Array, over: Array, under: Array, mode: str) -> Array:
    """The value by a mode, where r is the nearest one and lies over or under the exact one."""
    bits = r.view(f"i{r.itemsize}")
    negative = bits < 0
    if mode == "rz":
        bits = bits - np.where(negative, under, over)
    else:
        moved = (over if mode == "rm" else under).astype(bits.dtype)
        inward = negative != (mode == "rm")  # to the integer below, which is nearer to zero
        bits = bits + moved - 2 * (moved & -inward.astype(bits.dtype))
    return bits.view(r.dtype)


def narrow(x: Array, dtype: np.dtype[Any], mode: str) -> Array:
    """x in a floating-point type with fewer bits (NumPy's own), by any mode or "odd"."""
    r: Array = x.astype(dtype)
    if mode == "rn":
        return r
    back = r.astype(x.dtype)
    over, under = back > x, back < x
    if mode != "odd":
        return step(r, over, under, mode)
    cut = step(r, over, under, "rz")
    bits = cut.view(f"u{cut.itemsize}")
    bits |= over | under
    return cut


def flush(x: Array) -> Array:
    """x with float32 subnormals as zeros of their sign."""
    return x * (np.abs(x) >= _TINY).astype(_F4)


def saturate(x: Array) -> Array:
    """x held between 0 and 1; NaN and -0 become +0."""
    clamped = np.clip(x, x.dtype.type(0), x.dtype.type(1))
    clamped += x.dtype.type(0)
    nan = x != x
    if nan.any():
        clamped[nan] = 0
    return clamped


def smaller(a: Array, b: Array, nan: bool = False) -> Array:
    """The smaller of float32 or float64; -0 is below +0.

    A single NaN yields the other operand, or with `nan` the canonical NaN.
    """
    choose = np.minimum if nan else np.fmin
    unsigned = f"u{a.itemsize}"  # which of two zeros comes out is up to their order
    return _canonical((choose(a, b).view(unsigned) | choose(b, a).view(unsigned)).view(a.dtype))


def larger(a: Array, b: Array, nan: bool = False) -> Array:
    """The larger of float32 or float64; otherwise as `smaller`."""
    choose = np.maximum if nan else np.fmax
    signed = f"i{a.itemsize}"
    size = np.iinfo(signed).max
    return _canonical((choose(a, b).view(signed) & (choose(b, a).view(signed) | size))
                      .view(a.dtype))


def with_sign(r: Array, a: Array, b: Array) -> Array:
    """r with the product of the signs of a and b, or r itself if it is NaN."""
    signed = f"i{r.itemsize}"
    negative = ((a.view(signed) ^ b.view(signed)) < 0) & (r == r)
    return np.where(negative, -r, r)


def _canonical(x: Array) -> Array:
    """x, in place, with NVIDIA's NaN for any NaN."""
    nan = x != x
    if nan.any():
        signed = f"i{x.itemsize}"
        x.view(signed)[nan] = np.iinfo(signed).max
    return x


def relu(x: Array) -> Array:
    """x, or +0 where it is negative; NaN stays."""
    clamped: Array = np.maximum(x, x.dtype.type(0))
    clamped += x.dtype.type(0)
    return clamped


# -- sums in float64, rounded to float32 -----------------------------------------------------------

def _at(v: Array, shape: tuple[int, ...], places: Array) -> Array:
    """The elements of v, broadcast to the shape, at flat places, in float64."""
    return np.broadcast_to(v, shape).reshape(-1).take(places).astype(_F8)


def _product_and_sum(a: Array, b: Array, c: Array) -> Array:
    """a * b + c in float64: the product of float32 is exact, the sum is the nearest."""
    s = np.multiply(a, b, dtype=_F8)
    if np.broadcast(s, c).shape == s.shape:
        return np.add(s, c, out=s)  # fresh memory costs more than the sum
    return s + c


def fma32(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32, rounded once to nearest.

    The float64 sum rounds right unless it lies exactly between two float32 (it may have been
    rounded to there itself), or is subnormal in float32 (then what lies between is elsewhere).
    Both are rare, and only those elements are done again.
    """
    s = _product_and_sum(a, b, c)
    try:
        with np.errstate(under="raise"):
            r = s.astype(_F4)
        tiny = False
    except FloatingPointError:  # something is subnormal and inexact
        r = s.astype(_F4)
        tiny = True
    low = np.left_shift(s.view(_I8), 35, out=s.view(_I8))  # the 29 bits that float32 has not
    if tiny or low.min(initial=0) == _LOWEST:
        doubtful = low == _LOWEST
        if tiny:
            s = _product_and_sum(a, b, c)
            doubtful |= (np.abs(s) <= _TINY) & (s != 0)
        places = np.flatnonzero(doubtful)
        x, y, z = (_at(v, r.shape, places) for v in (a, b, c))
        s, lost = two_sum(x * y, z)
        wrong = np.flatnonzero(lost)
        if wrong.size:
            np.put(r, places[wrong], to_odd(s[wrong], lost[wrong]).astype(_F4))
    return r


def fma32_for(a: Array, b: Array, c: Array, drop: int) -> Array:
    """a * b + c as a float32 that rounds to nearest, `drop` bits shorter, as the exact value does.

    `drop` is 16 for bfloat16, and 13 for float16, whose subnormal results are kept in doubt.
    """
    s = _product_and_sum(a, b, c)
    r = s.astype(_F4)
    size = np.abs(r)
    last = size.view(_I4) & np.int32((1 << drop) - 1)
    doubtful = last == np.int32(1 << (drop - 1))
    if drop == 13:
        doubtful |= (size < np.float32(2.0 ** -14)) & (size > 0)
    places = np.flatnonzero(doubtful)
    if places.size:
        x, y, z = (_at(v, r.shape, places) for v in (a, b, c))
        np.put(r, places, narrow(to_odd(*two_sum(x * y, z)), _F4, "odd"))
    return r


def fma32_to(a: Array, b: Array, c: Array, mode: str) -> Array:
    """a * b + c of float32, rounded once by any mode."""
    product = np.multiply(a, b, dtype=_F8)
    return _sum32_to(product, c, mode)


def add32_to(a: Array, b: Array, mode: str) -> Array:
    """a + b of float32 by any mode."""
    return _sum32_to(a.astype(_F8), b, mode)


def _sum32_to(a: Array, b: Array, mode: str) -> Array:
    """The sum of a float64 and a float32 by a mode.

    Rounding to float64 does not carry a sum past a float32, so only where it lands on one does
    what it lost matter.
    """
    s = a + b
    r = s.astype(_F4)
    back = r.astype(_F8)
    over, under = back > s, back < s
    places = np.flatnonzero(back == s)
    if places.size:
        s, lost = two_sum(_at(a, r.shape, places), _at(b, r.shape, places))
        if lost.any():
            np.put(over, places, lost < 0)
            np.put(under, places, lost > 0)
        zero = places[s == 0]
        if mode == "rm" and zero.size:  # an exact zero sum is -0 unless both terms are +0
            below = np.signbit(_at(a, r.shape, zero)) | np.signbit(_at(b, r.shape, zero))
            np.put(r, zero[below], np.float32(-0.0))
    return step(r, over, under, mode)


# -- float32 by any mode: products, quotients and roots in float64 ---------------------------------

def mul32_to(a: Array, b: Array, mode: str) -> Array:
    """a * b of float32 by any mode."""
    return narrow(np.multiply(a, b, dtype=_F8), _F4, mode)


def div32_to(a: Array, b: Array, mode: str) -> Array:
    """a / b of float32 by any mode.

    No quotient of two float32 lies so near to a third, or to a midpoint, that its float64 is it.
    """
    return narrow(np.divide(a, b, dtype=_F8), _F4, mode)


def sqrt32_to(a: Array, mode: str) -> Array:
    """The square root of float32 by any mode; as with quotients, float64 suffices."""
    return narrow(np.sqrt(a, dtype=_F8), _F4, mode)
