"""The loss of recurrent neural network transducers (Graves 2012)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd import enable_grad, grad
from mlgpu.cpu import fast, transducer
from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.rows import each_block, wide, with_more
from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda import transducer as cuda_transducer
from mlgpu.errors import DTypeError, PositionError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.choice import where
from mlgpu.ops.creation import arange, full
from mlgpu.ops.exponential import logaddexp
from mlgpu.ops.join import cat, stack
from mlgpu.ops.loss_class import CrossEntropy
from mlgpu.ops.loss_reduction import check_reduction, reduced
from mlgpu.ops.softmax import log_softmax
from mlgpu.tensor import Tensor

__all__ = ["rnnt_loss"]

_NOTHING = -1e30  # the logarithm of 0, finite so that differences of it are no NaN


class TransducerLoss(Op):
    """The loss of each sequence, in the dtype that is computed in.

    Of logits (n, t, u + 1, c), targets (n, u), frames (n,) and labels (n,), all int64.  Nothing of
    the logits' size is kept but they themselves, and nothing is made but their gradient.
    """

    name = "rnnt_loss"
    saved_inputs = (0, 1, 2, 3)

    def __init__(self, blank: int, limit: float, fused: bool) -> None:
        self.blank = blank
        self.limit = limit  # of the gradient of a sequence's own loss
        self.fused = fused  # whether log_softmax comes first

    # --- the CPU ----------------------------------------------------------------------------

    def forward(self, logits: Any, targets: Any, frames: Any, labels: Any) -> Any:
        classes = logits.shape[3]
        inside, index = _cells(logits.shape, targets, frames, labels, self.blank)
        rows = contiguous(logits).reshape(-1, classes)
        # Sums of hundreds of logarithms, in float64: there are few of them.
        blanks = rows[:, self.blank].astype(np.float64)
        if self.fused:
            scores = CrossEntropy(1, -1, "none")
            losses, _, _, lse = scores.row_losses(rows, index.reshape(-1), None)
            said, blanks = -losses[:, 0].astype(np.float64), blanks - lse[:, 0]
            self.stash(lse=lse)
        else:
            said = np.take_along_axis(rows, index.reshape(-1, 1), 1)[:, 0].astype(np.float64)
        speaks = inside & (np.arange(logits.shape[2]) < labels[:, None, None])
        lattice = transducer.forward(transducer.laid(blanks.reshape(inside.shape), inside),
                                     transducer.laid(said.reshape(inside.shape), speaks),
                                     frames, labels)
        self.stash(**lattice._asdict())
        return lattice.losses.astype(wide(logits.dtype))

    def backward_cpu(self, dy: Any) -> tuple[Any, None, None, None]:
        logits, targets, frames, labels = (self.input_array(i) for i in range(4))
        inside, index = _cells(logits.shape, targets, frames, labels, self.blank)
        lattice = transducer.Lattice(self.losses, self.blanks, self.labels, self.alpha)
        compute = wide(logits.dtype)
        stay, move, scale = (
            np.where(inside, each, 0).astype(compute) for each in (
                *transducer.shares(lattice, frames, labels, logits.shape[1]), dy[:, None, None]))
        dx = empty(logits.shape, logits.dtype)
        if not dx.size:
            return dx, None, None, None
        rows = contiguous(logits).reshape(-1, logits.shape[3])
        lse = self.lse if self.fused else zeros((len(rows), 1), compute)
        loops = fast.load("transducer", rows.size)
        form = self._gradient if loops is None else with_more(
            loops.gradient, self.blank, self.limit, self.fused)
        each_block(form, dx.reshape(rows.shape), rows, lse, index.reshape(-1, 1),
                   inside.reshape(-1, 1), *(a.reshape(-1, 1) for a in (stay, move, scale)),
                   last_first=True, loop=loops is not None)
        return dx, None, None, None

    def _gradient(self, dx: Any, x: Any, lse: Any, index: Any, inside: Any, stay: Any, move: Any,
                  scale: Any) -> None:
        """The gradient of some rows of logits."""
        if self.fused:
            np.subtract(x, lse, out=dx)
            np.exp(dx, out=dx)
            np.multiply(dx, stay + move, out=dx)
            dx[~inside[:, 0]] = 0
        else:
            dx.fill(0)
        dx[:, self.blank] -= stay[:, 0]
        dx[np.arange(len(dx)), index[:, 0]] -= move[:, 0]
        if self.limit < math.inf:
            np.clip(dx, -self.limit, self.limit, out=dx)
        np.multiply(dx, scale, out=dx)

    # --- CUDA -------------------------------------------------------------------------------

    def forward_cuda(self, logits: Any, targets: Any, frames: Any, labels: Any) -> Any:
        result, lattice = cuda_transducer.forward(logits, targets, frames, labels, self.blank,
                                                  self.fused)
        self.stash(**lattice._asdict())
        return result

    def backward_cuda(self, dy: Any) -> tuple[Any, None, None, None]:
        lattice = cuda_transducer.Lattice(self.losses, self.scores, self.lse, self.alpha)
        targets, frames, labels = (self.input_array(i) for i in range(1, 4))
        logits, spare = self.take_input(0)
        dx = cuda_transducer.backward(dy, logits, targets, frames, labels, lattice, self.blank,
                                      self.fused, self.limit, spare)
        return dx, None, None, None

    # --- both -------------------------------------------------------------------------------

    def backward(self, dy: Tensor) -> tuple[Tensor, None, None, None]:
        """The gradient by Tensor operations, for derivatives of it."""
        source, *rest = (self.input(i) for i in range(4))
        # A view, so that the walk ends at it and not at what made the logits.
        logits = source.view(source.shape)
        with enable_grad():
            losses = self._composed(logits, *rest)
            each = grad([losses.sum()], [logits], create_graph=True)[0]
        assert each is not None
        if self.limit < math.inf:
            each = each.clamp(-self.limit, self.limit)
        return each * dy[:, None, None, None], None, None, None

    def _composed(self, logits: Tensor, targets: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
        work = logits.to(dtypes.compute_dtype(logits.dtype))
        scores = log_softmax(work, -1) if self.fused else work
        emitted = scores[:, :, :-1].gather(
            3, targets[:, None, :, None].expand(-1, logits.shape[1], -1, 1))[..., 0]
        return -_total(scores[..., self.blank], emitted, frames, labels)


def rnnt_loss(logits: Tensor, targets: Tensor, logit_lengths: Tensor, target_lengths: Tensor,
              blank: int = -1, clamp: float = -1, reduction: str = "mean",
              fused_log_softmax: bool = True) -> Tensor:
    """-log p(targets): over all ways to emit them, with blanks, along the frames.

    logits (batch, frames, 1 + longest target, classes), float; targets (batch, longest target),
    logit_lengths and target_lengths (batch,), integers.  `clamp` > 0 confines the gradient of each
    sequence's loss to ±clamp.  Without `fused_log_softmax` logits are log-probabilities already.
    As torchaudio.functional.rnnt_loss, on every device and with derivatives of any order.  Beside
    the logits a few numbers a cell are kept, and nothing of their size is made but their gradient.
    Lengths and targets on a device are not read here: what is wrong with them is raised by the next
    waiting call.  Raises ShapeError, DTypeError, and IndexError for a label out of range.
    """
    check_reduction("rnnt_loss", reduction)
    _check(logits, targets, logit_lengths, target_lengths, blank)
    op = TransducerLoss(blank % logits.shape[-1], clamp if clamp > 0 else math.inf,
                        fused_log_softmax)
    losses: Tensor = run(op, logits, targets.long(), logit_lengths.long(), target_lengths.long())
    return reduced(losses.to(logits.dtype), reduction)


def _cells(shape: tuple[int, ...], targets: Any, frames: Any, labels: Any, blank: int
           ) -> tuple[Any, Any]:
    """Whether each cell (n, t, u) lies within its sequence's lengths, and the label after it.

    `blank` where there is none.  PositionError for a label out of range.
    """
    count, most, columns, classes = shape
    spoken = np.arange(columns - 1) < labels[:, None]
    wrong = targets[spoken & ((targets < 0) | (targets >= classes))]
    if wrong.size:
        raise PositionError(f"rnnt_loss: label {wrong[0]} is out of range for {classes} classes")
    following = np.full((count, 1, columns), blank)
    np.copyto(following[:, 0, :-1], targets, where=spoken)
    inside = (np.arange(most)[:, None] < frames[:, None, None]) & (
        np.arange(columns) <= labels[:, None, None])
    return inside, contiguous(np.broadcast_to(following, inside.shape))


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
    if not logits.shape[1] and logits.shape[0]:
        raise ShapeError(f"rnnt_loss: logits must have frames, got {tuple(logits.shape)}")
    if logits.device.type == "cpu" and logits.shape[0]:
        for name, tensor, low, high in (("logit_lengths", logit_lengths, 1, logits.shape[1]),
                                        ("target_lengths", target_lengths, 0, logits.shape[2] - 1)):
            if int(tensor.min()) < low or int(tensor.max()) > high:
                raise ShapeError(f"rnnt_loss: {name} must lie between {low} and {high}, got "
                                 f"{tensor.tolist()}")
