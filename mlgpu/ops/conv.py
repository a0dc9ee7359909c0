"""Convolutions: conv1d/2d/3d and conv_transpose1d/2d/3d, to any order of derivative.

Convolution is linear in the input and in the weight, so its two adjoints close the family: with
`Windows` for the geometry, x on the large grid and y on the small one,
    Convolve(x, w) = y        ConvolveTranspose(y, w) = x        ConvolveWeight(x, y) = w
have each other as derivatives.  `mlgpu.cpu.conv` computes them on the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlgpu.cpu import conv as cpu_conv
from mlgpu.cuda import conv as cuda_conv
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.window import Array, Size, Windows, per_axis
from mlgpu.tensor import Tensor

__all__ = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
           "conv_transpose3d"]

Gradients = tuple[Tensor | None, ...]


# --- operations ----------------------------------------------------------------------------------

class Convolve(Op):
    """y[n, o, p] = bias[o] + sum over c, tap of weight[o, c, tap] x[n, c, what p sees by tap]."""

    def __init__(self, windows: Windows, groups: int) -> None:
        self.windows = windows
        self.groups = groups

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return cpu_conv.to_small(x, weight, bias, self.windows, self.groups)

    def forward_cuda(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return cuda_conv.to_small(x, weight, bias, self.windows, self.groups)

    def backward(self, dy: Tensor) -> Gradients:
        win, groups = self.windows, self.groups
        return (
            run(ConvolveTranspose(win, groups), dy, conj(self.input(1))) if self.needs[0] else None,
            run(ConvolveWeight(win, groups), conj(self.input(0)), dy) if self.needs[1] else None,
            bias_gradient(dy) if any(self.needs[2:]) else None,
        )[:len(self.needs)]

    def backward_cpu(self, dy: Array) -> tuple[Array | None, ...]:
        win, groups = self.windows, self.groups
        wants_bias = any(self.needs[2:])
        dx = dw = db = None
        if self.needs[0]:
            dx = cpu_conv.to_large(dy, conjugate(self.input_array(1)), None, win, groups)
        if self.needs[1]:
            x = conjugate(self.input_array(0))
            dw, db = cpu_conv.to_weight(x, dy, win, groups, wants_bias)
        elif wants_bias:
            db = cpu_conv.channel_sums(dy)
        return (dx, dw, db)[:len(self.needs)]


class ConvolveTranspose(Op):
    """Each y[n, o, p] weight[o, c, tap], summed over o into what p sees by tap; plus bias[c]."""

    def __init__(self, windows: Windows, groups: int) -> None:
        self.windows = windows
        self.groups = groups

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, y: Array, weight: Array, bias: Array | None = None) -> Array:
        return cpu_conv.to_large(y, weight, bias, self.windows, self.groups)

    def forward_cuda(self, y: Array, weight: Array, bias: Array | None = None) -> Array:
        return cuda_conv.to_large(y, weight, bias, self.windows, self.groups)

    def backward(self, dx: Tensor) -> Gradients:
        win, groups = self.windows, self.groups
        return (
            run(Convolve(win, groups), dx, conj(self.input(1))) if self.needs[0] else None,
            run(ConvolveWeight(win, groups), dx, conj(self.input(0))) if self.needs[1] else None,
            bias_gradient(dx) if any(self.needs[2:]) else None,
        )[:len(self.needs)]


class ConvolveWeight(Op):
    """weight[o, c, tap] = sum over n, p of y[n, o, p] x[n, c, what p sees by tap]."""

    def __init__(self, windows: Windows, groups: int) -> None:
        self.windows = windows
        self.groups = groups

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, x: Array, y: Array) -> Array:
        return cpu_conv.to_weight(x, y, self.windows, self.groups, False)[0]

    def forward_cuda(self, x: Array, y: Array) -> Array:
        return cuda_conv.to_weight(x, y, self.windows, self.groups)

    def backward(self, dw: Tensor) -> Gradients:
        win, groups = self.windows, self.groups
        return (
            run(ConvolveTranspose(win, groups), conj(self.input(1)), dw) if self.needs[0] else None,
            run(Convolve(win, groups), conj(self.input(0)), dw) if self.needs[1] else None,
        )


def conj(t: Tensor) -> Tensor:
    return t.conj() if t.dtype.is_complex else t


def conjugate(array: Array) -> Array:
    return np.conj(array) if array.dtype.kind == "c" else array


def bias_gradient(dy: Tensor) -> Tensor:
    return dy.sum((0, *range(2, dy.ndim)))


# --- functions -----------------------------------------------------------------------------------


def conv1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
           padding: Size | str = 0, dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of input (N, C, L) or (C, L) with weight (O, C / groups, K).

    padding: zeros on both sides, or "valid" (none), or "same" (the output has the input's size).
    Raises ShapeError for sizes that do not fit, DTypeError for bool or unequal dtypes.
    """
    return convolution("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
           padding: Size | str = 0, dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of input (N, C, H, W) or (C, H, W) with weight (O, C / groups, kH, kW).

    padding: zeros on both sides, or "valid" (none), or "same" (the output has the input's size).
    Raises ShapeError for sizes that do not fit, DTypeError for bool or unequal dtypes.
    """
    return convolution("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
           padding: Size | str = 0, dilation: Size = 1, groups: int = 1) -> Tensor:
    """Cross-correlation of input (N, C, D, H, W) with weight (O, C / groups, kD, kH, kW).

    padding: zeros on both sides, or "valid" (none), or "same" (the output has the input's size).
    Raises ShapeError for sizes that do not fit, DTypeError for bool or unequal dtypes.
    """
    return convolution("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
                     padding: Size = 0, output_padding: Size = 0, groups: int = 1,
                     dilation: Size = 1) -> Tensor:
    """The adjoint of `conv1d` in its input: input (N, C, L), weight (C, O / groups, K).

    Raises ShapeError for sizes that do not fit, DTypeError for bool or unequal dtypes.
    """
    return transposed("conv_transpose1d", 1, input, weight, bias, stride, padding,
                      output_padding, groups, dilation)


def conv_transpose2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
                     padding: Size = 0, output_padding: Size = 0, groups: int = 1,
                     dilation: Size = 1) -> Tensor:
    """The adjoint of `conv2d` in its input: input (N, C, H, W), weight (C, O / groups, kH, kW).

    Raises ShapeError for sizes that do not fit, DTypeError for bool or unequal dtypes.
    """
    return transposed("conv_transpose2d", 2, input, weight, bias, stride, padding,
                      output_padding, groups, dilation)


def conv_transpose3d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1,
                     padding: Size = 0, output_padding: Size = 0, groups: int = 1,
                     dilation: Size = 1) -> Tensor:
    """The adjoint of `conv3d` in its input; weight (C, O / groups, kD, kH, kW).

    Raises ShapeError for sizes that do not fit, DTypeError for bool or unequal dtypes.
    """
    return transposed("conv_transpose3d", 3, input, weight, bias, stride, padding,
                      output_padding, groups, dilation)


def convolution(name: str, axes: int, input: Tensor, weight: Tensor, bias: Tensor | None,
                stride: Size, padding: Size | str, dilation: Size, groups: int) -> Tensor:
    check_operands(name, axes, input, weight, bias, groups, input_channels=1, bias_channels=0)
    steps = per_axis(name, "stride", stride, axes, 1)
    spread_by = per_axis(name, "dilation", dilation, axes, 1)
    kernel, large = tuple(weight.shape[2:]), tuple(input.shape[-axes:])
    reach = [d * (k - 1) for d, k in zip(spread_by, kernel, strict=True)]
    if isinstance(padding, str):
        total = padding_total(name, padding, reach, steps)
        before = tuple(p // 2 for p in total)
    else:
        before = per_axis(name, "padding", padding, axes, 0)
        total = [2 * p for p in before]
    padded = [n + p for n, p in zip(large, total, strict=True)]
    if any(n <= r for n, r in zip(padded, reach, strict=True)):
        raise ShapeError(f"{name}: the kernel must fit into the padded input of {tuple(padded)}, "
                         f"got one that spans {tuple(r + 1 for r in reach)}; pad more")
    small = tuple((n - r - 1) // s + 1 for n, r, s in zip(padded, reach, steps, strict=True))
    op = Convolve(Windows(large, small, kernel, steps, spread_by, before), groups)
    return apply(op, axes, input, weight, bias)


def transposed(name: str, axes: int, input: Tensor, weight: Tensor, bias: Tensor | None,
               stride: Size, padding: Size, output_padding: Size, groups: int,
               dilation: Size) -> Tensor:
    check_operands(name, axes, input, weight, bias, groups, input_channels=0, bias_channels=1)
    steps = per_axis(name, "stride", stride, axes, 1)
    spread_by = per_axis(name, "dilation", dilation, axes, 1)
    before = per_axis(name, "padding", padding, axes, 0)
    extra = per_axis(name, "output_padding", output_padding, axes, 0)
    if any(e >= max(s, d) for e, s, d in zip(extra, steps, spread_by, strict=True)):
        raise ShapeError(f"{name}: output_padding must be smaller than stride or dilation, got "
                         f"output_padding {extra}, stride {steps}, dilation {spread_by}")
    kernel, small = tuple(weight.shape[2:]), tuple(input.shape[-axes:])
    sizes = zip(small, steps, before, spread_by, kernel, extra, strict=True)
    large = tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, s, p, d, k, e in sizes)
    if min(large) <= 0:
        raise ShapeError(f"{name}: the output size must be positive, got {large}; pad less")
    op = ConvolveTranspose(Windows(large, small, kernel, steps, spread_by, before), groups)
    return apply(op, axes, input, weight, bias)


def apply(op: Op, axes: int, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    batched = input if input.ndim == axes + 2 else input.unsqueeze(0)
    y: Tensor = run(op, batched, weight) if bias is None else run(op, batched, weight, bias)
    return y if batched is input else y.squeeze(0)


def padding_total(name: str, padding: str, reach: Sequence[int],
                  stride: Sequence[int]) -> Sequence[int]:
    """The zeros on both sides together that a padding given by name means."""
    if padding == "valid":
        return [0] * len(reach)
    if padding != "same":
        raise ShapeError(f"{name}: padding must be 'valid', 'same' or sizes, got {padding!r}")
    if any(s != 1 for s in stride):
        raise ShapeError(f"{name}: padding='same' needs stride 1, got {tuple(stride)}")
    return reach


def check_operands(name: str, axes: int, input: Tensor, weight: Tensor, bias: Tensor | None,
                   groups: int, input_channels: int, bias_channels: int) -> None:
    """Ranks, channels and dtypes; the last two say which weight axis counts which channels."""
    if input.ndim not in (axes + 1, axes + 2) or weight.ndim != axes + 2:
        raise ShapeError(f"{name}: input must have {axes + 2} dimensions ({axes + 1} unbatched), "
                         f"weight {axes + 2}, got {tuple(input.shape)} and {tuple(weight.shape)}")
    if groups < 1 or weight.shape[0] % groups or not weight.shape[0]:
        raise ShapeError(f"{name}: weight must have a positive multiple of groups={groups} "
                         f"(at least 1) in dimension 0, got {tuple(weight.shape)}")
    channels = [weight.shape[0], weight.shape[1] * groups]
    if input.shape[-axes - 1] != channels[input_channels]:
        raise ShapeError(f"{name}: weight {tuple(weight.shape)} with groups={groups} needs "
                         f"{channels[input_channels]} input channels, got {tuple(input.shape)}")
    if not all(input.shape[-axes:]) or not all(weight.shape[2:]):
        raise ShapeError(f"{name}: only the batch or the channels may be empty, got input "
                         f"{tuple(input.shape)} and weight {tuple(weight.shape)}")
    if bias is not None and tuple(bias.shape) != (channels[bias_channels],):
        raise ShapeError(f"{name}: bias must be ({channels[bias_channels]},), "
                         f"got {tuple(bias.shape)}")
    for what, operand in (("weight", weight), ("bias", bias)):
        if operand is not None and operand.dtype is not input.dtype:
            raise DTypeError(f"{name}: {what} must have the input's dtype {input.dtype}, "
                             f"got {operand.dtype}; convert one with .to()")
    if input.dtype.kind == "bool":
        raise DTypeError(f"{name}: not defined for {input.dtype}; convert with .to()")
