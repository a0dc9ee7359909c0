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

from mlgpu.sim.barriers import Barriers
from mlgpu.sim.copies import Copies
from mlgpu.sim.errors import Finding
from mlgpu.sim.group import WARP, Grid, Group, Shape, merge
from mlgpu.sim.mbarriers import MBarriers
from mlgpu.sim.memory import PIECES, Region
from mlgpu.sim.ptx.syntax import Location
from mlgpu.sim.specials import Specials

if TYPE_CHECKING:
    from mlgpu.sim.code import Code
    from mlgpu.sim.launch import Launch

Array = np.ndarray[Any, Any]
MARKS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.uint64}  # by size of piece
SPARSE = 64  # bytes that a thread accesses of a region, if it is one of many
PATIENCE = 4  # times a polling loop turns without progress before its threads step back
ROUNDS = 24  # rounds of nothing but polling before the batch is stuck


class Stop(Exception):
    """The launch cannot go on after a finding that is collected."""


class Batch:
    """Blocks `first` to `first + count` of a launch, with their registers and shared memory."""

    def __init__(self, launch: Launch, first: int, count: int) -> None:
        self.mark_type = MARKS
        self.launch = launch
        self.code: Code = launch.code
        self.first = first
        self.shape: Shape = Shape(count, launch.threads)
        self.space = launch.machine.space
        self.counters = launch.counters
        self.memcheck = "memcheck" in launch.checks
        self.initcheck = "initcheck" in launch.checks
        # Of a kernel that copies: whether what each thread read last was never written, and then
        # what it writes counts as never written either.
        self.carried: Array | None = (
            np.zeros((count, launch.threads), bool) if launch.carries and self.initcheck else None)
        self.synccheck = "synccheck" in launch.checks
        self.racecheck: bool = "racecheck" in launch.checks
        self.R: list[Array] = list(launch.code.initial)
        self.changed = False  # something wrote memory since the last look
        self.special = Specials(launch, first, count)
        self._make_shared()
        self._make_local()
        self.races = launch.make_races(self)
        self.ready: dict[int, Group] = {0: Grid(self.shape)}
        self.early: dict[int, Group] = {}  # lanes waiting at a warp instruction for the others
        self.spinning: dict[int, Group] = {}  # polling threads that stepped back
        self.turns: dict[int, tuple[int, int]] = {}  # loop end -> (threads, turns without progress)
        self.exited: Array | None = None  # (B, N), once some but not all have exited
        self.left = np.full(count, launch.threads)  # threads of each block that have not exited
        self.rounds = 0
        self.steps = 0
        self.progressed = False  # since the last time it was stuck
        self.barriers = Barriers(self)
        self._pattern: tuple[Array | None, tuple[int, bytes]] = None, (0, b"")
        self._copies: Copies | None = None
        self._mbarriers: MBarriers | None = None

    # -- memory of the batch ----------------------------------------------------------------------

    def _make_shared(self) -> None:
        size = self.launch.shared_size
        self.shared: Array = np.zeros((self.shape.blocks, max(-(-size // 64) * 64, 64)), np.uint8)
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
            region.sparse = SPARSE * self.launch.blocks * self.launch.threads < region.size
            self.launch.touched.append(region)

    def pattern(self, offset: Array) -> tuple[int, bytes]:
        """The least of the offsets of an access, and by how much each of them lies behind it."""
        if self._pattern[0] is not offset:
            least = int(offset.min())
            self._pattern = offset, (least, (offset - least).tobytes())
        return self._pattern[1]

    # -- the schedule -----------------------------------------------------------------------------

    def run(self) -> bool:
        """Run until all threads have exited (True), or only other batches can help (False)."""
        ready, segments = self.ready, self.code.segments
        counts = self.counters
        by_warp = self.launch.machine.schedule == "warps"
        while True:
            if not ready:
                if not self._resume():
                    if self._copies is not None and not self.spinning and self.synccheck:
                        self._copies.finish()
                    return not self.spinning
                continue
            if by_warp:
                number, g = self._first_warp()
            else:
                number = min(ready) if len(ready) > 1 else next(iter(ready))
                g = ready.pop(number)
            segment = segments[number]
            if segment.mask is not None:
                found = self._together(number, g, segment)
                if found is None:
                    continue
                g = found
            if not by_warp and self.synccheck and (self.barriers.held or self.barriers.states):
                self.barriers.passed_by(number, g)
            counts.warps[number] += g.warps
            counts.lanes[number] += g.size
            self.steps += 1
            if self.steps > self.launch.machine.watchdog:
                self._endless(number, g)
            run = segment.run or segment.compiled()
            for target, part in run(self, g):
                if target in ready:
                    ready[target] = merge(ready[target], part)
                else:
                    ready[target] = part

    def _first_warp(self) -> tuple[int, Group]:
        """Of the threads that are ready, the first warp's, at the lowest segment it is at."""
        firsts = {number: int((g.blk * self.shape.warps + g.tid // WARP).min())
                  for number, g in self.ready.items()}
        number = min(firsts, key=lambda number: (firsts[number], number))
        g = self.ready.pop(number)
        mine, others = g.split(g.blk * self.shape.warps + g.tid // WARP == firsts[number])
        assert mine is not None
        if others is not None:
            self.ready[number] = others.group
        return number, mine.group

    def _resume(self) -> bool:
        """Let the spinners try again; False where nothing can move."""
        if not self.spinning:
            if self.early or self.barriers.anyone():
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
        others = self.ready or self.early or self.spinning or self.barriers.anyone()
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
        joined: dict[int, Group] = {}
        for target, part in result:
            joined[target] = merge(joined[target], part) if target in joined else part
        self.counters.table(number, g, joined.values())
        return tuple(joined.items())

    def exit(self, g: Group) -> tuple[()]:
        """The group's threads are done."""
        self.left -= np.bincount(np.broadcast_to(g.blk, g.shape).ravel(),
                                 minlength=self.shape.blocks)
        if self.left.any():
            if self.exited is None:
                self.exited = np.zeros((self.shape.blocks, self.shape.threads), bool)
            self.exited[g.blk, g.tid] = True
            self.barriers.exited()
        return ()

    def go_on(self, number: int, g: Group) -> None:
        """Threads that waited are ready to run a segment."""
        self.ready[number] = merge(self.ready[number], g) if number in self.ready else g

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

    # -- the ends of a batch ----------------------------------------------------------------------

    def _deadlock(self) -> None:
        """Nothing can move: say why."""
        for number, g in self.early.items():
            segment = self.code.segments[number]
            kind, what = ("divergent threads in warp", ("all lanes of the warp must come to this "
                          "instruction together: some")) if segment.whole_warp else (
                "invalid mask", "lanes named in the mask never come to this instruction: they")
            self.find("synccheck", kind, segment.where, f"{what} have exited or wait elsewhere", g,
                      stop=True)
        self.barriers.deadlock()

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

    # -- what generated code asks for -------------------------------------------------------------

    def param(self, offset: int, dtype: np.dtype[Any]) -> Array:
        """A parameter of the kernel."""
        return self.launch.param(offset, dtype)

    def param_address(self, offset: int) -> Array:
        """The address of a parameter."""
        return self.launch.param_address(offset)

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
            self.races.order.flags.fence(g, scope == "cta")

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
            fields["allocation"] = region.allocation(fields.get("address"))
        self.launch.report(Finding(tool, kind, message, kernel=self.code.name, file=where.file,
                                   line=where.line, block=block, thread=thread,
                                   calls=where.calls, **fields))
        if stop:
            raise Stop
