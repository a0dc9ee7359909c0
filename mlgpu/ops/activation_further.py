"""Activations that PyTorch has not."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.ops.activation import relu, silu
from mlgpu.ops.choice import where
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.exponential import exp
from mlgpu.ops.softmax import softmax
from mlgpu.tensor import Tensor

__all__ = ["quiet_softmax", "relu_squared", "shrink", "swiglu", "thresholded_relu"]


@elementwise
def relu_squared(input: Tensor) -> Tensor:
    """max(0, x)² (So et al. 2021)."""
    positive = relu(input)
    return positive * positive


@elementwise
def _thresholded_relu(input: Any, alpha: Any) -> Any:
    return where(input > alpha, input, 0)


def thresholded_relu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x where x > alpha, else 0 (Konda et al. 2015)."""
    return _thresholded_relu(input, alpha)  # type: ignore[no-any-return]


@elementwise
def _shrink(input: Any, lambd: Any, bias: Any) -> Any:
    return where(input > lambd, input - bias, where(input < -lambd, input + bias, 0))


def shrink(input: Tensor, lambd: float = 0.5, bias: float = 0.0) -> Tensor:
    """x - bias above lambd, x + bias below -lambd, else 0: hardshrink and softshrink in one."""
    return _shrink(input, lambd, bias)  # type: ignore[no-any-return]


@elementwise
def _swiglu(gate: Any, value: Any) -> Any:
    return silu(gate) * value


def swiglu(input: Tensor, dim: int = -1) -> Tensor:
    """silu(a) * b, a and b the halves along `dim` (Shazeer 2020).  ShapeError for odd sizes."""
    if input.ndim == 0 or input.shape[dim] % 2:
        raise ShapeError(f"swiglu: dimension {dim} must be even, got {tuple(input.shape)}")
    return _swiglu(*input.chunk(2, dim))  # type: ignore[no-any-return]


@elementwise
def _quiet(shares: Any, total: Any) -> Any:
    """Softmax's shares where the sum of exponentials, by its logarithm, has one more 1."""
    return shares * (1 / (1 + exp(-total)))


def quiet_softmax(input: Tensor, dim: int) -> Tensor:
    """exp(x) / (1 + sum of exp(x)) along `dim`: softmax that may choose nothing (Miller 2023)."""
    return _quiet(softmax(input, dim), input.logsumexp(dim, keepdim=True))  # type: ignore[no-any-return]
