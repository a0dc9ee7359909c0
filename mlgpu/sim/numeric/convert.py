"""Numbers to integers and from them: saturation, and rounding by every mode.

All functions expect `np.errstate(all="ignore")` around them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.sim.numeric.rounding import Array, narrow, step, to_odd, two_sum

_F4, _F8 = np.dtype("f4"), np.dtype("f8")
_TO_WHOLE = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def whole(x: Array, mode: str) -> Array:
    """x rounded to a whole number, as a float."""
    rounded: Array = _TO_WHOLE[mode](x)
    return rounded


def to_integer(x: Array, dtype: np.dtype[Any], mode: str, double: bool) -> Array:
    """x as an integer, held in the range of its type.

    NaN is 0, or the highest bit alone if x was float64 (`double`) or the integer has 64 bits.
    """
    if mode != "rzi":
        x = whole(x, mode)
    range = np.iinfo(dtype)
    beyond = x.dtype.type(2.0 ** (range.bits - (dtype.kind == "i")))
    if dtype.kind == "i":
        fits = np.abs(x).max(initial=0) < beyond  # never with NaN
    else:
        fits = x.min(initial=0) > -1 and x.max(initial=0) < beyond
    wide = dtype if dtype.itemsize >= 4 else np.dtype("i4")
    if fits:
        return x.astype(wide).astype(dtype, copy=False)
    if mode == "rzi":
        x = np.trunc(x)
    inside = (x >= x.dtype.type(range.min)) & (x < beyond)
    r = np.where(inside, x, x.dtype.type(0)).astype(wide).astype(dtype, copy=False)
    r[~inside] = range.max
    r[x < 0] = np.where(inside, r, dtype.type(range.min))[x < 0]
    if double or dtype.itemsize == 8:
        r[np.isnan(x)] = range.min if dtype.kind == "i" else 1 << (range.bits - 1)
    else:
        r[np.isnan(x)] = 0
    return r


def saturated(x: Array, dtype: np.dtype[Any]) -> Array:
    """An integer held in the range of another type."""
    have, want = np.iinfo(x.dtype), np.iinfo(dtype)
    held: Array = np.clip(x, x.dtype.type(max(have.min, want.min)),
                          x.dtype.type(min(have.max, want.max)))
    return held.astype(dtype)


def integer_to_float(x: Array, dtype: np.dtype[Any], mode: str) -> Array:
    """An integer as float32 or float64, by any mode."""
    if mode == "rn":
        return x.astype(dtype)
    s, lost = _exactly(x)
    if dtype == _F8:
        return step(s, lost < 0, lost > 0, mode)
    return narrow(to_odd(s, lost), dtype, mode)


def integer_to_odd(x: Array) -> Array:
    """An integer as float64 for a rounding to a shorter type."""
    return x.astype(_F8) if x.itemsize < 8 else to_odd(*_exactly(x))


def _exactly(x: Array) -> tuple[Array, Array]:
    """The nearest float64 of an integer, and exactly what it lost."""
    wide = x.astype(f"{x.dtype.kind}8")
    high, low = wide >> wide.dtype.type(32), wide & wide.dtype.type(0xffffffff)
    return two_sum(high.astype(_F8) * 2.0 ** 32, low.astype(_F8))


def packed(a: Array, b: Array, c: Array | None, bits: int, signed: bool) -> Array:
    """`cvt.pack`: two int32 held in `bits` bits, a above b, above them the low bits of c."""
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    mask = np.uint32((1 << bits) - 1)
    parts = [np.clip(x, np.int32(low), np.int32(high)).view(np.uint32) & mask for x in (a, b)]
    pair: Array = parts[0] << np.uint32(bits) | parts[1]
    return pair if c is None else c << np.uint32(2 * bits) | pair
