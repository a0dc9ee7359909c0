"""Discrete Fourier transforms on CUDA: CuPy's cuFFT.

CuPy keeps the plans of each thread and device, so that a transform of the same shape needs no new
one.  Results are as those of numpy.fft, including what it ignores.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mlgpu.cuda.arrays import adopt
from mlgpu.cuda.copy import fill
from mlgpu.cuda.runtime import contiguous, copy, empty
from mlgpu.errors import MissingExtraError


def _library(op: str) -> Any:
    try:
        return import_module("cupy.fft")
    except ImportError as error:
        raise MissingExtraError(f"{op}: cuFFT is not installed ({error}); pip install "
                                "'mlgpu[cuda12-full]'") from error


def c2c(op: str, x: Any, dims: tuple[int, ...], inverse: bool, norm: str) -> Any:
    """The complex transform over `dims`."""
    if not x.size:
        return empty(x.shape, x.dtype)
    fft = _library(op)
    transform = fft.ifftn if inverse else fft.fftn
    return contiguous(adopt(transform(x, axes=dims, norm=norm)))


def r2c(op: str, x: Any, dim: int, dtype: Any, norm: str) -> Any:
    """The first half of a real array's transform along `dim`."""
    shape = list(x.shape)
    shape[dim] = shape[dim] // 2 + 1
    if not x.size:
        return empty(shape, dtype)
    return contiguous(adopt(_library(op).rfft(x, axis=dim, norm=norm)))


def c2r(op: str, half: Any, dim: int, length: int, norm: str) -> Any:
    """The real inverse transform along `dim` of the first half of its coefficients."""
    shape = list(half.shape)
    shape[dim] = length
    if not half.size:
        return empty(shape, half.real.dtype)
    half = copy(half)
    # What a real result has no imaginary part of: NumPy ignores it, cuFFT does what it likes.
    for place in (0, length // 2)[:1 + (length % 2 == 0)]:
        fill(half[(slice(None),) * dim + (slice(place, place + 1),)].imag, 0)
    return contiguous(adopt(_library(op).irfft(half, length, axis=dim, norm=norm)))
