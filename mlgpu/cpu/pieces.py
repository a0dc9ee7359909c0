"""Arrays that together are one: a gradient made in pieces need not be copied into its whole.

A model cuts the product of one layer into queries, keys and values.  Their gradients, written to
where these lie, are that layer's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cpu.runtime import empty
from mlgpu.storage import address, root_of

__all__ = ["beside_each_other", "joined"]

Array = np.ndarray[Any, Any]


def beside_each_other(pieces: Sequence[Array]) -> list[Array] | None:
    """Empty arrays that lie in one block as these do in theirs; None if they do not fill one."""
    first, root = pieces[0], root_of(pieces[0])
    starts = [address(x) - address(root) for x in pieces]
    step = starts[1] - starts[0]
    if any(root_of(x) is not root or x.shape != first.shape or x.strides != first.strides
           or x.dtype != first.dtype or start != starts[0] + i * step
           for i, (x, start) in enumerate(zip(pieces, starts, strict=True))):
        return None
    expected = first.itemsize
    for stride, length in sorted(zip((step, *first.strides), (len(pieces), *first.shape),
                                     strict=True)):
        if length != 1:
            if stride != expected:
                return None
            expected *= length
    if starts[0] or expected != root.nbytes:
        return None
    block = empty((root.size,), first.dtype)
    return [np.ndarray(first.shape, first.dtype, block, start, first.strides) for start in starts]


def joined(pieces: Sequence[Array], shape: tuple[int, ...], views: Sequence[Any], dim: int
           ) -> Array | None:
    """The array of this shape whose `views` the pieces are already; None if there is none.

    views: functions that find each piece in the whole, which they cut along `dim`.
    """
    first, root = pieces[0], root_of(pieces[0])
    if not root.flags.c_contiguous or any(root_of(x) is not root for x in pieces):
        return None
    strides, start = first.strides, address(first)
    if first.ndim < len(shape):
        strides = (*strides[:dim], address(pieces[1]) - start, *strides[dim:])
    if min(strides, default=0) <= 0 or root.nbytes < first.itemsize * math.prod(shape):
        return None
    try:
        whole: Array = np.ndarray(shape, first.dtype, root, start - address(root), strides)
    except (TypeError, ValueError):  # it would reach beyond the block
        return None
    for view, piece in zip(views, pieces, strict=True):
        place = view(whole)
        if (address(place), place.shape, place.strides, place.dtype) != (
                address(piece), piece.shape, piece.strides, piece.dtype):
            return None
    return whole
