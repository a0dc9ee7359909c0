"""Convolutions: conv1d/2d/3d and conv_transpose1d/2d/3d, to any order of derivative.

Convolution is linear in the input and in the weight, so its two adjoints close the family: with
`Windows` for the geometry, x on the large grid and y on the small one,
    Convolve(x, w) = y        ConvolveTranspose(y, w) = x        ConvolveWeight(x, y) = w
have each other as derivatives.  On the CPU each is a GEMM over blocks of unfolded columns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cpu.runtime import empty, zeros
from mlgpu.cuda import conv as cuda_conv
from mlgpu.dtypes import compute_dtype, from_numpy
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.window import (
    Array,
    Block,
    Columns,
    Size,
    Windows,
    Workspace,
    blocks,
    per_axis,
)
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
        out = empty((len(x), len(weight), *self.windows.small), x.dtype)
        to_small(x, computed(weight), computed(bias), self.windows, self.groups, out)
        return out

    def forward_cuda(self, x: Array, weight: Array, bias: Array | None = None) -> Array:
        return cuda_conv.to_small(x, weight, bias, self.windows, self.groups)

    def backward(self, dy: Tensor) -> Gradients:
        win, groups = self.windows, self.groups
        return (
            run(ConvolveTranspose(win, groups), dy, conj(self.input(1))) if self.needs[0] else None,
            run(ConvolveWeight(win, groups), conj(self.input(0)), dy) if self.needs[1] else None,
            bias_gradient(dy) if any(self.needs[2:]) else None,
        )[:len(self.needs)]


class ConvolveTranspose(Op):
    """Each y[n, o, p] weight[o, c, tap], summed over o into what p sees by tap; plus bias[c]."""

    def __init__(self, windows: Windows, groups: int) -> None:
        self.windows = windows
        self.groups = groups

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, y: Array, weight: Array, bias: Array | None = None) -> Array:
        out = empty((len(y), weight.shape[1] * self.groups, *self.windows.large), y.dtype)
        to_large(y, computed(weight), computed(bias), self.windows, self.groups, out)
        return out

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
        shape = (y.shape[1], x.shape[1] // self.groups, *self.windows.kernel)
        total = zeros(shape, compute_dtype(from_numpy(x.dtype)).numpy)
        to_weight(x, y, self.windows, self.groups, total)
        return packed(total, x.dtype)

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


def bias_gradient(dy: Tensor) -> Tensor:
    return dy.sum((0, *range(2, dy.ndim)))


# --- on arrays -----------------------------------------------------------------------------------
# Weights are (small channels, large channels / groups, *kernel), PyTorch's layout both ways round,
# in the dtype to compute in; x is (N, C, *large) and y (N, O, *small), in any dtype and strides.

def computed(array: Array | None) -> Any:
    """The array contiguous and in the dtype to compute in."""
    return None if array is None else packed(array, compute_dtype(from_numpy(array.dtype)).numpy)


def packed(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array contiguous and in `dtype`; itself where it is so already."""
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    out = empty(array.shape, dtype)
    np.copyto(out, array, casting="unsafe")
    return out


def to_small(x: Array, weight: Array, bias: Array | None, win: Windows, groups: int,
             out: Array) -> None:
    """Convolve by the cheaper way: what is unfolded should have few channels."""
    if win.pointwise and x.dtype == weight.dtype and x.flags.c_contiguous:
        multiply_channels(x, weight, bias, groups, out)
    elif win.dense and x.shape[1] > 2 * weight.shape[0]:
        spread(x, mirror(weight, groups), bias, win.mirrored(), groups, out)
    else:
        gather(x, weight, bias, win, groups, out)


def to_large(y: Array, weight: Array, bias: Array | None, win: Windows, groups: int,
             out: Array) -> None:
    """ConvolveTranspose; on dense maps it is a convolution with the mirrored weight."""
    if win.dense:
        to_small(y, mirror(weight, groups), bias, win.mirrored(), groups, out)
    else:
        spread(y, weight, bias, win, groups, out)


def to_weight(x: Array, y: Array, win: Windows, groups: int, total: Array) -> None:
    """ConvolveWeight, added to `total`; unfolds x, or y where that has far fewer channels."""
    if win.dense and x.shape[1] > 2 * y.shape[1]:
        mirrored = zeros((x.shape[1], y.shape[1] // groups, *win.kernel), total.dtype)
        weigh(y, x, win.mirrored(), groups, mirrored)
        np.copyto(total, mirror(mirrored, groups))
    else:
        weigh(x, y, win, groups, total)


def mirror(weight: Array, groups: int) -> Array:
    """The weight of the same dense map read from the large grid: roles swapped, taps reversed."""
    small, large, *kernel = weight.shape
    out = empty((groups, large, small // groups, *kernel), weight.dtype)
    split = weight.reshape(groups, small // groups, large, *kernel)
    np.copyto(out, np.flip(split, tuple(range(3, split.ndim))).swapaxes(1, 2))
    return out.reshape(groups * large, small // groups, *kernel)


def multiply_channels(x: Array, weight: Array, bias: Array | None, groups: int,
                      out: Array) -> None:
    """The pointwise convolution: matrix products on the images as they lie."""
    images, size = len(x), math.prod(x.shape[2:])
    matrix = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1])
    np.matmul(matrix, x.reshape(images, groups, weight.shape[1], size),
              out=out.reshape(images, *matrix.shape[:2], size))
    if bias is not None:
        np.add(out, bias.reshape(-1, *(1,) * (x.ndim - 2)), out=out)


def deliver(target: Array, source: Array, bias: Array | None) -> None:
    """target (N, C, *sizes) = source (C, N, *sizes, possibly longer) + bias, rounded once."""
    source = source[..., :target.shape[-1]].swapaxes(0, 1)
    if bias is None:
        np.copyto(target, source, casting="unsafe")
    else:
        bias = bias.reshape(-1, *(1,) * (target.ndim - 2))
        np.add(source, bias, out=target, casting="unsafe")


def gather(x: Array, weight: Array, bias: Array | None, win: Windows, groups: int,
           out: Array) -> None:
    """Large to small: unfold the input (im2col), then one GEMM per block."""
    dtype, channels = weight.dtype, weight.shape[0]
    matrix = weight.reshape(groups, channels // groups, weight[0].size)
    columns, product = Columns(x, win, dtype), Workspace(dtype)
    for block in blocks((len(x), *win.small), position_bytes(weight, groups)):
        cols = columns.unfold(block)
        y = product.take((channels, *cols.shape[1 + len(win.kernel):]))
        size = y[0].size
        np.matmul(matrix, cols.reshape(groups, matrix.shape[2], size),
                  out=y.reshape(*matrix.shape[:2], size))
        deliver(out[block.in_channels], y, bias)


def spread(y: Array, weight: Array, bias: Array | None, win: Windows, groups: int,
           out: Array) -> None:
    """Small to large: one GEMM per block, then add each tap's product in its place (col2im)."""
    dtype, channels = weight.dtype, weight.shape[1] * groups
    matrix = weight.reshape(groups, weight.shape[0] // groups, weight[0].size).swapaxes(1, 2)
    small, product, total = Workspace(dtype), Workspace(dtype), Workspace(dtype)
    cut = blocks((len(y), *win.small), position_bytes(weight, groups))
    for (start, stop), parts in itertools.groupby(cut, lambda b: (b.start[0], b.stop[0])):
        large = total.take((channels, stop - start, *win.large))
        large.fill(0)
        for block in parts:
            part = small.take((y.shape[1], *block.shape))
            np.copyto(part, y[block.in_channels].swapaxes(0, 1), casting="unsafe")
            columns = product.take((channels, *win.kernel, *block.shape))
            # NumPy has no GEMM for outer products, the case of depthwise convolution.
            multiply = np.multiply if matrix.shape[2] == 1 else np.matmul
            size = part[0].size
            multiply(matrix, part.reshape(groups, matrix.shape[2], size),
                     out=columns.reshape(*matrix.shape[:2], size))
            add_taps(large, columns, win, block)
        deliver(out[start:stop], large, bias)


def add_taps(large: Array, columns: Array, win: Windows, block: Block) -> None:
    """Add columns (C, *kernel, N, *positions) to what they see in large (C, N, *large)."""
    both = (slice(None), slice(None))
    for tap in win.taps():
        places = win.tap_slices(tap, block.start[1:], block.stop[1:])
        if places is not None:
            seen, elements = places
            into = large[both + elements]
            np.add(into, columns[(slice(None), *tap)][both + seen], out=into)


def weigh(x: Array, y: Array, win: Windows, groups: int, out: Array) -> None:
    """Fill out (O, C / groups, *kernel) by GEMMs of the columns of x with y."""
    dtype, channels = out.dtype, out.shape[0] // groups
    columns, small, product = Columns(x, win, dtype), Workspace(dtype), Workspace(dtype)
    total = zeros((groups, out[0].size, channels), dtype)
    for block in blocks((len(x), *win.small), position_bytes(out, groups)):
        cols = columns.unfold(block)
        part = small.take((y.shape[1], *cols.shape[1 + len(win.kernel):]))
        width = block.shape[-1]
        part[..., width:] = 0  # columns that mean nothing count for nothing
        np.copyto(part[..., :width], y[block.in_channels].swapaxes(0, 1), casting="unsafe")
        term = product.take(total.shape)
        # Measured a fifth faster than its transpose, y by the columns.
        size = part[0].size
        np.matmul(cols.reshape(groups, total.shape[1], size),
                  part.reshape(groups, channels, size).swapaxes(1, 2), out=term)
        np.add(total, term, out=total)
    np.copyto(out.reshape(groups, channels, total.shape[1]), total.swapaxes(1, 2))


def position_bytes(weight: Array, groups: int) -> int:
    """Bytes per position of a block: its columns and its product."""
    return int((weight[0].size * groups + weight.shape[0]) * weight.itemsize)


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
