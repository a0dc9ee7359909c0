"""Batch norm over (N, C, positions), for a range of the channels: one after the other.

A channel's numbers stay in cache between its passes where they fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled, inlined

__all__ = ["backward", "forward"]

_SHORT = 4096  # numbers added in their own dtype, before such sums are added in float64


@inlined
def _sum(x: Any, channel: int) -> float:
    total = 0.0
    for n in range(len(x)):
        for start in range(0, x.shape[2], _SHORT):
            part = x[n, channel, start:start + _SHORT]
            short = x.dtype.type(0)
            for at in range(len(part)):
                short += part[at]
            total += short
    return total


@inlined
def _squares(x: Any, channel: int, mean: Any) -> float:
    total = 0.0
    for n in range(len(x)):
        for start in range(0, x.shape[2], _SHORT):
            part = x[n, channel, start:start + _SHORT]
            short = x.dtype.type(0)
            for at in range(len(part)):
                short += (part[at] - mean) * (part[at] - mean)
            total += short
    return total


@inlined
def _products(dy: Any, x: Any, channel: int, mean: Any) -> float:
    """The sum of dy * (x - mean)."""
    total = 0.0
    for n in range(len(x)):
        for start in range(0, x.shape[2], _SHORT):
            part = x[n, channel, start:start + _SHORT]
            grad = dy[n, channel, start:start + _SHORT]
            short = x.dtype.type(0)
            for at in range(len(part)):
                short += grad[at] * (part[at] - mean)
            total += short
    return total


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
