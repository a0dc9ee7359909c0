"""Device memory: regions of bytes at addresses far apart, with what is known of every byte.

Beside each byte lies a byte of marks: whether it was ever written, and whether the running launch
read or wrote it.  One gather of the marks serves initcheck, the first sight of a race, and the
count of distinct bytes that a launch moves.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any

import numpy as np

from mlgpu.sim.errors import Allocation, SimError

Array = np.ndarray[Any, Any]

INIT, READ, WRITTEN = 1, 2, 4
POISON = 32  # belongs to nobody, in a region that a memory pool hands out in pieces
# Far apart, so that an overrun lands between two regions; below the windows of shared and local
# memory, and with low bits that satisfy any alignment.
FIRST, STEP = 0x7_0000_0000, 0x10_0000_0000
SHARED_WINDOW, LOCAL_WINDOW, PARAM_WINDOW = 0x7F00_0000_0000_0000, 0x7F10_0000_0000_0000, \
    0x7F20_0000_0000_0000
WINDOW = 0x10_0000_0000_0000
LAZY = 1 << 17  # bytes from which zeros may come from the system, page by page
REMEMBERED = 4096  # freed regions, which a later use is told of

# An access of each size in one piece: a 16-byte element has no integer type, a complex one serves.
PIECES = {1: np.dtype("u1"), 2: np.dtype("u2"), 4: np.dtype("u4"), 8: np.dtype("u8"),
          16: np.dtype("c16")}


@dataclass(eq=False)
class Region:
    """One allocation."""

    start: int
    size: int
    name: str
    made_at: str
    data: Array  # uint8, padded so that it can be viewed in any piece
    read_only: bool = False
    freed_at: str = ""
    marks: Array = field(init=False)
    views: dict[int, Array] = field(default_factory=dict)
    mark_views: dict[int, Array] = field(default_factory=dict)
    stamps: Array | None = None  # per sector: when the L2 model last saw it
    race: Any = None  # what racecheck knows of it in this launch
    touched: bool = False  # by this launch
    sparse: bool = False  # the launch has too few threads to access much of it
    # Between which bytes lies all that this launch accessed: only there are marks of it.
    low: int = field(init=False)
    high: int = 0
    layout: Any = None  # a memory pool's pieces of it (cuda/guard.py), which explain POISON

    def __post_init__(self) -> None:
        self.end = self.start + self.size
        self.low = len(self.data)
        self.marks = np.zeros(len(self.data), np.uint8)
        for size in (1, 2, 4, 8):
            self.views[size] = self.data.view(PIECES[size])
            self.mark_views[size] = self.marks.view(PIECES[size])
        self.views[16] = self.data.view(PIECES[16])
        self.mark_views[16] = self.mark_views[8].reshape(-1, 2)

    def allocation(self, address: int | None = None) -> Allocation:
        """What a finding names: the region, or the array that an address in it meant."""
        array: Allocation | None = None
        if self.layout is not None and address is not None:
            array = self.layout.allocation(address)
        return array or Allocation(self.start, self.size, self.name, self.made_at)

    def note(self, address: int) -> str:
        """What a memory pool has to say of an access to what is an array's now."""
        return "" if self.layout is None else str(self.layout.note(address))

    def reach(self, low: int, high: int) -> None:
        """The launch accesses addresses from low to before high."""
        self.low = min(self.low, low - self.start)
        self.high = max(self.high, high - self.start)

    def reached(self) -> slice:
        """The marks that the launch may have changed, in whole words."""
        return slice(self.low & -8, min(-(-self.high // 8) * 8, len(self.marks)))


def blank(count: int, sparse: bool) -> Array:
    """So many zeros of int64; sparse: of which few are used, and only their pages cost time."""
    if sparse and 8 * count >= LAZY:
        return np.frombuffer(mmap(-1, 8 * count), np.int64)
    return np.zeros(count, np.int64)


def padded(size: int) -> Array:
    """Zeroed bytes for a region, aligned and padded to 64 bytes."""
    whole = np.zeros(-(-size // 64) * 64 + 64, np.uint8)
    shift = -whole.ctypes.data % 64
    return whole[shift:shift + -(-size // 64) * 64]


class AddressSpace:
    """The regions of a device, found by address."""

    def __init__(self, limit: int, first: int = FIRST, step: int = STEP) -> None:
        self.limit = limit  # bytes
        self.others: list[AddressSpace] = []  # whose memory its kernels may access, too
        # What there is to say of an address that no kernel here may access.
        self.hint: Callable[[int], str] = lambda address: ""
        self.setting = "sim.Machine(memory=...)"  # what sets the limit
        self._used = [0]
        self._version = 0  # changes with the regions
        self._reach: tuple[Any, list[Region], Array] = None, [], np.empty(0, np.uint64)
        self.starts: list[int] = []
        self.regions: list[Region] = []
        self.freed: deque[Region] = deque(maxlen=REMEMBERED)
        self.step = step  # from one region's end to the next one's start, at least
        self._next = first

    def allocate(self, size: int, name: str, made_at: str, read_only: bool = False) -> Region:
        """A new region of zeroed bytes that nobody has written yet.

        SimError where the device's memory is not enough, or the computer's own.
        """
        if size > self.limit - self.used:
            raise SimError(f"out of memory: {size:,} bytes, but only {self.limit - self.used:,} "
                           f"of the device's {self.limit:,} are free; {self.setting} sets how "
                           "many it has")
        try:
            region = Region(self._next, size, name, made_at, padded(size), read_only)
        except MemoryError as error:
            raise SimError(f"out of memory: this computer cannot give {2 * size:,} bytes for "
                           f"{size:,} bytes of device memory and what is known of them") from error
        self._next += self.step * (1 + size // self.step)
        self._replace(len(self.starts), 0, [region], size)  # addresses grow
        return region

    @property
    def used(self) -> int:
        """The bytes of all regions."""
        return self._used[0]

    def _replace(self, at: int, count: int, regions: list[Region], more: int) -> None:
        """Put regions in the place of some, in one step, so that an interrupt comes before or after
        it: Python looks for none within `list(map(...))` of functions in C."""
        self._version += 1
        there = slice(at, at + count)
        put: Callable[..., None] = list.__setitem__
        list(map(put, (self.starts, self.regions, self._used),
                 (there, there, slice(1)), ([r.start for r in regions], regions,
                                            [self.used + more])))

    def adopt(self, region: Region) -> None:
        """Take in a region that has its place and its bytes already.

        What was freed where its own bytes and their padding lie is forgotten: an address there is
        this region's now, or past its end.
        """
        end = region.start + len(region.data)
        self.freed = deque((r for r in self.freed if r.end <= region.start or r.start >= end),
                           maxlen=REMEMBERED)
        at = bisect.bisect_left(self.starts, region.start)
        self._replace(at, 0, [region], region.size)

    def free(self, region: Region, freed_at: str) -> None:
        """Give a region back; its address is never used again, and remembered as freed."""
        region.freed_at = freed_at
        self.drop(region)
        region.data = region.marks = np.zeros(0, np.uint8)
        region.views.clear()
        region.mark_views.clear()
        region.stamps = region.race = region.layout = None
        self.freed.append(region)

    def drop(self, region: Region) -> None:
        """Give a region back without remembering it."""
        at = bisect.bisect_left(self.starts, region.start)
        if at < len(self.regions) and self.regions[at] is region:
            self._replace(at, 1, [], -region.size)

    def find(self, low: int, high: int) -> Region | None:
        """The region that holds all bytes from low to before high."""
        at = bisect.bisect(self.starts, low) - 1
        if at >= 0 and high <= self.regions[at].end:
            return self.regions[at]
        for other in self.others:
            at = bisect.bisect(other.starts, low) - 1
            if at >= 0 and high <= other.regions[at].end:
                return other.regions[at]
        return None

    def reachable(self) -> tuple[list[Region], Array]:
        """All regions that kernels here may access, by address, and their first addresses."""
        spaces = self, *self.others
        key = [(space, space._version) for space in spaces]
        if self._reach[0] != key:
            found, starts = self.regions.copy(), self.starts
            if self.others:
                found = [r for space in spaces for r in space.regions]
                found.sort(key=lambda r: r.start)
                starts = [r.start for r in found]
            self._reach = key, found, np.array(starts, np.uint64)
        return self._reach[1:]

    def nearest(self, address: int) -> Region | None:
        """The live region an address outside all regions most likely meant to be in."""
        candidates = []
        for space in (self, *self.others):
            at = bisect.bisect(space.starts, address) - 1
            candidates += [r for r in space.regions[max(at, 0):at + 2]
                           if -space.step // 2 < address - r.start < r.size + space.step // 2]
        return min(candidates, default=None,
                   key=lambda r: r.start - address if address < r.start else address - r.end)

    def was_freed(self, address: int) -> Region | None:
        """The freed region that held an address."""
        return next((r for space in (self, *self.others) for r in reversed(space.freed)
                     if r.start <= address < r.end), None)
