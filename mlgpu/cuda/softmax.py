"""Softmax and log-softmax on the device: which kernel, by the length and the place of the rows."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from mlgpu.cuda import rows
from mlgpu.cuda.launch import Prepared, Strided, launch, prepare
from mlgpu.cuda.rows import Plan
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype

MASK_ROWS = np.dtype([(name, np.int64) for name in (
    "heads", "queries", "batch_stride", "head_stride", "query_stride", "shift")])

HELD = 32  # values of a row that a thread holds in registers; half as many doubles


def forward(x: Any, dim: int, log: bool = False) -> Any:
    """Softmax of x along `dim`, or its logarithm."""
    return _run("softmax", x.dtype, (contiguous(x),), dim, log)


def backward(dy: Any, y: Any, dim: int, log: bool = False) -> Any:
    """The gradient of x, given y = softmax(x), or its logarithm."""
    return _run("softmax_backward", y.dtype, (contiguous(dy), contiguous(y)), dim, log)


def masked(x: Any, mask: Any = None, scale: float = 1.0, causal: bool = False, shift: int = 0
           ) -> Any:
    """Softmax of scale * x, (batch, heads, queries, keys), along keys and under a mask.

    mask, of x's shape with strides of 0 where it broadcasts: truth values (False: not seen) or
    numbers to add.  causal: a query sees the keys up to its own number plus `shift`; the others are
    not read.  A query that sees nothing gives zeros.  The gradient is scale times `backward`.
    """
    x = contiguous(x)
    out = empty(x.shape, x.dtype)
    if not out.size:
        return out
    n = x.shape[3]
    arrays = (out, x)
    layout = np.zeros((), MASK_ROWS)
    layout["heads"], layout["queries"], layout["shift"] = x.shape[1], x.shape[2], shift
    width = rows.vector(n, *arrays)
    if mask is not None:
        mask = mask if mask.strides[3] == mask.itemsize or n == 1 else contiguous(mask)
        strides = [stride // mask.itemsize for stride in mask.strides[:3]]
        layout["batch_stride"], layout["head_stride"], layout["query_stride"] = strides
        width = min(width, rows.vector(math.gcd(n, *strides), mask, most=rows.VECTOR))
    plan = masked_plan(x.dtype, x.dtype if mask is None else mask.dtype, width,
                       x.size // n, n, causal)
    given = None if mask is None else Strided(mask)
    launch("softmax", plan.kernel, plan.grid, plan.block, (out, x, given, layout, *plan.numbers,
                                                           scale))
    return out


def masked_plan(dtype: Any, mask: Any, width: int, count: int, n: int, causal: bool) -> Plan:
    """As `rows_plan`, with a mask of that dtype."""
    types = f"{ctype(dtype)}, {ctype(mask)}, {width}"
    flag = str(causal).lower()
    if n <= rows.WARP * HELD:
        lanes, vectors = rows.lanes(n, width)
        return Plan(f"masked_softmax_rows<{types}, {vectors}, {lanes}, {flag}>",
                    -(-count * lanes // 256), 256, (count, n))
    threads = rows.threads(n, 2 * width, 1024)
    return Plan(f"masked_softmax_long<{types}, {flag}>", count, threads, (n,))


def _run(name: str, dtype: Any, arrays: tuple[Any, ...], dim: int, log: bool) -> Any:
    shape = arrays[0].shape
    out = empty(shape, dtype)
    if not out.size:
        return out
    outer, n, inner = rows.around(shape, dim)
    if shared_by_blocks(outer, n) and inner == 1 and len(arrays) == 1:
        part = empty((outer, pieces(n), 2), rows.wide(dtype))
        sums, apply = pieces_plans(dtype, rows.vector(n, out, *arrays), outer, n, log)
        launch("softmax", sums.kernel, sums.grid, sums.block, (part, *arrays, *sums.numbers))
        launch("softmax", apply.kernel, apply.grid, apply.block,
               (out, *arrays, part, *apply.numbers))
        return out
    width = rows.vector(n if inner == 1 else inner, out, *arrays)
    limit = rows.shared_limit() if inner == 1 and n > rows.WARP * HELD else 0
    _launch(name, dtype, width, outer, n, inner, log, limit)(out, *arrays)
    return out


@functools.lru_cache(maxsize=4096)
def _launch(name: str, dtype: Any, width: int, outer: int, n: int, inner: int, log: bool,
            limit: int) -> Prepared:
    plan = (columns_plan(name, dtype, width, outer, n, inner, log) if inner > 1
            else rows_plan(name, dtype, width, outer, n, log, limit))
    return prepare("softmax", plan.kernel, plan.grid, plan.block, plan.numbers, plan.shared)


def rows_plan(name: str, dtype: Any, width: int, count: int, n: int, log: bool,
              shared_limit: int) -> Plan:
    """For `count` rows of n values side by side, `width` of which are loaded at once."""
    held = HELD * 4 // rows.wide(dtype).itemsize
    read = 2 if name.endswith("backward") else 1  # arrays that are read
    flag = str(log).lower()
    if n <= rows.WARP * HELD:
        lanes, vectors = rows.lanes(n, width)
        return Plan(f"{name}_rows<{ctype(dtype)}, {width}, {vectors}, {lanes}, {flag}>",
                    -(-count * lanes // 256), 256, (count, n))
    for each in (held // 2, held // read):
        if n <= 512 * each:
            return Plan(f"{name}_block<{ctype(dtype)}, {width}, {each // width}, {flag}>", count,
                        rows.threads(n, each, 512), (n,))
    kept = read * n * dtype.itemsize
    fits = kept + rows.STATIC <= shared_limit
    return Plan(f"{name}_long<{ctype(dtype)}, {width}, {flag}, {str(fits).lower()}>", count, 1024,
                (n,), kept if fits else 0)


def shared_by_blocks(count: int, n: int) -> bool:
    """Whether rows are too few, and long enough, to be one block's each."""
    return count < 64 and n >= 1 << 15


def pieces(n: int) -> int:
    """How many blocks share a row."""
    return min(64, n >> 12)


def pieces_plans(dtype: Any, width: int, count: int, n: int, log: bool) -> tuple[Plan, Plan]:
    """The sums of the pieces of each row, and their results."""
    types = f"{ctype(dtype)}, {ctype(rows.wide(dtype))}, {width}"
    grid = count * pieces(n)
    return (Plan(f"softmax_parts<{types}>", grid, 512, (n, pieces(n))),
            Plan(f"softmax_pieces<{types}, {str(log).lower()}>", grid, 512, (n, pieces(n))))


def columns_plan(name: str, dtype: Any, width: int, outer: int, n: int, inner: int, log: bool
                 ) -> Plan:
    """For (outer, n, inner), along the middle; `width` neighbours are loaded at once."""
    flag = str(log).lower()
    most = HELD * 4 // rows.wide(dtype).itemsize // width  # values of a column in registers
    if name.endswith("backward"):
        most //= 2
    if n <= most:
        return Plan(f"{name}_few<{ctype(dtype)}, {width}, {rows.power(n)}, {flag}>",
                    -(-outer * inner // (256 * width)), 256, (outer * inner, n, inner))
    lanes = min(rows.WARP, rows.power(-(-inner // width)))
    tiles = -(-inner // (lanes * width))
    return Plan(f"{name}_columns<{ctype(dtype)}, {width}, {lanes}, {flag}>", outer * tiles, 256,
                (n, inner, tiles))
