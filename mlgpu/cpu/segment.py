"""Rows combined by an index: the gradient of a table look-up, and bags of table rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlgpu.cpu import fast
from mlgpu.cpu.gemm import cast, widen
from mlgpu.cpu.rows import BLOCK, wide
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cpu.threads import get_num_threads, parallel

Array = np.ndarray[Any, Any]


def _segments(index: Array, features: int) -> Iterator[tuple[Array, Array, bool]]:
    """Where each value of `index` occurs, for many values at a time: (values, places, begins).

    places: (values, n), ascending, at most a block's worth; `begins` says that they are the first
    ones.  Values that occur equally often are handled together: there are at most sqrt(2 size)
    such groups, however many values there are.
    """
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(starts, append=len(index))
    by_length = np.argsort(lengths, kind="stable")
    starts, lengths = starts[by_length], lengths[by_length]
    edges = np.flatnonzero(np.concatenate(([True], lengths[1:] != lengths[:-1], [True])))
    room = max(1, BLOCK // max(1, features))
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        length = int(lengths[low])
        step = max(1, room // length)
        for group in range(low, high, step):
            first = starts[group:min(high, group + step)]
            for at in range(0, length, room):
                span = np.arange(at, min(length, at + room))
                yield ordered[first], order[first[:, None] + span], at == 0


def add_rows(rows: Array, index: Array, count: int, source: Array | None = None,
             scale: Array | None = None, average: bool = False) -> Array:
    """out[index[i]] += scale[i] * rows[source[i]] into `count` rows of zeros; rows: (n, features).

    Without `source` row i itself is added, without `scale` as it is; `average` divides by the
    number of rows added.  The order of additions depends only on `index`, and half types are
    summed in float32, so the result is deterministic.  Sorting brings equal indices together:
    three to ten times faster than np.add.at or add.reduceat, which work element by element.
    """
    compute = wide(rows.dtype) if rows.dtype.kind not in "iu" else rows.dtype
    loops = fast.load("segment", count * rows.shape[1] + rows.size) if (
        rows.dtype.char in "fd" and rows.flags.c_contiguous and index.size) else None
    if loops is not None:
        out = empty((count, rows.shape[1]), compute)
        _compiled(loops.add_rows, out, rows, index, source, scale)
    else:
        out = zeros((count, *rows.shape[1:]), compute)
        if rows.size and index.size:
            _add_groups(out, rows, index, source, scale)
    if average:
        counts = np.maximum(np.bincount(index, minlength=count), 1)
        np.divide(out, counts.astype(compute)[:, None], out=out)
    return cast(out, rows.dtype)


def _add_groups(out: Array, rows: Array, index: Array, source: Array | None,
                scale: Array | None) -> None:
    compute = out.dtype
    for targets, places, begins in _segments(index, rows.shape[1]):
        picked = rows[places if source is None else source[places]]
        if scale is not None:
            picked = picked.astype(compute, copy=False) * widen(scale[places])[..., None]
        total = np.add.reduce(picked, 1, dtype=compute)
        out[targets] = total if begins else out[targets] + total


def _compiled(loop: Any, out: Array, rows: Array, index: Array, source: Array | None,
              scale: Array | None) -> None:
    """Each task owns some rows of the result and looks for what is added to them."""
    count = len(out)
    part = max(1, -(-count // (4 * get_num_threads())))
    index = index.astype(np.int64, copy=False)
    places = index if source is None else source.astype(np.int64, copy=False)
    factors = empty((0,), out.dtype) if scale is None else np.ascontiguousarray(scale, out.dtype)

    def body(task: int) -> None:
        low = task * part
        loop(out[low:low + part], low, rows, index, places, factors, source is not None,
             scale is not None)

    parallel(-(-count // part), lambda: body, out.size + rows.size)


def largest_rows(rows: Array, index: Array, count: int, source: Array) -> Array:
    """Per feature, which of the rows source[i] with index[i] == k is largest: (count, features).

    The first of equal ones; a NaN counts only where it comes first (as in PyTorch's bags).  0 for a
    k that does not occur.
    """
    which = zeros((count, rows.shape[1]), np.int64)
    if rows.size == 0 or index.size == 0:
        return which
    top = empty(which.shape, wide(rows.dtype))
    for targets, places, begins in _segments(index, rows.shape[1]):
        numbers = source[places]
        picked = rows[numbers].astype(top.dtype, copy=False)
        ranked = np.where(np.isnan(picked), -np.inf, picked)
        if begins:
            ranked[:, 0][np.isnan(picked[:, 0])] = np.inf
        best = ranked.argmax(1)
        values = np.take_along_axis(picked, best[:, None], 1)[:, 0]
        found = np.take_along_axis(numbers, best, 1)
        better = begins | (values > top[targets])
        top[targets] = np.where(better, values, top[targets])
        which[targets] = np.where(better, found, which[targets])
    return which
