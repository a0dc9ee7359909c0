"""The best element that a flat structuring element covers, and the linear maps of its derivatives.

A structuring element is a list of taps: places (y, x) relative to each element's own.  What lies
outside the plane does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mlgpu.cpu import threads
from mlgpu.cpu.runtime import empty, full, zeros
from mlgpu.cuda import morphology as cuda_morphology
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.op import Op, run
from mlgpu.ops.window import Array, Slices, blocks
from mlgpu.tensor import Tensor

__all__ = ["BestTap", "GiveToTap", "TakeTap", "Taps"]

Taps = Sequence[tuple[int, int]]
TASK_BYTES = 1 << 19  # of a task's planes or rows: they are read once for each tap


class BestTap(Op):
    """The largest element, or with `least` the smallest, that the taps reach from each of planes
    (p, h, w); NaN wins.  Its gradient goes to the first of equal ones."""

    def __init__(self, taps: Taps, least: bool) -> None:
        self.taps, self.least = tuple(taps), least

    def forward(self, x: Array) -> Array:
        out = full(x.shape, worst(x.dtype, self.least), x.dtype)
        best = np.minimum if self.least else np.maximum

        def extend(planes: slice, rows: slice) -> None:
            into, source = out[planes], x[planes]
            for _, own, other in reached(self.taps, x.shape, rows):
                best(into[own], source[other], out=into[own])

        each_block(x, extend)
        if self.recording:
            self.stash(choice=self.chosen(x, out))
        return out

    def chosen(self, x: Array, best: Array) -> Array:
        """The first tap of each element that has what is best, or the last one that has NaN."""
        none = self.none()
        choice = full(x.shape, none, none.dtype)

        def find(planes: slice, rows: slice) -> None:
            taps = list(reached(self.taps, x.shape, rows))
            into, found, source = choice[planes], best[planes], x[planes]
            for tap, own, other in reversed(taps):
                np.copyto(into[own], tap, where=source[other] == found[own])
            if np.isnan(found[:, rows]).any():
                for tap, own, other in taps:
                    np.copyto(into[own], tap, where=np.isnan(source[other]))

        each_block(x, find)
        return choice

    def forward_cuda(self, x: Any) -> Any:
        out, choice = cuda_morphology.best(x, self.taps, self.least,
                                           self.none().dtype if self.recording else None)
        if choice is not None:
            self.stash(choice=choice)
        return out

    def none(self) -> Any:
        """What no tap has as its number, in the dtype that the numbers of taps have."""
        return np.uint8(255) if len(self.taps) < 256 else np.int32(-1)

    def backward(self, dy: Tensor) -> Tensor:
        return run(GiveToTap(self.taps, self.choice), dy)  # type: ignore[no-any-return]


class TakeTap(Op):
    """The element at the tap that `choice` names, 0 where there is none: linear."""

    def __init__(self, taps: Taps, choice: Array) -> None:
        self.taps, self.choice = taps, choice

    def forward(self, x: Array) -> Array:
        out = zeros(x.shape, x.dtype)

        def take(planes: slice, rows: slice) -> None:
            into, chosen, source = out[planes], self.choice[planes], x[planes]
            for tap, own, other in reached(self.taps, x.shape, rows):
                np.copyto(into[own], source[other], where=chosen[own] == tap)

        each_block(x, take)
        return out

    def forward_cuda(self, x: Any) -> Any:
        return cuda_morphology.take(x, self.taps, self.choice)

    def backward(self, dy: Tensor) -> Tensor:
        return run(GiveToTap(self.taps, self.choice), dy)  # type: ignore[no-any-return]


class GiveToTap(Op):
    """The adjoint of `TakeTap`: each element adds up what those took that chose it."""

    def __init__(self, taps: Taps, choice: Array) -> None:
        self.taps, self.choice = taps, choice

    def forward(self, dy: Array) -> Array:
        given = dy.dtype
        wide = compute_dtype(from_numpy(dy.dtype)).numpy
        bits = np.dtype(f"i{wide.itemsize}")
        dy = dy.astype(wide, copy=False)
        out = zeros(dy.shape, wide)
        back = [(-y, -x) for y, x in self.taps]

        def give(planes: slice, rows: slice) -> None:
            into, chosen, source = out[planes], self.choice[planes], dy[planes]
            for tap, own, other in reached(back, dy.shape, rows):
                # A product of the bits with 0 or 1: unlike one of the numbers it drops NaN.
                wanted = (chosen[other] == tap).view(np.int8)
                part = np.multiply(source[other].view(bits), wanted, dtype=bits).view(wide)
                into[own] += part

        each_block(dy, give)
        return out if wide == given else rounded(out, given)

    def forward_cuda(self, dy: Any) -> Any:
        return cuda_morphology.give(dy, self.taps, self.choice)

    def backward(self, dx: Tensor) -> Tensor:
        return run(TakeTap(self.taps, self.choice), dx)  # type: ignore[no-any-return]


def worst(dtype: Any, least: bool) -> Any:
    """What any other element is better than, or as good as."""
    if dtype.kind == "b":
        return least
    if dtype.kind in "iu":
        return np.iinfo(dtype).max if least else np.iinfo(dtype).min
    return np.inf if least else -np.inf


def rounded(array: Array, dtype: Any) -> Array:
    out = empty(array.shape, dtype)
    np.copyto(out, array, casting="unsafe")
    return out


def reached(taps: Taps, shape: Sequence[int], rows: slice) -> Iterator[tuple[int, Slices, Slices]]:
    """Each tap that reaches anything from some rows: its number, from which elements, and which."""
    height, width = shape[-2:]
    for tap, (y, x) in enumerate(taps):
        top, bottom = max(rows.start, -y), min(rows.stop, height - y)
        left, right = max(0, -x), min(width, width - x)
        if top < bottom and left < right:
            every = slice(None)
            yield (tap, (every, slice(top, bottom), slice(left, right)),
                   (every, slice(top + y, bottom + y), slice(left + x, right + x)))


def each_block(x: Array, body: Callable[[slice, slice], None]) -> None:
    """`body(planes, rows)` for all of planes (p, h, w), on the parallel loop."""
    cut = list(blocks(x.shape[:2], x.shape[2] * x.itemsize, TASK_BYTES))

    def run_block(task: int) -> None:
        body(*cut[task].box)

    threads.parallel(len(cut), lambda: run_block, x.size)
