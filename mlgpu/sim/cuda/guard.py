"""Exact bounds inside CuPy's memory pools, as AddressSanitizer has them.

A pool hands out pieces of what cudaMalloc gave it, rounded up to 512 bytes, and keeps what comes
back; to the simulated GPU all that is one allocation.  So the bytes that belong to no array carry
the mark POISON, which every access looks at, and here is what there is to say of them.

Bytes become an array's when the stream that was current comes to that, and nobody's when the same
stream comes to the end of the array: a kernel launched on it before still reads them rightly.
"""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlgpu.sim.cuda.asides import Aside
from mlgpu.sim.cuda.capture import Capture
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.memory import DEVICE, DEVICE_BASE
from mlgpu.sim.cuda.streams import Stream, Streams, Work
from mlgpu.sim.cuda.system import System, caller
from mlgpu.sim.errors import Allocation, Finding
from mlgpu.sim.memory import INIT, POISON, Region

if TYPE_CHECKING:
    from mlgpu.sim.cuda.memory import Block

Array = np.ndarray[Any, Any]
REMEMBERED = 1024  # pieces of a region that were freed, which a later use is told of


@dataclass(eq=False, slots=True)
class Piece:
    """What an array has of a region."""

    start: int
    size: int  # as asked for
    room: int  # as the pool rounds it
    made_at: str
    stream: Stream
    age: int  # among work
    layout: Layout
    capture: Capture | None  # that it was made in
    freed_at: str = ""
    left: int = 0  # its age, when the program gave it back

    @property
    def end(self) -> int:
        """The first address behind it."""
        return self.start + self.size

    @property
    def allocation(self) -> Allocation:
        """The piece as a finding names it."""
        return Allocation(self.start, self.size, "", self.made_at)


class Told(NamedTuple):
    """What there is to say of an access to poisoned bytes."""

    kind: str
    text: str
    allocation: Allocation


class Layout:
    """The pieces of a region, as the work that has run by now found them."""

    def __init__(self, block: Block, streams: Streams) -> None:
        self.streams = streams
        self.region: Region = block.region
        # What the program itself writes into managed memory is not seen.
        self.fresh = 0 if block.kind == DEVICE else INIT
        self.starts: list[int] = []
        self.pieces: list[Piece] = []
        self.freed: dict[int, Piece] = {}  # the last one at each address; the latest are last
        self.leaving: list[tuple[Piece, Aside]] = []  # which the stream has not come to
        self.kept: list[Piece] = []  # temporary arrays of captures, which graphs come back to

    def add(self, piece: Piece) -> None:
        """The piece is an array's now."""
        if self.region.layout is not self:
            return  # freed meanwhile
        first = bisect.bisect_left(self.starts, piece.start)
        last = bisect.bisect_left(self.starts, piece.start + piece.room)
        self.starts[first:last], self.pieces[first:last] = [piece.start], [piece]
        at = piece.start - self.region.start
        self.region.marks[at:at + piece.size] = self.fresh
        if piece.capture is None:
            self._poison(piece.end, piece.start + piece.room)

    def remove(self, piece: Piece) -> None:
        """The piece is nobody's now."""
        self.leaving = [pair for pair in self.leaving if pair[0] is not piece]
        at = bisect.bisect_left(self.starts, piece.start)
        if self.region.layout is not self or at == len(self.pieces) or (
                self.pieces[at] is not piece):
            return
        del self.starts[at], self.pieces[at]
        self._poison(piece.start, piece.end)
        self.freed.pop(piece.start, None)
        self.freed[piece.start] = piece
        if len(self.freed) > REMEMBERED:
            del self.freed[next(iter(self.freed))]

    def release(self, piece: Piece) -> None:
        """No graph comes back to the piece any more."""
        self.kept.remove(piece)
        if self.region.layout is self:
            self._poison(piece.start, piece.end)

    def _poison(self, low: int, high: int) -> None:
        """Mark what belongs to nobody of the bytes from low to before high."""
        first = bisect.bisect(self.starts, low) - 1
        spared = [*self.kept, *self.pieces[max(first, 0):bisect.bisect_left(self.starts, high)]]
        marks, start = self.region.marks, self.region.start
        for piece in sorted(spared, key=lambda p: p.start):
            if piece.start < high and piece.end > low:
                marks[low - start:max(piece.start, low) - start] = POISON
                low = piece.end
        marks[low - start:max(high, low) - start] = POISON

    def spared(self) -> list[tuple[int, int]]:
        """Offsets from and to which the running work may access what is poisoned: the array was
        there when the work was asked for.  Whether its memory went to another one too early is
        seen in what that one's work does (hazards.py)."""
        work = self.streams.running
        if work is None:
            return []
        return [(p.start - self.region.start, p.end - self.region.start)
                for p in self.freed.values() if p.left > work.age]

    def poisoned(self, at: int, size: int) -> Array:
        """Which bytes from an offset on the running work must not access."""
        result: Array = self.region.marks[at:at + size] & POISON != 0
        if result.any():
            for low, high in self.spared():
                result[max(low - at, 0):max(high - at, 0)] = False
        return result

    def explain(self, address: int, size: int) -> Told:
        """What is wrong with an access some of whose bytes are poisoned."""
        bad = address + int(self.poisoned(address - self.region.start, size).argmax())
        near = self._nearest(bad)
        left = bisect.bisect(self.starts, bad) - 1
        room = left >= 0 and bad < self.starts[left] + self.pieces[left].room
        gone = self._gone(bad)
        if gone is not None and not room:  # else what was there before does not matter
            text = f"freed at {gone.freed_at}"
            if near is not None:
                text += (f" (nearest is an array of {near.size:,} bytes made at {near.made_at}, "
                         f"{_apart(address, size, near)})")
            return Told("use after free", text, gone.allocation)
        if near is None:
            return Told("out of bounds", "memory that a pool has, but no array",
                        Allocation(self.region.start, self.region.size, "", self.region.made_at))
        return Told("out of bounds", _apart(address, size, near), near.allocation)

    def note(self, address: int) -> str:
        """What there is to say of an access to an array by work that is older than it."""
        at = bisect.bisect(self.starts, address) - 1
        work = self.streams.running
        if at < 0 or address >= self.pieces[at].end or work is None or (
                work.age > self.pieces[at].age):
            return ""
        gone = self._gone(address)
        return "; the array is newer than this launch" + ("" if gone is None else (
            f", which must have meant the one of {gone.size:,} bytes that was freed at "
            f"{gone.freed_at}: nothing puts the launch before that"))

    def allocation(self, address: int) -> Allocation | None:
        """The array that an address in the region or beside it most likely meant, if there is one.
        """
        near = self._nearest(address)
        return None if near is None else near.allocation

    def _gone(self, address: int) -> Piece | None:
        """The array that had an address last, of those that are freed."""
        return next((p for p in reversed(self.freed.values()) if p.start <= address < p.end), None)

    def _nearest(self, address: int) -> Piece | None:
        at = bisect.bisect(self.starts, address) - 1
        return min(self.pieces[max(at, 0):at + 2], default=None,
                   key=lambda p: p.start - address if address < p.start else address - p.end)


def _apart(address: int, size: int, piece: Piece) -> str:
    if address < piece.start:
        return f"{piece.start - address:,} bytes before the array"
    if address >= piece.end:
        return f"{address - piece.end:,} bytes after the end of the array"
    return f"the last {address + size - piece.end} bytes are beyond the end of the array"


class Guard:
    """Watches what CuPy's pools hand out and take back."""

    def __init__(self, system: System) -> None:
        self.system = system
        # What the program has, by address, and what is to be done when it comes back.
        self.held: dict[int, Callable[[str], None]] = {}
        # What it gave back.  That may happen at any time, in any thread and with any lock held:
        # it is seen to before the next thing is done.
        self.returned: deque[tuple[int, str]] = deque()

    def taken(self, address: int, size: int, room: int) -> None:
        """The program has got memory from a pool, on its current stream."""
        with self.system.lock:
            self.notice()
            block = self.system.memory.find(address)
            if block is None:
                return  # no memory of a simulated device: a pool over the program's own
            region = block.region
            if region.layout is None:
                region.layout = Layout(block, self.system.streams)
            layout: Layout = region.layout
            stream = self.current_stream()
            piece = Piece(address, size, room, caller(), stream, self.system.streams.moment(),
                          layout, stream.capture)
            self.held[address] = lambda where: self._leave(piece, where)
            # After what was there before has gone; that is nothing mostly, and then at once.
            Aside(lambda: layout.add(piece), [
                aside for gone, aside in layout.leaving
                if gone.start < address + room and address < gone.start + gone.room])

    def given_back(self, address: int) -> None:
        """The program gives memory back; at its very end, when Python has taken its modules apart
        already, in vain."""
        if not self.system.closed:
            self.returned.append((address, caller()))

    def notice(self) -> None:
        """See to what was given back."""
        while self.returned:
            address, where = self.returned.popleft()
            back = self.held.pop(address, None)
            if back is not None:
                back(where)

    def _leave(self, piece: Piece, where: str) -> None:
        piece.freed_at, piece.left = where, self.system.streams.moment()
        layout, capture = piece.layout, piece.capture
        if capture is not None and not capture.ended:
            layout.kept.append(piece)
            capture.after.append(lambda: layout.release(piece))
        aside = Aside(lambda: piece.layout.remove(piece),
                      self.system.streams.before(piece.stream))
        if not aside.done:
            piece.layout.leaving.append((piece, aside))

    def check(self, work: Work) -> None:
        """Find fault with work, other than a launch, that uses memory which belongs to nobody."""
        for access, ranges in (("read", work.reads), ("write", work.writes)):
            for address, size in ranges:
                told = self._look(address, size)
                if told is not None:
                    file, _, line = work.where.split(", ")[0].rpartition(":")
                    self.system.failed(work.stream.device, Finding(
                        "memcheck", told.kind, f"{access} of {size:,} bytes at {address:#x}: "
                        f"{told.text}", kernel=work.what, file=file, line=int(line), access=access,
                        space="global", size=size, address=address, allocation=told.allocation))

    def _look(self, address: int, size: int) -> Told | None:
        """What is wrong with an access to memory, some of which is a device's."""
        memory = self.system.memory
        block = memory.find(address, size)
        if block is not None:
            region = block.region
            layout: Layout | None = region.layout
            if layout is None or not layout.poisoned(address - region.start, size).any():
                return None
            return layout.explain(address, size)
        gone = memory.was_freed(address)
        if gone is None or address < DEVICE_BASE:
            return None  # the program's own memory, which may have been pinned once
        return Told("use after free", f"freed at {gone.freed_at}",
                    Allocation(gone.start, gone.size, gone.name, gone.made_at))

    def current_stream(self) -> Stream:
        """The stream that CuPy has the calling thread use."""
        import cupy

        try:
            return self.system.stream(cupy.cuda.get_current_stream().ptr)
        except CudaError:  # destroyed: whatever comes next on it will say so
            return self.system.stream(0)
