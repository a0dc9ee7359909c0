"""The steps of a GRU in compiled loops, the rows of a batch cut among the threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mlgpu.cpu import blas
from mlgpu.cpu.fast import load
from mlgpu.cpu.gemm import cast, contiguous
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cpu.threads import get_num_threads, parallel

__all__ = ["backward", "forward", "loops"]

Array = np.ndarray[Any, Any]


def loops(steps: int, n: int, hidden: int) -> ModuleType | None:
    """The compiled loops, where they serve: the same for forward and backward."""
    return load("gru", steps * n * 3 * hidden) if steps * n * hidden else None


def _each_part(n: int, work: int, start: Callable[[int], Callable[[int, int], None]]) -> None:
    """`start(most rows)`'s result for the first and last row of every part of n rows."""
    parts = min(n, get_num_threads())
    cuts = [n * part // parts for part in range(parts + 1)]
    most = max(b - a for a, b in itertools.pairwise(cuts))

    def begin() -> Callable[[int], None]:
        body = start(most)
        return lambda part: body(cuts[part], cuts[part + 1])

    with blas.one_thread():
        parallel(parts, begin, work)


def forward(fast: ModuleType, x: Array, h: Array, w: Array, bias: Array | None, y: Array,
            acts: Array, inner: Array, order: Sequence[int]) -> None:
    """Fill y (steps, n, hidden); of the last steps that there is room for, the gates `acts`
    (reset, update and new) and `inner`, what reset multiplies."""
    n, hidden = h.shape
    lanes = fast.lanes(x.itemsize)
    panels = empty((-(-3 * hidden // lanes), hidden, lanes), x.dtype)
    fast.pack_rows(w, panels)
    x, h, steps = contiguous(x), contiguous(h), np.array(order, np.intp)
    shift = zeros((3 * hidden,), x.dtype) if bias is None else contiguous(bias)

    def start(most: int) -> Callable[[int, int], None]:
        product = empty((most, len(panels) * lanes), x.dtype)

        def run(low: int, high: int) -> None:
            fast.forward(x, panels, shift, h, y, acts, inner, steps, low, high,
                         product[:high - low])

        return run

    _each_part(n, _work(order, n, hidden), start)


def backward(fast: ModuleType, dy: Array | None, dh: Array, h: Array, w: Array, y: Array,
             acts: Array, inner: Array, dgates: Array, dinner: Array, order: Sequence[int]) -> None:
    """Fill `dgates` and `dinner`, of their products; `dh` becomes that of the first state."""
    n, hidden = h.shape
    lanes = fast.lanes(y.itemsize)
    panels = empty((-(-hidden // lanes), 3 * hidden, lanes), y.dtype)
    fast.pack_columns(w, panels)
    given = empty((0, 0, 0), y.dtype) if dy is None else contiguous(cast(dy, y.dtype))
    h, y, steps = contiguous(h), contiguous(y), np.array(order, np.intp)

    def start(most: int) -> Callable[[int, int], None]:
        dstate = empty((most, len(panels) * lanes), y.dtype)
        # Rows a power of two apart would all want the same lines of the cache.
        dact = empty((most, 3 * hidden + lanes), y.dtype)

        def run(low: int, high: int) -> None:
            fast.backward(given, dh, h, panels, y, acts, inner, dgates, dinner, steps, low, high,
                          dstate[:high - low], dact[:high - low])

        return run

    _each_part(n, _work(order, n, hidden), start)


def _work(order: Sequence[int], n: int, hidden: int) -> int:
    return len(order) * n * 3 * hidden * max(1, hidden >> 4)
