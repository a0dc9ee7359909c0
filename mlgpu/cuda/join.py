"""Tensors joined along a dimension: each copied into its place in the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.index import raw, row_plan
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.runtime import empty
from mlgpu.cuda.types import ctype


def cat(arrays: Sequence[Any], dim: int) -> Any:
    """The arrays one after the other along `dim`; they agree in all else."""
    shape = list(arrays[0].shape)
    shape[dim] = sum(a.shape[dim] for a in arrays)
    out = empty(shape, arrays[0].dtype)
    outer, block = math.prod(shape[:dim]), math.prod(shape[dim + 1:])
    pitch, first = shape[dim] * block, 0
    for array in arrays:
        n = array.shape[dim]
        if not array.size:
            continue
        if array.flags.c_contiguous:
            y, x, offset = raw(out), raw(array), first * block
            width = row_plan(n * block, (y, x), (pitch if outer > 1 else 0, offset)).width
            launch("join", f"copy_slot<{ctype(y.dtype)}, {width}>",
                   blocks(array.size // width, 1024), 256,
                   (y, x, outer, n * block, pitch, offset))
        else:
            copy_into(out[(slice(None),) * dim + (slice(first, first + n),)], array)
        first += n
    return out
