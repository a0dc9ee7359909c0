"""Connectionist temporal classification on the device: a block for each example."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda import faults, rows
from mlgpu.cuda.launch import launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError


class Alignments(NamedTuple):
    """Targets, and where those of each example are."""

    targets: Any
    where: Any  # (batch, 3): an example's first target, and the lengths of input and target
    states: int  # of the longest target, or of the longest that the steps can be read as
    blank: int
    zero_infinity: bool


def places(targets: Any, inputs: Any, lengths: Any, steps: int) -> Any:
    """`Alignments.where`, for targets that are a row each or follow each other.

    What is wrong with the lengths, which only the device knows, is raised by the next waiting call.
    """
    batch, joined = len(lengths), targets.ndim == 1
    where = empty((batch, 3), np.dtype(np.int64))
    width = 0 if joined else targets.shape[1]
    if not joined and not width:
        width = 1  # rows of no labels: where they begin does not matter
    sites = [faults.site(f"ctc_loss: {text}", ShapeError) for text in (
        "input_lengths must be between 0 and {bound}, the steps of log_probs, got {value}",
        "target_lengths must be between 0 and {bound}, the labels that there are, got {value}",
        "concatenated targets must have {value} labels, the sum of target_lengths, got {bound}")]
    launch("ctc", f"ctc_places<{ctype(inputs.dtype)}, {ctype(lengths.dtype)}>", 1, 32,
           (where, contiguous(inputs), contiguous(lengths), batch, steps, width,
            targets.shape[-1], faults.fault(), *sites))
    return where


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
