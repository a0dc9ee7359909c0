"""Which tensors share memory, and how to store each piece of memory once.

Tensors that lie on each other form a cluster.  If all of a cluster are the same view, or one dense
tensor covers it, that one is stored under its own name, where other tools find it, and the rest
refer to it.  Overlapping tensors that none covers are stored as the stretch of memory they span.
Tensors that share nothing (two columns of one matrix) are stored each by value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.tensor import Tensor

# np.shares_memory is exact but can take exponential time; far beyond what real strides need.
_MAX_WORK = 10_000


@dataclass(frozen=True)
class View:
    """Where a tensor lies in a stored array: its dtype, shape, and strides and offset in bytes."""

    dtype: dtypes.dtype
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int

    @property
    def extent(self) -> int:
        """Bytes from its first element to the end of its last."""
        if 0 in self.shape:
            return 0
        steps = zip(self.shape, self.strides, strict=True)
        return sum((n - 1) * stride for n, stride in steps) + self.dtype.itemsize

    @property
    def dense(self) -> bool:
        """Whether the elements lie in order without gaps."""
        steps = zip(self.shape, self.strides, dense_strides(self.shape, self.dtype), strict=True)
        return all(n == 1 or stride == expected for n, stride, expected in steps)


def dense_strides(shape: Sequence[int], dtype: dtypes.dtype) -> tuple[int, ...]:
    """The strides, in bytes, of elements in order without gaps."""
    strides = [dtype.itemsize]
    for n in shape[:0:-1]:
        strides.append(strides[-1] * n)
    return tuple(strides[::-1][-len(shape):]) if shape else ()


@dataclass(frozen=True)
class Placement:
    """What to store for a tensor, and which view of that the tensor is (None: all of it)."""

    stored: Tensor
    view: View | None


def place(tensors: Sequence[Tensor]) -> list[Placement]:
    """A Placement for each tensor; those with the same `stored` object share its memory."""
    found: list[Placement | None] = [None] * len(tensors)
    for cluster in _clusters(tensors):
        members = [tensors[i] for i in cluster]
        for i, placement in zip(cluster, _place_cluster(members), strict=True):
            found[i] = placement
    return [placement or Placement(tensor, None)
            for placement, tensor in zip(found, tensors, strict=True)]


def _clusters(tensors: Sequence[Tensor]) -> Iterator[list[int]]:
    """Groups of tensors whose ranges of addresses overlap; tensors without elements have none."""
    spans = sorted((str(t.device), t.data_ptr(), _view(t).extent, i)
                   for i, t in enumerate(tensors) if t.numel())
    cluster: list[int] = []
    current, end = "", 0
    for device, begin, extent, i in spans:
        if cluster and (device != current or begin >= end):
            yield cluster
            cluster, end = [], 0
        cluster.append(i)
        current, end = device, max(end, begin + extent)
    if cluster:
        yield cluster


def _view(tensor: Tensor, start: int | None = None) -> View:
    array = tensor._array
    offset = 0 if start is None else tensor.data_ptr() - start
    return View(tensor.dtype, tuple(array.shape), tuple(array.strides), offset)


def _place_cluster(members: list[Tensor]) -> list[Placement]:
    start = min(t.data_ptr() for t in members)
    views = [_view(t, start) for t in members]
    if len(set(views)) == 1:
        return [Placement(members[0], None)] * len(members)
    size = max(view.offset + view.extent for view in views)
    # A bool view of other bytes could not be told from a damaged file.
    dtypes_found = {view.dtype for view in views}
    stored: Tensor | None = None
    if len(dtypes_found) == 1 or dtypes.bool_ not in dtypes_found:
        covers = (t for t, view in zip(members, views, strict=True)
                  if view.dense and view.extent == size)
        stored = next(covers, None)
    if stored is None and len(dtypes_found) == 1 and _any_overlap(members):
        stored = _stretch(members, views, size)
    if stored is None:
        first = {view: t for t, view in zip(members[::-1], views[::-1], strict=True)}
        return [Placement(first[view], None) for view in views]
    whole = _view(stored, start)
    return [Placement(stored, None if view == whole else view) for view in views]


def _any_overlap(members: list[Tensor]) -> bool:
    return any(_overlap(a._array, b._array) for i, a in enumerate(members) for b in members[:i])


def _overlap(a: Any, b: Any) -> bool:
    if not isinstance(a, np.ndarray):
        return True  # device memory: storing the stretch is right in any case
    try:
        return np.shares_memory(a, b, max_work=_MAX_WORK)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


def _stretch(members: list[Tensor], views: list[View], size: int) -> Tensor | None:
    itemsize = views[0].dtype.itemsize
    if any(view.offset % itemsize for view in views):
        return None
    lowest = min(members, key=Tensor.data_ptr)
    array = lowest._array[(0,) * lowest.ndim + (None,)]
    flat = np.lib.stride_tricks.as_strided(array, (size // itemsize,), (itemsize,))
    return Tensor._make(flat, lowest._storage)
