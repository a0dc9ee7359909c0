"""How often warps pass over the banks of shared memory: 32 banks, each 4 bytes wide.

In one pass (a wavefront) every bank gives one word, to all lanes that ask for it.  A warp's lanes
go together for accesses of up to 4 bytes, by halves for 8 and by quarters for 16 bytes.  An atomic
serves one lane of a word after the other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
BANKS = 32
ABSENT = -1 << 30  # instead of a word, for a lane that is not there


def parts(size: int) -> int:
    """The groups in which the lanes of a warp go, for accesses of so many bytes."""
    return min(max(size // 4, 1), 4)


def groups(active: Array | None, warps: int, size: int) -> int:
    """How many groups of lanes have one that is there: the passes without any conflict.

    `active` are the lanes of some of the warps, (w, 32); the others repeat them.
    """
    n = parts(size)
    if active is None:
        return warps * n
    there = active.reshape(-1, BANKS // n).any(axis=1)
    return int(np.count_nonzero(there)) * (warps // len(active))


def wavefronts(rows: Array, size: int, active: Array | None = None, atomic: bool = False) -> int:
    """The passes of warps, from their lanes' byte offsets (warps, 32), added up.

    `active` says which lanes are there, (w, 32) for warps in groups of w; None: all.
    """
    words = rows >> 2
    relative = words - words[:, :1]
    if active is not None:
        relative = np.where(np.broadcast_to(active, (len(rows) // len(active), *active.shape)
                                            ).reshape(relative.shape), relative, ABSENT)
    if (relative == relative[0]).all():
        return len(rows) * _pattern(relative[0].tobytes(), size, atomic)
    return _passes(relative, size, atomic)


@lru_cache(maxsize=1 << 14)
def _pattern(relative: bytes, size: int, atomic: bool) -> int:
    """The passes of one warp: they stay the same where all words move, for the banks turn with
    them."""
    return _passes(np.frombuffer(relative, np.int64)[None], size, atomic)


def _passes(words: Array, size: int, atomic: bool) -> int:
    """The passes of warps whose lanes' first words are given: the fullest bank of each group."""
    words = words.astype(np.int32).reshape(-1, BANKS // parts(size))
    there = words != ABSENT
    if not atomic:  # a word that several lanes ask for counts once
        words = np.sort(words, axis=1)
        there = words != ABSENT
        there[:, 1:] &= words[:, 1:] != words[:, :-1]
    rows = np.arange(len(words))[:, None] * BANKS
    asked = np.bincount((rows + (words & (BANKS - 1)))[there], minlength=len(words) * BANKS)
    return int(asked.reshape(-1, BANKS).max(axis=1).sum())
