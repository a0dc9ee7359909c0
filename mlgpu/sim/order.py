"""Happens-before: up to which event each thread knows what each other thread has done.

Every memory access is an event, numbered in the order in which the simulation makes them.  Thread s
knows thread u up to event e if synchronisation orders all of u's events to e before what s does
now.  Three kinds of knowledge, from the common to the rare:

- A barrier of the whole block and `__syncwarp` of a whole warp: one number per block and per warp.
- Barriers of some warps, partial masks, mbarriers: a table of what each thread knows of each warp,
  made when the first such synchronisation comes.
- Flags (flags.py): searched only when two accesses would else be a race.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.flags import Flags, Publication, Word
from mlgpu.sim.group import WARP, Grid, Group

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]


class Order:
    """What the threads of a batch know."""

    def __init__(self, x: Batch, published: dict[Word, Publication]) -> None:
        self.x = x
        self.events = x.launch.events
        b, n = x.shape.blocks, x.shape.threads
        self.start = len(self.events) - 1
        self.block_time = np.full((1, 1), self.start, np.int64)
        self.warp_time = np.full((1, x.shape.warps), self.start, np.int64)
        self.floor = self.start  # all threads of the batch know all of their block up to here
        self.lane_time: Array | None = None  # (B, N, 32): of each lane of the own warp
        # (B, N, 2 W): of each warp of the block, then of the twins (copies.py) of each
        self.table: Array | None = None
        self.at_barrier: dict[int, Array] = {}  # name -> (B, 2 W): what those who came bring
        self.extent = b, n
        self.flags = Flags(self, published)

    @property
    def now(self) -> int:
        """The number of the latest event."""
        return len(self.events) - 1

    def tick(self) -> int:
        """A new event that is no access, so that what is learnt now is behind the barriers before
        it."""
        self.events.append(self.events[-1])
        return self.now

    # -- asking -----------------------------------------------------------------------------------

    def known(self, block: Array, thread: Array, other: Array) -> Array:
        """Up to which event `thread` knows `other` of the same block."""
        twin = other >= self.extent[1]  # of an asynchronous copy: no barrier orders it
        if twin.any():
            other = np.where(twin, other - self.extent[1], other)
        time = self.block_time[0, 0] if len(self.block_time) == 1 else self.block_time[block, 0]
        warp, others = thread // WARP, other // WARP
        of_warp = (self.warp_time[0, warp] if len(self.warp_time) == 1
                   else self.warp_time[block, warp])
        result: Array = np.maximum(time, np.where(warp == others, of_warp, 0))
        if self.lane_time is not None:
            lane = self.lane_time[block, thread, other % WARP]
            result = np.maximum(result, np.where(warp == others, lane, 0))
        if self.table is not None:
            result = np.maximum(result, self.table[block, thread, others])
        twins = 0 if self.table is None else self.table[block, thread, others + self.x.shape.warps]
        return np.where(twin, twins, result)

    def ordered(self, block: Array, thread: Array, other_block: Array, other: Array,
                event: Array, fenced: bool = True) -> Array:
        """For pairs of threads (flat arrays; `block` in the batch, `other_block` in the grid):
        whether the other's event comes before what the thread does now.  Not fenced: what it does
        is a strong access, to which flags read without a fence count as well."""
        mine = other_block == block + self.x.first
        result = np.zeros(len(thread), bool)
        if mine.any():
            result[mine] = self.known(block[mine], thread[mine], other[mine]) >= event[mine]
        if result.all() or not self.flags.any:
            return result
        for b in np.unique(block[~result]):
            there = np.flatnonzero(~result & (block == b))
            result[there] = self.flags.ordered(int(b), thread[there], other_block[there],
                                               other[there], event[there], fenced)
        return result

    # -- barriers ---------------------------------------------------------------------------------

    def block(self, g: Grid) -> None:
        """All threads of the group's blocks have met."""
        self.flags.settle(g, inner=True)
        self.flags.barrier(g.blk[:, 0].tolist())
        now = self.now
        if g.rows is None:
            self.block_time = np.full((1, 1), now, np.int64)
            self.floor = now
        else:
            self._block_rows(g.rows, now)

    def _block_rows(self, rows: Array, now: int) -> None:
        times = np.broadcast_to(self.block_time, (self.extent[0], 1)).copy()
        times[rows] = now
        self.block_time = times
        self.floor = int(times.min())

    def warp(self, g: Group, mask: Array) -> None:
        """Lanes of warps have met (`__syncwarp`)."""
        self.flags.settle(g, inner=True)
        now = self.now
        if mask.size > 1 and (mask == mask.ravel()[0]).all():
            mask = mask[:1, :1]
        whole = g.lanes.full and mask.size == 1 and int(mask[0, 0]) == 0xFFFFFFFF
        if not whole and mask.size == 1 and g.lanes.active is not None:
            # the tail of a block whose size is no multiple of 32 is a whole warp, too
            exists = self.x._existing(g)
            there = (g.lanes.active * (np.uint32(1) << np.arange(WARP, dtype=np.uint32))).sum(
                axis=1, dtype=np.uint32)[None, :, None]
            whole = bool(((there == exists) & ((mask[0, 0] & exists) == exists)).all())
        if whole and isinstance(g, Grid):
            rows, warps = g.rows, g.lanes.warp
            if rows is None:
                times = self.warp_time.copy()
                times[:, warps] = now
            else:
                times = np.broadcast_to(self.warp_time, (self.extent[0],
                                                         self.warp_time.shape[1])).copy()
                times[rows[:, None], warps] = now
            self.warp_time = times
            if self.table is not None:
                self._join_warps(g)
            return
        self._partial(g, mask, now)

    def _partial(self, g: Group, mask: Array, now: int) -> None:
        """Lanes of a mask know each other, and all that one of them knew of the warp."""
        b, n = self.extent
        if self.lane_time is None:
            self.lane_time = np.zeros((b, n, WARP), np.int64)
        blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
        masks = np.broadcast_to(mask, g.shape).ravel()
        bits = (masks[:, None] >> np.arange(WARP, dtype=np.uint32) & 1).astype(bool)
        rows = self.lane_time[blk, tid]
        # join the rows of all lanes with the same warp and mask
        key = (blk * self.x.shape.warps + tid // WARP) * (1 << 32) + masks
        _, inverse = np.unique(key, return_inverse=True)
        inverse = inverse.reshape(-1)
        joined = np.zeros((int(inverse.max()) + 1, WARP), np.int64)
        np.maximum.at(joined, inverse, rows)
        self.lane_time[blk, tid] = np.where(bits, now, np.maximum(joined[inverse], rows))
        if self.table is not None:
            tables = self.table[blk, tid]
            top = np.zeros((len(joined), tables.shape[1]), np.int64)
            np.maximum.at(top, inverse, tables)
            self.table[blk, tid] = top[inverse]

    def _join_warps(self, g: Group) -> None:
        assert self.table is not None
        blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
        key = blk * self.x.shape.warps + tid // WARP
        _, inverse = np.unique(key, return_inverse=True)
        inverse = inverse.reshape(-1)
        top = np.zeros((int(inverse.max()) + 1, self.table.shape[2]), np.int64)
        np.maximum.at(top, inverse, self.table[blk, tid])
        self.table[blk, tid] = top[inverse]

    def rows_of(self, blk: Array, tid: Array) -> Array:
        """What threads know of each warp of their block and of its twins, (K, 2 W)."""
        w = self.x.shape.warps
        rows = np.zeros((len(tid), 2 * w), np.int64)
        rows[:, :w] = self.block_time if len(self.block_time) == 1 else self.block_time[blk]
        own = tid // WARP
        of_warp = (self.warp_time[0, own] if len(self.warp_time) == 1
                   else self.warp_time[blk, own])
        at = np.arange(len(tid))
        rows[at, own] = np.maximum(rows[at, own], of_warp)
        if self.table is not None:
            rows = np.maximum(rows, self.table[blk, tid])
        return rows

    def lanes_of(self, b: int, t: int, event: int) -> Array | None:
        """What a thread knows of the lanes of its warp, up to an event, where they differ."""
        if self.lane_time is None:
            return None
        return np.asarray(np.minimum(self.lane_time[b, t], event))

    def arrive(self, name: int, g: Group) -> None:
        """Threads come to a barrier with what they know."""
        if name not in self.at_barrier:
            self.at_barrier[name] = np.zeros((self.extent[0], 2 * self.x.shape.warps), np.int64)
        self.bring(self.at_barrier[name], g)

    def bring(self, brought: Array, g: Group) -> None:
        """Join what whole warps know into (B, 2 W)."""
        self.flags.settle(g, inner=True)
        blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
        rows = self.rows_of(blk, tid)
        rows[np.arange(len(tid)), tid // WARP] = self.now
        np.maximum.at(brought, blk, rows)

    def release(self, name: int, g: Group | None, done: Array, expect: Array) -> None:
        """The barrier's threads go on with what all brought."""
        now = self.now
        whole = np.flatnonzero(done & (expect == 0))
        if len(whole):
            self._block_rows(whole, now)
            self.flags.barrier(whole.tolist())
        brought = self.at_barrier.get(name)
        if brought is None:
            return
        if g is not None and (done & (expect > 0)).any():
            self.take(brought, g)
        brought[done] = 0

    def take(self, brought: Array, g: Group) -> None:
        """The group's threads learn (B, 2 W)."""
        if self.table is None:
            self.table = np.zeros((*self.extent, 2 * self.x.shape.warps), np.int64)
        blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
        self.table[blk, tid] = np.maximum(self.table[blk, tid], brought[blk])

