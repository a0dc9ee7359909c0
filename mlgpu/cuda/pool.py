"""The maximum of windows on the device, with what is chosen, and the maps that are its derivatives.

A choice is the number of a window's tap, row-major over the axes: a byte where there are few.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.cuda import lines, runtime
from mlgpu.cuda.axis_tables import last_axes, out_struct, portions, seers, windows
from mlgpu.cuda.constants import constant
from mlgpu.cuda.conv_map import DIVISOR, divisor
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype

if TYPE_CHECKING:
    from mlgpu.ops.axis_map import AxisMap

THREADS = 256
PLACES = 4  # of a thread, at most: they are exchanged before they are stored
MAP = np.dtype([("out", DIVISOR, 3), ("in", "i4", 3), ("taps", "i4", 3), ("many", "i4", 3)],
               align=True)


def maximum(x: Any, maps: Sequence[AxisMap], choices: bool, places: bool) -> tuple[Any, Any, Any]:
    """The maxima; and the choices and the places in the flattened planes, None where not wanted."""
    x, maps = runtime.contiguous(x), ordered(maps)
    shape = out_shape(x.shape, maps)
    small = choice_dtype(maps)
    out = runtime.empty(shape, x.dtype)
    choice = runtime.empty(shape, small) if choices else None
    place = runtime.empty(shape, np.dtype(np.int64)) if places else None
    types = f"{ctype(x.dtype)}, {ctype(small)}, {len(maps)}"
    even = lines.windows(maps[-1])
    most = PLACES if places else lines.MOST
    vector = even.of_elements(x.itemsize, most) if even and lines.are_last(maps) else 0
    if even and vector and small.itemsize == 1:
        numbers = f"{even.stride}, {even.taps}, {even.before}, {vector}"
        name = f"pool_max_lines<{types}, {numbers}, {str(places).lower()}>"
        run(name, maps, x, (lines.aligned(x), out, choice, place), out, window_tables(maps)[:2],
            False, vector)
    else:
        run(f"pool_max<{types}>", maps, x, (x, out, choice, place), out, window_tables(maps), False)
    return out, choice, place


def choose(x: Any, maps: Sequence[AxisMap], choice: Any) -> Any:
    """The chosen element of each window."""
    x, maps = runtime.contiguous(x), ordered(maps)
    out = runtime.empty(choice.shape, x.dtype)
    name = f"pool_choose<{ctype(x.dtype)}, {ctype(choice.dtype)}, {len(maps)}>"
    run(name, maps, x, (x, out, runtime.contiguous(choice)), out, window_tables(maps), False)
    return out


def unchoose(dy: Any, maps: Sequence[AxisMap], choice: Any) -> Any:
    """Each element of dy added to the one that its window chose, in zeros."""
    dy, maps = runtime.contiguous(dy), ordered(maps)
    out = runtime.empty(out_shape(dy.shape, [each.transposed() for each in maps]), dy.dtype)
    pointers: list[Any] = [None] * (6 - 2 * len(maps))
    for each in maps:
        table = seers(each)
        pointers += [constant(table.source), constant(table.tap)]
    types = f"{ctype(dy.dtype)}, {ctype(choice.dtype)}, {len(maps)}"
    choice = runtime.contiguous(choice)
    even = lines.windows(maps[-1])
    vector = even.of_windows(dy.itemsize) if even and lines.are_last(maps) else 0
    if even and vector and choice.itemsize == 1:
        name = f"pool_unchoose_lines<{types}, {even.stride}, {even.taps}, {even.before}, {vector}>"
        run(name, maps, dy, (lines.aligned(dy), out, lines.aligned(choice)), out, pointers[:4],
            True, vector * even.stride)
    else:
        run(f"pool_unchoose<{types}>", maps, dy, (dy, out, choice), out, pointers, True)
    return out


def ordered(maps: Sequence[AxisMap]) -> list[AxisMap]:
    return sorted(maps, key=lambda each: each.axis)


def out_shape(shape: tuple[int, ...], maps: Sequence[AxisMap]) -> tuple[int, ...]:
    for each in maps:
        shape = each.out_shape(shape)
    return shape


def choice_dtype(maps: Sequence[AxisMap]) -> Any:
    taps = math.prod(len(windows(each).source) for each in maps)
    return np.dtype(np.uint8 if taps <= 256 else np.int32)


def window_tables(maps: Sequence[AxisMap]) -> list[Any]:
    return [None] * (3 - len(maps)) + [constant(windows(each).source) for each in maps]


def run(name: str, maps: Sequence[AxisMap], x: Any, arrays: tuple[Any, ...], out: Any,
        tables: Sequence[Any], back: bool, vector: int = 0) -> None:
    """Launch on all planes; `back`: from windows to elements.  `vector`: results of a thread, in
    kernels that take lines."""
    if not out.size:
        return
    made = struct(tuple(maps), back)
    lead = math.prod(out.shape[:-len(maps)])
    flat = [None if a is None else a.reshape(lead, -1) for a in arrays]
    plane = math.prod(out.shape[-len(maps):])
    for start, stop in portions(lead, plane, math.prod(x.shape[-len(maps):])):
        count = (stop - start) * plane // (vector or 1)
        threads = [np.array([divisor(out.shape[-1] // vector)], DIVISOR)] if vector else []
        launch("pool", name, blocks(count, THREADS), THREADS,
               (*[None if a is None else a[start:stop] for a in flat], *tables, made, *threads,
                count))


@lru_cache(maxsize=512)
def struct(maps: tuple[AxisMap, ...], back: bool) -> Any:
    """The struct pool_map."""
    made = np.zeros(1, MAP)
    elements = [each.size_in for each in maps]
    counts = [each.size_out for each in maps]
    out_struct(made, elements if back else counts)
    made["in"][0] = last_axes(counts if back else elements)
    made["taps"][0] = last_axes([len(windows(each).source) for each in maps])
    made["many"][0] = last_axes([len(seers(each).source) if back else 1 for each in maps])
    return made
