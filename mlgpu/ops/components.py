"""Connected components of images, by runs of pixels in rows: no loop over pixels, none over rows.

Runs that touch from row to row are edges; united, the smallest run of a component, which has its
first pixel, is its root.  Large images have a compiled loop (`mlgpu.cpu.fast.components`).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from mlgpu.cpu import fast, threads
from mlgpu.cpu.runtime import empty, full, zeros
from mlgpu.cuda import components as cuda_components
from mlgpu.op import Op
from mlgpu.ops.window import Array

__all__ = ["ConnectedComponents", "MeasureComponents"]


class ConnectedComponents(Op):
    """Numbers, from 1, of the components of what is not zero in images (n, h, w); how many.

    They go by the first pixels of the components; zeros have the number 0.
    """

    differentiable = False

    def __init__(self, diagonal: bool) -> None:
        self.diagonal = diagonal  # whether pixels touch at corners

    def forward(self, x: Array) -> tuple[Array, Array]:
        loops = fast.load("components", x.size)
        if loops is not None:
            return self.forward_compiled(x, loops)
        images, height, width = x.shape
        labels = zeros(x.shape, np.int64)
        counts = zeros((images,), np.int64)
        mask = (x != 0).reshape(images * height, width)
        starts, stops = mask.copy(), mask.copy()
        starts[:, 1:] &= ~mask[:, :-1]
        stops[:, :-1] &= ~mask[:, 1:]
        first, last = np.flatnonzero(starts), np.flatnonzero(stops)  # one of each for every run
        if first.size:
            image = first // (height * width)
            root = united(first.size, *self.touching(first, last, height, width))
            heads = root == np.arange(first.size)
            counts += np.bincount(image[heads], minlength=images)
            number = np.cumsum(heads)[root] - (np.cumsum(counts) - counts)[image]
            labels.reshape(mask.shape)[mask] = np.repeat(number, last - first + 1)
        return labels, counts

    def forward_compiled(self, x: Array, loops: ModuleType) -> tuple[Array, Array]:
        labels, counts = empty(x.shape, np.int64), empty((len(x),), np.int64)
        mask = x != 0

        def label(image: int) -> None:
            counts[image] = loops.label(mask[image], labels[image], self.diagonal)

        threads.parallel(len(x), lambda: label, x.size)
        return labels, counts

    def touching(self, first: Array, last: Array, height: int, width: int) -> tuple[Array, Array]:
        """Pairs of a run and one of the row above that touches it."""
        row, image = first // width, first // (height * width)
        # As if each row ended with two pixels that are zero, and each image with a row of them.
        shift = 2 * row + image * (width + 2)
        begin, end = first + shift, last + shift
        near = int(self.diagonal) - (width + 2)
        far = int(self.diagonal) + (width + 2)
        low = np.searchsorted(end, begin - far, "left")
        high = np.searchsorted(begin, end + near, "right")
        number = high - low
        run = np.repeat(np.arange(first.size), number)
        offset = np.arange(run.size) - np.repeat(np.cumsum(number) - number, number)
        return run, low[run] + offset

    def forward_cuda(self, x: Any) -> Any:
        return cuda_components.label(x, self.diagonal)


def united(count: int, a: Array, b: Array) -> Array:
    """The smallest element of each one's component, where a[i] and b[i] are of the same, a > b.

    Every round hangs each root below its smallest neighbour, and all elements below their roots.
    """
    root = np.arange(count)
    while a.size:
        np.minimum.at(root, a, b)
        while not np.array_equal(above := root[root], root):
            root = above
        a, b = root[a], root[b]
        apart = a != b
        a, b = np.maximum(a[apart], b[apart]), np.minimum(a[apart], b[apart])
    return root


class MeasureComponents(Op):
    """Of each label below `kinds` in images (n, h, w): how many pixels; their first and their last
    (x, y), and the sums of both."""

    differentiable = False

    def __init__(self, kinds: int) -> None:
        self.kinds = kinds

    def forward(self, labels: Array) -> tuple[Array, ...]:
        images, height, width = labels.shape
        areas = zeros((images, self.kinds), np.int64)
        sums = zeros((images, self.kinds, 2), np.int64)
        low = full((images, self.kinds, 2), max(height, width), np.int64)
        high = full((images, self.kinds, 2), -1, np.int64)
        starts = empty(labels.shape, np.bool_)
        starts[..., :1] = True
        np.not_equal(labels[..., 1:], labels[..., :-1], out=starts[..., 1:])
        first = np.flatnonzero(starts)
        length = np.diff(np.append(first, labels.size))
        slot = first // (height * width) * self.kinds + labels[starts] if first.size else first
        x, y = first % max(1, width), first // max(1, width) % max(1, height)
        np.add.at(areas.reshape(-1), slot, length)
        for axis, begin, end, total in ((0, x, x + length - 1, length * (2 * x + length - 1) // 2),
                                        (1, y, y, length * y)):
            np.minimum.at(low.reshape(-1, 2)[:, axis], slot, begin)
            np.maximum.at(high.reshape(-1, 2)[:, axis], slot, end)
            np.add.at(sums.reshape(-1, 2)[:, axis], slot, total)
        return areas, low, high, sums

    def forward_cuda(self, labels: Any) -> tuple[Any, ...]:
        return cuda_components.measure(labels, self.kinds)
