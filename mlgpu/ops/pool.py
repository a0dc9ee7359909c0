"""Pooling: max, average, adaptive and power-average, to any order of derivative.

Every window is a box, so everything is done one axis after another; see `axis_map.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mlgpu.dtypes import compute_dtype, int64
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.axis_map import SeparableMap, adaptive_bounds, adaptive_map, window_map
from mlgpu.ops.max_pool import MaxPool
from mlgpu.ops.window import Array, Ints, Size, per_axis
from mlgpu.tensor import Tensor

__all__ = ["adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
           "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "avg_pool1d",
           "avg_pool2d", "avg_pool3d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "max_pool1d",
           "max_pool2d", "max_pool3d"]


# --- geometry ------------------------------------------------------------------------------------

def window_count(name: str, size: int, kernel: int, stride: int, padding: int, dilation: int,
                 ceil_mode: bool) -> int:
    """How many windows: with ceil_mode also a last one that is cut off, if it starts inside."""
    span = dilation * (kernel - 1) + 1
    if 2 * padding > kernel:  # dilated or not, as in PyTorch
        raise ShapeError(f"{name}: padding must be at most half of the kernel, got padding "
                         f"{padding} for kernel_size {kernel}")
    room = size + 2 * padding - span
    count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    if count < 1:
        raise ShapeError(f"{name}: the kernel, which spans {span}, must fit into the input of "
                         f"size {size} with padding {padding}")
    return count


def check_input(name: str, input: Tensor, axes: int, integers: bool) -> None:
    """Ranks and dtypes; only the batch may be empty."""
    if input.ndim not in (axes + 1, axes + 2) or 0 in input.shape[input.ndim - axes - 1:]:
        raise ShapeError(f"{name}: input must have {axes + 1} or {axes + 2} dimensions, none "
                         f"empty but the batch, got {tuple(input.shape)}")
    if not input.dtype.is_floating_point and not integers:
        raise DTypeError(f"{name}: not defined for {input.dtype}; convert with .to()")


def output_size(name: str, input: Tensor, size: Any, axes: int) -> Ints:
    """The sizes adaptive pooling makes; None keeps the input's."""
    given = (size,) * axes if size is None or isinstance(size, int) else tuple(size)
    if len(given) != axes:
        raise ShapeError(f"{name}: output_size must be one or {axes} ints, got {size}")
    sizes = tuple(n if s is None else int(s)
                  for s, n in zip(given, input.shape[-axes:], strict=True))
    if any(s < 0 for s in sizes):
        raise ShapeError(f"{name}: output_size must not be negative, got {size}")
    return sizes


# --- functions -----------------------------------------------------------------------------------

def max_pool(name: str, axes: int, input: Tensor, kernel_size: Size, stride: Size | None,
             padding: Size, dilation: Size, ceil_mode: bool, return_indices: bool) -> Any:
    check_input(name, input, axes, axes > 1 and input.dtype.kind == "int")
    kernel = per_axis(name, "kernel_size", kernel_size, axes, 1)
    steps = per_axis(name, "stride", stride, axes, 1) if stride or stride == 0 else kernel
    before = per_axis(name, "padding", padding, axes, 0)
    gaps = per_axis(name, "dilation", dilation, axes, 1)
    maps, origins = [], []
    for axis in range(-1, -axes - 1, -1):
        k, s, p, d, size = (each[axis] for each in (kernel, steps, before, gaps, input.shape))
        count = window_count(name, size, k, s, p, d, ceil_mode)
        maps.append(window_map(axis, size, count, k, s, d, p))
        origins.append((np.arange(count) * s - p, d))
    return run(MaxPool(maps, origins if return_indices else ()), input)


def adaptive_max_pool(name: str, axes: int, input: Tensor, size: Any, return_indices: bool) -> Any:
    check_input(name, input, axes, False)
    sizes = output_size(name, input, size, axes)
    maps, origins = [], []
    for axis in range(-1, -axes - 1, -1):
        maps.append(adaptive_map(axis, input.shape[axis], sizes[axis]))
        origins.append((adaptive_bounds(input.shape[axis], sizes[axis])[0], 1))
    return run(MaxPool(maps, origins if return_indices else ()), input)


def avg_pool(name: str, axes: int, input: Tensor, kernel_size: Size, stride: Size | None,
             padding: Size, ceil_mode: bool, count_include_pad: bool,
             divisor_override: int | None) -> Tensor:
    check_input(name, input, axes, input.dtype is int64)
    if divisor_override == 0:
        raise ShapeError(f"{name}: divisor_override must not be zero")
    kernel = per_axis(name, "kernel_size", kernel_size, axes, 1)
    steps = per_axis(name, "stride", stride, axes, 1) if stride or stride == 0 else kernel
    before = per_axis(name, "padding", padding, axes, 0)
    maps, counts = [], []
    for axis in range(-axes, 0):
        k, s, p, size = (each[axis] for each in (kernel, steps, before, input.shape))
        count = window_count(name, size, k, s, p, 1, ceil_mode)
        maps.append(window_map(axis, size, count, k, s, 1, p))
        start = np.arange(count) * s - p
        end = np.minimum(start + k, size + p)
        counts.append(end - start if count_include_pad
                      else np.minimum(end, size) - np.maximum(start, 0))
    return run(SeparableMap(maps, after=divisor(input, counts, divisor_override)), input)  # type: ignore[no-any-return]


def adaptive_avg_pool(name: str, axes: int, input: Tensor, size: Any) -> Tensor:
    check_input(name, input, axes, False)
    sizes = output_size(name, input, size, axes)
    maps, counts = [], []
    for axis in range(-axes, 0):
        maps.append(adaptive_map(axis, input.shape[axis], sizes[axis]))
        start, end = adaptive_bounds(input.shape[axis], sizes[axis])
        counts.append(end - start)
    return run(SeparableMap(maps, after=divisor(input, counts, None)), input)  # type: ignore[no-any-return]


def divisor(input: Tensor, counts: Sequence[Array], override: int | None) -> Array:
    """The elements in each window: one number if they agree, else an array over the windows."""
    dtype = compute_dtype(input.dtype).numpy
    if override is not None:
        return np.asarray(override, dtype)
    if all(len(np.unique(c)) == 1 for c in counts):
        return np.asarray(math.prod(int(c[0]) for c in counts), dtype)
    product = counts[0]
    for count in counts[1:]:
        product = np.multiply.outer(product, count)
    return product.astype(dtype)


def max_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               dilation: Size = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The maximum of each window over (N, C, L) or (C, L); NaN wins.

    stride defaults to kernel_size.  With return_indices a tuple: also the places, int64.
    Raises ShapeError and DTypeError.
    """
    return max_pool("max_pool1d", 1, input, kernel_size, stride, padding, dilation, ceil_mode,
                    return_indices)


def max_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               dilation: Size = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The maximum of each window over (N, C, H, W) or (C, H, W); NaN wins.

    stride defaults to kernel_size.  With return_indices a tuple: also the places in the flattened
    planes, int64.  Raises ShapeError and DTypeError.
    """
    return max_pool("max_pool2d", 2, input, kernel_size, stride, padding, dilation, ceil_mode,
                    return_indices)


def max_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               dilation: Size = 1, ceil_mode: bool = False, return_indices: bool = False) -> Any:
    """The maximum of each window over (N, C, D, H, W) or (C, D, H, W); NaN wins.

    stride defaults to kernel_size.  With return_indices a tuple: also the places in the flattened
    volumes, int64.  Raises ShapeError and DTypeError.
    """
    return max_pool("max_pool3d", 3, input, kernel_size, stride, padding, dilation, ceil_mode,
                    return_indices)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maximum of each of output_size windows that cover (N, C, L) or (C, L)."""
    return adaptive_max_pool("adaptive_max_pool1d", 1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maximum of each of output_size windows that cover (N, C, H, W); None keeps a size."""
    return adaptive_max_pool("adaptive_max_pool2d", 2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maximum of each of output_size windows that cover (N, C, D, H, W); None keeps a size."""
    return adaptive_max_pool("adaptive_max_pool3d", 3, input, output_size, return_indices)


def avg_pool1d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Tensor:
    """The mean of each window over (N, C, L) or (C, L); stride defaults to kernel_size.

    The padding's zeros count as elements unless count_include_pad is False.
    """
    return avg_pool("avg_pool1d", 1, input, kernel_size, stride, padding, ceil_mode,
                    count_include_pad, None)


def avg_pool2d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window over (N, C, H, W) or (C, H, W); stride defaults to kernel_size.

    The padding's zeros count as elements unless count_include_pad is False; divisor_override
    replaces the count.
    """
    return avg_pool("avg_pool2d", 2, input, kernel_size, stride, padding, ceil_mode,
                    count_include_pad, divisor_override)


def avg_pool3d(input: Tensor, kernel_size: Size, stride: Size | None = None, padding: Size = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: int | None = None) -> Tensor:
    """The mean of each window over (N, C, D, H, W); stride defaults to kernel_size.

    The padding's zeros count as elements unless count_include_pad is False; divisor_override
    replaces the count.
    """
    return avg_pool("avg_pool3d", 3, input, kernel_size, stride, padding, ceil_mode,
                    count_include_pad, divisor_override)


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of output_size windows that cover (N, C, L) or (C, L)."""
    return adaptive_avg_pool("adaptive_avg_pool1d", 1, input, output_size)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of output_size windows that cover (N, C, H, W); None keeps a size."""
    return adaptive_avg_pool("adaptive_avg_pool2d", 2, input, output_size)


def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The mean of each of output_size windows that cover (N, C, D, H, W); None keeps a size."""
    return adaptive_avg_pool("adaptive_avg_pool3d", 3, input, output_size)


def lp_pool(axes: int, input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None,
            ceil_mode: bool) -> Tensor:
    if norm_type == math.inf:
        pooled: Tensor = MAX_POOL[axes](input.abs(), kernel_size, stride, 0, 1, ceil_mode)
        return pooled
    if norm_type == -math.inf:
        least: Tensor = MAX_POOL[axes](-input.abs(), kernel_size, stride, 0, 1, ceil_mode)
        return -least
    mean = AVG_POOL[axes](input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
    count = math.prod(per_axis(f"lp_pool{axes}d", "kernel_size", kernel_size, axes, 1))
    # PyTorch's form: sign(x) relu(|x|) has the derivative 0 where a window sums to 0.
    return (mean.sign() * mean.abs().relu()).mul(count).pow(1.0 / norm_type)


MAX_POOL: dict[int, Callable[..., Any]] = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}
AVG_POOL: dict[int, Callable[..., Tensor]] = {1: avg_pool1d, 2: avg_pool2d, 3: avg_pool3d}


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum over each window of x^norm_type)^(1 / norm_type) over (N, C, L) or (C, L)."""
    return lp_pool(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum over each window of x^norm_type)^(1 / norm_type) over (N, C, H, W) or (C, H, W)."""
    return lp_pool(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Size, stride: Size | None = None,
              ceil_mode: bool = False) -> Tensor:
    """(sum over each window of x^norm_type)^(1 / norm_type) over (N, C, D, H, W)."""
    return lp_pool(3, input, norm_type, kernel_size, stride, ceil_mode)
