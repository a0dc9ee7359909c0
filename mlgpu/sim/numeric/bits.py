"""Counting, finding and moving bits.

Shifts of arrays by the width or more are defined in NumPy (0, or the sign for a signed right
shift), and these functions count on it; the amounts are always unsigned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def popcount(a: Array) -> Array:
    """How many bits are set, as uint32."""
    return np.bitwise_count(a).astype(np.uint32)


def bit_length(a: Array) -> Array:
    """One more than the position of the highest bit set in an unsigned number, as int32; 0 of 0."""
    if a.dtype.itemsize == 8:
        a = a & ~(a >> 1)  # the bit below the highest is cleared: no rounding to the next power
    length: Array = np.frexp(a.astype(np.float64))[1]
    return length


def leading_zeros(a: Array) -> Array:
    """How many zeros stand above the highest bit set, as uint32."""
    return (8 * a.dtype.itemsize - bit_length(a)).view(np.uint32)


def find_leading(a: Array, distance: bool) -> Array:
    """The position of the highest bit that is not a sign bit; all ones where there is none.

    With `distance` counted from the top: the left shift that would bring the bit there.
    """
    width = 8 * a.dtype.itemsize
    if a.dtype.kind == "i":
        a = (a ^ (a >> (width - 1))).view(f"u{a.dtype.itemsize}")
    length = bit_length(a)
    if not distance:
        return (length - 1).view(np.uint32)
    return np.where(length == 0, np.int32(-1), width - length).view(np.uint32)


def find_nth(mask: Array, base: Array, offset: Array) -> Array:
    """The position of the offset-th bit set in mask, from base upward or downward; else all ones.

    mask and base are uint32, offset is int32; 0 looks at the bit of base alone, and the least
    offset gives 0.
    """
    upward = mask & (~np.zeros_like(base) << base)
    downward = mask & ~(~np.zeros_like(base) << base << 1)
    alone = upward & downward
    rest = np.where(offset > 0, upward, np.where(offset < 0, reverse(downward), alone))
    rest = np.where(base < 32, rest, np.uint32(0))
    skip = np.abs(offset).view(np.uint32) - (offset != 0)
    for k in range(min(int(skip.max()), 32)):
        rest = np.where(k < skip, rest & (rest - 1), rest)
    position = popcount((rest & -rest) - 1)
    position = np.where(offset < 0, 31 - position, position)
    position = np.where(rest == 0, ~np.uint32(0), position)
    return np.where(offset == np.iinfo(np.int32).min, np.uint32(0), position)


def reverse(a: Array) -> Array:
    """The bits in the opposite order."""
    a = a.byteswap()
    every = a.dtype.type(~np.uint64(0) >> np.uint64(64 - 8 * a.dtype.itemsize))
    for step, low in ((4, every // 17), (2, every // 5), (1, every // 3)):
        a = ((a >> step) & low) | ((a & low) << step)
    return a


def ones(length: Array) -> Array:
    """The lowest bits set, as many as given: a mask of the amount's dtype."""
    result: Array = ~(~np.zeros_like(length) << length)
    return result


def extract(a: Array, start: Array, length: Array) -> Array:
    """The field of a at a position, extended by the sign of a's dtype.

    start and length have the unsigned dtype of a's width.
    """
    if a.dtype.kind == "u":
        return (a >> start) & ones(length)
    width = 8 * a.dtype.itemsize
    shifted = a >> np.minimum(start, width - 1).view(a.dtype)
    return _extend(shifted, width - np.minimum(length, width))


def insert(a: Array, b: Array, start: Array, length: Array) -> Array:
    """b with a field replaced by the lowest bits of a; all of one unsigned dtype."""
    field = ones(length) << start
    return (b & ~field) | ((a << start) & field)


def mask(start: Array, length: Array) -> Array:
    """`length` bits set from `start` on; what lies beyond the top is lost."""
    result: Array = ones(length) << start
    return result


def extend(a: Array, length: Array) -> Array:
    """The lowest `length` (at most 32) bits of a, extended by the sign of a's dtype."""
    if a.dtype.kind == "u":
        return a & ones(length)
    return _extend(a, 32 - length)


def _extend(a: Array, surplus: Array) -> Array:
    """Signed a with its upper `surplus` bits replaced by the bit below; 0 where all are surplus."""
    up = (a.view(surplus.dtype) << surplus).view(a.dtype)
    result: Array = up >> surplus.view(a.dtype)
    return result


def funnel_left(low: Array, high: Array, amount: Array) -> Array:
    """The upper half of high:low shifted left by at most 32; all uint32."""
    result: Array = (high << amount) | (low >> (32 - amount))
    return result


def funnel_right(low: Array, high: Array, amount: Array) -> Array:
    """The lower half of high:low shifted right by at most 32; all uint32."""
    result: Array = (low >> amount) | (high << (32 - amount))
    return result


def permute(a: Array, b: Array, selector: Array) -> Array:
    """Four bytes of b:a, each chosen by four bits: its number, and whether to spread its sign."""
    both = (b.astype(np.uint64) << 32) | a
    result = np.zeros_like(selector)
    for k in range(4):
        choice = selector >> (4 * k)
        byte = (both >> ((choice & 7) << 3)).astype(np.uint32) & 0xFF
        spread = (byte >> 7) * 0xFF
        result = result | np.where(choice & 8, spread, byte) << (8 * k)
    return result
