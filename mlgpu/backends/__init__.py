"""Choices between implementations of the same operation, as torch.backends."""

from __future__ import annotations

from mlgpu.backends import cuda as cuda
from mlgpu.errors import ShapeError

__all__ = ["get_float32_matmul_precision", "set_float32_matmul_precision"]

_PRECISIONS = ("highest", "high", "medium")


def set_float32_matmul_precision(precision: str) -> None:
    """How exactly float32 matrices are multiplied on CUDA.

    "highest" (the default) is full float32; "high" and "medium" allow the tensor cores, which round
    each factor to 10 bits of fraction (TF32) and add in float32.
    """
    if precision not in _PRECISIONS:
        raise ShapeError("set_float32_matmul_precision: expected one of "
                         f"{', '.join(_PRECISIONS)}, got {precision!r}")
    cuda.precision = precision


def get_float32_matmul_precision() -> str:
    """What `set_float32_matmul_precision` was given last."""
    return cuda.precision
