"""Losses that compare an input with a target element by element: one line of maths each."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.runtime import zeros
from mlgpu.cuda import loss as cuda_loss
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.activation import logsigmoid
from mlgpu.ops.arithmetic import abs
from mlgpu.ops.choice import clamp_min, where
from mlgpu.ops.elementwise import Elementwise, elementwise
from mlgpu.ops.exponential import exp, log, log1p, square, xlogy
from mlgpu.ops.loss_reduction import check_reduction, legacy_reduction, reduced
from mlgpu.ops.view import broadcast_shapes
from mlgpu.tensor import Tensor

__all__ = ["binary_cross_entropy", "binary_cross_entropy_with_logits", "gaussian_nll_loss",
           "hinge_embedding_loss", "huber_loss", "kl_div", "l1_loss", "mse_loss",
           "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss"]


# --- checks ---------------------------------------------------------------------------------------


def _check_floating(op: str, *tensors: Tensor) -> None:
    if not any(t.dtype.is_floating_point or t.dtype.is_complex for t in tensors):
        raise DTypeError(f"{op}: expected floating tensors, got "
                         f"{', '.join(t.dtype.name for t in tensors)}; convert with .to()")


def _warn_sizes(input: Tensor, target: Tensor) -> None:
    if target.shape != input.shape:
        warnings.warn(f"Using a target size ({target.shape}) that is different to the input size "
                      f"({input.shape}): they broadcast, which is probably not what is meant.",
                      UserWarning, stacklevel=3)


def _check_same_shape(op: str, name: str, tensor: Tensor, input: Tensor) -> None:
    if tensor.shape != input.shape:
        raise ShapeError(f"{op}: {name} must have the input's shape {tuple(input.shape)}, got "
                         f"{tuple(tensor.shape)}")


def _check_input(op: str, input: Tensor) -> None:
    """Raise unless the loss can be of the input's dtype."""
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{op}: input must be floating, got {input.dtype.name}; convert with "
                         ".to()")


def _number(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor` itself, or a bool one in the dtype of `like`, so that they can be subtracted."""
    return tensor.to(like.dtype) if tensor.dtype is dtypes.bool_ else tensor


def _check_broadcast(op: str, name: str, tensor: Tensor, input: Tensor) -> None:
    """Raise unless `tensor` broadcasts to the input's shape, without enlarging it."""
    if broadcast_shapes(input.shape, tensor.shape) != input.shape:
        raise ShapeError(f"{op}: {name} must broadcast to the input's shape "
                         f"{tuple(input.shape)}, got {tuple(tensor.shape)}")


def _weighted(op: str, losses: Tensor, input: Tensor, weight: Tensor | None, reduction: str
              ) -> Tensor:
    """The reduced losses; a weighted mean divides by the weights' sum."""
    if weight is None:
        return reduced(losses, reduction)
    _check_same_shape(op, "weight", weight, input)
    losses = losses * weight
    return losses.sum() / weight.sum() if reduction == "mean" else reduced(losses, reduction)


# --- differences ----------------------------------------------------------------------------------


@elementwise
def _squared(input: Any, target: Any) -> Any:
    return square(input - target)


@elementwise
def _absolute(input: Any, target: Any) -> Any:
    return abs(input - target)


@elementwise
def _smooth_l1(input: Any, target: Any, beta: Any) -> Any:
    size = abs(input - target)
    return where(size < beta, square(input - target) * 0.5 / beta, size - 0.5 * beta)


@elementwise
def _huber(input: Any, target: Any, delta: Any) -> Any:
    size = abs(input - target)
    return where(size < delta, 0.5 * square(input - target), delta * (size - 0.5 * delta))


def mse_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
             reduce: bool | None = None, reduction: str = "mean",
             weight: Tensor | None = None) -> Tensor:
    """(input - target)², times weight; the mean then divides by the weights' sum.

    Shapes broadcast, with a UserWarning.  Raises DTypeError for integers.
    """
    _warn_sizes(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("mse_loss", reduction)
    _check_floating("mse_loss", input, target)
    losses = _squared(_number(input, target), _number(target, input))
    return _weighted("mse_loss", losses, input, weight, reduction)


def l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
            reduce: bool | None = None, reduction: str = "mean",
            weight: Tensor | None = None) -> Tensor:
    """|input - target|, times weight; the mean then divides by the weights' sum.

    Shapes broadcast, with a UserWarning.  The gradient is 0 where both are equal.
    """
    _warn_sizes(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("l1_loss", reduction)
    return _weighted("l1_loss", _absolute(input, target), input, weight, reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                   reduce: bool | None = None, reduction: str = "mean",
                   beta: float = 1.0) -> Tensor:
    """d² / (2 beta) for |d| < beta, else |d| - beta / 2, with d = input - target.

    beta = 0 is `l1_loss`.  Shapes broadcast, with a UserWarning.  Raises ShapeError (a ValueError)
    for a negative beta.
    """
    _warn_sizes(input, target)
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("smooth_l1_loss", reduction)
    if beta < 0:
        raise ShapeError(f"smooth_l1_loss: beta must not be negative, got {beta}")
    if beta == 0:
        return reduced(_absolute(input, target), reduction)
    _check_floating("smooth_l1_loss", input, target)
    return reduced(_smooth_l1(_number(input, target), _number(target, input), beta), reduction)


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
               weight: Tensor | None = None) -> Tensor:
    """d² / 2 for |d| < delta, else delta (|d| - delta / 2), with d = input - target, times weight.

    The result has the input's dtype; the mean divides by the number of elements, weighted or not.
    Shapes broadcast, with a UserWarning.  Raises ShapeError (a ValueError) unless delta > 0.
    """
    _warn_sizes(input, target)
    check_reduction("huber_loss", reduction)
    if not delta > 0:
        raise ShapeError(f"huber_loss: delta must be positive, got {delta}")
    _check_input("huber_loss", input)
    losses = _huber(input, _number(target, input), delta).to(input.dtype)
    if weight is not None:
        _check_same_shape("huber_loss", "weight", weight, input)
        losses = losses * weight
    return reduced(losses, reduction)


# --- probabilities --------------------------------------------------------------------------------


@elementwise
def _cross_entropy(input: Any, target: Any) -> Any:
    return (target - 1) * clamp_min(log1p(-input), -100) - target * clamp_min(log(input), -100)


@elementwise
def _cross_entropy_input_gradient(dy: Any, input: Any, target: Any) -> Any:
    return dy * (input - target) / clamp_min((1 - input) * input, 1e-12)


@elementwise
def _cross_entropy_target_gradient(dy: Any, input: Any) -> Any:
    return dy * (log1p(-input) - log(input))


_WRONG_INPUT = ("binary_cross_entropy: all elements of input must be between 0 and 1; apply "
                "sigmoid, or use binary_cross_entropy_with_logits")
_WRONG_TARGET = "binary_cross_entropy: all elements of target must be between 0 and 1"


class BinaryCrossEntropy(Op):
    """-(t log(x) + (1 - t) log(1 - x)) with logarithms at least -100, and bounded gradients."""

    saved_inputs = (0, 1)

    def forward(self, x: Any, target: Any) -> Any:
        if not ((x >= 0) & (x <= 1)).all():
            raise ShapeError(_WRONG_INPUT)
        if not ((target >= 0) & (target <= 1)).all():
            raise ShapeError(_WRONG_TARGET)
        return Elementwise(_cross_entropy.formula, (None, None)).forward(x, target)

    def forward_cuda(self, x: Any, target: Any) -> Any:
        return cuda_loss.binary_cross_entropy(x, target, _WRONG_INPUT, _WRONG_TARGET)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x = self.input(0)
        return (_cross_entropy_input_gradient(dy, x, self.input(1)) if self.needs[0] else None,
                _cross_entropy_target_gradient(dy, x) if self.needs[1] else None)


def binary_cross_entropy(input: Tensor, target: Tensor, weight: Tensor | None = None,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: str = "mean") -> Tensor:
    """-(target log(input) + (1 - target) log(1 - input)) of probabilities, times weight.

    Logarithms count as at least -100, and the gradient's divisor as at least 1e-12.  weight
    broadcasts to the input.  Raises ShapeError (a ValueError) for different shapes and for
    elements outside [0, 1], DTypeError for different dtypes.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("binary_cross_entropy", reduction)
    _check_same_shape("binary_cross_entropy", "target", target, input)
    _check_input("binary_cross_entropy", input)
    if target.dtype is not input.dtype:
        raise DTypeError(f"binary_cross_entropy: target must be {input.dtype.name} as the input, "
                         f"got {target.dtype.name}; convert with .to()")
    losses: Tensor = run(BinaryCrossEntropy(), input, target)
    if weight is not None:
        _check_broadcast("binary_cross_entropy", "weight", weight, input)
        losses = losses * weight
    return reduced(losses, reduction)


@elementwise
def _logits(input: Any, target: Any) -> Any:
    return (1 - target) * input - logsigmoid(input)


@elementwise
def _logits_balanced(input: Any, target: Any, positive: Any) -> Any:
    return (1 - target) * input - ((positive - 1) * target + 1) * logsigmoid(input)


def binary_cross_entropy_with_logits(
        input: Tensor, target: Tensor, weight: Tensor | None = None,
        size_average: bool | None = None, reduce: bool | None = None, reduction: str = "mean",
        pos_weight: Tensor | None = None) -> Tensor:
    """`binary_cross_entropy` of sigmoid(input), without overflow.

    pos_weight multiplies the term of target 1; it and weight broadcast to the input.  The result
    has the target's dtype.  Raises ShapeError for different shapes, DTypeError for integers.
    """
    name = "binary_cross_entropy_with_logits"
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction(name, reduction)
    _check_same_shape(name, "target", target, input)
    _check_input(name, input)
    if not target.dtype.is_floating_point:
        raise DTypeError(f"{name}: target must be floating, got {target.dtype.name}; convert with "
                         ".to()")
    if pos_weight is None:
        losses = _logits(input, target)
    else:
        _check_broadcast(name, "pos_weight", pos_weight, input)
        losses = _logits_balanced(input, target, pos_weight)
    if weight is not None:
        _check_broadcast(name, "weight", weight, input)
        losses = losses * weight
    return reduced(losses.to(target.dtype), reduction)


@elementwise
def _divergence(input: Any, target: Any) -> Any:
    return xlogy(target, target) - target * input


@elementwise
def _log_divergence(input: Any, target: Any) -> Any:
    return exp(target) * (target - input)


def kl_div(input: Tensor, target: Tensor, size_average: bool | None = None,
           reduce: bool | None = None, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """target (log(target) - input): input holds log-probabilities, target too with `log_target`.

    reduction "batchmean" divides the sum by input's first size, which is the divergence per
    example; "mean" divides by the number of elements, with a UserWarning.  Shapes broadcast.
    """
    if size_average is not None or reduce is not None:
        reduction = legacy_reduction(size_average, reduce, reduction)
    elif reduction == "mean":
        warnings.warn("kl_div: reduction 'mean' divides by the batch size and the number of "
                      "classes; the divergence per example is reduction='batchmean'.",
                      UserWarning, stacklevel=2)
    by_batch = reduction == "batchmean"
    if not by_batch:
        check_reduction("kl_div", reduction)
    if not (input.dtype.is_floating_point and target.dtype.is_floating_point):
        raise DTypeError(f"kl_div: expected floating tensors, got {input.dtype.name} and "
                         f"{target.dtype.name}; convert with .to()")
    losses = (_log_divergence if log_target else _divergence)(input, target)
    loss = reduced(losses, "sum" if by_batch else reduction)
    return loss / input.shape[0] if by_batch and input.ndim else loss


# --- likelihoods ----------------------------------------------------------------------------------


@elementwise
def _poisson_log(input: Any, target: Any) -> Any:
    return exp(input) - target * input


@elementwise
def _poisson(input: Any, target: Any, eps: Any) -> Any:
    return input - target * log(input + eps)


@elementwise
def _stirling(target: Any) -> Any:
    return where(target > 1, target * log(target) - target + 0.5 * log(2 * math.pi * target), 0.0)


def poisson_nll_loss(input: Tensor, target: Tensor, log_input: bool = True, full: bool = False,
                     size_average: bool | None = None, eps: float = 1e-8,
                     reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """exp(input) - target * input, or input - target * log(input + eps) without `log_input`.

    `full` adds Stirling's approximation of log(target!) for targets above 1.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("poisson_nll_loss", reduction)
    losses = _poisson_log(input, target) if log_input else _poisson(input, target, eps)
    return reduced(losses + _stirling(target) if full else losses, reduction)


@elementwise
def _gaussian(input: Any, target: Any, var: Any, constant: Any) -> Any:
    return 0.5 * (log(var) + square(input - target) / var) + constant


class VarianceLift(Op):
    """What is missing from each variance to `least`.  ShapeError for a negative one."""

    differentiable = False
    wrong = "gaussian_nll_loss: var must not be negative"

    def __init__(self, least: float) -> None:
        self.least = least

    def forward(self, var: Any) -> Any:
        if (var < 0).any():
            raise ShapeError(self.wrong)
        lift = zeros(var.shape, var.dtype)
        least = var.dtype.type(self.least)
        np.subtract(least, var, out=lift, where=var < least)
        return lift

    def forward_cuda(self, var: Any) -> Any:
        return cuda_loss.variance_lift(var, self.least, self.wrong)


def gaussian_nll_loss(input: Tensor, target: Tensor, var: Tensor | float, full: bool = False,
                      eps: float = 1e-6, reduction: str = "mean") -> Tensor:
    """(log(var) + (input - target)² / var) / 2 with var at least eps; `full` adds log(2 pi) / 2.

    var: a number, or input's shape, with a last dimension of 1 or without it.  Where eps stands
    in, var's gradient is the one at eps.  Raises ShapeError (a ValueError), also for a negative
    var (on CUDA from the next waiting call).
    """
    check_reduction("gaussian_nll_loss", reduction)
    if not isinstance(var, Tensor):
        var = input.new_full(input.shape, var)
    var = _fitted(input, var if var.dtype.is_floating_point else var.to(input.dtype))
    lift = run(VarianceLift(eps), var)
    constant = 0.5 * math.log(2 * math.pi) if full else 0.0
    return reduced(_gaussian(input, target, var + lift, constant), reduction)


def _fitted(input: Tensor, var: Tensor) -> Tensor:
    """var ready to broadcast.  ShapeError unless it is one per element or per last dimension."""
    if var.shape == input.shape:
        return var
    if var.shape == input.shape[:-1]:
        return var.unsqueeze(-1)
    if var.ndim == input.ndim:
        other = [v for n, v in zip(input.shape, var.shape, strict=True) if n != v]
        if sum(other) == 1:
            return var
    raise ShapeError(f"gaussian_nll_loss: var must have the input's shape {tuple(input.shape)}, "
                     f"with one size 1 or without the last, got {tuple(var.shape)}")


# --- signs ----------------------------------------------------------------------------------------


@elementwise
def _soft_margin(input: Any, target: Any) -> Any:
    return -logsigmoid(target * input)


@elementwise
def _hinge(input: Any, target: Any, margin: Any) -> Any:
    return where(target != -1, input, 0) + where(target != 1, clamp_min(margin - input, 0), 0)


def soft_margin_loss(input: Tensor, target: Tensor, size_average: bool | None = None,
                     reduce: bool | None = None, reduction: str = "mean") -> Tensor:
    """log(1 + exp(-target * input)), without overflow; targets 1 or -1, broadcast to input.

    The result has the input's dtype.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("soft_margin_loss", reduction)
    _check_input("soft_margin_loss", input)
    _check_broadcast("soft_margin_loss", "target", target, input)
    return reduced(_soft_margin(input, target).to(input.dtype), reduction)


def hinge_embedding_loss(input: Tensor, target: Tensor, margin: float = 1.0,
                         size_average: bool | None = None, reduce: bool | None = None,
                         reduction: str = "mean") -> Tensor:
    """input where the target is 1, max(0, margin - input) where it is -1; shapes broadcast.

    Raises DTypeError unless the input is floating.
    """
    reduction = legacy_reduction(size_average, reduce, reduction)
    check_reduction("hinge_embedding_loss", reduction)
    _check_input("hinge_embedding_loss", input)
    return reduced(_hinge(input, target.detach(), margin), reduction)  # target only selects
