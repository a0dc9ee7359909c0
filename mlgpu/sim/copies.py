"""Asynchronous copies: `cp.async` in groups, and bulk copies that an mbarrier or a group tracks.

The bytes move when the copy is issued; what is modelled is who may rely on it.  A copy acts as an
agent of its thread, the thread's twin, numbered behind all real threads.  No barrier orders a twin,
so whoever touches the copy's memory too early has nothing between himself and it, and the finding
is a missing wait.  The wait makes the copy the doing of the thread that waited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import access, faults, mbarriers
from mlgpu.sim.group import Group, Scatter
from mlgpu.sim.memory import INIT, SHARED_WINDOW, WINDOW, Region
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]


@dataclass(eq=False, slots=True)
class Pending:
    """A copy that nobody has waited for: shared cells and the threads that must."""

    layer: str  # "write" into shared memory, "copy_read" out of it
    cells: Array  # flat, one row per thread
    blk: Array
    tid: Array
    group: Array  # the number of the thread's group
    event: int
    site: Site
    done: Array
    region: Region | None = None  # the copy writes there, in global memory


class Copies:
    """The copies in flight of a batch."""

    def __init__(self, x: Batch) -> None:
        self.x = x
        shape = x.shape.blocks, x.shape.threads
        self.committed = {"async": np.zeros(shape, np.int64), "bulk": np.zeros(shape, np.int64)}
        self.pending: dict[str, list[Pending]] = {"async": [], "bulk": []}
        self.proxy_fence = np.full(shape, -1, np.int64)  # the event of each thread's last one

    def issued(self, kind: str, layer: str, g: Group, cells: Array, s: Site,
               region: Region | None = None) -> None:
        """Remember a copy of the group's threads; its cells already carry the twins' event."""
        if self.x.races is None:
            return
        blk, tid = (np.broadcast_to(a, g.shape).ravel() for a in (g.blk, g.tid))
        cells = cells.reshape(len(tid), -1)
        self.pending[kind].append(Pending(layer, cells, blk, tid, self.committed[kind][blk, tid],
                                          self.x.races.order.now, s, np.zeros(len(tid), bool),
                                          region))

    def commit(self, kind: str, g: Group) -> None:
        """Close each thread's current group."""
        self.committed[kind][g.blk, g.tid] += 1

    def wait(self, kind: str, g: Group, allowed: int | None, reads: bool = False) -> None:
        """All groups but the latest `allowed` are complete (None: and what is in no group).

        `reads`: bulk copies need only have read their sources.
        """
        races = self.x.races
        if races is None or not self.pending[kind]:
            return
        limit = np.full(self.committed[kind].shape, -1, np.int64)
        limit[g.blk, g.tid] = (self.committed[kind][g.blk, g.tid] - allowed
                               if allowed is not None else np.iinfo(np.int64).max)
        kept = []
        for p in self.pending[kind]:
            ready = (p.group < limit[p.blk, p.tid]) & ~p.done
            if ready.any() and not (reads and p.region is not None):
                these = p.cells[ready], p.blk[ready], p.tid[ready], p.event, p.site
                if p.region is None:
                    races.shared.own(p.layer, *these)
                else:
                    races.globals.own(p.region, *these)
                p.done |= ready
            if not p.done.all():
                kept.append(p)
        self.pending[kind] = kept


    def dropped(self, g: Group) -> None:
        """An mbarrier tells of the threads' copies: nobody waits for their groups."""
        waits = np.zeros(self.committed["async"].shape, bool)
        waits[g.blk, g.tid] = True
        for p in self.pending["async"]:
            p.done |= waits[p.blk, p.tid]
        self.pending["async"] = [p for p in self.pending["async"] if not p.done.all()]

    def finish(self) -> None:
        """The blocks end, and their shared memory with them: has it been read?"""
        for p in self.pending["bulk"]:
            if p.layer == "copy_read" and not p.done.all():
                k = int(np.flatnonzero(~p.done)[0])
                one = Scatter(self.x.shape, np.array([p.blk[k] * self.x.shape.threads + p.tid[k]]))
                self.x.find("synccheck", "missing wait", p.site.location,
                            f"{p.site.text}: the block ends while the copy may still read its "
                            "shared memory: cp.async.bulk.wait_group.read is missing", one)


def cp_async(x: Batch, g: Group, to: Array, source: Array, s_read: Site, s_write: Site,
             take: Array | None) -> None:
    """`cp.async`: 4, 8 or 16 bytes to shared memory, the first `take` of them from global memory
    and zeros behind."""
    size = s_write.size
    count = s_write.count
    values: list[Array] = [np.zeros((1, 1), s_write.dtype)] * count
    if take is None or (take == size).all():
        values = access.load_global(x, g, source, s_read)
    else:
        some = g.split(take > 0)[0]
        if some is not None:
            with x.counters.one_request(some.group, s_read):
                values = _partial(x, g, some, source, take, s_read, count)
    if not faults.shared_fits(x, to, s_write):
        part = faults.shared_rest(x, g, to, s_write)
        if part is None:
            return
        g, to = part.group, part.pick(to)
        values = [part.pick(v) for v in values]
    offset = to.view(np.int64)
    x.counters.shared_access(x, g, offset, s_write)
    data = access.joined(values, s_write, g.shape)
    if x.races is not None:
        cells = x.races.shared.copy_write(g, offset, s_write, data)
        x.copies().issued("async", "write", g, cells, s_write)
    access.shared_put(x, g, offset, s_write, data)


def _partial(x: Batch, g: Group, some: Any, source: Array, take: Array, s: Site,
             count: int) -> list[Array]:
    """Copies that read fewer bytes than they write: element by element of the smallest size."""
    inner = some.group
    addresses, taken = some.pick(source), some.pick(take)
    whole = inner.split(taken >= s.size)[0]
    result = [np.zeros(g.shape, s.dtype) for _ in range(count)]
    if whole is not None:
        loaded = access.load_global(x, whole.group, whole.pick(addresses), s)
        values = [whole.put(v, np.zeros((1, 1), s.dtype), inner.shape) for v in loaded]
        result = [some.put(v, r, g.shape) for v, r in zip(values, result, strict=True)]
    rest = inner.split(taken < s.size)[0]
    if rest is not None:
        base, wanted = rest.pick(addresses), rest.pick(taken)
        raw = np.zeros((*rest.group.shape, s.size), np.uint8)
        first, more = (Site(s.number, s.text, s.location, "read", s.space, np.dtype("u1"),
                            again=again) for again in (False, True))
        for i in range(s.size):
            there = rest.group.split(wanted > i)[0]
            if there is None:
                break
            loaded = access.load_global(x, there.group, there.pick(base) + np.uint64(i),
                                        more if i else first)
            raw[..., i] = there.put(loaded[0], np.zeros((1, 1), np.uint8), rest.group.shape)
        words = raw.view(s.dtype)
        for k in range(count):
            value = rest.put(np.ascontiguousarray(words[..., k]), np.zeros((1, 1), s.dtype),
                             inner.shape)
            mask = rest.put(np.ones((1, 1), bool), np.zeros((1, 1), bool), inner.shape)
            outer_mask = some.put(np.broadcast_to(mask, inner.shape), np.zeros((1, 1), bool),
                                  g.shape)
            result[k] = np.where(outer_mask, some.put(np.broadcast_to(value, inner.shape),
                                                      result[k], g.shape), result[k])
    return result


def _shared_offset(address: int) -> int:
    return address - SHARED_WINDOW if SHARED_WINDOW <= address < SHARED_WINDOW + WINDOW else address


def bulk_load(x: Batch, g: Group, to: Array, source: Array, size: Array, barrier: Array,
              s_read: Site, s_write: Site) -> None:
    """`cp.async.bulk` from global to shared memory, counted in bytes by an mbarrier."""
    for one, (dst, src, n, bar) in _each(g, to, source, size, barrier):
        dst, bar = _shared_offset(dst), _shared_offset(bar)
        if not n or not mbarriers.fits(x, one, np.array([[bar]], np.uint64), Site(
                s_write.number, s_write.text, s_write.location, "atomic", "shared",
                np.dtype("u8"))):
            continue
        fits = _bulk_fits(x, one, s_write, dst, src, n)
        region = x.space.find(src, src + n)
        if fits and region is None:
            faults.bad_bulk(x, one, s_read, src, n)
        if not fits or region is None:
            # reported; nobody shall wait for it in vain, or be blamed for reading it
            last = min(dst + n, x.launch.shared_size)
            if x.races is not None and dst < last:
                x.races.shared.bulk_write(one, dst & -16, last - dst, s_write)
            x.mbarriers().complete_bytes(one, bar, n, s_write)
            continue
        at = src - region.start
        faults.poisoned_bulk(x, one, s_read, region, at, n)
        if x.initcheck and not (region.marks[at:at + n] & INIT).all():
            faults.uninitialized_bulk(x, one, s_read, region, at, n)
        blk = int(one.blk[0, 0])
        region.reach(src, src + n)
        x.counters.bulk(x, s_read, region, at, n)
        if x.races is not None:
            x.races.globals.bulk(one, region, at, n, s_read)
            x.races.shared.bulk_write(one, dst, n, s_write)
            x.races.shared.barrier_of_copy(one, bar, s_write)
        x.shared[blk, dst:dst + n] = region.data[at:at + n]
        x.changed = True
        x.mbarriers().complete_bytes(one, bar, n, s_write)


def bulk_store(x: Batch, g: Group, to: Array, source: Array, size: Array, s_read: Site,
               s_write: Site, reduce: str = "", kind: str = "") -> None:
    """`cp.async.bulk` (or `cp.reduce.async.bulk`) from shared to global memory, in groups."""
    from mlgpu.sim import atomics
    for one, (dst, src, n) in _each(g, to, source, size):
        src = _shared_offset(src)
        if not n or not _bulk_fits(x, one, s_read, src, dst, n):
            continue
        region = x.space.find(dst, dst + n)
        if region is None or region.read_only:
            faults.bad_bulk(x, one, s_write, dst, n)
            continue
        at, blk = dst - region.start, int(one.blk[0, 0])
        faults.poisoned_bulk(x, one, s_write, region, at, n)
        if x.races is not None:
            cells = x.races.shared.bulk_read(one, src, n, s_read)
            x.copies().issued("bulk", "copy_read", one, cells, s_read)
            cells = x.races.globals.bulk(one, region, at, n, s_write)
            x.copies().issued("bulk", "write", one, cells, s_write, region)
        x.counters.bulk(x, s_write, region, at, n)
        region.reach(dst, dst + n)
        data = x.shared[blk, src:src + n]
        if reduce:
            atomics.bulk(region.data[at:at + n], data, reduce, kind)
        else:
            region.data[at:at + n] = data
        region.marks[at:at + n] |= INIT
        x.changed = True


def _each(g: Group, *arrays: Array) -> Any:
    """Every thread as a group of its own, with its values as numbers."""
    columns = [np.broadcast_to(a, g.shape).ravel().tolist() for a in arrays]
    for lin, *values in zip(g.lin.tolist(), *columns, strict=True):
        yield Scatter(g.space, np.array([lin])), values


def _bulk_fits(x: Batch, one: Group, s: Site, shared: int, device: int, n: int) -> bool:
    """Bounds and alignment of a bulk copy: multiples of 16 bytes on both sides."""
    misaligned = n % 16 or shared % 16 or device % 16
    if misaligned and x.memcheck:
        what = ("the size" if n % 16 else "the address in shared memory" if shared % 16
                else "the address in global memory")
        x.find("memcheck", "misaligned", s.location,
               f"{s.text}: {what} is no multiple of 16 (size {n}, shared {shared:#x}, global "
               f"{device:#x})", one, access=s.access, space="shared", size=n,
               address=shared if shared % 16 else device)
    if misaligned:
        return False
    outside = shared + n > x.launch.shared_size or any(
        shared < high and shared + n > low for low, high in x.launch.shared_gaps)
    if outside and x.memcheck:
        x.find("memcheck", "out of bounds", s.location,
               f"{s.text}: {n} bytes at offset {shared:#x} of shared memory: "
               f"{x.launch.describe_shared(shared + n - 1)}", one, access=s.access,
               space="shared", size=n, address=shared)
    return not outside


def commit(x: Batch, g: Group, kind: str) -> None:
    """`commit_group`."""
    x.copies().commit(kind, g)


def wait(x: Batch, g: Group, kind: str, allowed: int | None, reads: bool = False) -> None:
    """`wait_group` and `wait_all`."""
    x.copies().wait(kind, g, allowed, reads)


def arrive(x: Batch, g: Group, address: Array, s: Site, noinc: bool) -> None:
    """`cp.async.mbarrier.arrive`: an arrival when the thread's copies are complete."""
    offset = mbarriers.offsets(address)
    if not mbarriers.fits(x, g, offset, s):
        return
    if x.races is not None:
        x.mbarriers().release_copies(g, offset)
        x.copies().dropped(g)
    if noinc:
        x.mbarriers().arrive(g, offset, np.array([[1]]), s)
