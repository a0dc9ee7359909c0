"""Pooling of regions of feature maps, each a grid of equal bins.

Sampling is separable: along an axis a bin is a weighted sum of a few elements, so that a region is
two products with small matrices, on features whose channels lie side by side.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from mlgpu.cpu.runtime import copy, empty, zeros
from mlgpu.cuda import roi as cuda_roi
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.errors import PositionError
from mlgpu.op import Op, run
from mlgpu.ops.window import Array
from mlgpu.tensor import Tensor

__all__ = ["RoiAlign", "RoiPool"]

MOST_SAMPLES = 1024  # of a bin along an axis, where they are as many as it has elements


class RoiAlign(Op):
    """The mean of samples in each bin of each region (image, x1, y1, x2, y2), (k, 5), of feature
    maps (n, c, h, w): linear in these.  He et al. 2017."""

    saved_inputs = (1,)

    def __init__(self, size: tuple[int, int], scale: float, ratio: int, aligned: bool) -> None:
        self.size, self.scale, self.ratio, self.aligned = size, scale, ratio, aligned

    def forward(self, x: Array, regions: Array) -> Array:
        wide = compute_dtype(from_numpy(x.dtype)).numpy
        images = image_of("roi_align", regions, len(x))
        out = empty((len(regions), *self.size, x.shape[1]), wide)
        last = channels_last(x, wide)
        for number, down, along in self.weights(regions, x.shape, wide):
            part = last[images[number], down.where, along.where]
            lines = down.weights @ part.reshape(len(part), math.prod(part.shape[1:]))
            np.matmul(along.weights, lines.reshape(self.size[0], *part.shape[1:]), out=out[number])
        return planes(out, x.dtype)

    def forward_cuda(self, x: Any, regions: Any) -> Any:
        return cuda_roi.align(x, self.of(x.shape, regions))

    def backward(self, dy: Tensor) -> tuple[Tensor, None]:
        (shape, _), _ = self._inputs_meta
        op = RoiAlignAdjoint(shape, self.size, self.scale, self.ratio, self.aligned)
        return run(op, dy, self.input(1)), None

    def of(self, shape: tuple[int, ...], regions: Any) -> cuda_roi.Regions:
        return cuda_roi.Regions(regions, shape, self.size, self.scale, self.ratio, self.aligned)

    def weights(self, regions: Array, shape: tuple[int, ...], dtype: Any
                ) -> Iterator[tuple[int, Seen, Seen]]:
        """Each region: its number, and what elements count along both axes."""
        rows, columns = (Axis(regions[:, 2 - axis], regions[:, 4 - axis], bins, length, self)
                         for axis, bins, length in zip((0, 1), self.size, shape[2:], strict=True))
        for number in range(len(regions)):
            yield number, rows.of(number, dtype), columns.of(number, dtype)


class RoiAlignAdjoint(RoiAlign):
    """The adjoint of `RoiAlign` in the feature maps, whose shape is given."""

    def __init__(self, shape: tuple[int, ...], *how: Any) -> None:
        super().__init__(*how)
        self.shape = shape

    def forward(self, dy: Array, regions: Array) -> Array:
        wide = compute_dtype(from_numpy(dy.dtype)).numpy
        images = image_of("roi_align", regions, self.shape[0])
        count, channels, height, width = self.shape
        out = zeros((count, height, width, channels), wide)
        slopes = channels_last(dy, wide)
        for number, down, along in self.weights(regions, self.shape, wide):
            lines = np.matmul(along.weights.T, slopes[number])
            target = out[images[number], down.where, along.where]
            part = down.weights.T @ lines.reshape(len(lines), math.prod(lines.shape[1:]))
            target += part.reshape(target.shape)
        return planes(out, dy.dtype)

    def forward_cuda(self, dy: Any, regions: Any) -> Any:
        return cuda_roi.gradient(dy, self.of(self.shape, regions))

    def backward(self, dx: Tensor) -> tuple[Tensor, None]:
        op = RoiAlign(self.size, self.scale, self.ratio, self.aligned)
        return run(op, dx, self.input(1)), None


class Seen(NamedTuple):
    """The elements of an axis that a region's bins see, and what each counts in each bin."""

    where: slice
    weights: Array  # (bins, elements)


class Axis:
    """Samples of all regions along one axis."""

    def __init__(self, low: Array, high: Array, bins: int, length: int, how: RoiAlign) -> None:
        kind = low.dtype.type
        offset = kind(0.5 if how.aligned else 0)
        start = low * kind(how.scale) - offset
        extent = high * kind(how.scale) - offset - start
        if not how.aligned:
            extent = np.maximum(extent, kind(1))
        step = extent / kind(bins)
        wanted = np.ceil(np.where(step > 0, step, 0))  # a region that is NaN sees nothing
        self.samples = (np.full(len(low), how.ratio) if how.ratio
                        else np.minimum(wanted, MOST_SAMPLES).astype(np.int64))
        self.start, self.step, self.bins, self.length = start, step, bins, length

    def of(self, number: int, dtype: Any) -> Seen:
        """What region `number` sees."""
        count, length = int(self.samples[number]), self.length
        kind = self.start.dtype.type
        step, start = self.step[number], self.start[number]
        bins = np.arange(self.bins, dtype=step.dtype)[:, None] * step + start
        places = bins + (np.arange(count, dtype=step.dtype) + kind(0.5)) * (step / kind(count or 1))
        inside = (places >= -1) & (places <= length)
        if not inside.any():
            return Seen(slice(0, 0), np.zeros((self.bins, 0), dtype))
        places = np.clip(places, 0, length - 1)
        seen = places[inside]
        first, stop = int(seen.min()), min(int(seen.max()) + 2, length)
        away = np.abs(places[..., None] - np.arange(first, stop, dtype=step.dtype))
        hats = np.maximum(1 - away, 0)
        hats[~inside] = 0
        return Seen(slice(first, stop), (hats.sum(axis=1) / count).astype(dtype, copy=False))


class RoiPool(Op):
    """The largest element of each bin of each region (image, x1, y1, x2, y2), (k, 5), of feature
    maps (n, c, h, w), 0 where a bin has none.  Girshick 2015."""

    saved_inputs = (1,)

    def __init__(self, size: tuple[int, int], scale: float) -> None:
        self.size, self.scale = size, scale

    def forward(self, x: Array, regions: Array) -> Array:
        count, channels, height, width = x.shape
        images = image_of("roi_pool", regions, count)
        best = zeros((len(regions), *self.size, channels), x.dtype)
        places = empty(best.shape, np.int32)
        last = channels_last(x, x.dtype)
        rows = ranges(regions[:, 2], regions[:, 4], self.size[0], height, self.scale)
        columns = ranges(regions[:, 1], regions[:, 3], self.size[1], width, self.scale)
        places.fill(-1)
        for number, image in enumerate(images):
            largest(last[image], rows[number], columns[number], best[number], places[number])
        self.stash(places=planes(places, places.dtype))
        return planes(best, x.dtype)

    def backward_cpu(self, dy: Array) -> tuple[Array, None]:
        (shape, _), _ = self._inputs_meta
        images = self.input_array(1)[:, 0].astype(np.int64)
        wide = compute_dtype(from_numpy(dy.dtype)).numpy
        out = zeros(shape, wide)
        size = shape[2] * shape[3]
        plane = (images[:, None] * shape[1] + np.arange(shape[1])) * size
        chosen = self.places >= 0
        at = (plane[:, :, None, None] + self.places)[chosen]
        np.add.at(out.reshape(-1), at, dy[chosen].astype(wide, copy=False))
        return planes_as(out, dy.dtype), None

    def forward_cuda(self, x: Any, regions: Any) -> Any:
        out, places = cuda_roi.pool(x, self.of(x.shape, regions))
        self.stash(places=places)
        return out

    def backward_cuda(self, dy: Any) -> tuple[Any, None]:
        (shape, _), _ = self._inputs_meta
        return cuda_roi.gradient(dy, self.of(shape, self.input_array(1)), self.places), None

    def of(self, shape: tuple[int, ...], regions: Any) -> cuda_roi.Regions:
        return cuda_roi.Regions(regions, shape, self.size, self.scale)


def largest(x: Array, rows: Array, columns: Array, best: Array, places: Array) -> None:
    """The largest element of each bin of x (h, w, c) and its place: the first of all bins, then the
    second ...  Bins with fewer look at their last ones again, which are not larger."""
    (top, bottom), (left, right) = rows, columns
    inside = (top < bottom)[:, None] & (left < right)
    if not inside.any():
        return
    where = np.nonzero(inside)
    tall, wide = (int((stop - first).max()) for first, stop in (rows, columns))
    found = chosen = None
    for i in range(tall):
        y = np.minimum(top + i, bottom - 1)[where[0]]
        for j in range(wide):
            at = y * x.shape[1] + np.minimum(left + j, right - 1)[where[1]]
            value = x.reshape(-1, x.shape[2])[at]
            if found is None or chosen is None:
                found, chosen = value, np.repeat(at[:, None], x.shape[2], 1)
                continue
            wins = value > found
            wins |= (value != value) & (found == found)  # NaN
            np.copyto(found, value, where=wins)
            np.copyto(chosen, at[:, None], where=wins)
    best[where], places[where] = found, chosen


def ranges(low: Array, high: Array, bins: int, length: int, scale: float) -> Array:
    """First elements and ends of the bins of all regions along an axis, (k, 2, bins)."""
    kind = low.dtype.type
    start, end = (half_away(side * kind(scale)) for side in (low, high))
    step = np.maximum(end - start + 1, kind(1)) / kind(bins)
    number = np.arange(bins, dtype=low.dtype)
    begin = np.floor(number * step[:, None]) + start[:, None]
    stop = np.ceil((number + 1) * step[:, None]) + start[:, None]
    both = np.nan_to_num(np.stack([begin, stop], 1), nan=0.0)
    return np.clip(both, 0, length).astype(np.int64)


def half_away(x: Array) -> Array:
    """Rounded, halves away from zero."""
    whole = np.trunc(x)
    return whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0).astype(x.dtype)


def image_of(name: str, regions: Array, count: int) -> Array:
    """Each region's image.  PositionError where there is none."""
    images = regions[:, 0].astype(np.int64)
    wrong = images[(images < 0) | (images >= count)]
    if wrong.size:
        raise PositionError(f"{name}: image {wrong[0]} is out of range for {count} images")
    return images


def channels_last(x: Array, dtype: Any) -> Array:
    """(n, c, h, w) as contiguous (n, h, w, c)."""
    return copy(x.transpose(0, 2, 3, 1).astype(dtype, copy=False))


def planes(x: Array, dtype: Any) -> Array:
    """(n, h, w, c) as contiguous (n, c, h, w)."""
    return planes_as(x.transpose(0, 3, 1, 2), dtype)


def planes_as(x: Array, dtype: Any) -> Array:
    if x.dtype == dtype and x.flags.c_contiguous:
        return x
    out = empty(x.shape, dtype)
    np.copyto(out, x, casting="unsafe")
    return out
