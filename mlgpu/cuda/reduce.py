"""Reductions over any dimensions of a strided array: which kernel of kernels/reduce.cu, and how.

How the work is split, and so the order in which numbers are added, follows from shapes, strides and
alignment alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.dims import MOST, Dim, collapsed, ml_dims
from mlgpu.cuda.launch import prepare
from mlgpu.cuda.types import ctype

THREADS = 256
_BLOCKS = 512  # as many as keep any GPU busy; below it, long reductions are split
_WARP_UNITS = 128  # vectors of a row that a warp takes; longer ones get a block
_ROW_THREADS = 512  # of the largest such block
_SPLIT_UNITS = 4 * _ROW_THREADS  # the least part of a split row
_CACHED = 8 << 20  # bytes whose partial results hardly reach memory
_SHORT = 256  # bytes of a row in its compute type that one thread takes


def reduce(x: Any, dims: Sequence[int], op: str, dtype: Any = None, keepdim: bool = False,
           p: float = 0.0, values: bool = True, index: bool = False, other: bool = False) -> Any:
    """The reduction of `x` over `dims` (none: elementwise) by an operator of kernels/reduce.cuh.

    `op` is its name without ml_: sum, mean, nansum, prod, count, amax, amin, argmax, argmin,
    minmax, logsumexp, all, any, var, std, norm0, norm1, norm2, norm, norm_inf, norm_low.  `dtype`
    is the result's, that of `x` by default; `p` is the correction of var and std, and the order of
    norm.  Gives the values; with `other` also the mean (of var and std) or the largest (of minmax);
    with `index` of argmax and argmin also int64 indices, or these alone.  An index counts along the
    dimension, or in the flattened array where all are reduced.
    """
    key = (op, x.dtype, dtype, x.shape, x.strides, x.data.ptr % 16, tuple(dims), keepdim, p, values,
           index, other)
    way = _ways.get(key)
    if way is not None:
        return way(x)
    dims = tuple(d % x.ndim for d in dims)
    dtype = x.dtype if dtype is None else np.dtype(dtype)
    kept = [d for d in range(x.ndim) if d not in dims]
    shape = tuple([1 if d in dims else n for d, n in enumerate(x.shape) if keepdim or d in kept])
    dtypes = [dtype if values else None, dtype if other else None,
              np.dtype(np.int64) if index else None]
    given, how = x, None
    if 0 not in shape:
        if index and len(dims) > 1:
            x = runtime.contiguous(x)
        how = _plan_of(x, dims, op)
        if how is None:  # more dimensions than the kernels take
            x = runtime.contiguous(x.transpose([*kept, *dims]))
            how = _plan_of(x, tuple(range(len(kept), x.ndim)), op)
    way = _Way(how, op, x.dtype, dtype, shape, dtypes, p)
    if x is given:
        if len(_ways) >= _KEPT:
            _ways.clear()
        _ways[key] = way
    return way(x)


class _Way:
    """The results and the launches of one reduction; none where there is nothing to compute."""

    __slots__ = ("_dtypes", "_finish", "_partial", "_run", "_shape", "_short")

    def __init__(self, how: Plan | None, op: str, dtype: Any, result: Any, shape: tuple[int, ...],
                 dtypes: Sequence[Any], p: float) -> None:
        self._shape, self._dtypes = shape, dtypes
        self._run = self._finish = None
        if how is None:
            return
        self._short = how.kernel == "reduce_short"
        self._partial = how.splits * how.outputs * how.accumulator if how.splits > 1 else 0
        name, finish = _expressions(how.kernel, op, dtype, result, how.vector)
        self._run = prepare("reduce", name, how.grid, how.block, (*how.arguments, p), how.shared)
        if self._partial:
            width = min(32, power(how.outputs))
            self._finish = prepare("reduce", finish, -(-how.outputs // width), THREADS,
                                   (how.places, how.outputs, how.splits, how.count, width, p))

    def __call__(self, x: Any) -> Any:
        outs = [None if dtype is None else runtime.empty(self._shape, dtype)
                for dtype in self._dtypes]
        if self._run is not None and self._finish is not None:
            partial = runtime.empty((self._partial,), _BYTE)
            self._run.start(x, None, None, None, partial)
            self._finish.start(partial, *outs)
        elif self._run is not None:
            self._run.start(x, *outs, *(() if self._short else (None,)))
        results = tuple([out for out in outs if out is not None])
        return results if len(results) > 1 else results[0]


_ways: dict[Any, _Way] = {}
_KEPT = 4096
_BYTE = np.dtype(np.uint8)


def _plan_of(x: Any, dims: tuple[int, ...], op: str) -> Plan | None:
    return plan(x.shape, tuple([s // x.itemsize for s in x.strides]), dims, x.dtype, op,
                x.data.ptr % 16)


@functools.lru_cache(maxsize=4096)
def _expressions(kernel: str, op: str, dtype: Any, result: Any, vector: int) -> tuple[str, str]:
    """The names of the instances of a kernel and of the second stage."""
    kind, out = ctype(dtype), ctype(result)
    return (f"{kernel}<ml_{op}<{kind}>, {kind}, {out}, {vector}>",
            f"reduce_finish<ml_{op}<{kind}>, {out}>")


def power(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(0, n - 1).bit_length()


# --- the plan -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """A launch, and what its second stage has to know."""

    kernel: str
    vector: int
    grid: tuple[int, ...]
    block: int
    arguments: tuple[Any, ...]  # between the results and p
    outputs: int
    count: int
    places: Any
    splits: int = 1
    accumulator: int = 0
    shared: int = 0


def compute_size(dtype: Any) -> int:
    """Bytes of an element in the type that it is computed in."""
    return max(int(dtype.itemsize), 4)


def accumulator_size(op: str, dtype: Any) -> int:
    """Bytes of the accumulator that the operator of kernels/reduce.cuh has for this dtype."""
    size = compute_size(dtype)
    real = size // 2 if dtype.kind == "c" else size
    if op in ("argmax", "argmin"):
        return 16
    if op in ("sum", "mean", "nansum", "prod"):
        return 8 if dtype.kind in "biu" else size
    if op in ("var", "std"):
        return 2 * real + size
    if op == "logsumexp":
        return real + size
    if op == "minmax":
        return 2 * size
    return 8 if op == "count" else 4 if op in ("all", "any") else real


@functools.lru_cache(maxsize=4096)
def plan(shape: tuple[int, ...], strides: tuple[int, ...], dims: tuple[int, ...], dtype: Any,
         op: str, offset: int) -> Plan | None:
    """How to reduce an array at an address with this remainder by 16; None if it has too many
    dimensions."""
    places, step = [0] * len(shape), 1
    for d in reversed(range(len(shape))):
        if d not in dims:
            places[d] = step
            step *= shape[d]
    outputs, count = step, math.prod(shape[d] for d in dims)
    found = collapsed(shape, strides, places, [d in dims for d in range(len(shape))])
    kept, reduced = [d for d in found if not d.reduced], [d for d in found if d.reduced]
    if len(kept) > MOST or len(reduced) > MOST:
        return None
    case = _Case(kept, reduced, outputs, count, dtype, op, offset)
    inner = min(found, key=lambda d: (abs(d.stride) or math.inf, not d.reduced), default=None)
    if count == 0 or not kept or (inner is not None and inner.reduced):
        return case.short() or case.rows()
    return case.columns()


class _Case:
    """The collapsed dimensions of one reduction."""

    def __init__(self, kept: list[Dim], reduced: list[Dim], outputs: int, count: int, dtype: Any,
                 op: str, offset: int) -> None:
        self.kept, self.reduced, self.outputs, self.count = kept, reduced, outputs, count
        self.dtype, self.op, self.offset = dtype, op, offset
        self.places = ml_dims([d.size for d in kept], [d.place for d in kept])
        self.accumulator = accumulator_size(op, dtype)

    def aligned(self, *multiples: int) -> int:
        """The widest vector, of at most 16 bytes, that divides all of these numbers of elements
        and starts at the array's first."""
        size = self.dtype.itemsize
        width = max(1, 16 // size)
        while width > 1 and (self.offset % (width * size) or any(n % width for n in multiples)):
            width //= 2
        return int(width)

    def split(self, blocks: int, units: int, least: int) -> tuple[int, int]:
        """How many parts of how many units to split a reduction into, of this many blocks."""
        parts = max(1, min(-(-_BLOCKS // blocks), units // least)) if blocks < _BLOCKS else 1
        chunk = max(1, -(-units // parts))
        return max(1, -(-units // chunk)), chunk

    def least_rows(self, groups: int) -> int:
        """Rows of a part: enough for each thread, and for accumulators to be few beside them
        where they do not stay in the level-2 cache."""
        size = int(self.dtype.itemsize)
        far = self.outputs * self.count * size > _CACHED
        return max(16 * groups, 50 * self.accumulator // size if far else 0)

    def short(self) -> Plan | None:
        """Contiguous rows of few elements, that are not whole vectors."""
        if len(self.kept) != 1 or len(self.reduced) != 1:
            return None
        n, size = self.count, compute_size(self.dtype)
        if (n * size > _SHORT or self.reduced[0].stride != 1 or self.kept[0].stride != n
                or self.aligned(n) * self.dtype.itemsize >= 16):
            return None
        block = THREADS if THREADS * n * size <= 1 << 15 else THREADS // 2
        return Plan("reduce_short", min(8, self.aligned()), (-(-self.outputs // block),), block,
                    (self.places, self.outputs, n), self.outputs, n, self.places,
                    shared=block * n * size)

    def rows(self) -> Plan:
        """Threads side by side along a reduced dimension."""
        sizes = [d.size for d in self.reduced] or [self.count]
        strides = [d.stride for d in self.reduced] or [1]
        others = [d.stride for d in self.kept]
        vector = 1
        if strides[-1] == 1 and self.count:
            vector = self.aligned(sizes[-1], *strides[:-1], *others)
            widest = max(1, 16 // self.dtype.itemsize)
            if len(sizes) == 1 and sizes[0] >= 64 * widest:
                vector = widest  # the kernel looks for the first aligned element
            sizes[-1], strides[-1] = sizes[-1] // vector, vector
        units = self.count // vector
        splits = 1
        chunk = max(1, units)
        if units <= _WARP_UNITS:
            lanes, block = min(32, power(units)), THREADS
            grid = -(-self.outputs // (block // lanes))
        else:
            block = lanes = min(_ROW_THREADS, max(64, power(units // 8)))
            grid = self.outputs
            splits, chunk = self.split(grid, units, _SPLIT_UNITS)
        kept = ml_dims([d.size for d in self.kept], others)
        return Plan("reduce_rows", vector, (grid, splits), block,
                    (kept, self.places, ml_dims(sizes, strides), self.outputs, self.count, chunk,
                     lanes), self.outputs, self.count, self.places, splits, self.accumulator)

    def columns(self) -> Plan:
        """Threads side by side along a kept dimension."""
        *outer, inner = self.kept
        columns, fold = inner.size, 1
        steps = [d.stride for d in (*outer, *self.reduced)]
        most = 4 if self.accumulator > 8 else 8
        vector = min(most, self.aligned(columns, *steps)) if inner.stride == 1 else 1
        widest = min(most, self.aligned())
        if (vector < widest and not outer and inner.stride == 1 and len(self.reduced) == 1
                and self.reduced[0].stride == columns):
            whole = widest // math.gcd(widest, columns)  # rows until a vector ends with one
            if columns * whole // widest <= THREADS // 2 and self.count >= 4 * whole:
                vector, fold = widest, whole
        units = columns * fold // vector
        rows = self.count // fold
        side = units if fold > 1 else min(units, 32)
        groups = max(1, min(rows // 4, THREADS // side))
        if units > 32 and fold == 1:
            groups = 1 << groups.bit_length() - 1
        period = units if fold > 1 else min(units, THREADS // groups)
        tiles = -(-units // period)
        blocks = tiles * (self.outputs // columns)
        splits, chunk = self.split(blocks, rows, self.least_rows(groups))
        reduced = [(d.size, d.stride) for d in self.reduced] or [(1, 0)]
        if fold > 1:
            reduced = [(rows, columns * fold)]
        return Plan("reduce_columns", vector, (blocks, splits), THREADS,
                    (ml_dims([d.size for d in outer], [d.stride for d in outer]), self.places,
                     ml_dims(*zip(*reduced, strict=True)), columns, inner.stride, self.outputs,
                     self.count, chunk, tiles, period, groups, fold),
                    self.outputs, self.count, self.places, splits, self.accumulator)
