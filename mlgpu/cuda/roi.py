"""Pooling of regions of feature maps on the device: kernels/roi.cu."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlgpu.cuda import faults, runtime
from mlgpu.cuda.launch import blocks, launch
from mlgpu.cuda.types import ctype
from mlgpu.errors import ShapeError

THREADS, TILE, CHANNELS, FIELDS = 256, 16, 8, 5
MOST_BINS = 384  # rows and columns of bins whose weights fit into shared memory
_MAP = np.dtype([*[(name, "i4") for name in ("images", "channels", "height", "width", "regions",
                                             "rows", "columns", "ratio", "aligned")],
                 ("scale", "f8")], align=True)


class Regions(NamedTuple):
    """Regions (k, 5) of feature maps, and how they are pooled."""

    regions: Any
    shape: tuple[int, ...]  # of the feature maps
    size: tuple[int, int]  # bins of a region
    scale: float
    ratio: int = 0
    aligned: bool = False

    def map(self) -> Any:
        """What the kernels know of them."""
        map = np.zeros(1, _MAP)
        map[0] = (*self.shape, len(self.regions), *self.size, self.ratio, self.aligned, self.scale)
        return map


    def axes(self, places: bool) -> Any:
        """Where the bins lie, for `align`, or with `places` for `pool`."""
        made = runtime.empty((len(self.regions), 2, FIELDS), self.regions.dtype)
        launch("roi", f"roi_axes<{ctype(made.dtype)}, {str(places).lower()}>",
               blocks(2 * len(self.regions), THREADS), THREADS,
               (runtime.contiguous(self.regions), made, self.map()))
        return made


def _report(name: str) -> tuple[Any, int]:
    return faults.fault(), faults.site(f"{name}: image {{value}} is out of range for {{bound}} "
                                       "images")


def align(x: Any, given: Regions) -> Any:
    """The mean of each bin's samples."""
    out = runtime.empty((len(given.regions), x.shape[1], *given.size), x.dtype)
    if out.size:
        launch("roi", f"roi_align<{ctype(x.dtype)}, {ctype(given.regions.dtype)}>",
               blocks(out.size, THREADS), THREADS,
               (runtime.contiguous(x), runtime.contiguous(given.regions), given.axes(False), out,
                out.size, given.map(), *_report("roi_align")))
    return out


def pool(x: Any, given: Regions) -> tuple[Any, Any]:
    """The largest element of each bin, and its place in the plane."""
    out = runtime.empty((len(given.regions), x.shape[1], *given.size), x.dtype)
    places = runtime.empty(out.shape, np.dtype(np.int32))
    if out.size:
        launch("roi", f"roi_pool<{ctype(x.dtype)}, {ctype(given.regions.dtype)}>",
               blocks(out.size, THREADS), THREADS,
               (runtime.contiguous(x), runtime.contiguous(given.regions), given.axes(True), out,
                places, out.size, given.map(), *_report("roi_pool")))
    return out, places


def gradient(dy: Any, given: Regions, places: Any = None) -> Any:
    """The gradient of the feature maps; `places` are `pool`'s."""
    out = runtime.empty(given.shape, dy.dtype)
    if not out.size:
        return out
    if sum(given.size) > MOST_BINS:
        raise ShapeError(f"roi: output_size {given.size} has more than {MOST_BINS} rows and columns"
                         " of bins, too many for the gradient on CUDA; compute it on the CPU")
    images, channels, height, width = given.shape
    wide = given.regions.dtype
    kinds = f"{ctype(dy.dtype)}, {ctype(wide)}, {str(places is not None).lower()}"
    launch("roi", f"roi_gradient<{kinds}>",
           (images * blocks(height, TILE) * blocks(width, TILE), blocks(channels, CHANNELS)),
           THREADS, (runtime.contiguous(dy), runtime.contiguous(given.regions),
                     given.axes(places is not None), places, out, given.map()),
           sum(given.size) * TILE * wide.itemsize)
    return out
