"""When two accesses of a cell are a race, and the finding that says so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.errors import Party
from mlgpu.sim.group import WARP, Group
from mlgpu.sim.memory import Region
from mlgpu.sim.order import Order
from mlgpu.sim.shadow import DEVICE_TWIN, EVENT, EVENTS, INNER, SEVERAL, WHO, Shadow
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]


class Conflicts:
    """Compares accesses with the shadows of a batch's memory."""

    def __init__(self, x: Batch, order: Order) -> None:
        self.x = x
        self.order = order
        self.events = x.launch.events

    def event(self, s: Site) -> int:
        """A new event, of a site."""
        self.events.append(s)
        return len(self.events) - 1

    def flag(self, g: Group, space: str, address: Array, s: Site) -> None:
        """A strong access, which may publish or collect."""
        self.order.flags.word(g, space, address, s.access, s.acquire, s.release, s.scope)

    def compare(self, g: Group, layer: Array, cell: Array, who: Array, s: Site, access: str,
                values: tuple[Array, Array] | None = None,
                region: Region | None = None, between_blocks: bool = False,
                first: bool = False) -> None:
        """Report the first access of a layer that the present one is not ordered after."""
        before = layer.reshape(-1).take(cell)
        floor = self.order.floor if region is None else 0
        if int(before.max()) >> EVENT <= floor:
            return
        event = before >> EVENT & EVENTS
        other = before & WHO
        # A thread's own accesses, which come before what it and its twin do.  What a twin has done
        # (copies.py) is nobody's own before the wait.
        real = (g.tid if region is None else
                (g.blk + self.x.first) * self.x.shape.threads + g.tid)
        mine = other == (real if cell.ndim == 2 else real[..., None])
        suspect = (before >> EVENT > floor) & (~mine | (before & SEVERAL != 0))
        if between_blocks:  # strong accesses of a block's scope, against those of other blocks
            n = self.x.shape.threads
            inner = (s.scope == "cta") | (before & INNER != 0)
            here = g.blk + self.x.first
            suspect = suspect & inner & ((other & ~DEVICE_TWIN) // n != (
                here if cell.ndim == 2 else here[..., None]))
        if not suspect.any():
            return
        shape = suspect.shape
        at = np.flatnonzero(suspect)
        g_blk, g_tid = (a if len(shape) == 2 else a[..., None] for a in (g.blk, g.tid))
        if shape[:2] == g.shape:
            blk = np.broadcast_to(g_blk, shape).ravel()[at]
        else:  # the same for all blocks: one block stands for all
            blk = np.full(len(at), int(g.blk.ravel()[0]))
        tid = np.broadcast_to(g_tid, shape).ravel()[at]
        event = np.broadcast_to(event, shape).ravel()[at]
        other = np.broadcast_to(other, shape).ravel()[at]
        n = self.x.shape.threads
        if region is None:
            other_block, other_thread = blk + self.x.first, other
        else:
            real_other = other & ~DEVICE_TWIN
            other_block = real_other // n
            other_thread = real_other % n + n * (other >= DEVICE_TWIN)
        ordered = self.order.ordered(blk, tid, other_block, other_thread, event, fenced=not first)
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
            twins = bad[other_thread[bad] >= n]
            bad = np.append(twins, self._differing(g, at, bad, shape, s, values, region))
            if not len(bad):
                return
        k = int(bad[0])
        unit = self.x.code.cell if region is None else region.race.unit
        offset = int(np.broadcast_to(cell, shape).ravel()[at[k]]) * unit
        if region is None:
            offset %= self.x.shared.shape[1]
        self._report(s, self.events[int(event[k])], access, (int(blk[k]), int(tid[k])),
                     (int(other_block[k]), int(other_thread[k])), offset, region, first)

    def compare_first(self, g: Group, shadow: Shadow, cell: Array, who: Array, s: Site,
                      region: Region | None = None) -> None:
        """Strong accesses never race, but one that comes before the first write reads nothing."""
        if shadow.first is not None and self.x.initcheck:
            alone = np.where(shadow.write.reshape(-1).take(cell) == 0,
                             shadow.first.reshape(-1).take(cell), 0)
            if alone.any():
                self.compare(g, shadow.first, cell, who, s, "write", region=region, first=True)

    def _report(self, s: Site, site: Site, access: str, mine: tuple[int, int],
                theirs: tuple[int, int], offset: int, region: Region | None,
                first: bool) -> None:
        """The finding; `mine` and `theirs` are block (in the batch, in the grid) and thread."""
        launch, n = self.x.launch, self.x.shape.threads
        other_block, other = theirs
        kinds = {("read", True): "write after read", ("write", False): "read after write",
                 ("atomic", False): "read after write"}
        tool, kind = "racecheck", kinds.get((access, s.access != "read"), "write after write")
        message = "nothing orders this {0} after the {1} of the same memory by another thread"
        if first:
            tool, kind = "initcheck", "uninitialized read"
            message = "nothing orders this {0} after the first {1} of the memory"
        elif other >= n:  # a twin
            if not self.x.synccheck:
                return
            other -= n
            tool, kind = "synccheck", "missing wait"
            message = "an asynchronous copy precedes this {0}, and its {1} is not waited for"
        party = Party(site.access, site.location.file, site.location.line,
                      launch.block_index(other_block), launch.thread_index(other))
        self.x.find_at(tool, kind, s.location,
                       f"{s.text}: {message.format(s.access, site.access)}",
                       launch.block_index(mine[0] + self.x.first), launch.thread_index(mine[1]),
                       access=s.access, space="shared" if region is None else "global",
                       size=s.size, address=offset if region is None else region.start + offset,
                       other=party, region=region)

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

    def same_cell(self, g: Group, layer: Array, cell: Array, mine: Array, who: Array,
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
