"""Max pooling with windows at random places: Graham, "Fractional max-pooling" (2015)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu import dtypes
from mlgpu.errors import ShapeError
from mlgpu.ops.creation import arange, tensor
from mlgpu.ops.join import cat
from mlgpu.ops.random import rand
from mlgpu.ops.scatter import gather
from mlgpu.tensor import Tensor

__all__ = ["fractional_max_pool2d", "fractional_max_pool2d_with_indices", "fractional_max_pool3d",
           "fractional_max_pool3d_with_indices"]

Sizes = int | Sequence[int]
Ratios = float | Sequence[float]


def fractional_max_pool2d(input: Tensor, kernel_size: Sizes, output_size: Sizes | None = None,
                          output_ratio: Ratios | None = None, return_indices: bool = False,
                          _random_samples: Tensor | None = None) -> Any:
    """The maximum of each of `output_size` windows of `kernel_size`: (N, C, H, W) or (C, H, W).

    The windows of each plane begin at places that are random but evenly spread (Graham's
    pseudorandom ones): int((i + u) * a) - int(u * a) with a = (H - kernel) / (out - 1) and u
    uniform in [0, 1), the last at the end.  The size is `output_size`, or `output_ratio` of the
    input's, from 0 to 1.  `_random_samples` (N, C, 2) are the u, of W and then H.  With
    return_indices a tuple: also the places in the flattened planes, int64.  Raises ShapeError.
    """
    values, indices = _pool("fractional_max_pool2d", 2, input, kernel_size, output_size,
                            output_ratio, _random_samples)
    return (values, indices) if return_indices else values


def fractional_max_pool3d(input: Tensor, kernel_size: Sizes, output_size: Sizes | None = None,
                          output_ratio: Ratios | None = None, return_indices: bool = False,
                          _random_samples: Tensor | None = None) -> Any:
    """As `fractional_max_pool2d`, over (N, C, D, H, W) or (C, D, H, W).

    `_random_samples` (N, C, 3) are of D, H and W.
    """
    values, indices = _pool("fractional_max_pool3d", 3, input, kernel_size, output_size,
                            output_ratio, _random_samples)
    return (values, indices) if return_indices else values


def fractional_max_pool2d_with_indices(
        input: Tensor, kernel_size: Sizes, output_size: Sizes | None = None,
        output_ratio: Ratios | None = None, return_indices: bool = False,
        _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool2d` with return_indices."""
    return _pool("fractional_max_pool2d", 2, input, kernel_size, output_size, output_ratio,
                 _random_samples)


def fractional_max_pool3d_with_indices(
        input: Tensor, kernel_size: Sizes, output_size: Sizes | None = None,
        output_ratio: Ratios | None = None, return_indices: bool = False,
        _random_samples: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """`fractional_max_pool3d` with return_indices."""
    return _pool("fractional_max_pool3d", 3, input, kernel_size, output_size, output_ratio,
                 _random_samples)


def _pool(op: str, dims: int, input: Tensor, kernel_size: Sizes, output_size: Sizes | None,
          output_ratio: Ratios | None, samples: Tensor | None) -> tuple[Tensor, Tensor]:
    if input.ndim not in (dims + 1, dims + 2):
        raise ShapeError(f"{op}: expected {dims + 1} or {dims + 2} dimensions, got "
                         f"{tuple(input.shape)}")
    if (output_size is None) == (output_ratio is None):
        raise ShapeError(f"{op}: give either output_size or output_ratio")
    sizes = tuple(input.shape[-dims:])
    kernel = _each(op, kernel_size, dims)
    if output_size is None:
        out = [int(n * r) for n, r in zip(sizes, _each(op, output_ratio, dims), strict=True)]
    else:
        out = _each(op, output_size, dims)
    if any(n < 1 or k < 1 or k + n - 1 > size
           for n, k, size in zip(out, kernel, sizes, strict=True)):
        raise ShapeError(f"{op}: {out} windows of {kernel} do not fit in {sizes}: each size must "
                         "be at least kernel + windows - 1")
    x = input if input.ndim == dims + 2 else input.unsqueeze(0)
    n, channels = x.shape[:2]
    if samples is None:
        samples = rand(n, channels, dims, dtype=x.dtype, device=x.device)
    if tuple(samples.shape) != (n, channels, dims) or samples.dtype is not x.dtype:
        raise ShapeError(f"{op}: _random_samples must be {(n, channels, dims)} of {x.dtype.name}, "
                         f"got {tuple(samples.shape)} of {samples.dtype.name}")
    order = (1, 0) if dims == 2 else (0, 1, 2)  # PyTorch's: planes begin with W, volumes with D
    places: Any = 0
    for d in range(dims):
        first = _starts(samples[..., order[d]], sizes[d], out[d], kernel[d])
        along = first.unsqueeze(-1) + arange(kernel[d], device=x.device)
        shape = [n, channels, *[1] * (2 * dims)]
        shape[2 + d], shape[2 + dims + d] = out[d], kernel[d]
        places = places * sizes[d] + along.reshape(shape)
    places = places.reshape(n, channels, math.prod(out), math.prod(kernel))
    flat = x.flatten(2)
    windows = gather(flat, 2, places.flatten(2)).reshape(places.shape)
    values, best = windows.max(-1)
    indices = gather(places, -1, best.unsqueeze(-1)).squeeze(-1)
    lead = (n, channels) if input.ndim == dims + 2 else (channels,)
    return values.reshape(*lead, *out), indices.reshape(*lead, *out)


def _starts(u: Tensor, size: int, count: int, kernel: int) -> Tensor:
    """Where windows begin: int64 (..., count)."""
    last = tensor([size - kernel], device=u.device).expand(*u.shape, 1)
    if count == 1:
        return last
    step = (size - kernel) / (count - 1)
    u = u.detach().to(dtypes.compute_dtype(u.dtype)).unsqueeze(-1)
    steps = arange(count - 1, dtype=u.dtype, device=u.device)
    return cat([((steps + u) * step).long() - (u * step).long(), last], -1)


def _each(op: str, value: Any, dims: int) -> list[Any]:
    found = [value] * dims if isinstance(value, (int, float)) else list(value)
    if len(found) != dims:
        raise ShapeError(f"{op}: expected {dims} numbers, got {found}")
    return found
