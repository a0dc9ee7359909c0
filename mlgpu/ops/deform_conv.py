"""Convolution whose taps lie where offsets say (Dai et al. 2017; modulated, Zhu et al. 2019)."""

from __future__ import annotations

from typing import Any

from mlgpu.autograd import enable_grad, grad
from mlgpu.cpu import deform_conv as cpu_deform_conv
from mlgpu.cuda import deform_conv as cuda_deform_conv
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.creation import arange
from mlgpu.ops.grid_sample import grid_sample
from mlgpu.ops.join import stack
from mlgpu.ops.window import Deformed, Windows
from mlgpu.tensor import Tensor

__all__ = ["deform_conv2d"]

Pair = int | tuple[int, int]


class DeformConvolve(Op):
    """conv2d of what lies at moved taps: x, offset, weight, then mask and bias where there are.

    Only the inputs are kept.
    """

    name = "deform_conv2d"

    def __init__(self, how: Deformed, masked: bool) -> None:
        self.how = how
        self.masked = masked

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0, 1, 2, 3) if self.masked else (0, 1, 2)

    def forward(self, x: Any, offset: Any, weight: Any, *rest: Any) -> Any:
        return cpu_deform_conv.forward(x, offset, weight, *self._rest(rest), self.how)

    def forward_cuda(self, x: Any, offset: Any, weight: Any, *rest: Any) -> Any:
        return cuda_deform_conv.forward(x, offset, weight, *self._rest(rest), self.how)

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        return self._gradients(cpu_deform_conv.backward, dy)

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        return self._gradients(cuda_deform_conv.backward, dy)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients by Tensor operations, for derivatives of them, as far as they have any."""
        known = [self.input(i) for i in self.keeps(self.needs)]
        # Views, so that the walk ends at them and not at what made the inputs.
        inputs = [x.view(x.shape) if need else x
                  for x, need in zip(known, self.needs, strict=False)]
        x, offset, weight, *rest = inputs
        with enable_grad():
            result = _composed(x, offset, weight, rest[0] if rest else None, self.how)
            wanted = [x for x, need in zip(inputs, self.needs, strict=False) if need]
            found = iter(grad([result], wanted, [dy], create_graph=True) if wanted else ())
        gradients = [next(found) if need else None
                     for _, need in zip(inputs, self.needs, strict=False)]
        if len(self.needs) > len(inputs):
            gradients.append(dy.sum((0, 2, 3)) if self.needs[-1] else None)
        return tuple(gradients)

    def _rest(self, rest: tuple[Any, ...]) -> tuple[Any, Any]:
        """The mask and the bias, None where there is none."""
        mask = rest[0] if self.masked else None
        bias = rest[-1] if len(rest) > self.masked else None
        return mask, bias

    def _gradients(self, function: Any, dy: Any) -> tuple[Any, ...]:
        x, offset, weight = (self.input_array(i) for i in range(3))
        mask = self.input_array(3) if self.masked else None
        x_offset_weight, (of_mask, of_bias) = self.needs[:3], self._rest(self.needs[3:])
        needs = (*x_offset_weight, bool(of_mask), bool(of_bias))
        *found, dmask, dbias = function(dy, x, offset, weight, mask, self.how, needs)
        rest = [dmask] if self.masked else []
        return (*found, *rest, dbias)[:len(self.needs)]


def deform_conv2d(input: Tensor, offset: Tensor, weight: Tensor, bias: Tensor | None = None,
                  stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1,
                  mask: Tensor | None = None) -> Tensor:
    """conv2d that samples `input` bilinearly at each tap's place plus its offset, times its mask.

    input (n, c, h, w), weight (out, c / groups, kh, kw), offset (n, 2 * parts * kh * kw, oh, ow) as
    (y, x) of each tap, mask (n, parts * kh * kw, oh, ow): `parts` parts of the channels have
    offsets of their own.  Outside the image there is 0.  As torchvision.ops.deform_conv2d: groups
    and parts follow from the sizes; the same bits every time.  Sampled columns exist for some
    places or images at a time, forward and backward.  Derivatives of the gradients are those that
    `grid_sample` has.  Raises ShapeError for sizes that do not fit, DTypeError for unequal dtypes.
    """
    stride, padding, dilation = (_pair(x) for x in (stride, padding, dilation))
    groups, parts, out = _sizes(input, offset, weight, stride, padding, dilation, mask)
    if not input.is_floating_point():
        raise DTypeError(f"deform_conv2d: input must be floating, got {input.dtype.name}")
    for name, other in (("offset", offset), ("weight", weight), ("mask", mask), ("bias", bias)):
        if other is not None and other.dtype is not input.dtype:
            raise DTypeError(f"deform_conv2d: {name} must have the input's dtype "
                             f"{input.dtype.name}, got {other.dtype.name}; convert one with .to()")
    if bias is not None and tuple(bias.shape) != (len(weight),):
        raise ShapeError(f"deform_conv2d: bias must be ({len(weight)},), got {tuple(bias.shape)}")
    windows = Windows(tuple(input.shape[2:]), out, tuple(weight.shape[2:]), stride, dilation,
                      padding)
    op = DeformConvolve(Deformed(windows, groups, parts), mask is not None)
    rest = [x for x in (mask, bias) if x is not None]
    return run(op, input, offset, weight, *rest)  # type: ignore[no-any-return]


def _composed(input: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None, how: Deformed
              ) -> Tensor:
    """The same of other operations, without a bias."""
    n, channels, height, width = input.shape
    out = how.windows.small
    parts, groups, taps, places = how.parts, how.groups, how.taps, how.places
    place = offset.reshape(n, parts, taps, 2, *out)
    y, x = (place[:, :, :, axis] + _taps(how.windows, axis, offset) for axis in (0, 1))
    # As grid_sample measures: -1 and 1 are the image's edges, half an element off the centres.
    grid = stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1)
    sampled = grid_sample(input.reshape(n * parts, channels // parts, height, width),
                          grid.reshape(n * parts, taps, places, 2), align_corners=False)
    if mask is not None:
        sampled = sampled * mask.reshape(n * parts, 1, taps, places)
    taken = sampled.reshape(n, groups, channels // groups * taps, places)
    kernel = weight.reshape(groups, len(weight) // groups, -1)
    return (kernel @ taken).reshape(n, len(weight), *out)


def _taps(windows: Windows, axis: int, like: Tensor) -> Tensor:
    """The places of all taps along an axis, as (kh * kw, oh, ow) broadcasts to."""
    kh, kw = windows.kernel
    taps = arange((kh, kw)[axis], dtype=like.dtype, device=like.device) * windows.dilation[axis]
    starts = arange(windows.small[axis], dtype=like.dtype, device=like.device)
    starts = starts * windows.stride[axis] - windows.before[axis]
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
    if 0 in size or 0 in weight.shape[2:]:
        raise ShapeError("deform_conv2d: only the batch may be empty, got input "
                         f"{tuple(input.shape)} and weight {tuple(weight.shape)}")
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
