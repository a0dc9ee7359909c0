"""Interpolation of images, and the pixel and channel shuffles.

Every mode is separable: along each axis an output element is a weighted sum of a few input
elements, so that an axis is one `AxisMap` and its transpose the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mlgpu.dtypes import compute_dtype, float32, uint8
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.axis_map import AxisMap, Pairs, SeparableMap
from mlgpu.ops.pool import adaptive_avg_pool
from mlgpu.ops.window import Array, Ints
from mlgpu.tensor import Tensor

__all__ = ["channel_shuffle", "interpolate", "pixel_shuffle", "pixel_unshuffle", "upsample",
           "upsample_bilinear", "upsample_nearest"]

# Mode -> the input ranks it takes.
MODES = {"nearest": (3, 4, 5), "nearest-exact": (3, 4, 5), "area": (3, 4, 5), "linear": (3,),
         "bilinear": (4,), "bicubic": (4,), "trilinear": (5,)}
INTERPOLATING = ("linear", "bilinear", "bicubic", "trilinear")


def cubic(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel (1981): 1 at 0, 0 at the other integers, 0 beyond 2."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0)).astype(d.dtype)


def triangle(distance: Array) -> Array:
    return np.maximum(1 - np.abs(distance), 0).astype(distance.dtype)


def ratio(size: int, count: int, align_corners: bool, factor: float | None,
          dtype: np.dtype[Any]) -> Any:
    """The distance between neighbouring outputs, in input elements; rounded as PyTorch does."""
    if align_corners:
        return dtype.type((size - 1) / (count - 1) if count > 1 else 0)
    return dtype.type(1.0 / factor) if factor else dtype.type(size) / dtype.type(count)


@lru_cache(maxsize=256)
def nearest_map(axis: int, size: int, count: int, exact: bool, factor: float | None,
                dtype: np.dtype[Any]) -> AxisMap:
    # PyTorch ignores the factor where the sizes agree or the output's is twice the input's.
    whole = not exact and count in (size, 2 * size)
    step = ratio(size, count, False, None if whole else factor, dtype)
    place = np.arange(count, dtype=dtype) + dtype.type(0.5 if exact else 0)
    source = np.minimum(np.floor(place * step).astype(np.int64), size - 1)
    return AxisMap(axis, size, count, [Pairs(0, np.arange(count), source, None)])


@lru_cache(maxsize=256)
def smooth_map(axis: int, size: int, count: int, taps: int, align_corners: bool,
               factor: float | None, dtype: np.dtype[Any]) -> AxisMap:
    """Linear (2 taps) or cubic (4 taps) interpolation; positions outside repeat the border."""
    step = ratio(size, count, align_corners, factor, dtype)
    rows = np.arange(count)
    half = dtype.type(0 if align_corners else 0.5)
    place = step * (rows.astype(dtype) + half) - half
    if taps == 2:
        place = np.clip(place, 0, size - 1)
    whole = np.floor(place)
    offset = place - whole
    pairs = []
    for tap in range(1 - taps // 2, taps // 2 + 1):
        distance = offset - dtype.type(tap)
        weight = triangle(distance) if taps == 2 else cubic(distance, -0.75)
        source = np.clip(whole.astype(np.int64) + tap, 0, size - 1)
        pairs.append(Pairs(tap, rows, source, weight))
    return AxisMap(axis, size, count, pairs)


@lru_cache(maxsize=256)
def antialias_map(axis: int, size: int, count: int, taps: int, align_corners: bool,
                  factor: float | None, dtype: np.dtype[Any]) -> AxisMap:
    """Interpolation whose kernel is as wide as an output element, with weights that sum to 1."""
    step = float(ratio(size, count, align_corners, factor, dtype))
    kernel: Callable[[Array], Array] = triangle if taps == 2 else (lambda d: cubic(d, -0.5))
    wide = max(1.0, step)
    center = step * (np.arange(count) + 0.5)
    first = np.maximum((center - taps / 2 * wide + 0.5).astype(np.int64), 0)
    stop = np.minimum((center + taps / 2 * wide + 0.5).astype(np.int64), size)
    most = int((stop - first).max())
    source = first[:, None] + np.arange(most)
    weight = kernel((source - center[:, None] + 0.5) / wide)
    weight[source >= stop[:, None]] = 0
    weight /= weight.sum(1, keepdims=True)
    pairs = []
    for tap in range(most):
        rows = np.flatnonzero(source[:, tap] < stop)
        pairs.append(Pairs(tap, rows, source[rows, tap], weight[rows, tap].astype(dtype)))
    return AxisMap(axis, size, count, pairs)


def interpolate(input: Tensor, size: int | Sequence[int] | None = None,
                scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
                align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
                antialias: bool = False) -> Tensor:
    """Resample (N, C, *sizes) to `size`, or to floor(sizes * scale_factor).

    mode: nearest, nearest-exact, area (1 to 3 axes), linear (1), bilinear, bicubic (2), trilinear
    (3).  align_corners: the corner elements keep their values.  Positions come from scale_factor
    itself unless recompute_scale_factor asks for the ratio of the sizes.  Raises ShapeError for
    sizes, factors and modes that do not fit, DTypeError for integers (uint8 may be nearest).
    """
    axes = input.ndim - 2
    check_mode(input, mode, align_corners, antialias)
    counts, factors = output_sizes(input, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        return adaptive_avg_pool("interpolate", axes, input, counts)
    if min((*counts, *input.shape[1:])) < 1:
        raise ShapeError(f"interpolate: sizes must be positive, got {tuple(input.shape)} to "
                         f"{tuple(counts)}")
    dtype = compute_dtype(input.dtype if input.dtype.is_floating_point else float32).numpy
    maps = []
    for axis, (count, factor) in enumerate(zip(counts, factors, strict=True), -axes):
        length = input.shape[axis]
        if mode.startswith("nearest"):
            maps.append(nearest_map(axis, length, count, mode == "nearest-exact", factor, dtype))
        else:
            build = antialias_map if antialias else smooth_map
            taps = 4 if mode == "bicubic" else 2
            maps.append(build(axis, length, count, taps, bool(align_corners), factor, dtype))
    # What shrinks most comes first, so that there is the least to do after it.
    maps.sort(key=lambda each: each.size_out / each.size_in)
    return run(SeparableMap(maps), input)  # type: ignore[no-any-return]


def check_mode(input: Tensor, mode: str, align_corners: bool | None, antialias: bool) -> None:
    if input.ndim not in MODES.get(mode, ()):
        known = ", ".join(f"{name} ({'/'.join(map(str, ranks))}-D)"
                          for name, ranks in MODES.items())
        raise ShapeError(f"interpolate: mode must fit the input's rank: {known}; "
                         f"got {mode!r} for {tuple(input.shape)}")
    if align_corners is not None and mode not in INTERPOLATING:
        raise ShapeError(f"interpolate: align_corners goes with {', '.join(INTERPOLATING)}, "
                         f"got mode {mode!r}; leave it out")
    if antialias and mode not in ("bilinear", "bicubic"):
        raise ShapeError(f"interpolate: antialias goes with bilinear and bicubic, got {mode!r}")
    if not (input.dtype.is_floating_point
            or (input.dtype is uint8 and mode.startswith("nearest"))):
        raise DTypeError(f"interpolate: mode {mode!r} is not defined for {input.dtype}; convert "
                         "with .to()")


def output_sizes(input: Tensor, size: int | Sequence[int] | None,
                 scale_factor: float | Sequence[float] | None,
                 recompute: bool | None) -> tuple[Ints, tuple[float | None, ...]]:
    """The output's sizes, and for each axis the factor that positions are computed with, if any."""
    axes = input.ndim - 2
    if (size is None) == (scale_factor is None):
        raise ShapeError(f"interpolate: give either size or scale_factor, got size={size}, "
                         f"scale_factor={scale_factor}")
    given: Any = size if scale_factor is None else scale_factor
    values: tuple[Any, ...] = tuple(given) if isinstance(given, Sequence) else (given,) * axes
    if len(values) != axes:
        raise ShapeError(f"interpolate: needs one value or {axes}, got {given}")
    if scale_factor is None:
        if recompute:
            raise ShapeError("interpolate: recompute_scale_factor goes with scale_factor, not size")
        return tuple(int(v) for v in values), (None,) * axes
    counts = tuple(math.floor(n * f) for n, f in zip(input.shape[2:], values, strict=True))
    return counts, (None,) * axes if recompute else tuple(float(f) for f in values)


def upsample(input: Tensor, size: int | Sequence[int] | None = None,
             scale_factor: float | Sequence[float] | None = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Tensor:
    """PyTorch's older name of `interpolate`."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: int | Sequence[int] | None = None,
                     scale_factor: float | Sequence[float] | None = None) -> Tensor:
    """`interpolate(..., mode="nearest")`, by its older name."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Tensor, size: int | Sequence[int] | None = None,
                      scale_factor: float | Sequence[float] | None = None) -> Tensor:
    """`interpolate(..., mode="bilinear", align_corners=True)`, by its older name."""
    return interpolate(input, size, scale_factor, "bilinear", True)


# --- shuffles ------------------------------------------------------------------------------------

def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """(..., C r², H, W) to (..., C, H r, W r): channels become pixels.  Shi et al. 2016."""
    r = upscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-3] % (r * r):
        raise ShapeError(f"pixel_shuffle: input must be (..., C, H, W) with C a multiple of "
                         f"upscale_factor² = {r}², got {tuple(input.shape)}")
    *lead, channels, height, width = input.shape
    split = input.reshape(math.prod(lead), channels // (r * r), r, r, height, width)
    moved = split.permute(0, 1, 4, 2, 5, 3)
    return moved.reshape(*lead, channels // (r * r), height * r, width * r)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """(..., C, H r, W r) to (..., C r², H, W): the inverse of `pixel_shuffle`."""
    r = downscale_factor
    if input.ndim < 3 or r < 1 or input.shape[-1] % r or input.shape[-2] % r:
        raise ShapeError(f"pixel_unshuffle: input must be (..., C, H, W) with H and W multiples of "
                         f"downscale_factor = {r}, got {tuple(input.shape)}")
    *lead, channels, height, width = input.shape
    split = input.reshape(math.prod(lead), channels, height // r, r, width // r, r)
    moved = split.permute(0, 1, 3, 5, 2, 4)
    return moved.reshape(*lead, channels * r * r, height // r, width // r)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """(N, C, ...): channels (groups, C / groups) transposed.  Zhang et al. 2017."""
    if input.ndim < 3 or groups < 1 or input.shape[1] % groups:
        raise ShapeError(f"channel_shuffle: input must be (N, C, ...) with C a multiple of "
                         f"groups = {groups}, got {tuple(input.shape)}")
    images, channels, *sizes = input.shape
    split = input.reshape(images, groups, channels // groups, *sizes)
    return split.transpose(1, 2).reshape(*input.shape)
