"""mbarrier objects: counting barriers in shared memory, with phases and transaction bytes.

An object's 8 bytes hold its state (the layout is ours; PTX leaves it open).  Arriving releases what
the thread knows, a wait that succeeds acquires what all who arrived have released.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import faults
from mlgpu.sim.flags import Publication
from mlgpu.sim.group import WARP, Group
from mlgpu.sim.memory import SHARED_WINDOW
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
COUNT = (1 << 20) - 1  # the largest count
PENDING, EXPECTED, BYTES, PHASE = 0, 20, 40, 62
BYTES_BIAS = 1 << 20
VALID = 1 << 63


def pack(pending: int, expected: int, tx: int, phase: int) -> int:
    """The 8 bytes of an object."""
    return (VALID | phase << PHASE | (tx + BYTES_BIAS) << BYTES | expected << EXPECTED | pending)


def unpack(state: int) -> tuple[int, int, int, int]:
    """Pending arrivals, arrivals of a phase, transaction bytes awaited, parity of the phase."""
    return (state & COUNT, state >> EXPECTED & COUNT,
            (state >> BYTES & ((1 << 21) - 1)) - BYTES_BIAS, state >> PHASE & 1)


class MBarriers:
    """The mbarrier objects of a batch."""

    def __init__(self, x: Batch) -> None:
        self.x = x
        self.bring: dict[int, Array] = {}  # offset -> (B, W) of the current phase
        self.left: dict[int, Array] = {}  # of completed phases
        self.single: dict[tuple[int, int], Publication] = {}  # (block, offset): lanes alone
        self.single_left: dict[tuple[int, int], Publication] = {}

    # -- state ------------------------------------------------------------------------------------

    def _view(self) -> Array:
        view: Array = self.x.shared_views[8]
        return view

    def init(self, g: Group, address: Array, count: Array, s: Site) -> None:
        """Expect `count` arrivals in every phase."""
        for blk, at, n in self._each(g, address, count):
            if not 1 <= n <= COUNT:
                self.x.find("synccheck", "invalid arguments", s.location,
                            f"{s.text}: a count of {n}; 1 to {COUNT:,} are possible", g)
                continue
            self._view()[blk, at >> 3] = pack(n, n, 0, 0)
            for table in (self.bring, self.left):
                if at in table:
                    table[at][blk] = 0
            self.single.pop((blk, at), None)
            self.single_left.pop((blk, at), None)
        self.x.changed = True

    def invalidate(self, g: Group, address: Array) -> None:
        """The object is no more; its memory may be used for anything."""
        for blk, at in self._each(g, address):
            self._view()[blk, at >> 3] = 0

    def _each(self, g: Group, *arrays: Array) -> Any:
        columns = (np.broadcast_to(a, g.shape).ravel().tolist() for a in (g.blk, *arrays))
        return zip(*columns, strict=True)

    def _changed(self, g: Group, s: Site, blk: int, at: int, pending: int, expected: int, tx: int,
                 phase: int) -> None:
        """Store a state; a phase with nothing pending is complete."""
        if not -BYTES_BIAS < tx < BYTES_BIAS:
            self.x.find("synccheck", "invalid arguments", s.location,
                        f"{s.text}: {tx:,} bytes would be awaited at the mbarrier; at most "
                        f"{BYTES_BIAS - 1:,} either way are possible", g, stop=True)
        if pending == 0 and tx == 0:
            pending, phase = expected, phase ^ 1
            if at in self.bring:
                left = self.left.setdefault(at, np.zeros_like(self.bring[at]))
                left[blk] = np.maximum(left[blk], self.bring[at][blk])
                self.bring[at][blk] = 0
            node = self.single.pop((blk, at), None)
            if node is not None:
                last = node
                while last.before is not None:
                    last = last.before
                last.before = self.single_left.get((blk, at))
                self.single_left[blk, at] = node
        self._view()[blk, at >> 3] = pack(pending, expected, tx, phase)
        self.x.changed = True

    def _state(self, g: Group, blk: int, at: int, s: Site) -> tuple[int, int, int, int] | None:
        state = int(self._view()[blk, at >> 3])
        if not state & VALID:
            if self.x.synccheck:
                self.x.find("synccheck", "invalid arguments", s.location,
                            f"{s.text}: no initialised mbarrier at offset {at:#x} of shared memory",
                            g, stop=True)
            return None
        return unpack(state)

    # -- arriving ---------------------------------------------------------------------------------

    def arrive(self, g: Group, address: Array, count: Array, s: Site, drop: bool = False,
               expect: Array | None = None, release: bool = True) -> Array:
        """Arrivals of each thread; the states before, as tokens for test_wait."""
        if release and self.x.races is not None:
            self.release(g, address)
        tokens = []
        counts = np.broadcast_to(count, g.shape).ravel().tolist()
        bytes_ = (np.broadcast_to(expect, g.shape).ravel().tolist() if expect is not None
                  else [0] * g.size)
        for (blk, at), n, tx_more in zip(self._each(g, address), counts, bytes_, strict=True):
            found = self._state(g, blk, at, s)
            if found is None:
                tokens.append(0)
                continue
            pending, expected, tx, phase = found
            tokens.append(pack(*found))
            if n > pending:
                self.x.find("synccheck", "invalid arguments", s.location,
                            f"{s.text}: {n} arrivals, but the phase has only {pending} left of "
                            f"{expected}", g, stop=True)
                continue
            self._changed(g, s, blk, at, pending - n, expected - (n if drop else 0), tx + tx_more,
                          phase)
        return np.array(tokens, np.uint64).reshape(g.shape)

    def _whole_warps(self, g: Group, address: Array) -> bool:
        """Whether all live lanes of the group's warps are here, at one object."""
        whole = g.lanes.counts == WARP
        w, tail = self.x.shape.warps, self.x.shape.threads % WARP
        if tail:
            whole |= (g.lanes.counts == tail) & (g.lanes.warp % w == w - 1)
        return bool(whole.all() and (address == address.ravel()[0]).all())

    def _brought(self, at: int) -> Array:
        """What those who have arrived in the phase bring, (B, 2 W)."""
        if at not in self.bring:
            self.bring[at] = np.zeros((self.x.shape.blocks, 2 * self.x.shape.warps), np.int64)
        return self.bring[at]

    def release_copies(self, g: Group, address: Array) -> None:
        """The copies that the threads have under way are behind the object's phase."""
        order, warps = self.x.races.order, self.x.shape.warps
        blk, tid, places = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid, address))
        if self._whole_warps(g, address):
            self._brought(int(places[0]))[blk, warps + tid // WARP] = order.now
            return
        nobody = np.zeros(2 * warps, np.int64)
        for k, t, at in zip(blk.tolist(), tid.tolist(), places.tolist(), strict=True):
            self.single[k, at] = Publication(
                k + self.x.first, self.x.shape.threads + t, order.now, nobody, order.flags,
                self.single.get((k, at)), True, (k + self.x.first, at))

    def release(self, g: Group, address: Array) -> None:
        """Publish what the threads know with the object's phase."""
        order = self.x.races.order
        if self._whole_warps(g, address):
            order.bring(self._brought(int(address.ravel()[0])), g)
            return
        blk, tid, places = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid, address))
        order.flags.settle(g, inner=True)
        rows = order.rows_of(blk, tid)
        columns = zip(blk.tolist(), tid.tolist(), places.tolist(), strict=True)
        for i, (k, t, at) in enumerate(columns):
            self.single[k, at] = Publication(k + self.x.first, t, order.now, rows[i],
                                             order.flags, self.single.get((k, at)), True,
                                             (k + self.x.first, at),
                                             order.lanes_of(k, t, order.now))

    def expect(self, g: Group, address: Array, more: Array, s: Site) -> None:
        """More transaction bytes are awaited in this phase."""
        for blk, at, n in self._each(g, address, more):
            found = self._state(g, blk, at, s)
            if found is not None:
                pending, expected, tx, phase = found
                self._changed(g, s, blk, at, pending, expected, tx + n, phase)

    def complete_bytes(self, g: Group, at: int, n: int, s: Site) -> None:
        """A bulk copy of one thread has brought its bytes."""
        blk, tid = int(g.blk[0, 0]), int(g.tid[0, 0])
        races = self.x.races
        if races is not None:
            order = races.order
            twin = self.x.shape.threads + tid
            nobody = np.zeros(2 * self.x.shape.warps, np.int64)
            self.single[blk, at] = Publication(
                blk + self.x.first, twin, order.now, nobody, order.flags,
                self.single.get((blk, at)), True, (blk + self.x.first, at))
        found = self._state(g, blk, at, s)
        if found is not None:
            pending, expected, tx, phase = found
            self._changed(g, s, blk, at, pending, expected, tx - n, phase)

    # -- waiting ----------------------------------------------------------------------------------

    def test(self, g: Group, address: Array, token: Array, parity: bool, s: Site) -> Array:
        """Whether the phase of the token (or parity) is complete."""
        result = np.zeros(g.size, bool)
        for i, (blk, at, t) in enumerate(self._each(g, address, token)):
            found = self._state(g, blk, at, s)
            if found is not None:
                wanted = t & 1 if parity else t >> PHASE & 1
                result[i] = found[3] != wanted
        done = result.reshape(g.shape)
        part = g.split(done)[0]
        if part is not None and self.x.races is not None:
            self._acquire(part.group, part.pick(address))
        return done

    def _acquire(self, g: Group, address: Array) -> None:
        order = self.x.races.order
        for at in np.unique(address).tolist():
            part = g.split(np.broadcast_to(address == at, g.shape) if address.size > 1
                           else address == at)[0]
            assert part is not None
            there = part.group
            if at in self.left:
                order.take(self.left[at], there)
            blk, tid = (np.broadcast_to(a, there.shape).ravel() for a in (there.blk, there.tid))
            for b in np.unique(blk).tolist():
                node = self.single_left.get((b, at))
                if node is not None:
                    order.flags.acquire(b, np.sort(tid[blk == b]), node)


def offsets(address: Array) -> Array:
    """Shared-memory offsets of addresses, generic or not."""
    window = np.uint64(SHARED_WINDOW)
    result: Array = np.where(address >= window, address - window, address)
    return result


def init(x: Batch, g: Group, offset: Array, s: Site, count: Array) -> None:
    """`mbarrier.init`."""
    if not faults.shared_fits(x, offset, s):
        part = faults.shared_rest(x, g, offset, s)
        if part is not None:
            init(x, part.group, part.pick(offset), s, part.pick(count))
        return
    if x.races is not None:
        x.races.shared.write(g, offset.view(np.int64), s, np.zeros((1, 1), np.uint64))
    x.mbarriers().init(g, offset, count, s)


def fits(x: Batch, g: Group, offset: Array, s: Site) -> bool:
    """Whether the objects lie in the block's shared memory; the first that does not is reported."""
    if faults.shared_fits(x, offset, s):
        return True
    faults.shared_rest(x, g, offset, s)
    return False


def inval(x: Batch, g: Group, offset: Array, s: Site) -> None:
    """`mbarrier.inval`."""
    if fits(x, g, offset, s):
        if x.races is not None:
            x.races.shared.write(g, offset.view(np.int64), s, np.zeros((1, 1), np.uint64))
        x.mbarriers().invalidate(g, offset)


def _seen(x: Batch, g: Group, offset: Array, s: Site) -> bool:
    """Bounds, races and initialisation of an access to the object itself."""
    if not fits(x, g, offset, s):
        return False
    if x.races is not None:
        x.races.shared.atomic(g, offset.view(np.int64), s, reads=False)
    return True


def arrive(x: Batch, g: Group, offset: Array, s: Site, count: Array, drop: bool,
           expect: Array | None) -> list[Array]:
    """`mbarrier.arrive` and `mbarrier.arrive_drop`; the tokens."""
    if not _seen(x, g, offset, s):
        return [np.zeros((1, 1), np.uint64)]
    return [x.mbarriers().arrive(g, offset, count, s, drop, expect)]


def expect(x: Batch, g: Group, offset: Array, s: Site, more: Array) -> None:
    """`mbarrier.expect_tx`, and `complete_tx` as its opposite."""
    if _seen(x, g, offset, s):
        x.mbarriers().expect(g, offset, more, s)


def test(x: Batch, g: Group, offset: Array, s: Site, token: Array, parity: bool) -> list[Array]:
    """`mbarrier.test_wait` and `try_wait`."""
    if not _seen(x, g, offset, s):
        return [np.ones((1, 1), bool)]
    return [x.mbarriers().test(g, offset, token, parity, s)]


def pending_count(token: Array) -> Array:
    """The pending arrivals that a token tells of."""
    return (token & np.uint64(COUNT)).astype(np.uint32)
