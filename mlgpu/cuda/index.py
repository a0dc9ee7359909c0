"""Indexing on the device: what an index names, and elements gathered from and put there.

Every index comes down to one of two forms: places along neighbouring dimensions (`Places`), whose
rows are the dimensions behind them, or a place along one dimension for each element (`Along`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda import rows, segment
from mlgpu.cuda.context import context
from mlgpu.cuda.copy import copy_into
from mlgpu.cuda.faults import fault, site
from mlgpu.cuda.launch import Strided, blocks, launch
from mlgpu.cuda.runtime import contiguous, copy, empty, zeros
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError
from mlgpu.storage import as_strided

Shape = tuple[int, ...]

# Copies do not care what elements mean: a type of their size stands for all.
_RAW = {1: np.dtype(np.uint8), 2: np.dtype(np.int16), 4: np.dtype(np.int32),
        8: np.dtype(np.int64), 16: np.dtype(np.complex128)}
_PAIR_STEPS = np.dtype([("size", np.int64, 8), ("first", np.int64, 8), ("second", np.int64, 8)])
_PIECE = 4  # vectors that a lane copies


def raw(array: Any) -> Any:
    """The same memory as the type that stands for all of its size."""
    dtype = _RAW[array.itemsize]
    return array if array.dtype == dtype else array.view(dtype)


def used(array: Any) -> Any:
    """`array`, which an operation holds: its memory ordered behind the current stream's work."""
    block = array.data.mem
    stream = context.streams.get(array.data.device_id)
    if block.writer is not stream:
        block.use(stream, False)
    return array


class Row(NamedTuple):
    """How rows are cut into pieces for groups of lanes, and the launch that does it."""

    width: int
    pieces: int
    spread: int

    def grid(self, count: int) -> int:
        return blocks((count * self.pieces) << self.spread, 256)


def row_plan(inner: int, arrays: Sequence[Any], steps: Sequence[int] = ()) -> Row:
    """For rows of `inner` elements in these arrays, which begin at multiples of `steps`."""
    width = rows.vector(inner, *arrays)
    while any(step % width for step in steps):
        width //= 2
    vectors = max(1, inner // width)
    spread = min(5, rows.power(vectors).bit_length() - 1)
    return Row(width, blocks(vectors, _PIECE << spread), spread)


def gather_rows(x: Any, index: Any, message: str | None, wrap: bool = False) -> Any:
    """x[:, index] for x (outer, bound, inner), whose rows may lie apart; index is a vector."""
    outer, bound, inner = x.shape
    out = empty((outer, index.size, inner), x.dtype)
    if out.size:
        y, x = raw(out), raw(x)
        steps = _steps(x)[:2]
        plan = row_plan(inner, (y, x), steps)
        cell = (fault(), site(message)) if message else (None, 0)
        launch("index", f"gather_rows<{ctype(y.dtype)}, {plan.width}, {ctype(index.dtype)}>",
               plan.grid(outer * index.size), 256,
               (y, Strided(x), index, outer, index.size, bound, inner, *steps, plan.pieces,
                plan.spread, wrap, *cell))
    return out


def put_rows(out: Any, index: Any, values: Any, message: str | None, wrap: bool = False,
             unique: bool = False) -> None:
    """out[:, index] = values for out (outer, bound, inner), whose rows may lie apart.

    `values` is (outer, n, inner), contiguous, or has one element.  Of equal indices the last wins;
    `unique` says that there are none.
    """
    outer, bound, inner = out.shape
    count = index.size
    if not (count and outer and inner):
        return
    y, values = raw(out), raw(values)
    steps = _steps(y)[:2]
    if values.size == 1:
        given, plan = (0, 0, 0), row_plan(inner, (y,), steps)
    else:
        given, plan = (count * inner, inner, 1), row_plan(inner, (y, values), steps)
    where = (outer, count, bound, inner, *steps, *given, plan.pieces, plan.spread)
    if unique:
        cell = (fault(), site(message)) if message else (None, 0)
        launch("index", f"put_rows<{ctype(y.dtype)}, {plan.width}, {ctype(index.dtype)}>",
               plan.grid(outer * count), 256, (Strided(y), values, index, *where, wrap, *cell))
        return
    keys = segment.sort(index, bound, message, wrap=wrap)
    launch("index", f"put_last<{ctype(y.dtype)}, {plan.width}, {ctype(keys.keys.dtype)}>",
           plan.grid(outer * count), 256,
           (Strided(y), values, keys.keys, keys.positions, *where))


def _steps(array: Any) -> list[int]:
    """Strides in elements; 0 where they do not matter."""
    return [0 if n == 1 else s // array.itemsize
            for n, s in zip(array.shape, array.strides, strict=True)]


def grouped(array: Any, groups: Sequence[Sequence[int]]) -> Any:
    """A view with one dimension for each group of dimensions; None where there is none.

    The last must have its elements side by side.
    """
    sizes, strides = [], []
    for dims in groups:
        size, step = 1, 0
        for d in reversed(dims):
            n, stride = array.shape[d], array.strides[d]
            if n != 1:
                if size != 1 and stride != step * size:
                    return None
                step = stride if size == 1 else step
                size *= n
        sizes.append(size)
        strides.append(step)
    if sizes[-1] != 1 and strides[-1] != array.itemsize:
        return None
    return as_strided(array, tuple(sizes), tuple(strides))


# --- indices of neighbouring dimensions -----------------------------------------------------------


class Entry(NamedTuple):
    """Indices into a dimension, or flat ones into several of a mask."""

    array: Any
    covers: int = 1
    message: str | None = None  # what a wrong one is reported as; None: there is none
    wrap: bool = True  # negative ones count from the end
    unique: bool = False


class Places:
    """What index tensors name: an entry, or None for all of a dimension."""

    def __init__(self, entries: Sequence[Entry | None]) -> None:
        self.entries = tuple(entries)

    def kept(self) -> Places:
        """The same with memory of its own, for gradients to come."""
        return Places([e and e._replace(array=copy(used(e.array))) for e in self.entries])

    def _indexed(self) -> list[Entry]:
        return [e for e in self.entries if e is not None]

    def region(self) -> Shape:
        """The shape that the index tensors have together.  ValueError where they do not fit."""
        return np.broadcast_shapes(*[e.array.shape for e in self._indexed()])

    def _order(self) -> tuple[list[int], list[int], list[int]]:
        """Dimensions before the indexed ones, those, and the rest, as they come in the result."""
        named = [entry for entry in self.entries
                 for _ in range(1 if entry is None else entry.covers)]
        indexed = [d for d, entry in enumerate(named) if entry is not None]
        kept = [d for d, entry in enumerate(named) if entry is None]
        together = indexed == list(range(indexed[0], indexed[-1] + 1))
        before = [d for d in kept if together and d < indexed[0]]
        return before, indexed, kept[len(before):]

    def result_shape(self, shape: Shape) -> Shape:
        before, _, after = self._order()
        return (*[shape[d] for d in before], *self.region(), *[shape[d] for d in after])

    def _vector(self, shape: Shape) -> tuple[Any, str | None, bool, bool]:
        """One vector of flat indices; how wrong ones are reported; whether they wrap, are unique.
        """
        entries = self._indexed()
        if len(entries) == 1:
            e = entries[0]
            return contiguous(used(e.array)).reshape(-1), e.message, e.wrap, e.unique
        region = self.region()
        places = empty((math.prod(region),), segment.LONG)
        sizes, at = [], 0
        for entry in self.entries:
            covers = 1 if entry is None else entry.covers
            if entry is not None:
                sizes.append(math.prod(shape[at:at + covers]))
            at += covers
        before = None
        for entry, size in zip(entries, sizes, strict=True):
            array = contiguous(broadcast(used(entry.array), region)).reshape(-1)
            cell = (fault(), site(entry.message)) if entry.message else (None, 0)
            launch("index", f"add_index<{ctype(array.dtype)}>", blocks(places.size, 256), 256,
                   (places, before, array, places.size, size, entry.wrap, *cell))
            before = places
        return places, None, False, False

    def gather(self, x: Any) -> Any:
        """x at the places."""
        index, message, wrap, _ = self._vector(x.shape)
        rowed = grouped(x, self._order())
        if rowed is None:
            rowed = _arranged(x, self._order())[1]
        return gather_rows(rowed, index, message, wrap).reshape(self.result_shape(x.shape))

    def accumulate(self, values: Any, shape: Shape) -> Any:
        """Zeros of a shape with `values` added at the places."""
        groups = self._order()
        order = [d for dims in groups for d in dims]
        out = zeros([shape[d] for d in order], values.dtype)
        rowed = out.reshape([math.prod(shape[d] for d in dims) for dims in groups])
        self._add(rowed, contiguous(values), shape, False)
        return out.transpose([order.index(d) for d in range(len(order))])

    def _add(self, out: Any, values: Any, shape: Shape, keep: bool) -> None:
        index, message, wrap, unique = self._vector(shape)
        values = values.reshape(out.shape[0], index.size, out.shape[2])
        if unique and not keep:
            put_rows(out, index, values, message, wrap, True)
        else:
            segment.combine(out, values, segment.sort(index, out.shape[1], message, wrap=wrap),
                            keep=keep)

    def put(self, out: Any, values: Any, accumulate: bool) -> None:
        """out at the places = values, broadcast; or, with `accumulate`, added to."""
        shape, target = self.result_shape(out.shape), None
        rowed = grouped(out, self._order())
        if rowed is None or (accumulate and not rowed.flags.c_contiguous):
            target, rowed = _arranged(out, self._order())
        if accumulate:
            self._add(rowed, contiguous(broadcast(values, shape)), out.shape, True)
        else:
            index, message, wrap, unique = self._vector(out.shape)
            if values.size == 1:  # whichever of equal indices wins
                values, unique = values.reshape(-1), True
            elif values.shape != shape:
                values = broadcast(values, shape)
            put_rows(rowed, index, contiguous(values), message, wrap, unique)
        if target is not None:
            copy_into(out.transpose([d for dims in self._order() for d in dims]), target)


def _arranged(x: Any, groups: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """A copy of x with its dimensions in the order of the groups, and a view with one for each."""
    target = copy(x.transpose([d for dims in groups for d in dims]))
    return target, target.reshape([math.prod(x.shape[d] for d in dims) for dims in groups])


def broadcast(array: Any, shape: Shape) -> Any:
    """A view of the array with a shape it broadcasts to."""
    lead = len(shape) - array.ndim
    steps = [0 if n == 1 else s for n, s in zip(array.shape, array.strides, strict=True)]
    return as_strided(array, shape, (*(0,) * lead, *steps))


# --- an index for each element --------------------------------------------------------------------


class Along:
    """A place along dimension `dim` for each element of `array`, elsewhere its own."""

    def __init__(self, dim: int, array: Any, message: str | None, unique: bool = False) -> None:
        self.dim, self.array, self.message = dim, array, message
        self.unique = unique or array.shape[dim] == 1  # whether no place can come twice

    def kept(self) -> Along:
        """The same with memory of its own, for gradients to come."""
        array = used(self.array)
        once = array[tuple(slice(None) if step else slice(0, 1) for step in array.strides)]
        return Along(self.dim, broadcast(copy(once), self.shape), self.message, self.unique)

    def _rows(self, shape: Shape) -> tuple[Along, Shape, int]:
        """The index of rows of so many elements that this one repeats for each of theirs.

        And the shape of a tensor of such rows, given that of the whole; rows have one element
        where the index differs along the dimensions behind `dim`.
        """
        behind = range(self.dim + 1, len(shape))
        inner = math.prod(shape[d] for d in behind)
        if inner <= 1 or any(self.shape[d] != shape[d] or (
                shape[d] > 1 and self.array.strides[d]) for d in behind):
            return self, shape, 1
        array = self.array[(..., *(0,) * len(behind))]
        return Along(self.dim, array, self.message, self.unique), shape[:self.dim + 1], inner

    @property
    def shape(self) -> Shape:
        return tuple(self.array.shape)

    def result_shape(self, shape: Shape) -> Shape:
        return self.shape

    def _steps(self, strides: Sequence[int]) -> tuple[Any, int]:
        """Sizes and steps in a tensor of these strides (of elements) and in the index, collapsed.
        """
        own = [0 if n == 1 else s // self.array.itemsize
               for n, s in zip(self.shape, self.array.strides, strict=True)]
        theirs = [0 if d == self.dim else s for d, s in enumerate(strides)]
        sizes: list[int] = []
        pairs: list[tuple[int, int]] = []
        for n, first, second in zip(self.shape, theirs, own, strict=True):
            if n == 1:
                continue
            if pairs and pairs[-1] == (first * n, second * n):
                sizes[-1] *= n
                pairs[-1] = (first, second)
            else:
                sizes.append(n)
                pairs.append((first, second))
        if not sizes:
            sizes, pairs = [1], [(0, 0)]
        if len(sizes) > 8:
            raise ShapeError(f"index: on CUDA at most 8 dimensions that lie apart in memory, got "
                             f"{len(sizes)}; make the tensors contiguous, or reshape those that "
                             "are left as they are into one")
        steps = np.zeros(1, _PAIR_STEPS)
        steps["size"][0, :len(sizes)] = sizes
        steps["first"][0, :len(sizes)] = [p[0] for p in pairs]
        steps["second"][0, :len(sizes)] = [p[1] for p in pairs]
        return steps, len(sizes)

    def _cell(self) -> tuple[Any, int]:
        return (fault(), site(self.message)) if self.message else (None, 0)

    def gather(self, x: Any) -> Any:
        index, short, inner = self._rows(x.shape)
        if inner > 1 and self.array.size and x.flags.c_contiguous:
            table = x.reshape(1, -1, inner)
            return gather_rows(table, index.places(short), None).reshape(self.shape)
        out = empty(self.shape, x.dtype)
        if out.size:
            y, x = raw(out), raw(x)
            strides = [s // x.itemsize for s in x.strides]
            steps, dims = self._steps(strides)
            index = used(self.array)
            launch("index", f"gather_along<{ctype(y.dtype)}, {ctype(index.dtype)}, {dims}>",
                   blocks(y.size, 256), 256,
                   (y, Strided(x), Strided(index), y.size, x.shape[self.dim], strides[self.dim],
                    steps, False, *self._cell()))
        return out

    def places(self, shape: Shape) -> Any:
        """Flat places in a contiguous tensor; -1 for wrong ones."""
        out = empty((math.prod(self.shape),), segment.LONG)
        if out.size:
            strides = [math.prod(shape[d + 1:]) for d in range(len(shape))]
            steps, dims = self._steps(strides)
            index = used(self.array)
            launch("index", f"places_along<{ctype(index.dtype)}, {dims}>", blocks(out.size, 256),
                   256, (out, Strided(index), out.size, shape[self.dim], strides[self.dim], steps,
                         False, *self._cell()))
        return out

    def accumulate(self, values: Any, shape: Shape) -> Any:
        out = zeros(shape, values.dtype)
        if self.unique:
            self.put(out, values, False)
        else:
            self.reduce(out, values, "sum", True)
        return out

    def put(self, out: Any, values: Any, accumulate: bool) -> None:
        if accumulate:
            self.reduce(out, broadcast(values, self.shape), "sum", True)
            return
        target = contiguous(out)
        unique = self.unique or values.size == 1  # whichever of equal places wins
        if values.size != 1:
            values = contiguous(broadcast(values, self.shape))
        if target.size and self.array.size:
            index, short, inner = self._rows(out.shape)
            values = values.reshape(-1) if values.size == 1 else values.reshape(1, -1, inner)
            put_rows(target.reshape(1, -1, inner), index.places(short), values, None,
                     unique=unique)
        if target is not out:
            copy_into(out, target)

    def reduce(self, out: Any, values: Any, op: str, keep: bool) -> None:
        """Combine values into `out`; with `keep` what is there counts, too."""
        target = contiguous(out)
        if target.size and self.array.size:
            index, short, inner = self._rows(out.shape)
            keys = segment.sort(index.places(short), math.prod(short), None)
            segment.combine(target.reshape(1, -1, inner), contiguous(values).reshape(1, -1, inner),
                            keys, op, keep)
        if target is not out:
            copy_into(out, target)


def take_along(x: Any, indices: Any, dim: int) -> Any:
    """x at indices, known to be in range, along a dimension; a 0-d array counts as one element."""
    shape = indices.shape
    if not x.ndim:
        x, indices = x.reshape(1), indices.reshape(1)
    return Along(dim, indices, None).gather(x).reshape(shape)


def spread(values: Any, indices: Any, shape: Shape, dim: int, repeats: bool) -> Any:
    """Zeros of a shape with values put (with `repeats`, added) where `take_along` finds them."""
    whole = shape or (1,)
    index = Along(dim, indices.reshape(values.shape if shape else 1), None, not repeats)
    return index.accumulate(values.reshape(index.shape), whole).reshape(shape)
