"""The cross entropy of x @ weight.T + bias on the device, a chunk of rows after the other.

One buffer holds the scores of a chunk.  Where gradients are wanted at once, the kernel that reads
the scores for their losses writes the losses' derivatives over them, and the products with these
follow before the next chunk.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from mlgpu import dtypes
from mlgpu.cuda import cross_entropy, faults, rows
from mlgpu.cuda.accumulate import add_into
from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.cross_entropy import Losses
from mlgpu.cuda.evaluate import evaluate
from mlgpu.cuda.gemm import column_sums, gemm
from mlgpu.cuda.launch import launch
from mlgpu.cuda.runtime import contiguous, empty, zeros
from mlgpu.expr.graph import Expr, arg
from mlgpu.expr.lower import TENSOR, Operand, Program, lower


def forward(x: Any, weight: Any, bias: Any, given: Losses, parts: Sequence[slice],
            needs: tuple[bool, ...], recording: bool) -> tuple[Any, Any, dict[str, Any]]:
    """The loss, the weight of what counts, and what is kept: gradients if `needs`, or logsumexps.

    The gradients lack their factor, the derivative of the loss over the weight of what counts.
    """
    given = given.dense()
    compute, count, classes = rows.wide(x.dtype), len(x), len(weight)
    losses = empty((count,), x.dtype if given.reduction == "none" else compute)
    weights, lse = empty((count,), compute), empty((count,), compute)
    scores = _buffer(parts, classes, x.dtype)
    sums = Gradients(needs, x, weight, bias, len(parts) == 1) if needs else None
    for part in parts:
        here = gemm(x[part], weight.T, scores[:part.stop - part.start], bias=bias)
        if sums is None:
            cross_entropy.rows_into(losses[part], lse[part], weights[part], here,
                                    given._replace(target=given.target[part]))
        else:
            _derive(here, losses[part], weights[part], given._replace(target=given.target[part]))
            sums.add(part, here)
    if given.reduction == "none":
        loss, total = losses, empty((), compute)
    else:
        loss, total = cross_entropy.reduce_losses(losses, weights, x.dtype,
                                                  given.reduction == "mean")
    if sums is not None:
        return loss, total, sums.arrays()
    return loss, total, {"lse": lse} if recording else {}


def backward(dy: Any, x: Any, weight: Any, bias: Any, lse: Any, given: Losses,
             parts: Sequence[slice], needs: tuple[bool, ...]) -> tuple[Any, ...]:
    """The gradients from those of each row's loss; the scores are computed anew."""
    given, dy = given.dense(), contiguous(dy)
    scores = _buffer(parts, len(weight), x.dtype)
    sums = Gradients(needs, x, weight, bias, len(parts) == 1)
    for part in parts:
        here = gemm(x[part], weight.T, scores[:part.stop - part.start], bias=bias)
        cross_entropy.gradient_into(here, here, 1, lse[part], None, dy[part],
                                    given._replace(target=given.target[part]))
        sums.add(part, here)
    return sums.results(needs)


def scaled(gradient: Any, dy: Any, total: Any, dtype: Any) -> Any:
    """The gradient times dy, over the total weight unless that is None: 0 where nothing counts."""
    given = [gradient, dy] if total is None else [gradient, dy, total]
    out = empty(gradient.shape, dtype)
    evaluate(_share(tuple(a.dtype for a in given), dtype), given, [out])
    return out


@cache
def _share(given: tuple[Any, ...], into: Any) -> Program:
    factor = arg(1)
    if len(given) == 3:
        nothing = Expr("eq", (arg(2), Expr("const", (), 0)))
        total = Expr("where", (nothing, Expr("const", (), math.inf), arg(2)))
        factor = Expr("div", (factor, total))
    return lower("share", (Expr("mul", (arg(0), factor)),),
                 [Operand(dtypes.from_numpy(d), TENSOR) for d in given], [dtypes.from_numpy(into)])


def _buffer(parts: Sequence[slice], classes: int, dtype: Any) -> Any:
    return empty((max((p.stop - p.start for p in parts), default=0), classes), dtype)


def _derive(scores: Any, losses: Any, weights: Any, given: Losses) -> None:
    """Losses and weights of these rows; their scores become the derivatives of their losses."""
    count, n = scores.shape
    if not scores.size:
        return
    plan, shared = cross_entropy.fused_plan(
        scores.dtype, given.target.dtype, rows.vector(n, scores), count, n, given.smoothing != 0,
        rows.shared_limit())
    launch("cross_entropy", plan.kernel, plan.grid, plan.block,
           (losses, weights, scores, given.target, None, None, *plan.numbers, given.ignore,
            given.smoothing, faults.fault(), given.site()), shared=shared)


class Gradients:
    """Sums over chunks of the gradients that are wanted, in the dtype that is computed in; in x's
    where there is but one chunk (`sole`)."""

    def __init__(self, needs: tuple[bool, ...], x: Any, weight: Any, bias: Any, sole: bool) -> None:
        self.x, self.weight, self.sole = x, weight, sole
        self.compute = x.dtype if sole else rows.wide(x.dtype)
        self.dx = empty(x.shape, x.dtype) if needs[0] else None
        made = empty if sole else zeros
        self.dweight = made(weight.shape, self.compute) if needs[1] else None
        self.dbias = made(bias.shape, self.compute) if len(needs) > 3 and needs[3] else None

    def add(self, part: slice, scores: Any) -> None:
        """With the gradient of the scores of these rows."""
        if self.dx is not None:
            gemm(scores, self.weight, self.dx[part])
        if self.sole:
            if self.dweight is not None:
                gemm(scores.T, self.x, self.dweight, row_sums=self.dbias)
            elif self.dbias is not None:
                self.dbias = column_sums(scores)
            return
        bias = None if self.dbias is None else empty(self.dbias.shape, scores.dtype)
        if self.dweight is not None:
            if self.compute == scores.dtype:
                gemm(scores.T, self.x[part], self.dweight, residual=self.dweight, row_sums=bias)
            else:
                add_into(self.dweight, gemm(scores.T, self.x[part], row_sums=bias))
        elif bias is not None:
            bias = column_sums(scores)
        if bias is not None:
            add_into(self.dbias, bias)

    def arrays(self) -> dict[str, Any]:
        found = {"dx": self.dx, "dweight": self.dweight, "dbias": self.dbias}
        return {name: array for name, array in found.items() if array is not None}

    def results(self, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        found = (self.dx, self.dweight, None, self.dbias)[:len(needs)]
        return tuple(None if g is None else _cast(g, self.x.dtype) for g in found)


def _cast(array: Any, dtype: Any) -> Any:
    if array.dtype == dtype:
        return array
    out = empty(array.shape, dtype)
    copy_into(out, array)
    return out
