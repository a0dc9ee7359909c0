"""Layer and RMS normalisation of rows on the device: which kernels, by the length of the rows."""

from __future__ import annotations

import functools
import math
from typing import Any

from mlgpu.cuda import rows
from mlgpu.cuda.launch import Prepared, prepare
from mlgpu.cuda.rows import Plan
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype

HELD = 32  # values of a row that a thread holds, forward; half as many backward, and of doubles
PARTS = 128  # partial sums of parameters' gradients, at most
FOLD = 32  # columns of a block of norm_fold


def forward(x: Any, ndim: int, weight: Any, bias: Any, eps: float, centered: bool,
            residual: Any = None) -> tuple[Any, Any, Any]:
    """x, or x + residual, normalised over its last `ndim` dimensions; that sum, or None; and stats.

    The stats, mean and 1 / deviation, are (2, rows), of the dtype that is computed in.
    """
    x = contiguous(x)
    count, n = _rows(x, ndim)
    y = empty(x.shape, x.dtype)
    stats = empty((2, count), rows.wide(x.dtype))
    total = None
    if residual is not None:
        residual = contiguous(residual)
        total = empty(x.shape, x.dtype)
    if x.size:
        weight, bias = (None if v is None else contiguous(v) for v in (weight, bias))
        width = rows.vector(n, *_given(y, x, residual, total, weight, bias))
        limit = rows.shared_limit() if n > rows.WARP * HELD else 0
        launch = _forward(x.dtype, _parameters(x, weight, bias), width, count, n, centered, limit,
                          eps)
        launch(y, total, x, residual, weight, bias, *_columns(stats, centered))
    return y, total, stats


def backward(dy: Any, x: Any, ndim: int, weight: Any, stats: Any, centered: bool,
             bias: bool = False, extra: Any = None) -> tuple[Any, Any, Any]:
    """The gradients of x, to which `extra` is added, and of weight and bias: None if not given."""
    dy, x = contiguous(dy), contiguous(x)
    count, n = _rows(x, ndim)
    dx = empty(x.shape, x.dtype)
    affine = weight is not None
    dweight = empty(weight.shape, weight.dtype) if affine else None
    dbias = empty(weight.shape, weight.dtype) if bias else None
    if not x.size:
        for gradient in _given(dweight, dbias):
            gradient.data.memset_async(0, gradient.nbytes)
        return dx, dweight, dbias
    extra, weight = (None if v is None else contiguous(v) for v in (extra, weight))
    width = rows.vector(n, *_given(dx, dy, x, extra, weight))
    launch, columns, parts = _backward(x.dtype, _parameters(x, weight), width, count, n, centered,
                                       affine)
    part = empty((parts, 2 if centered else 1, n), rows.wide(x.dtype)) if affine else None
    means, deviations = _columns(stats, centered)
    arrays = (dx, dy, x, extra, weight, means, deviations)
    if columns is None:
        launch(*arrays, part)
    else:
        launch(*arrays)
        if affine:
            columns(part, dy, x, means, deviations)
    if part is not None:
        fold(part, dweight, dbias)
    return dx, dweight, dbias


def fold(part: Any, dweight: Any, dbias: Any) -> None:
    """Write the sums of (parts, kinds, n) over parts: dweight, and dbias unless that is None."""
    _fold(dweight.dtype, part.dtype, *part.shape)(dweight, dbias, part)


@functools.lru_cache(maxsize=4096)
def _fold(parameter: Any, compute: Any, parts: int, kinds: int, n: int) -> Prepared:
    return prepare("norm", f"norm_fold<{ctype(parameter)}, {ctype(compute)}>", -(-n // FOLD), 256,
                   (parts, kinds, n))


def _rows(x: Any, ndim: int) -> tuple[int, int]:
    split = x.ndim - ndim
    return math.prod(x.shape[:split]), math.prod(x.shape[split:])


def _given(*arrays: Any) -> list[Any]:
    return [a for a in arrays if a is not None]


def _columns(stats: Any, centered: bool) -> tuple[Any, Any]:
    """Where the means, if there are any, and the deviations start: views would take longer."""
    return stats.data if centered else None, stats.data + stats.nbytes // 2


# --- plans ----------------------------------------------------------------------------------------


def _parameters(x: Any, *parameters: Any) -> Any:
    for parameter in parameters:
        if parameter is not None:
            return parameter.dtype
    return x.dtype


@functools.lru_cache(maxsize=4096)
def _forward(dtype: Any, parameter: Any, width: int, count: int, n: int, centered: bool,
             limit: int, eps: float) -> Prepared:
    plan = forward_plan(dtype, ctype(parameter), width, count, n, centered, limit)
    return prepare("norm", plan.kernel, plan.grid, plan.block, (*plan.numbers, eps), plan.shared)


@functools.lru_cache(maxsize=4096)
def _backward(dtype: Any, parameter: Any, width: int, count: int, n: int, centered: bool,
              affine: bool) -> tuple[Prepared, Prepared | None, int]:
    """The launch of dx; that of the parameters' sums, of long rows; and how many of those."""
    plan, parts = backward_plan(dtype, ctype(parameter), width, count, n, centered, affine)
    first = prepare("norm", plan.kernel, plan.grid, plan.block, plan.numbers)
    if "_long" not in plan.kernel:
        return first, None, parts
    plan = columns_plan(dtype, width, count, n, centered, parts)
    return first, prepare("norm", plan.kernel, plan.grid, plan.block, plan.numbers), parts


def forward_plan(dtype: Any, parameter: str, width: int, count: int, n: int, centered: bool,
                 shared_limit: int) -> Plan:
    """For `count` rows of n values side by side, `width` of which are loaded at once."""
    compute = rows.wide(dtype)
    types = f"{ctype(dtype)}, {parameter}, {ctype(compute)}, {width}"
    flag = str(centered).lower()
    if n <= rows.WARP * HELD:
        lanes, vectors = rows.lanes(n, width)
        return Plan(f"norm_rows<{types}, {vectors}, {lanes}, {flag}>", -(-count * lanes // 256),
                    256, (count, n))
    held = HELD * 4 // compute.itemsize
    for each in (held // 2, held):
        if n <= 512 * each:
            return Plan(f"norm_block<{types}, {each // width}, {flag}>", count,
                        rows.threads(n, each, 512), (n,))
    kept = n * dtype.itemsize
    fits = kept + rows.STATIC <= shared_limit
    return Plan(f"norm_long<{types}, {flag}, {str(fits).lower()}>", count, 1024, (n,),
                kept if fits else 0)


def backward_plan(dtype: Any, parameter: str, width: int, count: int, n: int, centered: bool,
                  affine: bool) -> tuple[Plan, int]:
    """The kernel of dx, and how many partial sums of the parameters' gradients there are.

    Each costs 16 bytes a column beside the rows' three values of a column.
    """
    compute = rows.wide(dtype)
    types = f"{ctype(dtype)}, {parameter}, {ctype(compute)}, {width}"
    flag = str(centered).lower()
    each = HELD * 4 // compute.itemsize // (2 if width > 1 else 4)
    parts = max(32, min(PARTS, count * dtype.itemsize // 160))
    if n > 512 * each:
        return Plan(f"norm_backward_long<{types}, {flag}>", count, 1024, (n,)), min(
            parts, -(-count // 8))
    lanes = min(512, rows.power(-(-n // max(width, each if n > 128 else 4))))
    groups = -(-count * lanes // 512)
    vectors = rows.few(-(-n // (width * lanes)))
    parts = min(parts, groups)
    return Plan(f"norm_backward_rows<{types}, {vectors}, {lanes}, {flag}, {str(affine).lower()}>",
                parts if affine else groups, 512, (count, n)), parts


def columns_plan(dtype: Any, width: int, count: int, n: int, centered: bool, splits: int) -> Plan:
    """Sums over rows too long for `norm_backward_rows`."""
    compute = ctype(rows.wide(dtype))
    tiles = -(-n // (rows.WARP * width))
    return Plan(f"norm_backward_columns<{ctype(dtype)}, {compute}, {width}, "
                f"{str(centered).lower()}>", tiles * splits, 256, (count, n, splits))
