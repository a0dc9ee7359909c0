"""Copies between arrays whose unit-stride dimensions differ, through tiles in shared memory."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda.launch import Strided, blocks, launch

THREADS = 256
OTHERS = 6  # dimensions beside the two fast ones
LEAST = 8  # elements along both of them, below which a tile is not worth its while
MAP = np.dtype([*[(name, "i8") for name in ("fast_x", "fast_y", "step_x", "step_y", "tiles_x",
                                            "tiles_y")], ("others", "i4"),
                *[(name, "i8", OTHERS) for name in ("size", "other_x", "other_y")]], align=True)
TYPES = {1: "unsigned char", 2: "unsigned short", 4: "unsigned int", 8: "unsigned long long",
         16: "ml_vec<unsigned long long, 2>"}
VIEWS = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.uint32),
         8: np.dtype(np.uint64)}


class Plan(NamedTuple):
    """A launch: vectors of `width` elements, of 4 bytes where elements have less."""

    width: int
    grid: int
    map: Any


def copy_transposed(out: Any, x: Any) -> bool:
    """Copy x into `out`, of the same shape and dtype; False, and nothing, where tiles do not fit.

    They may not share memory.
    """
    size = x.itemsize
    if size not in TYPES or x.data.ptr % size or out.data.ptr % size:
        return False
    how = plan(x.shape, tuple(s // size for s in x.strides), tuple(s // size for s in out.strides),
               size, (x.data.ptr | out.data.ptr) % 4 == 0)
    if how is None:
        return False
    view = VIEWS.get(size)
    given = [Strided(a if view is None else a.view(view)) for a in (x, out)]
    launch("transpose", f"transpose_copy<{TYPES[size]}, {how.width}>", how.grid, THREADS,
           (*given, how.map))
    return True


@lru_cache(maxsize=4096)
def plan(shape: tuple[int, ...], x: tuple[int, ...], y: tuple[int, ...], size: int,
         aligned: bool) -> Plan | None:
    """How to copy between these strides, of elements; None where one of the arrays has no
    unit-stride dimension, both have the same, or the other dimensions are too many."""
    dims = [d for d in range(len(shape)) if shape[d] != 1]
    fast_x = [d for d in dims if x[d] == 1]
    fast_y = [d for d in dims if y[d] == 1]
    if len(fast_x) != 1 or len(fast_y) != 1 or fast_x == fast_y or 0 in shape:
        return None
    (i,), (j,) = fast_x, fast_y
    if min(shape[i], shape[j]) < LEAST:
        return None
    others: list[tuple[int, int, int]] = []
    for d in sorted((d for d in dims if d not in (i, j)), key=lambda d: -abs(y[d])):
        if others and others[-1][1] == x[d] * shape[d] and others[-1][2] == y[d] * shape[d]:
            others[-1] = (others[-1][0] * shape[d], x[d], y[d])
        else:
            others.append((shape[d], x[d], y[d]))
    if len(others) > OTHERS:
        return None
    steps = [shape[i], shape[j], x[j], y[i], *(s for o in others for s in o[1:])]
    width = max(1, 4 // size)
    if not aligned or any(s % width for s in steps):
        width = 1
    made = np.zeros(1, MAP)
    made["fast_x"], made["fast_y"], made["step_x"], made["step_y"] = shape[i], shape[j], x[j], y[i]
    tiles = blocks(shape[i], 32 * width), blocks(shape[j], 32 * width)
    made["tiles_x"], made["tiles_y"] = tiles
    made["others"] = len(others)
    grid = tiles[0] * tiles[1]
    for d, (n, step_x, step_y) in enumerate(others):
        made["size"][0, d], made["other_x"][0, d], made["other_y"][0, d] = n, step_x, step_y
        grid *= n
    return Plan(width, grid, made) if grid < 2**31 else None
