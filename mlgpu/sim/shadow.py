"""Shadow memory: for every cell of memory the accesses that a later one may race with.

An access is one number, event and thread packed, so that the latest of many is their maximum.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mlgpu.sim.group import WARP
from mlgpu.sim.memory import blank

Array = np.ndarray[Any, Any]
EVENT, SEVERAL, WHO = 33, 1 << 32, (1 << 32) - 1  # where the event begins; several lanes; thread
WARPS = WHO & -WARP  # of a thread, what tells its warp
# Set in what the twin of a thread did (copies.py), so that no barrier's floor settles it.
TWIN = 1 << 62
INNER = 1 << 61  # set in strong accesses that are strong within their block only
EVENTS = (1 << 28) - 1
DEVICE_TWIN = 1 << 31  # a twin, in thread numbers that count through the grid


class Shadow:
    """The last write, strong write, strong read, and two reads by different warps, of cells."""

    def __init__(self, shape: tuple[int, ...], sparse: bool = False) -> None:
        self._sparse = sparse
        self.write, self.strong, self.read, self.read2 = (
            blank(math.prod(shape), sparse).reshape(shape) for _ in range(4))
        self.strong_read: Array | None = None
        self.copy_read: Array | None = None  # by bulk copies
        self.first: Array | None = None  # the first write, where it was a strong one

    def _layer(self) -> Array:
        return blank(self.write.size, self._sparse).reshape(self.write.shape)

    def strong_reads(self) -> Array:
        """The layer of strong reads, made at the first."""
        if self.strong_read is None:
            self.strong_read = self._layer()
        return self.strong_read

    def copy_reads(self) -> Array:
        """The layer of what bulk copies read, made at the first."""
        if self.copy_read is None:
            self.copy_read = self._layer()
        return self.copy_read

    def note_first(self, cell: Array, who: Array, event: int, new: Array) -> None:
        """Keep strong writes of the cells that are new: nobody has written them before."""
        if not new.any():
            return
        if self.first is None:
            self.first = self._layer()
        shape = np.broadcast_shapes(cell.shape, who.shape)
        cell, who, new = (np.broadcast_to(a, shape) for a in (cell, who, new))
        self.first.reshape(-1)[cell[new]] = event << EVENT | who[new]

    def spread(self, blocks: int) -> None:
        """A row for every block, each with what the one had."""
        for name, layer in vars(self).items():
            if isinstance(layer, np.ndarray):
                setattr(self, name, np.repeat(layer, blocks, axis=0))

    def refine(self, times: int) -> None:
        """Smaller cells, each with what the larger one had.

        Only what was accessed is written: the pages of the rest cost nothing, as before.
        """
        for name, layer in vars(self).items():
            if isinstance(layer, np.ndarray):
                used = np.flatnonzero(layer)
                fine = blank(layer.size * times, self._sparse)
                fine.reshape(-1, times)[used] = layer[used, None]
                setattr(self, name, fine)

    def note_read(self, cell: Array, who: Array, event: int) -> None:
        """Keep the read, and the last one of another warp."""
        read, read2 = self.read.reshape(-1), self.read2.reshape(-1)
        before = read.take(cell)
        other_warp = ((before ^ who) & WARPS != 0) & (before != 0)
        if other_warp.any():
            shape = other_warp.shape
            read2[np.broadcast_to(cell, shape)[other_warp]] = np.broadcast_to(
                before, shape)[other_warp]
        cell, mine = put(read, cell, event, who)
        back = read.take(cell)
        if (back == mine).all():
            return
        others = back != mine
        apart = others & ((back ^ mine) & WARPS != 0)
        if apart.any():
            read2[cell[apart]] = mine[apart] | SEVERAL
        read[cell[others]] = back[others] | SEVERAL

    def note_readers(self, found: Readers, cells: Array, event: int) -> None:
        """As `note_read`: who reads the cells, each of which comes once, is found already."""
        read, read2 = self.read.reshape(-1), self.read2.reshape(-1)
        before = read.take(cells)
        other_warp = ((before ^ found.last) & WARPS != 0) & (before != 0)
        if other_warp.any():
            read2[cells[other_warp]] = before[other_warp]
        if len(found.shared):
            read2[cells[found.shared]] = found.others | event << EVENT
        read[cells] = found.last | event << EVENT


class Readers(NamedTuple):
    """Who reads what, of threads that read at once."""

    cells: Array  # each once
    last: Array  # the last thread that reads the cell, with SEVERAL where others do, too
    shared: Array  # the places, among the cells, of those that several warps read
    others: Array  # the last thread of another warp that reads each of these, with SEVERAL


@lru_cache(maxsize=1 << 10)
def readers(offsets: bytes, count: int, unit: int, threads: int | bytes) -> Readers:
    """Who reads `count` cells of `unit` bytes from each offset on, the threads' own or one for all;
    the threads are numbered, or so many."""
    who = np.arange(threads) if isinstance(threads, int) else np.frombuffer(threads, np.int64)
    first = np.frombuffer(offsets, np.int64) // unit
    cell = np.broadcast_to(first[:, None] + np.arange(count), (len(who), count)).ravel()
    who = np.repeat(who, count)
    cells, place = np.unique(cell, return_inverse=True)
    last = np.zeros(len(cells), np.int64)
    last[place] = who
    most = last[place]
    apart = (who ^ most) & WARPS != 0
    others = np.zeros(len(cells), np.int64)
    others[place[apart]] = who[apart] | SEVERAL
    shared = np.flatnonzero(others)
    last[place[who != most]] |= SEVERAL
    return Readers(cells, last, shared, others[shared])


def put(layer: Array, cell: Array, event: int, who: Array,
        flags: int = 0) -> tuple[Array, Array]:
    """Enter an event of the threads into cells; both with their common shape."""
    shape = np.broadcast_shapes(cell.shape, who.shape)
    cell = np.broadcast_to(cell, shape)
    mine = np.broadcast_to(flags | event << EVENT | who, shape)
    layer[cell] = mine
    return cell, mine
