"""The cross entropy of linear(input, weight) without all its scores in memory at any time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd import enable_grad, grad
from mlgpu.cpu.gemm import cast, column_sums, contiguous, gemm, widen
from mlgpu.cpu.rows import wide
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda import linear_cross_entropy as cuda_chunks
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.linear import linear
from mlgpu.ops.loss_class import CrossEntropy, cross_entropy
from mlgpu.ops.loss_reduction import check_reduction
from mlgpu.ops.matmul import check_same_dtype
from mlgpu.tensor import Tensor

__all__ = ["linear_cross_entropy"]

LEAST = 256  # rows of a chunk, so that its products stay efficient


def chunks(rows: int, classes: int, features: int) -> Iterator[slice]:
    """Rows in pieces whose scores take about as much memory as all features."""
    step = max(LEAST, rows // max(1, classes // max(1, features)))
    for first in range(0, rows, step):
        yield slice(first, min(rows, first + step))


class LinearCrossEntropy(Op):
    """cross_entropy(x @ weight.T + bias, target), a chunk of rows after the other.

    Inputs: x (rows, features), weight, target (rows,), and optionally bias.  What a chunk's scores
    are needed for is done while they exist: with a reduction also the gradients, but for their
    factor, so that no product is computed twice.  Without one the chunks are computed anew.
    """

    saved_outputs = (1,)
    nondifferentiable_outputs = (1,)
    materialize = False

    def __init__(self, ignore: int, reduction: str, smoothing: float) -> None:
        self.ignore, self.reduction, self.smoothing = ignore, reduction, smoothing

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(len(needs)))

    def _rows_op(self) -> CrossEntropy:
        op = CrossEntropy(1, self.ignore, self.reduction, self.smoothing)
        op.name = self.name
        return op

    # --- CPU --------------------------------------------------------------------------------

    def forward(self, x: Any, weight: Any, target: Any, bias: Any = None) -> tuple[Any, Any]:
        op = self._rows_op()
        compute, count = wide(x.dtype), len(x)
        losses, weights, lse = (empty((count, 1), compute) for _ in range(3))
        counted = np.ones((count, 1), np.bool_)
        early = self.recording and self.reduction != "none"
        sums = _Gradients(self.needs, x, weight, bias) if early else None
        for part in chunks(count, *weight.shape):
            scores = _scores(x[part], weight, bias)
            losses[part], weights[part], counted[part], lse[part] = op.row_losses(
                scores, target[part], None)
            if sums is not None:
                one = np.ones((len(scores), 1), compute)
                sums.add(part, op.score_gradient(scores, lse[part], target[part], None, one))
        if sums is not None:
            self.stash(**sums.arrays())
        elif self.recording:
            self.stash(lse=lse)
        return op._result(losses, weights, counted, target.shape, x.dtype)

    def backward_cpu(self, dy: Any, dtotal: None) -> tuple[Any, ...]:
        if self.reduction != "none":
            factor = widen(dy)
            if self.reduction == "mean":
                total = self.output_array(1)
                factor = factor / np.where(total == 0, np.inf, total)  # 0 where nothing counts
            return self._arranged(lambda g, dtype: cast(np.multiply(g, factor), dtype))
        x, weight, target = (self.input_array(i) for i in range(3))
        bias = self.input_array(3) if len(self.needs) > 3 else None
        op, row = self._rows_op(), contiguous(widen(dy)).reshape(-1, 1)
        sums = _Gradients(self.needs, x, weight, bias)
        for part in chunks(len(x), *weight.shape):
            scores = _scores(x[part], weight, bias)
            sums.add(part, op.score_gradient(scores, self.lse[part], target[part], None, row[part]))
        return sums.results(self.needs)

    def _arranged(self, scaled: Any) -> tuple[Any, ...]:
        """What the forward pass has summed, scaled and in the inputs' dtypes."""
        return tuple(
            None if name is None or not need else scaled(getattr(self, name), meta[1])
            for name, need, meta in zip(_NAMES, self.needs, self._inputs_meta, strict=False))

    # --- CUDA -------------------------------------------------------------------------------

    def forward_cuda(self, x: Any, weight: Any, target: Any, bias: Any = None) -> tuple[Any, Any]:
        given = self._given(target)
        parts = list(chunks(len(x), *weight.shape))
        early = self.recording and self.reduction != "none"
        needs = self.needs if early else ()
        loss, total, kept = cuda_chunks.forward(x, weight, bias, given, parts, needs,
                                                self.recording)
        if self.recording:
            self.stash(**kept)
        return loss, total

    def _given(self, target: Any) -> Any:
        return self._rows_op()._losses(target, None)

    def backward_cuda(self, dy: Any, dtotal: None) -> tuple[Any, ...]:
        if self.reduction == "none":
            x, weight, target = (self.input_array(i) for i in range(3))
            bias = self.input_array(3) if len(self.needs) > 3 else None
            return cuda_chunks.backward(dy, x, weight, bias, self.lse, self._given(target),
                                        list(chunks(len(x), *weight.shape)), self.needs)
        total = self.output_array(1) if self.reduction == "mean" else None
        return self._arranged(lambda g, dtype: cuda_chunks.scaled(g, dy, total, dtype))

    # --- both -------------------------------------------------------------------------------

    def backward(self, dy: Tensor, dtotal: None) -> tuple[Tensor | None, ...]:
        # Views of the inputs, so that the walk ends at them and not at what made them.
        inputs = [x.view(x.shape) if need else x for x, need in zip(
            map(self.input, range(len(self.needs))), self.needs, strict=True)]
        x, weight, target, *bias = inputs
        with enable_grad():
            loss = cross_entropy(linear(x, weight, *bias), target, ignore_index=self.ignore,
                                 reduction=self.reduction, label_smoothing=self.smoothing)
            wanted = [x for x, need in zip(inputs, self.needs, strict=True) if need]
            found = iter(grad([loss], wanted, [dy], create_graph=True))
        return tuple(next(found) if need else None for need in self.needs)


_NAMES = ("dx", "dweight", None, "dbias")  # of the gradients, by input


class _Gradients:
    """Sums over chunks of the gradients that are wanted, in the dtype that is computed in."""

    def __init__(self, needs: tuple[bool, ...], x: Any, weight: Any, bias: Any) -> None:
        self.x, self.weight = x, weight
        compute = wide(x.dtype)
        self.dx = empty(x.shape, compute) if needs[0] else None
        self.dweight = zeros(weight.shape, compute) if needs[1] else None
        self.dbias = zeros(bias.shape, compute) if len(needs) > 3 and needs[3] else None

    def add(self, part: slice, scores: Any) -> None:
        """With the gradient of the scores of these rows."""
        if self.dx is not None:
            self.dx[part] = gemm(scores, widen(self.weight))
        if self.dweight is not None:
            np.add(self.dweight, gemm(scores.T, widen(self.x[part])), out=self.dweight)
        if self.dbias is not None:
            np.add(self.dbias, column_sums(scores), out=self.dbias)

    def arrays(self) -> dict[str, Any]:
        found = {"dx": self.dx, "dweight": self.dweight, "dbias": self.dbias}
        return {name: array for name, array in found.items() if array is not None}

    def results(self, needs: tuple[bool, ...]) -> tuple[Any, ...]:
        found = (self.dx, self.dweight, None, self.dbias)[:len(needs)]
        return tuple(None if g is None else cast(g, self.x.dtype) for g in found)


def _scores(x: Any, weight: Any, bias: Any) -> Any:
    scores = gemm(contiguous(widen(x)), widen(weight).T)
    return scores if bias is None else np.add(scores, widen(bias), out=scores)


def _all_scores(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """linear(input, weight, bias) with the dimensions of weight between classes and features."""
    if input.ndim > 2 or weight.ndim < 2 or (weight.ndim > 2 and input.ndim != 2):
        raise ShapeError("linear_cross_entropy: expected input (features,) or (N, features), and "
                         "(N, features) for a weight of more than 2 dimensions, got "
                         f"{tuple(input.shape)} and {tuple(weight.shape)}")
    flat = None if bias is None else bias.reshape(-1)
    scores = linear(input, weight.reshape(math.prod(weight.shape[:-1]), weight.shape[-1]), flat)
    return scores.reshape(*input.shape[:-1], *weight.shape[:-1])


def linear_cross_entropy(input: Tensor, linear_weight: Tensor, target: Tensor, *,
                         linear_bias: Tensor | None = None, weight: Tensor | None = None,
                         reduction: str = "mean", ignore_index: int | None = None,
                         label_smoothing: float = 0.0, options: Any = None) -> Tensor:
    """cross_entropy(linear(input, linear_weight, linear_bias), target), with little memory.

    input (..., features), linear_weight (classes, features), target (...), int64 or uint8.  The
    scores are computed for some rows at a time, and so are their gradients: what is in memory at
    once is a part that grows with the features and not with the classes.

    With class weights, with probabilities for a target, and with linear_weight (classes, d1, ...,
    features), whose scores are (N, classes, d1, ...), it is what the two functions compute one
    after the other.  ignore_index is -100 unless given.  `options`, PyTorch's about chunks, is
    accepted and not needed.  Errors as of both functions.
    """
    ignored = -100 if ignore_index is None else ignore_index
    if linear_weight.ndim > 2 or weight is not None or target.dtype.is_floating_point:
        scores = _all_scores(input, linear_weight, linear_bias)
        return cross_entropy(scores, target, weight, ignore_index=ignored, reduction=reduction,
                             label_smoothing=label_smoothing)
    name = "linear_cross_entropy"
    check_reduction(name, reduction)
    more = () if linear_bias is None else (linear_bias,)
    check_same_dtype(name, input, linear_weight, *more)
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{name}: input must be floating, got {input.dtype.name}")
    if target.dtype not in (dtypes.int64, dtypes.uint8):
        raise DTypeError(f"{name}: classes must be int64 or uint8, got {target.dtype.name}; "
                         "convert with .long()")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ShapeError(f"{name}: label_smoothing must be between 0 and 1, got {label_smoothing}")
    if linear_weight.ndim != 2 or input.ndim == 0 or input.shape[-1] != linear_weight.shape[1]:
        raise ShapeError(f"{name}: expected input (..., features) and weight (classes, features), "
                         f"got {tuple(input.shape)} and {tuple(linear_weight.shape)}")
    if target.shape != input.shape[:-1]:
        raise ShapeError(f"{name}: target must have shape {tuple(input.shape[:-1])} to match input "
                         f"{tuple(input.shape)}, got {tuple(target.shape)}")
    if linear_bias is not None and linear_bias.shape != linear_weight.shape[:1]:
        raise ShapeError(f"{name}: bias must be ({linear_weight.shape[0]},), got "
                         f"{tuple(linear_bias.shape)}")
    rows = input.reshape(math.prod(input.shape[:-1]), input.shape[-1])
    op = LinearCrossEntropy(ignored, reduction, label_smoothing)
    loss: Tensor = run(op, rows, linear_weight, target.reshape(-1), *more)[0]
    return loss.reshape(target.shape) if reduction == "none" else loss
