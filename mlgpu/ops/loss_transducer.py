"""The loss of recurrent neural network transducers (Graves 2012)."""

from __future__ import annotations

from typing import Any

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.choice import where
from mlgpu.ops.creation import arange, full
from mlgpu.ops.exponential import logaddexp
from mlgpu.ops.join import cat, stack
from mlgpu.ops.loss_reduction import check_reduction, reduced
from mlgpu.ops.softmax import log_softmax
from mlgpu.tensor import Tensor

__all__ = ["rnnt_loss"]

_NOTHING = -1e30  # the logarithm of 0, finite so that differences of it are no NaN


def rnnt_loss(logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor,
              blank: int = -1, clamp: float = -1, reduction: str = "mean",
              fused_log_softmax: bool = True) -> Tensor:
    """-log p(targets): over all ways to emit them, with blanks, along the frames.

    logits (batch, frames, 1 + longest target, classes), float; targets (batch, longest target),
    logit_lengths and target_lengths (batch,), integers.  `clamp` > 0 confines the gradient of each
    sequence's loss to ±clamp.  Without `fused_log_softmax` logits are log-probabilities already.
    As torchaudio.functional.rnnt_loss, on every device and with derivatives of any order; frames +
    targets steps one after the other.  Raises ShapeError or DTypeError for what does not fit.
    """
    check_reduction("rnnt_loss", reduction)
    _check(logits, targets, logit_lengths, target_lengths, blank)
    blank %= logits.shape[-1]
    held: list[Tensor] = []
    if clamp > 0 and logits.requires_grad:
        logits = logits.view(logits.shape)
        logits.register_hook(lambda gradient: _clamped(gradient, held[-1], clamp))
    work = logits.to(dtypes.compute_dtype(logits.dtype))
    scores = log_softmax(work, -1) if fused_log_softmax else work
    emitted = scores[:, :, :-1].gather(
        3, targets.long()[:, None, :, None].expand(-1, logits.shape[1], -1, 1))[..., 0]
    losses = -_total(scores[..., blank], emitted, logit_lengths.long(), target_lengths.long())
    if held is not None and clamp > 0 and losses.requires_grad:
        losses.register_hook(lambda gradient: held.append(gradient.detach()))
    return reduced(losses.to(logits.dtype), reduction)


def _total(blank: Tensor, emitted: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
    """log p of each sequence, from log-probabilities of blanks (n, t, u + 1), labels (n, t, u).

    Cells of one diagonal t + u depend on those of the one before only: each step takes one.
    """
    number, most, columns = blank.shape
    place = arange(columns, device=blank.device)
    last = frames - 1 + labels  # the diagonal of the last cell, which a blank ends
    outside = full((number, 1), _NOTHING, dtype=blank.dtype, device=blank.device)
    alpha = cat([outside * 0, *[outside] * (columns - 1)], 1)
    ends = []
    for diagonal in range(most + columns - 1):
        row = diagonal - place  # the frame of each column's cell
        inside = (row >= 0) & (row < most)
        at = row.clamp(0, most - 1)
        leave = where(inside, blank[:, at, place], _NOTHING)
        ends.append((alpha + leave).gather(1, labels[:, None])[:, 0])
        if diagonal == most + columns - 2:
            break
        stay = alpha + leave
        move = alpha[:, :-1] + where(inside[:-1], emitted[:, at[:-1], place[:-1]], _NOTHING)
        alpha = cat([stay[:, :1], logaddexp(stay[:, 1:], move)], 1).clamp(min=_NOTHING)
    return stack(ends, 1).gather(1, last[:, None])[:, 0]


def _clamped(gradient: Tensor, scale: Tensor, limit: float) -> Tensor:
    """The gradient of losses weighted by `scale`, each loss's own confined to ±limit."""
    scale = scale.reshape(-1, 1, 1, 1).to(gradient.dtype)
    each = gradient / where(scale == 0, 1, scale)
    return each.clamp(-limit, limit) * scale


def _check(logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor,
           blank: int) -> None:
    if not logits.is_floating_point():
        raise DTypeError(f"rnnt_loss: logits must be floating, got {logits.dtype.name}")
    for name, tensor in (("targets", targets), ("logit_lengths", logit_lengths),
                         ("target_lengths", target_lengths)):
        if tensor.dtype.kind != "int":
            raise DTypeError(f"rnnt_loss: {name} must be integers, got {tensor.dtype.name}")
    wanted: dict[str, Any] = {"targets": (logits.shape[0], logits.shape[2] - 1)} if (
        logits.ndim == 4) else {}
    if not wanted or tuple(targets.shape) != wanted["targets"]:
        raise ShapeError("rnnt_loss: expected logits (batch, frames, 1 + targets, classes) and "
                         f"targets (batch, targets), got {tuple(logits.shape)} and "
                         f"{tuple(targets.shape)}")
    for name, tensor in (("logit_lengths", logit_lengths), ("target_lengths", target_lengths)):
        if tuple(tensor.shape) != (logits.shape[0],):
            raise ShapeError(f"rnnt_loss: {name} must be ({logits.shape[0]},), got "
                             f"{tuple(tensor.shape)}")
    if not -logits.shape[-1] <= blank < logits.shape[-1]:
        raise ShapeError(f"rnnt_loss: blank must be one of {logits.shape[-1]} classes, got {blank}")
    if logits.device.type == "cpu" and logits.shape[0]:
        for name, tensor, low, high in (("logit_lengths", logit_lengths, 1, logits.shape[1]),
                                        ("target_lengths", target_lengths, 0, logits.shape[2] - 1)):
            if int(tensor.min()) < low or int(tensor.max()) > high:
                raise ShapeError(f"rnnt_loss: {name} must lie between {low} and {high}, got "
                                 f"{tensor.tolist()}")
