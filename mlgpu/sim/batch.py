"""Running the blocks of a batch: which threads run next, and who waits for whom.

All threads at the lowest segment run together; the rest wait.  Since flow.py numbers segments so
that paths which part meet again at a higher number, divergence heals without any bookkeeping, and
what runs together does not depend on how blocks are batched.  Three things make threads wait
elsewhere: a barrier, a warp instruction whose lanes are not all there yet, and a loop that polls
memory, whose spinners step back until the others have moved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import memory, printf
from mlgpu.sim.access import Site
from mlgpu.sim.copies import Copies
from mlgpu.sim.errors import Allocation, Finding
from mlgpu.sim.group import WARP, Grid, Group, Part, Scatter, Shape, merge
from mlgpu.sim.mbarriers import MBarriers
from mlgpu.sim.memory import PIECES, Region
from mlgpu.sim.ptx.syntax import Location

if TYPE_CHECKING:
    from mlgpu.sim.launch import Launch

Array = np.ndarray[Any, Any]
PATIENCE = 4  # times a polling loop turns without progress before its threads step back
ROUNDS = 24  # rounds of nothing but polling before the batch is stuck


class Stop(Exception):  # noqa: N818  (control flow: the launch ends here)
    """The launch cannot go on after a finding that is collected."""


class Batch:
    """Blocks `first` to `first + count` of a launch, with their registers and shared memory."""

    mark_type = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.uint64}

    def __init__(self, launch: Launch, first: int, count: int) -> None:
        self.launch = launch
        self.code = launch.code
        self.first = first
        self.shape = Shape(count, launch.threads)
        self.space = launch.machine.space
        self.counters = launch.counters
        self.memcheck = "memcheck" in launch.machine.checks
        self.initcheck = "initcheck" in launch.machine.checks
        self.synccheck = "synccheck" in launch.machine.checks
        self.racecheck = "racecheck" in launch.machine.checks
        self.R: list[Array] = list(launch.code.initial)
        self.changed = False  # something wrote memory since the last look
        self.special = launch.specials(first, count)
        self._make_shared()
        self._make_local()
        self.races = launch.make_races(self)
        self.ready: dict[int, Group] = {0: Grid(self.shape)}
        self.early: dict[int, Group] = {}  # lanes waiting at a warp instruction for the others
        self.spinning: dict[int, Group] = {}  # polling threads that stepped back
        self.turns: dict[int, tuple[int, int]] = {}  # loop end -> (threads, turns without progress)
        self.barriers: dict[int, Barrier] = {}
        # lanes waiting at an aligned barrier for their warp
        self.held: dict[tuple[int, int, int | None], tuple[Group, int | None, bool]] = {}
        self.exited: Array | None = None  # (B, N), once some but not all have exited
        self.left = np.full(count, launch.threads)  # threads of each block that have not exited
        self.rounds = 0
        self.steps = 0
        self.progressed = False  # since the last time it was stuck
        self._copies: Copies | None = None
        self._mbarriers: MBarriers | None = None

    # -- memory of the batch ----------------------------------------------------------------------

    def _make_shared(self) -> None:
        size = self.launch.shared_size
        self.shared = np.zeros((self.shape.blocks, max(-(-size // 64) * 64, 64)), np.uint8)
        self.shared_views = {n: self.shared.view(PIECES[n]) for n in PIECES}

    def _make_local(self) -> None:
        self.local_size = -(-self.code.local_size // 16) * 16
        self.local_views: dict[int, Array] = {}
        if self.local_size:
            local = np.zeros((self.shape.blocks * self.shape.threads, self.local_size), np.uint8)
            self.local_views = {n: local.view(PIECES[n]) for n in PIECES}

    def touch(self, region: Region) -> None:
        """Remember that the launch marked bytes of the region."""
        if not region.touched:
            region.touched = True
            self.launch.touched.append(region)

    # -- the schedule -----------------------------------------------------------------------------

    def run(self) -> bool:
        """Run until all threads have exited (True), or only other batches can help (False)."""
        ready, segments = self.ready, self.code.segments
        counts = self.counters
        while True:
            if not ready:
                if not self._resume():
                    return not self.spinning
                continue
            number = min(ready) if len(ready) > 1 else next(iter(ready))
            g = ready.pop(number)
            segment = segments[number]
            if segment.mask is not None:
                found = self._together(number, g, segment)
                if found is None:
                    continue
                g = found
            if self.synccheck and (self.held or self.barriers):
                self._passed_by(number, g)
            counts.warps[number] += g.warps
            counts.lanes[number] += g.size
            self.steps += 1
            if self.steps > self.launch.machine.watchdog:
                self._endless(number, g)
            for target, part in segment.run(self, g):
                if target in ready:
                    ready[target] = merge(ready[target], part)
                else:
                    ready[target] = part

    def _resume(self) -> bool:
        """Let the spinners try again; False where nothing can move."""
        if not self.spinning:
            if self.early or self.held or any(b.waiting for b in self.barriers.values()):
                self._deadlock()
                return bool(self.ready)
            return False
        if self.changed:
            self.rounds, self.changed, self.progressed = 0, False, True
        else:
            self.rounds += 1
            self.launch.clock += 1000 << min(self.rounds, 24)
            if self.rounds > ROUNDS:
                return False
        self.ready.update(self.spinning)
        self.spinning.clear()
        return True

    def revive(self) -> None:
        """Another batch has run: what this one polls may have changed."""
        self.rounds = 0
        self.progressed = False

    def turn(self, number: int, head: int, g: Group) -> tuple[tuple[int, Group], ...]:
        """The back edge of a polling loop: step back where it makes no progress."""
        size, turns = self.turns.get(number, (0, 0))
        turns = turns + 1 if g.size == size else 0
        self.turns[number] = g.size, turns
        others = len(self.ready) > 0 or self.early or self.held or self.barriers or self.spinning
        if turns < PATIENCE and not (turns and self.spinning):
            return ((head, g),)
        if not others and self.changed:
            self.changed = False
            return ((head, g),)
        self.spinning[head] = merge(self.spinning[head], g) if head in self.spinning else g
        return ()

    def branch(self, g: Group, p: Array, target: int, fall: int,
               number: int = -1) -> tuple[tuple[int, Group], ...]:
        """The two ways of a conditional branch; number is that of the segment where it counts."""
        yes, no = g.split(p)
        if number >= 0:
            self.counters.branch(number, g, yes, no)
        if no is None:
            return ((target, g),)
        if yes is None:
            return ((fall, g),)
        return ((target, yes.group), (fall, no.group))

    def branch_polling(self, g: Group, p: Array, target: int, fall: int, number: int,
                       head: int) -> tuple[tuple[int, Group], ...]:
        """A conditional branch one of whose ways is the back edge of a polling loop."""
        result: list[tuple[int, Group]] = []
        for way, part in self.branch(g, p, target, fall, number):
            result.extend(self.turn(head, head, part) if way == head
                          else ((way, part),))
        return tuple(result)

    def exit_some(self, g: Group, p: Array, fall: int | None) -> tuple[tuple[int, Group], ...]:
        """Exit under a predicate."""
        yes, no = g.split(p)
        if yes is not None:
            self.exit(yes.group)
        if no is None:
            return ()
        assert fall is not None
        return ((fall, no.group),)

    def trap(self, g: Group, number: int) -> tuple[()]:
        """The `trap` instruction ends the launch."""
        self.find("program", "trap", self.code.segments[number].where, "the kernel trapped", g,
                  stop=True)
        return ()

    def bad_call(self, g: Group, address: Array, number: int) -> tuple[()]:
        """An indirect call of something that is no function."""
        value = int(address.ravel()[0])
        self.find("memcheck", "out of bounds", self.code.segments[number].where,
                  f"call of {value:#x}, where no function with this signature is", g, stop=True)
        return ()

    def assert_fail(self, g: Group, message: Array, file: Array, line: Array, function: Array,
                    number: int) -> tuple[()]:
        """`assert` failed."""
        texts = [self.launch.text(int(a.ravel()[0])) for a in (message, file, function)]
        said = (f"{texts[1]}:{int(line.ravel()[0])}: {texts[2]}: "
                f"Assertion `{texts[0]}` failed.")
        self.launch.output.append(said + "\n")
        self.find("program", "assert", self.code.segments[number].where, said, g, stop=True)
        return ()

    def table(self, g: Group, index: Array, targets: list[int],
              number: int) -> tuple[tuple[int, Group], ...]:
        """The ways of an indexed branch."""
        result: list[tuple[int, Group]] = []
        rest: Group | None = g
        for i in range(len(targets)):
            assert rest is not None
            yes, no = rest.split(index == i)
            if yes is not None:
                result.append((targets[i], yes.group))
            if no is None:
                rest = None
                break
            index = no.pick(index)
            rest = no.group
        if rest is not None:
            self.find("memcheck", "out of bounds", self.code.segments[number].where,
                      f"brx.idx beyond its table of {len(targets)} labels", rest)
        self.counters.branch(number, g, None if len(result) < 2 else Part(g, None, None),
                             None if len(result) < 2 else Part(g, None, None))
        joined: dict[int, Group] = {}
        for target, part in result:
            joined[target] = merge(joined[target], part) if target in joined else part
        return tuple(joined.items())

    def exit(self, g: Group) -> tuple[()]:
        """The group's threads are done."""
        self.left -= np.bincount(np.broadcast_to(g.blk, g.shape).ravel(),
                                 minlength=self.shape.blocks) if g.cols is not None or isinstance(
            g, Scatter) else self._rows(g) * self.shape.threads
        if self.left.any():
            if self.exited is None:
                self.exited = np.zeros((self.shape.blocks, self.shape.threads), bool)
            self.exited[g.blk, g.tid] = True
            if self.held:
                self._unhold()
            for number in list(self.barriers):
                self._release(number)
        return ()

    def _rows(self, g: Group) -> Array:
        """1 for each block in the group, (B,)."""
        if g.rows is None:
            return np.ones(self.shape.blocks, np.int64)
        rows = np.zeros(self.shape.blocks, np.int64)
        rows[g.rows] = 1
        return rows

    # -- warp instructions ------------------------------------------------------------------------

    def _together(self, number: int, g: Group, segment: Any) -> Group | None:
        """The threads whose lanes are all at this warp instruction; the others wait."""
        if number in self.early:
            g = merge(g, self.early.pop(number))
        lanes = g.lanes
        if lanes.full and segment.full_mask:
            return g
        mask = segment.mask(self, g)
        there = np.full((1, lanes.number, 1), 0xFFFFFFFF, np.uint32) if lanes.active is None else (
            lanes.active.astype(np.uint32) << np.arange(WARP, dtype=np.uint32)).sum(
                axis=1, dtype=np.uint32)[None, :, None]
        wanted = g.to_warps(mask)
        if self.synccheck and not segment.full_mask:
            self._check_mask(g, wanted, segment)
        exists = self._existing(g)
        missing = wanted & exists & ~there
        if not missing.any():
            return g
        ready = g.from_warps(np.broadcast_to(missing == 0, (
            missing.shape[0], lanes.number, WARP)))
        yes, no = g.split(ready)
        assert no is not None
        self.early[number] = no.group
        return None if yes is None else yes.group

    def _existing(self, g: Group) -> Array:
        """The lanes that each of the group's warps has, (1, warps, 1)."""
        tail = self.shape.threads % WARP
        exists = np.full((1, g.lanes.number, 1), 0xFFFFFFFF, np.uint32)
        if tail:
            exists[0, g.lanes.warp % self.shape.warps == self.shape.warps - 1, 0] = (1 << tail) - 1
        return exists

    def _check_mask(self, g: Group, wanted: Array, segment: Any) -> None:
        lanes = np.arange(WARP, dtype=np.uint32)
        without = (wanted >> lanes & 1) == 0
        if g.lanes.active is not None:
            without = without & g.lanes.active[None]
        if without.any():
            bad = g.split(g.from_warps(without))[0]
            assert bad is not None
            self.find("synccheck", "invalid mask", segment.where,
                      "the lane is not in the mask that it passes", bad.group)

    # -- barriers ---------------------------------------------------------------------------------

    def barrier(self, g: Group, number: Array, count: Array | None, segment: int,
                target: int | None, aligned: bool, waits: bool = True
                ) -> tuple[tuple[int, Group], ...]:
        """Arrive at a barrier, and wait there unless it is only an arrival."""
        where = self.code.segments[segment].end_at
        if number.size > 1:
            if (number != number.ravel()[0]).any():
                result: list[tuple[int, Group]] = []
                for value in np.unique(number):
                    part = g.split(number == value)[0]
                    assert part is not None
                    result.extend(self.barrier(
                        part.group, np.array([[value]]),
                        None if count is None else part.pick(count), segment, target, aligned,
                        waits))
                return tuple(result)
            number = number[:1, :1]
        name = int(number[0, 0])
        expect = None
        if count is not None:
            expect = int(count.ravel()[0])
            if (count != expect).any() or expect % WARP or expect <= 0 \
                    or expect > self.shape.warps * WARP:
                self.find("synccheck", "invalid arguments", where,
                          f"a barrier for {expect} threads: it must be one number for all, a "
                          f"multiple of {WARP}, at most the block's {self.shape.threads}", g,
                          stop=True)
        if not 0 <= name < 16:
            self.find("synccheck", "invalid arguments", where,
                      f"barrier {name}: there are 16, 0 to 15", g, stop=True)
        if count is None or aligned:
            part = self._hold(g, name, expect, segment, target, waits) if aligned else g
            if part is None:
                return ()
            g = part
        self.counters.barrier(segment, g)
        if (self.exited is None and expect is None and waits and isinstance(g, Grid)
                and g.cols is None and (name not in self.barriers
                                        or not self.barriers[name].waiting)):
            if self.races is not None:
                self.races.order.block(g)
            assert target is not None
            return ((target, g),)
        state = self.barriers.setdefault(name, Barrier(self.shape.blocks))
        blocks = np.broadcast_to(g.blk, g.shape).ravel()
        counts = np.bincount(blocks, minlength=self.shape.blocks)
        state.arrived += counts
        # the aligned forms count warps, and a block's last warp as full; the others, threads
        state.counted += self._warps_of(g) * WARP if aligned else counts
        if expect is not None:
            if ((state.expect > 0) & (state.expect != expect) & (counts > 0)).any():
                self.find("synccheck", "invalid arguments", where,
                          f"barrier {name} for {expect} threads, but others came to it with "
                          "another number", g, stop=True)
            state.expect[counts > 0] = expect
        elif self.synccheck and aligned:
            for w in state.waiting:
                if w.segment != segment and w.where.line != where.line and w.shares(g):
                    self.find("synccheck", "divergent threads in block", where,
                              f"threads of the block wait at the barrier of line {w.where.line}",
                              g)
                    break
        if self.races is not None:
            self.races.order.arrive(name, g)
        if waits:
            assert target is not None
            state.waiting.append(Waiting(g, target, segment, where, aligned and expect is None))
        self._release(name)
        return ()

    def _warps_of(self, g: Group) -> Array:
        """How many warps of each block are in the group, (B,)."""
        if isinstance(g, Grid):
            return self._rows(g) * g.lanes.number
        keys = np.unique(g.lin // self.shape.threads * self.shape.warps
                         + g.lin % self.shape.threads // WARP)
        return np.bincount(keys // self.shape.warps, minlength=self.shape.blocks)

    def _release(self, name: int) -> None:
        """Let go the blocks that are complete at a barrier (into `ready`)."""
        state = self.barriers[name]
        if not state.waiting:
            counted = (state.expect > 0) & (state.arrived > 0)
            if not counted.any():
                return
        goal = np.where(state.expect > 0, state.expect, self.left)
        have = np.where(state.expect > 0, state.counted, state.arrived)
        done = (state.arrived > 0) & (have >= goal)
        if not done.any():
            return
        kept: list[Waiting] = []
        freed: list[Waiting] = []
        for w in state.waiting:
            yes, no = w.group.split(done[w.group.blk])
            if yes is not None:
                freed.append(Waiting(yes.group, w.target, w.segment, w.where, w.strict))
            if no is not None:
                kept.append(Waiting(no.group, w.target, w.segment, w.where, w.strict))
        state.waiting = kept
        if freed:
            whole = freed[0].group
            for w in freed[1:]:
                whole = merge(whole, w.group)
            if self.synccheck and self.exited is not None:
                self._check_exited(whole, state, freed[0].where)
            if self.races is not None:
                self.races.order.release(name, whole, done, state.expect)
            for w in freed:
                self.ready[w.target] = (merge(self.ready[w.target], w.group)
                                        if w.target in self.ready else w.group)
        elif self.races is not None:
            self.races.order.release(name, None, done, state.expect)
        state.arrived[done] = 0
        state.counted[done] = 0
        state.expect[done] = 0

    def _hold(self, g: Group, name: int, expect: int | None, segment: int, target: int | None,
              waits: bool) -> Group | None:
        """An aligned barrier takes whole warps: lanes that come alone wait for their warp."""
        key = segment, name, expect
        if key in self.held:
            g = merge(g, self.held.pop(key)[0])
        lanes = g.lanes
        if lanes.full:
            return g
        alive = np.zeros((self.shape.blocks, self.shape.warps * WARP), bool)
        alive[:, :self.shape.threads] = True if self.exited is None else ~self.exited
        missing = alive.copy()
        missing[g.blk, g.tid] = False
        partly = missing.reshape(-1, WARP).any(axis=1)
        yes, no = g.split(partly[g.blk * self.shape.warps + g.tid // WARP])
        if yes is not None:
            self.held[key] = yes.group, target, waits
        return None if no is None else no.group

    def _unhold(self) -> None:
        """Threads have exited: the warps they were awaited in may be complete."""
        for key in list(self.held):
            g, target, waits = self.held.pop(key)
            segment, name, expect = key
            count = None if expect is None else np.array([[expect]], np.uint32)
            for way, part in self.barrier(g, np.array([[name]], np.uint32), count, segment, target,
                                          True, waits):
                self.ready[way] = merge(self.ready[way], part) if way in self.ready else part

    def _passed_by(self, number: int, g: Group) -> None:
        """Threads run what lies after a barrier at which others of their block still wait."""
        if not self.code.segments[number].instructions[:-1]:
            return  # nothing but an exit
        for (segment, _, expect), (lanes, _, _) in self.held.items():
            if expect is None and number in self.code.after(segment):
                warps = np.unique(lanes.blk * self.shape.warps + lanes.tid // WARP)
                if np.isin(g.blk * self.shape.warps + g.tid // WARP, warps).any():
                    self.find("synccheck", "divergent threads in warp",
                              self.code.segments[segment].end_at,
                              "a barrier reached by a part of the warp: the other lanes run past "
                              "it; every thread of the block must come to it", lanes, stop=True)
        for state in self.barriers.values():
            for w in state.waiting:
                if w.strict and number in self.code.after(w.segment) and w.shares(g):
                    self.find("synccheck", "divergent threads in block", w.where,
                              "a barrier reached by a part of the block: other threads run past "
                              "it; every thread of the block must come to it", w.group, stop=True)

    def _check_exited(self, g: Group, state: Barrier, where: Location) -> None:
        assert self.exited is not None
        blocks = np.unique(g.blk)
        gone = blocks[self.exited[blocks].any(axis=1) & (state.expect[blocks] == 0)]
        if len(gone):
            bad = g.split(np.isin(g.blk, gone))[0]
            assert bad is not None
            n = int(self.exited[gone[0]].sum())
            self.find("synccheck", "exited threads", where,
                      f"a barrier reached after {n} of the block's threads have exited; every "
                      "thread must come to it", bad.group)

    # -- the ends of a batch -----------------------------------------------------------------------

    def _deadlock(self) -> None:
        """Nothing can move: say why."""
        for number, g in self.early.items():
            segment = self.code.segments[number]
            kind, what = ("divergent threads in warp", "all lanes of the warp must come to this "
                          "instruction together: some") if segment.whole_warp else (
                "invalid mask", "lanes named in the mask never come to this instruction: they")
            self.find("synccheck", kind, segment.where, f"{what} have exited or wait elsewhere", g,
                      stop=True)
        for (segment, _, _), (g, _, _) in self.held.items():
            self.find("synccheck", "divergent threads in warp", self.code.segments[segment].end_at,
                      "a barrier reached by a part of the warp: the other lanes wait elsewhere", g,
                      stop=True)
        for name, state in self.barriers.items():
            for w in state.waiting:
                block = int(w.group.blk[0, 0])
                counted = state.expect[block] > 0
                kind = "deadlock" if counted else "divergent threads in block"
                goal = int(state.expect[block]) if counted else int(self.left[block])
                self.find("synccheck", kind, w.where,
                          f"barrier {name} waits for {goal} threads of the block, but only "
                          f"{int(state.arrived[block])} come; the others wait elsewhere",
                          w.group, stop=True)

    def stuck(self) -> None:
        """No batch can help the spinners: an endless loop."""
        for number, g in self.spinning.items():
            where = self.code.segments[number].where
            self.find("watchdog", "endless loop", where,
                      "the loop waits for a change of memory that nobody left can make", g,
                      stop=True)

    def _endless(self, number: int, g: Group) -> None:
        self.find("watchdog", "endless loop", self.code.segments[number].where,
                  f"still running after {self.steps:,} steps; sim.Machine(watchdog=...) sets how "
                  "many are allowed", g, stop=True)

    # -- what generated code asks for ----------------------------------------------------------------

    def param(self, offset: int, dtype: np.dtype[Any]) -> Array:
        """A parameter of the kernel."""
        return self.launch.param(offset, dtype)

    def param_address(self, offset: int) -> Array:
        """The address of a parameter."""
        return self.launch.param_address(offset)

    def print_lines(self, g: Group, text: Array, values: Array) -> None:
        """`printf` of each thread, in order: the arguments lie in its local memory."""
        texts, places = (np.broadcast_to(a, g.shape).ravel().tolist() for a in (text, values))
        threads = np.broadcast_to(g.blk * self.shape.threads + g.tid, g.shape).ravel().tolist()
        for address, place, thread in zip(texts, places, threads):
            raw = b""
            if memory.LOCAL_WINDOW <= place < memory.LOCAL_WINDOW + self.local_size:
                at = place - memory.LOCAL_WINDOW
                raw = self.local_views[1][thread, at:].tobytes()
            self.launch.output.append(printf.text(self.launch.text(address), raw,
                                                  self.launch.text))

    def copies(self) -> Copies:
        """The asynchronous copies in flight."""
        if self._copies is None:
            self._copies = Copies(self)
        return self._copies

    def mbarriers(self) -> MBarriers:
        """The mbarrier objects."""
        if self._mbarriers is None:
            self._mbarriers = MBarriers(self)
        return self._mbarriers

    def proxy_fence(self, g: Group) -> None:
        """`fence.proxy.async`: bulk copies may read what the threads have written."""
        if self.races is not None:
            self.copies().proxy_fence[g.blk, g.tid] = self.races.order.now

    def is_constant(self, address: Array) -> Array:
        """Whether addresses lie in constant memory or parameters."""
        result = np.zeros(address.shape, bool)
        for r in self.space.regions:
            if r.read_only:
                result |= (address >= np.uint64(r.start)) & (address < np.uint64(r.end))
        return result

    def time(self, name: str) -> Array:
        """A clock: steps of the batch, with jumps where it waits."""
        self.launch.clock += 16
        value = self.launch.clock
        if name in ("clock64", "globaltimer"):
            return np.array([[value]], np.uint64)
        return np.array([[value >> 32 if name.endswith("hi") else value & 0xFFFFFFFF]], np.uint32)

    def warp_sync(self, g: Group, mask: Array) -> None:
        """`__syncwarp`: its lanes are here, see `_together`."""
        if self.races is not None:
            self.races.order.warp(g, mask)

    def fence(self, g: Group, scope: str) -> None:
        """A memory fence."""
        if self.races is not None:
            self.races.order.fence(g, scope == "cta")

    # -- findings ---------------------------------------------------------------------------------

    def coordinates(self, g: Group, at: int = 0) -> tuple[tuple[int, int, int],
                                                          tuple[int, int, int]]:
        """Block and thread of the group's thread number `at`, in its values' order."""
        blk = int(np.broadcast_to(g.blk, g.shape).ravel()[at])
        tid = int(np.broadcast_to(g.tid, g.shape).ravel()[at])
        return self.launch.block_index(self.first + blk), self.launch.thread_index(tid)

    def find(self, tool: str, kind: str, where: Location, message: str, g: Group | None,
             at: int = 0, stop: bool = False, **fields: Any) -> None:
        """Report a finding of the group's thread number `at`."""
        block, thread = self.coordinates(g, at) if g is not None else (None, None)
        self.find_at(tool, kind, where, message, block, thread, stop, **fields)

    def find_at(self, tool: str, kind: str, where: Location, message: str,
                block: tuple[int, int, int] | None, thread: tuple[int, int, int] | None,
                stop: bool = False, **fields: Any) -> None:
        """Report a finding of a thread."""
        region: Region | None = fields.pop("region", None)
        if region is not None:
            fields["allocation"] = Allocation(region.start, region.size, region.name,
                                              region.made_at)
        self.launch.report(Finding(tool, kind, message, kernel=self.code.name, file=where.file,
                                   line=where.line, block=block, thread=thread,
                                   calls=where.calls, **fields))
        if stop:
            raise Stop

    def uninitialized(self, g: Group, region: Region, marks: Array, index: Array, s: Site) -> None:
        """Report the first thread that reads bytes nobody wrote."""
        bad = (marks & self.mark_type[s.piece](s.init)) != self.mark_type[s.piece](s.init)
        bad = np.broadcast_to(bad.reshape(*bad.shape[:2], -1).any(axis=2), g.shape)
        at = int(np.flatnonzero(bad.ravel())[0])
        index = index[..., 0] if index.ndim == 3 else index
        address = region.start + int(np.broadcast_to(index, g.shape).ravel()[at] << s.shift)
        self.find("initcheck", "uninitialized read", s.location,
                  f"{s.text}: {s.size} bytes at {address:#x} were never written", g, at,
                  access=s.access, space="global", size=s.size, address=address, region=region)

    def bad_bulk(self, one: Group, s: Site, address: int, size: int) -> None:
        """Report a bulk copy whose global side lies in no region."""
        region = self.space.find(address, address + 1)
        near = region or self.space.nearest(address)
        freed = self.space.was_freed(address)
        kind = ("use after free" if freed else "null pointer" if address < 4096
                else "out of bounds")
        self.find("memcheck", kind, s.location,
                  f"{s.text}: {s.access} of {size} bytes at {address:#x}" + (
                      f": {address + size - near.end} bytes beyond the end of the allocation"
                      if near is not None and kind == "out of bounds" else ""), one,
                  access=s.access, space="global", size=size, address=address,
                  region=freed or near)

    def uninitialized_bulk(self, one: Group, s: Site, region: Region, at: int, size: int) -> None:
        """Report a bulk copy that reads global bytes nobody wrote."""
        first = at + int(np.flatnonzero(region.marks[at:at + size] & memory.INIT == 0)[0])
        self.find("initcheck", "uninitialized read", s.location,
                  f"{s.text}: the byte at {region.start + first:#x} was never written", one,
                  access="read", space="global", size=size, address=region.start + first,
                  region=region)

    def by_region(self, g: Group, address: Array, s: Site) -> list[Part]:
        """The parts of a group that access one region each; what is wrong is reported and left."""
        starts = np.array(self.space.starts, np.uint64)
        which = np.searchsorted(starts, address, side="right") - 1
        parts = []
        for k in np.unique(which):
            part = g.split(which == k)[0]
            assert part is not None
            there = part.pick(address)
            region = self.space.regions[k] if k >= 0 else None
            end = np.uint64(max(region.end - s.size + 1, 0)) if region is not None else 0
            good = (there < end) & ((there & np.uint64(s.size - 1)) == 0)
            if region is not None and region.read_only and s.access != "read":
                good &= False
            yes, no = part.group.split(good)
            if no is not None and self.memcheck:
                self._bad_address(no.group, no.pick(there), s, region)
            if yes is not None:
                parts.append(_part_of_part(g, part, yes))
        return parts

    def _bad_address(self, g: Group, address: Array, s: Site, region: Region | None) -> None:
        value = int(np.broadcast_to(address, g.shape).ravel()[0])
        fields: dict[str, Any] = {"access": s.access, "space": s.space or "global",
                                  "size": s.size, "address": value}
        what = f"{s.access} of {s.size} bytes at {value:#x}"
        freed = self.space.was_freed(value)
        if region is not None and value + s.size <= region.end:
            if region.read_only and s.access != "read":
                self.find("memcheck", "read-only write", s.location,
                          f"{what}: constant memory cannot be written by a kernel", g,
                          region=region, **fields)
            else:
                self.find("memcheck", "misaligned", s.location,
                          f"{what}: not a multiple of {s.size}", g, region=region, **fields)
        elif freed is not None:
            self.find("memcheck", "use after free", s.location,
                      f"{what}: freed at {freed.freed_at}", g, region=freed, **fields)
        elif value < 4096:
            self.find("memcheck", "null pointer", s.location, what, g, **fields)
        else:
            near = self.space.nearest(value)
            if near is not None:
                before = near.start - value
                what += (f": {before} bytes before" if before > 0 else
                         f": {value - near.end} bytes after the end of" if value >= near.end else
                         f": the last {value + s.size - near.end} bytes are beyond the end of")
                what += " the allocation"
            self.find("memcheck", "out of bounds", s.location, what, g, region=near, **fields)

    def shared_bounds(self, g: Group, address: Array, s: Site) -> Part | bool | None:
        """None where all is well; else the part that is (False: nobody)."""
        top = int(address.max())
        size = self.launch.shared_size
        if top + s.size <= size and not (s.size > 1 and int(
                np.bitwise_or.reduce(address, axis=None)) & (s.size - 1)) \
                and not self.launch.shared_gaps:
            return None
        inside = address < np.uint64(max(size - s.size + 1, 0))
        for low, high in self.launch.shared_gaps:
            inside &= (address + np.uint64(s.size) <= np.uint64(low)) | (address >= np.uint64(high))
        aligned = (address & np.uint64(s.size - 1)) == 0
        good = inside & aligned
        if good.all():
            return None
        yes, no = g.split(good)
        assert no is not None
        at_fault = no.pick(inside)
        value = int(np.broadcast_to(no.pick(address), no.group.shape).ravel()[0])
        fields: dict[str, Any] = {"access": s.access, "space": "shared", "size": s.size,
                                  "address": value}
        if self.memcheck:
            if not np.broadcast_to(at_fault, no.group.shape).ravel()[0]:
                self.find("memcheck", "out of bounds", s.location,
                          f"{s.access} of {s.size} bytes at offset {value:#x} of shared memory: "
                          f"{self.launch.describe_shared(value)}", no.group, **fields)
            else:
                self.find("memcheck", "misaligned", s.location,
                          f"{s.access} of {s.size} bytes at offset {value:#x} of shared memory: "
                          f"not a multiple of {s.size}", no.group, **fields)
        return yes if yes is not None else False

    def local_bounds(self, g: Group, address: Array, s: Site) -> tuple[Array, Part | bool | None]:
        """The offsets, with None where all is well; else the part that is (False: nobody)."""
        offset = address.view(np.int64)
        top = int(address.max())
        if top + s.size <= self.code.local_size and not (s.size > 1 and int(
                np.bitwise_or.reduce(offset, axis=None)) & (s.size - 1)):
            return offset, None
        inside = address < np.uint64(max(self.code.local_size - s.size + 1, 0))
        yes, no = g.split(inside & ((address & np.uint64(s.size - 1)) == 0))
        assert no is not None
        at = int(np.broadcast_to(no.pick(address), no.group.shape).ravel()[0])
        first_inside = bool(np.broadcast_to(no.pick(inside), no.group.shape).ravel()[0])
        if self.memcheck:
            self.find("memcheck", "misaligned" if first_inside else "out of bounds", s.location,
                      f"{s.access} of {s.size} bytes at offset {at:#x} of the thread's "
                      f"{self.code.local_size} bytes of local memory", no.group,
                      access=s.access, space="local", size=s.size, address=at)
        return offset, yes if yes is not None else False


class Barrier:
    """One of a block's sixteen barriers, for all blocks of the batch."""

    def __init__(self, blocks: int) -> None:
        self.arrived = np.zeros(blocks, np.int64)  # threads
        self.counted = np.zeros(blocks, np.int64)  # threads, as a counted barrier sees them
        self.expect = np.zeros(blocks, np.int64)  # 0: every thread of the block
        self.waiting: list[Waiting] = []


class Waiting:
    """Threads that wait at a barrier."""

    __slots__ = ("group", "segment", "strict", "target", "where")

    def __init__(self, group: Group, target: int, segment: int, where: Location,
                 strict: bool) -> None:
        self.group, self.target, self.segment, self.where = group, target, segment, where
        self.strict = strict  # every thread of the block must come here

    def shares(self, g: Group) -> bool:
        """Whether a block has threads in both groups."""
        return bool(np.isin(self.group.blk, g.blk).any())


def _part_of_part(g: Group, outer: Part, inner: Part) -> Part:
    """A part of a part of g, as a part of g."""
    if inner.index is None:
        return outer
    if outer.index is None:
        return inner
    inside = np.zeros(outer.group.shape, bool)
    mask = np.zeros(g.shape, bool)
    for target, part, value in ((inside, inner, np.True_), (mask, outer, inside)):
        if part.axis == 1:
            target[:, part.index] = value
        elif part.axis == 0:
            target[part.index] = value
        else:
            target[part.index] = np.ravel(value) if np.ndim(value) else value
    return Part(Scatter(g.space, g.lin.reshape(g.shape)[mask]), mask, None)
