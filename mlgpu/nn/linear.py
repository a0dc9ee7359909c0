"""Affine layers."""

from __future__ import annotations

import math
from typing import Any

from mlgpu.autograd.mode import mode
from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.nn import functional as F
from mlgpu.nn import init
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import empty
from mlgpu.ops.linear import linear
from mlgpu.tensor import Tensor

__all__ = ["Bilinear", "Identity", "Linear"]


class Identity(Module):
    """Returns its input; any arguments are accepted and ignored."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Tensor) -> Tensor:
        return input


class Linear(Module):
    """x @ weight.T + bias: (..., in_features) to (..., out_features).

    weight: (out_features, in_features) and bias, uniform within ±1 / sqrt(in_features).
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(
            empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, *, activation: str | None = None,
                residual: Tensor | None = None) -> Tensor:
        """The affine map; then `activation` and `residual` as `F.linear` takes them."""
        own: dict[str, Any] = self._parameters
        if "weight" in own and "bias" in own:  # without the search that an attribute takes
            weight, bias = own["weight"], own["bias"]
        else:
            weight, bias = self.weight, self.bias
        if mode.autocast is not None:  # the sum, unlike the product, keeps the residual's dtype
            product = F.linear(input, weight, bias, activation=activation)
            return product if residual is None else product + residual
        if activation is None and residual is None:
            return linear(input, weight, bias)
        return F.linear(input, weight, bias, activation=activation, residual=residual)

    def extra_repr(self) -> str:
        return (f"in_features={self.in_features}, out_features={self.out_features}, "
                f"bias={self.bias is not None}")


class Bilinear(Module):
    """y[o] = sum over i, j of x1[i] weight[o, i, j] x2[j] + bias[o], over the last dimensions.

    weight: (out_features, in1_features, in2_features), uniform within ±1 / sqrt(in1_features).
    """

    def __init__(self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(
            empty(out_features, in1_features, in2_features, device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(
            empty(out_features, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
                f"out_features={self.out_features}, bias={self.bias is not None}")
