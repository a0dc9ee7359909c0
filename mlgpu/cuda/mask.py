"""Where elements are not zero, and what masks fill and scatter.

How many elements are not zero is read by the host: it sizes the result.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.evaluate import evaluate
from mlgpu.cuda.index import broadcast, put_rows
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.runtime import contiguous, copy, empty
from mlgpu.cuda.types import ctype
from mlgpu.expr.graph import Expr, arg
from mlgpu.expr.lower import TENSOR, Operand, Program, lower
from mlgpu.storage import may_share_memory

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


@cache
def _chosen(dtype: Any) -> Program:
    kind = dtypes.from_numpy(dtype)
    operands = [Operand(d, TENSOR) for d in (dtypes.bool_, kind, kind)]
    return lower("masked_fill", (Expr("where", (arg(0), arg(1), arg(2)), kind),), operands, [kind])


def fill(out: Any, x: Any, mask: Any, value: Any) -> None:
    """out = the 0-dim `value` where the mask is true, else x; both broadcast."""
    if out.size:
        evaluate(_chosen(out.dtype), (mask, value, x), (out,))


def scatter(out: Any, mask: Any, source: Any) -> int:
    """The elements of `source`, in order, to where the mask is true; how many that are.

    Nothing is written where `source` has fewer.
    """
    found = places(broadcast(mask, out.shape))
    if not found.size or found.size > source.size:
        return int(found.size)
    if may_share_memory(out, source):
        source = copy(source)
    target = contiguous(out)
    values = contiguous(source).reshape(-1)[:found.size]
    put_rows(target.reshape(1, -1, 1), found, values.reshape(1, -1, 1), None, unique=True)
    if target is not out:
        copy_into(out, target)
    return int(found.size)
