"""Searching, membership, counting and groups of equal elements: kernels/search.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype

THREADS = 256
_SHARED_BINS = 8192  # counters that a block keeps in shared memory
_BLOCKS = 512  # that count
_GROUP_TILE = 2048  # rows whose groups a block counts
_INT64, _BOOL = np.dtype(np.int64), np.dtype(np.bool_)


def searchsorted(sequence: Any, values: Any, right: bool, dtype: Any) -> Any:
    """Where `values` go in the ascending rows of `sequence`, or in its only one."""
    out = runtime.empty(values.shape, np.dtype(dtype))
    sequence, values = runtime.contiguous(sequence), runtime.contiguous(values)
    each = 0 if sequence.ndim == 1 else values.shape[-1]
    launch("search", f"searchsorted<{ctype(values.dtype)}, {ctype(out.dtype)}>",
           blocks(values.size, THREADS), THREADS,
           (sequence, values, out, sequence.shape[-1], each, values.size, right))
    return out


def is_in(elements: Any, tests: Any, invert: bool) -> Any:
    """Whether each element is (is not, with `invert`) one of the ascending `tests`."""
    out = runtime.empty(elements.shape, _BOOL)
    launch("search", f"is_in<{ctype(elements.dtype)}>", blocks(elements.size, THREADS), THREADS,
           (runtime.contiguous(elements), tests, out, tests.size, elements.size, invert))
    return out


def on_host(array: Any) -> Any:
    """A NumPy copy, for which the host waits."""
    from mlgpu.cuda.transfer import to_host

    return to_host(array, False)[0]


def _counting(count: int, bins: int) -> tuple[int, int, int, int]:
    """Grid, block, the columns of counters that a block keeps of each bin, and what they take."""
    grid = min(_BLOCKS, blocks(count, 4 * THREADS))
    columns = 0
    if bins <= _SHARED_BINS:  # as many counters as a block has elements, at most
        room = max(1, min(_SHARED_BINS, blocks(count, max(1, grid))) // max(1, bins))
        columns = min(32, 1 << room.bit_length() - 1)
    return grid, THREADS, columns, 4 * bins * columns


def count_places(places: Any, bins: int) -> Any:
    """How often each of 0 .. bins - 1 occurs; there is nothing else."""
    counts = runtime.zeros((bins,), _INT64)
    grid, block, columns, room = _counting(places.size, bins)
    launch("search", f"count_places<{ctype(places.dtype)}>", grid, block,
           (runtime.contiguous(places), counts, bins, places.size, columns), room)
    return counts


def count_bins(x: Any, bins: int, low: float, high: float) -> Any:
    """How many elements lie in each of the equal bins from `low` to `high`."""
    counts = runtime.zeros((bins,), _INT64)
    grid, block, columns, room = _counting(x.size, bins)
    launch("search", f"count_bins<{ctype(x.dtype)}>", grid, block,
           (runtime.contiguous(x), counts, bins, low, high, x.size, columns), room)
    return counts


def groups(table: Any, places: Any, inverse: bool, sizes: bool) -> tuple[Any, Any, Any]:
    """The first of each group of equal neighbours among the rows of a table (n, width).

    Also, where asked for, the group of every row, at `places` (or in order), and the groups' sizes.
    Waits for the device: how many groups there are is the size of the result.
    """
    rows, width = table.shape
    around = runtime.empty((rows,), _INT64) if inverse else None
    if not rows:
        return (runtime.empty((0, width), table.dtype), around,
                runtime.empty((0,), _INT64) if sizes else None)
    kind, tiles = ctype(table.dtype), blocks(rows, _GROUP_TILE)
    before = runtime.empty((tiles + 1,), _INT64)
    launch("search", f"count_starts<{kind}>", tiles, THREADS, (table, before, rows, width))
    launch("mask", "scan_counts", 1, THREADS, (before, tiles))
    count = int(on_host(before[tiles:])[0])
    values = runtime.empty((count, width), table.dtype)
    first = runtime.empty((count,), _INT64) if sizes else None
    launch("search", f"write_groups<{kind}>", tiles, THREADS,
           (table, before, places, values, first, around, rows, width))
    held = None
    if first is not None:
        held = runtime.empty((count,), _INT64)
        launch("search", "group_sizes", blocks(count, THREADS), THREADS, (first, held, count, rows))
    return values, around, held
