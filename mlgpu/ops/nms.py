"""Non-maximum suppression: of boxes that overlap, the one with the best score stays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlgpu.cpu.runtime import zeros
from mlgpu.cuda import nms as cuda_nms
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.op import Op
from mlgpu.ops.window import Array

__all__ = ["Nms"]

BLOCK = 256  # boxes that are compared with each other at once
PAIRS = 1 << 20  # comparisons at once, at most


class Nms(Op):
    """Which boxes (n, 4), best first, stay: those that no better one which stays overlaps by more
    than `threshold`, of its class where classes (n,) are given."""

    differentiable = False

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def forward(self, boxes: Array, classes: Array | None = None) -> Array:
        wide = boxes.astype(compute_dtype(from_numpy(boxes.dtype)).numpy, copy=False)
        threshold = below(self.threshold, wide.dtype)
        keep = zeros((len(boxes),), np.bool_)
        left = np.arange(len(boxes))
        while left.size:
            block, left = left[:BLOCK], left[BLOCK:]
            stay = block[list(staying(overlaps(wide, classes, block, block, threshold)))]
            keep[stay] = True
            left = left[~suppressed(wide, classes, stay, left, threshold)]
        return keep

    def forward_cuda(self, boxes: Any, classes: Any = None) -> Any:
        wide = compute_dtype(from_numpy(boxes.dtype)).numpy
        return cuda_nms.keep(boxes, classes, below(self.threshold, wide))


def below(threshold: float, dtype: Any) -> Any:
    """The largest number of a dtype that is not above the threshold: what is larger is above it."""
    near = dtype.type(threshold)
    return near if near <= threshold else np.nextafter(near, dtype.type(-np.inf))


def overlaps(boxes: Array, classes: Array | None, rows: Array, columns: Array, threshold: Any
             ) -> Array:
    """Whether each box of `rows` overlaps each of `columns` by more than the threshold."""
    a, b = boxes[rows].T[:, :, None], boxes[columns].T[:, None]
    zero = boxes.dtype.type(0)
    width = np.maximum(zero, np.minimum(a[2], b[2]) - np.maximum(a[0], b[0]))
    height = np.maximum(zero, np.minimum(a[3], b[3]) - np.maximum(a[1], b[1]))
    shared = width * height
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    found: Array = shared / (areas - shared) > threshold
    if classes is not None:
        found &= classes[rows][:, None] == classes[columns]
    return found


def staying(found: Array) -> Iterator[int]:
    """The places of those that no earlier one which stays overlaps; `found` is square."""
    gone = 0
    for place, line in enumerate(np.packbits(found, axis=1, bitorder="little")):
        if not gone >> place & 1:
            yield place
            gone |= int.from_bytes(line.tobytes(), "little")


def suppressed(boxes: Array, classes: Array | None, stay: Array, left: Array, threshold: Any
               ) -> Array:
    """Which of the boxes that are left one of those that stay overlaps."""
    gone = np.zeros(left.size, np.bool_)
    step = max(1, PAIRS // max(1, stay.size))
    for first in range(0, left.size, step):
        part = slice(first, first + step)
        gone[part] = overlaps(boxes, classes, stay, left[part], threshold).any(axis=0)
    return gone
