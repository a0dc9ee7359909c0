"""Convolution layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn import init
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import empty
from mlgpu.tensor import Tensor

__all__ = ["Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"]

Sizes = int | tuple[int, ...]


def per_dim(value: Sizes, dims: int) -> tuple[int, ...]:
    """One number per spatial dimension."""
    return (value,) * dims if isinstance(value, int) else tuple(value)


class _Conv(Module):
    """What all convolutions share: sizes, weight, bias and their initialisation."""

    _spatial: int
    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes,
                 padding: str | Sizes, dilation: Sizes, output_padding: Sizes, groups: int,
                 bias: bool, padding_mode: str, device: Any, dtype: Any) -> None:
        super().__init__()
        name, dims = type(self).__name__, self._spatial
        if groups <= 0 or in_channels % groups or out_channels % groups:
            raise ShapeError(f"{name}: groups must divide both channels, got {groups} for "
                             f"{in_channels} and {out_channels}")
        if padding_mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ShapeError(f"{name}: padding_mode must be 'zeros', 'reflect', 'replicate' or "
                             f"'circular', got {padding_mode!r}")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ShapeError(f"{name}: padding must be numbers, 'same' or 'valid', got {padding!r}")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_dim(kernel_size, dims)
        self.stride = per_dim(stride, dims)
        self.padding = padding if isinstance(padding, str) else per_dim(padding, dims)
        self.dilation = per_dim(dilation, dims)
        self.output_padding = per_dim(output_padding, dims)
        self.groups = groups
        self.padding_mode = padding_mode
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ShapeError(f"{name}: padding='same' needs a stride of 1, got {self.stride}")
        self.weight = Parameter(empty(*self._weight_shape(), device=device, dtype=dtype))
        self.register_parameter("bias", Parameter(
            empty(out_channels, device=device, dtype=dtype)) if bias else None)
        self.reset_parameters()

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.out_channels, self.in_channels // self.groups, *self.kernel_size)

    def reset_parameters(self) -> None:
        """Draw new weights."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            bound = 1 / math.sqrt(fan_in) if fan_in else 0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}")
        if self.padding != (0,) * self._spatial:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self._spatial:
            text += f", dilation={self.dilation}"
        if self.output_padding != (0,) * self._spatial:
            text += f", output_padding={self.output_padding}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        return text if self.padding_mode == "zeros" else f"{text}, padding_mode={self.padding_mode}"


class _ForwardConv(_Conv):
    """Cross-correlation with `weight` (out_channels, in_channels / groups, *kernel_size).

    weight and bias are uniform within ±1 / sqrt(in_channels / groups * prod(kernel_size)).
    `padding` may be 'same' or 'valid'; `padding_mode` says with what values.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1,
                 padding: str | Sizes = 0, dilation: Sizes = 1, groups: int = 1, bias: bool = True,
                 padding_mode: str = "zeros", device: DeviceLike | None = None,
                 dtype: DTypeLike | None = None) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, 0,
                         groups, bias, padding_mode, device, dtype)

    def _sides(self) -> list[int]:
        """How much to pad, last dimension first, left then right, as F.pad takes it."""
        sides: list[int] = []
        for d in reversed(range(self._spatial)):
            if self.padding == "same":
                total = self.dilation[d] * (self.kernel_size[d] - 1)
                sides += [total // 2, total - total // 2]
            else:
                sides += [0 if self.padding == "valid" else int(self.padding[d])] * 2
        return sides

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input, padding = F.pad(input, self._sides(), self.padding_mode), 0
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self._spatial - 1]
        return convolve(input, self.weight, self.bias, self.stride, padding, self.dilation,
                        self.groups)


class Conv1d(_ForwardConv):
    __doc__ = "(n, c, length) or (c, length). " + (_ForwardConv.__doc__ or "")
    _spatial = 1


class Conv2d(_ForwardConv):
    __doc__ = "(n, c, h, w) or (c, h, w). " + (_ForwardConv.__doc__ or "")
    _spatial = 2


class Conv3d(_ForwardConv):
    __doc__ = "(n, c, d, h, w) or (c, d, h, w). " + (_ForwardConv.__doc__ or "")
    _spatial = 3


class _TransposedConv(_Conv):
    """The adjoint of a convolution, with `weight` (in_channels, out_channels / groups, *kernel).

    Each dimension becomes (n - 1) stride - 2 padding + dilation (kernel - 1) + 1 + output_padding
    long; `forward(x, output_size=...)` chooses the output_padding that gives that size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Sizes, stride: Sizes = 1,
                 padding: Sizes = 0, output_padding: Sizes = 0, groups: int = 1, bias: bool = True,
                 dilation: Sizes = 1, padding_mode: str = "zeros", device: DeviceLike | None = None,
                 dtype: DTypeLike | None = None) -> None:
        if padding_mode != "zeros" or isinstance(padding, str):
            raise ShapeError(f"{type(self).__name__}: padding must be numbers, of zeros, got "
                             f"padding={padding!r}, padding_mode={padding_mode!r}")
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation,
                         output_padding, groups, bias, padding_mode, device, dtype)

    def _weight_shape(self) -> tuple[int, ...]:
        return (self.in_channels, self.out_channels // self.groups, *self.kernel_size)

    def _output_padding(self, input: Tensor, output_size: Sequence[int]) -> tuple[int, ...]:
        dims = self._spatial
        wanted = tuple(output_size)
        if len(wanted) == input.ndim:
            wanted = wanted[-dims:]
        if len(wanted) != dims:
            raise ShapeError(f"{type(self).__name__}: output_size must have {dims} or {input.ndim} "
                             f"elements, got {tuple(output_size)}")
        chosen = []
        for d, size in enumerate(wanted):
            n = input.shape[input.ndim - dims + d]
            least = ((n - 1) * self.stride[d] - 2 * int(self.padding[d])
                     + self.dilation[d] * (self.kernel_size[d] - 1) + 1)
            if not least <= size < least + self.stride[d]:
                raise ShapeError(f"{type(self).__name__}: output_size {wanted} is out of reach; in "
                                 f"dimension {d} it can be {least} to "
                                 f"{least + self.stride[d] - 1} for input {tuple(input.shape)}")
            chosen.append(size - least)
        return tuple(chosen)

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        output_padding = (self.output_padding if output_size is None
                          else self._output_padding(input, output_size))
        padding: Any = self.padding
        convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self._spatial - 1]
        return convolve(input, self.weight, self.bias, self.stride, padding, output_padding,
                        self.groups, self.dilation)


class ConvTranspose1d(_TransposedConv):
    __doc__ = "(n, c, length) or (c, length). " + (_TransposedConv.__doc__ or "")
    _spatial = 1


class ConvTranspose2d(_TransposedConv):
    __doc__ = "(n, c, h, w) or (c, h, w). " + (_TransposedConv.__doc__ or "")
    _spatial = 2


class ConvTranspose3d(_TransposedConv):
    __doc__ = "(n, c, d, h, w) or (c, d, h, w). " + (_TransposedConv.__doc__ or "")
    _spatial = 3
