"""The lattice of a transducer (Graves 2012) on the CPU: all sequences and columns at a step.

A cell (t, u) is frame t after u labels.  Cells of one diagonal t + u depend on those of the one
before alone; so what the sweeps read and write lies diagonal by diagonal, (diagonal, sequence, u),
as kernels/transducer.cu has it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from mlgpu.cpu.runtime import full

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
    cells = full((frames + columns - 1, count, columns), -np.inf, values.dtype)
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

    Given the targets; as (sequence, frame, u).  From the end back, each cell's is split by how
    probable the two ways into it are: so sums stay 1, which those of differences of large
    logarithms would not.  NaN where there is no way through.
    """
    losses, blanks, labels, alpha = lattice
    cells = full(alpha.shape, 0, alpha.dtype), full(alpha.shape, 0, alpha.dtype)
    count, last = np.arange(len(frames)), frames + lengths - 1
    straight, across = np.zeros((2, *alpha.shape[1:]), alpha.dtype)
    for d in range(len(alpha) - 1, -1, -1):
        stay, move = cells[0][d], cells[1][d]
        stay[...] = straight
        move[:, :-1] = across[:, 1:]
        ends = last == d
        stay[count[ends], lengths[ends]] = 1
        if d == 0:
            break
        here = stay + move
        first = alpha[d - 1] + blanks[d - 1]
        second = np.full(first.shape, -np.inf, first.dtype)
        second[:, 1:] = alpha[d - 1, :, :-1] + labels[d - 1, :, :-1]
        away = second - first
        straight = np.where(np.isneginf(first), 0, here / (1 + np.exp(away)))
        across = np.where(np.isneginf(second), 0, here / (1 + np.exp(-away)))
    never = np.isposinf(losses)
    stay, move = (slanted(each, most).transpose(1, 0, 2).copy() for each in cells)
    stay[never] = move[never] = np.nan
    return stay, move
