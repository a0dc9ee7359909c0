"""Losses that want one score, or distance, to exceed another by a margin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import cast, widen
from mlgpu.cpu.runtime import zeros
from mlgpu.cuda import loss as cuda_loss
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.activation import logsigmoid, relu
from mlgpu.ops.choice import clamp_min, minimum, where
from mlgpu.ops.distance import pairwise_distance
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.exponential import sqrt, square
from mlgpu.ops.loss_reduction import check_reduction, legacy_reduction, reduced
from mlgpu.tensor import Tensor

__all__ = ["cosine_embedding_loss", "margin_ranking_loss", "multi_margin_loss",
           "multilabel_margin_loss", "multilabel_soft_margin_loss", "triplet_margin_loss",
           "triplet_margin_with_distance_loss"]


# --- of pairs and triples -------------------------------------------------------------------------


@elementwise
def _ranking(input1: Any, input2: Any, target: Any, margin: Any) -> Any:
    return clamp_min(-target * (input1 - input2) + margin, 0)


@elementwise
def _cosine_embedding(product: Any, square1: Any, square2: Any, target: Any, margin: Any) -> Any:
    cosine = product / sqrt((square1 + 1e-12) * (square2 + 1e-12))
    apart = where(target == -1, clamp_min(cosine - margin, 0), 0)
    return where(target == 1, 1 - cosine, 0) + apart


@elementwise
def _triplet(positive: Any, negative: Any, margin: Any) -> Any:
    return clamp_min(margin + positive - negative, 0)


def margin_ranking_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, -target (input1 - input2) + margin), targets 1 or -1; sizes broadcast.

    Raises ShapeError for different numbers of dimensions.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("margin_ranking_loss", reduction)
    _check_same_ndim("margin_ranking_loss", input1, input2, target)
    return reduced(_ranking(input1, input2, target, margin), reduction)


def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0,
                          size_average: bool | None = None, reduce: bool | None = None,
                          reduction: str = "mean") -> Tensor:
    """1 - cos(input1, input2) where the target is 1, max(0, cos - margin) where it is -1.

    Vectors (n, d) and targets (n,), or (d,) and ().  1e-12 is added to each squared length.  Raises
    ShapeError for other numbers of dimensions.
    """
    name = "cosine_embedding_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    if target.ndim > 1 or not input1.ndim == input2.ndim == target.ndim + 1:
        raise ShapeError(f"{name}: expected inputs (n, d) with targets (n,), or (d,) with (), got "
                         f"{tuple(input1.shape)}, {tuple(input2.shape)} and "
                         f"{tuple(target.shape)}")
    product, square1, square2 = ((input1 * input2).sum(-1), square(input1).sum(-1),
                                 square(input2).sum(-1))
    losses = _cosine_embedding(product, square1, square2, target.detach(), margin)
    return reduced(losses, reduction)


def triplet_margin_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0,
                        p: float = 2, eps: float = 1e-6, swap: bool = False,
                        size_average: bool | None = None, reduce: bool | None = None,
                        reduction: str = "mean") -> Tensor:
    """max(0, |anchor - positive| - |anchor - negative| + margin), by `pairwise_distance`.

    `swap` takes |positive - negative| where that is the smaller of the two distances to negative
    (Balntas et al. 2016).  Raises ShapeError (a ValueError) unless margin > 0, and for different
    numbers of dimensions.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)

    def distance(x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, p, eps)

    return _triplet_loss("triplet_margin_loss", (anchor, positive, negative), distance, margin,
                         swap, reduction)


def triplet_margin_with_distance_loss(
        anchor: Tensor, positive: Tensor, negative: Tensor, *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None, margin: float = 1.0,
        swap: bool = False, reduction: str = "mean") -> Tensor:
    """`triplet_margin_loss` with any function of two tensors as the distance."""
    return _triplet_loss("triplet_margin_with_distance_loss", (anchor, positive, negative),
                         distance_function or pairwise_distance, margin, swap, reduction)


def _triplet_loss(op: str, triple: tuple[Tensor, Tensor, Tensor],
                  distance: Callable[[Tensor, Tensor], Tensor], margin: float, swap: bool,
                  reduction: str) -> Tensor:
    check_reduction(op, reduction)
    if margin <= 0:
        raise ShapeError(f"{op}: margin must be greater than 0, got {margin}")
    _check_same_ndim(op, *triple)
    anchor, positive, negative = triple
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return reduced(_triplet(near, far, margin), reduction)


def _check_same_ndim(op: str, *tensors: Tensor) -> None:
    if len({t.ndim for t in tensors}) > 1:
        raise ShapeError(f"{op}: all tensors must have the same number of dimensions, got shapes "
                         f"{', '.join(str(tuple(t.shape)) for t in tensors)}")


# --- of classes -----------------------------------------------------------------------------------


@elementwise
def _excess(input: Any, right: Any, wrong: Any, margin: Any) -> Any:
    return where(wrong, relu(margin - right + input), 0)


def multi_margin_loss(input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0,
                      weight: Tensor | None = None, size_average: bool | None = None,
                      reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Sum over classes c != target of max(0, margin - x[target] + x[c])^p * weight[target] / C.

    input (N, C) and int64 target (N,), or (C,) and (); weight (C,); p 1 or 2.  Raises IndexError
    for a class out of range, ShapeError, DTypeError.
    """
    name = "multi_margin_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    if p not in (1, 2):
        raise ShapeError(f"{name}: p must be 1 or 2, got {p}")
    _check_classes(name, input, target)
    rows = input.reshape(-1, input.shape[-1] if input.ndim else 1)
    if target.ndim > 1 or target.numel() != rows.shape[0]:
        raise ShapeError(f"{name}: target must hold one class for each of {rows.shape[0]} rows, "
                         f"got {tuple(target.shape)}")
    classes = rows.shape[1]
    index = target.reshape(-1, 1)
    numbers = index.new_tensor(range(classes))
    losses = _excess(rows, rows.gather(1, index), index != numbers, margin)
    losses = square(losses) if p == 2 else losses
    if weight is not None:
        if tuple(weight.shape) != (classes,):
            raise ShapeError(f"{name}: weight must be ({classes},), one value per class, got "
                             f"{tuple(weight.shape)}")
        if weight.dtype is not input.dtype:
            raise DTypeError(f"{name}: weight must be {input.dtype.name} as the input, got "
                             f"{weight.dtype.name}")
        losses = losses * weight[index]
    return _reduced_rows(losses.sum(1) / classes, target.shape, reduction)


class MultilabelMargin(Op):
    """Sum over labels j and classes i without label of max(0, 1 - x[j] + x[i]) / C, per row.

    A row's labels end at the first -1.  The second output is the loss's slope, which is constant
    between kinks.
    """

    name = "multilabel_margin_loss"
    saved_outputs = (1,)
    nondifferentiable_outputs = (1,)
    materialize = False

    def forward(self, x: Any, target: Any) -> tuple[Any, Any]:
        classes = x.shape[1]
        if target.size and (target.min() < -1 or target.max() >= classes):
            wrong = target[(target < -1) | (target >= classes)][0]
            raise IndexError(f"{self.name}: target {wrong} is out of range for {classes} classes")
        live = np.logical_and.accumulate(target >= 0, axis=1)
        wide = widen(x)
        unlabelled = np.ones(x.shape, np.bool_)
        unlabelled[np.nonzero(live)[0], target[live]] = False
        losses = zeros(x.shape[:1], wide.dtype)
        slope = zeros(x.shape, wide.dtype)
        for j in range(int(live.sum(1).max(initial=0))):
            rows = np.flatnonzero(live[:, j])
            label = target[rows, j]
            excess = wide[rows] - wide[rows, label][:, None] + 1
            active = (excess > 0) & unlabelled[rows]
            losses[rows] += np.where(active, excess, 0).sum(1)
            slope[rows] += active
            slope[rows, label] -= active.sum(1)
        np.divide(losses, classes, out=losses)
        np.divide(slope, classes, out=slope)
        return cast(losses, x.dtype), slope

    def forward_cuda(self, x: Any, target: Any) -> tuple[Any, Any]:
        return cuda_loss.multilabel_margin(x, target, self.name)

    def backward(self, dy: Tensor, dslope: None) -> tuple[Tensor, None]:
        return dy.unsqueeze(1) * self.output(1), None


def multilabel_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                           reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """Sum over labels j and classes i without label of max(0, 1 - x[j] + x[i]) / C.

    input (N, C) or (C,); target, of the same shape and int64, holds the labels' classes up to the
    first -1.  Raises IndexError for a class out of range, ShapeError, DTypeError.
    """
    name = "multilabel_margin_loss"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    _check_classes(name, input, target)
    if target.shape != input.shape:
        raise ShapeError(f"{name}: target must have the input's shape {tuple(input.shape)}, got "
                         f"{tuple(target.shape)}")
    classes = input.shape[-1] if input.ndim else 1
    losses, _ = run(MultilabelMargin(), input.reshape(-1, classes), target.reshape(-1, classes))
    return _reduced_rows(losses, input.shape[:-1], reduction)


def _check_classes(op: str, input: Tensor, target: Tensor) -> None:
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{op}: input must be floating, got {input.dtype.name}")
    if target.dtype is not dtypes.int64:
        raise DTypeError(f"{op}: target must be int64, got {target.dtype.name}; convert with "
                         ".long()")
    if input.ndim > 2 or (input.ndim and not input.shape[-1]):
        raise ShapeError(f"{op}: expected (N, C) or (C,) with at least one class, got "
                         f"{tuple(input.shape)}")


def _reduced_rows(losses: Tensor, shape: tuple[int, ...], reduction: str) -> Tensor:
    """The reduced losses of rows; without any rows the mean is 0, as PyTorch's."""
    if reduction == "none":
        return losses.reshape(shape)
    return losses.sum() if reduction == "sum" or not losses.numel() else losses.mean()


@elementwise
def _label_loss(input: Any, target: Any) -> Any:
    return -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))


def multilabel_soft_margin_loss(input: Tensor, target: Tensor, weight: Tensor | None = None,
                                size_average: bool | None = None, reduce: bool | None = None,
                                reduction: str = "mean") -> Tensor:
    """The binary cross entropy of sigmoid(input), averaged over the classes (last dimension).

    target: 0 or 1 per class; weight broadcasts, usually (C,).  Raises DTypeError unless the input
    is floating.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("multilabel_soft_margin_loss", reduction)
    if input.ndim == 0:
        raise IndexError("multilabel_soft_margin_loss: input must have a dimension of classes")
    if not input.dtype.is_floating_point:
        raise DTypeError("multilabel_soft_margin_loss: input must be floating, got "
                         f"{input.dtype.name}; convert with .to()")
    losses = _label_loss(input, target)
    losses = losses if weight is None else losses * weight
    return reduced(losses.sum(input.ndim - 1) / input.shape[-1], reduction)
