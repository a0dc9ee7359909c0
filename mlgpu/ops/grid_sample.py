"""Sampling an image at given places: grid_sample and affine_grid (spatial transformers).

A place between elements takes from a few elements along each axis, its taps, with weights that
depend on the place; the taps of all axes together are the products.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda.grid_sample import Sampling
from mlgpu.dtypes import compute_dtype, float64, from_numpy
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.creation import linspace, ones_like
from mlgpu.ops.join import stack
from mlgpu.ops.matmul import matmul
from mlgpu.ops.resample import cubic
from mlgpu.ops.window import Array
from mlgpu.tensor import Tensor

__all__ = ["affine_grid", "grid_sample"]

MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")


class Tap(NamedTuple):
    """One element along one axis for each place: its index, weight, and the weight's slope."""

    index: Array
    weight: Array
    slope: Array


class GridSample(Op):
    """y[n, c, p] = the sum over taps of weight(grid[n, p]) x[n, c, tap].

    Has a first derivative only, as in PyTorch.
    """

    saved_inputs = (0, 1)

    def __init__(self, mode: str, padding_mode: str, align_corners: bool) -> None:
        self.mode = mode
        self.padding_mode = padding_mode
        self.align_corners = align_corners

    def forward(self, x: Array, grid: Array) -> Array:
        images, channels = x.shape[:2]
        dtype = compute_dtype(from_numpy(x.dtype)).numpy
        out = empty((images, channels, *grid.shape[1:-1]), x.dtype)
        places = grid[0, ..., 0].size if images else 0
        total, taken = empty((channels, places), dtype), empty((channels, places), dtype)
        for image, target, where in zip(x, out, grid, strict=True):
            source = with_zero(image, dtype)
            total.fill(0)
            for index, weight, _ in self.combined(where, x.shape[2:], dtype):
                np.take(source, index, 1, out=taken, mode="clip")
                np.multiply(taken, weight, out=taken)
                np.add(total, taken, out=total)
            target[...] = total.reshape(target.shape)
        return out

    def backward_cpu(self, dy: Array) -> tuple[Array | None, Array | None]:
        x, grid = self.input_array(0), self.input_array(1)
        dtype = compute_dtype(from_numpy(x.dtype)).numpy
        dx = empty(x.shape, x.dtype) if self.needs[0] else None
        dgrid = zeros(grid.shape, dtype) if self.needs[1] else None
        for n, where in enumerate(grid):
            slope = dy[n].reshape(x.shape[1], -1).astype(dtype, copy=False)
            taps = list(self.combined(where, x.shape[2:], dtype))
            if dx is not None:
                dx[n] = scatter(slope, taps, dx[n, :1].size).reshape(dx.shape[1:])
            if dgrid is not None:
                source = with_zero(x[n], dtype)
                flat = dgrid[n].reshape(-1, grid.shape[-1])
                for index, _, slopes in taps:
                    along = np.einsum("cp,cp->p", slope, source[:, index])
                    for axis, each in enumerate(reversed(slopes)):
                        flat[:, axis] += along * each
        return dx, dgrid

    def forward_cuda(self, x: Array, grid: Array) -> Array:
        return self.sampling(x, grid).forward(x)

    def backward_cuda(self, dy: Array) -> tuple[Array | None, Array | None]:
        x, grid = self.input_array(0), self.input_array(1)
        sampling = self.sampling(x, grid)
        return (sampling.backward_image(dy) if self.needs[0] else None,
                sampling.backward_grid(dy, x) if self.needs[1] else None)

    def sampling(self, x: Array, grid: Array) -> Sampling:
        return Sampling(x.shape, grid, self.mode, self.padding_mode, self.align_corners)

    def combined(self, grid: Array, sizes: Sequence[int],
                 dtype: np.dtype[Any]) -> Iterator[tuple[Array, Array, list[Array]]]:
        """For each tap: indices into the flattened image and its one zero beyond, weights, and
        the slopes of the weights along each axis."""
        coordinates = grid.reshape(-1, grid.shape[-1]).astype(dtype, copy=False)
        axes = [self.taps(coordinates[:, len(sizes) - 1 - axis], size)
                for axis, size in enumerate(sizes)]
        beyond = int(np.prod(sizes))
        for taps in itertools.product(*axes):
            index = np.zeros(len(coordinates), np.int64)
            outside = np.zeros(len(coordinates), bool)
            for tap, size in zip(taps, sizes, strict=True):
                outside |= (tap.index < 0) | (tap.index >= size)
                index = index * size + tap.index
            weights = [tap.weight for tap in taps]
            slopes = [np.prod([*weights[:axis], tap.slope, *weights[axis + 1:]], axis=0)
                      for axis, tap in enumerate(taps)]
            yield np.where(outside, beyond, index), np.prod(weights, axis=0), slopes

    def taps(self, coordinate: Array, size: int) -> list[Tap]:
        """The taps along one axis for coordinates in [-1, 1]; index -1 means outside."""
        scale = (size - 1) / 2 if self.align_corners else size / 2
        place = coordinate * scale + (size - 1) / 2
        if self.mode != "bicubic":
            place, sign = self.inside(place, size)
            scale = sign * scale
        # Neither NaN nor what is far outside has an index; both see the padding.
        place = np.where(np.abs(place) < 2**30, place, -100).astype(place.dtype)
        if self.mode == "nearest":
            flat = np.zeros_like(place)
            return [Tap(np.rint(place).astype(np.int64), flat + 1, flat)]
        whole = np.floor(place)
        offset, first = place - whole, whole.astype(np.int64)
        if self.mode == "bilinear":
            return [Tap(first, 1 - offset, -scale + np.zeros_like(place)),
                    Tap(first + 1, offset, scale + np.zeros_like(place))]
        taps = []
        for tap in (-1, 0, 1, 2):
            index, _ = self.inside((first + tap).astype(place.dtype), size)
            taps.append(Tap(index.astype(np.int64), cubic(offset - tap, -0.75),
                            cubic_slope(offset - tap, -0.75) * scale))
        return taps

    def inside(self, place: Array, size: int) -> tuple[Array, Array]:
        """The place with the padding mode applied, and its derivative: 1, -1, 0 where clipped."""
        sign = np.ones_like(place)
        if self.padding_mode == "zeros":
            return place, sign
        if self.padding_mode == "reflection":
            low = 0.0 if self.align_corners else -0.5
            span = size - 1 if self.align_corners else size
            if span == 0:
                return np.zeros_like(place), np.zeros_like(place)
            sign[place < low] = -1
            distance = np.abs(place - low)
            extra = np.fmod(distance, span)
            odd = np.floor(distance / span) % 2 == 1
            place = np.where(odd, span - extra, extra) + low
            sign[odd] *= -1
        clipped = (place <= 0) | (place >= size - 1)
        sign[clipped] = 0
        return np.where(place >= 0, np.minimum(place, size - 1), 0).astype(sign.dtype), sign


def cubic_slope(distance: Array, a: float) -> Array:
    """The derivative of `cubic`."""
    d = np.abs(distance)
    near = (3 * (a + 2) * d - 2 * (a + 3)) * d
    far = (3 * a * d - 10 * a) * d + 8 * a
    slope = np.where(d <= 1, near, np.where(d < 2, far, 0)) * np.sign(distance)
    return slope.astype(d.dtype)


def with_zero(image: Array, dtype: np.dtype[Any]) -> Array:
    """The image flattened to (C, size + 1), ending with the zero that lies outside."""
    channels = len(image)
    size = image[:1].size
    out = empty((channels, size + 1), dtype)
    out[:, :size] = image.reshape(channels, size)
    out[:, size] = 0
    return out


def scatter(slope: Array, taps: Sequence[tuple[Array, Array, Any]], size: int) -> Array:
    """The adjoint of sampling in the image, (C, size): sums by element, sorted once."""
    index = np.concatenate([tap[0] for tap in taps])
    order = np.argsort(index, kind="stable")
    ordered = index[order]
    inside = int(np.searchsorted(ordered, size))
    order, ordered = order[:inside], ordered[:inside]
    out = zeros((len(slope), size), slope.dtype)
    if inside:
        weight = np.concatenate([tap[1] for tap in taps])[order]
        values = slope[:, order % slope.shape[1]]
        values *= weight
        starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
        out[:, ordered[starts]] = np.add.reduceat(values, starts, axis=1)
    return out


def grid_sample(input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Tensor:
    """Sample (N, C, H, W) at grid (N, h, w, 2), or (N, C, D, H, W) at (N, d, h, w, 3).

    Grid entries are (x, y[, z]) in [-1, 1]: with align_corners the centres of the corner elements,
    else their outer edges.  mode: bilinear, nearest, bicubic (4-D only); padding_mode: zeros,
    border, reflection.  Jaderberg et al. 2015.  No second derivative, as in PyTorch.  Raises
    ShapeError and DTypeError.
    """
    if mode not in MODES or padding_mode not in PADDINGS:
        raise ShapeError(f"grid_sample: mode must be one of {', '.join(MODES)} and padding_mode "
                         f"one of {', '.join(PADDINGS)}, got {mode!r} and {padding_mode!r}")
    if (input.ndim not in (4, 5) or grid.ndim != input.ndim or grid.shape[0] != input.shape[0]
            or grid.shape[-1] != input.ndim - 2 or 0 in input.shape[2:]):
        raise ShapeError(f"grid_sample: needs input (N, C, H, W) with grid (N, h, w, 2), or input "
                         f"(N, C, D, H, W) with grid (N, d, h, w, 3), none empty in space, got "
                         f"{tuple(input.shape)} and {tuple(grid.shape)}")
    if mode == "bicubic" and input.ndim != 4:
        raise ShapeError(f"grid_sample: bicubic takes 4-D input, got {tuple(input.shape)}")
    if not input.dtype.is_floating_point or grid.dtype is not input.dtype:
        raise DTypeError(f"grid_sample: input and grid must have one floating dtype, got "
                         f"{input.dtype} and {grid.dtype}; convert with .to()")
    return run(GridSample(mode, padding_mode, bool(align_corners)), input, grid)  # type: ignore[no-any-return]


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The places that an affine map takes each element of an image of `size` to.

    theta (N, 2, 3) with size (N, C, H, W) gives (N, H, W, 2); (N, 3, 4) with (N, C, D, H, W) gives
    (N, D, H, W, 3), for `grid_sample` with the same align_corners.  Raises ShapeError, DTypeError.
    """
    axes = len(size) - 2
    if not theta.dtype.is_floating_point:
        raise DTypeError(f"affine_grid: theta must be floating, got {theta.dtype}")
    if axes not in (2, 3) or tuple(theta.shape) != (size[0], axes, axes + 1) or min(size) < 1:
        raise ShapeError(f"affine_grid: needs theta (N, 2, 3) with size (N, C, H, W), or (N, 3, 4) "
                         f"with (N, C, D, H, W), all positive; got {tuple(theta.shape)} and "
                         f"{tuple(size)}")
    lines = []
    for axis, count in enumerate(size[2:]):
        end = 0.0 if count == 1 else 1.0 if align_corners else (count - 1) / count
        line = linspace(-end, end, count, dtype=float64, device=theta.device)
        lines.append(line.reshape(-1, *(1,) * (axes - 1 - axis)).expand(*size[2:]))
    places = stack([*reversed(lines), ones_like(lines[0])], -1).to(theta.dtype)
    flat = places.reshape(1, -1, axes + 1)
    return matmul(flat, theta.mT).reshape(size[0], *size[2:], axes)
