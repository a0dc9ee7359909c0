"""Integer arithmetic that is more than one operator of NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_LOW = 0xFFFFFFFF


def high_unsigned(a: Array, b: Array) -> Array:
    """The upper 64 bits of the product of two uint64, by their 32-bit halves."""
    a0, a1 = a & _LOW, a >> 32
    b0, b1 = b & _LOW, b >> 32
    middle = a1 * b0 + (a0 * b0 >> 32)  # at most (2**32-1)**2 + 2**32-1: no carry is lost
    other = a0 * b1 + (middle & _LOW)
    result: Array = a1 * b1 + (middle >> 32) + (other >> 32)
    return result


def high_signed(a: Array, b: Array) -> Array:
    """The upper 64 bits of the product of two int64."""
    x, y = a.view(np.uint64), b.view(np.uint64)
    # A negative number read as unsigned is 2**64 too large: that adds the other to the upper half.
    excess = ((a >> 63).view(np.uint64) & y) + ((b >> 63).view(np.uint64) & x)
    return (high_unsigned(x, y) - excess).view(np.int64)


def quotient(a: Array, b: Array) -> Array:
    """a / b rounded toward zero; all ones where b is 0.

    PTX leaves a division by zero open; all ones is what an H200 gives.
    """
    if a.dtype.itemsize < 8:
        # Exact: the nearest double never rounds a quotient of 32-bit integers up to the next one.
        # By way of int64, since -2**31 / -1 does not fit int32, and wraps.
        exact = np.divide(a, b, dtype=np.float64)
        result: Array = exact.astype(np.int64).astype(a.dtype)
    elif a.dtype.kind == "u":
        result = a // b
    else:
        magnitude = np.abs(a).view(np.uint64) // np.abs(b).view(np.uint64)
        result = np.where((a ^ b) < 0, -magnitude, magnitude).view(np.int64)
    return result if b.all() else np.where(b == 0, ~a.dtype.type(0), result)


def remainder(a: Array, b: Array) -> Array:
    """a - b * (a / b rounded toward zero), of a's sign; all ones where b is 0, as `quotient`."""
    # fmod rather than remainder: NumPy's remainder has the divisor's sign.
    result: Array = np.fmod(a, b)
    return result if b.all() else np.where(b == 0, ~a.dtype.type(0), result)


def saturate32(a: Array) -> Array:
    """int64 clamped to the range of int32."""
    result: Array = np.clip(a, -1 << 31, (1 << 31) - 1).astype(np.int32)
    return result


def product24(a: Array, b: Array) -> Array:
    """The 48-bit product of the low 24 bits of two (u)int32, as (u)int64."""
    if a.dtype.kind == "u":
        result: Array = np.multiply(a & 0xFFFFFF, b & 0xFFFFFF, dtype=np.uint64)
    else:
        result = np.multiply((a << 8) >> 8, (b << 8) >> 8, dtype=np.int64)
    return result


def dot4(a: Array, b: Array, c: Array) -> Array:
    """c plus the sum of the products of the four bytes of a and b; their dtypes give the signs."""
    total = c
    for k in range(4):
        total = total + _byte(a, k) * _byte(b, k)
    return total


def dot2(a: Array, b: Array, c: Array, first: int) -> Array:
    """c plus the products of a's two half-words and b's bytes `first` and `first + 1`."""
    low, high = _half(a, 0), _half(a, 1)
    total: Array = c + low * _byte(b, first) + high * _byte(b, first + 1)
    return total


def _byte(a: Array, k: int) -> Array:
    """Byte k of each 32-bit number, extended by the sign of its dtype, as uint32."""
    up = a if k == 3 else a << (24 - 8 * k)
    return (up >> 24).view(np.uint32)


def _half(a: Array, k: int) -> Array:
    """Half-word k of each 32-bit number, extended by the sign of its dtype, as uint32."""
    up = a if k == 1 else a << 16
    return (up >> 16).view(np.uint32)
