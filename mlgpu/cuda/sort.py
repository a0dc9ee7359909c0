"""Sorts and selections along a dimension: which kernels of kernels/sort.cu.

Every order is stable and takes NaN for the largest value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import radix, runtime
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.rows import power
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError

IN_REGISTERS = 2048  # elements of a row that `sort_rows` takes
TILE_THREADS = radix.THREADS
_INT64 = np.dtype(np.int64)
_BYTES, _PLACE = np.dtype(np.uint8), np.dtype(np.uint32)


def sort(x: Any, dim: int = -1, descending: bool = False, values: bool = True,
         index: bool = True) -> tuple[Any, Any]:
    """(values, int64 indices) in order along `dim`, each if asked for."""
    rows, back = _rows(x, dim)
    out, where = _results(rows, rows.shape[1], values, index)
    if rows.size and not _on_chip(rows, out, where, 0, rows.shape[1], descending):
        _radix(rows, out, where, descending)
    return back(out), back(where)


def topk(x: Any, k: int, dim: int = -1, largest: bool = True) -> tuple[Any, Any]:
    """(values, int64 indices) of the first k in order along `dim`."""
    rows, back = _rows(x, dim)
    out, where = _results(rows, k, True, True)
    if out.size:
        count, n = rows.shape
        if _on_chip(rows, out, where, 0, k, largest):
            pass
        elif k > IN_REGISTERS or _better_sorted(count, n):
            ordered = sort(rows, 1, largest)
            out, where = (runtime.contiguous(a[:, :k]) for a in ordered)
        else:
            keys, places = _workspace(rows, k)
            launch("sort", f"select_rows<{ctype(x.dtype)}>", count, 512,
                   (rows, keys, places, None, None, n, k, largest, False))
            _sort_rows(rows, out, where, 0, k, largest, keys, places)
    return back(out), back(where)


def kth(x: Any, k: int, dim: int = -1) -> tuple[Any, Any]:
    """(values, int64 indices) of the k-th smallest along `dim`, counted from 0; length 1 there."""
    rows, back = _rows(x, dim)
    out, where = _results(rows, 1, True, True)
    if out.size:
        count, n = rows.shape
        if _on_chip(rows, out, where, k, 1, False):
            pass
        elif _better_sorted(count, n):
            ordered = sort(rows, 1)
            out, where = (runtime.contiguous(a[:, k:k + 1]) for a in ordered)
        else:
            launch("sort", f"select_rows<{ctype(x.dtype)}>", count, 512,
                   (rows, None, None, out, where, n, k + 1, False, True))
    return back(out), back(where)


def _better_sorted(rows: int, n: int) -> bool:
    """A row is selected from by one block: a few long ones are sorted sooner, by all."""
    return rows < 16 and n >= 1 << 17


def _rows(x: Any, dim: int) -> tuple[Any, Any]:
    """`x` as contiguous rows along `dim`, and what gives results the layout of `x`."""
    if x.ndim == 0:
        return runtime.contiguous(x.reshape(1, 1)), lambda r: None if r is None else r.reshape(())
    dim %= x.ndim
    moved = tuple(d for d in range(x.ndim) if d != dim) + (dim,)
    turned = runtime.contiguous(x.transpose(moved))
    n = x.shape[dim]
    rows = turned.reshape(x.size // n if n else 0, n)
    others = turned.shape[:-1]
    home = tuple(moved.index(d) for d in range(x.ndim))

    def back(result: Any) -> Any:
        if result is None:
            return None
        full = result.reshape(*others, result.shape[1])
        return full if dim == x.ndim - 1 else runtime.contiguous(full.transpose(home))

    return rows, back


def _results(rows: Any, count: int, values: bool, index: bool) -> tuple[Any, Any]:
    shape = (rows.shape[0], count)
    return (runtime.empty(shape, rows.dtype) if values else None,
            runtime.empty(shape, _INT64) if index else None)


def _key_bytes(dtype: Any) -> int:
    return 8 if dtype.itemsize == 8 else 4


def _workspace(rows: Any, k: int) -> tuple[Any, Any]:
    """Keys and places of k elements a row."""
    count = rows.shape[0] * k
    return (runtime.empty((count * _key_bytes(rows.dtype),), _BYTES),
            runtime.empty((count,), _PLACE))


def _sort_rows(rows: Any, out: Any, where: Any, first: int, count: int, descending: bool,
               keys: Any = None, places: Any = None) -> None:
    """Rows in registers, or of (rows, count) elements chosen from them."""
    width = rows.shape[1]
    n = width if keys is None else count
    size = power(n)
    each = 1 if size <= 256 else 2 if size <= 1024 else 4
    lanes = size // each
    block = max(lanes, 128 if lanes <= 32 else lanes)
    word = 16 if _key_bytes(rows.dtype) == 8 else 8
    launch("sort", f"sort_rows<{ctype(rows.dtype)}, {each}>",
           blocks(rows.shape[0], block // lanes), block,
           (rows, keys, places, out, where, rows.shape[0], n, width, first, count, lanes,
            descending), size * word if lanes > 32 else 0)


def _on_chip(rows: Any, out: Any, where: Any, first: int, count: int, descending: bool) -> bool:
    """Sort rows, `count` elements of the order from `first` on, if a block can hold one."""
    n = rows.shape[1]
    if n <= IN_REGISTERS:
        _sort_rows(rows, out, where, first, count, descending)
    elif n <= TILE_THREADS * radix.each(_key_bytes(rows.dtype) + 4):
        _sort_block(rows, out, where, first, count, descending)
    else:
        return False
    return True


def _sort_block(rows: Any, out: Any, where: Any, first: int, count: int,
                descending: bool) -> None:
    n = rows.shape[1]
    item = _key_bytes(rows.dtype) + 4
    each = radix.each(item)
    if n <= TILE_THREADS * (each // 2):
        each //= 2
    launch("sort", f"sort_block<{ctype(rows.dtype)}, {each}>", rows.shape[0], TILE_THREADS,
           (rows, out, where, n, first, count, descending), TILE_THREADS * each * item)


def _radix(rows: Any, out: Any, where: Any, descending: bool) -> None:
    count, n = rows.shape
    if n >= 1 << 31:
        raise ShapeError(f"sort: rows of 2^31 elements and more are not sorted on CUDA, got {n}")
    item = _key_bytes(rows.dtype) + 4
    plan = radix.Plan(count, n, 1 if rows.dtype.kind == "b" else 8 * rows.itemsize, item)
    kinds = f"<{ctype(rows.dtype)}, {plan.word}>"
    launch("sort", f"count_digits{kinds}", plan.counting, TILE_THREADS,
           (rows, plan.totals, count, n, plan.tiles, plan.passes, descending))
    plan.begin("sort")
    for number in range(plan.passes):
        launch("sort", f"radix_pass{kinds}", count * plan.tiles, TILE_THREADS,
               (rows, plan.work, out, where, *plan.of(number), count, n, plan.tiles, number,
                plan.passes, descending), plan.shared)
