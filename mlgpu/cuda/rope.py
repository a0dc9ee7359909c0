"""Rotary embeddings on the device: rows with the same angles share a thread's cos and sin."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import Strided, blocks, launch
from mlgpu.cuda.types import ctype

_MOST = 4  # dimensions that a launch walks over, besides that of rows with the same angles
_EACH = 4  # rows that a thread turns with the same angles
_STRUCT = np.dtype([("stride", "i8", (4, _MOST)), ("x_loop", "i8"), ("y_loop", "i8"),
                    ("size", "i4", _MOST), ("loop", "i4"), ("each", "i4"), ("pairs", "i4"),
                    ("columns", "i4")], align=True)

Dim = tuple[int, list[int]]  # a size, and the strides of x, out, cos and sin


def rotate(x: Any, cos: Any, sin: Any, interleaved: bool, back: bool) -> Any:
    """The pairs of each row of x turned by the angles whose cos and sin (..., pairs) are given."""
    x, cos, sin = (runtime.copy(a) if a.shape[-1] > 1 and a.strides[-1] != a.itemsize else a
                   for a in (x, cos, sin))
    out = runtime.empty_like(x)
    if x.size:
        _rotate(out, x, cos, sin, interleaved, back)
    return out


def _rotate(out: Any, x: Any, cos: Any, sin: Any, interleaved: bool, back: bool) -> None:
    arrays = (x, out, cos, sin)
    dims, loop = _dims(arrays)
    if len(dims) > _MOST:
        for i in range(len(x)):
            c, s = (a if a.ndim < x.ndim else a[min(i, len(a) - 1)] for a in (cos, sin))
            _rotate(out[i], x[i], c, s, interleaved, back)
        return
    pairs, columns = cos.shape[-1], x.shape[-1]
    vec = _vector(arrays, [*dims, loop], pairs, interleaved)
    r = np.zeros((), _STRUCT)
    r["size"] = 1
    for d, (size, strides) in enumerate(dims, _MOST - len(dims)):
        r["size"][d], r["stride"][:, d] = size, strides
    r["loop"], (r["x_loop"], r["y_loop"], *_) = loop
    r["each"], r["pairs"], r["columns"] = _EACH, pairs, columns
    parts = pairs // _pairs(vec, interleaved) + (columns - 2 * pairs) // vec
    threads = math.prod(size for size, _ in dims) * blocks(loop[0], _EACH) * parts
    instance = f"rotate<{ctype(x.dtype)}, {ctype(cos.dtype)}, {vec}, {str(interleaved).lower()}>"
    launch("rope", instance, blocks(threads, 256), 256,
           (*map(Strided, arrays), threads, back, r))


def _dims(arrays: tuple[Any, ...]) -> tuple[list[Dim], Dim]:
    """The dimensions of rows, neighbours joined where strides allow, and apart from them the
    largest along which the angles stay."""
    lead = arrays[0].shape[:-1]
    dims: list[Dim] = []
    for d, size in enumerate(lead):
        if size == 1:
            continue
        strides = [_stride(a, d - len(lead) - 1) for a in arrays]
        if dims and dims[-1][1] == [s * size for s in strides]:
            dims[-1] = dims[-1][0] * size, strides
        else:
            dims.append((size, strides))
    still = [dim for dim in dims if dim[1][2:] == [0, 0]]
    if not still:
        return dims, (1, [0] * 4)
    loop = max(still, key=lambda dim: dim[0])
    return [dim for dim in dims if dim is not loop], loop


def _stride(array: Any, axis: int) -> int:
    """Elements from one index to the next; 0 where the array is broadcast."""
    if -axis > array.ndim or array.shape[axis] == 1:
        return 0
    return int(array.strides[axis]) // int(array.itemsize)


def _vector(arrays: tuple[Any, ...], dims: list[Dim], pairs: int, interleaved: bool) -> int:
    """The most numbers, up to 16 bytes, that can be moved at once: all are aligned to them."""
    x, out, *tables = arrays
    size = x.itemsize
    vec = math.gcd(16 // size, x.shape[-1] - 2 * pairs, 2 * pairs if interleaved else pairs,
                   *(s for _, strides in dims for s in strides[:2]),
                   *(a.data.ptr // size for a in (x, out)))
    for place, a in enumerate(tables, 2):  # read at once too: of two loads each would use half
        aligned = math.gcd(*(strides[place] for _, strides in dims), a.data.ptr // a.itemsize,
                           16 // a.itemsize)
        while vec > 1 and aligned % _pairs(vec, interleaved):
            vec //= 2
    return vec


def _pairs(vec: int, interleaved: bool) -> int:
    """Pairs that a thread turns."""
    return max(1, vec // 2) if interleaved else vec
