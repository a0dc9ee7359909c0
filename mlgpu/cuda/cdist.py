"""Distances of all pairs of points on CUDA, without their differences in memory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cuda import runtime
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.loading import load
from mlgpu.cuda.rows import wide
from mlgpu.cuda.types import ctype

# In the order of the enumeration in kernels/cdist.cu; any other p comes last.
_NORMS = (0, 1, 2, math.inf)


def cdist(x1: Any, x2: Any, p: float) -> Any:
    """|x1[..., i, :] - x2[..., j, :]|_p, batches broadcast."""
    batch = np.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
    (n, d), m = x1.shape[-2:], x2.shape[-2]
    out = runtime.empty((*batch, n, m), x1.dtype)
    if out.size:
        tiles = blocks(n, 16) * blocks(m, 16) * math.prod(batch)
        norm = _NORMS.index(p) if p in _NORMS else len(_NORMS)
        name = f"cdist<{ctype(x1.dtype)}, {ctype(np.dtype(wide(x1.dtype)))}, {norm}>"
        launch("cdist", name, tiles, 256, (_full(x1, batch), _full(x2, batch), out, n, m, d,
                                           p if math.isfinite(p) else 0))
    return out


def _full(x: Any, batch: tuple[int, ...]) -> Any:
    if x.shape[:-2] != batch:
        x = load().broadcast_to(x, (*batch, *x.shape[-2:]))
    return runtime.contiguous(x)
