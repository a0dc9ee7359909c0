"""Window functions for spectral analysis: vectors that fade in and out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.device import Device
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.creation import tensor
from mlgpu.tensor import Tensor

__all__ = ["bartlett_window", "blackman_window", "hamming_window", "hann_window", "kaiser_window"]


def _window(name: str, length: int, periodic: bool, shape: Callable[[Any], Any],
            dtype: dtypes.dtype | None, device: Device | str | None,
            requires_grad: bool) -> Tensor:
    """shape(x) at `length` points x from -1 to 1; a periodic window leaves the last point out."""
    kind = dtypes.get_default_dtype() if dtype is None else dtype
    if not kind.is_floating_point:
        raise DTypeError(f"{name}: expected a floating dtype, got {kind.name}")
    if length < 0:
        raise ShapeError(f"{name}: window_length must not be negative, got {length}")
    last = length if periodic else length - 1
    values = np.ones(length) if length < 2 else shape(2 * np.arange(length) / last - 1)
    return tensor(values, dtype=kind, device=device, requires_grad=requires_grad)


def hann_window(window_length: int, periodic: bool = True, *, dtype: dtypes.dtype | None = None,
                device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """(1 + cos(pi x)) / 2 for x from -1 to 1; `periodic` windows repeat without a double zero."""
    return hamming_window(window_length, periodic, 0.5, 0.5, dtype=dtype, device=device,
                          requires_grad=requires_grad)


def hamming_window(window_length: int, periodic: bool = True, alpha: float = 0.54,
                   beta: float = 0.46, *, dtype: dtypes.dtype | None = None,
                   device: Device | str | None = None, requires_grad: bool = False) -> Tensor:
    """alpha + beta cos(pi x) for x from -1 to 1."""
    return _window("hamming_window", window_length, periodic,
                   lambda x: alpha + beta * np.cos(np.pi * x), dtype, device, requires_grad)


def blackman_window(window_length: int, periodic: bool = True, *,
                    dtype: dtypes.dtype | None = None, device: Device | str | None = None,
                    requires_grad: bool = False) -> Tensor:
    """0.42 + 0.5 cos(pi x) + 0.08 cos(2 pi x) for x from -1 to 1."""
    return _window("blackman_window", window_length, periodic,
                   lambda x: 0.42 + 0.5 * np.cos(np.pi * x) + 0.08 * np.cos(2 * np.pi * x), dtype,
                   device, requires_grad)


def bartlett_window(window_length: int, periodic: bool = True, *,
                    dtype: dtypes.dtype | None = None, device: Device | str | None = None,
                    requires_grad: bool = False) -> Tensor:
    """1 - |x| for x from -1 to 1."""
    return _window("bartlett_window", window_length, periodic, lambda x: 1 - np.abs(x), dtype,
                   device, requires_grad)


def kaiser_window(window_length: int, periodic: bool = True, beta: float = 12.0, *,
                  dtype: dtypes.dtype | None = None, device: Device | str | None = None,
                  requires_grad: bool = False) -> Tensor:
    """I0(beta sqrt(1 - x^2)) / I0(beta) for x from -1 to 1; I0 is the modified Bessel function."""
    return _window("kaiser_window", window_length, periodic,
                   lambda x: np.i0(beta * np.sqrt(np.maximum(0, 1 - x * x))) / np.i0(beta), dtype,
                   device, requires_grad)
