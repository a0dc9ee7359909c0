"""Layer norm and RMS norm over blocks of rows (rows, n): a row at a time.

A row stays in cache between its passes, so memory is read and written once.  The arithmetic is
little: lines of the next row, and of the result's, are asked for all the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled
from mlgpu.cpu.fast.rows import SHORT
from mlgpu.cpu.fast.streams import LINE, fence, send, sends
from mlgpu.cpu.fast.vectors import Made, Vectors, address, each

__all__ = ["backward", "forward", "sends"]

_FIRST = 16  # numbers whose mean is near enough to the row's, most of the time


def _away(write: Vectors, x: Any, level: Any) -> Made:
    value = write.sub(x, level)
    return [], [value, write.mul(value, value)]


def _normal(write: Vectors, x: Any, scale: Any, shift: Any, middle: Any, factor: Any) -> Made:
    normal = write.mul(write.sub(x, middle), factor)
    return [write.fma(normal, scale, shift)], []


def _weighed(write: Vectors, dy: Any, x: Any, scale: Any, dweight: Any, dbias: Any, middle: Any,
             factor: Any) -> Made:
    product = write.mul(dy, write.mul(write.sub(x, middle), factor))
    return ([write.add(dweight, product), write.add(dbias, dy)],
            [write.mul(product, scale), write.mul(dy, scale)])


def _slope(write: Vectors, dy: Any, x: Any, scale: Any, middle: Any, factor: Any, level: Any,
           along: Any) -> Made:
    normal = write.mul(write.sub(x, middle), factor)
    rest = write.sub(write.sub(write.mul(dy, scale), level), write.mul(normal, along))
    return [write.mul(rest, factor)], []


_sum_away = each(_away, 1, 0, numbers=1, sums=2, read=1, written=1)
_normalize = each(_normal, 3, 1, numbers=2, near=True)
_weigh = each(_weighed, 5, 2, numbers=2, sums=2, read=2, written=1, near=True)
_slopes = each(_slope, 3, 1, numbers=4, near=True)


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
        row, result, following = address(x[i]), address(y[i]), address(x[min(i + 1, rows - 1)])
        made = address(buffer) if stream else result
        total, squares = 0.0, 0.0
        for start in range(0, n, SHORT):
            at = start * x.itemsize
            # Of what is sent, no line is read before.
            asked = following + at if stream else result + at
            short, square, _ = _sum_away(x, min(SHORT, n - start), (
                row + at, following + at, asked), (level, zero))
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
                    at = start * x.itemsize
                    _, square, _ = _sum_away(x, min(SHORT, n - start), (
                        row + at, row + at, result + at), (middle, zero))
                    squares += square
        factor = x.dtype.type(1 / np.sqrt(squares / n + eps))
        rstd[i, 0] = factor
        _normalize(x, n, (row, address(scale), address(shift), made), (middle, factor, zero))
        if stream:
            for column in range(0, n, step):
                send(y[i], buffer, column)
    if stream:
        fence()


@compiled
def backward(dx: Any, dy: Any, x: Any, mean: Any, rstd: Any, scale: Any, dweight: Any,
             dbias: Any, centered: bool, stream: bool) -> None:
    """dx; to dweight and dbias (1, n), unless they are empty, the sums over the rows are added.

    With `stream` dx is written past the caches.
    """
    rows, n = x.shape
    zero = x.dtype.type(0)
    buffer = np.empty(n if stream else 0, x.dtype)
    step = LINE // x.itemsize
    unused = np.zeros((2, 0 if dweight.size else n), x.dtype)
    weights = address(dweight) if dweight.size else address(unused[0])
    biases = address(dbias) if dbias.size else address(unused[1])
    for i in range(rows):
        middle, factor = mean[i, 0] if centered else zero, rstd[i, 0]
        after = min(i + 1, rows - 1)
        grad, row, result = address(dy[i]), address(x[i]), address(dx[i])
        next_grad, next_row = address(dy[after]), address(x[after])
        with_x, alone = 0.0, 0.0
        for start in range(0, n, SHORT):
            at = start * x.itemsize
            short_x, short, _ = _weigh(x, min(SHORT, n - start), (
                grad + at, row + at, address(scale) + at, weights + at, biases + at, weights + at,
                biases + at, next_grad + at, next_row + at, next_row + at if stream else result + at
                ), (middle, factor, zero))
            with_x += short_x
            alone += short
        along = x.dtype.type(with_x / n)
        level = x.dtype.type(alone / n) if centered else zero
        _slopes(x, n, (grad, row, address(scale), address(buffer) if stream else result),
                (middle, factor, level, along, zero))
        if stream:
            for column in range(0, n, step):
                send(dx[i], buffer, column)
    if stream:
        fence()
