"""Sampling images at given places, on the device; both gradients repeat to the bit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu.cuda import runtime, segment
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype
from mlgpu.dtypes import compute_dtype, from_numpy

THREADS = 128
ENOUGH = 1024  # blocks that keep any GPU busy: with less, channels are shared out
MODES = {"bilinear": 0, "nearest": 1, "bicubic": 2}
PADDINGS = {"zeros": 0, "border": 1, "reflection": 2}
TAPS = {"bilinear": 2, "nearest": 1, "bicubic": 4}  # along an axis
MAP = np.dtype([("size", "i4", 3), *[(name, "i4") for name in (
    "images", "channels", "places", "padding", "align")]], align=True)


class Sampling:
    """One image batch, its grid, and how places are understood."""

    def __init__(self, x_shape: tuple[int, ...], grid: Any, mode: str, padding: str,
                 align: bool) -> None:
        self.images, self.channels, *sizes = x_shape
        self.sizes, self.grid, self.mode = sizes, runtime.contiguous(grid), mode
        self.places = math.prod(grid.shape[1:-1])
        self.map = np.zeros(1, MAP)
        self.map["size"] = [1] * (3 - len(sizes)) + sizes
        self.map["images"], self.map["channels"] = self.images, self.channels
        self.map["places"], self.map["padding"] = self.places, PADDINGS[padding]
        self.map["align"] = align
        self.grid_blocks = self.images * blocks(self.places, THREADS)
        self.kind = f"{len(sizes)}, {MODES[mode]}"

    def forward(self, x: Any) -> Any:
        """x at the places of the grid."""
        out = runtime.empty((self.images, self.channels, *self.grid.shape[1:-1]), x.dtype)
        if out.size:
            shares = min(self.channels, blocks(ENOUGH, self.grid_blocks), 65535)
            share = blocks(self.channels, shares)
            launch("grid_sample", f"sample_forward<{ctype(x.dtype)}, {self.kind}>",
                   (self.grid_blocks, blocks(self.channels, share)), THREADS,
                   (runtime.contiguous(x), self.grid, out, self.map, share))
        return out

    def backward_grid(self, dy: Any, x: Any) -> Any:
        """The gradient of the grid."""
        out = runtime.empty(self.grid.shape, self.grid.dtype)
        launch("grid_sample", f"sample_backward_grid<{ctype(x.dtype)}, {self.kind}>",
               self.grid_blocks, THREADS,
               (runtime.contiguous(dy), runtime.contiguous(x), self.grid, out, self.map))
        return out

    def backward_image(self, dy: Any) -> Any:
        """The gradient of x: what was taken from each element, brought together by a sort."""
        wide = compute_dtype(from_numpy(dy.dtype)).numpy
        size = math.prod(self.sizes)
        bound = self.images * size
        if not bound or not self.places or not self.channels:
            return runtime.zeros((self.images, self.channels, *self.sizes), dy.dtype)
        key = segment.INT if bound < 2**31 - 1 else segment.LONG
        count = self.images * TAPS[self.mode] ** len(self.sizes) * self.places
        element, source, weight = (runtime.empty((count,), t) for t in (key, segment.LONG, wide))
        launch("grid_sample",
               f"sample_entries<{ctype(dy.dtype)}, {ctype(wide)}, {ctype(key)}, {self.kind}>",
               self.grid_blocks, THREADS, (self.grid, element, source, weight, self.map))
        keys = segment.sort(element, bound, None, skip=-1)
        slope = dy.reshape(self.images, self.channels, self.places).transpose(1, 0, 2)
        out = runtime.zeros((self.channels, bound, 1), dy.dtype)
        segment.combine(out, runtime.contiguous(slope).reshape(self.channels, -1, 1), keys,
                        source=source, scale=weight)
        moved = out.reshape(self.channels, self.images, size).transpose(1, 0, 2)
        return runtime.copy(moved).reshape(self.images, self.channels, *self.sizes)
