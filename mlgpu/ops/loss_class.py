"""Losses of class scores against classes or class probabilities: cross_entropy, nll_loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import fast
from mlgpu.cpu.gemm import cast, contiguous, widen
from mlgpu.cpu.rows import (
    LEAST,
    MOST,
    as_rows,
    each_block,
    kept,
    layout,
    powers,
    read_blocks,
    sums,
    wide,
    with_more,
)
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda import cross_entropy as cuda_cross_entropy
from mlgpu.errors import DerivativeError, DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.loss_reduction import check_reduction, legacy_reduction, reduced
from mlgpu.ops.softmax import log_softmax, softmax
from mlgpu.tensor import Tensor

__all__ = ["cross_entropy", "nll_loss"]

LEAST_LOG, MOST_LOG = math.log(LEAST), math.log(MOST)
# Scores of a batch of few classes, for which every call into NumPy costs more than its arithmetic.
FEW = 1 << 13


class ClassLoss(Op):
    """What the losses against class numbers share.

    Inputs: scores (N, C, ...) or (C,), classes (N, ...), and optionally a weight (C,).  Outputs:
    the loss, and the sum of the weights of all classes that count, by which "mean" divides.
    """

    saved_outputs = (1,)
    nondifferentiable_outputs = (1,)
    materialize = False

    def __init__(self, dim: int, ignore: int, reduction: str, smoothing: float = 0.0) -> None:
        self.dim = dim
        self.ignore = ignore
        self.reduction = reduction
        self.smoothing = smoothing

    def _targets(self, target: Any, shape: tuple[int, ...], weight: Any, compute: Any) -> Any:
        """Class numbers (0 where ignored) and their weights (0 where ignored), one per row."""
        classes = shape[1]
        index = contiguous(target).astype(np.int64).reshape(kept(shape))
        ignored = index == self.ignore
        index[ignored] = 0
        if index.size and (index.min() < 0 or index.max() >= classes):
            wrong = index[(index < 0) | (index >= classes)][0]
            raise IndexError(f"{self.name}: target {wrong} is out of range for {classes} classes")
        weights = (np.ones(index.shape, compute) if weight is None
                   else widen(weight)[index] if classes else np.zeros(index.shape, compute))
        weights[ignored] = 0
        return index, weights, ~ignored

    def _result(self, losses: Any, weights: Any, counted: Any, shape: tuple[int, ...],
                dtype: Any) -> tuple[Any, Any]:
        losses[~counted] = 0
        total = np.asarray(weights.sum(dtype=np.float64), wide(dtype))
        if self.reduction == "none":
            return cast(losses.reshape(shape), dtype), total
        loss = losses.sum(dtype=np.float64)
        return np.asarray(loss / total if self.reduction == "mean" else loss, dtype), total

    def _row_gradient(self, dy: Any, shape: tuple[int, ...]) -> Any:
        """The gradient of each row's loss."""
        dy = widen(dy)
        if self.reduction == "mean":
            dy = dy / self.output_array(1)
        if dy.ndim == 0:
            return np.broadcast_to(dy, kept(shape))
        return contiguous(dy).reshape(kept(shape))

    def _row_tensor(self, dy: Tensor) -> Tensor:
        """As `_row_gradient`, with Tensor operations, ready to broadcast over the classes."""
        dy = dy.to(dtypes.compute_dtype(dy.dtype))
        if self.reduction == "none":
            return dy.unsqueeze(self.dim)
        total = self.output(1)
        # Where nothing counts the loss is 0 / 0, but PyTorch's gradient is 0.
        return dy / total.masked_fill(total == 0, math.inf) if self.reduction == "mean" else dy

    def _target_tensors(self, dtype: dtypes.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Class numbers, weights and whether they count, with a dimension for the classes."""
        target = self.input(1).long().unsqueeze(self.dim)
        counted = target != self.ignore
        target = target.masked_fill(~counted, 0)
        if len(self.needs) == 2:
            return target, counted.to(dtype), counted
        weight = self.input(2).to(dtype)
        return target, weight[target] * counted, counted


    def _losses(self, target: Any, weight: Any) -> cuda_cross_entropy.Losses:
        """What the kernels are told."""
        return cuda_cross_entropy.Losses(self.name, target, weight, self.ignore, self.reduction,
                                         self.smoothing)

    def _total(self) -> Any:
        """What the loss was divided by, or None."""
        return self.output_array(1) if self.reduction == "mean" else None


class NllLoss(ClassLoss):
    """-weight[t] * x[t] for each row, with t its target."""

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(1, len(needs)))

    def forward(self, x: Any, target: Any, weight: Any = None) -> tuple[Any, Any]:
        shape = layout(x.shape, self.dim)
        index, weights, counted = self._targets(target, shape, weight, wide(x.dtype))
        picked = np.take_along_axis(contiguous(x).reshape(shape), index, 1) if index.size else (
            np.zeros(index.shape, x.dtype))
        return self._result(-widen(picked) * weights, weights, counted, target.shape, x.dtype)

    def forward_cuda(self, x: Any, target: Any, weight: Any = None) -> tuple[Any, Any]:
        return cuda_cross_entropy.nll_forward(x, self.dim, self._losses(target, weight))

    def backward(self, dy: Tensor, dtotal: None) -> tuple[Tensor | None, ...]:
        (shape, dtype), *rest = self._inputs_meta
        target, weights, _ = self._target_tensors(dtypes.from_numpy(wide(dtype)))
        dx = (-weights * self._row_tensor(dy)).to(dtypes.from_numpy(dtype))
        zero = dx.new_zeros(shape)
        return zero.scatter(self.dim, target, dx), *(None for _ in rest)

    def backward_cpu(self, dy: Any, dtotal: None) -> tuple[Any, ...]:
        (shape, dtype), *rest = self._inputs_meta
        rows = layout(shape, self.dim)
        weight = self.input_array(2) if rest[1:] else None
        index, weights, counted = self._targets(self.input_array(1), rows, weight, wide(dtype))
        dx = zeros(shape, dtype)
        if index.size:
            row = np.where(counted, -weights * self._row_gradient(dy, rows), 0).astype(dtype)
            np.put_along_axis(dx.reshape(rows), index, row, 1)
        return dx, *(None for _ in rest)

    def backward_cuda(self, dy: Any, dtotal: None) -> tuple[Any, ...]:
        (shape, dtype), *rest = self._inputs_meta
        given = self._losses(self.input_array(1), self.input_array(2) if rest[1:] else None)
        dx = cuda_cross_entropy.nll_backward(dy, shape, dtype, self.dim, self._total(), given)
        return dx, *(None for _ in rest)


class CrossEntropy(ClassLoss):
    """nll_loss(log_softmax(x)) with label smoothing; saves one logsumexp per row.

    Row loss: (1 - s) w[t] (lse - x[t]) + s / C sum over c of w[c] (lse - x[c]).
    """

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(len(needs)))

    def forward(self, x: Any, target: Any, weight: Any = None) -> tuple[Any, Any]:
        if weight is None and self._is_few(x, target):
            return self._few_losses(x, target)
        losses, weights, counted, lse = self.row_losses(x, target, weight)
        self.stash(lse=lse)
        return self._result(losses, weights, counted, target.shape, x.dtype)

    def _is_few(self, x: Any, target: Any) -> bool:
        """Whether all classes count, and alike, of scores that are few."""
        return bool(0 < x.size <= FEW and x.ndim == 2 and not self.smoothing
                    and x.dtype.char in "fd" and target.min() >= 0
                    and target.max() < x.shape[1] and not 0 <= self.ignore < x.shape[1])

    def _few_losses(self, x: Any, target: Any) -> tuple[Any, Any]:
        """As `forward`, in as few calls as there can be."""
        rows = len(x)
        shift = np.maximum.reduce(x, 1, keepdims=True)
        powers = np.subtract(x, shift, out=empty(x.shape, x.dtype))
        np.exp(powers, out=powers)
        # Differences of near numbers: in float64, which costs little for one per row.
        logsum = np.log(np.add.reduce(powers, 1, np.float64))
        shift = shift[:, 0]
        self.stash(lse=(logsum + shift).astype(x.dtype)[:, None])
        losses = logsum - np.subtract(x[np.arange(rows), target], shift, dtype=np.float64)
        total = np.asarray(rows, x.dtype)
        if self.reduction == "none":
            return losses.astype(x.dtype), total
        loss = np.add.reduce(losses)
        return np.asarray(loss / rows if self.reduction == "mean" else loss, x.dtype), total

    def row_losses(self, x: Any, target: Any, weight: Any) -> tuple[Any, Any, Any, Any]:
        """Losses, weights, whether they count, and logsumexps: one of each per row."""
        rows = as_rows(x, self.dim)
        compute = wide(x.dtype)
        index, weights, counted = self._targets(target, rows.shape, weight, compute)
        lse = empty(index.shape, compute)
        losses = empty(index.shape, compute)
        hit = 1.0 - self.smoothing
        by_class = self._class_weights(weight, rows)
        whole = by_class.sum()

        def block(x: Any, index: Any, weights: Any, lse: Any, losses: Any, power: Any) -> None:
            shift, total = powers(x, power)
            # Differences of near numbers: in float64, which costs little for one per row.
            logsum = np.log(total, dtype=np.float64)
            np.add(logsum, shift, out=lse, casting="same_kind")
            picked = np.subtract(np.take_along_axis(x, index, 1), shift, dtype=np.float64)
            np.multiply(logsum - picked, weights * hit, out=losses, casting="same_kind")
            if self.smoothing:
                spread = sums(np.multiply(np.subtract(x, shift, out=power), by_class, out=power))
                np.add(losses, whole * logsum - spread, out=losses, casting="same_kind")

        loops = fast.load("softmax", rows.size) if rows.ndim == 2 and rows.size else None
        if loops is not None:
            form = with_more(loops.class_losses, hit, by_class[0], float(whole),
                             self.smoothing > 0)
            read_blocks(form, rows, index, weights, lse, losses, loop=True)
        elif rows.size:
            read_blocks(block, rows, index, weights, lse, losses, scratch=1)
        return losses, weights, counted, lse

    def forward_cuda(self, x: Any, target: Any, weight: Any = None) -> tuple[Any, Any]:
        loss, total, lse = cuda_cross_entropy.forward(x, self.dim, self._losses(target, weight))
        self.stash(lse=lse)
        return loss, total

    def _class_weights(self, weight: Any, rows: Any) -> Any:
        """s / C * w[c] for each class, ready to broadcast over the rows."""
        classes = rows.shape[1]
        values = np.ones(classes, wide(rows.dtype)) if weight is None else widen(weight)
        return (values * (self.smoothing / max(classes, 1))).reshape(
            1, classes, *(1,) * (rows.ndim - 2))

    def backward(self, dy: Tensor, dtotal: None) -> tuple[Tensor | None, ...]:
        x = self.input(0)
        p = softmax(x, self.dim, dtypes.compute_dtype(x.dtype))
        target, weights, counted = self._target_tensors(p.dtype)
        weights = weights * (1 - self.smoothing)
        labels = p.new_zeros(p.shape).scatter(self.dim, target, weights)
        if self.smoothing:
            shape = [1] * x.ndim
            shape[self.dim] = x.shape[self.dim]
            each = (self.input(2).to(p.dtype) if len(self.needs) > 2
                    else p.new_ones(x.shape[self.dim]))
            each = each * (self.smoothing / x.shape[self.dim])
            labels = labels + each.reshape(shape) * counted
            weights = weights + each.sum() * counted
        return (p * weights - labels) * self._row_tensor(dy), *(None for _ in self.needs[1:])

    def backward_cpu(self, dy: Any, dtotal: None) -> tuple[Any, ...]:
        x, target = self.input_array(0), self.input_array(1)
        rest = (None,) * (len(self.needs) - 1)
        if not rest[1:] and self._is_few(x, target):
            return self._few_gradient(dy, x, target), *rest
        row = self._row_gradient(dy, as_rows(x, self.dim).shape)
        weight = self.input_array(2) if len(rest) > 1 else None
        return self.score_gradient(x, self.lse, target, weight, row), *rest

    def _few_gradient(self, dy: Any, x: Any, target: Any) -> Any:
        row = dy / x.dtype.type(len(x)) if self.reduction == "mean" else dy
        row = np.broadcast_to(row, (len(x),))
        dx = np.subtract(x, self.lse, out=empty(x.shape, x.dtype))
        np.exp(dx, out=dx)
        dx[np.arange(len(x)), target] -= 1
        return np.multiply(dx, row[:, None], out=dx)

    def score_gradient(self, x: Any, lse: Any, target: Any, weight: Any, row: Any) -> Any:
        """The gradient of the scores, given that of each row's loss."""
        dx = empty(x.shape, x.dtype)
        rows = as_rows(dx, self.dim)
        compute = wide(x.dtype)
        index, weights, counted = self._targets(target, rows.shape, weight, compute)
        row = np.where(counted, row, 0)
        weights = np.where(counted, weights * row * (1 - self.smoothing), 0).astype(compute)
        by_class = self._class_weights(weight, rows)
        whole = by_class.sum()

        def block(dx: Any, x: Any, lse: Any, index: Any, weights: Any, row: Any) -> None:
            # exp(x - lse) is exp(x) exp(-lse) for scores near enough to 0: a pass fewer.
            near = (lse > LEAST_LOG) & (lse < MOST_LOG)
            shift = None if near.all() else np.where(near, x.dtype.type(0), lse)
            np.exp(x if shift is None else np.subtract(x, shift, out=dx), out=dx)
            factor = np.exp(-lse.astype(np.float64) + (0 if shift is None else shift))
            factor *= weights + whole * row if self.smoothing else weights
            np.multiply(dx, factor.astype(dx.dtype), out=dx)
            at = (np.arange(len(dx)), index[:, 0]) if dx.ndim == 2 else (
                np.arange(len(dx))[:, None], index[:, 0], np.arange(dx.shape[2]))
            dx[at] -= weights[:, 0]
            if self.smoothing:
                np.subtract(dx, row * by_class, out=dx)

        loops = fast.load("softmax", rows.size) if rows.ndim == 2 else None
        form = block if loops is None else with_more(
            loops.score_gradient, by_class[0], float(whole), self.smoothing > 0)
        if rows.size:
            each_block(form, rows, as_rows(x, self.dim), lse, index, weights, row.astype(compute),
                       last_first=True, loop=loops is not None)
        return dx

    def backward_cuda(self, dy: Any, dtotal: None) -> tuple[Any, ...]:
        rest = (None,) * (len(self.needs) - 1)
        given = self._losses(self.input_array(1), self.input_array(2) if len(rest) > 1 else None)
        lse, total = self.lse, self._total()
        x, spare = self.take_input(0)
        return cuda_cross_entropy.backward(dy, x, self.dim, lse, total, given, spare), *rest


# --- public ---------------------------------------------------------------------------------------


def cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                  size_average: bool | None = None, ignore_index: int = -100,
                  reduce: bool | None = None, reduction: str = "mean",
                  label_smoothing: float = 0.0) -> Tensor:
    """The cross entropy of scores (N, C, ...) or (C,) with targets.

    Targets are classes (N, ...), int64 or uint8, or probabilities of input's shape.  weight: (C,);
    the mean over classes divides by their weights' sum.  Rows whose class is `ignore_index` do not
    count.  Raises IndexError for a class out of range, ShapeError, DTypeError.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("cross_entropy", reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ShapeError("cross_entropy: label_smoothing must be between 0 and 1, got "
                         f"{label_smoothing}")
    if (input.shape == target.shape and input.ndim) or target.dtype.is_floating_point:
        return _probabilities(input, target, weight, ignore_index, reduction, label_smoothing)
    dim = _check_classes("cross_entropy", input, target, weight)
    target = target if input.ndim > 1 else target.reshape(())
    op = CrossEntropy(dim, ignore_index, reduction, label_smoothing)
    return run(op, input, target, *(() if weight is None else (weight,)))[0]  # type: ignore[no-any-return]


def nll_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
             size_average: bool | None = None, ignore_index: int = -100,
             reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """-input[class] of log-probabilities (N, C, ...) or (C,) and classes (N, ...).

    weight, ignore_index, reduction and errors as in `cross_entropy`.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("nll_loss", reduction)
    dim = _check_classes("nll_loss", input, target, weight)
    target = target if input.ndim > 1 else target.reshape(())
    op = NllLoss(dim, ignore_index, reduction)
    return run(op, input, target, *(() if weight is None else (weight,)))[0]  # type: ignore[no-any-return]


def _check_classes(op: str, input: Tensor, target: Tensor, weight: Tensor | None) -> int:
    """Check the arguments and return the dimension of the classes."""
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{op}: input must be floating, got {input.dtype.name}")
    if target.dtype not in (dtypes.int64, dtypes.uint8):
        raise DTypeError(f"{op}: classes must be int64 or uint8, got {target.dtype.name}; convert "
                         "with .long()")
    if input.ndim == 0:
        raise ShapeError(f"{op}: input must have at least 1 dimension, got a 0-d tensor")
    dim = min(1, input.ndim - 1)
    expected = (*input.shape[:dim], *input.shape[dim + 1:])
    if tuple(target.shape) != expected and not (input.ndim == 1 and tuple(target.shape) == (1,)):
        raise ShapeError(f"{op}: target must have shape {expected} to match input "
                         f"{tuple(input.shape)}, got {tuple(target.shape)}")
    if weight is not None:
        _check_weight(op, input, weight, input.shape[dim])
        if weight.dtype is not input.dtype:
            raise DTypeError(f"{op}: weight must be {input.dtype.name} as the input, got "
                             f"{weight.dtype.name}")
        if weight.requires_grad:
            raise DerivativeError(f"{op}: has no derivative with respect to weight; detach() it")
    return dim


def _check_weight(op: str, input: Tensor, weight: Tensor, classes: int) -> None:
    if tuple(weight.shape) != (classes,):
        raise ShapeError(f"{op}: weight must be ({classes},), one value per class of input "
                         f"{tuple(input.shape)}, got {tuple(weight.shape)}")


def _probabilities(input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int,
                   reduction: str, smoothing: float) -> Tensor:
    name = "cross_entropy"
    if not target.dtype.is_floating_point:
        raise DTypeError(f"{name}: target of input's shape must hold floating probabilities, got "
                         f"{target.dtype.name}")
    if target.shape != input.shape or not input.ndim:
        raise ShapeError(f"{name}: probabilities must have input's shape {tuple(input.shape)}, "
                         f"got {tuple(target.shape)}")
    if ignore_index >= 0:
        raise ShapeError(f"{name}: ignore_index is for classes, not for probabilities, got "
                         f"{ignore_index}")
    dim = min(1, input.ndim - 1)
    classes = input.shape[dim]
    if smoothing:
        target = target * (1 - smoothing) + smoothing / classes
    product = log_softmax(input, dim) * target
    if weight is not None:
        _check_weight(name, input, weight, classes)
        product = product * weight.reshape(classes, *(1,) * (input.ndim - 1 - dim))
    losses = -product.sum(dim)
    return reduced(losses, reduction)
