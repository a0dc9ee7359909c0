"""Random tensors of any dtype for tests: `make_tensor`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.device import Device
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.creation import tensor
from mlgpu.ops.random import randint
from mlgpu.ops.view import size_arguments
from mlgpu.tensor import Tensor


def make_tensor(*shape: Any, dtype: dtypes.dtype, device: Device | str | None = None,
                low: float | None = None, high: float | None = None, requires_grad: bool = False,
                noncontiguous: bool = False, exclude_zero: bool = False,
                generator: np.random.Generator | None = None) -> Tensor:
    """A tensor of values drawn uniformly from [low, high), as torch.testing.make_tensor.

    Left out, the range is [-9, 9) for floating and complex dtypes (both parts), [-9, 10) for
    integers, [0, 10) for uint8, {0, 1} for bool.  `noncontiguous` gives every second element of a
    longer tensor; `exclude_zero` puts the smallest normal number (one, for integers) for zeros.
    `generator` draws, or one seeded by the library's (see `manual_seed`).  Raises ShapeError (a
    ValueError) for a range that is empty or outside the dtype's, DTypeError for integers that
    shall require grad.
    """
    sizes = size_arguments("make_tensor", shape)
    whole = dtype.kind in ("int", "bool")
    if requires_grad and whole:
        raise DTypeError(f"make_tensor: {dtype!r} cannot require gradients")
    low, high = _range(dtype, low, high)
    strided = noncontiguous and math.prod(sizes) > 1
    full = (*sizes[:-1], 2 * sizes[-1]) if strided else sizes
    draw = _integers if whole else _floats
    if generator is None:
        generator = np.random.default_rng(randint(0, 2**63 - 1, (), device="cpu").item())
    made: Tensor = tensor(draw(generator, full, dtype, low, high), dtype=dtype, device=device)
    if strided:
        made = made[..., 1::2]
    if exclude_zero:
        zero = made == 0
        made[zero] = 1 if whole else dtypes.finfo(dtype).tiny
    return made.requires_grad_(requires_grad)


def _range(dtype: dtypes.dtype, low: float | None, high: float | None) -> tuple[float, float]:
    """The limits asked for, or the dtype's usual ones, kept within what it can hold."""
    least: float
    most: float
    if dtype.kind == "bool":
        least, most, usual = 0, 2, (0, 2)
    elif dtype.kind == "int":
        info = dtypes.iinfo(dtype)
        least, most, usual = info.min, info.max + 1, (-9, 10)
    else:
        limits = dtypes.finfo(dtype)
        least, most, usual = float(limits.min), float(limits.max), (-9, 9)
    low, high = usual[0] if low is None else low, usual[1] if high is None else high
    if math.isnan(low) or math.isnan(high) or low >= high:
        raise ShapeError(f"make_tensor: low must be less than high, got {low} and {high}")
    if high < least or low >= most:
        raise ShapeError(f"make_tensor: {dtype!r} has no values in [{low}, {high})")
    return max(low, least), min(high, most)


def _integers(generator: np.random.Generator, shape: tuple[int, ...], dtype: dtypes.dtype,
              low: float, high: float) -> Any:
    return generator.integers(math.ceil(low), math.ceil(high), shape).astype(dtype.numpy)


def _floats(generator: np.random.Generator, shape: tuple[int, ...], dtype: dtypes.dtype,
            low: float, high: float) -> Any:
    if dtype.is_complex:
        part = dtypes.float32 if dtype is dtypes.complex64 else dtypes.float64
        pairs = _floats(generator, (*shape, 2), part, low, high)
        return pairs.view(dtype.numpy)[..., 0]
    share = generator.random(shape)
    values = np.asarray(low * (1 - share) + high * share).astype(dtype.numpy)
    kind = values.dtype.type
    return np.minimum(values, np.nextafter(kind(high), kind(low)))  # rounding may reach `high`
