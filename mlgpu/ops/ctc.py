"""Connectionist temporal classification: the loss of all alignments of a label sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.runtime import empty, full, zeros
from mlgpu.cuda import ctc as cuda_ctc
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.loss_reduction import check_reduction, reduced
from mlgpu.tensor import Tensor

__all__ = ["ctc_loss"]


class CtcLoss(Op):
    """-log of the summed probability of all alignments, per example: (T, N, C) to (N,).

    The states of an alignment are the labels with a blank around each.  Sums over alignments run
    in the log domain over all examples and states at once, one step of time after another
    (Graves et al. 2006).
    """

    def __init__(self, labels: Any, inputs: Any, targets: Any, blank: int, zero_infinity: bool
                 ) -> None:
        self.inputs = inputs  # lengths (N,)
        self.targets = targets
        self.zero_infinity = zero_infinity
        count, longest = labels.shape
        self.states = np.full((count, 2 * longest + 1), blank, np.int64)
        self.states[:, 1::2] = labels
        # A label may follow the one before it directly unless both are the same.
        self.skips = np.zeros(self.states.shape, np.bool_)
        self.skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
        # An alignment ends in the last label or in the blank after it.
        place = np.arange(self.states.shape[1])
        last = 2 * targets[:, None]
        self.ends = (place == last) | (place == last - 1)

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return tuple(range(len(needs)))

    def forward(self, log_probs: Any) -> Any:
        steps, count = log_probs.shape[:2]
        emitted = self._emitted(log_probs)
        alpha = full(emitted.shape, -np.inf, log_probs.dtype)
        alpha[0, :, :2] = emitted[0, :, :2]
        for t in range(1, steps):
            _follow(alpha[t - 1], self.skips, alpha[t])
            alpha[t] += emitted[t]
        final = alpha[np.maximum(self.inputs - 1, 0), np.arange(count)]
        losses = empty((count,), log_probs.dtype)
        np.logaddexp.reduce(np.where(self.ends, final, -np.inf), axis=1, out=losses)
        np.negative(losses, out=losses)
        unread = self.inputs == 0  # only the empty target can be read from nothing
        losses[unread] = np.where(self.ends[unread, 0], 0, np.inf)
        self.stash(alpha=alpha, raw=losses)
        if self.zero_infinity:
            return np.where(np.isinf(losses), np.zeros_like(losses), losses)
        return losses.copy()

    def _emitted(self, log_probs: Any) -> Any:
        """The log-probability of each state's label at each step: (T, N, states)."""
        emitted = empty((*log_probs.shape[:2], self.states.shape[1]), log_probs.dtype)
        for n, states in enumerate(self.states):
            emitted[:, n] = log_probs[:, n][:, states]
        return emitted

    def backward_cpu(self, dy: Any) -> Any:
        """As PyTorch's: exp(log_probs) - posterior, which takes log_probs to be normalised."""
        log_probs, losses = self.input_array(0), self.raw
        dx = zeros(log_probs.shape, log_probs.dtype)
        posterior = self._posterior(self.alpha, self._emitted(log_probs), losses)
        for n, length in enumerate(self.inputs):
            if np.isinf(losses[n]):
                dx[:length, n] = 0 if self.zero_infinity else np.nan
                continue
            order = np.argsort(self.states[n], kind="stable")
            labels, starts = np.unique(self.states[n][order], return_index=True)
            grad = np.exp(log_probs[:length, n])
            grad[:, labels] -= np.add.reduceat(posterior[:length, n][:, order], starts, axis=1)
            np.multiply(grad, dy[n], out=dx[:length, n])
        return dx

    def _posterior(self, alpha: Any, emitted: Any, losses: Any) -> Any:
        """The probability of being in each state at each step, given the labels."""
        posterior = empty(alpha.shape, alpha.dtype)
        # beta[s]: the log-probability of what is still to be read from state s.  Backwards, states
        # follow each other as forwards in the mirrored sequence.
        skips = np.zeros_like(self.skips)
        skips[:, 2:] = self.skips[:, :1:-1]
        beta = np.full(alpha.shape[1:], -np.inf, alpha.dtype)
        for t in range(len(alpha) - 1, -1, -1):
            if t < len(alpha) - 1:
                _follow((beta + emitted[t + 1])[:, ::-1], skips, beta[:, ::-1])
            ending = self.inputs == t + 1
            beta[ending] = np.where(self.ends[ending], 0, -np.inf)
            np.add(alpha[t], beta, out=posterior[t])
        np.add(posterior, losses[:, None], out=posterior)
        return np.exp(posterior, out=posterior)


class CtcLossOnDevice(Op):
    """The same of log_probs, targets and both lengths, all on the device: nothing is read here."""

    name = "ctc_loss"
    saved_inputs = (0, 1)

    def __init__(self, longest: int, blank: int, zero_infinity: bool) -> None:
        self.longest = longest  # labels of a target, at most
        self.blank = blank
        self.zero_infinity = zero_infinity

    def _alignments(self, targets: Any, where: Any) -> cuda_ctc.Alignments:
        return cuda_ctc.Alignments(targets, where, 2 * self.longest + 1, self.blank,
                                   self.zero_infinity)

    def forward_cuda(self, log_probs: Any, targets: Any, inputs: Any, lengths: Any) -> Any:
        where = cuda_ctc.places(targets, inputs, lengths, len(log_probs))
        result, losses, alpha = cuda_ctc.forward(log_probs, self._alignments(targets, where))
        self.stash(alpha=alpha, raw=losses, where=where)
        return result

    def backward_cuda(self, dy: Any) -> tuple[Any, None, None, None]:
        given = self._alignments(self.input_array(1), self.where)
        dx = cuda_ctc.backward(dy, self.raw, self.alpha, self.input_array(0), given)
        return dx, None, None, None


def _follow(before: Any, skips: Any, out: Any) -> None:
    """out[s] = log(exp(before[s]) + exp(before[s - 1]) + exp(before[s - 2]) where skips[s])."""
    paths = np.full((3, *before.shape), -np.inf, before.dtype)
    paths[0] = before
    paths[1, :, 1:] = before[:, :-1]
    np.copyto(paths[2, :, 2:], before[:, :-2], where=skips[:, 2:])
    top = paths.max(axis=0)
    top[np.isneginf(top)] = 0  # no path: log(0) below, not inf - inf
    paths -= top
    np.exp(paths, out=paths)
    np.log(paths.sum(axis=0), out=out)
    out += top


def ctc_loss(log_probs: Tensor, targets: Tensor, input_lengths: Tensor | Sequence[int] | int,
             target_lengths: Tensor | Sequence[int] | int, blank: int = 0,
             reduction: str = "mean", zero_infinity: bool = False) -> Tensor:
    """-log of the probability that log_probs (T, N, C) or (T, C) read as the targets.

    targets: (N, S) or (S,), or all concatenated, without `blank`; lengths: one per example.  "mean"
    divides each loss by its target's length first.  The loss is infinite where the input is too
    short for the target; `zero_infinity` makes it and its gradient 0 there.  float32 and float64;
    the gradient is that of log_softmax's output, as in PyTorch.  Lengths on the device of log_probs
    are not read here: what is wrong with them is raised by the next waiting call.  Raises
    ShapeError, DTypeError, and IndexError for a label out of range (Graves et al. 2006).
    """
    check_reduction("ctc_loss", reduction)
    if log_probs.dtype not in (dtypes.float32, dtypes.float64):
        raise DTypeError(f"ctc_loss: log_probs must be float32 or float64, got "
                         f"{log_probs.dtype.name}; convert with .to()")
    if log_probs.ndim not in (2, 3) or not log_probs.numel():
        raise ShapeError("ctc_loss: log_probs must be (T, N, C) or (T, C), not empty, got "
                         f"{tuple(log_probs.shape)}")
    batched = log_probs.ndim == 3
    rows = log_probs if batched else log_probs.unsqueeze(1)
    steps, count, classes = rows.shape
    if not 0 <= blank < classes:
        raise ShapeError(f"ctc_loss: blank must be one of the {classes} labels, got {blank}")
    inputs = _lengths("input_lengths", input_lengths, count, rows)
    lengths = _lengths("target_lengths", target_lengths, count, rows)
    if not isinstance(inputs, Tensor) and inputs.max() > steps:
        raise ShapeError(f"ctc_loss: input_lengths must be at most {steps}, the steps of "
                         f"log_probs, got {inputs.max()}")
    _check_targets(targets, count, None if isinstance(lengths, Tensor) else lengths)
    losses: Tensor
    if log_probs.device.type == "cuda":
        longest = targets.shape[-1] if isinstance(lengths, Tensor) else int(lengths.max())
        inputs, lengths = (n if isinstance(n, Tensor) else rows.new_tensor(n, dtype=dtypes.int64)
                           for n in (inputs, lengths))
        op = CtcLossOnDevice(min(longest, steps), blank, zero_infinity)
        losses = run(op, rows, targets.to(log_probs.device), inputs, lengths)
        divisor = lengths.clamp_min(1).to(losses.dtype)
    else:
        labels = _labels(targets, lengths, blank, classes)
        losses = run(CtcLoss(labels, inputs, lengths, blank, zero_infinity), rows)
        divisor = losses.new_tensor(np.maximum(lengths, 1))
    if reduction == "mean":
        losses = losses / divisor
    losses = reduced(losses, reduction)
    return losses if batched or reduction != "none" else losses.reshape(())


def _lengths(name: str, lengths: Tensor | Sequence[int] | int, count: int, rows: Tensor) -> Any:
    """A vector of lengths: a Tensor, unread, where they are on the device of `rows`; else NumPy."""
    if isinstance(lengths, Tensor):
        if lengths.dtype.kind != "int":
            raise DTypeError(f"ctc_loss: {name} must be integers, got {lengths.dtype.name}")
        if lengths.device.type != "cpu" and lengths.device == rows.device:
            _check_count(name, lengths.numel(), count)
            wide = lengths.dtype in (dtypes.int32, dtypes.int64)
            return (lengths if wide else lengths.long()).reshape(count)
        lengths = lengths.tolist()
    array = np.asarray(lengths, np.int64).reshape(-1)
    _check_count(name, len(array), count)
    if array.min() < 0:
        raise ShapeError(f"ctc_loss: {name} must not be negative, got {array.min()}")
    return array


def _check_count(name: str, got: int, count: int) -> None:
    if got != count:
        raise ShapeError(f"ctc_loss: {name} must have one length for each of {count} examples, "
                         f"got {got}")


def _check_targets(targets: Tensor, count: int, lengths: Any) -> None:
    """Raise unless targets have a shape for these lengths, which are None where unknown."""
    shape = tuple(targets.shape)
    longest = 0 if lengths is None else int(lengths.max())
    if targets.dtype.kind != "int":
        raise DTypeError(f"ctc_loss: targets must be integers, got {targets.dtype.name}")
    if len(shape) == 1 and lengths is not None and shape[0] != lengths.sum():
        raise ShapeError(f"ctc_loss: concatenated targets must have {lengths.sum()} labels, the "
                         f"sum of target_lengths, got {shape[0]}")
    if len(shape) == 2 and (shape[0] != count or shape[1] < longest):
        raise ShapeError(f"ctc_loss: targets must be ({count}, at least {longest}) to match "
                         f"log_probs and target_lengths, got {shape}")
    if len(shape) not in (1, 2):
        raise ShapeError(f"ctc_loss: targets must have 1 or 2 dimensions, got {shape}")


def _labels(targets: Tensor, lengths: Any, blank: int, classes: int) -> Any:
    """The targets as (N, longest), blank after their ends."""
    array = contiguous(targets.cpu()._array).astype(np.int64)
    count, longest = len(lengths), int(lengths.max())
    inside = np.arange(longest) < lengths[:, None]
    labels = np.full((count, longest), blank, np.int64)
    labels[inside] = array if array.ndim == 1 else array[:, :longest][inside]
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise IndexError(f"ctc_loss: label {wrong} is out of range for {classes} classes")
    return labels
