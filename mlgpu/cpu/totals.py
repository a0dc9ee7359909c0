"""Sums over any axes: fast, because BLAS adds, and accurate, because it adds in short blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cpu import blas, fast
from mlgpu.cpu.gemm import contiguous, widen
from mlgpu.cpu.runtime import empty

Array = np.ndarray[Any, Any]

# Rows added one after another before their sums are added in turn: the error of a sum of n float32
# numbers is then that of about log(n) / log(BLOCK) short sums.
BLOCK = 128
LONG = 4 * BLOCK

# Up to here NumPy's own loop costs less than finding a layout for BLAS.
SMALL = 2048


def kept(shape: Sequence[int], dims: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with length 1 in each of `dims`."""
    return tuple(1 if d in dims else n for d, n in enumerate(shape))


def total(x: Array, dims: tuple[int, ...]) -> Array:
    """The sum over `dims`, which stay with length 1.

    float32 for the half types, int64 for integers and bool, else in the dtype of `x`.
    """
    if x.dtype.kind in "biu":
        return _add(x, dims, np.int64)
    if x.size <= SMALL:
        return _add(x, dims, np.float32 if x.dtype.itemsize == 2 else x.dtype)
    shape = kept(x.shape, dims)
    x, repeats = _without_repeats(x, dims)
    order = sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))
    flat = contiguous(widen(x.transpose(order)))
    reduced = [d in dims for d in order]
    if flat.dtype.kind == "c":
        parts = flat.view(flat.real.dtype).reshape(*flat.shape, 2)
        result = _groups(parts, [*reduced, False]).reshape(-1).view(flat.dtype)
    else:
        result = _groups(flat, reduced)
    if repeats != 1:
        np.multiply(result, repeats, out=result)
    result = result.reshape([shape[d] for d in order])
    return result.transpose([order.index(d) for d in range(x.ndim)])


def _add(x: Array, dims: tuple[int, ...], dtype: Any) -> Array:
    out = empty(kept(x.shape, dims), dtype)
    return np.add.reduce(x, axis=dims, dtype=out.dtype, keepdims=True, out=out)


def _without_repeats(x: Array, dims: tuple[int, ...]) -> tuple[Array, int]:
    """One of the repetitions of an expanded array along `dims`, and how many there are."""
    repeated = [d for d in dims if x.strides[d] == 0 and x.shape[d] > 1]
    if not repeated:
        return x, 1
    once = x[tuple(slice(1) if d in repeated else slice(None) for d in range(x.ndim))]
    return once, math.prod(x.shape[d] for d in repeated)


def _groups(x: Array, reduced: list[bool]) -> Array:
    """The flat sums of a C-contiguous array over the axes marked, innermost first."""
    lengths: list[tuple[int, bool]] = []  # runs of axes that are all reduced or all kept
    for n, flag in zip(x.shape, reduced, strict=True):
        if n == 1:
            continue
        if lengths and lengths[-1][1] == flag:
            lengths[-1] = (lengths[-1][0] * n, flag)
        else:
            lengths.append((n, flag))
    source = x
    for position in reversed(range(len(lengths))):
        n, flag = lengths[position]
        if flag:
            rows = math.prod(length for length, _ in lengths[:position])
            columns = math.prod(length for length, _ in lengths[position + 1:])
            with blas.one_thread():  # its own would spin on after a few microseconds' work
                x = _middle(x.reshape(rows, n, columns)) if columns > 1 else (
                    _last(x.reshape(rows, n)))
            lengths[position] = (1, False)
    if x is source:
        x = empty(source.shape, source.dtype)
        np.copyto(x, source)
    return x


def _ones(n: int, dtype: Any) -> Array:
    ones = empty((n,), dtype)
    ones.fill(1)
    return ones


def _last(x: Array) -> Array:
    """The sums of the rows of (rows, n)."""
    rows, n = x.shape
    if n <= LONG:
        return _rows(x)
    count = n // BLOCK
    blocks = x[:, :count * BLOCK]
    if n % BLOCK == 0 or rows == 1:
        result = _last(_rows(blocks.reshape(-1, BLOCK)).reshape(rows, count))
    else:
        sums = np.matmul(blocks.reshape(rows, count, BLOCK), _ones(BLOCK, x.dtype),
                         out=empty((rows, count), x.dtype))
        result = _last(sums)
    if n % BLOCK:
        np.add(result, _last(x[:, count * BLOCK:]), out=result)
    return result


def _rows(x: Array) -> Array:
    """The sums of short rows."""
    rows, n = x.shape
    out = empty((rows,), x.dtype)
    loops = fast.load("totals", x.size) if n and x.flags.c_contiguous else None
    if loops is None:
        return np.matmul(x, _ones(n, x.dtype), out=out)
    loops.row_sums(x, out)
    return out


def _middle(x: Array) -> Array:
    """The sums of (rows, n, columns) over n, as (rows, columns)."""
    rows, n, columns = x.shape
    if n <= LONG:
        out = empty((rows, 1, columns), x.dtype)
        return np.matmul(_ones(n, x.dtype)[None], x, out=out)[:, 0]
    count = n // BLOCK
    blocks = x[:, :count * BLOCK].reshape(rows, count, BLOCK, columns)
    sums = np.matmul(_ones(BLOCK, x.dtype)[None], blocks,
                     out=empty((rows, count, 1, columns), x.dtype))
    result = _middle(sums[:, :, 0])
    if n % BLOCK:
        np.add(result, _middle(x[:, count * BLOCK:]), out=result)
    return result


