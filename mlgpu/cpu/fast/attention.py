"""The passes over blocks of attention's scores, each row read and written once.

Row i of a block looks at columns up to i + ahead; the weights of others are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.maths import exp

__all__ = ["exponentials", "through_softmax", "weights"]

_LANES = 32  # a running maximum of one number does not become vector code


@inlined
def _largest(row: Any, lanes: Any) -> Any:
    """The largest number of a row; that it may miss NaN does not matter to its exponentials."""
    end = len(row) - len(row) % _LANES
    lanes[:] = -np.inf
    for start in range(0, end, _LANES):
        for lane in range(_LANES):
            x = row[start + lane]
            lanes[lane] = x if x > lanes[lane] else lanes[lane]
    top = lanes[0]
    for lane in range(1, _LANES):
        top = lanes[lane] if lanes[lane] > top else top
    for column in range(end, len(row)):
        top = row[column] if row[column] > top else top
    return top


@compiled
def exponentials(scores: Any, ahead: int, lse: Any, factor: Any) -> None:
    """exp(scores - the largest of the row), the log of the sum of exp, and 1 / the sum."""
    heads, rows, columns = scores.shape
    lanes = np.empty(_LANES, scores.dtype)
    zero = scores.dtype.type(0)
    for head in range(heads):
        for i in range(rows):
            end = min(columns, i + ahead + 1)
            row = scores[head, i, :end]
            top = _largest(row, lanes)
            if top == -np.inf:
                top = zero
            total = zero
            for column in range(end):
                x = exp(row[column] - top)
                row[column] = x
                total += x
            scores[head, i, end:] = zero
            if total == 0:
                lse[head, i, 0], factor[head, i, 0] = np.inf, zero
            else:
                lse[head, i, 0] = top + np.log(total)
                factor[head, i, 0] = 1 / total


@compiled
def weights(scores: Any, ahead: int, lse: Any) -> None:
    """exp(scores - lse)."""
    heads, rows, columns = scores.shape
    for head in range(heads):
        for i in range(rows):
            end = min(columns, i + ahead + 1)
            row = scores[head, i, :end]
            less = lse[head, i, 0]
            for column in range(end):
                row[column] = exp(row[column] - less)
            scores[head, i, end:] = 0


@compiled
def through_softmax(grad: Any, weights: Any, delta: Any) -> None:
    """(grad - delta) * weights."""
    heads, rows, columns = grad.shape
    for head in range(heads):
        for i in range(rows):
            less = delta[head, i, 0]
            for column in range(columns):
                grad[head, i, column] = (grad[head, i, column] - less) * weights[head, i, column]
