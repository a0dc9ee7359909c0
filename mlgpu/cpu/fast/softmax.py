"""Softmax, its logarithm and the cross entropy over blocks of rows (rows, n): a row at a time.

A row stays in cache between its passes, so memory is read and written once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.maths import exp_down
from mlgpu.cpu.fast.rows import SHORT, largest
from mlgpu.cpu.fast.streams import LINE, ask

__all__ = ["class_losses", "log_softmax", "log_softmax_backward", "score_gradient", "softmax",
           "softmax_backward"]

_PART = 256  # numbers of a row between two times that lines of the next are asked for


@inlined
def _power_sum(x: Any, i: int, top: Any) -> Any:
    """The sum of exp(row i - top), in float64; the next row is asked for meanwhile.

    Its largest number is looked for next, at the speed at which it comes.
    """
    row, after = x[i], x[min(i + 1, len(x) - 1)]
    step = LINE // x.itemsize
    total = 0.0
    for start in range(0, len(row), _PART):
        part = row[start:start + _PART]
        for column in range(start, start + len(part), step):
            ask(after, column)
        short = x.dtype.type(0)
        for column in range(len(part)):
            short += exp_down(part[column] - top)
        total += short
    return total


@compiled
def softmax(y: Any, x: Any) -> None:
    rows, n = x.shape
    for i in range(rows):
        top = largest(x[i])
        total = 0.0
        for start in range(0, n, SHORT):
            source, target = x[i, start:start + SHORT], y[i, start:start + SHORT]
            short = x.dtype.type(0)
            for column in range(len(source)):
                power = exp_down(source[column] - top)
                target[column] = power
                short += power
            total += short
        factor = x.dtype.type(1 / total)
        for column in range(n):
            y[i, column] *= factor


@compiled
def softmax_backward(dx: Any, dy: Any, y: Any) -> None:
    rows, n = dx.shape
    for i in range(rows):
        total = 0.0
        for start in range(0, n, SHORT):
            grad, value = dy[i, start:start + SHORT], y[i, start:start + SHORT]
            short = dx.dtype.type(0)
            for column in range(len(grad)):
                short += grad[column] * value[column]
            total += short
        mean = dx.dtype.type(total)
        for column in range(n):
            dx[i, column] = (dy[i, column] - mean) * y[i, column]


@compiled
def log_softmax(y: Any, x: Any) -> None:
    rows, n = x.shape
    for i in range(rows):
        top = largest(x[i])
        logsum = x.dtype.type(np.log(_power_sum(x, i, top)))
        for column in range(n):
            y[i, column] = (x[i, column] - top) - logsum


@compiled
def log_softmax_backward(dx: Any, dy: Any, y: Any) -> None:
    rows, n = dx.shape
    for i in range(rows):
        total = 0.0
        for start in range(0, n, SHORT):
            grad = dy[i, start:start + SHORT]
            short = dx.dtype.type(0)
            for column in range(len(grad)):
                short += grad[column]
            total += short
        factor = dx.dtype.type(total)
        for column in range(n):
            dx[i, column] = dy[i, column] - exp_down(y[i, column]) * factor


@compiled
def class_losses(x: Any, index: Any, weights: Any, lse: Any, losses: Any, hit: float,
                 by_class: Any, whole: float, smooth: bool) -> None:
    """Of each row the logsumexp and the cross entropy with class `index`; see `CrossEntropy`."""
    rows, n = x.shape
    for i in range(rows):
        top = largest(x[i])
        logsum = np.log(_power_sum(x, i, top))
        lse[i, 0] = top + logsum
        loss = (logsum - (np.float64(x[i, index[i, 0]]) - top)) * weights[i, 0] * hit
        if smooth:
            spread = 0.0
            for start in range(0, n, SHORT):
                part, share = x[i, start:start + SHORT], by_class[start:start + SHORT]
                short = x.dtype.type(0)
                for column in range(len(part)):
                    short += (part[column] - top) * share[column]
                spread += short
            loss += whole * logsum - spread
        losses[i, 0] = loss


@compiled
def score_gradient(dx: Any, x: Any, lse: Any, index: Any, weights: Any, row: Any, by_class: Any,
                   whole: float, smooth: bool) -> None:
    """The gradient of `class_losses`, given that of each row's loss; `weights` times it."""
    rows, n = x.shape
    for i in range(rows):
        less, weight = lse[i, 0], weights[i, 0]
        if smooth:
            grad = row[i, 0]
            factor = x.dtype.type(weight + whole * grad)
            for column in range(n):
                dx[i, column] = exp_down(x[i, column] - less) * factor - by_class[column] * grad
        else:
            for column in range(n):
                dx[i, column] = exp_down(x[i, column] - less) * weight
        dx[i, index[i, 0]] -= weight
