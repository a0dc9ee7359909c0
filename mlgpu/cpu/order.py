"""Sorting and selecting along the last axis: stable, NaN as the largest value, any real dtype.

Values become unsigned keys with the same order.  Where key and position fit into one word, the
packed words are sorted: NumPy's vectorised sort of plain words is several times faster than any
of its stable argsorts, and as all words differ, its result is the stable one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.rows import BLOCK
from mlgpu.cpu.runtime import empty

Array = np.ndarray[Any, Any]

# Rows this long are searched for the elements that can be among the first k; shorter ones cost
# less than the search.
_LONG = 4096


def keys(x: Array, descending: bool) -> Array:
    """Unsigned integers that sort as `x` does: NaN largest, -0 as 0; reversed if `descending`."""
    kind = "b" if x.dtype == np.bool_ else x.dtype.kind
    bits: Array = x.view(np.dtype(f"u{x.dtype.itemsize}"))
    sign = bits.dtype.type(1 << (8 * x.dtype.itemsize - 1))
    if kind == "i":
        bits = bits ^ sign
    elif kind not in "bu":
        bits = np.where(x == 0, bits.dtype.type(0), bits)
        bits = np.where(bits & sign, ~bits, bits | sign)
        # Every NaN is above what infinity becomes, whatever its sign and payload.
        bits[x != x] = np.iinfo(bits.dtype).max
    return ~bits if descending else bits


class Words:
    """The rows of a 2-d array as words to sort: key and position, or the key alone if too wide."""

    def __init__(self, rows: int, n: int, dtype: Any) -> None:
        self.n = n
        small = dtype.itemsize <= 2 and n <= 1 << 16
        self.packed = dtype.itemsize <= 4 and n <= 1 << 32
        self.shift = (16 if small else 32) if self.packed else 0
        self.words = empty((rows, n), np.uint32 if small else np.uint64)

    def fill(self, x: Array, descending: bool) -> Array:
        words = self.words[:len(x)]
        step = max(1, BLOCK // max(1, len(x)))
        for first in range(0, self.n, step):
            part = words[:, first:first + step]
            part[...] = keys(x[:, first:first + step], descending)
            if self.packed:
                part <<= self.shift
                part |= np.arange(first, first + part.shape[1], dtype=words.dtype)
        return words

    def positions(self, words: Array, out: Array) -> None:
        mask = words.dtype.type((1 << self.shift) - 1)
        np.bitwise_and(words, mask, out=out, casting="unsafe")


def _row_step(n: int) -> int:
    return max(1, BLOCK // max(1, n))


def argsort(x: Array, descending: bool, out: Array) -> None:
    """out = the stable order of each row of `x`, both (rows, n) and `x` C-contiguous."""
    rows, n = x.shape
    step = _row_step(n)
    work = Words(min(step, rows), n, x.dtype)
    for first in range(0, rows, step):
        words = work.fill(x[first:first + step], descending)
        if work.packed:
            words.sort(axis=-1)
            work.positions(words, out[first:first + step])
        else:
            out[first:first + step] = np.argsort(words, axis=-1, kind="stable")


def argselect(x: Array, k: int, descending: bool, ordered: bool, out: Array) -> None:
    """out (rows, k) = the positions of the first k of each row of `x` in its order."""
    if x.dtype.itemsize < 4 or x.shape[1] < max(_LONG, 32 * k):
        _select(x, k, descending, ordered, out)
        return
    for row, target in zip(x, out, strict=True):
        few = _candidates(row, k, descending)
        if few is None:
            _select(row[None], k, descending, ordered, target[None])
        else:
            _select(row[few][None], k, descending, ordered, target[None])
            target[...] = few[target]


def _candidates(row: Array, k: int, descending: bool) -> Array | None:
    """Positions of elements among which the first k are; None if they are not few.

    Of the extremes of groups, k reach the k-th: whatever does not reach it is not wanted.
    """
    groups = max(256, 8 * k)
    size = len(row) // groups
    # NaN is the largest value: maximum keeps it, fmin passes it over.
    extreme = np.maximum if descending else np.fmin
    best = extreme.reduce(row[:size * groups].reshape(size, groups), axis=0)
    kth = groups - k if descending else k - 1
    bound = np.partition(best, kth)[kth]
    misses = np.less(row, bound) if descending else np.greater(row, bound)
    few = np.flatnonzero(~misses)
    return few if 4 * len(few) <= len(row) else None


def _select(x: Array, k: int, descending: bool, ordered: bool, out: Array) -> None:
    rows, n = x.shape
    step = _row_step(n)
    work = Words(min(step, rows), n, x.dtype)
    for first in range(0, rows, step):
        words = work.fill(x[first:first + step], descending)
        target = out[first:first + step]
        if work.packed:
            if k < n:
                words.partition(k - 1, axis=-1)
            chosen = words[:, :k]
            if ordered:
                chosen.sort(axis=-1)
            work.positions(chosen, target)
            continue
        target[...] = np.argpartition(words, k - 1, axis=-1)[:, :k]
        if ordered:
            target.sort(axis=-1)
            order = np.argsort(np.take_along_axis(words, target, -1), axis=-1, kind="stable")
            target[...] = np.take_along_axis(target, order, -1)


def argkth(x: Array, k: int, out: Array) -> None:
    """out (rows,) = the position of the k-th smallest (from 0) of each row of `x`."""
    rows, n = x.shape
    step = _row_step(n)
    work = Words(min(step, rows), n, x.dtype)
    for first in range(0, rows, step):
        words = work.fill(x[first:first + step], False)
        target = out[first:first + step]
        if work.packed:
            words.partition(k, axis=-1)
            work.positions(words[:, k], target)
        else:
            target[...] = np.argpartition(words, k, axis=-1)[:, k]
