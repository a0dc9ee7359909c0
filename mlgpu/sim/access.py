"""Loads and stores of a group of threads: bounds, alignment, marks, races, counts, then the bytes.

Every function takes the batch, the group, the group's addresses and the site (the instruction with
what it accesses), and handles all threads at once.  The common case, one region and nothing wrong,
is a fixed number of passes over the addresses; anything else goes to the slow functions below it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import faults, memory
from mlgpu.sim.group import Grid
from mlgpu.sim.memory import INIT, PIECES, READ, WRITTEN, Region
from mlgpu.sim.site import ATOMIC, STRONG_READ, Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch
    from mlgpu.sim.group import Group, Part

Array = np.ndarray[Any, Any]

def _every(marks: Array) -> int:
    return int(np.bitwise_and.reduce(marks, axis=None))


def _some(marks: Array) -> int:
    return int(np.bitwise_or.reduce(marks, axis=None))


# -- global and constant memory ------------------------------------------------------------------

def load_global(x: Batch, g: Group, address: Array, s: Site) -> list[Array]:
    """The elements at the addresses, one array for each of the vector's components."""
    low, high = int(address.min()), int(address.max()) + s.size
    region = x.space.find(low, high)
    if region is None:
        return _load_apart(x, g, address, s)
    offset = (address - np.uint64(region.start)).view(np.int64)
    if s.size > 1 and x.memcheck and _some(offset) & (s.size - 1):
        return _load_apart(x, g, address, s)
    if s.space != "const":
        region.reach(low, high)
        x.counters.global_access(x, g, offset, s, region)
    index = offset >> s.shift
    if s.pieces == 2:
        index = np.stack((index, index + 1), axis=-1)
    check_read(x, g, region, index, s)
    return _components(region.views[s.piece].take(index), s, address.shape)


def check_read(x: Batch, g: Group, region: Region, index: Array, s: Site) -> None:
    """initcheck, the first look for a race, and the mark of the bytes read."""
    marks = region.mark_views[s.piece].take(index, axis=0)
    every, some = _every(marks), _some(marks)
    if some & s.poison:
        faults.poisoned(x, g, region, marks, index, s)
    if s.space == "const":
        if x.initcheck and ~every & s.init:
            faults.uninitialized(x, g, region, marks, index, s)
        return
    if x.carried is not None:
        init = x.mark_type[s.piece](s.init)
        bare = (marks & init) != init
        x.carried[g.blk, g.tid] = bare.reshape(*bare.shape[:2], -1).any(axis=2)
    elif x.initcheck and ~every & s.init:
        faults.uninitialized(x, g, region, marks, index, s)
    mark = s.ones * (STRONG_READ if s.strong else READ)
    if x.racecheck:
        x.races.globals.read(g, region, index, s, bool(some & s.ones * (
            (WRITTEN | ATOMIC if x.code.inner else WRITTEN) if s.strong else WRITTEN | ATOMIC)))
    if ~every & mark:
        region.mark_views[s.piece][index] = marks | x.mark_type[s.piece](mark)
        x.touch(region)


def store_global(x: Batch, g: Group, address: Array, s: Site, values: list[Array]) -> None:
    """Store the components at the addresses."""
    low, high = int(address.min()), int(address.max()) + s.size
    region = x.space.find(low, high)
    if region is None or (region.read_only and x.memcheck):
        _store_apart(x, g, address, s, values)
        return
    offset = (address - np.uint64(region.start)).view(np.int64)
    if s.size > 1 and x.memcheck and _some(offset) & (s.size - 1):
        _store_apart(x, g, address, s, values)
        return
    region.reach(low, high)
    x.counters.global_access(x, g, offset, s, region)
    index = offset >> s.shift
    data = joined(values, s, g.shape)
    if s.pieces == 2:
        index = np.stack((index, index + 1), axis=-1)
    x.changed = True
    check_write(x, g, region, index, s, data)
    if index.shape != data.shape:
        index = np.broadcast_to(index, np.broadcast_shapes(index.shape, data.shape))
    region.views[s.piece][index] = data


def check_write(x: Batch, g: Group, region: Region, index: Array, s: Site, data: Array) -> None:
    """The first look for a race, and the mark of the bytes written."""
    view = region.mark_views[s.piece]
    marks = view.take(index, axis=0)
    every, some = _every(marks), _some(marks)
    if some & s.poison:
        faults.poisoned(x, g, region, marks, index, s)
    mark = s.ones * (INIT | (WRITTEN if not s.strong else
                             ATOMIC | STRONG_READ if s.access == "atomic" else ATOMIC))
    if x.racecheck:
        x.races.globals.write(g, region, index, s, data, bool(some & s.ones * (
            WRITTEN | READ if s.strong and not x.code.inner
            else WRITTEN | READ | ATOMIC | STRONG_READ)), bool(s.strong and ~every & s.init))
    if ~every & mark:
        view[index] = marks | x.mark_type[s.piece](mark)
        x.touch(region)
    if x.carried is not None:
        bare = x.carried[g.blk, g.tid]
        places = index.reshape(*index.shape[:2], -1)
        written = x.mark_type[s.piece](~s.init & s.ones * 255)
        view[np.broadcast_to(places, (*bare.shape, places.shape[2]))[bare]] &= written


def _components(data: Array, s: Site, shape: tuple[int, ...]) -> list[Array]:
    """The elements of loaded pieces, each with the group's shape."""
    if s.count == 1:
        return [data.view(s.dtype)]
    parts = data.view(s.dtype).reshape(*shape, s.count)
    return [parts[..., i] for i in range(s.count)]


def joined(values: list[Array], s: Site, shape: tuple[int, ...]) -> Array:
    """Components as pieces, with the group's shape where they differ among threads."""
    if s.count == 1:
        value: Array = values[0].view(PIECES[s.piece])
        return value
    b = max(v.shape[0] for v in values)
    n = max(v.shape[1] for v in values)
    parts = np.empty((b, n, s.count), s.dtype)
    for i, v in enumerate(values):
        parts[..., i] = v
    pieces: Array = parts.view(PIECES[s.piece])
    return pieces if s.pieces == 2 else pieces[..., 0]


def _load_apart(x: Batch, g: Group, address: Array, s: Site) -> list[Array]:
    """A load whose threads are at fault, or access several regions."""
    results = [np.zeros(g.shape, s.dtype) for _ in range(s.count)]
    with x.counters.one_request(g, s):
        for part in faults.by_region(x, g, address, s):
            values = load_global(x, part.group, part.pick(address), s)
            for result, value in zip(results, values, strict=True):
                result[...] = part.put(value, result, g.shape)
    return results


def _store_apart(x: Batch, g: Group, address: Array, s: Site, values: list[Array]) -> None:
    with x.counters.one_request(g, s):
        for part in faults.by_region(x, g, address, s):
            store_global(x, part.group, part.pick(address), s,
                         [part.pick(v) for v in values])


def _load_rest(load: Any, x: Batch, g: Group, part: Part | None, address: Array,
               s: Site) -> list[Array]:
    """A load for the threads that are not at fault; the others get zeros."""
    zeros = [np.zeros(g.shape, s.dtype) for _ in range(s.count)]
    if part is None:
        return zeros
    values = load(x, part.group, part.pick(address), s)
    return [part.put(v, z, g.shape) for v, z in zip(values, zeros, strict=True)]


def _store_rest(store: Any, x: Batch, part: Part | None, address: Array, s: Site,
                values: list[Array]) -> None:
    if part is not None:
        store(x, part.group, part.pick(address), s, [part.pick(v) for v in values])


# -- shared memory -------------------------------------------------------------------------------

def load_shared(x: Batch, g: Group, address: Array, s: Site) -> list[Array]:
    """As load_global, at offsets in the block's shared memory."""
    if not faults.shared_fits(x, address, s):
        return _load_rest(load_shared, x, g, faults.shared_rest(x, g, address, s), address, s)
    offset = address.view(np.int64)
    x.counters.shared_access(x, g, offset, s)
    if x.races is not None:
        x.races.shared.read(g, offset, s)
    return shared_take(x, g, offset, s)


def shared_take(x: Batch, g: Group, offset: Array, s: Site) -> list[Array]:
    """The bytes themselves, without any check."""
    data = x.shared_views[s.piece]
    if offset.shape[0] == 1 and g.rows is None and isinstance(g, Grid):
        piece = data.take(_places(offset, s)[0], axis=1)  # the same places in every block
    else:
        piece = data.reshape(-1).take(_places(offset, s, g.blk * data.shape[1]))
    return _components(piece, s, piece.shape[:2])


def _places(offset: Array, s: Site, row: Array | None = None) -> Array:
    """Where the pieces of an access lie, in rows of pieces that begin at `row`."""
    place = offset >> s.shift if row is None else row + (offset >> s.shift)
    return np.stack((place, place + 1), axis=-1) if s.pieces == 2 else place


def store_shared(x: Batch, g: Group, address: Array, s: Site, values: list[Array]) -> None:
    """Store the components at offsets in the block's shared memory."""
    if not faults.shared_fits(x, address, s):
        _store_rest(store_shared, x, faults.shared_rest(x, g, address, s), address, s, values)
        return
    offset = address.view(np.int64)
    x.counters.shared_access(x, g, offset, s)
    data = joined(values, s, g.shape)
    if x.races is not None:
        x.races.shared.write(g, offset, s, data)
    shared_put(x, g, offset, s, data)


def shared_put(x: Batch, g: Group, offset: Array, s: Site, data: Array) -> None:
    """Write the pieces, without any check."""
    x.changed = True
    view = x.shared_views[s.piece]
    index = _places(offset, s, g.blk * view.shape[1])
    if index.shape != data.shape:
        index = np.broadcast_to(index, np.broadcast_shapes(index.shape, data.shape))
    view.reshape(-1)[index] = data


# -- local memory --------------------------------------------------------------------------------

def load_local(x: Batch, g: Group, address: Array, s: Site) -> list[Array]:
    """As load_global, at offsets in the thread's own local memory."""
    if not faults.local_fits(x, address, s):
        return _load_rest(load_local, x, g, faults.local_rest(x, g, address, s), address, s)
    offset = address.view(np.int64)
    x.counters.local_access(x, g, offset, s)
    view = x.local_views[s.piece]
    index = _places(offset, s, (g.blk * x.shape.threads + g.tid) * view.shape[1])
    piece = view.reshape(-1).take(index)
    return _components(piece, s, piece.shape[:2])


def store_local(x: Batch, g: Group, address: Array, s: Site, values: list[Array]) -> None:
    """Store the components at offsets in the thread's own local memory."""
    if not faults.local_fits(x, address, s):
        _store_rest(store_local, x, faults.local_rest(x, g, address, s), address, s, values)
        return
    offset = address.view(np.int64)
    x.counters.local_access(x, g, offset, s)
    view = x.local_views[s.piece]
    index = _places(offset, s, (g.blk * x.shape.threads + g.tid) * view.shape[1])
    view.reshape(-1)[index] = joined(values, s, g.shape)


# -- generic addresses ---------------------------------------------------------------------------

def load_generic(x: Batch, g: Group, address: Array, s: Site) -> list[Array]:
    """A load through an address whose space is known only now."""
    _low, high = int(address.min()), int(address.max())
    if high < memory.SHARED_WINDOW:
        return load_global(x, g, address, s)
    results = [np.zeros(g.shape, s.dtype) for _ in range(s.count)]
    for part, load, base in in_spaces(g, address, load_global, load_shared, load_local):
        there = part.pick(address) - np.uint64(base)
        values: list[Array] = load(x, part.group, there, s)
        if part.index is None:
            return values
        results = [part.put(v, r, g.shape) for v, r in zip(values, results, strict=True)]
    return results


def store_generic(x: Batch, g: Group, address: Array, s: Site, values: list[Array]) -> None:
    """A store through an address whose space is known only now."""
    for part, store, base in in_spaces(g, address, store_global, store_shared, store_local):
        store(x, part.group, part.pick(address) - np.uint64(base), s,
              [part.pick(v) for v in values])


def in_spaces(g: Group, address: Array, in_global: Any, in_shared: Any, in_local: Any) -> list[Any]:
    """The parts of a group whose addresses lie in each space, with that space's function."""
    found = []
    shared, local, end = (np.uint64(memory.SHARED_WINDOW), np.uint64(memory.LOCAL_WINDOW),
                          np.uint64(memory.LOCAL_WINDOW + memory.WINDOW))
    for function, base, inside in (
            (in_global, 0, (address < shared) | (address >= end)),
            (in_shared, memory.SHARED_WINDOW, (address >= shared) & (address < local)),
            (in_local, memory.LOCAL_WINDOW, (address >= local) & (address < end))):
        part = g.split(inside)[0]
        if part is not None:
            found.append((part, function, base))
    return found


def generic_space(g: Group, address: Array) -> str:
    """The one space all addresses lie in, or ""."""
    low, high = int(address.min()), int(address.max())
    if high < memory.SHARED_WINDOW:
        return "global"
    if low >= memory.SHARED_WINDOW and high < memory.LOCAL_WINDOW:
        return "shared"
    if low >= memory.LOCAL_WINDOW and high < memory.LOCAL_WINDOW + memory.WINDOW:
        return "local"
    return ""


# -- under a predicate ---------------------------------------------------------------------------

def guarded(function: Any, x: Batch, g: Group, p: Array, *arrays: Any) -> None:
    """Call a function without a result for the threads where the predicate is on."""
    part = g.split(p)[0]
    if part is not None:
        function(x, part.group, *_picked(part, arrays))


def guarded_values(function: Any, x: Batch, g: Group, p: Array, old: list[Array],
                   *arrays: Any) -> list[Array]:
    """As `guarded`, for a function that gives a list of values: the old ones stay elsewhere."""
    part = g.split(p)[0]
    if part is None:
        return old
    values = function(x, part.group, *_picked(part, arrays))
    return [part.put(v, o, g.shape) for v, o in zip(values, old, strict=True)]


def _picked(part: Part, arrays: tuple[Any, ...]) -> list[Any]:
    return [part.pick(a) if isinstance(a, np.ndarray)
            else [part.pick(v) for v in a] if isinstance(a, list) else a for a in arrays]

