"""Layer norm and RMS norm over blocks of rows (rows, n): a row at a time.

A row stays in cache between its passes, so memory is read and written once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled
from mlgpu.cpu.fast.streams import LINE, fence, send, sends

__all__ = ["backward", "forward", "sends"]

_SHORT = 4096  # numbers added in the rows' own dtype, before such sums are added in float64
_FIRST = 16  # numbers whose mean is near enough to the row's, most of the time


@compiled
def forward(y: Any, x: Any, mean: Any, rstd: Any, scale: Any, shift: Any, centered: bool,
            eps: float, stream: bool) -> None:
    """(x - mean) * rstd * scale + shift; mean and rstd are found, the mean only if `centered`.

    The sums of x - level and of its square, for a level near the mean, are taken together.  Where
    the level was not near, the difference of the two would cost digits, and the variance is summed
    again.  With `stream` y is written past the caches (see `streams`).
    """
    rows, n = x.shape
    zero = x.dtype.type(0)
    buffer = np.empty(n if stream else 0, x.dtype)
    step = LINE // x.itemsize
    for i in range(rows):
        level = zero
        if centered:
            for column in range(min(_FIRST, n)):
                level += x[i, column]
            level /= x.dtype.type(min(_FIRST, n))
        total, squares = 0.0, 0.0
        for start in range(0, n, _SHORT):
            part = x[i, start:start + _SHORT]
            short, square = zero, zero
            for column in range(len(part)):
                value = part[column] - level
                short += value
                square += value * value
            total += short
            squares += square
        middle = zero
        if centered:
            away = total / n
            middle = x.dtype.type(level + away)
            mean[i, 0] = middle
            if away * away * 5 * n <= squares * 4:
                squares -= away * away * n
            else:
                squares = 0.0
                for start in range(0, n, _SHORT):
                    part = x[i, start:start + _SHORT]
                    square = zero
                    for column in range(len(part)):
                        square += (part[column] - middle) * (part[column] - middle)
                    squares += square
        factor = x.dtype.type(1 / np.sqrt(squares / n + eps))
        rstd[i, 0] = factor
        row = y[i]
        if stream:
            for column in range(n):
                buffer[column] = (x[i, column] - middle) * factor * scale[column] + shift[column]
            for column in range(0, n, step):
                send(row, buffer, column)
        else:
            for column in range(n):
                row[column] = (x[i, column] - middle) * factor * scale[column] + shift[column]
    if stream:
        fence()


@compiled
def backward(dx: Any, dy: Any, x: Any, mean: Any, rstd: Any, scale: Any, dweight: Any,
             dbias: Any, centered: bool, stream: bool) -> None:
    """dx; to dweight and dbias (1, n), unless they are empty, the sums over the rows are added."""
    rows, n = x.shape
    affine = dweight.size > 0
    zero = x.dtype.type(0)
    buffer = np.empty(n if stream else 0, x.dtype)
    step = LINE // x.itemsize
    for i in range(rows):
        middle = mean[i, 0] if centered else zero
        factor = rstd[i, 0]
        with_x, alone = 0.0, 0.0
        for start in range(0, n, _SHORT):
            end = min(n, start + _SHORT)
            grads, values, scales = dy[i, start:end], x[i, start:end], scale[start:end]
            short_x, short = zero, zero
            if affine:
                weights, biases = dweight[0, start:end], dbias[0, start:end]
                for column in range(end - start):
                    grad = grads[column]
                    product = grad * ((values[column] - middle) * factor)
                    weights[column] += product
                    biases[column] += grad
                    short_x += product * scales[column]
                    short += grad * scales[column]
            else:
                for column in range(end - start):
                    short_x += grads[column] * ((values[column] - middle) * factor)
                    short += grads[column]
            with_x += short_x
            alone += short
        along = x.dtype.type(with_x / n)
        level = x.dtype.type(alone / n) if centered else zero
        row = dx[i]
        if stream:
            for column in range(n):
                normal = (x[i, column] - middle) * factor
                buffer[column] = (dy[i, column] * scale[column] - level - normal * along) * factor
            for column in range(0, n, step):
                send(row, buffer, column)
        else:
            for column in range(n):
                normal = (x[i, column] - middle) * factor
                row[column] = (dy[i, column] * scale[column] - level - normal * along) * factor
    if stream:
        fence()
