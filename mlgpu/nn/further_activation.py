"""Activations as layers: those that draw numbers, and those that PyTorch has not."""

from __future__ import annotations

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.tensor import Tensor

__all__ = ["GaussianNoise", "QuietSoftmax", "RReLU", "ReLUSquared", "Shrink", "SwiGLU",
           "ThresholdedReLU"]


class RReLU(Module):
    """x, or x times a slope where it is negative: drawn in training, else the middle of its range.

    Xu et al. 2015.
    """

    def __init__(self, lower: float = 1.0 / 8, upper: float = 1.0 / 3, inplace: bool = False
                 ) -> None:
        super().__init__()
        self.lower = lower
        self.upper = upper
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        return f"lower={self.lower}, upper={self.upper}" + (
            ", inplace=True" if self.inplace else "")


class ReLUSquared(Module):
    """max(0, x)²."""

    def forward(self, input: Tensor) -> Tensor:
        return F.relu_squared(input)


class ThresholdedReLU(Module):
    """x where x > alpha, else 0."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        return F.thresholded_relu(input, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Shrink(Module):
    """x - bias above lambd, x + bias below -lambd, else 0."""

    def __init__(self, lambd: float = 0.5, bias: float = 0.0) -> None:
        super().__init__()
        self.lambd = lambd
        self.bias = bias

    def forward(self, input: Tensor) -> Tensor:
        return F.shrink(input, self.lambd, self.bias)

    def extra_repr(self) -> str:
        return f"lambd={self.lambd}, bias={self.bias}"


class QuietSoftmax(Module):
    """exp(x) / (1 + sum of exp(x)) along `dim`."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.quiet_softmax(input, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class SwiGLU(Module):
    """silu(gate x) * (value x), two linear maps in one product (Shazeer 2020).

    weight (2 * out_features, in_features): the gate's rows, then the value's.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.linear = Linear(in_features, 2 * out_features, bias, device=device, dtype=dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.swiglu(self.linear(input))


class GaussianNoise(Module):
    """Adds normal noise of standard deviation `std` in training, nothing otherwise."""

    def __init__(self, std: float) -> None:
        super().__init__()
        if not std >= 0:
            raise ShapeError(f"GaussianNoise: std must be at least 0, got {std}")
        self.std = std

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.std == 0:
            return input
        from mlgpu.ops.random import randn_like

        return input + randn_like(input) * self.std

    def extra_repr(self) -> str:
        return f"std={self.std}"
