"""Sliding windows as columns, and columns added up where their windows lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cuda import lines
from mlgpu.cuda.index import raw
from mlgpu.cuda.launch import Strided, blocks, launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype

_FIELDS = ("large", "small", "kernel", "stride", "dilation", "before")
_WINDOWS = np.dtype([(name, np.int32, 2) for name in _FIELDS])


def _struct(windows: Any) -> Any:
    struct = np.zeros(1, _WINDOWS)
    for name in _FIELDS:
        struct[name][0] = getattr(windows, name)
    return struct


def unfold(x: Any, windows: Any) -> Any:
    """(N, C, *large) to (N, C * taps, windows): each window as a column, zeros outside."""
    taps, count = math.prod(windows.kernel), math.prod(windows.small)
    out = empty((x.shape[0], x.shape[1] * taps, count), x.dtype)
    if not out.size:
        return out
    y, x = raw(out), raw(contiguous(x))
    even = lines.Windows(*(each[1] for each in (windows.stride, windows.kernel, windows.before,
                                                windows.large, windows.small)))
    vector = even.of_elements(x.itemsize) if even.fits and windows.dilation[1] == 1 else 0
    if vector:
        numbers = f"{even.stride}, {even.taps}, {even.before}, {vector}"
        threads = y.size // (even.taps * vector)
        launch("fold", f"unfold_lines<{ctype(y.dtype)}, {numbers}>", blocks(threads, 256), 256,
               (y, lines.aligned(x), threads, _struct(windows)))
    else:
        launch("fold", f"unfold<{ctype(y.dtype)}>", blocks(y.size, 256), 256,
               (y, x, y.size, _struct(windows)))
    return out


def fold(columns: Any, windows: Any) -> Any:
    """The adjoint of `unfold`: adds each column to its window."""
    channels = columns.shape[1] // math.prod(windows.kernel)
    out = empty((columns.shape[0], channels, *windows.large), columns.dtype)
    if out.size:
        launch("fold", f"fold<{ctype(out.dtype)}>", blocks(out.size, 256), 256,
               (out, contiguous(columns), out.size, _struct(windows)))
    return out


def overlap_add(windows: Any, shape: Sequence[int], dim: int, step: int) -> Any:
    """Zeros of a shape with windows, the last dimension of `windows`, added up `step` apart.

    Those along dimension `dim` lie side by side; they may end before or behind the shape does.
    """
    out = empty(shape, windows.dtype)
    windows = contiguous(windows)
    number, size = windows.shape[dim], windows.shape[-1]
    inner = math.prod(shape[dim + 1:])
    if out.size:
        launch("fold", f"overlap_add<{ctype(out.dtype)}>", blocks(out.size, 256), 256,
               (out, Strided(windows), out.size, shape[dim], inner, number, size, step,
                number * inner * size, inner * size, size, 1))
    return out
