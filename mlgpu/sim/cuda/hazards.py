"""Which work touched which bytes, and the races between pieces of work that nothing orders.

Two pieces of work that touch the same bytes, one of them writing, need an order between them: by
their stream, by an event, by the default stream's turns, or because the host waited for one before
it asked for the other.  Where there is none, this finds it, in whatever order they ran here.

Launches are known by the marks that they leave on every byte (sim/memory.py), copies and library
calls by the memory they say they use.  Only accesses are kept that other work may yet race with:
those of a program with one stream never are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from mlgpu.sim.cuda.memory import DEVICE_BASE, Memory
from mlgpu.sim.cuda.streams import Stream, Streams, Work
from mlgpu.sim.errors import Finding, Party
from mlgpu.sim.launch import PARAMETERS
from mlgpu.sim.memory import READ, WRITTEN, Region
from mlgpu.sim.site import ATOMIC, LAUNCH_MARKS, STRONG_READ

Array = np.ndarray[Any, Any]
KEPT = 64  # accesses of a region that are kept at most; older ones are not compared any more
OWN = (PARAMETERS, "grid workspace")  # memory that each launch has to itself on a GPU

# Atomics, volatile and the like never race with each other.
AGAINST = {READ: WRITTEN | ATOMIC, STRONG_READ: WRITTEN,
           WRITTEN: READ | STRONG_READ | WRITTEN | ATOMIC, ATOMIC: READ | WRITTEN}
WRITING = WRITTEN | ATOMIC
NAMES = {READ: "read", STRONG_READ: "read", WRITTEN: "write", ATOMIC: "atomic"}
KINDS = {(True, False): "read after write", (False, True): "write after read",
         (True, True): "write after write"}


class Extent:
    """A set of bytes of a region: all from low to before high, or some of them."""

    __slots__ = ("bits", "high", "low")

    def __init__(self, low: int, high: int, bits: Array | None = None) -> None:
        self.low, self.high = low, high
        self.bits = bits  # packed; None: all

    @classmethod
    def of(cls, hit: Array, start: int) -> Extent:
        """The bytes from an offset on for which it is so; there are some."""
        low, high = int(hit.argmax()), len(hit) - int(hit[::-1].argmax())
        hit = hit[low:high]
        return cls(start + low, start + high, None if hit.all() else np.packbits(hit))

    def part(self, low: int, high: int) -> Array:
        """For each byte of a range within the set's, whether it is in the set."""
        if self.bits is None:
            return np.ones(high - low, np.bool_)
        low, high = low - self.low, high - self.low
        bits = np.unpackbits(self.bits[low // 8:-(-high // 8)])
        return bits[low % 8:low % 8 + high - low].view(np.bool_)

    def meets(self, other: Extent) -> int | None:
        """The first byte that is in both."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        if low >= high:
            return None
        if self.bits is None and other.bits is None:
            return low
        both = self.part(low, high) & other.part(low, high)
        at = int(both.argmax())
        return low + at if both[at] else None


class Touch:
    """What a piece of work did to a region."""

    __slots__ = ("extents", "marks", "work")

    def __init__(self, work: Work, extents: list[tuple[int, Extent]]) -> None:
        self.work = work
        self.extents = extents  # by mark
        self.marks = 0  # all that there are
        for mark, _ in extents:
            self.marks |= mark


class Hazards:
    """The accesses of all work that may race."""

    def __init__(self, streams: Streams, memory: Memory,
                 report: Callable[[Work, Finding], None]) -> None:
        self.streams, self.memory = streams, memory
        self.report = report
        self.kept: dict[Region, list[Touch]] = {}
        # How often work has written to pinned memory, and how many host functions have run.
        self.host_writes: WeakKeyDictionary[Region, int] = WeakKeyDictionary()
        self.host_functions = 0
        self._now: list[tuple[Region, Touch]] = []  # of the running work
        self.looking = False  # whether the running work's accesses are needed
        self._keeping = False

    # -- streams tell -----------------------------------------------------------------------------

    def begin(self, work: Work, told: bool) -> None:
        """A piece of work is about to run; told: the host then knows that it is done."""
        # Told, all later work comes after it, but what waits already may not.
        self._keeping = not told or any(not s.queue[0].after(work) for s in self.streams.busy)
        self.looking = self._keeping or bool(self.kept)
        self._now = []
        if self.looking:
            for ranges, mark in ((work.reads, READ), (work.writes, WRITTEN)):
                for address, size in ranges:
                    self._range(work, address, size, mark)

    def _range(self, work: Work, address: int, size: int, mark: int) -> None:
        block = self.memory.find(address, size) if size else None
        if block is not None:
            low = address - block.region.start
            self._now.append((block.region, Touch(work, [(mark, Extent(low, low + size))])))

    def launched(self, region: Region) -> None:
        """A launch is over, and its marks are still on a region that it touched."""
        work, hosted = self.streams.running, region.start < DEVICE_BASE
        if work is None or not (self.looking or hosted) or region.read_only or region.name in OWN:
            return
        low, high = region.low, min(region.high, region.size)
        marks = region.marks[low:high]
        some = int(np.bitwise_or.reduce(marks)) & LAUNCH_MARKS
        if some & WRITING and hosted:
            self._host_write(region)
        if self.looking and some:
            if some & ATOMIC and some & STRONG_READ:  # that an atomic reads goes without saying
                marks = marks & ~((marks & ATOMIC) * np.uint8(STRONG_READ // ATOMIC))
                some = int(np.bitwise_or.reduce(marks))
            every = int(np.bitwise_and.reduce(marks))
            extents = []
            for mark in (READ, STRONG_READ, WRITTEN, ATOMIC):
                if every & mark:
                    extents.append((mark, Extent(low, high)))
                elif some & mark:
                    extents.append((mark, Extent.of(marks & mark != 0, low)))
            self._now.append((region, Touch(work, extents)))

    def touched(self, region: Region, address: int, hit: Array, writes: bool) -> None:
        """The running work reads or writes bytes from an address on, those for which it is so."""
        work = self.streams.running
        if work is None or not hit.any():
            return
        if writes and region.start < DEVICE_BASE:
            self._host_write(region)
        if self.looking:
            extent = Extent.of(hit, address - region.start)
            self._now.append((region, Touch(work, [(WRITTEN if writes else READ, extent)])))

    def end(self, work: Work) -> None:
        """It has run."""
        for address, size in work.writes:
            if address < DEVICE_BASE:
                block = self.memory.find(address, size)
                if block is not None:
                    self._host_write(block.region)
        if not self.looking:
            return
        self.looking = False
        now, self._now = self._now, []
        for region, touch in now:
            self._compare(region, touch)
        if self._keeping:
            for region, touch in now:
                kept = self.kept.setdefault(region, [])
                kept.append(touch)
                del kept[:-KEPT]

    def _host_write(self, region: Region) -> None:
        self.host_writes[region] = self.host_writes.get(region, 0) + 1

    # -- comparing --------------------------------------------------------------------------------

    def _compare(self, region: Region, touch: Touch) -> None:
        """Find earlier accesses that nothing puts before this one."""
        for old in self.kept.get(region, ()):
            if touch.work.after(old.work) or not (touch.marks | old.marks) & WRITING:
                continue
            first, second = sorted((old, touch), key=lambda t: t.work.age)
            found = min(_conflicts(first, second), default=None)
            if found is not None:
                self._found(region, first.work, second.work, *found)

    def _found(self, region: Region, first: Work, second: Work, at: int, kind: str, one: int,
               two: int) -> None:
        """Work asked for first, and what it does to the byte; the same of the second."""
        file, line = _place(second)
        other, other_line = _place(first)
        address = region.start + at
        message = (f"{second} {_does(two)} what {first} {_does(one)}, first at {address:#x}, and "
                   "nothing orders the two: before the later one is asked for, its stream must "
                   "wait for an event that is recorded after the earlier one, or the host must "
                   "wait for that")
        self.report(second, Finding(
            "racecheck", kind, message, kernel=second.what, file=file, line=line,
            access=NAMES[two], space="global", size=1, address=address,
            other=Party(NAMES[one], other, other_line, kernel=first.what),
            allocation=region.allocation(address)))

    # -- forgetting -------------------------------------------------------------------------------

    def prune(self) -> None:
        """Forget accesses that all further work comes after."""
        if not self.kept:
            return
        streams = self.streams
        next_ones = [s.queue[0] for s in streams.busy]
        for region, touches in list(self.kept.items()):
            rest = [] if region.freed_at else [
                t for t in touches
                if streams.seen.get(t.work.stream, -1) < t.work.number
                or not all(w.after(t.work) for w in next_ones)]
            if rest:
                self.kept[region] = rest
            else:
                del self.kept[region]

    def named(self) -> set[Stream]:
        """The streams of whose work accesses are kept."""
        return {t.work.stream for touches in self.kept.values() for t in touches}

    # -- pinned memory ----------------------------------------------------------------------------

    def pinned(self, region: Region) -> tuple[int, int]:
        """What changes when something but the program's own thread may have written to it."""
        return self.host_writes.get(region, 0), self.host_functions

    def changed(self, region: Region, address: int) -> None:
        """The program has changed pinned memory that the running copy reads."""
        work = self.streams.running
        assert work is not None
        file, line = _place(work)
        self.report(work, Finding(
            "racecheck", "write after read",
            f"pinned memory changed before the copy that reads it was done: {work} was asked for "
            "when the memory had other values; wait for the copy before the memory is used again",
            kernel=work.what, file=file, line=line, access="read", space="global",
            address=address, allocation=region.allocation(address)))


def _conflicts(first: Touch, second: Touch) -> Iterator[tuple[int, str, int, int]]:
    """Bytes that both touch and one writes: where, the kind, and what each did."""
    for one, a in first.extents:
        for two, b in second.extents:
            if AGAINST[one] & two:
                at = a.meets(b)
                if at is not None:
                    yield at, KINDS[bool(one & WRITING), bool(two & WRITING)], one, two


def _place(work: Work) -> tuple[str, int]:
    """The file and line that asked for work; of a graph's, those that were captured."""
    file, _, line = work.where.split(", ")[0].rpartition(":")
    return file, int(line)


def _does(mark: int) -> str:
    return "writes" if mark & WRITING else "reads"
