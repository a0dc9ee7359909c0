"""Batch norm over (N, C, positions), for a range of the channels: one after the other.

A channel's numbers stay in cache between its passes where they fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.rows import products, squares, total

__all__ = ["backward", "forward"]


@inlined
def _sum(x: Any, channel: int) -> float:
    found = 0.0
    for n in range(len(x)):
        found += total(x[n, channel])
    return found


@inlined
def _squares(x: Any, channel: int, mean: Any) -> float:
    found = 0.0
    for n in range(len(x)):
        found += squares(x[n, channel], mean)
    return found


@inlined
def _products(dy: Any, x: Any, channel: int, mean: Any) -> float:
    found = 0.0
    for n in range(len(x)):
        found += products(dy[n, channel], x[n, channel], mean)
    return found


@compiled
def forward(first: int, last: int, y: Any, x: Any, mean: Any, var: Any, scale: Any, shift: Any,
            eps: float) -> None:
    values = x.shape[0] * x.shape[2]
    for channel in range(first, last):
        middle = x.dtype.type(_sum(x, channel) / values)
        spread = _squares(x, channel, middle) / values
        mean[channel], var[channel] = middle, spread
        factor = x.dtype.type(scale[channel] / np.sqrt(spread + eps))
        less = shift[channel]
        for n in range(len(x)):
            for at in range(x.shape[2]):
                y[n, channel, at] = (x[n, channel, at] - middle) * factor + less


@compiled
def backward(first: int, last: int, dx: Any, dy: Any, x: Any, mean: Any, rstd: Any, factor: Any,
             dweight: Any, dbias: Any) -> None:
    values = x.shape[0] * x.shape[2]
    for channel in range(first, last):
        middle = mean[channel]
        along = _products(dy, x, channel, middle) * rstd[channel]
        level = _sum(dy, channel)
        dweight[channel], dbias[channel] = along, level
        slope = x.dtype.type(along / values * rstd[channel])
        less = x.dtype.type(level / values)
        outer = factor[channel]
        for n in range(len(x)):
            for at in range(x.shape[2]):
                dx[n, channel, at] = (
                    dy[n, channel, at] - less - (x[n, channel, at] - middle) * slope) * outer
