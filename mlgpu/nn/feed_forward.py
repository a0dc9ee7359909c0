"""The feed-forward part of transformer blocks."""

from __future__ import annotations

from collections.abc import Callable

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.tensor import Tensor

__all__ = ["PositionWiseFeedForward"]


class PositionWiseFeedForward(Module):
    """linear2(dropout(activation(linear1(x)))), for each token (..., d_model) by itself."""

    def __init__(self, d_model: int, d_ff: int, dropout: float = 0.1,
                 activation: Callable[[Tensor], Tensor] | None = None, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        if not 0 <= dropout <= 1:
            raise ShapeError(f"PositionWiseFeedForward: dropout must be a probability, got "
                             f"{dropout}")
        self.linear1 = Linear(d_model, d_ff, bias, device=device, dtype=dtype)
        self.linear2 = Linear(d_ff, d_model, bias, device=device, dtype=dtype)
        self.activation: Callable[[Tensor], Tensor] = F.gelu if activation is None else activation
        self.dropout = dropout

    def forward(self, input: Tensor) -> Tensor:
        hidden = self.activation(self.linear1(input))
        output: Tensor = self.linear2(F.dropout(hidden, self.dropout, self.training))
        return output
