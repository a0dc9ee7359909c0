"""The axes of `SeparableMap` and `MaxPool` as tables that kernels read; see kernels/resample.cu."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlgpu.cuda.conv_map import divisor

if TYPE_CHECKING:
    from mlgpu.ops.axis_map import AxisMap

Array = Any
MOST = 2**30  # elements of a launch


class Table(NamedTuple):
    """For each tap (or rank) and place of the result: the element, -1 where there is none."""

    source: Array
    weight: Array | None  # of each, in the dtype to compute in
    tap: Array | None  # of each


@lru_cache(maxsize=512)
def sums(each: AxisMap, dtype: Any) -> Table:
    """What each place adds up, in the order of the taps."""
    rows, source, _, weight = joined(each)
    rank = ranks(rows, each.size_out)
    table = np.full((int(rank.max(initial=0)) + 1, each.size_out), -1, np.int32)
    table[rank, rows] = source
    if weight is None:
        return Table(table, None, None)
    weights = np.zeros(table.shape, dtype)
    weights[rank, rows] = weight
    return Table(table, weights, None)


@lru_cache(maxsize=512)
def windows(each: AxisMap) -> Table:
    """What each window sees through each tap."""
    rows, source, tap, _ = joined(each)
    table = np.full((int(tap.max(initial=0)) + 1, each.size_out), -1, np.int32)
    table[tap, rows] = source
    return Table(table, None, None)


@lru_cache(maxsize=512)
def seers(each: AxisMap) -> Table:
    """For each element the windows that see it, and through which tap."""
    rows, source, tap, _ = joined(each)
    rank = ranks(source, each.size_in)
    shape = int(rank.max(initial=0)) + 1, each.size_in
    table, taps = np.full(shape, -1, np.int32), np.zeros(shape, np.int32)
    table[rank, source], taps[rank, source] = rows, tap
    return Table(table, None, taps)


def joined(each: AxisMap) -> tuple[Array, Array, Array, Array | None]:
    """The rows, sources, taps and weights of all pairs."""
    pairs = each.pairs
    empty = np.zeros(0, np.int64)
    rows = np.concatenate([empty, *(p.rows for p in pairs)])
    source = np.concatenate([empty, *(p.source for p in pairs)])
    tap = np.concatenate([empty, *(np.full(len(p.rows), p.tap - pairs[0].tap) for p in pairs)])
    if not pairs or pairs[0].weight is None:
        return rows, source, tap, None
    return rows, source, tap, np.concatenate([p.weight for p in pairs if p.weight is not None])


def ranks(keys: Array, bound: int) -> Array:
    """How many equal keys stand before each."""
    order = np.argsort(keys, kind="stable")
    counts = np.bincount(keys, minlength=bound)
    starts = np.cumsum(counts) - counts
    found = np.empty(len(keys), np.int64)
    found[order] = np.arange(len(keys)) - np.repeat(starts, counts)
    return found


def last_axes(values: Sequence[int], one: Callable[[int], Any] | None = None) -> list[Any]:
    """Values of up to three axes as those of the last axes of three, filled up with ones."""
    filled = [1] * (3 - len(values)) + list(values)
    return filled if one is None else [one(v) for v in filled]


def out_struct(made: Any, sizes: Sequence[int], name: str = "out") -> None:
    """Sizes as a struct's divisors."""
    made[name][0] = last_axes(sizes, divisor)


def portions(lead: int, *planes: int) -> list[tuple[int, int]]:
    """Ranges of the axes in front, whose elements a launch can count."""
    most = max(1, MOST // max(1, *planes))
    return [(start, min(lead, start + most)) for start in range(0, lead, most)]
