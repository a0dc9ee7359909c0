"""Layer norm and RMS norm over blocks of rows (rows, n): a row at a time.

A row stays in cache between its passes, so memory is read and written once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled
from mlgpu.cpu.fast.rows import SHORT
from mlgpu.cpu.fast.streams import LINE, ask, fence, send, sends

__all__ = ["backward", "backward_sent", "forward", "sends", "sends_parts"]

_PART = 256  # numbers of a row between two times that lines are asked for or sent
_AHEAD = 2  # rows before the one whose lines are asked for
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
        for start in range(0, n, SHORT):
            part = x[i, start:start + SHORT]
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
                for start in range(0, n, SHORT):
                    part = x[i, start:start + SHORT]
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
             dbias: Any, centered: bool) -> None:
    """dx; to dweight and dbias (1, n), unless they are empty, the sums over the rows are added."""
    rows, n = x.shape
    affine = dweight.size > 0
    zero = x.dtype.type(0)
    for i in range(rows):
        middle = mean[i, 0] if centered else zero
        factor = rstd[i, 0]
        with_x, alone = 0.0, 0.0
        for start in range(0, n, SHORT):
            end = min(n, start + SHORT)
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
        for column in range(n):
            normal = (x[i, column] - middle) * factor
            dx[i, column] = (dy[i, column] * scale[column] - level - normal * along) * factor


def sends_parts(rows: Any) -> bool:
    """Whether `backward_sent` is to compute a result (rows, n), and may."""
    return sends(rows) and rows.shape[1] % _PART == 0


@compiled
def backward_sent(dx: Any, dy: Any, x: Any, mean: Any, rstd: Any, scale: Any, dweight: Any,
                  dbias: Any, centered: bool) -> None:
    """As `backward`, with dx past the caches and the lines of coming rows asked for meanwhile.

    Both in small parts among the arithmetic, since memory is what it waits for.
    """
    rows, n = x.shape
    zero = x.dtype.type(0)
    step = LINE // x.itemsize
    buffer = np.empty(_PART, x.dtype)
    weights = dweight if dweight.size else np.zeros((1, n), x.dtype)
    biases = dbias if dbias.size else np.zeros((1, n), x.dtype)
    for i in range(rows):
        middle = mean[i, 0] if centered else zero
        factor = rstd[i, 0]
        next_grads, next_values = dy[min(i + _AHEAD, rows - 1)], x[min(i + _AHEAD, rows - 1)]
        with_x, alone = 0.0, 0.0
        for start in range(0, n, _PART):
            for column in range(start, start + _PART, step):
                ask(next_grads, column)
                ask(next_values, column)
            grad, value = dy[i, start:start + _PART], x[i, start:start + _PART]
            factors = scale[start:start + _PART]
            of_weight, of_bias = weights[0, start:start + _PART], biases[0, start:start + _PART]
            short_x, short = zero, zero
            for column in range(_PART):
                product = grad[column] * ((value[column] - middle) * factor)
                of_weight[column] += product
                of_bias[column] += grad[column]
                short_x += product * factors[column]
                short += grad[column] * factors[column]
            with_x += short_x
            alone += short
        along = x.dtype.type(with_x / n)
        level = x.dtype.type(alone / n) if centered else zero
        for start in range(0, n, _PART):
            grad, value = dy[i, start:start + _PART], x[i, start:start + _PART]
            factors, row = scale[start:start + _PART], dx[i, start:start + _PART]
            for column in range(_PART):
                normal = (value[column] - middle) * factor
                buffer[column] = (grad[column] * factors[column] - level - normal * along) * factor
            for column in range(0, _PART, step):
                send(row, buffer, column)
    fence()
