"""Losses that PyTorch has not: of pairs, of focus, of any power, and of style."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.ops.activation import logsigmoid, sigmoid
from mlgpu.ops.arithmetic import abs
from mlgpu.ops.choice import clamp_min, where
from mlgpu.ops.distance import normalize
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.exponential import pow, square
from mlgpu.ops.loss_class import cross_entropy
from mlgpu.ops.loss_elementwise import mse_loss
from mlgpu.ops.loss_reduction import check_reduction, reduced
from mlgpu.tensor import Tensor

__all__ = ["contrastive_loss", "gram_matrix", "gram_matrix_loss", "hinge_loss", "info_nce_loss",
           "lp_loss", "sigmoid_focal_loss"]


@elementwise
def _focal(input: Any, target: Any, alpha: Any, gamma: Any) -> Any:
    p = sigmoid(input)
    entropy = -target * logsigmoid(input) - (1 - target) * logsigmoid(-input)
    missed = p + target - 2 * p * target  # 1 - the probability of the target
    return entropy * pow(missed, gamma) * (alpha * target + (1 - alpha) * (1 - target))


@elementwise
def _focal_even(input: Any, target: Any, gamma: Any) -> Any:
    p = sigmoid(input)
    entropy = -target * logsigmoid(input) - (1 - target) * logsigmoid(-input)
    return entropy * pow(p + target - 2 * p * target, gamma)


def sigmoid_focal_loss(inputs: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2,
                       reduction: str = "none") -> Tensor:
    """Binary cross-entropy of logits times (1 - p_target)^gamma and alpha or 1 - alpha.

    Weighs what is well classified less (Lin et al. 2017); alpha < 0 weighs both classes alike.  As
    torchvision.ops.sigmoid_focal_loss.  Raises ShapeError for shapes that differ.
    """
    check_reduction("sigmoid_focal_loss", reduction)
    _check_alike("sigmoid_focal_loss", inputs, targets)
    targets = targets.to(inputs.dtype)
    losses = (_focal(inputs, targets, alpha, gamma) if alpha >= 0 else
              _focal_even(inputs, targets, gamma))
    return reduced(losses, reduction)


@elementwise
def _hinge(input: Any, target: Any, margin: Any) -> Any:
    return clamp_min(margin - target * input, 0)


def hinge_loss(input: Tensor, target: Tensor, margin: float = 1.0, squared: bool = False,
               reduction: str = "mean") -> Tensor:
    """max(0, margin - target * input), or its square, of scores; targets 1 or -1.

    The loss of support vector machines (Cortes and Vapnik 1995).
    """
    check_reduction("hinge_loss", reduction)
    _check_alike("hinge_loss", input, target)
    losses = _hinge(input, target.to(input.dtype), margin)
    return reduced(square(losses) if squared else losses, reduction)


def contrastive_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float = 1.0,
                     reduction: str = "mean") -> Tensor:
    """d² where the target is 1 (alike), max(0, margin - d)² where it is 0; d the distance.

    Vectors (..., n) and targets (...), each halved as in Hadsell, Chopra and LeCun 2006.
    """
    check_reduction("contrastive_loss", reduction)
    _check_alike("contrastive_loss", input1, input2)
    if target.shape != input1.shape[:-1]:
        raise ShapeError(f"contrastive_loss: target must be {tuple(input1.shape[:-1])}, got "
                         f"{tuple(target.shape)}")
    total = square(input1 - input2).sum(-1)
    distance = where(total > 0, total, 1).sqrt() * (total > 0)  # whose slope at 0 is 0
    apart = square(clamp_min(margin - distance, 0))
    return reduced(0.5 * where(target == 1, total, apart), reduction)


def info_nce_loss(query: Tensor, key: Tensor, temperature: float = 0.1, reduction: str = "mean"
                  ) -> Tensor:
    """Cross-entropy of telling each query's key from all others, by cosines / temperature.

    query and key (n, features): row i of one belongs to row i of the other.  van den Oord et al.
    2018; with both directions summed, the loss of CLIP.
    """
    _check_alike("info_nce_loss", query, key)
    if query.ndim != 2:
        raise ShapeError(f"info_nce_loss: expected (n, features), got {tuple(query.shape)}")
    from mlgpu.ops.creation import arange

    scores = normalize(query, dim=-1) @ normalize(key, dim=-1).T / temperature
    return cross_entropy(scores, arange(len(query), device=query.device), reduction=reduction)


def lp_loss(input: Tensor, target: Tensor, p: float = 2.0, reduction: str = "mean") -> Tensor:
    """|input - target|^p.  Raises ShapeError for p <= 0 or shapes that differ."""
    check_reduction("lp_loss", reduction)
    _check_alike("lp_loss", input, target)
    if p <= 0:
        raise ShapeError(f"lp_loss: p must be positive, got {p}")
    return reduced(pow(abs(input - target), p), reduction)


def gram_matrix(input: Tensor) -> Tensor:
    """Products of all pairs of channels over the image: (n, c, ...) to (n, c, c).

    Divided by the number of elements c * h * w of an image.
    """
    if input.ndim < 3:
        raise ShapeError(f"gram_matrix: expected (n, c, ...), got {tuple(input.shape)}")
    flat = input.flatten(2)
    return flat @ flat.transpose(1, 2) / max(flat.shape[1] * flat.shape[2], 1)


def gram_matrix_loss(input: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    """The squared difference of Gram matrices of features: the loss of style (Gatys et al. 2016).

    input and target (n, c, ...) of the same n and c.
    """
    return mse_loss(gram_matrix(input), gram_matrix(target), reduction=reduction)


def _check_alike(op: str, first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ShapeError(f"{op}: both must have one shape, got {tuple(first.shape)} and "
                         f"{tuple(second.shape)}")
