"""Dropout on the device: one kernel for forward and backward, for elements and for channels."""

from __future__ import annotations

import math
from typing import Any

from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.random import source
from mlgpu.cuda.types import ctype
from mlgpu.random import Stream

THREADS = 256
ELEMENTS = 8 * THREADS  # of a block: eight for each thread
CHUNK = 4096  # of a block that drops rows


def dropout(out: Any, x: Any, stream: Stream, p: float, rows: int | None, scale: float,
            lift: float = 0.0, base: float = 0.0) -> None:
    """out = x * (keep * scale) + keep * lift + base; both are contiguous, and may be one array.

    `keep` is 0 with probability p, else 1, for each element, or for each of so many rows.
    """
    if not x.size:
        return
    width = 1 if (out.data.ptr | x.data.ptr) % 16 else 16 // x.dtype.itemsize
    last = math.ceil(p * 2.0 ** 32) - 1
    options = (*source(stream), last, scale, lift, base)
    if rows is None:
        launch("dropout", f"dropout_elements<{ctype(x.dtype)}, {width}>", blocks(x.size, ELEMENTS),
               THREADS, (out, x, x.size, *options))
    else:
        launch("dropout", f"dropout_rows<{ctype(x.dtype)}, {width}>", blocks(x.size, CHUNK),
               THREADS, (out, x, x.size, x.size // rows, *options))
