"""A block's barriers: who has come, who waits, and what is wrong when a block parts at one.

The aligned forms (`bar.sync`, so `__syncthreads()`) take whole warps: lanes that come alone are
held until the others of their warp are there.  That a part of a block runs past a barrier at which
the rest waits shows when it is about to execute something that lies behind the barrier.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.group import WARP, Grid, Group, merge
from mlgpu.sim.ptx.syntax import Location

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
Ways = tuple[tuple[int, Group], ...]


class Barrier:
    """One of the sixteen barriers, for all blocks of the batch."""

    def __init__(self, blocks: int) -> None:
        self.arrived = np.zeros(blocks, np.int64)  # threads
        self.counted = np.zeros(blocks, np.int64)  # threads, as a counted barrier sees them
        self.expect = np.zeros(blocks, np.int64)  # 0: every thread of the block
        self.waiting: list[Waiting] = []


@dataclass(slots=True)
class Waiting:
    """Threads that wait at a barrier."""

    group: Group
    target: int  # the segment they go on with
    segment: int  # the one that ends with the barrier
    where: Location
    strict: bool  # every thread of the block must come here

    def shares(self, g: Group) -> bool:
        """Whether a block has threads in both groups."""
        return bool(np.isin(self.group.blk, g.blk).any())


@dataclass(frozen=True, slots=True)
class Call:
    """A barrier instruction as executed: which barrier, how many threads, what follows."""

    segment: int
    name: int
    expect: int | None
    target: int | None
    aligned: bool
    waits: bool  # False: it only arrives


class Barriers:
    """The barriers of a batch."""

    def __init__(self, x: Batch) -> None:
        self.x = x
        self.shape = x.shape
        self.states: dict[int, Barrier] = {}
        self.held: dict[Call, Group] = {}  # lanes that wait for their warp
        self.votes: Array | None = None  # (B, N): the predicates that threads have brought
        # barrier -> (2, B): of how many threads it was true, of how many that met
        self.counts: dict[int, Array] = {}

    def anyone(self) -> bool:
        """Whether threads wait."""
        return bool(self.held) or any(b.waiting for b in self.states.values())

    def come(self, g: Group, number: Array, count: Array | None, segment: int,
             target: int | None, aligned: bool, waits: bool = True,
             vote: Array | None = None) -> Ways:
        """Arrive at a barrier, and wait there unless it is only an arrival."""
        where = self.x.code.segments[segment].end_at
        if vote is not None:
            if self.votes is None:
                self.votes = np.zeros((self.shape.blocks, self.shape.threads), bool)
            self.votes[g.blk, g.tid] = vote
        if number.size > 1 and (number != number.ravel()[0]).any():
            ways: list[tuple[int, Group]] = []
            for value in np.unique(number):
                part = g.split(number == value)[0]
                assert part is not None
                ways.extend(self.come(part.group, np.array([[value]]),
                                      None if count is None else part.pick(count), segment, target,
                                      aligned, waits))
            return tuple(ways)
        name = int(number.ravel()[0])
        expect = None if count is None else int(count.ravel()[0])
        if count is not None and ((count != expect).any() or expect is None or expect % WARP
                                  or not 0 < expect <= self.shape.warps * WARP):
            self.x.find("synccheck", "invalid arguments", where,
                        f"a barrier for {expect} threads: it must be one number for all, a "
                        f"multiple of {WARP}, at most the block's {self.shape.threads}", g,
                        stop=True)
        if not 0 <= name < 16:
            self.x.find("synccheck", "invalid arguments", where,
                        f"barrier {name}: there are 16, 0 to 15", g, stop=True)
        call = Call(segment, name, expect, target, aligned, waits)
        return self._come(g, call) if not aligned else self._whole_warps(g, call)

    def _whole_warps(self, g: Group, call: Call) -> Ways:
        """Let those go on whose warp is complete."""
        if call in self.held:
            g = merge(g, self.held.pop(call))
        if g.lanes.full:
            return self._come(g, call)
        missing = np.zeros((self.shape.blocks, self.shape.warps * WARP), bool)
        missing[:, :self.shape.threads] = True if self.x.exited is None else ~self.x.exited
        missing[g.blk, g.tid] = False
        partly: Array = np.any(missing.reshape(-1, WARP), axis=1)
        alone, whole = g.split(partly[g.blk * self.shape.warps + g.tid // WARP])
        if alone is not None:
            self.held[call] = alone.group
        return () if whole is None else self._come(whole.group, call)

    def _come(self, g: Group, call: Call) -> Ways:
        x, name = self.x, call.name
        state = self.states.get(name)
        if (call.expect is None and call.waits and isinstance(g, Grid) and g.cols is None
                and x.exited is None and (state is None or not state.waiting)):
            if x.races is not None:
                x.races.order.block(g)
            assert call.target is not None
            self._count(name, g)
            return ((call.target, g),)
        if state is None:
            state = self.states[name] = Barrier(self.shape.blocks)
        where = x.code.segments[call.segment].end_at
        blocks = np.broadcast_to(g.blk, g.shape).ravel()
        counts = np.bincount(blocks, minlength=self.shape.blocks)
        state.arrived += counts
        # the aligned forms count warps, and a block's last warp as full; the others, threads
        state.counted += self._warps_of(g) * WARP if call.aligned else counts
        if call.expect is not None:
            if ((state.expect > 0) & (state.expect != call.expect) & (counts > 0)).any():
                x.find("synccheck", "invalid arguments", where,
                       f"barrier {name} for {call.expect} threads, but others came to it with "
                       "another number", g, stop=True)
            state.expect[counts > 0] = call.expect
        elif x.synccheck and call.aligned:
            for w in state.waiting:
                if w.segment != call.segment and w.where.line != where.line and w.shares(g):
                    x.find("synccheck", "divergent threads in block", where,
                           f"threads of the block wait at the barrier of line {w.where.line}", g)
                    break
        if x.races is not None:
            x.races.order.arrive(name, g)
        if call.waits:
            assert call.target is not None
            state.waiting.append(Waiting(g, call.target, call.segment, where,
                                         call.aligned and call.expect is None))
        self._release(name)
        return ()

    def _warps_of(self, g: Group) -> Array:
        """How many warps of each block are in the group, (B,)."""
        keys = np.unique(g.lin // self.shape.threads * self.shape.warps
                         + g.lin % self.shape.threads // WARP)
        return np.bincount(keys // self.shape.warps, minlength=self.shape.blocks)

    def _release(self, name: int) -> None:
        """Let go the blocks that are complete at a barrier."""
        x, state = self.x, self.states[name]
        goal = np.where(state.expect > 0, state.expect, x.left)
        have = np.where(state.expect > 0, state.counted, state.arrived)
        done = (state.arrived > 0) & (have >= goal)
        if not done.any():
            return
        kept: list[Waiting] = []
        freed: list[Waiting] = []
        for w in state.waiting:
            for part, these in zip(w.group.split(done[w.group.blk]), (freed, kept), strict=True):
                if part is not None:
                    these.append(Waiting(part.group, w.target, w.segment, w.where, w.strict))
        state.waiting = kept
        together = freed[0].group if freed else None
        for w in freed[1:]:
            assert together is not None
            together = merge(together, w.group)
        if together is not None and x.synccheck and x.exited is not None:
            self._check_exited(together, state, freed[0].where)
        if together is not None:
            self._count(name, together)
        if x.races is not None:
            x.races.order.release(name, together, done, state.expect)
        for w in freed:
            x.go_on(w.target, w.group)
        state.arrived[done] = state.counted[done] = state.expect[done] = 0

    def _count(self, name: int, g: Group) -> None:
        """Those who have met leave, with the result of `bar.red`."""
        if self.votes is None:
            return
        counts = self.counts.setdefault(name, np.zeros((2, self.shape.blocks), np.int64))
        blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
        here = np.unique(blk)
        counts[0, here] = np.bincount(blk, self.votes[blk, tid], self.shape.blocks)[here]
        counts[1, here] = np.bincount(blk, minlength=self.shape.blocks)[here]

    def vote(self, g: Group, mode: str, number: Array) -> Array:
        """The count, conjunction or disjunction of the predicates of a barrier's threads."""
        blk, names = np.broadcast_arrays(g.blk, number)
        true, met = (np.zeros(blk.shape, np.uint32) for _ in range(2))
        for name in np.unique(number).tolist():
            there = names == name
            true[there], met[there] = self.counts[name][:, blk[there]]
        return true if mode == "popc" else np.asarray(true > 0 if mode == "or" else true == met)

    def exited(self) -> None:
        """Threads have exited: warps and blocks in which they were awaited may be complete."""
        for call in list(self.held):
            for way, part in self._whole_warps(self.held.pop(call), call):
                self.x.go_on(way, part)
        for name in self.states:
            self._release(name)

    # -- what is wrong ----------------------------------------------------------------------------

    def _check_exited(self, g: Group, state: Barrier, where: Location) -> None:
        exited = self.x.exited
        assert exited is not None
        blocks = np.unique(g.blk)
        gone = blocks[exited[blocks].any(axis=1) & (state.expect[blocks] == 0)]
        if len(gone):
            bad = g.split(np.isin(g.blk, gone))[0]
            assert bad is not None
            self.x.find("synccheck", "exited threads", where,
                        f"a barrier reached after {int(exited[gone[0]].sum())} of the block's "
                        "threads have exited; every thread must come to it", bad.group)

    def passed_by(self, number: int, g: Group) -> None:
        """The group is about to run a segment: does it lie behind a barrier where others wait?"""
        x = self.x
        if not x.code.segments[number].instructions[:-1]:
            return  # nothing but an exit
        for call, lanes in self.held.items():
            if call.expect is None and number in x.code.after(call.segment):
                warps = np.unique(lanes.blk * self.shape.warps + lanes.tid // WARP)
                if np.isin(g.blk * self.shape.warps + g.tid // WARP, warps).any():
                    x.find("synccheck", "divergent threads in warp",
                           x.code.segments[call.segment].end_at,
                           "a barrier reached by a part of the warp: the other lanes run past "
                           "it; every thread of the block must come to it", lanes, stop=True)
        for state in self.states.values():
            for w in state.waiting:
                if w.strict and number in x.code.after(w.segment) and w.shares(g):
                    x.find("synccheck", "divergent threads in block", w.where,
                           "a barrier reached by a part of the block: other threads run past "
                           "it; every thread of the block must come to it", w.group, stop=True)

    def deadlock(self) -> None:
        """Nothing moves any more: say who waits in vain."""
        x = self.x
        for call, g in self.held.items():
            x.find("synccheck", "divergent threads in warp", x.code.segments[call.segment].end_at,
                   "a barrier reached by a part of the warp: the other lanes wait elsewhere", g,
                   stop=True)
        for name, state in self.states.items():
            for w in state.waiting:
                block = int(w.group.blk[0, 0])
                counted = state.expect[block] > 0
                kind = "deadlock" if counted else "divergent threads in block"
                goal = int(state.expect[block]) if counted else int(x.left[block])
                x.find("synccheck", kind, w.where,
                       f"barrier {name} waits for {goal} threads of the block, but only "
                       f"{int(state.arrived[block])} come; the others wait elsewhere", w.group,
                       stop=True)
