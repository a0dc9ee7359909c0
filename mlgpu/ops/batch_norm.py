"""Normalisation per channel over the batch: batch_norm; and per example: instance_norm."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.cpu import fast
from mlgpu.cpu.gemm import cast, contiguous, widen
from mlgpu.cpu.rows import BLOCK, wide
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.threads import parallel
from mlgpu.cuda import batch_norm as cuda_batch_norm
from mlgpu.errors import ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run
from mlgpu.ops.elementwise import Elementwise, elementwise
from mlgpu.ops.exponential import rsqrt
from mlgpu.ops.norm import check_channels, check_float, group_norm
from mlgpu.tensor import Tensor

__all__ = ["batch_norm", "instance_norm"]


class BatchNorm(Op):
    """(x - mean) / sqrt(var + eps) * weight + bias, with mean and variance over all but dim 1.

    Outputs: the result and, for running statistics, the mean and the biased variance.
    """

    saved_outputs = (1, 2)
    nondifferentiable_outputs = (1, 2)
    materialize = False

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0, 1) if len(needs) > 1 else (0,)

    def forward(self, x: Any, weight: Any = None, bias: Any = None) -> tuple[Any, Any, Any]:
        y, x = empty(x.shape, x.dtype), contiguous(x)
        channels = _Channels(x)
        mean, var = (empty((channels.count,), wide(x.dtype)) for _ in range(2))
        scale, shift = (None if v is None else widen(v) for v in (weight, bias))
        loops = channels.loops(x)

        def block(part: slice, at: slice, centered: Any, squares: Any) -> None:
            block = channels.read(x, at)
            mean[part] = channels.sums(block) / channels.values
            np.subtract(block, channels.spread(mean[part]), out=centered)
            np.multiply(centered, centered, out=squares)
            var[part] = channels.sums(squares) / channels.values
            rstd = 1 / np.sqrt(var[part] + self.eps)
            factor = rstd if scale is None else rstd * scale[part]
            np.multiply(centered, channels.spread(factor), out=centered)
            if shift is not None:
                np.add(centered, channels.spread(shift[part]), out=centered)
            np.copyto(channels.flat(y)[:, at], centered, casting="unsafe")

        if loops is None:
            channels.each(block)
        else:
            channels.each_range(loops.forward, channels.cube(y), channels.cube(x), mean, var,
                                channels.vector(scale, 1), channels.vector(shift, 0), self.eps)
        return y, mean, var

    def forward_cuda(self, x: Any, weight: Any = None, bias: Any = None) -> tuple[Any, Any, Any]:
        return cuda_batch_norm.forward(x, weight, bias, self.eps)

    def backward(self, dy: Tensor, dmean: None, dvar: None) -> tuple[Tensor | None, ...]:
        x = self.input(0)
        compute = dtypes.compute_dtype(x.dtype)
        dims = tuple(d for d in range(x.ndim) if d != 1)
        per_channel = (1, x.shape[1], *(1,) * (x.ndim - 2))
        x, dy = x.to(compute), dy.to(compute)
        x = x - x.mean(dims, keepdim=True)
        rstd = ((x * x).mean(dims, keepdim=True) + self.eps).rsqrt()
        x = x * rstd
        dx = (dy - dy.mean(dims, keepdim=True) - x * (dy * x).mean(dims, keepdim=True)) * rstd
        if len(self.needs) > 1:
            dx = dx * self.input(1).reshape(per_channel)
        affine = (dy * x, dy)[:len(self.needs) - 1]
        return dx, *(v.sum(dims) for v in affine)

    def backward_cpu(self, dy: Any, dmean: None, dvar: None) -> tuple[Any, ...]:
        x, dy = contiguous(self.input_array(0)), contiguous(dy)
        dx = empty(x.shape, x.dtype)
        channels = _Channels(x)
        mean = self.output_array(1)
        rstd = 1 / np.sqrt(self.output_array(2) + self.eps)
        affine = len(self.needs) > 1
        factor = rstd * widen(self.input_array(1)) if affine else rstd
        dweight, dbias = (empty((channels.count,), wide(x.dtype)) for _ in range(2))
        loops = channels.loops(x)

        def block(part: slice, at: slice, xhat: Any, product: Any) -> None:
            np.subtract(channels.read(x, at), channels.spread(mean[part]), out=xhat)
            np.multiply(xhat, channels.spread(rstd[part]), out=xhat)
            grad = channels.read(dy, at)
            dweight[part] = channels.sums(np.multiply(grad, xhat, out=product))
            dbias[part] = channels.sums(grad)
            np.multiply(xhat, channels.spread(dweight[part] / channels.values), out=xhat)
            np.add(xhat, channels.spread(dbias[part] / channels.values), out=xhat)
            np.subtract(grad, xhat, out=xhat)
            np.multiply(xhat, channels.spread(factor[part]), out=xhat)
            np.copyto(channels.flat(dx)[:, at], xhat, casting="unsafe")

        if loops is None:
            channels.each(block)
        else:
            channels.each_range(loops.backward, channels.cube(dx), channels.cube(dy),
                                channels.cube(x), mean, rstd, contiguous(factor), dweight, dbias)
        return dx, *(cast(grad, dtype) for grad, (_, dtype)
                     in zip((dweight, dbias), self._inputs_meta[1:], strict=False))

    def backward_cuda(self, dy: Any, dmean: None, dvar: None) -> tuple[Any, ...]:
        given = len(self.needs)
        weight = self.input_array(1) if given > 1 else None
        gradients = cuda_batch_norm.backward(
            dy, self.input_array(0), weight, self.output_array(1), self.output_array(2), self.eps,
            given > 2)
        return gradients[:given]


class _Channels:
    """(N, C, ...) arrays as (N, C * positions), cut into blocks of channels that stay in cache."""

    def __init__(self, x: Any) -> None:
        self.batch, self.count = x.shape[:2]
        self.positions = math.prod(x.shape[2:])
        self.values = self.batch * self.positions  # per channel
        self.dtype = wide(x.dtype)
        # Smaller blocks where there is less work, for every thread to have some.
        size = min(BLOCK, max(BLOCK // 4, x.size // 4))
        self.step = max(1, min(self.count, size // max(1, self.values)))
        # None where there is nothing to normalise.
        self.tasks = -(-self.count // self.step) if self.values else 0
        self._ones = np.ones((1, self.batch), self.dtype)

    def loops(self, x: Any) -> Any:
        """The compiled form: for long runs of positions, in a dtype that is computed in."""
        known = x.dtype == self.dtype and self.positions >= 16
        return fast.load("batch_norm", x.size) if known else None

    def each(self, block: Callable[[slice, slice, Any, Any], None]) -> None:
        """`block(channels, their columns, *two workspaces)` for every block."""
        width = self.step * self.positions

        def start() -> Callable[[int], None]:
            buffers = empty((2, self.batch * width), self.dtype)

            def body(task: int) -> None:
                first = task * self.step
                last = min(self.count, first + self.step)
                columns = (last - first) * self.positions
                block(slice(first, last), slice(first * self.positions, last * self.positions),
                      *buffers[:, :self.batch * columns].reshape(2, self.batch, columns))
            return body

        parallel(self.tasks, start, self.count * self.values)

    def each_range(self, loop: Callable[..., None], *arrays: Any) -> None:
        """`loop(first channel, last, *arrays)` for every block."""
        def body(task: int) -> None:
            loop(task * self.step, min(self.count, (task + 1) * self.step), *arrays)

        parallel(self.tasks, lambda: body, self.count * self.values)

    def flat(self, x: Any) -> Any:
        return x.reshape(self.batch, self.count * self.positions)

    def cube(self, x: Any) -> Any:
        return x.reshape(self.batch, self.count, self.positions)

    def vector(self, values: Any, default: float) -> Any:
        """Values of the channels, contiguous, or what stands for none."""
        return np.full(self.count, default, self.dtype) if values is None else contiguous(values)

    def read(self, x: Any, at: slice) -> Any:
        return widen(self.flat(x)[:, at])

    def sums(self, block: Any) -> Any:
        """One sum per channel: over the batch as a product with ones, then over positions."""
        return (self._ones @ block).reshape(-1, self.positions).sum(1)

    def spread(self, values: Any) -> Any:
        """One value per channel, repeated over its positions."""
        return np.repeat(values, self.positions)


@elementwise
def running_norm(x: Any, mean: Any, var: Any, weight: Any, bias: Any, eps: Any) -> Any:
    return (x - mean) * (rsqrt(var + eps) * weight) + bias


@elementwise
def _average(running: Any, value: Any, keep: Any, share: Any) -> Any:
    return running * keep + value * share


# --- public ---------------------------------------------------------------------------------------


def batch_norm(input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
               weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
               momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias per channel of input (N, C, ...).

    In training, mean and variance are the batch's, and the running ones (if given) move towards
    them by `momentum`, in place, the variance unbiased.  Otherwise the running ones are used.
    All vectors are (C,), of input's dtype, or float32 beside a half type.  Ioffe, Szegedy 2015.
    """
    check_float("batch_norm", input, running_mean, running_var, weight, bias)
    if input.ndim < 2:
        raise ShapeError("batch_norm: input must have at least 2 dimensions (N, C, ...), got "
                         f"{tuple(input.shape)}")
    if (running_mean is None) != (running_var is None):
        raise ShapeError("batch_norm: pass both running_mean and running_var, or neither")
    channels = input.shape[1]
    check_channels("batch_norm", channels, running_mean=running_mean, running_var=running_var,
                   weight=weight, bias=bias)
    if not training:
        return _normalise_by(input, running_mean, running_var, weight, bias, eps)
    count = input.numel() // max(channels, 1)
    if count == 1:
        raise ShapeError("batch_norm: expected more than 1 value per channel in training, got "
                         f"input {tuple(input.shape)}")
    y, mean, var = run(BatchNorm(eps), input, *_affine(input, weight, bias))
    if running_mean is not None and running_var is not None and count:
        _move(running_mean, mean, momentum)
        _move(running_var, var, momentum, count / (count - 1))
    return y  # type: ignore[no-any-return]


def instance_norm(input: Tensor, running_mean: Tensor | None = None,
                  running_var: Tensor | None = None, weight: Tensor | None = None,
                  bias: Tensor | None = None, use_input_stats: bool = True,
                  momentum: float = 0.1, eps: float = 1e-5) -> Tensor:
    """Each channel of each example of input (N, C, ...) normalised over its positions.

    With use_input_stats the running statistics (if given) move, in place, towards the mean of the
    examples' ones; without, they are used instead.  Ulyanov et al. 2016.
    """
    check_float("instance_norm", input, running_mean, running_var, weight, bias)
    if not use_input_stats:
        if running_mean is None or running_var is None:
            raise ShapeError("instance_norm: running_mean and running_var are needed when "
                             "use_input_stats is False")
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if input.ndim < 2 or math.prod(input.shape[2:]) == 1:
        raise ShapeError("instance_norm: expected more than 1 position per channel, got input "
                         f"{tuple(input.shape)}")
    channels = input.shape[1]
    check_channels("instance_norm", channels, running_mean=running_mean, running_var=running_var)
    if running_mean is not None and running_var is not None and input.numel():
        with no_grad():
            x = input.to(dtypes.compute_dtype(input.dtype)).flatten(2)
            _move(running_mean, x.mean(2).mean(0), momentum)
            _move(running_var, x.var(2).mean(0), momentum)
    return group_norm(input, channels, weight, bias, eps)


def _affine(input: Tensor, weight: Tensor | None, bias: Tensor | None) -> tuple[Tensor, ...]:
    if weight is None and bias is not None:
        weight = bias.new_ones(bias.shape)
    return tuple(t for t in (weight, bias) if t is not None)


def _normalise_by(input: Tensor, mean: Tensor | None, var: Tensor | None, weight: Tensor | None,
                  bias: Tensor | None, eps: float) -> Tensor:
    if mean is None or var is None:
        raise ShapeError("batch_norm: running_mean and running_var are needed outside training")
    shape = (1, -1, *(1,) * (input.ndim - 2))
    m, v, w, b = (t if isinstance(t, float) else t.reshape(shape) for t in (
        mean.detach(), var.detach(), 1.0 if weight is None else weight,
        0.0 if bias is None else bias))
    return running_norm(input, m, v, w, b, eps).to(input.dtype)  # type: ignore[no-any-return]


def _move(running: Tensor, value: Tensor, momentum: float, factor: float = 1.0) -> None:
    """running = (1 - momentum) * running + momentum * factor * value, in place, in one pass."""
    with no_grad():
        op = Elementwise(_average.formula, (None, None, 1 - momentum, momentum * factor))
        run_inplace(op, running, value)
