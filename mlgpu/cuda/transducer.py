"""The loss of transducers on the device: rows of scores, sweeps over diagonals, one gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.cuda import faults, rows
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.runtime import contiguous, empty
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError

THREADS = 512  # of a sweep, at most: a sequence is one block's


class Lattice(NamedTuple):
    """What forward left; scores and alpha lie diagonal by diagonal."""

    losses: Any  # of each sequence
    scores: Any  # log-probabilities of a blank and of the next label in each cell
    lse: Any  # of each row of logits; empty where these are log-probabilities
    alpha: Any


def forward(logits: Any, targets: Any, frames: Any, labels: Any, blank: int, fused: bool
            ) -> tuple[Any, Lattice]:
    """The losses of (sequences, frames, 1 + labels, classes), and the lattice.

    What is wrong with lengths and targets is raised by the next waiting call.
    """
    logits, targets, frames, labels = map(contiguous, (logits, targets, frames, labels))
    count, most, columns, classes = logits.shape
    compute = rows.wide(logits.dtype)
    cells = (count, most + columns - 1, columns)
    scores, alpha = empty((*cells, 2), compute), empty(cells, compute)
    result, losses = empty((count,), compute), empty((count,), compute)
    lse = empty(logits.shape[:3] if fused else (0,), compute)
    total = count * most * columns
    kernel, lanes = _rows("scores", fused, logits)
    launch("transducer", kernel, blocks(total * lanes, 256), 256,
           (scores, lse, logits, targets, frames, labels, total, most, columns, classes, blank))
    sites = [faults.site(f"rnnt_loss: {text}", *kind) for text, *kind in (
        ("logit_lengths must lie between 1 and {bound}, got {value}", ShapeError),
        ("target_lengths must lie between 0 and {bound}, got {value}", ShapeError),
        ("label {value} is out of range for {bound} classes",))]
    _sweep("alpha", count, columns, compute,
           (result, losses, alpha, scores, targets, frames, labels, most, columns, classes,
            faults.fault(), *sites))
    return result, Lattice(losses, scores, lse, alpha)


def backward(dy: Any, logits: Any, targets: Any, frames: Any, labels: Any, lattice: Lattice,
             blank: int, fused: bool, limit: float, spare: bool) -> Any:
    """The gradient of the logits; in their memory where that is to `spare`."""
    targets, frames, labels = map(contiguous, (targets, frames, labels))
    count, most, columns, classes = logits.shape
    losses, scores, lse, alpha = lattice
    flows = empty(scores.shape, scores.dtype)
    _sweep("flows", count, columns, alpha.dtype,
           (flows, alpha, scores, frames, labels, most, columns))
    dense = contiguous(logits)
    dx = dense if spare or dense is not logits else empty(logits.shape, logits.dtype)
    total = count * most * columns
    kernel, lanes = _rows("gradient", fused, dx, dense)
    launch("transducer", kernel, blocks(total * lanes, 256), 256,
           (dx, dense, contiguous(dy), losses, flows, lse, targets, frames, labels, total, most,
            columns, classes, blank, limit))
    return dx


def _sweep(name: str, count: int, columns: int, compute: Any, arguments: tuple[Any, ...]) -> None:
    """Over the diagonals of all sequences, a block each."""
    threads = rows.threads(columns, 1, THREADS)
    shared = 2 * columns * compute.itemsize
    if shared > rows.shared_limit():
        raise ShapeError(f"rnnt_loss: at most {rows.shared_limit() // 2 // compute.itemsize - 1} "
                         f"labels fit a sequence on this device, got {columns - 1}")
    each = rows.power(blocks(columns, threads))
    launch("transducer", f"transducer_{name}<{ctype(compute)}, {each}>", count, threads, arguments,
           shared)


def _rows(name: str, fused: bool, *arrays: Any) -> tuple[str, int]:
    """A kernel over the rows of logits, and how many lanes a row has."""
    classes = arrays[0].shape[3]
    width = rows.vector(classes, *arrays)
    lanes, _ = rows.lanes(classes, width)
    kind = ctype(arrays[0].dtype)
    return f"transducer_{name}<{kind}, {width}, {lanes}, {str(fused).lower()}>", lanes
