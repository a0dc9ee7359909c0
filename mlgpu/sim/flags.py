"""Flags: what threads publish with a word, and who has acquired it.

A thread that passes a fence and then writes a word publishes what it knows with that word; a thread
that reads the word and then passes a fence has acquired it (the release and acquire patterns of the
PTX memory model).  A barrier orders the block's threads, and is a fence within the block; it is
none for other blocks: what one thread has read of them, all behind the barrier may acquire, but
each needs a fence.  Publications are kept as they are, and searched only when two accesses would
else be a race.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.group import WARP, Group

if TYPE_CHECKING:
    from mlgpu.sim.order import Order

Array = np.ndarray[Any, Any]
Word = tuple[int, int]  # (block or -1 for global memory, address)


@dataclass(eq=False, slots=True)
class Publication:
    """What one thread knew when it published, with the publications it follows on the same word."""

    block: int  # in the grid
    thread: int
    event: int  # its own doings up to here
    row: Array  # (2 W,): of each warp of its block, and of its twins
    flags: Flags
    before: Publication | None  # a read-modify-write continues the sequence it reads from
    inner: bool  # released to the block only
    word: Word
    lanes: Array | None = None  # (32,): of each lane of its warp, where that differs

    def covers(self, block: Array | int, thread: Array, event: Array) -> Array:
        """Which events of threads come before this publication, by what its thread knew."""
        n = self.flags.order.extent[1]
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
    """A publication that some threads of a block have read or acquired, and since when."""

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
    """Publications that the threads of one block have read or acquired."""

    def __init__(self) -> None:
        self.recent: dict[tuple[Word, bytes], list[Acquisition]] = {}  # since the last barrier
        self.settled: dict[tuple[Word, int, int], list[Acquisition]] = {}  # known to the block

    def __bool__(self) -> bool:
        return bool(self.recent or self.settled)

    def __iter__(self) -> Iterator[Acquisition]:
        for entries in (*self.settled.values(), *self.recent.values()):
            yield from entries

    def add(self, threads: Array, event: int, node: Publication) -> None:
        """Some threads have it now."""
        entries = self.recent.setdefault((node.word, threads.tobytes()), [])
        if any(entry.node is node for entry in entries):
            return
        entries.append(Acquisition(threads, event, node))
        del entries[:-KEPT]

    def settle(self, event: int) -> set[Publication]:
        """A barrier of the whole block: what one thread has, all have."""
        nodes = {entry.node for entries in self.recent.values() for entry in entries}
        for node in sorted(nodes, key=lambda node: node.event):
            kept = self.settled.setdefault((node.word, node.block, node.thread), [])
            if not kept or kept[-1].node is not node:
                kept.append(Acquisition(None, event, node))
                del kept[:-KEPT]
        self.recent.clear()
        return nodes

    def forget(self, nodes: set[Publication]) -> None:
        """Drop publications that the whole block has acquired."""
        for key, entries in list(self.recent.items()):
            entries[:] = [entry for entry in entries if entry.node not in nodes]
            if not entries:
                del self.recent[key]


class Flags:
    """What the threads of a batch publish, read and acquire."""

    def __init__(self, order: Order, published: dict[Word, Publication]) -> None:
        self.order = order
        self.words = published  # by all batches of the launch
        blocks = order.extent[0]
        self.fence_gpu: Array | None = None  # (B, N): the event of the last fence
        self.fence_cta: Array | None = None
        self.read = [Acquired() for _ in range(blocks)]  # but maybe not fenced
        self.acquired = [Acquired() for _ in range(blocks)]
        self.any = False

    def ordered(self, b: int, thread: Array, other_block: Array, other: Array, event: Array,
                fenced: bool) -> Array:
        """For pairs of threads, the first of block `b` of the batch: whether what they acquired
        (unless `fenced`: or have only read) puts the other's event before what they do now."""
        entries = sorted((*self.acquired[b], *(() if fenced else self.read[b])),
                         key=lambda entry: -entry.event)
        result = np.zeros(len(thread), bool)
        here = b + self.order.x.first
        for entry in entries:  # most often one of them says it at once
            if entry.node.inner and entry.node.block != here:
                continue
            at = np.flatnonzero(~result & entry.node.covers(other_block, other, event))
            if len(at):
                result[at] = self._sees(b, thread[at], entry)
                if result.all():
                    return result
        if not entries:
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
                result[at] = _reaches(start, here, int(target), other[at], event[at])
        return result

    def _sees(self, b: int, thread: Array, entry: Acquisition) -> Array:
        """Whether threads of a block know of it."""
        if entry.threads is None:
            return np.ones(len(thread), bool)
        result = np.isin(thread, entry.threads)
        rest, which = np.unique(thread[~result], return_inverse=True)
        if len(rest):
            known = self.order.known(np.full((1, 1), b), rest[:, None], entry.threads[None])
            result[~result] = np.any(known >= entry.event, axis=1)[which.reshape(-1)]
        return result

    def fence(self, g: Group, inner: bool) -> None:
        """A fence: what comes before it may be published, what was read counts now."""
        self.settle(g, inner)
        if self.fence_cta is None or self.fence_gpu is None:
            self.fence_cta = np.full(self.order.extent, -1, np.int64)
            self.fence_gpu = np.full(self.order.extent, -1, np.int64)
        self.fence_cta[g.blk, g.tid] = self.order.now
        if not inner:
            self.fence_gpu[g.blk, g.tid] = self.order.now

    def settle(self, g: Group, inner: bool) -> None:
        """The group's threads acquire the publications that they know to be read.

        A fence of the block (inner), as every barrier is one, settles what the block has published.
        """
        if not self.any:
            return
        for b in np.unique(g.blk).tolist():
            entries = [entry for entry in self.read[b]
                       if not inner or entry.node.block == b + self.order.x.first]
            if not entries:
                continue
            blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
            threads = np.sort(tid[blk == b])
            event = self.order.tick()
            for entry in entries:
                sees = self._sees(b, threads, entry)
                if sees.any():
                    self.acquired[b].add(threads[sees], event, entry.node)

    def barrier(self, blocks: list[int]) -> None:
        """All threads of blocks have met."""
        if self.any:
            for b in blocks:
                self.read[b].forget(self.acquired[b].settle(self.order.now))

    def acquire(self, b: int, threads: Array, node: Publication) -> None:
        """Threads of a block have acquired a publication."""
        self.acquired[b].add(threads, self.order.tick(), node)
        self.any = True

    def word(self, g: Group, space: str, address: Array, access: str, acquire: bool,
             release: bool, scope: str) -> None:
        """Strong accesses of words: reads collect what was published, writes publish."""
        words, first = self.words, self.order.x.first
        if not words and not release and (access == "read" or self.fence_cta is None):
            return
        blk, tid, at = (np.broadcast_to(a, g.shape).ravel().tolist()
                        for a in (g.blk, g.tid, address))
        found: dict[tuple[int, Publication], list[int]] = {}
        for b, t, a in zip(blk, tid, at, strict=True):
            key = (b + first if space == "shared" else -1, a)
            node = words.get(key)
            if node is not None and access != "write" and self._reaches_me(node, b):
                found.setdefault((b, node), []).append(t)
            if access != "read":
                event, inner = self._released(b, t, release, "cta" if key[0] >= 0 else scope)
                if event >= 0:
                    words[key] = self._publication(
                        b, t, event, node if access == "atomic" else None, inner, key)
                elif access == "write" and node is not None:
                    del words[key]
        for (b, node), threads in found.items():
            if acquire and (scope != "cta" or node.block == b + first):
                self.acquire(b, np.unique(threads), node)
            else:
                self.read[b].add(np.unique(threads), self.order.now, node)
                self.any = True

    def _released(self, b: int, t: int, release: bool, scope: str) -> tuple[int, bool]:
        """Up to which of its events (-1: none) a thread's strong write publishes, and whether to
        its block only."""
        if release:
            return self.order.now, scope == "cta"
        if self.fence_cta is None or self.fence_gpu is None:
            return -1, False
        event = -1 if scope == "cta" else int(self.fence_gpu[b, t])
        return (event, False) if event >= 0 else (int(self.fence_cta[b, t]), True)

    def _publication(self, b: int, t: int, event: int, before: Publication | None, inner: bool,
                     word: Word) -> Publication:
        known = self.order.rows_of(np.array([b]), np.array([t]))[0]
        row = np.minimum(known, event)
        fences = self.fence_cta if inner else self.fence_gpu
        if fences is not None and event < self.order.now:
            # Behind the barrier of a block whose warps have all fenced what they did before it, one
            # thread may publish for all.
            lanes = np.pad(fences[b], (0, -len(fences[b]) % WARP), mode="edge").reshape(-1, WARP)
            row[:len(lanes)] = np.maximum(row[:len(lanes)], np.minimum(
                known[:len(lanes)], lanes.min(axis=1)))
        return Publication(b + self.order.x.first, t, event, row, self, before, inner, word,
                           self.order.lanes_of(b, t, event))

    def _reaches_me(self, node: Publication, b: int) -> bool:
        return (not node.inner or node.block == b + self.order.x.first
                or node.before is not None)


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
                  for entry in node.flags.acquired[node.block - node.flags.order.x.first]
                  if id(entry.node) not in seen
                  and entry.seen_by(node)]
    return ~left
