"""Max pooling undone, as layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.nn import functional as F
from mlgpu.nn.conv import per_dim
from mlgpu.nn.module import Module
from mlgpu.tensor import Tensor

__all__ = ["MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"]

Sizes = int | tuple[int, ...]


class _MaxUnpool(Module):
    _dims: int

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0
                 ) -> None:
        super().__init__()
        self.kernel_size = per_dim(kernel_size, self._dims)
        self.stride = self.kernel_size if stride is None else per_dim(stride, self._dims)
        self.padding = per_dim(padding, self._dims)

    def forward(self, input: Tensor, indices: Tensor, output_size: Sequence[int] | None = None
                ) -> Tensor:
        unpool: Any = getattr(F, f"max_unpool{self._dims}d")
        result: Tensor = unpool(input, indices, self.kernel_size, self.stride, self.padding,
                                output_size)
        return result

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """Values (n, c, l) back at the indices that MaxPool1d returned."""

    _dims = 1


class MaxUnpool2d(_MaxUnpool):
    """Values (n, c, h, w) back at the indices that MaxPool2d returned."""

    _dims = 2


class MaxUnpool3d(_MaxUnpool):
    """Values (n, c, d, h, w) back at the indices that MaxPool3d returned."""

    _dims = 3
