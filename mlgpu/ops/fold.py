"""Sliding windows as tensors: nn.functional.unfold and fold, and Tensor.unfold, which is a view."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu.cpu import threads
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import fold as cuda_fold
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, ViewOp, run
from mlgpu.ops.window import Array, Ints, Size, Windows, Workspace, blocks, per_axis
from mlgpu.storage import as_strided
from mlgpu.tensor import Tensor

__all__ = ["fold", "unfold", "unfold_view"]

# Columns of a task: they are written or read once, and its planes meanwhile stay in cache.
TASK_BYTES = 1 << 20


class Unfold(Op):
    """(N, C, *large) to (N, C * taps, windows): each window as a column, zeros outside."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def forward(self, x: Array) -> Array:
        win, lead = self.windows, x.shape[:2]
        taps, count = math.prod(win.kernel), math.prod(win.small)
        out = empty((lead[0], lead[1] * taps, count), x.dtype)
        columns: Array = out.reshape(*lead, *win.kernel, *win.small)
        cut = list(blocks(lead, taps * count * x.itemsize, TASK_BYTES))

        def unfold_planes(task: int) -> None:
            box = cut[task].box
            planes: Array = x[box]
            part: Array = columns[box]
            part.fill(0)
            for tap in win.taps():
                places = win.tap_slices(tap, (0,) * len(tap), win.small)
                if places is not None:
                    seen, elements = places
                    part[(..., *tap, *seen)] = planes[(..., *elements)]

        threads.parallel(len(cut), lambda: unfold_planes, out.size)
        return out

    def forward_cuda(self, x: Array) -> Array:
        return cuda_fold.unfold(x, self.windows)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Fold(self.windows), dy)  # type: ignore[no-any-return]


class Fold(Op):
    """The adjoint of `Unfold`: adds each column to its window."""

    def __init__(self, windows: Windows) -> None:
        self.windows = windows

    def forward(self, columns: Array) -> Array:
        win = self.windows
        channels = columns.shape[1] // math.prod(win.kernel)
        columns = columns.reshape(len(columns), channels, *win.kernel, *win.small)
        dtype = compute_dtype(from_numpy(columns.dtype)).numpy
        out = empty((len(columns), channels, *win.large), columns.dtype)
        cut = list(blocks(out.shape[:2], math.prod(columns.shape[2:]) * dtype.itemsize, TASK_BYTES))

        def start() -> Callable[[int], None]:
            work = Workspace(dtype)

            def fold_planes(task: int) -> None:
                box = cut[task].box
                part: Array = columns[box]
                planes: Array = out[box]
                total: Array = planes if out.dtype == dtype else work.take(planes.shape)
                total.fill(0)
                for tap in win.taps():
                    places = win.tap_slices(tap, (0,) * len(tap), win.small)
                    if places is not None:
                        seen, elements = places
                        total[(..., *elements)] += part[(..., *tap, *seen)]
                if total is not planes:
                    np.copyto(planes, total, casting="unsafe")

            return fold_planes

        threads.parallel(len(cut), start, columns.size)
        return out

    def forward_cuda(self, columns: Array) -> Array:
        return cuda_fold.fold(columns, self.windows)

    def backward(self, dx: Tensor) -> Tensor:
        return run(Unfold(self.windows), dx)  # type: ignore[no-any-return]


class UnfoldView(ViewOp):
    """Windows along one dimension, as a new last dimension of the same memory."""

    def __init__(self, dimension: int, size: int, step: int) -> None:
        self.dimension = dimension
        self.size = size
        self.step = step

    def forward(self, x: Any) -> Any:
        d = self.dimension
        shape, strides = list(x.shape), list(x.strides)
        shape[d] = (shape[d] - self.size) // self.step + 1
        strides[d] *= self.step
        return as_strided(x, (*shape, self.size), (*strides, x.strides[d]))

    def backward(self, dy: Tensor) -> Tensor:
        return run(FoldView(self, self._inputs_meta[0][0]), dy)  # type: ignore[no-any-return]


class FoldView(Op):
    """The adjoint of `UnfoldView`: adds the windows up where they lie."""

    def __init__(self, view: UnfoldView, shape: Ints) -> None:
        self.window = view.dimension, view.size, view.step
        self.shape = shape

    def forward(self, dy: Array) -> Array:
        dimension, size, step = self.window
        dtype = compute_dtype(from_numpy(dy.dtype)).numpy
        total = empty(self.shape, dtype)
        along = np.moveaxis(total, dimension, -1)
        windows = np.moveaxis(dy, dimension, -2)
        count = windows.shape[-2]
        if along.ndim == 1:
            along, windows = along[None], windows[None]
        cut = list(blocks(along.shape[:1], windows[:1].size * dtype.itemsize, TASK_BYTES))

        def add_windows(task: int) -> None:
            box = cut[task].box
            to, part = along[box], windows[box]
            to.fill(0)
            if size <= count:
                for tap in range(size):
                    to[..., tap:tap + (count - 1) * step + 1:step] += part[..., tap]
            else:
                for place in range(count):
                    to[..., place * step:place * step + size] += part[..., place, :]

        threads.parallel(len(cut), lambda: add_windows, windows.size)
        return rounded(total, dy.dtype)

    def forward_cuda(self, dy: Array) -> Array:
        dimension, _, step = self.window
        return cuda_fold.overlap_add(dy, self.shape, dimension, step)

    def backward(self, dx: Tensor) -> Tensor:
        return run(UnfoldView(*self.window), dx)  # type: ignore[no-any-return]


def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0,
           stride: Size = 1) -> Tensor:
    """The windows of (N, C, H, W) as columns: (N, C * kH * kW, windows), zeros for padding.

    Unbatched (C, H, W) gives (C * kH * kW, windows).  Raises ShapeError, and DTypeError for ints.
    """
    check("unfold", input, 3)
    win = geometry("unfold", tuple(input.shape[-2:]), kernel_size, dilation, padding, stride)
    if input.ndim == 3:
        return run(Unfold(win), input.unsqueeze(0)).squeeze(0)  # type: ignore[no-any-return]
    return run(Unfold(win), input)  # type: ignore[no-any-return]


def fold(input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1,
         padding: Size = 0, stride: Size = 1) -> Tensor:
    """Adds columns (N, C * kH * kW, windows) up into (N, C, *output_size): unfold's adjoint.

    Unbatched (C * kH * kW, windows) gives (C, *output_size).  Raises ShapeError, DTypeError.
    """
    check("fold", input, 2)
    large = per_axis("fold", "output_size", output_size, 2, 1)
    win = geometry("fold", large, kernel_size, dilation, padding, stride)
    taps, count = math.prod(win.kernel), math.prod(win.small)
    if input.shape[-2] % taps or input.shape[-1] != count:
        raise ShapeError(f"fold: input must be (N, a multiple of {taps} taps, {count} windows), "
                         f"got {tuple(input.shape)}")
    if input.ndim == 2:
        return run(Fold(win), input.unsqueeze(0)).squeeze(0)  # type: ignore[no-any-return]
    return run(Fold(win), input)  # type: ignore[no-any-return]


def unfold_view(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Tensor.unfold: windows of `size` every `step` along a dimension, in a new last dimension.

    A view of the same memory; windows may overlap.  Raises ShapeError, or IndexError for a
    dimension out of range.
    """
    axes = max(1, input.ndim)
    if not -axes <= dimension < axes:
        raise IndexError(f"unfold: dimension must lie in [{-axes}, {axes - 1}], got {dimension}")
    length = input.shape[dimension] if input.ndim else 1
    if not 0 <= size <= length or step < 1:
        raise ShapeError(f"unfold: needs 0 <= size <= {length} (the dimension's length) and "
                         f"step >= 1, got size={size}, step={step}")
    if input.ndim == 0:
        return input.reshape(1).narrow(0, 0, size)
    return run(UnfoldView(dimension % axes, size, step), input)  # type: ignore[no-any-return]


def rounded(total: Array, dtype: np.dtype[Any]) -> Array:
    """The total in the dtype of the result; itself where it is in that already."""
    if total.dtype == dtype:
        return total
    out = empty(total.shape, dtype)
    np.copyto(out, total, casting="unsafe")
    return out


def geometry(name: str, large: Ints, kernel_size: Size, dilation: Size, padding: Size,
             stride: Size) -> Windows:
    kernel = per_axis(name, "kernel_size", kernel_size, 2, 1)
    gaps = per_axis(name, "dilation", dilation, 2, 1)
    before = per_axis(name, "padding", padding, 2, 0)
    steps = per_axis(name, "stride", stride, 2, 1)
    sizes = zip(large, kernel, gaps, before, steps, strict=True)
    small = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in sizes)
    if min(small) < 1:
        raise ShapeError(f"{name}: the kernel {kernel} with dilation {gaps} must fit into {large} "
                         f"with padding {before}")
    return Windows(large, small, kernel, steps, gaps, before)


def check(name: str, input: Tensor, unbatched: int) -> None:
    if input.ndim not in (unbatched, unbatched + 1) or 0 in input.shape[input.ndim - unbatched:]:
        raise ShapeError(f"{name}: input must have {unbatched} or {unbatched + 1} dimensions, none "
                         f"empty but the batch, got {tuple(input.shape)}")
    if input.dtype.kind == "int":
        raise DTypeError(f"{name}: not defined for {input.dtype}; convert with .to()")
