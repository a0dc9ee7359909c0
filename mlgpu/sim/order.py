"""Happens-before: up to which event each thread knows what each other thread has done.

Every memory access is an event, numbered in the order in which the simulation makes them.  Thread s
knows thread u up to event e if synchronisation orders all of u's events to e before what s does
now.  Three kinds of knowledge, from the common to the rare:

- A barrier of the whole block and `__syncwarp` of a whole warp: one number per block and per warp.
- Barriers of some warps, partial masks, mbarriers: a table of what each thread knows of each warp,
  made when the first such synchronisation comes.
- Flags: a thread that passes a fence and then writes a word publishes what it knows with that word;
  a thread that reads the word and then passes a fence or barrier has acquired it (the release and
  acquire patterns of the PTX memory model).  Publications are kept as they are, and searched only
  when two accesses would else be a race.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.group import WARP, Grid, Group

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
Word = tuple[int, int]  # (block or -1 for global memory, address)


@dataclass(eq=False, slots=True)
class Publication:
    """What one thread knew when it published, with the publications it follows on the same word."""

    block: int  # in the grid
    thread: int
    event: int  # its own doings up to here
    row: Array  # (2 W,): of each warp of its block, and of its twins
    order: Order
    before: Publication | None  # a read-modify-write continues the sequence it reads from
    inner: bool  # released to the block only
    word: Word
    lanes: Array | None = None  # (32,): of each lane of its warp, where that differs

    def covers(self, block: Array | int, thread: Array, event: Array) -> Array:
        """Which events of threads come before this publication, by what its thread knew."""
        n = self.order.extent[1]
        real = thread < n
        warp = np.where(real, thread, thread - n) // WARP
        known = (self.row[np.where(real, warp, warp + len(self.row) // 2)] >= event) | (
            (thread == self.thread) & (event <= self.event))
        if self.lanes is not None:
            known |= real & (warp == self.thread // WARP) & (self.lanes[thread % WARP] >= event)
        result: Array = (self.block == block) & known
        return result


@dataclass(eq=False, slots=True)
class Acquisition:
    """Publications that some threads of a block have acquired, and since when."""

    threads: Array | None  # sorted; None: all of the block
    event: int
    node: Publication

    def seen_by(self, node: Publication) -> bool:
        """Whether a thread of the block had it when it published."""
        if self.threads is None:
            return self.event <= node.event
        return bool(node.covers(node.block, self.threads, np.array(self.event)).any())


KEPT = 8  # acquisitions of one word by the same threads: older ones are behind what is awaited now


class Acquired:
    """What the threads of one block have acquired."""

    def __init__(self) -> None:
        self.recent: dict[tuple[Word, bytes], list[Acquisition]] = {}  # since the last barrier
        self.settled: dict[tuple[Word, int, int], list[Acquisition]] = {}  # known to the block

    def __bool__(self) -> bool:
        return bool(self.recent or self.settled)

    def __iter__(self) -> Iterator[Acquisition]:
        for entries in (*self.settled.values(), *self.recent.values()):
            yield from entries

    def add(self, threads: Array, event: int, node: Publication) -> None:
        """Some threads have acquired a publication."""
        entries = self.recent.setdefault((node.word, threads.tobytes()), [])
        if entries and entries[-1].node is node:
            return
        entries.append(Acquisition(threads, event, node))
        del entries[:-KEPT]

    def settle(self, event: int) -> None:
        """A barrier of the whole block: what one thread has acquired, all have."""
        for entries in self.recent.values():
            for entry in entries:
                node = entry.node
                kept = self.settled.setdefault((node.word, node.block, node.thread), [])
                if not kept or kept[-1].node is not node:
                    kept.append(Acquisition(None, event, node))
                    del kept[:-KEPT]
        self.recent.clear()


@dataclass(slots=True)
class Flags:
    """The publications of a launch, by word; shared by its batches."""

    words: dict[Word, Publication] = field(default_factory=dict)


class Order:
    """What the threads of a batch know."""

    def __init__(self, x: Batch, flags: Flags) -> None:
        self.x = x
        self.flags = flags
        self.events = x.launch.events
        b, n = x.shape.blocks, x.shape.threads
        self.start = len(self.events) - 1
        self.block_time = np.full((1, 1), self.start, np.int64)
        self.warp_time = np.full((1, x.shape.warps), self.start, np.int64)
        self.floor = self.start  # all threads of the batch know all of their block up to here
        self.lane_time: Array | None = None  # (B, N, 32): of each lane of the own warp
        # (B, N, 2 W): of each warp of the block, then of the twins (copies.py) of each
        self.table: Array | None = None
        self.fence_gpu: Array | None = None  # (B, N): the event of the last fence
        self.fence_cta: Array | None = None
        self.pending: dict[tuple[int, int], list[Publication]] = {}  # read, no fence yet
        self.acquired = [Acquired() for _ in range(b)]
        self.any_acquired = False
        self.at_barrier: dict[int, Array] = {}  # name -> (B, 2 W): what those who came bring
        self.extent = b, n

    @property
    def now(self) -> int:
        """The number of the latest event."""
        return len(self.events) - 1

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
                event: Array) -> Array:
        """For pairs of threads (flat arrays; `block` in the batch, `other_block` in the grid):
        whether the other's event comes before what the thread does now."""
        mine = other_block == block + self.x.first
        result = np.zeros(len(thread), bool)
        if mine.any():
            result[mine] = self.known(block[mine], thread[mine], other[mine]) >= event[mine]
        if result.all() or not self.any_acquired:
            return result
        for b in np.unique(block[~result]):
            if self.acquired[b]:
                there = np.flatnonzero(~result & (block == b))
                result[there] = self._by_flags(int(b), thread[there], other_block[there],
                                               other[there], event[there])
        return result

    def _by_flags(self, b: int, thread: Array, other_block: Array, other: Array,
                  event: Array) -> Array:
        entries = sorted(self.acquired[b], key=lambda entry: -entry.event)
        result = np.zeros(len(thread), bool)
        for entry in entries:  # most often one of them says it at once
            if entry.node.inner and entry.node.block != b + self.x.first:
                continue
            at = np.flatnonzero(~result & entry.node.covers(other_block, other, event))
            if len(at):
                result[at] = self._sees(b, thread[at], entry)
                if result.all():
                    return result
        left = np.flatnonzero(~result)
        threads, which = np.unique(thread[left], return_inverse=True)
        sees = np.stack([self._sees(b, threads, entry) for entry in entries], axis=1)
        patterns, pattern = np.unique(sees, axis=0, return_inverse=True)
        pattern = pattern.reshape(-1)[which.reshape(-1)]
        for k, entries_seen in enumerate(patterns):
            start = [entries[i].node for i in np.flatnonzero(entries_seen)]
            for target in np.unique(other_block[left][pattern == k]):
                at = left[(pattern == k) & (other_block[left] == target)]
                result[at] = _reaches(start, b + self.x.first, int(target), other[at], event[at])
        return result

    def _sees(self, b: int, thread: Array, entry: Acquisition) -> Array:
        """Whether threads of a block have an acquisition of it."""
        if entry.threads is None:
            return np.ones(len(thread), bool)
        result = np.isin(thread, entry.threads)
        rest, which = np.unique(thread[~result], return_inverse=True)
        if len(rest):
            known = self.known(np.full((1, 1), b), rest[:, None], entry.threads[None])
            result[~result] = np.any(known >= entry.event, axis=1)[which.reshape(-1)]
        return result

    # -- barriers ---------------------------------------------------------------------------------

    def block(self, g: Grid) -> None:
        """All threads of the group's blocks have met."""
        self._settle(g)
        now = self.now
        if self.any_acquired:
            for b in g.blk[:, 0].tolist():
                self.acquired[b].settle(now)
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
        self._settle(g)
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
        self._settle(g)
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
            if self.any_acquired:
                for b in whole.tolist():
                    self.acquired[b].settle(now)
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

    # -- fences and flags -------------------------------------------------------------------------

    def fence(self, g: Group, inner: bool) -> None:
        """A fence: what comes before it may be published, what was read counts now."""
        self._settle(g, inner)
        if self.fence_cta is None:
            self.fence_cta = np.full(self.extent, -1, np.int64)
            self.fence_gpu = np.full(self.extent, -1, np.int64)
        assert self.fence_gpu is not None
        self.fence_cta[g.blk, g.tid] = self.now
        if not inner:
            self.fence_gpu[g.blk, g.tid] = self.now

    def _settle(self, g: Group, inner: bool = False) -> None:
        """The publications that the group's threads have read are acquired.

        A fence of the block (inner) settles only what their own block has published.
        """
        if not self.pending:
            return
        now = self.now
        blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
        for b, t in zip(blk.tolist(), tid.tolist(), strict=True):
            nodes = self.pending.pop((b, t), [])
            left = [n for n in nodes if inner and n.block != b + self.x.first]
            if left:
                self.pending[b, t] = left
            for node in nodes:
                if node not in left:
                    self.acquire(b, np.array([t]), node, now)

    def acquire(self, b: int, threads: Array, node: Publication, now: int) -> None:
        """Threads of a block have acquired a publication."""
        self.acquired[b].add(threads, now, node)
        self.any_acquired = True

    def word(self, g: Group, space: str, address: Array, access: str, acquire: bool,
             release: bool, scope: str) -> None:
        """Strong accesses of words: reads collect what was published, writes publish."""
        words = self.flags.words
        fences = self.fence_cta
        if not words and not release and (access == "read" or fences is None):
            return
        now = self.now
        blk, tid, at = (np.broadcast_to(a, g.shape).ravel().tolist()
                        for a in (g.blk, g.tid, address))
        for b, t, a in zip(blk, tid, at, strict=True):
            key = (b + self.x.first if space == "shared" else -1, a)
            node = words.get(key)
            if node is not None and access != "write" and self._reaches_me(node, b):
                if acquire and (scope != "cta" or node.block == b + self.x.first):
                    self.acquire(b, np.array([t]), node, now)
                else:
                    self.pending.setdefault((b, t), []).append(node)
            if access == "read":
                continue
            inner = scope == "cta"
            event = now if release else -1
            if not release and fences is not None and self.fence_gpu is not None:
                event = int(self.fence_gpu[b, t])
                if event < 0:
                    event, inner = int(fences[b, t]), True
            if event >= 0:
                row = np.minimum(self.rows_of(np.array([b]), np.array([t]))[0], event)
                words[key] = Publication(b + self.x.first, t, event, row, self,
                                         node if access == "atomic" else None, inner, key,
                                         self.lanes_of(b, t, event))
            elif access == "write" and node is not None:
                del words[key]

    def _reaches_me(self, node: Publication, b: int) -> bool:
        return not node.inner or node.block == b + self.x.first or node.before is not None


def _reaches(start: list[Publication], from_block: int, target: int, thread: Array,
             event: Array) -> Array:
    """Which (thread, event) of a block some publication reachable from `start` covers."""
    left = np.ones(len(thread), bool)
    seen: set[int] = set()
    chains = list(start)
    while chains:
        found: list[Publication] = []  # whose own acquisitions come next
        for first in chains:
            node: Publication | None = first
            while node is not None and id(node) not in seen:
                seen.add(id(node))
                if not node.inner or node.block == from_block:
                    found.append(node)
                    if node.block == target:
                        left &= ~node.covers(target, thread, event)
                        if not left.any():
                            return ~left
                node = node.before
        chains = [entry.node for node in found
                  for entry in node.order.acquired[node.block - node.order.x.first]
                  if id(entry.node) not in seen
                  and entry.seen_by(node)]
    return ~left
