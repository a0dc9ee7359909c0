"""Axes whose windows lie evenly, which kernels take a vector at a time; see kernels/line.cuh."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.axis_tables import joined

if TYPE_CHECKING:
    from mlgpu.ops.axis_map import AxisMap

STRIDES = (1, 2, 4, 8)
TAPS = 8  # of a window, at most: a thread has them all in registers
VECTOR = 16  # bytes of a line for a thread, at most
MOST = 8  # elements of a line for a thread, at most


class Windows(NamedTuple):
    """Window w has the elements w * stride + tap - before, for all taps, that exist."""

    stride: int
    taps: int
    before: int
    elements: int
    windows: int

    @property
    def fits(self) -> bool:
        """Whether kernels take such windows."""
        return self.stride in STRIDES and self.taps <= TAPS and self.before < self.taps

    def of_elements(self, itemsize: int, most: int = MOST) -> int:
        """Windows of a thread that reads elements; 0 where lines are not whole vectors of them."""
        near = max(self.before, self.taps - self.stride - self.before)
        count = self._vector(itemsize, most)
        return count if near <= count * self.stride else 0

    def of_windows(self, itemsize: int) -> int:
        """Windows of a thread that reads them; 0 as before."""
        near = max((self.taps - 1 - self.before) // self.stride,
                   (self.before + self.stride - 1) // self.stride)
        count = self._vector(itemsize)
        return count if near <= count else 0

    def _vector(self, itemsize: int, most: int = MOST) -> int:
        count = min(most, min(VECTOR // itemsize, MOST) // self.stride)
        while count and (self.windows % count or self.elements % (count * self.stride)):
            count //= 2
        return count if count * self.stride > 1 and count * self.stride * itemsize >= 4 else 0


@lru_cache(maxsize=512)
def windows(each: AxisMap) -> Windows | None:
    """The even windows that the results of an axis are of."""
    rows, source, _, weight = joined(each)
    return None if weight is not None else even(rows, source, each.size_out, each.size_in)


@lru_cache(maxsize=512)
def spread(each: AxisMap) -> Windows | None:
    """The same where the results are the elements, and the windows what is read."""
    rows, source, _, weight = joined(each)
    return None if weight is not None else even(source, rows, each.size_in, each.size_out)


@lru_cache(maxsize=512)
def weighted(each: AxisMap, dtype: Any) -> tuple[Windows, Any] | None:
    """Windows that hold all that the results of an axis are of, and a weight for each tap and
    window, NaN where the window does not have the element."""
    rows, source, _, weight = joined(each)
    found = around(rows, source, each.size_out, each.size_in)
    if weight is None or found is None or found.stride == 1:  # then one by one is as good
        return None
    place = source - found.stride * rows + found.before, rows
    sums = np.zeros((found.taps, each.size_out))
    np.add.at(sums, place, weight)
    table = np.full(sums.shape, np.nan, dtype)
    table[place] = sums[place]
    return found, table


def even(window: Any, element: Any, count: int, elements: int) -> Windows | None:
    """What pairs of a window and an element are, if these are all of even windows, each once."""
    found = around(window, element, count, elements)
    if found is None:
        return None
    tap = element - found.stride * window + found.before
    places = found.stride * np.arange(count) - found.before + np.arange(found.taps)[:, None]
    there = (places >= 0) & (places < elements)
    seen = np.zeros_like(there)
    seen[tap, window] = True
    return found if len(window) == there.sum() and (seen == there).all() else None


def around(window: Any, element: Any, count: int, elements: int) -> Windows | None:
    """The least even windows that have all the pairs."""
    if not len(window):
        return None
    stride = round(elements / count)
    offset = element - stride * window
    first, last = min(0, int(offset.min())), max(0, int(offset.max()))
    found = Windows(stride, last - first + 1, -first, elements, count)
    return found if found.fits else None


def aligned(array: Any) -> Any:
    """An array that vectors can be read from: a copy where it begins in the middle of one."""
    return runtime.copy(array) if array.data.ptr % VECTOR else array


def are_last(maps: Sequence[AxisMap]) -> bool:
    """Whether the axes, in their order, are an array's last ones."""
    return [each.axis for each in maps] == [*range(-len(maps), 0)]
