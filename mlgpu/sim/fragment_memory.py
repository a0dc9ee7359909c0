"""Moving matrix fragments between memory and the registers of a warp."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim import access
from mlgpu.sim.group import WARP, Group
from mlgpu.sim.numeric.fragments import Wmma, ldmatrix_registers, stmatrix_rows
from mlgpu.sim.site import Site

if TYPE_CHECKING:
    from mlgpu.sim.batch import Batch

Array = np.ndarray[Any, Any]
LOADS = {"shared": access.load_shared, "global": access.load_global, "": access.load_generic}
STORES = {"shared": access.store_shared, "global": access.store_global, "": access.store_generic}


def _lanes_below(g: Group, number: int) -> Any:
    """The part of the group in the first lanes of each warp."""
    return g.split(g.tid % WARP < number)[0]


def ldmatrix(x: Batch, g: Group, address: Array, s: Site, number: int, trans: bool) -> list[Array]:
    """`number` registers; lane r of the first 8 * number names row r."""
    part = _lanes_below(g, 8 * number)
    values = LOADS[s.space](x, part.group, part.pick(address), s)
    wide = [part.group.to_warps(v) for v in values]
    shape = np.broadcast_shapes(*(w.shape for w in wide))
    shape = (*shape[:2], WARP)
    rows = np.stack([np.broadcast_to(w, shape) for w in wide], axis=-1).reshape(-1, WARP, 4)
    rows = np.ascontiguousarray(rows[:, :8 * number]).view(np.uint16)
    return [g.from_warps(r.reshape(shape)) for r in ldmatrix_registers(rows, number, trans)]


def stmatrix(x: Batch, g: Group, address: Array, s: Site, registers: list[Array],
             trans: bool) -> None:
    """The rows that the registers hold, to the addresses of the first lanes."""
    number = len(registers)
    wide = [g.to_warps(r) for r in registers]
    shape = np.broadcast_shapes(*(w.shape for w in wide))
    shape = (*shape[:2], WARP)
    rows = stmatrix_rows([np.ascontiguousarray(np.broadcast_to(w, shape)).reshape(-1, WARP)
                          for w in wide], trans)
    words = np.zeros((len(rows), WARP, 4), np.uint32)
    words[:, :8 * number] = np.ascontiguousarray(rows).view(np.uint32)
    part = _lanes_below(g, 8 * number)
    values = [part.pick(g.from_warps(np.ascontiguousarray(words[..., i]).reshape(shape)))
              for i in range(4)]
    STORES[s.space](x, part.group, part.pick(address), s, values)


def _places(g: Group, fragment: Wmma, layout: str, stride: Array | None) -> list[Array]:
    """Of each item, the byte offset in each thread."""
    if stride is None:
        offsets = fragment.offsets(layout, fragment.default_stride(layout))[None, None]
    else:
        offsets = fragment.offsets(layout, g.to_warps(stride.astype(np.int64))[..., 0])
    return [g.from_warps(offsets[..., i]).astype(np.uint64) for i in range(offsets.shape[-1])]


def wmma_load(x: Batch, g: Group, address: Array, s: Site, fragment: Wmma, layout: str,
              stride: Array | None) -> list[Array]:
    """The fragment's registers from the matrix at the address."""
    places = _places(g, fragment, layout, stride)
    items: list[Array] = []
    for i in range(0, len(places), s.count):
        items += LOADS[s.space](x, g, address + places[i], s)
    wide = [g.to_warps(v) for v in items]
    shape = np.broadcast_shapes(*(w.shape for w in wide))
    shape = (*shape[:2], WARP)
    packed = np.stack([np.broadcast_to(w, shape) for w in wide], axis=-1)
    registers = fragment.pack(packed.reshape(-1, WARP, len(items)))
    return [g.from_warps(r.reshape(shape)) for r in registers]


def wmma_store(x: Batch, g: Group, address: Array, s: Site, fragment: Wmma, layout: str,
               stride: Array | None, registers: list[Array]) -> None:
    """The fragment's registers to the matrix at the address."""
    places = _places(g, fragment, layout, stride)
    wide = [g.to_warps(r) for r in registers]
    shape = np.broadcast_shapes(*(w.shape for w in wide))
    shape = (*shape[:2], WARP)
    items = fragment.unpack([np.ascontiguousarray(np.broadcast_to(w, shape)).reshape(-1, WARP)
                             for w in wide])
    for i in range(0, len(places), s.count):
        values = [g.from_warps(np.ascontiguousarray(items[..., i + k]).reshape(shape))
                  for k in range(s.count)]
        STORES[s.space](x, g, address + places[i], s, values)
