"""Evenly spaced numbers, made on the device."""

from __future__ import annotations

from typing import Any

from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.runtime import empty
from mlgpu.cuda.types import ctype


def arange(start: Any, step: Any, count: int, dtype: Any) -> Any:
    """start, start + step ...: computed in int64 for ints, else in float64."""
    y = empty((count,), dtype)
    whole = isinstance(start, int) and isinstance(step, int)
    name = "arange_integers" if whole else "arange_floats"
    launch("sequence", f"{name}<{ctype(dtype)}>", blocks(count, 256), 256, (y, start, step, count))
    return y


def linspace(start: float, end: float, step: float, count: int, dtype: Any) -> Any:
    """`count` numbers from `start` to `end`."""
    y = empty((count,), dtype)
    launch("sequence", f"linspace<{ctype(dtype)}>", blocks(count, 256), 256,
           (y, start, end, step, count))
    return y
