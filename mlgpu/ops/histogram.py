"""Counts of points in the bins of a grid, and of positions up to a fixed number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from mlgpu import dtypes
from mlgpu.autograd.mode import is_grad_enabled
from mlgpu.cuda import runtime as cuda
from mlgpu.errors import DerivativeError, DTypeError, MlgpuError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.choice import where
from mlgpu.ops.creation import arange, linspace
from mlgpu.ops.extrema import aminmax
from mlgpu.ops.join import stack
from mlgpu.ops.scan import cumsum, diff
from mlgpu.ops.scatter import scatter_
from mlgpu.ops.search import bincount, searchsorted
from mlgpu.tensor import Tensor

__all__ = ["Histogram", "Histogramdd", "histogram", "histogramdd", "nonzero_static"]


class Histogram(NamedTuple):
    """What histogram returns."""

    hist: Tensor
    bin_edges: Tensor


class Histogramdd(NamedTuple):
    """What histogramdd returns."""

    hist: Tensor
    bin_edges: tuple[Tensor, ...]


class Counted(Op):
    """Counts that have no derivative with respect to what was counted."""

    def __init__(self, name: str) -> None:
        self.name = name

    def forward(self, counts: Any, points: Any) -> Any:
        return counts.copy()

    def forward_cuda(self, counts: Any, points: Any) -> Any:
        return cuda.copy(counts)

    def backward(self, dy: Tensor) -> tuple[Tensor, None]:
        raise DerivativeError(f"{self.name}: has no derivative with respect to input; detach() it")


def histogram(input: Tensor, bins: int | Tensor, *, range: tuple[float, float] | None = None,
              weight: Tensor | None = None, density: bool = False) -> Histogram:
    """How many elements lie in each bin, and the bins' edges, both of the input's dtype.

    `bins` is a number of equal bins over `range` (default: that of the data), or ascending edges.
    A bin has its lower edge, the last one both; what lies outside, and NaN, is not counted.
    `weight`, of the input's shape, is what an element counts; `density` divides by the sum and the
    widths.  DTypeError unless floating; ShapeError for no bins or another shape; asking for the
    derivative of input raises DerivativeError.
    """
    points = input.reshape(-1, 1)
    if weight is not None and weight.shape != input.shape:
        raise ShapeError(f"histogram: weight must have the shape {tuple(input.shape)}, got "
                         f"{tuple(weight.shape)}")
    hist, edges = _histogram("histogram", points, [bins], range, weight, density)
    return Histogram(hist, edges[0])


def histogramdd(input: Tensor, bins: int | Sequence[int] | Sequence[Tensor], *,
                range: Sequence[float] | None = None, weight: Tensor | None = None,
                density: bool = False) -> Histogramdd:
    """As `histogram`, of points (..., D) in the bins of a grid of D dimensions.

    `bins` is a number for all dimensions, or for each a number or its edges; `range` the lowest and
    highest edge of the first dimension, of the second, and so on; `weight` has the shape (...).
    """
    if input.ndim < 2:
        raise ShapeError(f"histogramdd: expected points (..., D), got shape {tuple(input.shape)}")
    size = input.shape[-1]
    each: list[Any] = [bins] * size if isinstance(bins, int) else list(bins)
    if len(each) != size:
        raise ShapeError(f"histogramdd: bins of {len(each)} dimensions for points of {size}")
    if range is not None and len(range) != 2 * size:
        raise ShapeError(f"histogramdd: range must have {2 * size} numbers, got {len(range)}")
    if weight is not None and weight.shape != input.shape[:-1]:
        raise ShapeError(f"histogramdd: weight must have the shape {tuple(input.shape[:-1])}, got "
                         f"{tuple(weight.shape)}")
    hist, edges = _histogram("histogramdd", input.reshape(-1, size), each, range, weight, density)
    return Histogramdd(hist, edges)


def _histogram(name: str, points: Tensor, bins: list[Any], range: Sequence[float] | None,
               weight: Tensor | None, density: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Points (N, D), and for each dimension the number of its bins or their edges."""
    if not points.dtype.is_floating_point:
        raise DTypeError(f"{name}: expected a floating tensor, got {points.dtype.name}")
    found = points.detach()
    edges = tuple(_edges(name, found[:, d], b, None if range is None else range[2 * d:2 * d + 2])
                  for d, b in enumerate(bins))
    counts = [e.shape[0] - 1 for e in edges]
    place: Any = 0
    inside: Any = True
    for d, (e, count) in enumerate(zip(edges, counts, strict=True)):
        x = found[:, d].contiguous()
        inside = (x >= e[0]) & (x <= e[-1]) & inside
        place = place * count + (searchsorted(e, x, right=True) - 1).clamp(0, count - 1)
    # What lies outside goes into one bin more, which is left out.
    total = math.prod(counts)
    flat = bincount(where(inside, place, total), None if weight is None else weight.reshape(-1),
                    total + 1)[:total]
    hist = flat.to(points.dtype).reshape(counts)
    if density:
        hist = hist / hist.sum()
        for d, e in enumerate(edges):
            hist = hist / diff(e).reshape(-1, *[1] * (len(edges) - 1 - d))
    if points.requires_grad and is_grad_enabled():
        hist = run(Counted(name), hist, points)
    return hist, edges


def _edges(name: str, x: Tensor, bins: int | Tensor, range: Sequence[float] | None) -> Tensor:
    if isinstance(bins, Tensor):
        if bins.ndim != 1 or bins.shape[0] < 2:
            raise ShapeError(f"{name}: edges must be a vector of at least 2, got shape "
                             f"{tuple(bins.shape)}")
        return bins.detach().to(x.dtype).contiguous()
    if bins < 1:
        raise ShapeError(f"{name}: bins must be positive, got {bins}")
    if range is not None:
        low, high = range
    elif x.numel():
        low, high = (t.item() for t in aminmax(x))
    else:
        low, high = 0.0, 1.0
    if not (math.isfinite(low) and math.isfinite(high)):
        raise MlgpuError(f"{name}: the range [{low}, {high}] is not finite; give range")
    if low > high:
        raise ShapeError(f"{name}: range must ascend, got {low} and {high}")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return linspace(low, high, bins + 1, dtype=x.dtype, device=x.device)


def nonzero_static(input: Tensor, *, size: int, fill_value: int = -1) -> Tensor:
    """The first `size` positions of what is not zero: (size, ndim) int64; `fill_value` beyond.

    The shape does not depend on the values, so nothing waits for the device.
    """
    if size < 0:
        raise ShapeError(f"nonzero_static: size must not be negative, got {size}")
    flags = (input != 0).reshape(-1)
    n = flags.shape[0]
    # Each position goes to its place in the row of positions, or to one that is left out.
    order = cumsum(flags, 0) - 1
    target = where(flags & (order < size), order, size)
    found = input.new_full((size + 1,), -1, dtype=dtypes.int64)
    if n:
        positions = arange(n, device=input.device)
        scatter_(found, 0, target, positions)
    found = found[:size]
    columns, rest = [], found
    for extent in reversed(input.shape):
        columns.append(where(found < 0, fill_value, rest % max(extent, 1)))
        rest = rest // max(extent, 1)
    if not columns:
        return found.new_empty((size, 0))
    return stack(columns[::-1], 1)
