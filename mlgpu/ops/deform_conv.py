"""Convolution whose taps lie where offsets say (Dai et al. 2017; modulated, Zhu et al. 2019)."""

from __future__ import annotations

from mlgpu.errors import ShapeError
from mlgpu.ops.creation import arange
from mlgpu.ops.grid_sample import grid_sample
from mlgpu.ops.join import stack
from mlgpu.tensor import Tensor

__all__ = ["deform_conv2d"]

Pair = int | tuple[int, int]


def deform_conv2d(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None,
                  stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
                  mask: Tensor | None = None) -> Tensor:
    """conv2d that samples `input` bilinearly at each tap's place plus its offset, times its mask.

    input (n, c, h, w), weight (out, c / groups, kh, kw), offset (n, 2 * parts * kh * kw, oh, ow) as
    (y, x) of each tap, mask (n, parts * kh * kw, oh, ow): `parts` parts of the channels have
    offsets of their own.  Outside the image there is 0.  As torchvision.ops.deform_conv2d: groups
    and parts follow from the sizes.  Raises ShapeError for sizes that do not fit.
    """
    stride, padding, dilation = (_pair(x) for x in (stride, padding, dilation))
    groups, parts, out = _sizes(input, offset, weight, stride, padding, dilation, mask)
    n, channels, height, width = input.shape
    kh, kw = weight.shape[2:]
    place = offset.reshape(n, parts, kh * kw, 2, *out)
    rows = _taps(kh, kw, dilation[0], stride[0], padding[0], out, 0, offset)
    columns = _taps(kh, kw, dilation[1], stride[1], padding[1], out, 1, offset)
    y, x = place[:, :, :, 0] + rows, place[:, :, :, 1] + columns
    # As grid_sample measures: -1 and 1 are the image's edges, half an element off the centres.
    grid = stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    sampled = grid_sample(input.reshape(n * parts, channels // parts, height, width),
                          grid.reshape(n * parts, kh * kw, out[0] * out[1], 2),
                          align_corners=False)
    if mask is not None:
        sampled = sampled * mask.reshape(n * parts, 1, kh * kw, out[0] * out[1])
    taken = sampled.reshape(n, groups, channels // groups * kh * kw, out[0] * out[1])
    kernel = weight.reshape(groups, len(weight) // groups, -1)
    result = (kernel @ taken).reshape(n, len(weight), *out)
    return result if bias is None else result + bias[:, None, None]


def _taps(kh: int, kw: int, dilation: int, stride: int, padding: int, out: tuple[int, int],
          axis: int, like: Tensor) -> Tensor:
    """The places of all taps along an axis, as (kh * kw, oh, ow) broadcasts to."""
    taps = arange((kh, kw)[axis], dtype=like.dtype, device=like.device) * dilation
    starts = arange(out[axis], dtype=like.dtype, device=like.device) * stride - padding
    if axis == 0:
        return taps.repeat_interleave(kw)[:, None, None] + starts[:, None]
    return taps.repeat(kh)[:, None, None] + starts


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _sizes(input: Tensor, offset: Tensor, weight: Tensor, stride: tuple[int, int],
           padding: tuple[int, int], dilation: tuple[int, int], mask: Tensor | None
           ) -> tuple[int, int, tuple[int, int]]:
    """Groups, parts and the output's size; ShapeError for what does not fit."""
    if input.ndim != 4 or weight.ndim != 4 or offset.ndim != 4:
        raise ShapeError("deform_conv2d: input, weight and offset must have 4 dimensions, got "
                         f"{tuple(input.shape)}, {tuple(weight.shape)} and {tuple(offset.shape)}")
    n, channels, *size = input.shape
    taps = weight.shape[2] * weight.shape[3]
    if weight.shape[1] == 0 or channels % weight.shape[1]:
        raise ShapeError(f"deform_conv2d: {channels} channels are no multiple of the weight's "
                         f"{weight.shape[1]}")
    groups = channels // weight.shape[1]
    parts = offset.shape[1] // (2 * taps)
    out = tuple((s + 2 * p - d * (k - 1) - 1) // t + 1 for s, p, d, k, t in zip(
        size, padding, dilation, weight.shape[2:], stride, strict=True))
    wanted = (n, 2 * parts * taps, *out)
    if parts == 0 or channels % parts or tuple(offset.shape) != wanted or len(weight) % groups:
        raise ShapeError(f"deform_conv2d: offset must be ({n}, 2 * parts * {taps}, {out[0]}, "
                         f"{out[1]}) with parts that divide {channels} channels, and {groups} "
                         f"groups divide {len(weight)} outputs; got {tuple(offset.shape)}")
    if mask is not None and tuple(mask.shape) != (n, parts * taps, *out):
        raise ShapeError(f"deform_conv2d: mask must be {(n, parts * taps, *out)}, got "
                         f"{tuple(mask.shape)}")
    return groups, parts, (out[0], out[1])
