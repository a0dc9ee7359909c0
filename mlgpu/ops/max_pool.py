"""The maximum of sliding windows, and the linear maps that are its derivatives.

Windows are boxes, so the maximum is taken one axis after another.  Taken along the last axis first
it finds the winner that PyTorch finds: the first in row-major order, or the last NaN.  Windows of
2 x 2 have compiled loops for both axes at once (`mlgpu.cpu.fast.max_pool`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mlgpu.cpu import fast, threads
from mlgpu.cpu.runtime import copy, empty
from mlgpu.cuda import pool as cuda_pool
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.op import Op, run
from mlgpu.ops.axis_map import AxisMap, with_lead
from mlgpu.ops.window import Array, Ints, Workspace, blocks
from mlgpu.tensor import Tensor

__all__ = ["Choose", "MaxPool", "Unchoose"]

# Planes of a task.  NumPy's calls must be long for two threads not to wait for the interpreter:
# 32 x 64 x 32 x 32 forward and backward took 8.4 ms with 512 KiB, 6.6 with this, 7.5 with 8 MiB.
TASK_BYTES = 1 << 21
COMPILED_BYTES = 1 << 18


class MaxPool(Op):
    """The maximum of each window, and with `origins` also its place in the flattened planes.

    `maps` go from the last axis to the first; `origins` hold, for each, the first element of each
    window and the dilation.
    """

    nondifferentiable_outputs = (1,)
    joint = False  # whether one choice stands for all axes: on CUDA, and in compiled loops

    def __init__(self, maps: Sequence[AxisMap], origins: Sequence[tuple[Array, int]] = ()) -> None:
        self.maps = tuple(maps)
        self.origins = tuple(origins)

    def forward(self, x: Array) -> Any:
        loops = _squares(self.maps, x)
        if loops is not None:
            self.joint = True
            out = empty((*x.shape[:-2], *(each.size_out for each in self.maps[::-1])), x.dtype)
            choice = empty(out.shape, np.uint8)
            _each_plane(loops.maximum, x, out, choice)
            self.stash(choice0=choice)
            return (out, _places(choice, x.shape[-1])) if self.origins else out
        taps = max((step.tap for each in self.maps for step in each.steps), default=0)
        small = np.dtype(np.uint8 if taps < 256 else np.int32)
        choices: list[Array] = []
        shape: Ints = x.shape
        for each in self.maps:
            shape = each.out_shape(shape)
            if self.recording or self.origins:
                choices.append(empty(shape, small))
        out = empty(shape, x.dtype)
        source, target = with_lead(x, self.maps), with_lead(out, self.maps)
        chosen = [with_lead(c, self.maps) for c in choices] or [None] * len(self.maps)
        cut = list(blocks(source.shape[:2], math.prod(source.shape[2:]) * x.itemsize, TASK_BYTES))

        def start() -> Callable[[int], None]:
            work = [Workspace(x.dtype) for _ in self.maps]
            spare = Workspace(x.dtype), Workspace(np.dtype(bool)), Workspace(small)

            def pool(task: int) -> None:
                box = cut[task].box
                y = source[box]
                for each, space, choice in zip(self.maps, work, chosen, strict=True):
                    last = each is self.maps[-1]
                    best = target[box] if last else space.take(each.out_shape(y.shape))
                    part = None if choice is None else choice[box]
                    maximum(each, y, best, part, spare)
                    y = best

            return pool

        threads.parallel(len(cut), start, source.size)
        if choices:
            self.stash(**{f"choice{number}": c for number, c in enumerate(choices)})
        return (out, places(self.maps, choices, self.origins)) if self.origins else out

    def forward_cuda(self, x: Array) -> Any:
        out, choice, place = cuda_pool.maximum(x, self.maps, self.recording, bool(self.origins))
        if choice is not None:
            self.stash(choice0=choice)
            self.joint = True
        return (out, place) if self.origins else out

    def backward(self, dy: Tensor, unused: Tensor | None = None) -> Tensor:
        count = 1 if self.joint else len(self.maps)
        choices = [getattr(self, f"choice{number}") for number in range(count)]
        return run(Unchoose(self.maps, choices), dy)  # type: ignore[no-any-return]


class Choose(Op):
    """The element of each window that `choices` name: linear, the adjoint of `Unchoose`."""

    def __init__(self, maps: Sequence[AxisMap], choices: Sequence[Array]) -> None:
        self.maps = tuple(maps)
        self.choices = tuple(choices)

    def forward(self, x: Array) -> Array:
        if len(self.choices) < len(self.maps):
            loops = fast.load("max_pool", fast.ENOUGH)
            assert loops is not None  # which made the choices
            out = empty(self.choices[0].shape, x.dtype)
            _each_plane(loops.choose, x, self.choices[0], out)
            return out
        for each, choice in zip(self.maps, self.choices, strict=True):
            out = empty(choice.shape, x.dtype)
            choose(each, x, choice, out)
            x = out
        return x

    def forward_cuda(self, x: Array) -> Array:
        return cuda_pool.choose(x, self.maps, self.choices[0])

    def backward(self, dy: Tensor) -> Tensor:
        return run(Unchoose(self.maps, self.choices), dy)  # type: ignore[no-any-return]


class Unchoose(Op):
    """Adds each element to the one of its window that `choices` name, in zeros."""

    def __init__(self, maps: Sequence[AxisMap], choices: Sequence[Array]) -> None:
        self.maps = tuple(maps)
        self.choices = tuple(choices)

    def forward(self, dy: Array) -> Array:
        dtype = compute_dtype(from_numpy(dy.dtype)).numpy
        shape: Ints = dy.shape
        for each in reversed(self.maps):
            shape = each.transposed().out_shape(shape)
        out = empty(shape, dy.dtype)
        if len(self.choices) < len(self.maps):
            loops = fast.load("max_pool", fast.ENOUGH)
            assert loops is not None  # which made the choices
            _each_plane(loops.unchoose, dy, self.choices[0], out)
            return out
        source, target = with_lead(dy, self.maps), with_lead(out, self.maps)
        picked = [with_lead(c, self.maps) for c in self.choices]
        plane = math.prod(target.shape[2:]) * dtype.itemsize
        cut = list(blocks(source.shape[:2], plane, TASK_BYTES))

        def start() -> Callable[[int], None]:
            work = [Workspace(dtype) for _ in self.maps]
            spare = Workspace(dtype)

            def give_back(task: int) -> None:
                box = cut[task].box
                y = source[box]
                for each, space, choice in reversed(list(zip(self.maps, work, picked,
                                                             strict=True))):
                    last = each is self.maps[0] and out.dtype == dtype
                    dx = (target[box] if last
                          else space.take(each.transposed().out_shape(y.shape)))
                    unchoose(each.transposed(), y, choice[box], dx, spare)
                    y = dx
                if out.dtype != dtype:
                    np.copyto(target[box], y, casting="unsafe")

            return give_back

        for each in self.maps:
            each.transposed()  # made once, not by every thread
        threads.parallel(len(cut), start, target.size)
        return out

    def forward_cuda(self, dy: Array) -> Array:
        return cuda_pool.unchoose(dy, self.maps, self.choices[0])

    def backward(self, dx: Tensor) -> Tensor:
        return run(Choose(self.maps, self.choices), dx)  # type: ignore[no-any-return]


# --- both axes at once, compiled -----------------------------------------------------------------

def _squares(maps: Sequence[AxisMap], x: Array) -> ModuleType | None:
    """The compiled loops for windows of 2 x 2, two apart; None where others are asked for."""
    if len(maps) == 2 and all(each.halves for each in maps) and x.dtype.char in "fd":
        return fast.load("max_pool", x.size)
    return None


def _each_plane(loop: Callable[..., None], *arrays: Array) -> None:
    """A compiled loop over planes (P, H, W) of arrays (..., H, W), on the parallel loop."""
    dense = [a if a.flags.c_contiguous else copy(a) for a in arrays]
    planes = [a.reshape(-1, *a.shape[-2:]) for a in dense]
    largest = max(planes, key=lambda each: each.nbytes)
    cut = list(blocks(largest.shape[:1], math.prod(largest.shape[1:]) * largest.itemsize,
                      COMPILED_BYTES))

    def run_loop(task: int) -> None:
        some = cut[task].box
        loop(*[each[some] for each in planes])

    threads.parallel(len(cut), lambda: run_loop, largest.size)


def _places(choice: Array, width: int) -> Array:
    """The largest element of each window of 2 x 2 as an index into its flattened plane."""
    rows, columns = choice.shape[-2:]
    place = empty(choice.shape, np.int64)
    np.multiply(choice >> 1, width, out=place, dtype=np.int64)
    place += choice & 1
    place += (np.arange(rows) * (2 * width))[:, None] + np.arange(columns) * 2
    return place


# --- one axis after another ----------------------------------------------------------------------

def maximum(each: AxisMap, x: Array, best: Array, choice: Array | None,
            spare: tuple[Workspace, ...]) -> None:
    """best = the maximum of each window of one axis; choice = its first tap, or the last NaN's."""
    if not each.covers:  # dilated windows may lie wholly in the padding
        best.fill(np.iinfo(best.dtype).min if best.dtype.kind in "iu" else -np.inf)
        if choice is not None:
            choice.fill(0)
    compete(each, x, best, choice, spare, nan=False)
    if choice is not None and best.dtype.kind not in "iu" and np.isnan(best).any():
        compete(each, x, best, choice, spare, nan=True)


def compete(each: AxisMap, x: Array, best: Array, choice: Array | None,
            spare: tuple[Workspace, ...], nan: bool) -> None:
    values, flags, taps = spare
    for step in each.steps:
        value, rows = x[each.at(step.source)], each.at(step.rows)
        if step.first:
            best[rows] = value
            if choice is not None:
                choice[rows] = step.tap
            continue
        if value.strides[-1] != value.itemsize:
            # NumPy compares strided elements three times slower than it copies them.
            strided, value = value, values.take(value.shape)
            np.copyto(value, strided)
        if choice is not None:
            wins = np.greater(value, best[rows], out=flags.take(value.shape))
            if nan:
                wins |= np.isnan(value)
            # Taps come in rising order, so that the winner among them is the largest.
            tap = np.multiply(wins, step.tap, out=taps.take(wins.shape), dtype=choice.dtype)
            choice[rows] = np.maximum(choice[rows], tap, out=tap)
        if isinstance(step.rows, slice):
            np.maximum(best[rows], value, out=best[rows])
        else:
            best[rows] = np.maximum(best[rows], value)


def choose(each: AxisMap, x: Array, choice: Array, out: Array) -> None:
    """out = the element of each window of one axis that `choice` names."""
    if not each.covers:
        out.fill(0)
    for step in each.steps:
        rows = each.at(step.rows)
        wanted = choice[rows] == step.tap
        if isinstance(step.rows, slice):
            np.copyto(out[rows], x[each.at(step.source)], where=wanted)
        else:
            out[rows] = np.where(wanted, x[each.at(step.source)], out[rows])


def unchoose(each: AxisMap, dy: Array, choice: Array, dx: Array, spare: Workspace) -> None:
    """Each element of dy to the element of dx that `choice` names; `each` maps dy to dx."""
    bits = np.dtype(f"i{dx.itemsize}")
    if not each.covers:
        dx.fill(0)
    for step in each.steps:
        source, rows = each.at(step.source), each.at(step.rows)
        wanted = (choice[source] == step.tap).view(np.int8)
        value = dy[source]
        if value.dtype != dx.dtype:
            value = value.astype(dx.dtype)
        # A product of the bits with 0 or 1: unlike one of the numbers it drops NaN and infinity.
        direct = step.first and isinstance(step.rows, slice)
        part = dx[rows] if direct else spare.take(value.shape)
        np.multiply(value.view(bits), wanted, out=part.view(bits))
        if not direct and step.first:
            dx[rows] = part
        elif not direct:
            dx[rows] += part


def places(maps: Sequence[AxisMap], choices: Sequence[Array],
           origins: Sequence[tuple[Array, int]]) -> Array:
    """The chosen elements as indices into the flattened planes, int64."""
    found: Array | None = None
    size = 1
    for each, choice, (first, dilation) in zip(maps, choices, origins, strict=True):
        index = empty(choice.shape, np.int64)
        np.multiply(choice, dilation, out=index, dtype=np.int64)
        index += first.reshape(-1, *(1,) * (-each.axis - 1))
        index *= size
        if found is not None:
            inner = empty(choice.shape, np.int64)
            choose(each, found, choice, inner)
            index += inner
        found, size = index, size * each.size_in
    assert found is not None
    return found
