"""Where elements are not zero.  How many there are is read by the host: it sizes the result."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype

TILE = 4096  # elements that a block looks at
_LONG = np.dtype(np.int64)
_SIZES = np.dtype([("size", np.int64, 32)])


def places(x: Any) -> Any:
    """The flat places of the elements of x that are not zero, in order."""
    from mlgpu.cuda.transfer import to_host

    x = contiguous(x)
    if not x.size:
        return empty((0,), _LONG)
    tiles = blocks(x.size, TILE)
    before = empty((tiles + 1,), _LONG)
    launch("mask", f"count_nonzero<{ctype(x.dtype)}>", tiles, 256, (x, before, x.size))
    launch("mask", "scan_counts", 1, 256, (before, tiles))
    count = int(to_host(before[tiles:], False)[0][0])
    found = empty((count,), _LONG)
    if count:
        launch("mask", f"write_nonzero<{ctype(x.dtype)}>", tiles, 256, (x, before, found, x.size))
    return found


def nonzero(x: Any, by_dimension: bool) -> Any:
    """The coordinates of what is not zero: (count, ndim), or with `by_dimension` (ndim, count)."""
    found = places(x)
    count, dims = found.size, x.ndim
    if dims == 1:
        return found.reshape((1, count) if by_dimension else (count, 1))
    out = empty((dims, count) if by_dimension else (count, dims), _LONG)
    if out.size:
        sizes = np.zeros(1, _SIZES)
        sizes["size"][0, :dims] = x.shape
        steps = (1, count) if by_dimension else (dims, 1)
        launch("mask", "coordinates", blocks(count, 256), 256,
               (found, out, count, sizes, dims, *steps))
    return out
