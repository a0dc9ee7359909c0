"""Derivatives of sampled functions by finite differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.join import cat
from mlgpu.ops.scan import diff
from mlgpu.ops.view import dim_index
from mlgpu.tensor import Tensor

__all__ = ["gradient"]


def gradient(input: Tensor, *, spacing: Any = 1, dim: int | Sequence[int] | None = None,
             edge_order: int = 1) -> tuple[Tensor, ...]:
    """The derivative of a sampled function along each of `dim` (default: all dimensions).

    Inside, the slope of the parabola through a sample and its neighbours; at the edges that of the
    line through two samples, or with edge_order=2 of the parabola through three.  `spacing`: the
    distance of samples, one for all or one for each dimension, or for each a vector of their
    places.  Linear in `input`; differentiable with respect to both.  ShapeError for fewer than
    edge_order + 1 samples or places of another number.
    """
    dims = _dims(input, dim)
    if edge_order not in (1, 2):
        raise ShapeError(f"gradient: edge_order must be 1 or 2, got {edge_order}")
    if input.dtype in (dtypes.bool_, dtypes.uint8):
        raise DTypeError(f"gradient: expected signed numbers, got {input.dtype.name}")
    if isinstance(spacing, (list, tuple)):
        spacings = list(spacing)
        if len(spacings) != len(dims):
            raise ShapeError(f"gradient: {len(spacings)} spacings for {len(dims)} dimensions")
    else:
        spacings = [1 if spacing is None else spacing] * len(dims)
    result = input.dtype if input.dtype.is_floating_point or input.dtype.is_complex else (
        dtypes.get_default_dtype())
    source = input.to(dtypes.compute_dtype(result))  # halves are rounded once
    return tuple(_along(source, at, space, edge_order).to(result)
                 for at, space in zip(dims, spacings, strict=True))


def _dims(input: Tensor, dim: int | Sequence[int] | None) -> list[int]:
    if dim is None:
        return list(range(input.ndim))
    found = [dim_index("gradient", d, input.ndim)
             for d in ([dim] if isinstance(dim, int) else dim)]
    if len(set(found)) < len(found):
        raise ShapeError(f"gradient: a dimension appears twice in {tuple(found)}")
    return found


def _along(x: Tensor, at: int, spacing: Any, edge_order: int) -> Tensor:
    n = x.shape[at] if x.ndim else 1
    if n <= edge_order:
        raise ShapeError(f"gradient: dimension {at} has {n} samples, edge_order={edge_order} needs "
                         f"at least {edge_order + 1}")

    def part(start: int, count: int) -> Tensor:
        return x.narrow(at, start, count)

    if isinstance(spacing, Tensor) and spacing.ndim:
        if spacing.shape != (n,):
            raise ShapeError(f"gradient: places must be one vector of {n}, the samples along "
                             f"dimension {at}, got {tuple(spacing.shape)}")
        steps = diff(spacing.to(x.dtype)).reshape(-1, *[1] * (x.ndim - 1 - at))
        left, right = steps.narrow(0, 0, n - 2), steps.narrow(0, 1, n - 2)
        slopes = diff(x, dim=at) / steps
        # The neighbours' slopes, the nearer one counting more.
        inner = (slopes.narrow(at, 0, n - 2) * right + slopes.narrow(at, 1, n - 2) * left) / (
            left + right)
        first, last = slopes.narrow(at, 0, 1), slopes.narrow(at, n - 2, 1)
        if edge_order == 2:
            first = _beyond(first, slopes.narrow(at, 1, 1), steps[:1], steps[1:2])
            last = _beyond(last, slopes.narrow(at, n - 3, 1), steps[-1:], steps[-2:-1])
    else:
        inner = (part(2, n - 2) - part(0, n - 2)) / (2 * spacing)
        first, last = ((part(i + 1, 1) - part(i, 1)) / spacing for i in (0, n - 2))
        if edge_order == 2:
            first = 1.5 * first - (part(2, 1) - part(1, 1)) / (2 * spacing)
            last = 1.5 * last - (part(n - 2, 1) - part(n - 3, 1)) / (2 * spacing)
    return cat([first, inner, last], at)


def _beyond(near: Tensor, next: Tensor, step: Tensor, further: Tensor) -> Tensor:
    """The slope at an edge of the parabola with these slopes of its two pieces."""
    return near + (near - next) * step / (step + further)
