"""Group norm over blocks of rows (rows, n), each a group of one example: a row at a time.

A row's channels have their values side by side; scale, shift and the sums of their gradients are
(rows, channels).  A row's numbers stay in cache between its passes where they fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled
from mlgpu.cpu.fast.rows import products, squares, total

__all__ = ["backward", "forward"]


@compiled
def forward(y: Any, x: Any, mean: Any, rstd: Any, scale: Any, shift: Any, eps: float) -> None:
    """(x - mean) * rstd * scale + shift; mean and rstd (rows, 1) are found."""
    rows, n = x.shape
    positions = n // scale.shape[1]
    for i in range(rows):
        middle = x.dtype.type(total(x[i]) / n)
        factor = x.dtype.type(1 / np.sqrt(squares(x[i], middle) / n + eps))
        mean[i, 0], rstd[i, 0] = middle, factor
        for channel in range(scale.shape[1]):
            first = channel * positions
            values, out = x[i, first:first + positions], y[i, first:first + positions]
            slope, level = factor * scale[i, channel], shift[i, channel]
            for at in range(positions):
                out[at] = (values[at] - middle) * slope + level


@compiled
def backward(dx: Any, dy: Any, x: Any, mean: Any, rstd: Any, dscale: Any, dshift: Any, scale: Any
             ) -> None:
    """dx; and dscale and dshift, of each row's channels."""
    rows, n = x.shape
    channels = scale.shape[1]
    positions = n // channels
    for i in range(rows):
        middle, factor = mean[i, 0], rstd[i, 0]
        along, level = 0.0, 0.0
        for channel in range(channels):
            first = channel * positions
            values, grads = x[i, first:first + positions], dy[i, first:first + positions]
            with_x, alone = products(grads, values, middle) * factor, total(grads)
            dscale[i, channel], dshift[i, channel] = with_x, alone
            along += with_x * scale[i, channel]
            level += alone * scale[i, channel]
        slope = x.dtype.type(along / n * factor * factor)
        less = x.dtype.type(level / n * factor)
        for channel in range(channels):
            first = channel * positions
            values, grads = x[i, first:first + positions], dy[i, first:first + positions]
            out, outer = dx[i, first:first + positions], factor * scale[i, channel]
            for at in range(positions):
                out[at] = grads[at] * outer - less - (values[at] - middle) * slope
