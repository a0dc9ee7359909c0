"""The passes over blocks of attention's scores, each row read and written once.

Row i of a block looks at columns up to i + ahead; the weights of others are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.compiler import compiled
from mlgpu.cpu.fast.maths import exp
from mlgpu.cpu.fast.rows import LANES, largest

__all__ = ["exponentials", "through_softmax", "weights"]


@compiled
def exponentials(scores: Any, ahead: int, lse: Any, factor: Any) -> None:
    """exp(scores - the largest of the row), the log of the sum of exp, and 1 / the sum."""
    heads, rows, columns = scores.shape
    lanes = np.empty(LANES, scores.dtype)
    zero = scores.dtype.type(0)
    for head in range(heads):
        for i in range(rows):
            end = min(columns, i + ahead + 1)
            row = scores[head, i, :end]
            top = largest(row, lanes)
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
