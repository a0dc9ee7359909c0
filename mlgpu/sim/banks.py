"""How often warps pass over the banks of shared memory: 32 banks, each 4 bytes wide.

In one pass (a wavefront) every bank gives one word, to all lanes that ask for it.  A warp's lanes
go together for accesses of up to 4 bytes.  For 8 bytes its halves go one after the other, for 16
bytes the quarters.  Two halves, or two quarters of a half, go together where neighbours want the
same: every lane that is there has the address of lane ^ 1, or every one that of lane ^ 2, or that
lane is not there.  An atomic serves one lane of a word after the other.

Kernels measured with Nsight Compute on an H200 agree with this; of the rule about neighbours they
tried broadcasts and lanes without neighbours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
BANKS = 32
ABSENT = -1 << 30  # instead of a word, for a lane that is not there


class Passes(NamedTuple):
    """Passes of warps, added up."""

    passes: int
    groups: int  # groups of lanes that go one after the other: the passes beyond are conflicts
    ideal: int  # enough for the bytes that the lanes ask for


def parts(size: int) -> int:
    """The groups in which the lanes of a warp go, for accesses of so many bytes."""
    return min(max(size // 4, 1), 4)


def wavefronts(rows: Array, size: int, active: Array | None = None,
               atomic: bool = False) -> Passes:
    """The passes of warps, from their lanes' byte offsets (warps, 32), or (warps, 1) where all
    have the same.

    `active` says which lanes are there, (w, 32) for warps in groups of w; None: all.
    """
    words = rows >> 2
    relative = words - words[:, :1]
    if active is not None:
        relative = np.where(np.broadcast_to(active, (len(rows) // len(active), *active.shape)
                                            ).reshape(len(rows), BANKS), relative, ABSENT)
    if (relative == relative[0]).all():
        count, groups, ideal = _pattern(relative[0].tobytes(), size, atomic)
        return Passes(len(rows) * count, len(rows) * groups, len(rows) * ideal)
    return _passes(relative, size, atomic)


@lru_cache(maxsize=1 << 12)
def of_warps(offsets: bytes, more: int, size: int) -> Passes:
    """The passes of whole warps, one after the other, from their lanes' byte offsets; `more` bytes
    behind them, or any number of words further."""
    rows = np.frombuffer(offsets, np.int64).reshape(-1, BANKS) + more
    found = [wavefronts(rows + at, min(size, 16)) for at in range(0, size, 16)]
    return Passes(*map(sum, zip(*found, strict=True)))


@lru_cache(maxsize=1 << 14)
def _pattern(relative: bytes, size: int, atomic: bool) -> Passes:
    """The passes of one warp: they stay the same where all words move, for the banks turn with
    them."""
    return _passes(np.frombuffer(relative, np.int64)[None], size, atomic)


def _passes(words: Array, size: int, atomic: bool) -> Passes:
    """The passes of warps whose lanes' first words are given."""
    words = np.broadcast_to(words, (len(words), BANKS)).astype(np.int32)
    n = parts(size)
    count, groups = _fullest(words.reshape(-1, BANKS // n), atomic)
    if n > 1 and not atomic:
        pairs = words.reshape(-1, 2 * BANKS // n)  # of groups that may go together
        count, groups = count.reshape(-1, 2).sum(axis=1), groups.reshape(-1, 2).sum(axis=1)
        together = _alike(pairs, 1) | _alike(pairs, 2)
        if together.any():
            count[together], groups[together] = _fullest(pairs[together], atomic)
    count = count.reshape(len(words), -1).sum(axis=1)
    asked = np.count_nonzero(words != ABSENT, axis=1) * size
    ideal = np.minimum(count, -(-asked // (4 * BANKS)))
    return Passes(int(count.sum()), int(groups.sum()), int(ideal.sum()))


def _alike(words: Array, step: int) -> Array:
    """Whether all lanes of each row want what the lane a step away wants, if it is there."""
    others = words[:, np.arange(words.shape[1]) ^ step]
    same: Array = ((words == others) | (words == ABSENT) | (others == ABSENT)).all(axis=1)
    return same


def _fullest(words: Array, atomic: bool) -> tuple[Array, Array]:
    """Of each row of lanes: how many words the fullest bank gives; whether a lane is there."""
    there = words != ABSENT
    if not atomic:  # a word that several lanes ask for counts once
        words = np.sort(words, axis=1)
        there = words != ABSENT
        there[:, 1:] &= words[:, 1:] != words[:, :-1]
    rows = np.arange(len(words))[:, None] * BANKS
    asked = np.bincount((rows + (words & (BANKS - 1)))[there], minlength=len(words) * BANKS)
    count: Array = asked.reshape(-1, BANKS).max(axis=1)
    return count, (count > 0).astype(count.dtype)
