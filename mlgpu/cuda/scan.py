"""Scans along a dimension: which kernel of kernels/scan.cu, and how it is cut.

The cuts follow from the shape alone, so results repeat bit by bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.rows import around, power
from mlgpu.cuda.types import ctype

THREADS = 256
_WARP_UNITS = 128  # vectors of a row that lanes of a warp take; longer ones get a block
_BLOCKS = 256  # as many rows as keep a GPU busy; with fewer, long ones are cut
_COLUMNS = 1 << 15  # as many threads of `scan_columns`
_WHOLE, _TOTALS, _CARRIED = range(3)  # modes of the kernels


def scan(x: Any, dim: int, op: str, reverse: bool = False, factors: Any = None,
         out: Any = None) -> Any:
    """The scan of `x` along `dim` by an operator of kernels/scan.cu, from the back with `reverse`.

    `op`: cumsum, cumprod, logcumsumexp; cummax and cummin, which give (values, int64 indices); or
    recurrence, x being b and `factors` a in h_i = b_i + a_i h_(i-1).  `out` is where the values go,
    which may be `x` itself.
    """
    places = op in ("cummax", "cummin")
    x = runtime.contiguous(x)
    out = runtime.empty(x.shape, x.dtype) if out is None else out
    index = runtime.empty(x.shape, np.dtype(np.int64)) if places else None
    if x.size:
        factors = None if factors is None else runtime.contiguous(factors)
        outer, n, inner = around(x.shape, dim)
        run = _rows if inner == 1 else _columns
        run(f"ml_{op}<{ctype(x.dtype)}>", x, factors, out, index, outer, n, inner, reverse)
    return (out, index) if places else out


def _width(n: int, *arrays: Any) -> int:
    """Elements that every thread takes at once: 16 bytes of the widest array, if all are there."""
    given = [a for a in arrays if a is not None]
    width = max(1, 16 // max(a.dtype.itemsize for a in given))
    while width > 1 and (n % width or any(a.data.ptr % (width * a.dtype.itemsize)
                                          for a in given)):
        width //= 2
    return int(min(width, 8))


def _accumulator(op: str, dtype: Any) -> int:
    """Bytes of the accumulator of an operator."""
    if op.startswith("ml_recurrence"):
        return 32 if dtype.kind == "c" else 16
    if op.startswith(("ml_cummax", "ml_cummin")):
        return 16
    return max(4, int(dtype.itemsize))


def _rows(op: str, x: Any, factors: Any, out: Any, index: Any, rows: int, n: int, _: int,
          reverse: bool) -> None:
    wide = 8 if index is not None else x.dtype.itemsize
    vector = _width(n, x, out, factors, index)
    aligned = vector * wide >= 16
    if not aligned:
        vector = min(8, max(1, 16 // wide))
    units = blocks(n, vector)
    cuts, chunk = 1, n
    if units <= _WARP_UNITS:
        lanes, block = min(32, power(units)), THREADS
    else:
        lanes = block = THREADS
        tile = THREADS * vector
        cuts = min(blocks(_BLOCKS, rows), n // (4 * tile))
        if rows >= _BLOCKS // 4 or cuts < 2:
            cuts = 1
        else:
            chunk = blocks(blocks(n, cuts), tile) * tile
            cuts = blocks(n, chunk)
    kernel = (f"scan_rows<{op}, {ctype(x.dtype)}, {vector}, {'true' if aligned else 'false'}>")
    grid = (blocks(rows, block // lanes), cuts)
    _in_modes(op, kernel, grid, block, (x, factors, out, index), (rows, n, chunk, lanes, reverse),
              x.dtype, (rows, cuts, 1))


def _columns(op: str, x: Any, factors: Any, out: Any, index: Any, outer: int, n: int, inner: int,
             reverse: bool) -> None:
    vector = _width(inner, x, out, factors, index)
    threads = outer * inner // vector
    cuts = min(blocks(_COLUMNS, threads), n // 128)
    if threads >= _COLUMNS // 4 or cuts < 2:
        cuts = 1
    chunk = blocks(n, cuts)
    cuts = blocks(n, chunk)
    kernel = f"scan_columns<{op}, {ctype(x.dtype)}, {vector}>"
    block = min(THREADS, max(32, power(threads)))
    _in_modes(op, kernel, (blocks(threads, block), cuts), block, (x, factors, out, index),
              (outer, n, inner, chunk, reverse), x.dtype, (outer, cuts, inner))


def _in_modes(op: str, kernel: str, grid: tuple[int, int], block: int, arrays: tuple[Any, ...],
              sizes: tuple[Any, ...], dtype: Any, cut: tuple[int, int, int]) -> None:
    """One launch, or the three that cut rows take."""
    if cut[1] == 1:
        launch("scan", kernel, grid, block, (*arrays, None, *sizes, _WHOLE))
        return
    outer, cuts, inner = cut
    totals = runtime.empty((outer * cuts * inner * _accumulator(op, dtype),), np.dtype(np.uint8))
    launch("scan", kernel, grid, block, (*arrays, totals, *sizes, _TOTALS))
    threads = outer * (32 if inner == 1 else inner)
    launch("scan", f"scan_totals<{op}>", blocks(threads, THREADS), THREADS,
           (totals, outer, cuts, inner))
    launch("scan", kernel, grid, block, (*arrays, totals, *sizes, _CARRIED))


def shift(x: Any, dim: int, by: int, fill: float) -> Any:
    """x_(i + by) at every i along `dim`, `fill` where that is out of range."""
    x = runtime.contiguous(x)
    out = runtime.empty(x.shape, x.dtype)
    _, n, inner = around(x.shape, dim)
    launch("scan", f"shift_along<{ctype(x.dtype)}>", blocks(x.size, THREADS), THREADS,
           (x, out, x.size, n, inner, by, fill))
    return out


def add_runs(dy: Any, index: Any, dim: int) -> Any:
    """Zeros with every dy added where an index that never falls along `dim` says."""
    dy = runtime.contiguous(dy)
    dx = runtime.zeros(dy.shape, dy.dtype)
    _, n, inner = around(dy.shape, dim)
    launch("scan", f"add_runs<{ctype(dy.dtype)}>", blocks(dy.size, THREADS), THREADS,
           (dy, index, dx, dy.size, n, inner))
    return dx
