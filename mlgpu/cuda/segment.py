"""Rows brought together by their keys: a stable sort of the keys, and each key's rows combined.

The order of every sum depends on the keys and the shape alone, so results repeat to the bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda import radix, rows
from mlgpu.cuda.faults import fault, site
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.runtime import empty
from mlgpu.cuda.types import ctype

OPS = {"sum": 0, "prod": 1, "amax": 2, "amin": 3, "mean": 4}
_FEW = 3  # keys a thread has where there are few: up to 1,536
_NARROW = 64  # bytes of a row from which lanes go along rows, not along keys
INT, LONG = np.dtype(np.int32), np.dtype(np.int64)


class Keys(NamedTuple):
    """Keys below `bound` in order, and where each was; wrong and skipped ones stand last."""

    keys: Any
    positions: Any  # None: they were in order
    bound: int


def sort(index: Any, bound: int, message: str | None, *, skip: int = -1, wrap: bool = False
         ) -> Keys:
    """Sort a vector of indices below `bound`; those equal to `skip` count as wrong.

    `message` says what an index out of range is reported as; None: it was reported before.
    """
    count = index.size
    dtype = INT if max(bound, count) < 2**31 - 1 else LONG
    keys, positions = empty((count,), dtype), empty((count,), dtype)
    if not count:
        return Keys(keys, positions, bound)
    bits, item = max(1, bound.bit_length()), 2 * dtype.itemsize
    options = (bound, skip, wrap)
    cell = (fault(), site(message)) if message else (None, 0)
    kinds = f"{ctype(index.dtype)}, {ctype(dtype)}"
    most = radix.each(item)
    if count <= radix.THREADS * most:
        each = _FEW if count <= radix.THREADS * _FEW else most
        launch("segment", f"sort_tile<{kinds}, {each}>", 1, radix.THREADS,
               (index, keys, positions, count, *options, bits, *cell),
               radix.THREADS * each * item)
        return Keys(keys, positions, bound)
    plan = radix.Plan(1, count, bits, item)
    launch("segment", f"count_digits<{kinds}, {plan.word}>", plan.counting, radix.THREADS,
           (index, plan.totals, count, plan.tiles, plan.passes, bits, *options, *cell))
    plan.begin("segment")
    for number in range(plan.passes):
        launch("segment", f"move_keys<{kinds}, {plan.word}>", plan.tiles, radix.THREADS,
               (index, plan.work, keys, positions, *plan.of(number), count, plan.tiles, number,
                plan.passes, bits, *options), plan.shared)
    return Keys(keys, positions, bound)


def accumulator(dtype: Any) -> Any:
    """What rows of a dtype are combined in."""
    return LONG if dtype.kind in "iub" else rows.wide(dtype)


def combine(out: Any, values: Any, keys: Keys, op: str = "sum", keep: bool = False,
            source: Any = None, scale: Any = None) -> None:
    """Combine rows of `values` (outer, n, inner) into those of `out` (outer, bound, inner).

    Each key's rows, in order, and with `keep` what is there before them.  With `source` the rows
    are values[:, source[i]], with `scale` they are multiplied by scale[i].  Both contiguous.
    """
    outer, bound, inner = out.shape
    count = total = keys.keys.size
    columns = outer * inner
    if not count or not columns:
        return
    narrow = inner * out.itemsize < _NARROW
    dtype = accumulator(out.dtype)
    chosen, positions, level = keys.keys, keys.positions, values
    steps = (level.shape[1] * inner, inner, 1)
    while True:
        windows = blocks(count, 32)
        partial = following = None
        if windows > 1:
            following = empty((2 * windows,), keys.keys.dtype)
            partial = empty((2 * windows * columns,), dtype)
        kinds = ", ".join(map(ctype, (out.dtype, level.dtype, dtype, keys.keys.dtype)))
        given = (out, level, chosen, positions, source, scale, partial, following, keys.keys,
                 total, count, bound, outer, inner, *steps[:2])
        width = max(1, min(rows.vector(inner, out, level), 16 // dtype.itemsize))
        if narrow:
            width = width if level is values else 1  # partial results lie column by column
            launch("segment", f"combine_columns<{kinds}, {width}, {OPS[op]}>",
                   blocks(windows * (columns // width), 4), 128,
                   (*given, steps[2], windows, keep))
            steps = (inner * 2 * windows, 1, 2 * windows)
        else:
            width = width if out.dtype.kind not in "iub" else 1
            chunks = blocks(columns // width, 32)
            launch("segment", f"combine_rows<{kinds}, {width}, {OPS[op]}>",
                   blocks(windows * chunks, 4), 128, (*given, chunks, keep))
            steps = (inner, columns, 1)
        if partial is None:
            return
        chosen, positions, level, count = following, None, partial, 2 * windows
        source = scale = None
