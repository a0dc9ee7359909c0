"""racecheck of global memory, by all batches of a launch.

Most launches never touch the same bytes of a region twice in a way that could matter: the marks of
memory.py say so, and accesses are only noted.  At the first suspicion the region gets shadows, made
of the notes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.conflict import Conflicts
from mlgpu.sim.group import Group
from mlgpu.sim.memory import INIT, READ, WRITTEN, Region
from mlgpu.sim.shadow import DEVICE_TWIN, EVENT, INNER, SEVERAL, Shadow, put
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
NOTES = 1 << 25  # addresses noted before shadows are made all the same: 256 MiB


class Opened:
    """The shadows of a region of global memory."""

    def __init__(self, region: Region) -> None:
        self.unit = 4  # bytes of a cell
        self.shadow = Shadow((len(region.data) // 4,), region.sparse)

    def refine(self, unit: int) -> None:
        """Smaller cells, for smaller accesses."""
        self.shadow.refine(self.unit // unit)
        self.unit = unit


class GlobalRaces:
    """What a batch does to global memory."""

    def __init__(self, x: Batch, conflicts: Conflicts) -> None:
        self.x = x
        self.conflicts = conflicts
        self.check = x.racecheck

    def read(self, g: Group, region: Region, index: Array, s: Site, suspect: bool) -> None:
        """A load from global memory; suspect: the launch wrote some of it."""
        if region.race is None:
            if not suspect:
                self._note(g, region, index, s)
                if s.strong:
                    self.conflicts.flag(g, "global", self._addresses(region, index, s), s)
                return
            self._open(region)
        shadow = region.race.shadow
        cell, who = self._cells(g, region, index, s)
        if s.strong:
            self.conflicts.compare(g, shadow.write, cell, who, s, "write", region=region)
            self._between_blocks(g, region, cell, who, s)
            self.conflicts.compare_first(g, shadow, cell, who, s, region)
            e = self.conflicts.event(s)
            put(shadow.strong_reads(), cell, e, who, INNER if s.scope == "cta" else 0)
            self.conflicts.flag(g, "global", self._addresses(region, index, s), s)
            return
        self.conflicts.compare(g, shadow.write, cell, who, s, "write", region=region)
        self.conflicts.compare(g, shadow.strong, cell, who, s, "atomic", region=region)
        shadow.note_read(cell, who, self.conflicts.event(s))

    def write(self, g: Group, region: Region, index: Array, s: Site, data: Array,
              suspect: bool, new: bool) -> None:
        """A store to or atomic on global memory; suspect: the launch touched some of it; new:
        it is a strong access of some that nobody has written yet."""
        inner = s.strong and s.scope == "cta"
        if region.race is None and not suspect and not inner and not new:
            self._note(g, region, index, s)
            if s.strong:
                self.conflicts.flag(g, "global", self._addresses(region, index, s), s)
                return
            if not self._distinct(g, index):
                self._open(region, apart=1)
                self._write(g, region, index, s, data)
            return
        if region.race is None:
            self._open(region)
        self._write(g, region, index, s, data)
        if s.strong:
            self.conflicts.flag(g, "global", self._addresses(region, index, s), s)

    def _write(self, g: Group, region: Region, index: Array, s: Site, data: Array) -> None:
        shadow = region.race.shadow
        cell, who = self._cells(g, region, index, s)
        atomic = s.access == "atomic"
        values = None if atomic else (index, data)
        if not s.strong:
            self.conflicts.compare(g, shadow.strong, cell, who, s, "atomic", region=region)
            if shadow.strong_read is not None:
                self.conflicts.compare(g, shadow.strong_read, cell, who, s, "read", region=region)
        self.conflicts.compare(g, shadow.write, cell, who, s, "write", values, region=region)
        self.conflicts.compare(g, shadow.read, cell, who, s, "read", region=region)
        self.conflicts.compare(g, shadow.read2, cell, who, s, "read", region=region)
        if s.strong:
            self._between_blocks(g, region, cell, who, s)
        if atomic:
            self.conflicts.compare_first(g, shadow, cell, who, s, region)
        e = self.conflicts.event(s)
        if s.strong:
            shadow.note_first(cell, who, e, region.marks[cell * region.race.unit] & INIT == 0)
        layer = shadow.strong if s.strong else shadow.write
        inner = s.strong and s.scope == "cta"
        cell, mine = put(layer, cell, e, who, INNER if inner else 0)
        if inner:  # blocks that meet in this very instruction
            self._between_blocks(g, region, cell, who, s)
        if not s.strong:
            self.conflicts.same_cell(g, layer, cell, mine, who, data, s, region)

    def _between_blocks(self, g: Group, region: Region, cell: Array, who: Array,
                        s: Site) -> None:
        """Strong accesses with a block's scope are strong for that block only."""
        if self.x.code.inner:
            shadow = region.race.shadow
            self.conflicts.compare(g, shadow.strong, cell, who, s, "atomic", region=region,
                                   between_blocks=True)
            if s.access != "read" and shadow.strong_read is not None:
                self.conflicts.compare(g, shadow.strong_read, cell, who, s, "read", region=region,
                                       between_blocks=True)

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
        self.conflicts.event(s)
        launch = self.x.launch
        launch.notes.setdefault(region.start, []).append(
            (len(self.conflicts.events) - 1, self, g, index, s))
        launch.noted += index.size
        if launch.noted > NOTES:
            for start in list(launch.notes):
                noted = self.x.space.find(start, start)
                assert noted is not None
                self._open(noted)
            launch.noted = 0

    def _open(self, region: Region, apart: int = 0) -> None:
        """Make the region's shadows from what was noted (but for the last `apart` accesses)."""
        self.x.touch(region)
        region.race = Opened(region)
        notes = self.x.launch.notes.pop(region.start, [])
        shadow = region.race.shadow
        for e, races, g, index, s in notes[:len(notes) - apart]:
            cell, who = races._cells(g, region, index, s)
            if s.access == "read" and not s.strong:
                shadow.note_read(cell, who, e)
                continue
            layer = (shadow.strong_reads() if s.access == "read"
                     else shadow.strong if s.strong else shadow.write)
            put(layer, cell, e, who, INNER if s.strong and s.scope == "cta" else 0)

    def _cells(self, g: Group, region: Region, index: Array,
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

    def bulk(self, one: Group, region: Region, at: int, size: int, s: Site) -> Array:
        """The global side of a bulk copy, whose writing the thread's twin does; the cells."""
        if region.race is None:
            self._open(region)
        shadow, unit = region.race.shadow, region.race.unit
        cell = np.arange(at // unit, (at + size) // unit)[None]
        who = (one.blk + self.x.first) * self.x.shape.threads + one.tid
        if s.access != "read":
            who = who | DEVICE_TWIN
        layers = [(shadow.write, "write")]
        if not s.strong:
            layers.append((shadow.strong, "atomic"))
        if s.access != "read":
            layers += [(shadow.read, "read"), (shadow.read2, "read")]
        if self.check:
            for layer, access in layers:
                self.conflicts.compare(one, layer, cell, who, s, access, region=region)
        if s.access == "read":
            shadow.note_read(cell, who, self.conflicts.event(s))
        else:
            layer = shadow.strong if s.strong else shadow.write
            put(layer, cell, self.conflicts.event(s), who)
        region.marks[at:at + size] |= READ if s.access == "read" else WRITTEN
        self.x.touch(region)
        return cell

    def own(self, region: Region, cells: Array, blk: Array, tid: Array, event: int,
            s: Site) -> None:
        """Threads have waited for what their bulk copies write."""
        if region.race is None:
            return
        shadow = region.race.shadow
        thread = ((blk + self.x.first) * self.x.shape.threads + tid)[:, None]
        now = self.conflicts.event(s)
        for layer in (shadow.write, shadow.strong):
            there = layer[cells]
            mine = (there & ~SEVERAL) == (event << EVENT | thread | DEVICE_TWIN)
            layer[cells] = np.where(mine, now << EVENT | thread, there)
