"""Max pooling undone: each value goes back to where it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.creation import zeros
from mlgpu.tensor import Tensor

__all__ = ["max_unpool1d", "max_unpool2d", "max_unpool3d"]

Sizes = int | Sequence[int]


def max_unpool1d(input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None,
                 padding: Sizes = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """Values (n, c, l) or (c, l) at the `indices` that max_pool1d returned; 0 elsewhere.

    The size is (l - 1) * stride - 2 * padding + kernel_size, or `output_size` (the last dimension,
    or all), which may differ from it by less than a stride.  Raises ShapeError for what does not
    fit, IndexError for an index outside.
    """
    return _unpool("max_unpool1d", 1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None,
                 padding: Sizes = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """The same of images (n, c, h, w) or (c, h, w)."""
    return _unpool("max_unpool2d", 2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(input: Tensor, indices: Tensor, kernel_size: Sizes, stride: Sizes | None = None,
                 padding: Sizes = 0, output_size: Sequence[int] | None = None) -> Tensor:
    """The same of volumes (n, c, d, h, w) or (c, d, h, w)."""
    return _unpool("max_unpool3d", 3, input, indices, kernel_size, stride, padding, output_size)


def _unpool(name: str, dims: int, input: Tensor, indices: Tensor, kernel_size: Sizes,
            stride: Sizes | None, padding: Sizes, output_size: Sequence[int] | None) -> Tensor:
    if input.ndim not in (dims + 1, dims + 2) or input.shape != indices.shape:
        raise ShapeError(f"{name}: expected input and indices of one shape with {dims + 1} or "
                         f"{dims + 2} dimensions, got {tuple(input.shape)} and "
                         f"{tuple(indices.shape)}")
    if indices.dtype.kind != "int":
        raise DTypeError(f"{name}: indices must be integers, got {indices.dtype.name}")
    kernel, step, pad = (_each(x, dims) for x in (
        kernel_size, kernel_size if stride is None else stride, padding))
    least = [(n - 1) * s - 2 * p + k for n, s, p, k in zip(
        input.shape[-dims:], step, pad, kernel, strict=True)]
    size = least if output_size is None else [int(n) for n in output_size][-dims:]
    if len(size) != dims or any(abs(a - b) >= s for a, b, s in zip(size, least, step,
                                                                  strict=True)):
        raise ShapeError(f"{name}: output_size must differ from {least} by less than the stride "
                         f"{step}, got {None if output_size is None else list(output_size)}")
    lead = input.shape[:-dims]
    flat = zeros(*lead, math.prod(size), dtype=input.dtype, device=input.device)
    return flat.scatter(-1, indices.flatten(-dims).long(), input.flatten(-dims)).reshape(
        *lead, *size)


def _each(value: Sizes, dims: int) -> list[int]:
    return [value] * dims if isinstance(value, int) else list(value)
