"""The lattice of a transducer (Graves 2012) on the CPU: all sequences and columns at a step.

A cell (t, u) is frame t after u labels.  Cells of one diagonal t + u depend on those of the one
before alone; so what the sweeps read and write lies diagonal by diagonal, (diagonal, sequence, u),
as kernels/transducer.cu has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mlgpu.cpu.runtime import empty, full

Array = np.ndarray[Any, Any]


class Lattice(NamedTuple):
    """What the sweeps left; see `slanted`."""

    losses: Array  # of each sequence
    blanks: Array  # log-probabilities of a blank in each cell, -inf beyond a sequence's lengths
    labels: Array  # those of the next label
    alpha: Array  # of coming to a cell


def slanted(cells: Array, frames: int) -> Array:
    """A view (frame, sequence, u) of what lies diagonal by diagonal."""
    along, sequence, column = cells.strides
    return as_strided(cells, (frames, *cells.shape[1:]), (along, sequence, column + along))


def laid(values: Array, inside: Array) -> Array:
    """Values (sequence, frame, u) diagonal by diagonal; -inf where not `inside`."""
    count, frames, columns = values.shape
    cells = full((frames + columns, count, columns), -np.inf, values.dtype)
    np.copyto(slanted(cells, frames), values.transpose(1, 0, 2), where=inside.transpose(1, 0, 2))
    return cells


def forward(blanks: Array, labels: Array, frames: Array, lengths: Array) -> Lattice:
    """The losses, from scores that `laid` gave and from each sequence's frames and labels."""
    alpha = full(blanks.shape, -np.inf, blanks.dtype)
    alpha[0, :, 0] = 0
    for d in range(1, len(alpha)):
        np.add(alpha[d - 1], blanks[d - 1], out=alpha[d])
        across = alpha[d - 1, :, :-1] + labels[d - 1, :, :-1]
        np.logaddexp(alpha[d, :, 1:], across, out=alpha[d, :, 1:])
    last = frames + lengths - 1, np.arange(len(frames)), lengths
    return Lattice(-(alpha[last] + blanks[last]), blanks, labels, alpha)


def shares(lattice: Lattice, frames: Array, lengths: Array, most: int) -> tuple[Array, Array]:
    """The probabilities of going on from each cell with a blank, and with a label.

    Given the targets; as (sequence, frame, u).
    """
    losses, blanks, labels, alpha = lattice
    stay = empty((blanks.shape[1], most, blanks.shape[2]), blanks.dtype)
    move = empty(stay.shape, blanks.dtype)
    # beta: the log-probability of what is still to be said, 0 at the end, (frames, labels).
    count = np.arange(len(frames))
    end = frames + lengths
    beta = np.full(blanks.shape[1:], -np.inf, blanks.dtype)
    onward = np.full(beta.shape, -np.inf, blanks.dtype)  # by a label
    both = full(blanks.shape, -np.inf, blanks.dtype), full(blanks.shape, -np.inf, blanks.dtype)
    for d in range(len(alpha) - 1, -1, -1):
        ends = end == d + 1
        beta[count[ends], lengths[ends]] = 0
        onward[:, :-1] = labels[d, :, :-1] + beta[:, 1:]
        np.add(blanks[d], beta, out=beta)
        come = alpha[d] + losses[:, None]
        np.add(come, beta, out=both[0][d])
        np.add(come, onward, out=both[1][d])
        np.logaddexp(beta, onward, out=beta)
    for out, cells in zip((stay, move), both, strict=True):
        np.exp(slanted(cells, most).transpose(1, 0, 2), out=out)
    return stay, move
