"""`SeparableMap` on the device: all axes in one kernel where windows are small, else one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.cuda import lines, runtime
from mlgpu.cuda.axis_tables import Table, last_axes, out_struct, portions, sums
from mlgpu.cuda.constants import constant
from mlgpu.cuda.conv_map import DIVISOR, divisor
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.reduce import reduce
from mlgpu.cuda.types import ctype
from mlgpu.dtypes import compute_dtype, from_numpy

if TYPE_CHECKING:
    from mlgpu.ops.axis_map import AxisMap

THREADS = 256
TERMS = 64  # of a sum over all axes; longer ones go axis by axis
MAP = np.dtype([("out", DIVISOR, 3), ("inner", DIVISOR), ("in", "i4", 3), ("taps", "i4", 3),
                ("before", "i4"), ("after", "i4")], align=True)


def apply(x: Any, maps: Sequence[AxisMap], before: Any, after: Any) -> Any:
    """The maps one after another, the input divided by `before` and the result by `after`."""
    wide = compute_dtype(from_numpy(x.dtype)).numpy
    if before is None and whole_mean(x, maps, after):
        return reduce(x, [each.axis for each in maps], "mean", keepdim=True)
    x = runtime.contiguous(x)
    ordered = sorted(maps, key=lambda each: each.axis)
    tables = [sums(each, wide) for each in ordered]
    axes = [each.axis for each in ordered]
    terms = math.prod(len(table.source) for table in tables)
    if len(maps) == 1 or (axes == list(range(-len(maps), 0)) and terms <= TERMS):
        return together(x, ordered, tables, x.dtype, wide, before, after)
    result = x.dtype
    if before is not None and before.ndim:
        x, before = divided(x, before, wide, wide), None
    array = after is not None and after.ndim > 0
    for number, each in enumerate(maps):
        last = number == len(maps) - 1
        x = together(x, [each], [sums(each, wide)], result if last and not array else wide, wide,
                     before, after if last and not array else None)
        before = None
    return divided(x, after, result, wide) if array else x


def whole_mean(x: Any, maps: Sequence[AxisMap], after: Any) -> bool:
    """Whether this is the mean over all elements of the axes."""
    return (after is not None and not after.ndim and x.dtype.kind not in "iu"
            and all(each.size_out == 1 and len(each.pairs) == each.size_in for each in maps)
            and all(each.pairs[0].weight is None for each in maps)
            and float(after) == math.prod(each.size_in for each in maps))


def together(x: Any, maps: Sequence[AxisMap], tables: Sequence[Table], result: Any, wide: Any,
             before: Any, after: Any) -> Any:
    """Maps of neighbouring axes, in their order, in one kernel."""
    shape = x.shape
    for each in maps:
        shape = each.out_shape(shape)
    out = runtime.empty(shape, result)
    if not out.size:
        return out
    first = x.ndim + maps[0].axis
    inner = math.prod(x.shape[first + len(maps):])
    one = struct(tuple(maps), wide, inner, kind(before), kind(after))
    pointers: list[Any] = [None] * (6 - 2 * len(maps))
    for table in tables:
        pointers += [constant(table.source),
                     None if table.weight is None else constant(table.weight)]
    divisors = [None if by is None else constant(by.astype(wide)) for by in (before, after)]
    lead = math.prod(x.shape[:first])
    types = f"{ctype(x.dtype)}, {ctype(result)}, {ctype(wide)}, {len(maps)}"
    name, vector, threads = f"resample_apply<{types}>", 1, []
    widest = max(x.itemsize, out.itemsize, wide.itemsize if kind(before) == 2 else 0)
    by_lines = of_lines(maps[-1], wide, widest) if inner == 1 else None
    if by_lines is not None:
        how, vector, table = by_lines
        x = lines.aligned(x)
        name = f"resample_lines<{types}, {how}, {vector}>"
        pointers[4:] = [None if table is None else constant(table)]
        threads = [np.array([divisor(maps[-1].size_out // vector)], DIVISOR)]
    source, target = x.reshape(lead, -1), out.reshape(lead, -1)
    for start, stop in portions(lead, source.shape[1], target.shape[1]):
        count = (stop - start) * target.shape[1] // vector
        launch("resample", name, blocks(count, THREADS), THREADS,
               (source[start:stop], target[start:stop], *pointers, *divisors, one, *threads, count))
    return out


def of_lines(each: AxisMap, wide: Any, widest: int) -> tuple[str, int, Any] | None:
    """How `resample_lines` makes an axis that lies in lines, the results of a thread, and weights;
    None where it cannot.  `widest`: bytes of an element of what is moved."""
    even, table = lines.windows(each), None
    if even is None:
        even, table = lines.weighted(each, wide) or (None, None)
    if even is not None and even.of_elements(widest):
        count = even.of_elements(widest)
        kind = "resample_windows"
    else:
        even, table = lines.spread(each), None
        if even is None or not even.of_windows(widest):
            return None
        count = even.of_windows(widest) * even.stride
        kind = "resample_spread"
    numbers = f"{ctype(wide)}, {even.stride}, {even.taps}, {even.before}, {count}"
    return f"{kind}<{numbers}>", count, table


@lru_cache(maxsize=512)
def struct(maps: tuple[AxisMap, ...], wide: Any, inner: int, before: int, after: int) -> Any:
    """The struct resample_map."""
    one = np.zeros(1, MAP)
    out_struct(one, [each.size_out for each in maps])
    one["inner"] = divisor(inner)
    one["in"][0] = last_axes([each.size_in for each in maps])
    one["taps"][0] = last_axes([len(sums(each, wide).source) for each in maps])
    one["before"], one["after"] = before, after
    return one


def kind(by: Any) -> int:
    return 0 if by is None else 2 if by.ndim else 1


def divided(x: Any, by: Any, result: Any, wide: Any) -> Any:
    """x / by, whose axes are the last ones of x."""
    out = runtime.empty(x.shape, result)
    launch("resample", f"resample_divided<{ctype(x.dtype)}, {ctype(result)}, {ctype(wide)}>",
           blocks(out.size, THREADS), THREADS,
           (x, out, constant(by.astype(wide)), by.size, out.size))
    return out
