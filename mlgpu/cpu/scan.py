"""Scans along an axis: running sums and the like, and linear recurrences."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cpu.rows import Scratch, as_rows, blocks, layout
from mlgpu.cpu.runtime import empty

Array = np.ndarray[Any, Any]

# A recurrence runs step by step where a step has this many elements (a vector's arithmetic then
# outweighs Python's call), or where there are few steps; otherwise by pairs.
_WIDE = 2048
_FEW = 16


def accumulator(dtype: Any) -> Any:
    """The dtype that a scan of `dtype` is accumulated in: the next wider one for floats."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        return np.dtype(np.complex128)
    if dtype.kind in "fV":
        return np.dtype(np.float32 if dtype.itemsize == 2 else np.float64)
    return dtype


def accumulate(ufunc: np.ufunc, x: Array, dim: int, reverse: bool = False) -> Array:
    """`ufunc` over x_0 ... x_i (or x_i ... x_(n-1) with `reverse`) at every i of axis `dim`."""
    out = empty(x.shape, x.dtype)
    if not x.size:
        return out
    source, target = as_rows(x, dim), as_rows(out, dim)
    compute = accumulator(x.dtype)
    # With `out` of another dtype NumPy would round what it carries on: hence the scratch.
    scratch = None if compute == x.dtype else Scratch(source.shape, compute)
    for place in blocks(source.shape):
        part, result = source[place], target[place]
        work = result if scratch is None else scratch.like(part)
        step = slice(None, None, -1 if reverse else 1)
        ufunc.accumulate(part[:, step], axis=1, dtype=compute, out=work[:, step])
        if scratch is not None:
            np.copyto(result, work, casting="unsafe")
    return out


def lead(x: Array, dim: int) -> Array:
    """A copy of x in its accumulator's dtype, with axis `dim` first: (n, everything else)."""
    rows = as_rows(x, dim)
    moved = np.moveaxis(rows, 1, 0)
    out = empty(moved.shape, accumulator(x.dtype))
    np.copyto(out, moved, casting="unsafe")
    return out.reshape(len(out), -1) if out.size else out.reshape(len(out), 0)


def unlead(h: Array, shape: tuple[int, ...], dim: int, dtype: Any) -> Array:
    """What `lead` moved, back in an array of `shape` and `dtype`."""
    out = empty(shape, dtype)
    rows = layout(shape, dim) if shape else (1, 1)
    if math.prod(shape):
        np.copyto(np.moveaxis(out.reshape(rows), 1, 0),
                  h.reshape(rows[1], rows[0], *rows[2:]), casting="unsafe")
    return out


def recurrence(a: Array, b: Array, reverse: bool = False) -> Array:
    """h_0 = b_0, h_i = b_i + a_i h_(i-1) along the first axis of (n, m) arrays.

    With `reverse` from the back.  a_0 (a_(n-1) with `reverse`) is not used.
    """
    h = empty(b.shape, b.dtype)
    step = slice(None, None, -1 if reverse else 1)
    if h.size:
        _recur(a[step], b[step], h[step])
    return h


def _recur(a: Array, b: Array, h: Array) -> None:
    n = len(b)
    if n <= _FEW or b.shape[1] >= _WIDE:
        h[0] = b[0]
        for i in range(1, n):
            np.multiply(a[i], h[i - 1], out=h[i])
            h[i] += b[i]
        return
    # Two steps are one: h_(i+1) = (b_(i+1) + a_(i+1) b_i) + (a_(i+1) a_i) h_(i-1).
    even, odd = slice(0, n - 1, 2), slice(1, None, 2)
    half = (n // 2, b.shape[1])
    a2, b2, h2 = empty(half, b.dtype), empty(half, b.dtype), empty(half, b.dtype)
    np.multiply(a[odd], a[even], out=a2)
    np.multiply(a[odd], b[even], out=b2)
    b2 += b[odd]
    _recur(a2, b2, h2)
    h[odd] = h2
    h[0] = b[0]
    rest = slice(2, None, 2)
    count = (n - 1) // 2
    np.multiply(a[rest], h2[:count], out=h[rest])
    h[rest] += b[rest]
