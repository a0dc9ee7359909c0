"""Layer norm and RMS norm over blocks of rows (rows, n): a row at a time.

A row stays in cache between its passes, so memory is read and written once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled

__all__ = ["backward", "forward"]

_SHORT = 4096  # numbers added in the rows' own dtype, before such sums are added in float64


@compiled
def forward(y: Any, x: Any, mean: Any, rstd: Any, scale: Any, shift: Any, centered: bool,
            eps: float) -> None:
    """(x - mean) * rstd * scale + shift; mean and rstd are found, the mean only if `centered`."""
    rows, n = x.shape
    for i in range(rows):
        middle = x.dtype.type(0)
        if centered:
            total = 0.0
            for start in range(0, n, _SHORT):
                part = x[i, start:start + _SHORT]
                short = x.dtype.type(0)
                for column in range(len(part)):
                    short += part[column]
                total += short
            middle = x.dtype.type(total / n)
            mean[i, 0] = middle
        squares = 0.0
        for start in range(0, n, _SHORT):
            part = x[i, start:start + _SHORT]
            short = x.dtype.type(0)
            for column in range(len(part)):
                short += (part[column] - middle) * (part[column] - middle)
            squares += short
        factor = x.dtype.type(1 / np.sqrt(squares / n + eps))
        rstd[i, 0] = factor
        for column in range(n):
            y[i, column] = (x[i, column] - middle) * factor * scale[column] + shift[column]


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
        for column in range(n):
            normal = (x[i, column] - middle) * factor
            dx[i, column] = (dy[i, column] * scale[column] - level - normal * along) * factor
