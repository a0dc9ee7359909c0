"""racecheck: the last accesses of every cell of memory, and whether the next one is ordered after.

Two accesses of a cell by different threads, one of them a write and not both strong (atomic,
volatile and the like), are a race unless the first happens before the second (`order.py`).  Per
cell the last write, the last strong write, and the last two reads (of different warps) are kept as
one number each, event and thread packed, so that a barrier clears nothing: it raises the event up
to which everything is ordered, and most accesses are settled by one maximum.

Shared memory has these shadows always (they also say what was ever written).  Global memory gets
them when a launch touches the same bytes twice in a way that could matter; until then the accesses
are only noted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.errors import Party
from mlgpu.sim.group import WARP, Grid, Group
from mlgpu.sim.memory import READ, WRITTEN, Region
from mlgpu.sim.order import Flags, Order
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
EVENT, SEVERAL, WHO = 33, 1 << 32, (1 << 32) - 1
# Set in what the twin of a thread did (copies.py), so that no barrier's floor settles it.
TWIN = 1 << 62
EVENTS = (1 << 29) - 1
NOTES = 1 << 25  # addresses noted before shadows are made all the same: 256 MiB


class Shadow:
    """The last accesses of cells; thread numbers are `who`."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.write = np.zeros(shape, np.int64)
        self.strong = np.zeros(shape, np.int64)
        self.read = np.zeros(shape, np.int64)
        self.read2 = np.zeros(shape, np.int64)
        self.strong_read: Array | None = None

    def layers(self) -> list[Array]:
        """All of it."""
        return [self.write, self.strong, self.read, self.read2,
                *([] if self.strong_read is None else [self.strong_read])]


class Races:
    """racecheck and the shared half of initcheck for a batch."""

    def __init__(self, x: Batch, flags: Flags) -> None:
        self.x = x
        self.order = Order(x, flags)
        self.events = x.launch.events
        self.check = x.racecheck
        self.cell = x.code.cell
        self.cells = x.shared.shape[1] // self.cell
        self.shared = Shadow((1, self.cells))
        self.lanes = np.arange(x.shape.threads)[None]
        # cells that an asynchronous copy fills: readable only after its wait
        self.asynchronous: Any = None

    def event(self, s: Site) -> int:
        """A new event, of a site."""
        self.events.append(s)
        return len(self.events) - 1

    # -- shared memory ----------------------------------------------------------------------------

    def _cells(self, g: Group, offset: Array, s: Site) -> tuple[Array, Array, bool]:
        """The cells of an access as (…, cells of one access), the threads, and whether all blocks
        do the same (then the shadow has one row)."""
        count = max(s.size // self.cell, 1)
        cell = offset // self.cell if count == 1 else (
            (offset // self.cell)[..., None] + np.arange(count))
        tid = g.tid if count == 1 else g.tid[..., None]
        same = isinstance(g, Grid) and g.rows is None and offset.shape[0] == 1
        if same and len(self.shared.write) == 1:
            return cell, tid, True
        self._expand()
        blk = g.blk if count == 1 else g.blk[..., None]
        return blk * self.cells + cell, tid, False

    def _expand(self) -> None:
        """Give every block a row of its own."""
        shadow, b = self.shared, self.x.shape.blocks
        if len(shadow.write) == b:
            return
        for name in ("write", "strong", "read", "read2"):
            setattr(shadow, name, np.repeat(getattr(shadow, name), b, axis=0))
        if shadow.strong_read is not None:
            shadow.strong_read = np.repeat(shadow.strong_read, b, axis=0)

    def shared_read(self, g: Group, offset: Array, s: Site) -> None:
        """A load from shared memory."""
        cell, tid, _same = self._cells(g, offset, s)
        shadow = self.shared
        if self.x.initcheck:
            self._uninitialized(g, cell, offset, s)
        if not self.check:
            return
        self._compare(g, shadow.write, cell, tid, s, "write")
        if s.strong:
            e = self.event(s)
            _put(self._strong_reads(shadow).reshape(-1), cell, e, tid)
            self._flag(g, "shared", offset, s)
            return
        self._compare(g, shadow.strong, cell, tid, s, "atomic")
        self._note_read(shadow, cell, tid, self.event(s))

    def shared_write(self, g: Group, offset: Array, s: Site, data: Array) -> None:
        """A store to shared memory."""
        cell, tid, _same = self._cells(g, offset, s)
        self._shared_write(g, offset, s, data, cell, tid)

    def _shared_write(self, g: Group, offset: Array, s: Site, data: Array, cell: Array,
                      tid: Array, twin: bool = False) -> None:
        shadow = self.shared
        if self.check:
            if not s.strong:
                self._compare(g, shadow.strong, cell, tid, s, "atomic", (offset, data))
                if shadow.strong_read is not None:
                    self._compare(g, shadow.strong_read, cell, tid, s, "read")
            self._compare(g, shadow.write, cell, tid, s, "write", (offset, data))
            self._compare(g, shadow.read, cell, tid, s, "read")
            self._compare(g, shadow.read2, cell, tid, s, "read")
        e = self.event(s)
        layer = (shadow.strong if s.strong else shadow.write).reshape(-1)
        cell, mine = _put(layer, cell, e, tid, twin)
        if self.check and not s.strong:
            self._same_cell(g, layer, cell, mine, tid, data, s)
        if s.strong:
            self._flag(g, "shared", offset, s)

    # -- asynchronous copies (copies.py): the thread's twin acts ----------------------------------

    def copy_write(self, g: Group, offset: Array, s: Site, data: Array) -> Array:
        """`cp.async` writes shared memory; the cells, a row for each thread."""
        self._expand()
        cell, tid, _ = self._cells(g, offset, s)
        self._shared_write(g, offset, s, data, cell, tid + self.x.shape.threads, twin=True)
        shape = (*g.shape, cell.shape[2]) if cell.ndim == 3 else g.shape
        result: Array = np.broadcast_to(cell, shape).reshape(g.size, -1)
        return result

    def own(self, layer: str, cells: Array, blk: Array, tid: Array, event: int, s: Site) -> None:
        """Threads have waited for copies: they are their own doing from now on."""
        flat = getattr(self.shared, layer).reshape(-1)
        there = flat[cells]
        twins = TWIN | event << EVENT | (tid + self.x.shape.threads)[:, None]
        mine = (there & ~SEVERAL) == twins
        now = self.event(s)
        flat[cells] = np.where(mine, (now << EVENT) | tid[:, None], there)

    def bulk_write(self, one: Group, offset: int, size: int, s: Site) -> None:
        """A bulk copy writes shared memory."""
        cell, tid = self._bulk_cells(one, offset, size)
        shadow = self.shared
        if self.check:
            for layer, access in ((shadow.write, "write"), (shadow.strong, "atomic"),
                                  (shadow.read, "read"), (shadow.read2, "read")):
                self._compare(one, layer, cell, tid, s, access)
        _put(shadow.write.reshape(-1), cell, self.event(s), tid, twin=True)

    def bulk_read(self, one: Group, offset: int, size: int, s: Site) -> Array:
        """A bulk copy reads shared memory; the cells."""
        cell, tid = self._bulk_cells(one, offset, size)
        shadow = self.shared
        if self.x.initcheck:
            self._uninitialized(one, cell[None], np.array([[offset]]), s)
        if self.check:
            self._compare(one, shadow.write, cell, tid, s, "write")
            self._compare(one, shadow.strong, cell, tid, s, "atomic")
            self._unfenced(one, cell, s)
        before = shadow.read.reshape(-1)[cell]
        shadow.read2.reshape(-1)[cell] = before
        _put(shadow.read.reshape(-1), cell, self.event(s), tid, twin=True)
        return cell

    def _bulk_cells(self, one: Group, offset: int, size: int) -> tuple[Array, Array]:
        self._expand()
        first = int(one.blk[0, 0]) * self.cells + offset // self.cell
        return np.arange(first, first + size // self.cell)[None], one.tid + self.x.shape.threads

    def _unfenced(self, one: Group, cell: Array, s: Site) -> None:
        """What threads wrote reaches a bulk copy only past a fence.proxy.async."""
        written = self.shared.write.reshape(-1)[cell[0]]
        event, who = written >> EVENT & EVENTS, written & WHO
        n = self.x.shape.threads
        fences = self.x.copies().proxy_fence[int(one.blk[0, 0])]
        by_threads = (event > self.order.start) & (who < n)
        fenced = np.maximum(fences[np.where(who < n, who, 0)], fences[int(one.tid[0, 0])])
        bad = np.flatnonzero(by_threads & (fenced < event))
        if not len(bad):
            return
        k = int(bad[0])
        site: Site = self.events[int(event[k])]
        block, thread = self.x.coordinates(one)
        self.x.find_at("racecheck", "read after write", s.location,
                       f"{s.text}: no fence.proxy.async lies between the writing of this memory "
                       "and the bulk copy that reads it", block, thread, access="read",
                       space="shared", size=s.size,
                       address=int(cell[0, k] % self.cells) * self.cell,
                       other=Party(site.access, site.location.file, site.location.line, block,
                                   self.x.launch.thread_index(int(who[k]))))

    def bulk_global(self, one: Group, region: Region, at: int, size: int, s: Site) -> None:
        """The global side of a bulk copy."""
        if region.race is None:
            self._open(region)
        shadow, unit = region.race.shadow, region.race.unit
        cell = np.arange(at // unit, (at + size) // unit)[None]
        who = (one.blk + self.x.first) * self.x.shape.threads + one.tid
        layers = [(shadow.write, "write")]
        if not s.strong:
            layers.append((shadow.strong, "atomic"))
        if s.access != "read":
            layers += [(shadow.read, "read"), (shadow.read2, "read")]
        if self.check:
            for layer, access in layers:
                self._compare(one, layer, cell, who, s, access, region=region)
        if s.access == "read":
            self._note_read(shadow, cell, who, self.event(s))
        else:
            layer = shadow.strong if s.strong else shadow.write
            _put(layer, cell, self.event(s), who)
        region.marks[at:at + size] |= READ if s.access == "read" else WRITTEN
        self.x.touch(region)

    def shared_atomic(self, g: Group, offset: Array, s: Site, reads: bool) -> None:
        """An atomic on shared memory."""
        cell, tid, _same = self._cells(g, offset, s)
        shadow = self.shared
        if self.x.initcheck and reads:
            self._uninitialized(g, cell, offset, s)
        if self.check:
            self._compare(g, shadow.write, cell, tid, s, "write")
            self._compare(g, shadow.read, cell, tid, s, "read")
            self._compare(g, shadow.read2, cell, tid, s, "read")
        e = self.event(s)
        _put(shadow.strong.reshape(-1), cell, e, tid)
        self._flag(g, "shared", offset, s)

    def _strong_reads(self, shadow: Shadow) -> Array:
        if shadow.strong_read is None:
            shadow.strong_read = np.zeros_like(shadow.write)
        return shadow.strong_read

    def _flag(self, g: Group, space: str, offset: Array, s: Site) -> None:
        self.order.word(g, space, offset, s.access, s.acquire, s.release, s.scope)

    def _uninitialized(self, g: Group, cell: Array, offset: Array, s: Site) -> None:
        written = (self.shared.write.reshape(-1).take(cell)
                   | self.shared.strong.reshape(-1).take(cell))
        if written.all():
            return
        bad = written == 0
        if bad.ndim == 3:
            bad = bad.any(axis=2)
        at = int(np.flatnonzero(np.broadcast_to(bad, g.shape).ravel())[0])
        value = int(np.broadcast_to(offset, g.shape).ravel()[at])
        self.x.find("initcheck", "uninitialized read", s.location,
                    f"{s.text}: {s.size} bytes at offset {value:#x} of shared memory were never "
                    "written", g, at, access=s.access, space="shared", size=s.size, address=value)

    # -- global memory ----------------------------------------------------------------------------

    def global_read(self, g: Group, region: Region, index: Array, s: Site, suspect: bool) -> None:
        """A load from global memory; suspect: the launch wrote some of it."""
        if region.race is None:
            if not suspect:
                self._note(g, region, index, s)
                if s.strong:
                    self._flag(g, "global", self._addresses(region, index, s), s)
                return
            self._open(region)
        shadow = region.race.shadow
        cell, who = self._global_cells(g, region, index, s)
        if s.strong:
            self._compare(g, shadow.write, cell, who, s, "write", region=region)
            e = self.event(s)
            _put(self._strong_reads(shadow), cell, e, who)
            self._flag(g, "global", self._addresses(region, index, s), s)
            return
        self._compare(g, shadow.write, cell, who, s, "write", region=region)
        self._compare(g, shadow.strong, cell, who, s, "atomic", region=region)
        self._note_read(shadow, cell, who, self.event(s))

    def global_write(self, g: Group, region: Region, index: Array, s: Site, data: Array,
                     suspect: bool) -> None:
        """A store to or atomic on global memory; suspect: the launch touched some of it."""
        if region.race is None and not suspect:
            self._note(g, region, index, s)
            if s.strong:
                self._flag(g, "global", self._addresses(region, index, s), s)
                return
            if not self._distinct(g, index):
                self._open(region, apart=1)
                self._write(g, region, index, s, data)
            return
        if region.race is None:
            self._open(region)
        self._write(g, region, index, s, data)
        if s.strong:
            self._flag(g, "global", self._addresses(region, index, s), s)

    def _write(self, g: Group, region: Region, index: Array, s: Site, data: Array) -> None:
        shadow = region.race.shadow
        cell, who = self._global_cells(g, region, index, s)
        atomic = s.access == "atomic"
        values = None if atomic else (index, data)
        if not s.strong:
            self._compare(g, shadow.strong, cell, who, s, "atomic", region=region)
            if shadow.strong_read is not None:
                self._compare(g, shadow.strong_read, cell, who, s, "read", region=region)
        self._compare(g, shadow.write, cell, who, s, "write", values, region=region)
        self._compare(g, shadow.read, cell, who, s, "read", region=region)
        self._compare(g, shadow.read2, cell, who, s, "read", region=region)
        e = self.event(s)
        layer = shadow.strong if s.strong else shadow.write
        cell, mine = _put(layer, cell, e, who)
        if not s.strong:
            self._same_cell(g, layer, cell, mine, who, data, s, region)

    def _distinct(self, g: Group, index: Array) -> bool:
        """Whether every thread has an address of its own."""
        if index.ndim == 3:
            index = index[..., 0]
        if index.size != g.size:
            return g.size == 1
        flat = index.ravel()
        steps = flat[1:] > flat[:-1]
        return bool(steps.all()) or len(np.unique(flat)) == len(flat)

    def _addresses(self, region: Region, index: Array, s: Site) -> Array:
        if index.ndim == 3:
            index = index[..., 0]
        result: Array = (index << s.shift) + region.start
        return result

    def _note(self, g: Group, region: Region, index: Array, s: Site) -> None:
        """Remember an access in case the region turns suspect."""
        self.event(s)
        launch = self.x.launch
        launch.notes.setdefault(region.start, []).append(
            (len(self.events) - 1, self, g, index, s))
        launch.noted += index.size
        if launch.noted > NOTES:
            for start in list(launch.notes):
                noted = self.x.space.find(start, start)
                assert noted is not None
                self._open(noted)
            launch.noted = 0

    def _open(self, region: Region, apart: int = 0) -> None:
        """Make the region's shadows from what was noted (but for the last `apart` accesses)."""
        region.race = _Opened(region)
        self.x.touch(region)
        notes = self.x.launch.notes.pop(region.start, [])
        shadow = region.race.shadow
        for e, races, g, index, s in notes[:len(notes) - apart]:
            cell, who = races._global_cells(g, region, index, s)
            if s.access == "read" and not s.strong:
                races._note_read(shadow, cell, who, e)
                continue
            layer = (self._strong_reads(shadow) if s.access == "read"
                     else shadow.strong if s.strong else shadow.write)
            _put(layer, cell, e, who)

    def _global_cells(self, g: Group, region: Region, index: Array,
                      s: Site) -> tuple[Array, Array]:
        """Cells are the bytes' fours; smaller accesses make them bytes."""
        unit: int = region.race.unit
        if s.size < unit:
            region.race.refine(s.size)
            unit = s.size
        if index.ndim == 3:
            index = index[..., 0]
        offset = index << s.shift
        who = (g.blk + self.x.first) * self.x.shape.threads + g.tid
        count = max(s.size // unit, 1)
        cell = offset // unit
        if cell.shape != g.shape:
            cell = np.broadcast_to(cell, g.shape)
        if count == 1:
            return cell, who
        return cell[..., None] + np.arange(count), who[..., None]

    # -- comparing --------------------------------------------------------------------------------

    def _compare(self, g: Group, layer: Array, cell: Array, who: Array, s: Site, access: str,
                 values: tuple[Array, Array] | None = None,
                 region: Region | None = None) -> None:
        """Report the first access of a layer that the present one is not ordered after."""
        before = layer.reshape(-1).take(cell)
        floor = self.order.floor if region is None else 0
        if int(before.max()) >> EVENT <= floor:
            return
        event = before >> EVENT & EVENTS
        other = before & WHO
        mine = other == who
        if region is None:
            real = g.tid if cell.ndim == 2 else g.tid[..., None]  # a twin follows its own thread
            mine = mine | (other == real)
        suspect = (before >> EVENT > floor) & (~mine | (before & SEVERAL != 0))
        if not suspect.any():
            return
        shape = suspect.shape
        at = np.flatnonzero(suspect)
        full = (*g.shape, shape[2]) if len(shape) == 3 else g.shape
        if shape != full:  # the same for all blocks: one block stands for all
            blk = np.zeros(len(at), np.int64) + int(g.blk.ravel()[0])
            tid = np.broadcast_to(g.tid if len(shape) == 2 else g.tid[..., None],
                                  shape).ravel()[at]
        else:
            blk = np.broadcast_to(g.blk if len(shape) == 2 else g.blk[..., None],
                                  shape).ravel()[at]
            tid = np.broadcast_to(g.tid if len(shape) == 2 else g.tid[..., None],
                                  shape).ravel()[at]
        event = np.broadcast_to(event, shape).ravel()[at]
        other = np.broadcast_to(other, shape).ravel()[at]
        n = self.x.shape.threads
        if region is None:
            other_block, other_thread = blk + self.x.first, other
        else:
            other_block, other_thread = other // n, other % n
        ordered = self.order.ordered(blk, tid, other_block, other_thread, event)
        if access == "atomic" and s.access == "write" and s.text.startswith("mbarrier.inval"):
            # lanes that use an mbarrier together count as one: the C++ library's pipelines let the
            # one whose lane was elected vouch for its warp
            for lane in range(WARP):
                near = other_thread // WARP * WARP + lane
                ordered = ordered | self.order.ordered(blk, tid, other_block, near, event)
        if ordered.all():
            return
        bad = np.flatnonzero(~ordered)
        if values is not None and access == "write":
            bad = self._differing(g, at, bad, shape, s, values, region)
            if not len(bad):
                return
        k = int(bad[0])
        site: Site = self.events[int(event[k])]
        kinds = {("read", True): "write after read", ("write", False): "read after write",
                 ("atomic", False): "read after write"}
        writes = s.access != "read"
        kind = kinds.get((access, writes), "write after write")
        tool = "racecheck"
        message = "nothing orders this {0} after the {1} of the same memory by another thread"
        if region is None and int(other_thread[k]) >= n:
            other_thread[k] -= n
            tool, kind = "synccheck", "missing wait"
            message = "an asynchronous copy precedes this {0}, and its {1} is not waited for"
            if not self.x.synccheck:
                return
        block = self.x.launch.block_index(int(blk[k]) + self.x.first)
        thread = self.x.launch.thread_index(int(tid[k]))
        party = Party(site.access, site.location.file, site.location.line,
                      self.x.launch.block_index(int(other_block[k])),
                      self.x.launch.thread_index(int(other_thread[k])))
        unit = self.cell if region is None else region.race.unit
        offset = int(np.broadcast_to(cell, shape).ravel()[at[k]]) * unit
        if region is None:
            offset %= self.cells * self.cell
        address = offset if region is None else region.start + offset
        self.x.find_at(tool, kind, s.location,
                       f"{s.text}: {message.format(s.access, site.access)}", block, thread,
                       access=s.access,
                       space="shared" if region is None else "global", size=s.size,
                       address=address, other=party, region=region)

    def _differing(self, g: Group, at: Array, bad: Array, shape: tuple[int, ...], s: Site,
                   values: tuple[Array, Array], region: Region | None) -> Array:
        """The accesses, of those in doubt, that do not write what is there already."""
        place, data = values
        if region is None:
            view = self.x.shared_views[s.piece]
            index = g.blk * view.shape[1] + (place >> s.shift)
            if s.pieces == 2:
                index = np.stack((index, index + 1), axis=-1)
            there = view.reshape(-1).take(index)
        else:
            there = region.views[s.piece].take(place)
        bits = np.dtype("u8") if s.piece == 16 else there.dtype
        full = np.broadcast_shapes(there.shape, data.shape)
        old, new = (np.ascontiguousarray(np.broadcast_to(a, full)).view(bits)
                    for a in (there, data))
        differ: Array = np.not_equal(old, new)
        if s.piece == 16:
            differ = np.asarray(differ.reshape(*full, 2).any(axis=-1))
        if differ.ndim == 3:
            differ = np.asarray(differ.any(axis=2))
        different: Array = np.broadcast_to(differ, g.shape)
        threads = at // shape[2] if len(shape) == 3 else at
        if (shape[0], shape[1]) != g.shape:
            return np.asarray(bad[np.any(different, axis=0)[threads[bad] % shape[1]]])
        return np.asarray(bad[different.ravel()[threads[bad]]])

    def _same_cell(self, g: Group, layer: Array, cell: Array, mine: Array, who: Array,
                   data: Array, s: Site, region: Region | None = None) -> None:
        """Threads that write different values to one cell in one instruction."""
        back = layer.take(cell)
        if (back == mine).all():
            return
        lost = back != mine
        if lost.ndim == 3:
            lost = lost.any(axis=2)
        # group the threads by cell, and compare each value with the one that stays
        first = cell[..., 0] if cell.ndim == 3 else cell
        keys = np.broadcast_to(first, np.broadcast_shapes(first.shape, g.shape)).ravel()
        bits = np.ascontiguousarray(np.broadcast_to(
            data, (*g.shape, *data.shape[2:]))).view(np.uint8).reshape(g.size, -1)
        if len(keys) != g.size:
            return
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        differ = same & (bits[order][1:] != bits[order][:-1]).any(axis=1)
        if (first.shape != g.shape or not differ.any()) and not differ.any():
            return
        k = int(np.flatnonzero(differ)[0])
        a, b = int(order[k]), int(order[k + 1])
        block, thread = self.x.coordinates(g, b)
        other_block, other_thread = self.x.coordinates(g, a)
        party = Party(s.access, s.location.file, s.location.line, other_block, other_thread)
        self.x.find_at("racecheck", "write after write", s.location,
                       f"{s.text}: two threads write different values to the same memory at once",
                       block, thread, access=s.access,
                       space="shared" if region is None else "global", size=s.size,
                       address=None, other=party, region=region)

    def _note_read(self, shadow: Shadow, cell: Array, who: Array, event: int) -> None:
        """Keep the read, and the last one of another warp."""
        read, read2 = shadow.read.reshape(-1), shadow.read2.reshape(-1)
        before = read.take(cell)
        other_warp = (before >> EVENT > 0) & ((before & WHO) // WARP != who // WARP)
        if other_warp.any():
            shape = other_warp.shape
            read2[np.broadcast_to(cell, shape)[other_warp]] = np.broadcast_to(
                before, shape)[other_warp]
        cell, mine = _put(read, cell, event, who)
        back = read.take(cell)
        if (back == mine).all():
            return
        others = back != mine
        apart = others & ((back & WHO) // WARP != (mine & WHO) // WARP)
        if apart.any():
            read2[cell[apart]] = mine[apart] | SEVERAL
        read[cell[others]] = back[others] | SEVERAL


class _Opened:
    """The shadows of a region of global memory."""

    def __init__(self, region: Region) -> None:
        self.unit = 4
        self.shadow = Shadow((len(region.data) // 4,))

    def refine(self, unit: int) -> None:
        """Smaller cells, for smaller accesses."""
        times = self.unit // unit
        self.unit = unit
        for name, layer in vars(self.shadow).items():
            if layer is not None:
                setattr(self.shadow, name, np.repeat(layer, times))




def _put(layer: Array, cell: Array, event: int, who: Array,
         twin: bool = False) -> tuple[Array, Array]:
    """Enter an event of the threads into cells; both with their common shape."""
    shape = np.broadcast_shapes(cell.shape, who.shape)
    cell = np.broadcast_to(cell, shape)
    mine = np.broadcast_to((TWIN if twin else 0) | event << EVENT | who, shape)
    layer[cell] = mine
    return cell, mine
