"""What the lanes of a warp do together: exchanges, votes, matches, reductions over lanes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.group import WARP, Group

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
LANE = np.arange(WARP, dtype=np.uint32)
BIT = np.uint32(1) << LANE
# What a lane gets that reads from one outside the exchange: nothing is promised, so a value that
# shows (as float32, float16 or bfloat16 it is not a number).
POISON = np.uint32(0x7FC07FFF)


def active_bits(g: Group) -> Array:
    """The lanes of each warp that are in the group, (1, warps, 1)."""
    active = g.lanes.active
    if active is None:
        return np.full((1, 1, 1), 0xFFFFFFFF, np.uint32)
    bits: Array = (active * BIT).sum(axis=1, dtype=np.uint32)[None, :, None]
    return bits


def active(g: Group) -> Array:
    """`activemask`: the lanes that run together."""
    return g.from_warps(active_bits(g))


def shuffle(g: Group, source_of: Callable[[Array, Array], tuple[Array, Array]], value: Array,
            lane: Array, clamp: Array, mask: Array) -> tuple[Array, Array]:
    """Each lane's value from another lane, and whether that lane was in range."""
    wide_lane, wide_clamp = (g.to_warps(a).astype(np.int64) for a in (lane, clamp))
    source, inside = source_of(wide_lane, wide_clamp)
    values = g.to_warps(value)
    if values.shape[2] == 1:
        result = values
    elif source.shape[:2] == (1, 1):
        result = values[:, :, source[0, 0]]
    else:
        shape = np.broadcast_shapes(values.shape[:2], source.shape[:2])
        result = np.take_along_axis(np.broadcast_to(values, (*shape, WARP)),
                                    np.broadcast_to(source, (*shape, WARP)), axis=2)
    if not g.lanes.full or mask.size > 1 or mask[0, 0] != 0xFFFFFFFF:
        from_there = (g.to_warps(mask) & active_bits(g)) >> source.astype(np.uint32) & 1
        result = np.where(from_there, result, POISON)
    return g.from_warps(result), g.from_warps(inside)


def ballot(g: Group, p: Array, mask: Array) -> Array:
    """The lanes of the mask where the predicate holds, (…, warps, 1)."""
    wide = g.to_warps(p)
    among = active_bits(g) & g.to_warps(mask)
    if wide.shape[2] == 1:
        return np.where(wide, among, np.uint32(0))
    bits = (wide * BIT).sum(axis=2, dtype=np.uint32)[..., None]
    result: Array = bits & among
    return result


def vote(g: Group, mode: str, p: Array, mask: Array) -> Array:
    """`vote.all`, `.any`, `.uni` (alike) and `.ballot`."""
    bits = ballot(g, p, mask)
    among = active_bits(g) & g.to_warps(mask)
    if mode == "ballot":
        return g.from_warps(bits)
    result = {"any": bits != 0, "all": bits == among,
              "uni": (bits == 0) | (bits == among)}[mode]
    return g.from_warps(result)


def match(g: Group, mode: str, value: Array, mask: Array) -> tuple[Array, Array]:
    """The lanes with the lane's value (any), or all of them where all agree (all)."""
    values = g.to_warps(value)
    among = active_bits(g) & g.to_warps(mask)
    values = np.broadcast_to(values, (*values.shape[:2], WARP))
    same = values[..., :, None] == values[..., None, :]
    bits = (same * BIT).sum(axis=3, dtype=np.uint32) & among
    if mode == "all":
        every = bits == among
        return g.from_warps(np.where(every, bits, np.uint32(0))), g.from_warps(every)
    return g.from_warps(bits), g.from_warps(np.ones((1, 1, 1), bool))


NEUTRAL: dict[str, Callable[[np.dtype[Any]], Any]] = {
    "add": lambda t: 0, "or": lambda t: 0, "xor": lambda t: 0, "and": lambda t: -1,
    "min": lambda t: np.inf if t.kind == "f" else np.iinfo(t).max,
    "max": lambda t: -np.inf if t.kind == "f" else np.iinfo(t).min}
UFUNC: dict[str, Any] = {"add": np.add, "or": np.bitwise_or, "xor": np.bitwise_xor,
                         "and": np.bitwise_and, "min": np.fmin, "max": np.fmax}


def redux(g: Group, operation: str, value: Array, mask: Array, magnitude: bool,
          nan: bool) -> Array:
    """The reduction over the lanes of each lane's mask."""
    values = g.to_warps(value)
    values = np.broadcast_to(values, (*values.shape[:2], WARP))
    if magnitude:
        values = np.abs(values)
    among = g.to_warps(mask) & active_bits(g)
    inside = (among & BIT) != 0 if among.shape[2] == 1 else None
    ufunc = {"min": np.minimum, "max": np.maximum}[operation] if nan else UFUNC[operation]
    neutral = np.array(NEUTRAL[operation](values.dtype)).astype(values.dtype)
    if inside is not None:
        result = ufunc.reduce(np.where(inside, values, neutral), axis=2, keepdims=True,
                              dtype=values.dtype)
        if values.dtype.kind == "f" and not nan:
            none = ~(inside & ~np.isnan(values)).any(axis=2, keepdims=True)
            result = np.where(none, np.array(np.nan, values.dtype), result)
        return g.from_warps(result)
    each = (among[..., :, None] & BIT) != 0  # lanes with different masks
    wide = np.where(each, values[..., None, :], neutral)
    return g.from_warps(ufunc.reduce(wide, axis=3, dtype=values.dtype))


def elect(g: Group, mask: Array) -> tuple[Array, Array]:
    """The lowest lane of the mask, and whether it is this one."""
    among = g.to_warps(mask) & active_bits(g)
    lowest = among & (~among + np.uint32(1))
    lane = np.log2(np.maximum(lowest, 1)).astype(np.uint32)
    return g.from_warps(lane), g.from_warps(lane == LANE)


def warp_call(x: Batch, g: Group, function: Callable[[list[Array]], list[Array]],
              sources: tuple[Array, ...]) -> list[Array]:
    """A function of (warps, 32) arrays; what all blocks have in common is computed once."""
    wide = [g.to_warps(s) for s in sources]
    shape = np.broadcast_shapes(*(w.shape for w in wide))
    shape = (*shape[:2], WARP)
    results = function([np.ascontiguousarray(np.broadcast_to(w, shape)).reshape(-1, WARP)
                        for w in wide])
    return [g.from_warps(r.reshape(shape)) for r in results]
