"""memcheck and initcheck: what is wrong with an address, and which threads may go on without it.

These are the slow paths of access.py: the fast path has seen that not all is well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import memory
from mlgpu.sim.group import Group, Part, Scatter
from mlgpu.sim.memory import Region
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
POISON_SHIFT = (memory.POISON // memory.INIT).bit_length() - 1  # from the one mark to the other


def uninitialized(x: Batch, g: Group, region: Region, marks: Array, index: Array, s: Site) -> None:
    """Report the first thread that reads bytes nobody wrote."""
    bits = x.mark_type[s.piece]
    # Poisoned bytes are reported as such.
    known = marks | (marks & bits(s.poison)) >> bits(POISON_SHIFT)
    found = _first(g, region, (known & bits(s.init)) != bits(s.init), index, s)
    if found is None:
        return
    at, address = found
    x.find("initcheck", "uninitialized read", s.location,
           f"{s.text}: {s.size} bytes at {address:#x} were never written" + region.note(address),
           g, at,
           access=s.access, space="global", size=s.size, address=address, region=region)


def poisoned(x: Batch, g: Group, region: Region, marks: Array, index: Array, s: Site) -> None:
    """Report the first thread that accesses bytes of a memory pool which belong to nobody."""
    if not x.memcheck:
        return
    bad = (marks & x.mark_type[s.piece](s.poison)) != 0
    bad = bad.reshape(*bad.shape[:2], -1).any(axis=2)
    offset = (index[..., 0] if index.ndim == 3 else index) << s.shift
    for low, high in region.layout.spared():
        bad = bad & ~((offset >= low) & (offset + s.size <= high))
    found = _first(g, region, bad, index, s)
    if found is None:
        return
    at, address = found
    told = region.layout.explain(address, s.size)
    x.find("memcheck", told.kind, s.location, f"{s.access} of {s.size} bytes at {address:#x}: "
           f"{told.text}", g, at, access=s.access, space="global", size=s.size, address=address,
           allocation=told.allocation)


def poisoned_bulk(x: Batch, one: Group, s: Site, region: Region, at: int, size: int) -> None:
    """Report a bulk copy that accesses bytes of a memory pool which belong to nobody."""
    if not x.memcheck or region.layout is None or not region.layout.poisoned(at, size).any():
        return
    told = region.layout.explain(region.start + at, size)
    x.find("memcheck", told.kind, s.location, f"{s.text}: {s.access} of {size} bytes at "
           f"{region.start + at:#x}: {told.text}", one, access=s.access, space="global", size=size,
           address=region.start + at, allocation=told.allocation)


def _first(g: Group, region: Region, bad: Array, index: Array, s: Site) -> tuple[int, int] | None:
    """The first thread with bad bytes, and the address it accesses."""
    bad = np.broadcast_to(bad.reshape(*bad.shape[:2], -1).any(axis=2), g.shape)
    if not bad.any():
        return None
    at = int(np.argmax(bad.ravel()))
    index = index[..., 0] if index.ndim == 3 else index
    return at, region.start + int(np.broadcast_to(index, g.shape).ravel()[at] << s.shift)


def bad_bulk(x: Batch, one: Group, s: Site, address: int, size: int) -> None:
    """Report a bulk copy whose global side lies in no region, or in one that is only read."""
    if not x.memcheck:
        return
    region = x.space.find(address, address + 1)
    near = region or x.space.nearest(address)
    meant = None if near is None else near.allocation(address)
    freed = x.space.was_freed(address)
    kind = ("use after free" if freed else "null pointer" if address < 4096
            else "read-only write" if x.space.find(address, address + size) else "out of bounds")
    x.find("memcheck", kind, s.location,
           f"{s.text}: {s.access} of {size} bytes at {address:#x}" + (
               f": {address + size - meant.address - meant.size} bytes beyond the end of the "
               "allocation" if meant is not None and kind == "out of bounds" else "") + (
                   x.space.hint(address) if kind == "out of bounds" else ""), one,
           access=s.access, space="global", size=size, address=address,
           region=freed or near)


def uninitialized_bulk(x: Batch, one: Group, s: Site, region: Region, at: int, size: int) -> None:
    """Report a bulk copy that reads global bytes nobody wrote."""
    bad = np.flatnonzero(region.marks[at:at + size] & (memory.INIT | memory.POISON) == 0)
    if not len(bad):
        return
    first = at + int(bad[0])
    x.find("initcheck", "uninitialized read", s.location,
           f"{s.text}: the byte at {region.start + first:#x} was never written", one,
           access="read", space="global", size=size, address=region.start + first,
           region=region)


def by_region(x: Batch, g: Group, address: Array, s: Site) -> list[Part]:
    """The parts of a group that access one region each; what is wrong is reported and left."""
    regions, starts = x.space.reachable()
    which = np.searchsorted(starts, address, side="right") - 1
    parts = []
    for k in np.unique(which):
        part = g.split(which == k)[0]
        assert part is not None
        there = part.pick(address)
        region = regions[k] if k >= 0 else None
        end = np.uint64(max(region.end - s.size + 1, 0)) if region is not None else 0
        good = (there < end) & ((there & np.uint64(s.size - 1)) == 0)
        if region is not None and region.read_only and s.access != "read":
            good &= False
        yes, no = part.group.split(good)
        if no is not None and x.memcheck:
            _bad_address(x, no.group, no.pick(there), s, region)
        if yes is not None:
            parts.append(_part_of_part(g, part, yes))
    return parts


def _bad_address(x: Batch, g: Group, address: Array, s: Site, region: Region | None) -> None:
    value = int(np.broadcast_to(address, g.shape).ravel()[0])
    fields: dict[str, Any] = {"access": s.access, "space": s.space or "global",
                              "size": s.size, "address": value}
    what = f"{s.access} of {s.size} bytes at {value:#x}"
    freed = x.space.was_freed(value)
    if region is not None and value + s.size <= region.end:
        if region.read_only and s.access != "read":
            x.find("memcheck", "read-only write", s.location,
                   f"{what}: constant memory cannot be written by a kernel", g,
                   region=region, **fields)
        else:
            x.find("memcheck", "misaligned", s.location,
                   f"{what}: not a multiple of {s.size}", g, region=region, **fields)
    elif freed is not None:
        x.find("memcheck", "use after free", s.location,
               f"{what}: freed at {freed.freed_at}", g, region=freed, **fields)
    elif value < 4096:
        x.find("memcheck", "null pointer", s.location, what, g, **fields)
    else:
        near = x.space.nearest(value)
        if near is not None:
            meant = near.allocation(value)
            before, end = meant.address - value, meant.address + meant.size
            what += (f": {before} bytes before" if before > 0 else
                     f": {value - end} bytes after the end of" if value >= end else
                     f": the last {value + s.size - end} bytes are beyond the end of")
            what += " the allocation"
        what += x.space.hint(value)
        x.find("memcheck", "out of bounds", s.location, what, g, region=near, **fields)


def shared_fits(x: Batch, address: Array, s: Site) -> bool:
    """Whether all offsets lie in the block's shared arrays and are aligned."""
    if int(address.max()) + s.size > x.launch.shared_size or (
            s.size > 1 and int(np.bitwise_or.reduce(address, axis=None)) & (s.size - 1)):
        return False
    gaps = x.launch.shared_gaps
    if gaps:
        low, high = int(address.min()), int(address.max()) + s.size
        if any(low < end and high > start for start, end in gaps):
            return bool(_in_arrays(x, address, s).all())
    return True


def _in_arrays(x: Batch, address: Array, s: Site) -> Array:
    """Which offsets lie within one of the block's shared arrays."""
    inside: Array = address < np.uint64(max(x.launch.shared_size - s.size + 1, 0))
    for low, high in x.launch.shared_gaps:
        inside &= (address + np.uint64(s.size) <= np.uint64(low)) | (address >= np.uint64(high))
    return inside


def shared_rest(x: Batch, g: Group, address: Array, s: Site) -> Part | None:
    """The threads whose offset is right (None: nobody's); the first other one is reported."""
    inside = _in_arrays(x, address, s)
    return _rest(x, g, address, s, inside, "shared",
                 lambda at: f"of shared memory: {x.launch.describe_shared(at)}")


def local_fits(x: Batch, address: Array, s: Site) -> bool:
    """Whether all offsets lie in the thread's local memory and are aligned."""
    return int(address.max()) + s.size <= x.code.local_size and not (
        s.size > 1 and int(np.bitwise_or.reduce(address, axis=None)) & (s.size - 1))


def local_rest(x: Batch, g: Group, address: Array, s: Site) -> Part | None:
    """The threads whose offset is right (None: nobody's); the first other one is reported."""
    inside = address < np.uint64(max(x.code.local_size - s.size + 1, 0))
    return _rest(x, g, address, s, inside, "local",
                 lambda at: f"of the thread's {x.code.local_size} bytes of local memory")


def _rest(x: Batch, g: Group, address: Array, s: Site, inside: Array, space: str,
          where: Callable[[int], str]) -> Part | None:
    yes, no = g.split(inside & ((address & np.uint64(s.size - 1)) == 0))
    if no is not None and x.memcheck:
        at = int(np.broadcast_to(no.pick(address), no.group.shape).ravel()[0])
        if np.broadcast_to(no.pick(inside), no.group.shape).ravel()[0]:
            kind, what = "misaligned", f"of {space} memory: not a multiple of {s.size}"
        else:
            kind, what = "out of bounds", where(at)
        x.find("memcheck", kind, s.location,
               f"{s.access} of {s.size} bytes at offset {at:#x} {what}", no.group,
               access=s.access, space=space, size=s.size, address=at)
    return yes


def _part_of_part(g: Group, outer: Part, inner: Part) -> Part:
    """A part of a part of g, as a part of g."""
    if inner.index is None:
        return outer
    if outer.index is None:
        return inner
    inside = np.zeros(outer.group.shape, bool)
    mask = np.zeros(g.shape, bool)
    for target, part, value in ((inside, inner, np.True_), (mask, outer, inside)):
        if part.axis == 1:
            target[:, part.index] = value
        elif part.axis == 0:
            target[part.index] = value
        else:
            target[part.index] = np.ravel(value) if np.ndim(value) else value
    return Part(Scatter(g.space, g.lin.reshape(g.shape)[mask]), mask, None)
