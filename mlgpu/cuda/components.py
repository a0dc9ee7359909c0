"""Connected components of images on the device: kernels/components.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.scan import scan
from mlgpu.cuda.types import ctype

THREADS = 256
_INT, _LONG = np.dtype(np.int32), np.dtype(np.int64)


def _grid(shape: tuple[int, ...]) -> tuple[int, tuple[int, int, int]]:
    """Blocks for images (n, h, w), a warp for 32 pixels of a row; their rows, height and width."""
    images, height, width = shape
    rows = images * height
    return blocks(rows * blocks(width, 32), THREADS // 32), (rows, height, width)


def label(x: Any, diagonal: bool) -> tuple[Any, Any]:
    """The numbers of the components in images (n, h, w), by their first pixels; how many."""
    labels = runtime.empty(x.shape, _LONG)
    if not x.size:
        return labels, runtime.zeros((len(x),), _LONG)
    parents, numbers = runtime.empty(x.shape, _INT), runtime.empty(x.shape, _LONG)
    grid, sizes = _grid(x.shape)
    launch("components", f"components_begin<{ctype(x.dtype)}>", grid, THREADS,
           (runtime.contiguous(x), parents, *sizes))
    launch("components", "components_merge", grid, THREADS, (parents, *sizes, diagonal))
    launch("components", "components_roots", grid, THREADS, (parents, numbers, *sizes))
    flat = numbers.reshape(len(x), -1)
    scan(flat, 1, "cumsum", out=flat)
    launch("components", "components_number", grid, THREADS, (parents, numbers, labels, *sizes))
    return labels, runtime.copy(flat[:, -1])


def measure(labels: Any, kinds: int) -> tuple[Any, Any, Any, Any]:
    """Of each label below `kinds` in each image: pixels, first and last x and y, sums of both."""
    images, height, width = labels.shape
    areas = runtime.zeros((images, kinds), _LONG)
    sums = runtime.zeros((images, kinds, 2), _LONG)
    low = runtime.full((images, kinds, 2), max(height, width), _LONG)
    high = runtime.full((images, kinds, 2), -1, _LONG)
    if labels.size:
        grid, sizes = _grid(labels.shape)
        launch("components", "components_measure", grid, THREADS,
               (runtime.contiguous(labels), areas.view(np.uint64), low, high, sums.view(np.uint64),
                *sizes, kinds))
    return areas, low, high, sums
