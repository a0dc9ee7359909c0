"""Connectionist temporal classification: the loss of all alignments of a label sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.runtime import empty, full, zeros
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run, wrap
from mlgpu.ops.loss_reduction import check_reduction, reduced
from mlgpu.tensor import Tensor

__all__ = ["ctc_loss"]

Lengths = Tensor | Sequence[int] | int


class CtcLoss(Op):
    """-log of the summed probability of all alignments, per example: (T, N, C) to (N,).

    The states of an alignment are the labels with a blank around each.  Sums over alignments run
    in the log domain over all examples and states at once, one step of time after another.
    Graves et al. 2006.
    """

    saved_inputs = (0,)

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

    def forward(self, log_probs: Any) -> Any:
        steps, count = log_probs.shape[:2]
        emitted = self._emitted(log_probs)
        alpha = full(emitted.shape, -np.inf, log_probs.dtype)
        alpha[0, :, :2] = emitted[0, :, :2]
        for t in range(1, steps):
            _advance(alpha[t - 1], self.skips, emitted[t], alpha[t])
        losses = empty((count,), log_probs.dtype)
        for n in range(count):
            losses[n] = -self._end(alpha, n)
        self.stash(alpha=alpha, raw=losses.copy())
        if self.zero_infinity:
            losses[np.isinf(losses)] = 0
        return losses

    def _emitted(self, log_probs: Any) -> Any:
        """The log-probability of each state's label at each step: (T, N, states)."""
        emitted = empty((*log_probs.shape[:2], self.states.shape[1]), log_probs.dtype)
        for n, states in enumerate(self.states):
            np.take(log_probs[:, n], states, axis=1, out=emitted[:, n])
        return emitted

    def _end(self, alpha: Any, n: int) -> Any:
        """The log-probability of having read everything: in the last label or the blank after."""
        last, target = self.inputs[n] - 1, 2 * self.targets[n]
        if last < 0:
            return 0.0 if target == 0 else -np.inf
        return np.logaddexp.reduce(alpha[last, n, max(0, target - 1):target + 1])

    def backward_cpu(self, dy: Any) -> Any:
        log_probs, alpha, losses = self.input_array(0), self.alpha, self.raw
        steps, count = log_probs.shape[:2]
        emitted = self._emitted(log_probs)
        dx = zeros(log_probs.shape, log_probs.dtype)
        posterior = self._posterior(alpha, emitted, losses)
        for n in range(count):
            length = self.inputs[n]
            if self.zero_infinity and np.isinf(losses[n]):
                continue
            labels, place = np.unique(self.states[n], return_inverse=True)
            member = np.zeros((len(place), len(labels)), log_probs.dtype)
            member[np.arange(len(place)), place] = 1
            grad = np.exp(log_probs[:length, n])
            grad[:, labels] -= posterior[:length, n] @ member
            np.multiply(grad, dy[n], out=dx[:length, n])
        return dx

    def _posterior(self, alpha: Any, emitted: Any, losses: Any) -> Any:
        """The probability of being in each state at each step, given the labels."""
        steps, count, width = alpha.shape
        beta = full((count, width), -np.inf, alpha.dtype)
        # Read backwards, states change as forwards in the mirrored sequence.
        skips = np.zeros_like(self.skips)
        skips[:, 2:] = self.skips[:, :1:-1]
        for t in range(steps - 1, -1, -1):
            mirrored = emitted[t][:, ::-1]
            if t < steps - 1:
                _advance(beta.copy(), skips, mirrored, beta)
            for n in np.flatnonzero(self.inputs == t + 1):
                ends = slice(max(0, 2 * self.targets[n] - 1), 2 * self.targets[n] + 1)
                backwards = beta[n, ::-1]
                backwards[:] = -np.inf
                backwards[ends] = emitted[t, n, ends]
            # alpha and beta both hold the emission of step t.
            np.add(alpha[t], beta[:, ::-1], out=alpha_beta := emitted[t] * -1 + alpha[t])
        return alpha


def _advance(before: Any, skips: Any, emitted: Any, out: Any) -> None:
    """out = emitted + log(exp(stay) + exp(step) + exp(skip)) for each example and state."""
    step = np.full(before.shape, -np.inf, before.dtype)
    step[:, 1:] = before[:, :-1]
    skip = np.full(before.shape, -np.inf, before.dtype)
    skip[:, 2:] = before[:, :-2]
    skip[~skips] = -np.inf
    np.logaddexp(np.logaddexp(before, step), skip, out=out)
    np.add(out, emitted, out=out)
