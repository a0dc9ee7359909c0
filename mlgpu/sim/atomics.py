"""Read-modify-write operations of a group of threads on the same memory.

The hardware takes them in some order; here it is the order of blocks and threads.  Where no two
threads meet, the operation is one gather and one scatter.  Where they do, they are sorted by
address; sums, exchanges and the like then have closed forms along each run of equal addresses, and
what has none goes round by round, the first thread of every address first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from mlgpu.sim import faults, memory
from mlgpu.sim.access import check_write, in_spaces
from mlgpu.sim.memory import Region
from mlgpu.sim.numeric import rounding
from mlgpu.sim.numeric.types import DTYPES
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch
    from mlgpu.sim.group import Group

Array = np.ndarray[Any, Any]
OPERATIONS = ("add", "and", "or", "xor", "min", "max", "exch", "cas", "inc", "dec")
PACKED = {"f16x2": np.dtype(np.float16), "bf16x2": np.dtype(ml_dtypes.bfloat16),
          "f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}


def atomic(x: Batch, g: Group, address: Array, s: Site, operation: str, kind: str, result: bool,
           *operands: list[Array]) -> list[Array]:
    """The operation on each thread's address; the old values where `result` asks for them."""
    if s.space == "":
        _low, high = int(address.min()), int(address.max())
        if high < memory.SHARED_WINDOW:
            return _global(x, g, address, s, operation, kind, result, operands)
        results = [np.zeros(g.shape, s.dtype) for _ in range(s.count)]
        for part, function, base in in_spaces(g, address, _global, _shared, _no_local):
            values = function(x, part.group, part.pick(address) - np.uint64(base), s, operation,
                              kind, result, tuple([part.pick(v) for v in o] for o in operands))
            results = [part.put(v, r, g.shape) for v, r in zip(values, results, strict=True)] \
                if result else results
        return results
    function = _shared if s.space == "shared" else _global
    return function(x, g, address, s, operation, kind, result, operands)


def _no_local(x: Batch, g: Group, address: Array, s: Site, *rest: Any) -> list[Array]:
    if x.memcheck:
        x.find("memcheck", "out of bounds", s.location,
               f"{s.text}: atomics work on global and shared memory, not on local memory", g,
               access="atomic", space="local", size=s.size, address=int(address.ravel()[0]))
    return [np.zeros(g.shape, s.dtype) for _ in range(s.count)]


def _global(x: Batch, g: Group, address: Array, s: Site, operation: str, kind: str, result: bool,
            operands: tuple[list[Array], ...]) -> list[Array]:
    low, high = int(address.min()), int(address.max()) + s.size
    region = x.space.find(low, high)
    offset = None
    if region is not None and not region.read_only:
        offset = (address - np.uint64(region.start)).view(np.int64)
        if s.size > 1 and int(np.bitwise_or.reduce(offset, axis=None)) & (s.size - 1):
            offset = None
    if region is None or offset is None:
        results = [np.zeros(g.shape, s.dtype) for _ in range(s.count)]
        with x.counters.one_request(g, s):
            for part in faults.by_region(x, g, address, s):
                values = _global(x, part.group, part.pick(address), s, operation, kind, result,
                                 tuple([part.pick(v) for v in o] for o in operands))
                if result:
                    results = [part.put(v, r, g.shape)
                               for v, r in zip(values, results, strict=True)]
        return results
    region.reach(low, high)
    x.counters.global_access(x, g, offset, s, region)
    index = offset >> s.shift
    _check(x, g, region, index, s, address, operation)
    if operation == "add" and kind == "f32":
        operation = "add flushed"
    return _apply(x, g, region.views[s.dtype.itemsize], offset // s.dtype.itemsize, s, operation,
                  kind, result, operands)


def _check(x: Batch, g: Group, region: Region, index: Array, s: Site, address: Array,
           operation: str) -> None:
    if x.initcheck and operation != "exch":
        marks = region.mark_views[s.piece].take(index, axis=0)
        if ~int(np.bitwise_and.reduce(marks, axis=None)) & s.init:
            faults.uninitialized(x, g, region, marks, index, s)
    check_write(x, g, region, index, s, address)


def _shared(x: Batch, g: Group, address: Array, s: Site, operation: str, kind: str, result: bool,
            operands: tuple[list[Array], ...]) -> list[Array]:
    if not faults.shared_fits(x, address, s):
        results = [np.zeros(g.shape, s.dtype) for _ in range(s.count)]
        part = faults.shared_rest(x, g, address, s)
        if part is not None:
            values = _shared(x, part.group, part.pick(address), s, operation, kind, result,
                             tuple([part.pick(v) for v in o] for o in operands))
            if result:
                results = [part.put(v, r, g.shape) for v, r in zip(values, results, strict=True)]
        return results
    offset = address.view(np.int64)
    x.counters.shared_access(x, g, offset, s)
    if x.races is not None:
        x.races.shared.atomic(g, offset, s, reads=operation != "exch")
    view = x.shared_views[s.dtype.itemsize]
    index = g.blk * view.shape[1] + offset // s.dtype.itemsize
    return _apply(x, g, view.reshape(-1), index, s, operation, kind, result, operands)


def _apply(x: Batch, g: Group, view: Array, index: Array, s: Site, operation: str, kind: str,
           result: bool, operands: tuple[list[Array], ...]) -> list[Array]:
    """The operation on elements of an array of raw bits."""
    where = np.broadcast_to(index, g.shape).ravel()
    olds: list[Array] = []
    for i in range(s.count):
        values = [np.ascontiguousarray(np.broadcast_to(o[i], g.shape)).ravel() for o in operands]
        target = view
        if kind in PACKED:
            target = view.view(PACKED[kind])
            lanes = s.dtype.itemsize // PACKED[kind].itemsize
            halves: list[Any] = []
            for half in range(lanes):
                pieces = [v.view(PACKED[kind])[half::lanes] for v in values]
                halves.append(_run(x, target, (where + i) * lanes + half, operation, pieces,
                                   result))
            if result:
                olds.append(np.stack(halves, axis=-1).view(s.dtype).reshape(g.shape))
            continue
        target = view.view(s.dtype)
        old = _run(x, target, where + i, operation, [v.view(s.dtype) for v in values], result)
        if result and old is not None:
            olds.append(old.reshape(g.shape))
    return olds


def bulk(to: Array, source: Array, operation: str, kind: str) -> None:
    """Combine bytes in place, element by element: the reduction of a bulk copy."""
    dtype = PACKED.get(kind, DTYPES[kind])
    target = to.view(dtype)
    target[...] = STEPS[operation](target, source.view(dtype))


def _run(x: Batch, view: Array, index: Array, operation: str, values: list[Array],
         result: bool) -> Array | None:
    """Apply the operation thread by thread; the old values if asked for."""
    step = STEPS[operation]
    order = np.argsort(index, kind="stable")
    at = index[order]
    new = np.empty(len(at), bool)
    new[0] = True
    np.not_equal(at[1:], at[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    if len(starts) == len(at):  # nobody meets
        old = view[index]
        changed = step(old, *values)
        x.changed = x.changed or bool((changed != old).any())
        view[index] = changed
        return old
    integer = view.dtype.kind in "iu"
    addresses = at[starts]
    before = view[addresses]
    run = np.cumsum(new) - 1  # which address each sorted thread works on
    sorted_values = [v[order] for v in values]
    old_sorted: Array | None = None
    if operation == "exch":
        old_sorted = np.empty_like(sorted_values[0])
        old_sorted[1:] = sorted_values[0][:-1]
        old_sorted[starts] = before
        view[addresses] = sorted_values[0][np.append(starts[1:], len(at)) - 1]
    elif operation == "add" and integer:
        v = sorted_values[0]
        sums = np.cumsum(v, dtype=v.dtype) - v
        old_sorted = before[run] + (sums - sums[starts][run])
        view[addresses] = before + np.add.reduceat(v, starts).astype(v.dtype)
    elif operation in REDUCTIONS and not result and (integer or operation != "add"):
        view[addresses] = step(before, REDUCTIONS[operation].reduceat(sorted_values[0], starts))
    elif operation == "add" and not result and view.dtype.itemsize >= 4:
        np.add.at(view, at, sorted_values[0])  # one after the other, each sum rounded
    elif operation == "add flushed" and not result:  # sums on the way are left as they are
        view[addresses] = rounding.flush(before)
        np.add.at(view, at, rounding.flush(sorted_values[0]))
        view[addresses] = rounding.flush(view[addresses])
    else:
        old_sorted = _rounds(view, at, starts, step, sorted_values)
    x.changed = x.changed or bool((view[addresses] != before).any())
    if old_sorted is None or not result:
        return None
    old = np.empty_like(old_sorted)
    old[order] = old_sorted
    return old


def _rounds(view: Array, at: Array, starts: Array, step: Callable[..., Array],
            values: list[Array]) -> Array:
    """The first thread of every address, then the second, and so on."""
    lengths = np.diff(np.append(starts, len(at)))
    old = np.empty(len(at), view.dtype)
    for r in range(int(lengths.max())):
        here = starts[lengths > r] + r
        before = view[at[here]]
        old[here] = before
        view[at[here]] = step(before, *(v[here] for v in values))
    return old


def _cas(old: Array, compare: Array, value: Array) -> Array:
    bits = np.dtype(f"u{old.dtype.itemsize}")
    same = old.view(bits) == compare.view(bits)
    chosen: Array = np.where(same, value, old)
    return chosen


def _add_flushed(old: Array, v: Array) -> Array:
    """The sum of float32 in global memory, where subnormals are zeros, coming and going."""
    return rounding.flush(rounding.flush(old) + rounding.flush(v))


def _inc(old: Array, limit: Array) -> Array:
    return np.where(old >= limit, 0, old + 1).astype(old.dtype)


def _dec(old: Array, limit: Array) -> Array:
    return np.where((old == 0) | (old > limit), limit, old - 1).astype(old.dtype)


STEPS: dict[str, Callable[..., Array]] = {
    "add": lambda old, v: old + v, "add flushed": _add_flushed, "and": lambda old, v: old & v,
    "or": lambda old, v: old | v, "xor": lambda old, v: old ^ v, "min": np.fmin, "max": np.fmax,
    "exch": lambda old, v: v, "cas": _cas, "inc": _inc, "dec": _dec}
REDUCTIONS: dict[str, Any] = {"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
                              "min": np.fmin, "max": np.fmax}
