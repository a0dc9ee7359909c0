"""Normalisation over the values of one example: layer_norm, rms_norm, group_norm.

Statistics are kept in float32 for the half types.  The fast gradients read their inputs once, in
blocks of rows; the differentiable ones recompute the statistics with Tensor operations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import fast
from mlgpu.cpu.gemm import cast, contiguous, widen
from mlgpu.cpu.rows import LONG, each_block, partial_sums, sums, wide, with_more
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import group_norm as cuda_group_norm
from mlgpu.cuda import norm as cuda_norm
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.tensor import Tensor

__all__ = ["add_layer_norm", "add_rms_norm", "group_norm", "layer_norm", "rms_norm"]


class LayerNorm(Op):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last `ndim` dimensions."""

    centered = True
    first = 1  # the place of the parameters among the inputs

    def __init__(self, ndim: int, eps: float) -> None:
        self.ndim = ndim
        self.eps = eps

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0, 1) if len(needs) > 1 else (0,)

    def _rows(self, x: Any) -> Any:
        split = x.ndim - self.ndim
        return contiguous(x).reshape(math.prod(x.shape[:split]), math.prod(x.shape[split:]))

    def _normalized(self) -> Tensor:
        """What was normalised, in its place in the graph."""
        return self.input(0)

    def _normalized_array(self) -> Any:
        return self.input_array(0)

    def _weight_array(self) -> Any:
        return self.input_array(self.first) if len(self.needs) > self.first else None

    def forward(self, x: Any, weight: Any = None, bias: Any = None) -> Any:
        out = empty(x.shape, x.dtype)
        rows = self._rows(out)
        n = rows.shape[1]
        stats = empty((2, len(rows), 1), wide(x.dtype))
        scale = None if weight is None else widen(weight).reshape(n)
        shift = None if bias is None else widen(bias).reshape(n)

        affine = [v for v in (scale, shift) if v is not None]

        def block(y: Any, x: Any, mean: Any, rstd: Any, *scratch: Any) -> None:
            variance = np.vecdot(x, x)[:, None] / n
            if not self.centered:
                np.reciprocal(np.sqrt(variance + self.eps), out=rstd)
                _scaled(x, rstd, scale, y)
                return
            np.divide(sums(x), n, out=mean)
            variance -= mean * mean
            np.reciprocal(np.sqrt(variance + self.eps), out=rstd)
            center, rest = _center(mean, rstd), mean
            if center is not None:
                x, rest = np.subtract(x, center, out=scratch[0]), mean - center
                variance = np.where(center == 0, variance, np.vecdot(x, x)[:, None] / n)
                np.reciprocal(np.sqrt(variance + self.eps), out=rstd)
            offset = -rest * rstd
            if n >= LONG:
                np.add(np.multiply(x, rstd, out=y), offset, out=y)
                for function, vector in zip((np.multiply, np.add), affine, strict=False):
                    function(y, vector, out=y)
                return
            _scaled(x, rstd, scale, y)
            if affine:  # offset * scale + shift, of all columns
                columns = (offset, np.ones_like(offset))[:len(affine)]
                offset = _outer(columns, affine, scratch[0])
            np.add(y, offset, out=y)

        loops = fast.load("norm", rows.size) if rows.size else None
        if loops is None:
            if rows.size:
                each_block(block, rows, self._rows(x), *stats, scratch=int(self.centered))
        else:
            form = with_more(loops.forward, _vector(scale, 1, n, stats.dtype),
                             _vector(shift, 0, n, stats.dtype), self.centered, self.eps,
                             loops.sends(rows))
            each_block(form, rows, self._rows(x), *stats, loop=True)
        self.stash(stats=stats)
        return out

    def forward_cuda(self, x: Any, weight: Any = None, bias: Any = None) -> Any:
        y, _, stats = cuda_norm.forward(x, self.ndim, weight, bias, self.eps, self.centered)
        self.stash(stats=stats)
        return y

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, dims = self._normalized(), tuple(range(-self.ndim, 0))
        x = x.to(dtypes.compute_dtype(x.dtype))
        dy = dy.to(x.dtype)
        if self.centered:
            x = x - x.mean(dims, keepdim=True)
        rstd = ((x * x).mean(dims, keepdim=True) + self.eps).rsqrt()
        x = x * rstd
        parameters = len(self.needs) - self.first
        g = dy * self.input(self.first) if parameters else dy
        dx = g - x * (g * x).mean(dims, keepdim=True)
        if self.centered:
            dx = dx - g.mean(dims, keepdim=True)
        return dx * rstd, *(dy * x, dy)[:parameters]

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        x = self._normalized_array()
        dx = empty(x.shape, x.dtype)
        rows = self._rows(dx)
        n, compute = rows.shape[1], wide(x.dtype)
        weight = self._weight_array()
        if weight is not None:
            weight = widen(weight).reshape(n)
        scale = _vector(weight, 1, n, compute)
        # Groups of blocks have sums of their own, for weight and bias.
        parts = () if weight is None else [
            partial_sums(rows.shape, (1, n), compute) for _ in range(2)]

        def block(dx: Any, dy: Any, x: Any, mean: Any, rstd: Any, product: Any, scratch: Any,
                  dweight: Any = None, dbias: Any = None) -> None:
            # dx = dy * rstd * scale + x * by_x + offset
            center = _center(mean, rstd) if self.centered else None
            if center is not None:
                x, mean = np.subtract(x, center, out=scratch), mean - center
            np.multiply(dy, x, out=product)
            along = (product @ scale)[:, None] / n
            if weight is not None:
                np.add(dweight, rstd.T @ product, out=dweight)
            if self.centered:
                alone = (dy @ scale)[:, None] / n
                along -= mean * alone
                if weight is not None:
                    of_mean, total = np.hstack([mean * rstd, np.ones_like(rstd)]).T @ dy
                    np.subtract(dweight, of_mean, out=dweight)
                    np.add(dbias, total, out=dbias)
            _scaled(dy, rstd, weight, dx)
            by_x = along * -rstd * rstd * rstd
            np.add(dx, np.multiply(x, by_x, out=product), out=dx)
            if self.centered:
                np.subtract(dx, alone * rstd + mean * by_x, out=dx)

        def compiled(*blocks: Any) -> None:
            *arrays, dweight, dbias = blocks if weight is not None else (*blocks, none, none)
            backward(*arrays, scale, dweight, dbias, self.centered, stream)

        if rows.size:
            loops, none = fast.load("norm", rows.size), np.empty((1, 0), compute)
            form, scratch = (block, 2) if loops is None else (compiled, 0)
            if loops is not None:
                backward, stream = loops.backward, loops.sends(rows)
            each_block(form, rows, self._rows(dy), self._rows(x), *self.stats, scratch=scratch,
                       parts=parts, last_first=True, loop=loops is not None)
        return dx, *self._parameter_gradients(*(part.sum(0) for part in parts))

    def _parameter_gradients(self, *gradients: Any) -> tuple[Any, ...]:
        return tuple(cast(grad, dtype).reshape(shape) for grad, (shape, dtype)
                     in zip(gradients, self._inputs_meta[self.first:], strict=False))

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        return self._gradients_cuda(dy)

    def _gradients_cuda(self, dy: Any, extra: Any = None) -> tuple[Any, ...]:
        """The gradients of what was normalised, with `extra` added, and of the parameters."""
        parameters = len(self.needs) - self.first
        gradients = cuda_norm.backward(dy, self._normalized_array(), self.ndim,
                                       self._weight_array(), self.stats, self.centered,
                                       parameters > 1, extra)
        return gradients[:1 + parameters]


def _center(mean: Any, rstd: Any) -> Any:
    """What to take from rows before anything else, one number each; None where that is 0 for all.

    It is the mean of a row so far from 0 that x * rstd - mean * rstd would lose digits.  A matter
    of this row alone, as its result is.
    """
    near = np.square(mean * rstd) <= 1
    return None if near.all() else np.where(near, mean.dtype.type(0), mean)


def _scaled(x: Any, rstd: Any, scale: Any, out: Any) -> None:
    """x * rstd * scale.  Of short rows, their product made by BLAS takes less than broadcasting."""
    if scale is None or x.shape[1] >= LONG:
        np.multiply(x, rstd, out=out)
        if scale is not None:
            np.multiply(out, scale, out=out)
    else:
        np.multiply(x, _outer((rstd,), (scale,), out), out=out)


def _outer(columns: Sequence[Any], vectors: Sequence[Any], out: Any) -> Any:
    """The sum of column * vector, for one or two of them, in `out`."""
    left, right = np.zeros((len(out), 2), out.dtype), np.zeros((2, out.shape[1]), out.dtype)
    for place, (column, vector) in enumerate(zip(columns, vectors, strict=True)):
        left[:, place], right[place] = column[:, 0], vector
    return np.matmul(left, right, out=out)  # of a single column NumPy makes it without BLAS


def _vector(values: Any, default: float, n: int, dtype: Any) -> Any:
    """Parameters, contiguous, or what stands for none."""
    return np.full(n, default, dtype) if values is None else contiguous(values)


class RmsNorm(LayerNorm):
    """x / sqrt(mean(x²) + eps) * weight over the last `ndim` dimensions."""

    centered = False


class AddLayerNorm(LayerNorm):
    """The sum of two inputs, and it normalised.  On CUDA each is read and written once."""

    first = 2
    saved_outputs = (0,)
    materialize = False

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (2,) if len(needs) > 2 else ()

    def _normalized(self) -> Tensor:
        return self.output(0)

    def _normalized_array(self) -> Any:
        return self.output_array(0)

    def forward(self, x: Any, residual: Any, *parameters: Any) -> Any:  # type: ignore[override]
        total = np.add(x, residual, out=empty(x.shape, x.dtype))
        return total, LayerNorm.forward(self, total, *parameters)

    def forward_cuda(self, x: Any, residual: Any, *parameters: Any) -> Any:  # type: ignore[override]
        weight, bias = (*parameters, None, None)[:2]
        y, total, stats = cuda_norm.forward(x, self.ndim, weight, bias, self.eps, self.centered,
                                            residual)
        self.stash(stats=stats)
        return total, y

    def backward(self, dtotal: Tensor | None, dy: Tensor | None  # type: ignore[override]
                 ) -> tuple[Tensor | None, ...]:
        if dy is None:
            return dtotal, dtotal, *(None for _ in self.needs[2:])
        dx, *rest = LayerNorm.backward(self, dy)
        if dtotal is not None and dx is not None:
            dx = dx + dtotal
        return dx, dx, *rest

    def backward_cpu(self, dtotal: Any, dy: Any) -> tuple[Any, ...]:  # type: ignore[override]
        if dy is None:
            return dtotal, dtotal, *(None for _ in self.needs[2:])
        dx, *rest = LayerNorm.backward_cpu(self, dy)
        if dtotal is not None:
            np.add(dx, dtotal, out=dx)
        return dx, dx, *rest

    def backward_cuda(self, dtotal: Any, dy: Any) -> tuple[Any, ...]:  # type: ignore[override]
        if dy is None:
            return dtotal, dtotal, *(None for _ in self.needs[2:])
        dx, *rest = self._gradients_cuda(dy, dtotal)
        return dx, dx, *rest


class AddRmsNorm(AddLayerNorm):
    """As `AddLayerNorm`, with RMS norm."""

    centered = False


class GroupNorm(Op):
    """As layer norm over each of `groups` of the channels (dimension 1), with all their positions.

    weight, bias: one value per channel.
    """

    def __init__(self, groups: int, eps: float) -> None:
        self.groups = groups
        self.eps = eps

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0, 1) if len(needs) > 1 else (0,)

    def _rows(self, x: Any) -> Any:
        count = x.shape[0] * self.groups
        return contiguous(x).reshape(count, math.prod(x.shape[1:]) // self.groups)

    def _channels(self, x: Any, values: Any) -> Any:
        """One value per channel as one per row and channel of its group."""
        per_group = x.shape[1] // self.groups
        values = widen(values).reshape(1, self.groups, per_group)
        return np.broadcast_to(values, (x.shape[0], self.groups, per_group)).reshape(-1, per_group)

    def forward(self, x: Any, weight: Any = None, bias: Any = None) -> Any:
        out = empty(x.shape, x.dtype)
        rows = self._rows(out)
        n, channels = rows.shape[1], x.shape[1] // self.groups
        stats = empty((2, len(rows), 1), wide(x.dtype))

        def block(y: Any, x: Any, mean: Any, rstd: Any, *affine: Any) -> None:
            np.divide(sums(x), n, out=mean)
            np.subtract(x, mean, out=y)
            np.reciprocal(np.sqrt(np.vecdot(y, y)[:, None] / n + self.eps), out=rstd)
            scale = affine[0] * rstd if affine else rstd
            y = y.reshape(len(y), channels, -1)
            np.multiply(y, _spread(scale, y), out=y)
            if bias is not None:
                np.add(y, _spread(affine[1], y), out=y)

        loops = fast.load("group_norm", rows.size) if rows.size else None
        if loops is not None:
            affine = [np.full((len(rows), channels), plain, stats.dtype) if v is None
                      else self._channels(x, v) for v, plain in ((weight, 1), (bias, 0))]
            each_block(with_more(loops.forward, self.eps), rows, self._rows(x), *stats, *affine,
                       loop=True)
        elif rows.size:
            affine = [self._channels(x, v) for v in (weight, bias) if v is not None]
            each_block(block, rows, self._rows(x), *stats, *affine)
        self.stash(stats=stats)
        return out

    def forward_cuda(self, x: Any, weight: Any = None, bias: Any = None) -> Any:
        y, mean, rstd = cuda_group_norm.forward(x, self.groups, weight, bias, self.eps)
        self.stash(mean=mean, rstd=rstd)
        return y

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, shape = self.input(0), self._inputs_meta[0][0]
        compute = dtypes.compute_dtype(x.dtype)
        grouped = (shape[0], self.groups, math.prod(shape[1:]) // self.groups)
        per_channel = (1, shape[1], *(1,) * (len(shape) - 2))
        x = x.to(compute).reshape(grouped)
        x = x - x.mean(-1, keepdim=True)
        rstd = ((x * x).mean(-1, keepdim=True) + self.eps).rsqrt()
        x = x * rstd
        dy = dy.to(compute)
        g = dy * self.input(1).reshape(per_channel) if len(self.needs) > 1 else dy
        g = g.reshape(grouped)
        dx = (g - g.mean(-1, keepdim=True) - x * (g * x).mean(-1, keepdim=True)) * rstd
        affine = (dy * x.reshape(shape), dy)[:len(self.needs) - 1]
        return dx.reshape(shape), *(v.sum_to_size(per_channel).reshape(-1) for v in affine)

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        x = self.input_array(0)
        compute, affine = wide(x.dtype), len(self.needs) > 1
        dx = empty(x.shape, x.dtype)
        rows = self._rows(dx)
        n, channels = rows.shape[1], x.shape[1] // self.groups
        totals = empty((2, len(rows), channels), compute)
        scales = [self._channels(x, self.input_array(1))] if affine else []

        def block(dx: Any, dy: Any, x: Any, mean: Any, rstd: Any, dweight: Any, dbias: Any,
                  *more: Any) -> None:
            *scales, centered, product = more
            scale = scales[0] if scales else 1.0
            np.subtract(x, mean, out=centered)
            np.multiply(dy, centered, out=product)
            _position_sums(product, dweight)
            np.multiply(dweight, rstd, out=dweight)
            _position_sums(dy, dbias)
            by_x = (dweight * scale).sum(1, keepdims=True) / n * rstd * rstd
            np.multiply(centered, by_x, out=centered)
            np.add(centered, (dbias * scale).sum(1, keepdims=True) / n * rstd, out=centered)
            by_channel = dx.reshape(len(dx), channels, -1)
            np.multiply(dy.reshape(by_channel.shape), _spread(scale * rstd, by_channel),
                        out=by_channel)
            np.subtract(dx, centered, out=dx)

        loops = fast.load("group_norm", rows.size) if rows.size else None
        if loops is not None:
            scale = scales[0] if scales else np.ones(totals.shape[1:], compute)
            each_block(loops.backward, rows, self._rows(dy), self._rows(x), *self.stats, *totals,
                       scale, loop=True)
        elif rows.size:
            each_block(block, rows, self._rows(dy), self._rows(x), *self.stats, *totals, *scales,
                       scratch=2)
        else:
            totals.fill(0)
        if not affine:
            return (dx,)
        dweight, dbias = totals.reshape(2, x.shape[0], x.shape[1]).sum(1)
        return dx, *(cast(grad, dtype) for grad, (_, dtype)
                     in zip((dweight, dbias), self._inputs_meta[1:], strict=False))

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        given = len(self.needs)
        weight = self.input_array(1) if given > 1 else None
        gradients = cuda_group_norm.backward(dy, self.input_array(0), self.groups, weight,
                                             self.mean, self.rstd, given > 2)
        return gradients[:given]


def _position_sums(x: Any, out: Any) -> None:
    """Sums over the positions of each row's channels."""
    positions = x.shape[1] // out.shape[1]
    ones = np.ones(positions, x.dtype)
    np.matmul(x.reshape(-1, positions), ones, out=out.reshape(-1))


def _spread(values: Any, like: Any) -> Any:
    """Values per row and channel, ready to broadcast over the positions of `like`."""
    positions = like.shape[2]
    if 1 < positions < 32 and values.shape[1] > 1:
        # NumPy's inner loop would be as short as the positions: repeating is faster.
        return np.repeat(values, positions, axis=1).reshape(like.shape)
    return values[:, :, None]


# --- public ---------------------------------------------------------------------------------------


def layer_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the dimensions of `normalized_shape`.

    weight, bias: (*normalized_shape), of input's dtype, or float32 beside a half type.
    Raises ShapeError where shapes do not fit.  Ba, Kiros, Hinton 2016.
    """
    ndim = _check_rows("layer_norm", input, normalized_shape, weight, bias)
    if weight is None and bias is not None:
        return (run(LayerNorm(ndim, eps), input) + bias).to(input.dtype)  # type: ignore[no-any-return]
    return run(LayerNorm(ndim, eps), input, *_given(weight, bias))  # type: ignore[no-any-return]


def rms_norm(input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None,
             eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the dimensions of `normalized_shape`.

    weight: (*normalized_shape).  eps None is the smallest step of the dtype that the statistics
    are computed in.  Zhang, Sennrich 2019.
    """
    ndim = _check_rows("rms_norm", input, normalized_shape, weight)
    return run(RmsNorm(ndim, _smallest(input, eps)), input, *_given(weight))  # type: ignore[no-any-return]


def add_layer_norm(input: Tensor, residual: Tensor, normalized_shape: Sequence[int],
                   weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
                   ) -> tuple[Tensor, Tensor]:
    """input + residual, and `layer_norm` of that sum: both of a residual connection's results.

    On CUDA one pass over memory, forward and backward.  residual: of input's shape and dtype.
    """
    ndim = _check_residual("add_layer_norm", input, residual, normalized_shape, weight, bias)
    if weight is None and bias is not None:
        weight = bias.new_ones(bias.shape)
    return run(AddLayerNorm(ndim, eps), input, residual, *_given(weight, bias))  # type: ignore[no-any-return]


def add_rms_norm(input: Tensor, residual: Tensor, normalized_shape: Sequence[int],
                 weight: Tensor | None = None, eps: float | None = None) -> tuple[Tensor, Tensor]:
    """input + residual, and `rms_norm` of that sum; see `add_layer_norm`."""
    ndim = _check_residual("add_rms_norm", input, residual, normalized_shape, weight)
    return run(AddRmsNorm(ndim, _smallest(input, eps)), input, residual, *_given(weight))  # type: ignore[no-any-return]


def group_norm(input: Tensor, num_groups: int, weight: Tensor | None = None,
               bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Normalise each of `num_groups` equal groups of channels: input (N, C, ...).

    weight, bias: (C,).  Raises ShapeError where the groups do not divide C, or where there is one
    value per group and example.  Wu, He 2018.
    """
    check_float("group_norm", input, weight, bias)
    if input.ndim < 2:
        raise ShapeError("group_norm: input must have at least 2 dimensions (N, C, ...), got "
                         f"{tuple(input.shape)}")
    channels = input.shape[1]
    if num_groups <= 0 or channels % num_groups:
        raise ShapeError(f"group_norm: num_groups must divide the {channels} channels of input "
                         f"{tuple(input.shape)}, got {num_groups}")
    if input.numel() == num_groups:
        raise ShapeError("group_norm: expected more than 1 value per group, got input "
                         f"{tuple(input.shape)} with {num_groups} groups")
    check_channels("group_norm", channels, weight=weight, bias=bias)
    op = GroupNorm(num_groups, eps)
    if weight is None and bias is not None:
        shape = (1, channels, *(1,) * (input.ndim - 2))
        return (run(op, input) + bias.reshape(shape)).to(input.dtype)  # type: ignore[no-any-return]
    return run(op, input, *_given(weight, bias))  # type: ignore[no-any-return]


def _given(*tensors: Tensor | None) -> list[Tensor]:
    return [t for t in tensors if t is not None]


def _smallest(input: Tensor, eps: float | None) -> float:
    return dtypes.finfo(dtypes.compute_dtype(input.dtype)).eps if eps is None else eps


def check_float(op: str, input: Tensor, *parameters: Tensor | None) -> None:
    """Raise DTypeError unless input is floating and the parameters have its dtype.

    Beside a half type they may also be float32, all of them.
    """
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{op}: expected a floating tensor, got {input.dtype.name}")
    given = {t.dtype for t in parameters if t is not None}
    if given and given not in ({input.dtype}, {dtypes.compute_dtype(input.dtype)}):
        names = ", ".join(sorted(d.name for d in given))
        raise DTypeError(f"{op}: parameters must all be {input.dtype.name} as the input, or "
                         f"float32 beside a half type, got {names}; convert with .to()")


def check_channels(op: str, channels: int, **parameters: Tensor | None) -> None:
    """Raise ShapeError unless each parameter holds one value per channel."""
    for name, value in parameters.items():
        if value is not None and tuple(value.shape) != (channels,):
            raise ShapeError(f"{op}: {name} must be ({channels},), one value per channel, got "
                             f"{tuple(value.shape)}")


def _check_residual(op: str, input: Tensor, residual: Tensor, normalized_shape: Sequence[int],
                    *parameters: Tensor | None) -> int:
    if residual.shape != input.shape:
        raise ShapeError(f"{op}: residual must have the input's shape {tuple(input.shape)}, got "
                         f"{tuple(residual.shape)}")
    if residual.dtype is not input.dtype:
        raise DTypeError(f"{op}: residual must be {input.dtype.name} as the input, got "
                         f"{residual.dtype.name}; convert with .to()")
    return _check_rows(op, input, normalized_shape, *parameters)


def _check_rows(op: str, input: Tensor, normalized_shape: Sequence[int],
                *parameters: Tensor | None) -> int:
    check_float(op, input, *parameters)
    shape = tuple(normalized_shape)
    if not shape or tuple(input.shape[-len(shape):]) != shape:
        raise ShapeError(f"{op}: normalized_shape must be the last dimensions of input "
                         f"{tuple(input.shape)}, got {shape}")
    for name, value in zip(("weight", "bias"), parameters, strict=False):
        if value is not None and tuple(value.shape) != shape:
            raise ShapeError(f"{op}: {name} must be {shape} as normalized_shape, got "
                             f"{tuple(value.shape)}")
    return len(shape)
