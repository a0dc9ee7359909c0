"""Connectionist temporal classification on the device: a block for each example."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda import faults, rows
from mlgpu.cuda.launch import launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype


class Alignments(NamedTuple):
    """Targets on the device, and where those of each example are; lengths are known to the host."""

    targets: Any
    where: Any  # (batch, 3): an example's first target, and the lengths of input and target
    states: int
    blank: int
    zero_infinity: bool


def places(targets: Any, inputs: Any, lengths: Any) -> Any:
    """`Alignments.where`, for targets that are a row each or follow each other."""
    from mlgpu.cuda.transfer import from_host

    width = targets.shape[1] if targets.ndim == 2 else 0
    starts = np.arange(len(lengths)) * width if width else np.cumsum(lengths) - lengths
    return from_host(np.stack([starts, inputs, lengths], 1).astype(np.int64), False)[0]


def forward(logs: Any, given: Alignments) -> tuple[Any, Any, Any]:
    """The loss of each example of logs (steps, batch, classes), the same with infinities; alpha."""
    logs, given = contiguous(logs), given._replace(targets=contiguous(given.targets))
    steps, batch, classes = logs.shape
    result, losses = empty((batch,), logs.dtype), empty((batch,), logs.dtype)
    alpha = empty((batch, steps, given.states), logs.dtype)
    site = faults.site("ctc_loss: label {value} is out of range for {bound} classes")
    launch("ctc", f"ctc_forward<{_types(logs, given)}>", batch, _threads(given.states),
           (result, losses, alpha, logs, given.targets, given.where, batch, steps, classes,
            given.states, given.blank, given.zero_infinity, faults.fault(), site))
    return result, losses, alpha


def backward(dy: Any, losses: Any, alpha: Any, logs: Any, given: Alignments) -> Any:
    """The gradient of logs."""
    logs, dy = contiguous(logs), contiguous(dy)
    given = given._replace(targets=contiguous(given.targets))
    steps, batch, classes = logs.shape
    dx = empty(logs.shape, logs.dtype)
    beta, posterior = (empty((batch, k, given.states), logs.dtype) for k in (2, 1))
    chain = empty((batch, given.states - 1), np.dtype(np.int32))
    launch("ctc", f"ctc_backward<{_types(logs, given)}>", batch, _threads(given.states, classes),
           (dx, dy, losses, alpha, logs, given.targets, given.where, beta, posterior, chain, batch,
            steps, classes, given.states, given.blank, given.zero_infinity))
    return dx


def _types(logs: Any, given: Alignments) -> str:
    return f"{ctype(logs.dtype)}, {ctype(given.targets.dtype)}"


def _threads(*sizes: int) -> int:
    return rows.threads(max(sizes), 1, 512)
