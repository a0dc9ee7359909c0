"""Non-maximum suppression on the device: kernels/nms.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype

_ROWS = 1 << 12  # boxes whose bits are there at once: 50 MB where there are 100,000
_WORD, _BOOL = np.dtype(np.uint64), np.dtype(np.bool_)


def keep(boxes: Any, classes: Any, threshold: Any) -> Any:
    """Which of the boxes (n, 4), best first, no better one that stays overlaps too much."""
    count = len(boxes)
    out = runtime.empty((count,), _BOOL)
    if not count:
        return out
    boxes = runtime.contiguous(boxes)
    classes = None if classes is None else runtime.contiguous(classes)
    kinds = f"{ctype(boxes.dtype)}, {ctype(threshold.dtype)}"
    words = blocks(count, 64)
    removed = runtime.zeros((words,), _WORD)
    mask = runtime.empty((min(count, _ROWS), words), _WORD)
    for first in range(0, count, _ROWS):
        rows = min(_ROWS, count - first)
        launch("nms", f"nms_mask<{kinds}>", (words, blocks(rows, 64)), 64,
               (boxes, classes, removed, mask, count, words, first, threshold))
        launch("nms", "nms_keep", 1, 512, (mask, removed, out, count, words, first, rows))
    return out
