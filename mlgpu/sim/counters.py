"""What a launch did, counted as a profiler counts: exact, and the same however blocks are batched.

Two things depend on the order in which blocks run, as they do on a GPU: how often a loop turns that
waits for another block, and the L2 model where the launch needs more than the cache holds.

Counts are kept per segment, per guarded instruction and per instruction that accesses memory, so
that every figure can be traced to a source line; tally.py adds them up under Nsight Compute's
names.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import banks
from mlgpu.sim.atomic_forms import Form, form, used_registers
from mlgpu.sim.group import WARP, Group, Part
from mlgpu.sim.l2 import L2, unique_bytes
from mlgpu.sim.memory import READ, WRITTEN, Region
from mlgpu.sim.sectors import SECTOR, again, footprint, repeated, shifts
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch
    from mlgpu.sim.code import Code

Array = np.ndarray[Any, Any]


class Traffic:
    """What one instruction moved in one address space."""

    __slots__ = ("asked", "distinct", "groups", "ideal", "passes", "requests")

    def __init__(self) -> None:
        self.requests = 0  # times a warp accessed memory
        self.asked = 0  # bytes that its threads asked for
        self.distinct = 0  # different bytes of each request (global memory)
        self.passes = 0  # sectors of global and local memory, wavefronts of shared memory
        self.groups = 0  # of shared memory: the wavefronts that are no bank conflicts
        self.ideal = 0  # passes if the bytes of each request lay side by side

    def add(self, other: Traffic) -> None:
        """Add what another instruction moved."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Counters:
    """The counts of one launch."""

    def __init__(self, code: Code, l2_bytes: int, enabled: bool = True) -> None:
        n = len(code.segments)
        self.enabled = enabled  # False: memory accesses are not counted
        self.warps = [0] * n  # times a warp executed the segment
        self.lanes = [0] * n  # times a thread did
        self.branches = [0] * n  # times a warp came to the conditional branch at its end
        self.taken = [0] * n  # times a thread took it
        self.divergent = [0] * n  # times a warp's lanes parted there
        self.on = [0] * len(code.guarded)  # times a thread executed with its predicate on
        self.traffic: dict[tuple[str, int], Traffic] = {}  # by space and number of the site
        self._code = code
        self._forms: dict[int, Form] = {}  # of atomics, by number of the site
        self.l2 = L2(l2_bytes)
        self.unique_read = 0  # different bytes of global memory
        self.unique_written = 0

    def add(self, other: Counters) -> None:
        """Add what another launch of the same kernel counted."""
        for name in ("warps", "lanes", "branches", "taken", "divergent", "on"):
            own: list[int] = getattr(self, name)
            own[:] = map(operator.add, own, getattr(other, name))
        for key, traffic in other.traffic.items():
            self.traffic.setdefault(key, Traffic()).add(traffic)
        self.unique_read += other.unique_read
        self.unique_written += other.unique_written
        self.l2.add(other.l2)

    # -- control --------------------------------------------------------------------------------

    def guard(self, x: Batch, g: Group, number: int, p: Array) -> None:
        """Count the threads whose predicate is on."""
        self.on[number] += int(np.count_nonzero(p)) * (g.size // p.size)

    def branch(self, number: int, g: Group, yes: Part | None, no: Part | None) -> None:
        """A conditional branch: the warps that came, and those whose lanes part."""
        self.branches[number] += g.warps
        if yes is not None:
            self.taken[number] += yes.group.size
            if no is not None:
                self.divergent[number] += yes.group.warps + no.group.warps - g.warps

    def table(self, number: int, g: Group, ways: Iterable[Group]) -> None:
        """A branch to one of several places."""
        ways = list(ways)
        self.branches[number] += g.warps
        self.taken[number] += g.size
        if len(ways) < 2:
            return
        space = g.space
        met = np.zeros(space.blocks * space.warps, np.int64)
        for way in ways:
            met[np.unique(way.blk * space.warps + way.tid // WARP)] += 1
        self.divergent[number] += int(np.count_nonzero(met > 1))

    # -- memory ---------------------------------------------------------------------------------

    def _of(self, space: str, s: Site) -> Traffic:
        key = space, s.number
        found = self.traffic.get(key)
        if found is None:
            found = self.traffic[key] = Traffic()
        return found

    def _form(self, s: Site) -> Form:
        found = self._forms.get(s.number)
        if found is None:
            ins, used = self._code.sited[s.number], used_registers(self._code)
            found = self._forms[s.number] = form(ins, used)
        return found

    def global_access(self, x: Batch, g: Group, offset: Array, s: Site, region: Region) -> None:
        """Requests, the sectors they touch, and a look-up in the L2 for each."""
        if not self.enabled or region.read_only:
            return
        t, warps = self._of("global", s), g.warps
        if s.again:
            t.asked += g.size
            t.distinct += g.size
            return
        x.touch(region)
        t.requests += warps
        t.asked += g.size * s.size
        shift = shifts(offset)
        wide = g.to_warps(offset if shift is None else offset[:1])
        rows = wide.reshape(-1, wide.shape[2])
        found = footprint(rows, s.size) if shift is None else repeated(rows, shift, s.size)
        times = warps // (len(rows) * (1 if shift is None else len(shift)))
        t.distinct += found.elements * s.size * times
        t.passes += len(found.sectors) * times
        t.ideal += found.ideal * times
        self.l2.look_up(region, found.sectors, times, s.access, s.access != "write")
        if s.access == "atomic" and found.elements * times < g.size:
            more = self._again(g, offset, s)
            t.passes += more
            self.l2.hits["atomic"] += more

    def _again(self, g: Group, offset: Array, s: Site) -> int:
        """How often atomics whose lanes meet pass over a sector once more."""
        wide = g.to_warps(offset)
        if wide.shape[2] == 1:  # one element for all
            return 0 if self._form(s).joined else g.size - g.warps
        times: int = g.warps // (wide.shape[0] * wide.shape[1])
        return times * again(wide.reshape(-1, WARP), g.lanes.active)

    @contextmanager
    def one_request(self, g: Group, s: Site) -> Iterator[None]:
        """What a group accesses in parts, region by region, is one request of each warp."""
        t = self._of("global", s)
        before = t.requests
        yield
        t.requests = min(t.requests, before + g.warps)

    def bulk(self, x: Batch, s: Site, region: Region, at: int, size: int) -> None:
        """A bulk copy: one request, every sector of the range once."""
        if not self.enabled:
            return
        t = self._of("global", s)
        sectors = np.arange(at // SECTOR, -(-(at + size) // SECTOR))
        t.requests += 1
        t.asked += size
        t.distinct += size
        t.passes += len(sectors)
        t.ideal += -(-size // SECTOR)
        marks = READ if s.access == "read" else READ | WRITTEN if s.strong else WRITTEN
        self.l2.look_up(region, sectors, 1, s.access, bool(marks & READ))
        region.marks[at:at + size] |= np.uint8(marks)
        x.touch(region)

    def local_access(self, x: Batch, g: Group, offset: Array, s: Site) -> None:
        """Local memory is interleaved by thread, word by word: 32 lanes of a word are 128 bytes."""
        if not self.enabled:
            return
        t, warps = self._of("local", s), g.warps
        t.requests += warps
        t.asked += g.size * s.size
        # a lane that is not there repeats another, and so does its place
        place = g.to_warps((offset >> 2) * 128 + (g.tid % WARP) * 4)
        times = warps // (place.shape[0] * place.shape[1])
        words = [place + 128 * k for k in range(max(s.size // 4, 1))]
        wide = np.concatenate(words, axis=2)
        found = footprint(wide.reshape(-1, wide.shape[2]), 4)
        t.distinct += found.elements * min(s.size, 4) * times
        t.passes += len(found.sectors) * times
        t.ideal += found.ideal * times

    def shared_access(self, x: Batch, g: Group, offset: Array, s: Site) -> None:
        """Wavefronts: passes over the banks (banks.py)."""
        if not self.enabled:
            return
        t, warps = self._of("shared", s), g.warps
        t.requests += warps
        t.asked += g.size * s.size
        active = g.lanes.active
        if offset.shape[0] == 1 < offset.shape[1] and active is None and s.access != "atomic":
            least, relative = x.pattern(offset)  # warp by warp, in every block the same
            found = banks.of_warps(relative, least & 3, s.size)
            times = warps // g.lanes.number
            t.passes += times * found.passes
            t.groups += times * found.groups
            t.ideal += times * found.ideal
            return
        wide = g.to_warps(offset)
        atomic, twice = False, 1
        if s.access == "atomic":
            made = self._form(s)
            atomic, twice = not made.counted, made.passes
            if wide.shape[2] == 1 and made.joined:
                atomic = False  # one lane goes for all
        if wide.shape[2] == 1:  # one word for all
            rows = np.zeros((1 if active is None else len(active), 1), np.int64)
        else:
            rows = wide.reshape(-1, WARP)
        times = twice * (warps // len(rows))
        for at in range(0, s.size, 16):
            found = banks.wavefronts(rows + at, min(s.size, 16), active, atomic)
            t.passes += times * found.passes
            t.groups += times * found.groups
            t.ideal += times * found.ideal

    # -- the end --------------------------------------------------------------------------------

    def finish(self, region: Region) -> None:
        """Count the different bytes of a region that were read and written: before the launch's
        marks are cleared."""
        if self.enabled and not region.read_only:
            read, written = unique_bytes(region)
            self.unique_read += read
            self.unique_written += written
