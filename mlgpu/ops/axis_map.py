"""Maps along one axis as a short list of strided assignments: pooling, padding, interpolation.

An `AxisMap` says which elements of an axis each row of the result is made of.  It is a list of
steps, each a pair of selections (slices wherever possible): `rows` of the result take from
`source`, no row twice within a step.  A linear map adds the steps up, with their weights; a
maximum compares them.  A map over several axes is one such map after another, and its transpose
is the same steps with rows and source exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cpu import threads
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import resample as cuda_resample
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.op import Op, run
from mlgpu.ops.window import Array, Ints, Workspace, blocks
from mlgpu.tensor import Tensor

Selection = slice | Array
# Pairs that fit no slice are worth a step each up to this many; beyond, they are index arrays.
MAX_SINGLE_STEPS = 6
# Planes of a task.
TASK_BYTES = 1 << 20


class Pairs(NamedTuple):
    """Rows and the source element of each; `tap` is the place of these elements in their window."""

    tap: int
    rows: Array
    source: Array
    weight: Array | None


class Step(NamedTuple):
    """One assignment (`first`, of rows not met before) or accumulation."""

    tap: int
    rows: Selection
    source: Selection
    weight: Array | None
    first: bool


class AxisMap:
    """A map along `axis`, counted from the last, from `size_in` to `size_out` elements.

    `halves`: each row takes from the two elements that it alone takes from, 2 row and 2 row + 1.
    """

    halves = False

    def __init__(self, axis: int, size_in: int, size_out: int, pairs: Sequence[Pairs]) -> None:
        self.axis = axis
        self.size_in = size_in
        self.size_out = size_out
        self.pairs = tuple(pairs)
        seen = np.zeros(size_out, bool)
        steps: list[Step] = []
        for tap, rows, source, weight in self.pairs:
            for part in distinct(rows, source):
                for first in (True, False):
                    new = part[seen[rows[part]] != first]
                    if new.size:
                        w = None if weight is None else column(weight[new], axis)
                        steps.append(Step(tap, as_selection(rows[new]), as_selection(source[new]),
                                          w, first))
                seen[rows[part]] = True
        self.steps = tuple(steps)
        self.covers = bool(seen.all())
        self._weighted = any(p.weight is not None for p in self.pairs)
        self._transposed: AxisMap | None = None

    def transposed(self) -> AxisMap:
        """The adjoint: what each row took from an element, the element takes from the row."""
        if self._transposed is None:
            pairs = [Pairs(p.tap, p.source, p.rows, p.weight) for p in self.pairs]
            self._transposed = AxisMap(self.axis, self.size_out, self.size_in, pairs)
        return self._transposed

    def at(self, selection: Selection) -> tuple[Any, ...]:
        """The index of a selection along the axis."""
        return (..., selection, *(slice(None),) * (-self.axis - 1))

    def out_shape(self, shape: Ints) -> Ints:
        axis = len(shape) + self.axis
        return (*shape[:axis], self.size_out, *shape[axis + 1:])

    def apply(self, x: Array, out: Array, work: Workspace) -> None:
        """out = the sum of the steps, all in one dtype."""
        if self.size_out == 1 and len(self.pairs) == self.size_in > 1 and not self._weighted:
            np.add.reduce(x, axis=self.axis, keepdims=True, out=out)
            return
        if not self.covers:
            out.fill(0)
        for step in self.steps:
            term = self._term(x, step, work)
            if step.first:
                out[self.at(step.rows)] = term
            else:
                out[self.at(step.rows)] += term

    def _term(self, x: Array, step: Step, work: Workspace) -> Array:
        if isinstance(step.source, slice):
            value = x[self.at(step.source)]
            if step.weight is None:
                return value
            scaled = work.take(value.shape)
        else:
            axis = x.ndim + self.axis
            scaled = work.take((*x.shape[:axis], len(step.source), *x.shape[axis + 1:]))
            value = np.take(x, step.source, axis, out=scaled, mode="clip")
            if step.weight is None:
                return value
        return np.multiply(value, step.weight, out=scaled)


def as_selection(index: Array) -> Selection:
    """The slice that selects these indices, or the indices themselves."""
    start = int(index[0])
    if len(index) == 1:
        return slice(start, start + 1)
    step = int(index[1]) - start
    if step == 0 or np.any(np.diff(index) != step):
        return index
    stop = start + len(index) * step
    return slice(start, None if stop < 0 else stop, step)


def column(weight: Array, axis: int) -> Array:
    """One weight per selected element, shaped to multiply along `axis`; just one if all equal."""
    if np.all(weight == weight[0]):
        weight = weight[:1]
    return weight.reshape(-1, *(1,) * (-axis - 1))


def distinct(rows: Array, source: Array) -> list[Array]:
    """Positions split so that no part has a row twice, as slices of rows and source if possible."""
    if not isinstance(as_selection(rows), slice) or not isinstance(as_selection(source), slice):
        split = by_phase(rows, source)
        if split is not None:
            return split
    order = np.argsort(rows, kind="stable")
    ordered = rows[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rank = np.arange(len(rows)) - np.repeat(starts, np.diff(np.r_[starts, len(rows)]))
    return [np.sort(order[rank == r]) for r in range(int(rank.max()) + 1)]


def by_phase(rows: Array, source: Array) -> list[Array] | None:
    """A scale by an integer: each phase is one slice, but for a few pairs at clamped ends."""
    phases = max(1, round(len(rows) / min(len(np.unique(rows)), len(np.unique(source)))))
    parts: list[Array] = []
    singles = 0
    for phase in range(phases):
        part = np.arange(phase, len(rows), phases)
        start, stop = longest_run(np.stack([rows[part], source[part]]))
        parts.append(part[start:stop])
        rest = [*part[:start], *part[stop:]]
        singles += len(rest)
        if singles > MAX_SINGLE_STEPS:
            return None
        parts += [np.array([p]) for p in rest]
    return [p for p in parts if p.size]


def longest_run(values: Array) -> tuple[int, int]:
    """Start and stop of the longest stretch in which every row of `values` is a progression."""
    if values.shape[1] < 2:
        return 0, values.shape[1]
    moves = np.diff(values)
    edges = np.flatnonzero(np.r_[True, (moves[:, 1:] != moves[:, :-1]).any(0), True])
    lengths = np.diff(edges) * moves[:, edges[:-1]].all(0)
    best = lengths.argmax()
    return int(edges[best]), int(edges[best] + lengths[best] + 1)


# --- the maps of windows -------------------------------------------------------------------------

@lru_cache(maxsize=512)
def window_map(axis: int, size: int, count: int, kernel: int, stride: int, dilation: int,
               before: int) -> AxisMap:
    """`count` windows; window p holds elements p * stride + tap * dilation - before that exist."""
    positions = np.arange(count)
    pairs = []
    for tap in range(kernel):
        source = positions * stride + tap * dilation - before
        inside = (source >= 0) & (source < size)
        if inside.any():
            pairs.append(Pairs(tap, positions[inside], source[inside], None))
    made = AxisMap(axis, size, count, pairs)
    made.halves = (kernel, stride, dilation, before) == (2, 2, 1, 0) and 2 * count <= size
    return made


def adaptive_bounds(size: int, count: int) -> tuple[Array, Array]:
    """Start and end of each of `count` windows that together cover `size` elements."""
    positions = np.arange(count)
    return positions * size // count, -((positions + 1) * -size // count)


@lru_cache(maxsize=512)
def adaptive_map(axis: int, size: int, count: int) -> AxisMap:
    """The windows of adaptive pooling."""
    start, end = adaptive_bounds(size, count)
    pairs = []
    for tap in range(int((end - start).max(initial=0))):
        rows = np.flatnonzero(start + tap < end)
        pairs.append(Pairs(tap, rows, start[rows] + tap, None))
    return AxisMap(axis, size, count, pairs)


# --- the operation -------------------------------------------------------------------------------

class SeparableMap(Op):
    """A linear map over several axes: one `AxisMap` after another, rounded once at the end.

    The input is divided by `before` and the result by `after`, which broadcast to them.
    """

    def __init__(self, maps: Sequence[AxisMap], before: Array | None = None,
                 after: Array | None = None) -> None:
        self.maps = tuple(maps)
        self.before = before
        self.after = after

    def forward(self, x: Array) -> Array:
        shapes = [x.shape]
        for each in self.maps:
            shapes.append(each.out_shape(shapes[-1]))
        out = empty(shapes[-1], x.dtype)
        dtype = compute_dtype(from_numpy(x.dtype)).numpy
        source, target = with_lead(x, self.maps), with_lead(out, self.maps)
        plane = max(math.prod(shape[-len(source.shape) + 2:]) for shape in shapes)
        cut = list(blocks(source.shape[:2], plane * dtype.itemsize, TASK_BYTES))

        def start() -> Callable[[int], None]:
            work = [Workspace(dtype) for _ in range(len(self.maps) + 2)]

            def map_planes(task: int) -> None:
                box = cut[task].box
                self._block(source[box], target[box], dtype, work)

            return map_planes

        threads.parallel(len(cut), start, max(source.size, target.size))
        return out

    def forward_cuda(self, x: Array) -> Array:
        return cuda_resample.apply(x, self.maps, self.before, self.after)

    def _block(self, x: Array, out: Array, dtype: np.dtype[Any], work: list[Workspace]) -> None:
        if self.before is not None:
            x = divide(x, self.before, work[0].take(x.shape))
        elif x.dtype != dtype:
            half, x = x, work[0].take(x.shape)
            np.copyto(x, half, casting="unsafe")
        for number, each in enumerate(self.maps, 1):
            last = number == len(self.maps) and out.dtype == dtype
            y = out if last else work[number].take(each.out_shape(x.shape))
            each.apply(x, y, work[-1])
            x = y
        if self.after is not None:
            divide(x, self.after, out)
        elif x is not out:
            np.copyto(out, x, casting="unsafe")

    def backward(self, dy: Tensor) -> Tensor:
        maps = [each.transposed() for each in reversed(self.maps)]
        return run(SeparableMap(maps, before=self.after, after=self.before), dy)  # type: ignore[no-any-return]


def divide(x: Array, divisor: Array, out: Array) -> Array:
    """The quotient, rounded towards zero for integers."""
    if x.dtype.kind == "i":
        np.subtract(x, np.fmod(x, divisor), out=out)
        return np.floor_divide(out, divisor, out=out)
    return np.divide(x, divisor, out=out, casting="unsafe")


def with_lead(array: Array, maps: Sequence[AxisMap]) -> Array:
    """The array with at least two axes in front of those that are mapped."""
    missing = 2 + max(-each.axis for each in maps) - array.ndim
    return array[(None,) * missing] if missing > 0 else array
