"""racecheck and initcheck of a batch's shared memory.

As long as all blocks of the batch do the same, one row of shadows stands for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.conflict import Conflicts
from mlgpu.sim.errors import Party
from mlgpu.sim.group import Grid, Group
from mlgpu.sim.shadow import EVENT, EVENTS, SEVERAL, TWIN, WHO, Shadow, put, readers
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]


class SharedRaces:
    """The shadows of shared memory."""

    def __init__(self, x: Batch, conflicts: Conflicts) -> None:
        self.x = x
        self.conflicts = conflicts
        self.check = x.racecheck
        self.cell = x.code.cell
        self.cells = x.shared.shape[1] // self.cell
        self.shadow = Shadow((1, self.cells))
        self.strong = False  # something has written or updated it strongly

    def _cells(self, g: Group, offset: Array, s: Site) -> tuple[Array, Array, bool]:
        """The cells of an access as (…, cells of one access), the threads, and whether all blocks
        do the same (then the shadow has one row)."""
        count = max(s.size // self.cell, 1)
        cell = offset // self.cell if count == 1 else (
            (offset // self.cell)[..., None] + np.arange(count))
        tid = g.tid if count == 1 else g.tid[..., None]
        same = isinstance(g, Grid) and g.rows is None and offset.shape[0] == 1
        if same and len(self.shadow.write) == 1:
            return cell, tid, True
        self._expand()
        blk = g.blk if count == 1 else g.blk[..., None]
        return blk * self.cells + cell, tid, False

    def _expand(self) -> None:
        """Give every block a row of its own."""
        blocks = self.x.shape.blocks
        if len(self.shadow.write) != blocks:
            self.shadow.spread(blocks)

    def read(self, g: Group, offset: Array, s: Site) -> None:
        """A load from shared memory."""
        if not s.strong and self.check and self._quiet(g, offset, s):
            return
        cell, tid, _same = self._cells(g, offset, s)
        shadow = self.shadow
        if self.x.initcheck:
            self._uninitialized(g, cell, offset, s)
        if not self.check:
            return
        self.conflicts.compare(g, shadow.write, cell, tid, s, "write")
        if s.strong:
            self.conflicts.compare_first(g, shadow, cell, tid, s)
            e = self.conflicts.event(s)
            put(shadow.strong_reads().reshape(-1), cell, e, tid)
            self.conflicts.flag(g, "shared", offset, s)
            return
        self.conflicts.compare(g, shadow.strong, cell, tid, s, "atomic")
        shadow.note_read(cell, tid, self.conflicts.event(s))

    def _quiet(self, g: Group, offset: Array, s: Site) -> bool:
        """Note a load that all blocks do alike, if it follows whatever was written: most do, and
        then one look at each cell does for all its readers."""
        if offset.shape[0] != 1 or g.rows is not None or not isinstance(g, Grid) or (
                len(self.shadow.write) != 1):
            return False
        base, relative = self.x.pattern(offset)
        found = readers(relative, max(s.size // self.cell, 1), self.cell,
                        self.x.shape.threads if g.cols is None else g.cols.tobytes())
        shadow = self.shadow
        cells = found.cells + base // self.cell
        written = shadow.write.reshape(-1).take(cells)
        if self.strong:
            written = np.maximum(written, shadow.strong.reshape(-1).take(cells))
        if int(written.max()) >> EVENT > self.conflicts.order.floor or (
                self.x.initcheck and not written.all()):
            return False
        shadow.note_readers(found, cells, self.conflicts.event(s))
        return True

    def write(self, g: Group, offset: Array, s: Site, data: Array) -> None:
        """A store to shared memory."""
        cell, tid, _same = self._cells(g, offset, s)
        self._write(g, offset, s, data, cell, tid)

    def _write(self, g: Group, offset: Array, s: Site, data: Array, cell: Array, tid: Array,
               flags: int = 0) -> None:
        shadow = self.shadow
        if self.check:
            if not s.strong:
                self.conflicts.compare(g, shadow.strong, cell, tid, s, "atomic", (offset, data))
                if shadow.strong_read is not None:
                    self.conflicts.compare(g, shadow.strong_read, cell, tid, s, "read")
            self.conflicts.compare(g, shadow.write, cell, tid, s, "write", (offset, data))
            for reads in self._reads():
                self.conflicts.compare(g, reads, cell, tid, s, "read")
        e = self.conflicts.event(s)
        if s.strong:
            self.strong = True
            shadow.note_first(cell, tid, e, self._new(cell))
        layer = (shadow.strong if s.strong else shadow.write).reshape(-1)
        cell, mine = put(layer, cell, e, tid, flags)
        if self.check and not s.strong:
            self.conflicts.same_cell(g, layer, cell, mine, tid, data, s)
        if s.strong:
            self.conflicts.flag(g, "shared", offset, s)

    def _new(self, cell: Array) -> Array:
        """Which cells nobody has written."""
        shadow = self.shadow
        result: Array = (shadow.write.reshape(-1).take(cell)
                         | shadow.strong.reshape(-1).take(cell)) == 0
        return result

    def _reads(self) -> list[Array]:
        """The layers of reads that a write must be ordered after."""
        shadow = self.shadow
        return [shadow.read, shadow.read2,
                *([] if shadow.copy_read is None else [shadow.copy_read])]

    # -- asynchronous copies (copies.py): the thread's twin acts ----------------------------------

    def copy_write(self, g: Group, offset: Array, s: Site, data: Array) -> Array:
        """`cp.async` writes shared memory; the cells, a row for each thread."""
        self._expand()
        cell, tid, _ = self._cells(g, offset, s)
        self._write(g, offset, s, data, cell, tid + self.x.shape.threads, TWIN)
        shape = (*g.shape, cell.shape[2]) if cell.ndim == 3 else g.shape
        result: Array = np.broadcast_to(cell, shape).reshape(g.size, -1)
        return result

    def own(self, layer: str, cells: Array, blk: Array, tid: Array, event: int, s: Site) -> None:
        """Threads have waited for copies: they are their own doing from now on."""
        flat = getattr(self.shadow, layer).reshape(-1)
        there = flat[cells]
        twins = TWIN | event << EVENT | (tid + self.x.shape.threads)[:, None]
        mine = (there & ~SEVERAL) == twins
        now = self.conflicts.event(s)
        flat[cells] = np.where(mine, (now << EVENT) | tid[:, None], there)

    def bulk_write(self, one: Group, offset: int, size: int, s: Site) -> None:
        """A bulk copy writes shared memory."""
        cell, tid = self._bulk_cells(one, offset, size)
        shadow = self.shadow
        if self.check:
            self.conflicts.compare(one, shadow.write, cell, tid, s, "write")
            self.conflicts.compare(one, shadow.strong, cell, tid, s, "atomic")
            for reads in self._reads():
                self.conflicts.compare(one, reads, cell, tid, s, "read")
        put(shadow.write.reshape(-1), cell, self.conflicts.event(s), tid, TWIN)

    def bulk_read(self, one: Group, offset: int, size: int, s: Site) -> Array:
        """A bulk copy reads shared memory; the cells."""
        cell, tid = self._bulk_cells(one, offset, size)
        shadow = self.shadow
        if self.x.initcheck:
            self._uninitialized(one, cell[None], np.array([[offset]]), s)
        if self.check:
            self.conflicts.compare(one, shadow.write, cell, tid, s, "write")
            self.conflicts.compare(one, shadow.strong, cell, tid, s, "atomic")
            self._unfenced(one, cell, s)
        put(shadow.copy_reads().reshape(-1), cell, self.conflicts.event(s), tid, TWIN)
        return cell

    def _bulk_cells(self, one: Group, offset: int, size: int) -> tuple[Array, Array]:
        self._expand()
        first = int(one.blk[0, 0]) * self.cells + offset // self.cell
        return np.arange(first, first + size // self.cell)[None], one.tid + self.x.shape.threads

    def barrier_of_copy(self, one: Group, offset: int, s: Site) -> None:
        """A bulk copy counts its bytes at an mbarrier, whose init must have been fenced."""
        if self.check:
            self._unfenced(one, self._bulk_cells(one, offset, 8)[0], s)

    def _unfenced(self, one: Group, cell: Array, s: Site) -> None:
        """What threads wrote reaches a bulk copy only past a fence.proxy.async."""
        written = self.shadow.write.reshape(-1)[cell[0]]
        event, who = written >> EVENT & EVENTS, written & WHO
        n = self.x.shape.threads
        fences = self.x.copies().proxy_fence[int(one.blk[0, 0])]
        by_threads = (event > self.conflicts.order.start) & (who < n)
        fenced = np.maximum(fences[np.where(who < n, who, 0)], fences[int(one.tid[0, 0])])
        bad = np.flatnonzero(by_threads & (fenced < event))
        if not len(bad):
            return
        k = int(bad[0])
        site: Site = self.conflicts.events[int(event[k])]
        block, thread = self.x.coordinates(one)
        self.x.find_at("racecheck", "read after write", s.location,
                       f"{s.text}: no fence.proxy.async lies between the writing of this memory "
                       "and the bulk copy that uses it", block, thread, access="read",
                       space="shared", size=s.size,
                       address=int(cell[0, k] % self.cells) * self.cell,
                       other=Party(site.access, site.location.file, site.location.line, block,
                                   self.x.launch.thread_index(int(who[k]))))

    def atomic(self, g: Group, offset: Array, s: Site, reads: bool) -> None:
        """An atomic on shared memory."""
        cell, tid, _same = self._cells(g, offset, s)
        shadow = self.shadow
        if self.x.initcheck and reads:
            self._uninitialized(g, cell, offset, s)
        if self.check:
            self.conflicts.compare(g, shadow.write, cell, tid, s, "write")
            for layer in self._reads():
                self.conflicts.compare(g, layer, cell, tid, s, "read")
            if reads:
                self.conflicts.compare_first(g, shadow, cell, tid, s)
        e = self.conflicts.event(s)
        self.strong = True
        shadow.note_first(cell, tid, e, self._new(cell))
        put(shadow.strong.reshape(-1), cell, e, tid)
        self.conflicts.flag(g, "shared", offset, s)

    def _uninitialized(self, g: Group, cell: Array, offset: Array, s: Site) -> None:
        bad = self._new(cell)
        if not bad.any():
            return
        if bad.ndim == 3:
            bad = np.asarray(bad.any(axis=2))
        at = int(np.flatnonzero(np.broadcast_to(bad, g.shape).ravel())[0])
        value = int(np.broadcast_to(offset, g.shape).ravel()[at])
        self.x.find("initcheck", "uninitialized read", s.location,
                    f"{s.text}: {s.size} bytes at offset {value:#x} of shared memory were never "
                    "written", g, at, access=s.access, space="shared", size=s.size, address=value)
