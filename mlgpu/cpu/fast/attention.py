"""Attention of some heads in one call, and the passes over blocks of its scores for where masks or
dropped weights come between them; each row is read and written once.

Row i of a block looks at columns up to i + ahead; the weights of others are 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cpu.fast.blas import multiply
from mlgpu.cpu.fast.compiler import compiled, inlined
from mlgpu.cpu.fast.maths import exp_down
from mlgpu.cpu.fast.rows import LANES, largest

__all__ = ["attend", "attend_backward", "exponentials", "through_softmax", "weights"]


@compiled
def exponentials(scores: Any, ahead: int, lse: Any, factor: Any) -> None:
    """exp(scores - the largest of the row), the log of the sum of exp, and 1 / the sum."""
    heads, rows, columns = scores.shape
    zero = scores.dtype.type(0)
    for head in range(heads):
        for i in range(rows):
            end = min(columns, i + ahead + 1)
            row = scores[head, i, :end]
            top = largest(row)
            if top == -np.inf:
                top = zero
            total = zero
            for column in range(end):
                x = exp_down(row[column] - top)
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
                row[column] = exp_down(row[column] - less)
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


@inlined
def _turn(x: Any, out: Any) -> None:
    """out = x^T: BLAS multiplies small matrices by rows of the second one in half the time."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j, i] = x[i, j]


@inlined
def _hide(scores: Any, i: int, seen: int) -> int:
    """Let row i end after `seen` scores, and in a whole number of lanes."""
    wide = -(-seen // LANES) * LANES
    scores[i, seen:wide] = -np.inf
    return wide


@compiled
def attend(gemm: int, q: Any, k: Any, v: Any, out: Any, lse: Any, scale: Any, rows: Any,
           block: int, causal: bool, reach: int, scores: Any, turned: Any) -> None:
    """Queries rows[0] to rows[1] of heads, a block at a time; keys end at `reach`.

    q, k, v, out: (heads, rows, columns); lse: (heads, queries, 1).  Scratch: scores (block, keys
    and more, in whole lanes), turned (depth, keys).
    """
    zero, one = scores.dtype.type(0), scores.dtype.type(1)
    for head in range(len(q)):
        _turn(k[head, :reach], turned)
        for start in range(rows[0], rows[1], block):
            stop = min(rows[1], start + block)
            end = min(reach, stop) if causal else reach
            multiply(gemm, q[head, start:stop], turned[:, :end], scores[:stop - start, :end],
                     scale, zero)
            for i in range(stop - start):
                seen = min(end, start + i + 1) if causal else end
                wide = _hide(scores, i, seen)
                row = scores[i, :wide]
                top = largest(row)
                if top == -np.inf:
                    top = zero
                total = zero
                for column in range(wide):
                    x = exp_down(row[column] - top)
                    row[column] = x
                    total += x
                if total == 0:
                    lse[head, start + i, 0], factor = np.inf, zero
                else:
                    lse[head, start + i, 0], factor = top + np.log(total), one / total
                for column in range(wide):
                    row[column] *= factor
                scores[i, wide:end] = zero
            multiply(gemm, scores[:stop - start, :end], v[head, :end], out[head, start:stop], one,
                     zero)


@compiled
def attend_backward(gemm: int, dy: Any, q: Any, k: Any, v: Any, lse: Any, delta: Any, dq: Any,
                    dk: Any, dv: Any, scale: Any, block: int, causal: bool, reach: int, p: Any,
                    dp: Any, keys: Any, values: Any) -> None:
    """The gradients of heads, a block of keys at a time; those of keys from `reach` on are left.

    delta: (heads, queries), the sums of dy * out.  Scratch: p and dp (queries, block and more, in
    whole lanes), keys and values (columns, keys).
    """
    zero, one = p.dtype.type(0), p.dtype.type(1)
    queries = dy.shape[1]
    for head in range(len(q)):
        _turn(k[head, :reach], keys)
        _turn(v[head, :reach], values)
        for start in range(0, reach, block):
            stop = min(reach, start + block)
            first = start if causal else 0
            n, size = queries - first, stop - start
            grads = dy[head, first:]
            multiply(gemm, q[head, first:], keys[:, start:stop], p[:n, :size], scale, zero)
            multiply(gemm, grads, values[:, start:stop], dp[:n, :size], one, zero)
            for i in range(n):
                wide = _hide(p, i, min(size, i + 1) if causal else size)
                weights, slopes = p[i, :wide], dp[i, :wide]
                less, mean = lse[head, first + i, 0], delta[head, first + i]
                for column in range(wide):
                    x = exp_down(weights[column] - less)
                    weights[column] = x
                    slopes[column] = (slopes[column] - mean) * x
                p[i, wide:size] = zero
                dp[i, wide:size] = zero
            multiply(gemm, p[:n, :size].T, grads, dv[head, start:stop], one, zero)
            multiply(gemm, dp[:n, :size], k[head, start:stop], dq[head, first:], scale,
                     one if start else zero)
            multiply(gemm, dp[:n, :size].T, q[head, first:], dk[head, start:stop], scale, zero)
