"""A simple model of the L2 cache, and the different bytes of global memory that a launch moves.

The cache is empty when the launch begins and has no other work.  It keeps the sectors used last:
one is there if fewer sectors than it holds were brought in since it was touched.  Every access
goes to it (there is no L1 cache), and what is written leaves it once, whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.sim.memory import READ, WRITTEN, Region, blank
from mlgpu.sim.sectors import SECTOR
from mlgpu.sim.site import ATOMIC, STRONG_READ

Array = np.ndarray[Any, Any]
CHUNK = 1 << 15  # words of marks that are looked at together: they fit the processor's cache
EVERY = 0x0101_0101_0101_0101


class L2:
    """What the cache has seen in one launch.

    A region's stamps say of each sector, in the upper bits, how many sectors had been brought in
    when it was touched last (0: never), and in the lowest whether it was written since it came.
    """

    def __init__(self, size: int) -> None:
        self.capacity = size // SECTOR
        self.brought = 0
        self.hits = {"read": 0, "write": 0, "atomic": 0}
        self.read_from_dram = 0  # sectors
        self.written_to_dram = 0

    def add(self, other: L2) -> None:
        """Add the counts of another launch's."""
        for kind, hits in other.hits.items():
            self.hits[kind] += hits
        self.read_from_dram += other.read_from_dram
        self.written_to_dram += other.written_to_dram

    def look_up(self, region: Region, sectors: Array, times: int, access: str,
                reads: bool = True) -> None:
        """Look up the sectors of a region, all of them so many times.

        Atomics read and write; a write may be one that does not read."""
        if region.stamps is None:
            region.stamps = blank(-(-len(region.data) // SECTOR), region.sparse)
        stamps = region.stamps
        seen = stamps[sectors]
        there = seen > 2 * max(self.brought - self.capacity + 1, 0) + 1
        known = int(np.count_nonzero(there))
        missing = 0
        if known < len(sectors):
            missing = _different(stamps, sectors if known == 0 else sectors[~there])
        self.hits[access] += len(sectors) * times - missing
        if reads:
            self.read_from_dram += missing
        self.brought += missing
        now = 2 * (self.brought + 1)
        if access != "read":
            clean = ~there | (seen & 1 == 0)
            if known == 0:
                self.written_to_dram += missing
            elif clean.any():
                self.written_to_dram += _different(stamps, sectors[clean])
            stamps[sectors] = now | 1
        elif known:
            stamps[sectors] = np.where(there, now | (seen & 1), now)
        else:
            stamps[sectors] = now


def _different(stamps: Array, sectors: Array) -> int:
    """How many different sectors there are; their stamps are lost."""
    numbers = np.arange(len(sectors))
    stamps[sectors] = numbers
    return int(np.count_nonzero(stamps[sectors] == numbers))


def unique_bytes(region: Region) -> tuple[int, int]:
    """How many bytes of a region carry marks of reading, and of writing."""
    marks = region.marks[region.reached()].view(np.uint64)
    read = written = 0
    for start in range(0, len(marks), CHUNK):
        part = marks[start:start + CHUNK]
        some = int(np.bitwise_or.reduce(part))
        every = int(np.bitwise_and.reduce(part))
        read += _marked(part, some, every, READ, STRONG_READ)
        written += _marked(part, some, every, WRITTEN, ATOMIC)
    return read, written


def _marked(part: Array, some: int, every: int, first: int, second: int) -> int:
    """The bytes that carry one of two marks, given the marks that some and all words carry."""
    a, b = first.bit_length() - 1, second.bit_length() - 1
    if not (some >> a | some >> b) & EVERY:
        return 0
    if (every >> a | every >> b) & EVERY == EVERY:
        return 8 * len(part)
    one = np.uint64(EVERY)
    marked = (part >> np.uint64(a) | part >> np.uint64(b)) & one
    return int(np.bitwise_count(marked).sum(dtype=np.int64))
