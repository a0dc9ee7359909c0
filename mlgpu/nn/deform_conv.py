"""Deformable convolution as a layer."""

from __future__ import annotations

import math

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn import init
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import empty
from mlgpu.tensor import Tensor

__all__ = ["DeformConv2d"]

Pair = int | tuple[int, int]


class DeformConv2d(Module):
    """conv2d whose taps are moved by offsets, which a layer before computes: see F.deform_conv2d.

    forward(input (n, in, h, w), offset (n, 2 * parts * kh * kw, oh, ow), mask (n, parts * kh * kw,
    oh, ow) or None).  As torchvision.ops.DeformConv2d.
    """

    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1,
                 padding: Pair = 0, dilation: Pair = 1, groups: int = 1, bias: bool = True,
                 device: DeviceLike | None = None, dtype: DTypeLike | None = None) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ShapeError(f"DeformConv2d: groups must divide {in_channels} and {out_channels} "
                             f"channels, got {groups}")
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding = size, stride, padding
        self.dilation, self.groups = dilation, groups
        self.weight = Parameter(empty(out_channels, in_channels // groups, *size, device=device,
                                      dtype=dtype))
        self.bias = Parameter(empty(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, as Conv2d does."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan = self.weight[0].numel()
            bound = 1 / math.sqrt(fan) if fan else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        return F.deform_conv2d(input, offset, self.weight, self.bias, self.stride, self.padding,
                               self.dilation, mask)

    def extra_repr(self) -> str:
        text = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}")
        for name, default in (("padding", 0), ("dilation", 1), ("groups", 1)):
            if getattr(self, name) != default:
                text += f", {name}={getattr(self, name)}"
        return text if self.bias is not None else f"{text}, bias=False"
