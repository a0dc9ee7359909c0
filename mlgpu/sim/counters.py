"""What a launch did, counted as a profiler counts: exact, and the same however blocks are batched.

Counts are kept per segment, per memory instruction and per guarded instruction, so that every
figure can be traced to a source line; `metrics.py` adds them up under Nsight Compute's names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.access import Site
from mlgpu.sim.group import Group, Part
from mlgpu.sim.memory import Region

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch
    from mlgpu.sim.code import Code

Array = np.ndarray[Any, Any]
SECTOR = 32
BANKS = 32


class Counters:
    """The counts of one launch."""

    def __init__(self, code: Code, l2_bytes: int, enabled: bool = True) -> None:
        n, m = len(code.segments), len(code.sites)
        self.enabled = enabled
        self.warps = [0] * n  # times a warp executed the segment
        self.lanes = [0] * n  # times a thread did
        self.branches = [0] * n  # times a warp came to the conditional branch at its end
        self.divergent = [0] * n  # of these, times its lanes parted
        self.barriers = [0] * n  # times a warp came to the barrier at its end
        self.on = [0] * len(code.guarded)  # times a thread executed with its predicate on
        self.requests = [0] * m  # times a warp executed the access
        self.accesses = [0] * m  # times a thread did
        self.sectors = [0] * m  # of 32 bytes, global and local
        self.wavefronts = [0] * m  # passes through shared memory
        self.ideal = [0] * m  # passes that the bytes asked for would take without conflicts
        self.l2_capacity = l2_bytes // SECTOR
        self.l2_filled = 1  # sectors brought in so far; 0 is for "never"
        self.l2_lookups = {"read": 0, "write": 0, "atomic": 0}
        self.l2_hits = {"read": 0, "write": 0, "atomic": 0}
        self.dram_sectors_read = 0
        self._patterns: dict[tuple[int, bytes], int] = {}

    # -- control --------------------------------------------------------------------------------

    def guard(self, x: Batch, g: Group, number: int, p: Array) -> None:
        """Count the threads whose predicate is on."""
        self.on[number] += int(np.count_nonzero(p)) * (g.size // p.size)

    def branch(self, number: int, g: Group, yes: Part | None, no: Part | None) -> None:
        """A conditional branch: the warps that came, and those whose lanes part."""
        self.branches[number] += g.warps
        if yes is not None and no is not None:
            self.divergent[number] += yes.group.warps + no.group.warps - g.warps

    def barrier(self, number: int, g: Group) -> None:
        """The warps that come to a barrier."""
        self.barriers[number] += g.warps

    # -- memory ---------------------------------------------------------------------------------

    def global_access(self, x: Batch, g: Group, offset: Array, s: Site, region: Region) -> None:
        """Requests, the sectors they touch, and a look-up in the L2 for each."""
        if not self.enabled:
            return
        warps = g.warps
        self.requests[s.number] += warps
        self.accesses[s.number] += g.size
        sectors = g.to_warps(offset) >> 5
        distinct, repeat = distinct_sectors(sectors, warps)
        self.sectors[s.number] += len(distinct) * repeat
        self._l2(distinct, repeat, s, region, x)

    def bulk(self, x: Batch, s: Site, region: Region, at: int, size: int) -> None:
        """A bulk copy: one request, every sector of the range once."""
        self.requests[s.number] += 1
        self.accesses[s.number] += 1
        sectors = np.arange(at // SECTOR, -(-(at + size) // SECTOR))
        self.sectors[s.number] += len(sectors)
        self._l2(sectors, 1, s, region, x)

    def _l2(self, sectors: Array, repeat: int, s: Site, region: Region, x: Batch) -> None:
        """A sector hits if fewer sectors than the L2 holds were brought in since it was touched."""
        if region.stamps is None:
            region.stamps = np.zeros(-(-len(region.data) // SECTOR), np.int64)
            x.touch(region)
        stamps = region.stamps[sectors]
        lookups = len(sectors) * repeat
        fresh = (stamps > 0) & (self.l2_filled - stamps < self.l2_capacity)
        missing = np.unique(sectors[~fresh])  # the first look-up of a sector brings it in
        self.l2_lookups[s.access] += lookups
        self.l2_hits[s.access] += lookups - len(missing)
        if s.access != "write":
            self.dram_sectors_read += len(missing)
        self.l2_filled += len(missing)
        region.stamps[sectors] = self.l2_filled

    def local_access(self, x: Batch, g: Group, offset: Array, s: Site) -> None:
        """Local memory is interleaved by thread, word by word: 32 lanes of a word are 128 bytes."""
        warps = g.warps
        self.requests[s.number] += warps
        self.accesses[s.number] += g.size
        words = np.broadcast_to(g.to_warps(offset >> 2),
                                (*np.broadcast_shapes(g.to_warps(offset).shape, (1, 1, 1))[:2], 32))
        lanes = np.arange(32)
        total = 0
        for k in range(max(s.size // 4, 1)):
            place = (words + k) * 128 + lanes * 4
            distinct, repeat = distinct_sectors(np.sort(place >> 5, axis=-1), warps)
            total += len(distinct) * repeat
        self.sectors[s.number] += total

    def shared_access(self, x: Batch, g: Group, offset: Array, s: Site) -> None:
        """Wavefronts: in one pass every bank gives one word; a word may go to many lanes."""
        if not self.enabled:
            return
        warps = g.warps
        self.requests[s.number] += warps
        self.accesses[s.number] += g.size
        wide = g.to_warps(offset)
        lanes = g.lanes
        repeat = warps // (wide.shape[0] * wide.shape[1])
        parts = max(s.size // 4, 1)  # lanes go in 1, 2 or 4 groups: 32, 16 or 8 at a time
        parts = min(parts, 4)
        if wide.shape[2] == 1:
            n = wide.shape[0] * wide.shape[1] * repeat
            self.wavefronts[s.number] += n
            self.ideal[s.number] += n
            return
        active = lanes.active
        if active is None:
            self.ideal[s.number] += warps * parts
            self.wavefronts[s.number] += self._passes(wide, s.size) * repeat
        else:
            some = active.reshape(len(active), parts, 32 // parts).any(axis=2)
            groups = int(some.sum()) * (warps // len(active))
            self.ideal[s.number] += groups
            self.wavefronts[s.number] += self._passes(wide, s.size, active) * (
                warps // (wide.shape[0] * len(active)))

    def _passes(self, wide: Array, size: int, active: Array | None = None) -> int:
        """The wavefronts of warps' offsets (p, q, 32), added up."""
        rows = wide.reshape(-1, 32)
        relative = (rows >> 2) - (rows[:, :1] >> 2)
        if size < 4:
            relative = (relative << 2) | (rows & 3)  # bytes of one word do not conflict
        if active is None and (relative[:1] == relative).all():
            return self._pattern(relative[0], size) * len(rows)
        if active is not None:
            relative = np.where(np.broadcast_to(active, wide.shape).reshape(-1, 32), relative,
                                np.iinfo(np.int64).min)
        patterns, counts = np.unique(relative, axis=0, return_counts=True)
        return sum(self._pattern(p, size) * int(c) for p, c in zip(patterns, counts))

    def _pattern(self, relative: Array, size: int) -> int:
        """The wavefronts of one warp, from its lanes' words relative to the first's.

        A shift of all words turns the banks round, so the count does not change: patterns repeat,
        and are remembered.
        """
        key = size, relative.tobytes()
        found = self._patterns.get(key)
        if found is None:
            words = relative if size >= 4 else relative >> 2
            there = relative != np.iinfo(np.int64).min
            per = 32 // min(max(size // 4, 1), 4)
            found = 0
            for first in range(0, 32, per):
                w = words[first:first + per][there[first:first + per]]
                if not len(w):
                    continue
                every = np.unique((w[:, None] + np.arange(max(size // 4, 1))).ravel())
                found += int(np.bincount(every % BANKS).max())
            self._patterns[key] = found
        return found


def distinct_sectors(sectors: Array, warps: int) -> tuple[Array, int]:
    """The sectors that each warp touches, once each; and for how many warps every row stands."""
    repeat = warps // (sectors.shape[0] * sectors.shape[1])
    if sectors.shape[2] == 1:
        return sectors.ravel(), repeat
    if (sectors[..., 1:] < sectors[..., :-1]).any():
        sectors = np.sort(sectors, axis=-1)
    changes = sectors[..., 1:] != sectors[..., :-1]
    return np.concatenate((sectors[..., 0].ravel(), sectors[..., 1:][changes])), repeat
