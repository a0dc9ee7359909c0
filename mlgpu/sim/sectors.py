"""The 32-byte sectors that warps touch: which ones, and how well their bytes are used.

Warps usually access memory in one pattern that only moves, so the pattern of one warp is worked
out, remembered, and moved; warps that differ go through a sort.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
SECTOR = 32
FEW = 8  # a pattern that fits less than this part of the warps is none
SMALL = 64  # so few warps are sorted rather than compared with a second pattern


class Footprint(NamedTuple):
    """What accesses of some warps touch, each warp for itself."""

    sectors: Array  # the numbers of the sectors, each once a warp that touches it
    elements: int  # different elements
    ideal: int  # sectors that those would fill side by side


def repeated(rows: Array, shift: Array, size: int) -> Footprint:
    """The footprint of blocks whose warps do what these do, some bytes behind them."""
    found = []
    phases = shift & (SECTOR - 1)
    for phase in np.flatnonzero(np.bincount(phases)).tolist():
        there = shift[phases == phase]
        one = footprint(rows + phase, size)
        found.append(Footprint(((there >> 5)[:, None] + one.sectors).ravel(),
                               one.elements * len(there), one.ideal * len(there)))
    return _joined(found)


def footprint(rows: Array, size: int) -> Footprint:
    """The footprint of warps from their lanes' byte offsets, (warps, 32) or (warps, 1).

    Every access is aligned to its size, as memcheck sees to; one of more than 16 bytes goes in
    pieces, since wmma's are not.  Lanes that are not there repeat another.
    """
    if size > 16:
        pieces = np.concatenate([rows + at for at in range(0, size, 16)], axis=1)
        return _sorted(pieces, 16)
    if rows.shape[1] == 1:
        return Footprint(rows.ravel() >> 5, len(rows), len(rows))
    found: list[Footprint] = []
    relative = rows - rows[:, :1]
    while True:
        model = relative[len(rows) // 2]  # the first and last warps are the likely odd ones
        alike = relative == model
        if alike.all():
            return _joined([*found, *_moved(rows[:, 0], model, size)])
        same = alike.all(axis=1) if len(rows) > SMALL else None
        if same is None or np.count_nonzero(same) * FEW < len(rows):
            return _joined([*found, _sorted(rows, size)])
        found += _moved(rows[same, 0], model, size)
        rows, relative = rows[~same], relative[~same]


def _joined(found: list[Footprint]) -> Footprint:
    if len(found) == 1:
        return found[0]
    return Footprint(np.concatenate([f.sectors for f in found]), sum(f.elements for f in found),
                     sum(f.ideal for f in found))


def shifts(offset: Array) -> Array | None:
    """By how much every block's offsets (blocks, threads) lie behind those of the first, where
    that is the same for all threads."""
    if offset.shape[0] == 1 or offset.shape[1] == 1:
        return None
    shift: Array = offset[:, :1] - offset[0, 0]
    return shift[:, 0] if (offset - shift == offset[0]).all() else None


def again(offset: Array, active: Array | None) -> int:
    """How often atomics of warps pass over a sector once more, from their lanes' byte offsets
    (warps, 32): lanes that want the same element go one after the other, each with the sector.

    `active` says which lanes are there, (w, 32) for warps in groups of w; None: all.
    """
    if active is not None:
        there = np.broadcast_to(active, (len(offset) // len(active), *active.shape))
        offset = np.where(there.reshape(offset.shape), offset, -1 - np.arange(offset.shape[1]))
    offset = np.sort(offset, axis=1)
    rows = offset[(offset[:, 1:] == offset[:, :-1]).any(axis=1)]
    if not len(rows):
        return 0
    span = int(rows.max()) // SECTOR * SECTOR + SECTOR
    keys = rows + np.arange(len(rows))[:, None] * span
    elements, lanes = np.unique(keys[rows >= 0], return_counts=True)
    first = np.flatnonzero(np.diff(elements >> 5, prepend=-1))
    return int(np.maximum.reduceat(lanes, first).sum()) - len(first)


def _moved(starts: Array, relative: Array, size: int) -> list[Footprint]:
    """Warps of one pattern at different places: alike where they begin at the same byte of a
    sector."""
    phases = starts & (SECTOR - 1)
    first = int(phases[0])
    key = relative.tobytes()
    if (phases == first).all():
        return [_placed(starts, *_pattern(key, first, size))]
    return [_placed(starts[phases == phase], *_pattern(key, int(phase), size))
            for phase in np.flatnonzero(np.bincount(phases))]


def _placed(starts: Array, sectors: Array, elements: int, ideal: int) -> Footprint:
    n = len(starts)
    return Footprint(((starts >> 5)[:, None] + sectors).ravel(), n * elements, n * ideal)


@lru_cache(maxsize=1 << 14)
def _pattern(relative: bytes, phase: int, size: int) -> tuple[Array, int, int]:
    """The sectors of one warp, relative to its first lane's, its elements and their sectors."""
    offsets = np.frombuffer(relative, np.int64) + phase
    elements = len(np.unique(offsets))
    return np.unique(offsets >> 5), elements, -(-elements * size // SECTOR)


def _sorted(rows: Array, size: int) -> Footprint:
    """As `footprint`, for warps that have nothing in common."""
    if (rows[:, 1:] < rows[:, :-1]).any():
        rows = np.sort(rows, axis=1)
    elements = np.count_nonzero(rows[:, 1:] != rows[:, :-1], axis=1) + 1
    sectors = rows >> 5
    others = sectors[:, 1:][sectors[:, 1:] != sectors[:, :-1]]
    return Footprint(np.concatenate((sectors[:, 0], others)), int(elements.sum()),
                     int((-(-elements * size // SECTOR)).sum()))
