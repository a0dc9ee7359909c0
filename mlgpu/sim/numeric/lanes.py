"""Arithmetic on the parts of a word: packed half-words, and the video instructions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Binary = Callable[..., Array]


def halves(operation: Binary, signed: bool, a: Array, b: Array) -> Array:
    """A ufunc on the two half-words of each uint32."""
    dtype = np.int16 if signed else np.uint16
    shape = np.broadcast_shapes(a.shape, b.shape)
    x, y = (np.ascontiguousarray(np.broadcast_to(value, shape)).view(dtype) for value in (a, b))
    return operation(x, y).view(np.uint32)


def add_halves(a: Array, b: Array) -> Array:
    """The sums of the half-words."""
    return halves(np.add, False, a, b)


def min_halves(a: Array, b: Array, signed: bool) -> Array:
    """The smaller half-words."""
    return halves(np.minimum, signed, a, b)


def max_halves(a: Array, b: Array, signed: bool) -> Array:
    """The larger half-words."""
    return halves(np.maximum, signed, a, b)


# -- video instructions ----------------------------------------------------------------------------

def part(a: Array, start: int, width: int, signed: bool) -> Array:
    """Bits [start, start + width) of uint32 numbers, as int64."""
    up: Array = a << np.uint32(32 - width - start)
    down = up.view(np.int32) >> (32 - width) if signed else up >> (32 - width)
    return down.astype(np.int64)


def _distance(a: Array, b: Array) -> Array:
    result: Array = np.abs(a - b)
    return result


def _average(a: Array, b: Array) -> Array:
    """The mean; halves are rounded away from zero."""
    total: Array = a + b
    return (total + (total >= 0)) >> 1


_VIDEO: dict[str, Binary] = {
    "add": np.add, "sub": np.subtract, "absdiff": _distance, "min": np.minimum, "max": np.maximum,
    "avrg": _average, "shl": np.left_shift, "shr": np.right_shift,
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater,
    "ge": np.greater_equal}


def video(operation: str, a: Array, b: Array) -> Array:
    """The intermediate result of a video instruction on int64 parts, as int64."""
    return _VIDEO[operation](a, b).astype(np.int64, copy=False)


def clamp(a: Array, width: int, signed: bool) -> Array:
    """int64 clamped to the range of a number of that many bits."""
    low, high = (-1 << (width - 1), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)
    return np.clip(a, low, high)


def merge(parts: Sequence[tuple[int, Array]], width: int, c: Array) -> Array:
    """c with the parts that start at the given bits replaced by the low bits of int64 results."""
    keep = 0xFFFFFFFF
    result: Array = np.zeros((1, 1), np.uint32)
    for start, value in parts:
        field = ((1 << width) - 1) << start
        keep &= ~field
        result = result | ((value.astype(np.uint32) << start) & field)
    return result | (c & keep) if keep else result


def accumulate(values: Sequence[Array], c: Array) -> Array:
    """c plus the results, modulo 2**32."""
    total = c
    for value in values:
        total = total + value.astype(np.uint32)
    return total
