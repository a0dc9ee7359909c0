"""Variances and standard deviations over any dimensions, in two passes.

Dimensions and accumulation as in `mlgpu.ops.reduce`.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import cast as cast_array
from mlgpu.cpu.gemm import widen
from mlgpu.cpu.runtime import empty, empty_like
from mlgpu.cpu.totals import total
from mlgpu.cuda import reduce as cuda_reduce
from mlgpu.op import run
from mlgpu.ops.arithmetic import add, div, mul, sub
from mlgpu.ops.choice import where
from mlgpu.ops.compare import eq
from mlgpu.ops.elementwise import elementwise, on_device_arrays
from mlgpu.ops.mask import masked_fill
from mlgpu.ops.reduce import Dims, Reduction, check_inexact, computed, mean, reduced_dims
from mlgpu.tensor import Tensor

__all__ = ["std", "std_mean", "var", "var_mean"]


class Variance(Reduction):
    """sum |x - mean|^2 / max(0, count - correction) over `dims`; `root`: its square root."""

    name = operator = "var"
    saved_inputs = (0,)

    def __init__(self, dims: tuple[int, ...], keepdim: bool, correction: float) -> None:
        super().__init__(dims, keepdim)
        self.correction = correction

    def _deviations(self, x: Any) -> Any:
        means = total(x, self.dims)
        np.divide(means, self.count(x.shape), out=means)
        return np.subtract(x, means, out=empty_like(x, means.dtype), dtype=means.dtype)

    def _variance(self, x: Any) -> Any:
        deviations = self._deviations(x)
        if deviations.dtype.kind == "c":
            parts = deviations.real, deviations.imag
            squares = np.square(parts[0], out=empty(x.shape, parts[0].dtype))
            np.add(squares, np.square(parts[1], out=parts[1]), out=squares)
        else:
            squares = np.square(deviations, out=deviations)
        sums = total(squares, self.dims)
        return np.divide(sums, max(0, self.count(x.shape) - self.correction), out=sums)

    def forward(self, x: Any) -> Any:
        return self.shaped(cast_array(self._variance(x), x.real.dtype), x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, self.operator, dtypes.from_numpy(x.dtype).to_real().numpy,
                                 p=self.correction)

    def _scale(self) -> float:
        freedom = self.count(self._inputs_meta[0][0]) - self.correction
        return 2 / freedom if freedom > 0 else math.inf

    def backward(self, dy: Tensor) -> Tensor:
        x = computed(self.input(0))
        deviations = sub(x, mean(x, self.dims, True))
        dx: Tensor = mul(deviations, mul(self.unreduced(computed(dy)), self._scale()))
        return dx

    def backward_cpu(self, dy: Any) -> Any:
        return self._gradient(np.multiply(widen(self.unreduced(dy)), self._scale()))

    def backward_cuda(self, dy: Any) -> Any:
        x = self.input_array(0)
        means = cuda_reduce.reduce(x, self.dims, "mean", dtypes.compute_dtype(
            dtypes.from_numpy(x.dtype)).numpy, keepdim=True)
        return self._gradient_cuda(x, means, self.unreduced(dy))

    def _gradient_cuda(self, x: Any, means: Any, dy: Any) -> Any:
        return on_device_arrays(_deviation, x.dtype, x, means, dy, self._scale())

    def _gradient(self, factor: Any) -> Any:
        deviations = self._deviations(self.input_array(0))
        np.multiply(deviations, factor, out=deviations)
        return cast_array(deviations, self._inputs_meta[0][1])


class Deviation(Variance):
    """The square root of the variance.  Its gradient is 0 where the variance is."""

    name = operator = "std"
    saved_outputs = (0,)

    def forward(self, x: Any) -> Any:
        variance = self._variance(x)
        np.sqrt(variance, out=variance)
        return self.shaped(cast_array(variance, x.real.dtype), x.shape)

    def backward(self, dy: Tensor) -> Tensor:
        y = computed(self.output())
        return super().backward(masked_fill(div(computed(dy), mul(y, 2)), eq(y, 0), 0))

    def backward_cpu(self, dy: Any) -> Any:
        y = widen(self.unreduced(self.output_array()))
        factor = np.divide(widen(self.unreduced(dy)), y) * (self._scale() / 2)
        return self._gradient(np.where(y == 0, 0, factor))


    def _gradient_cuda(self, x: Any, means: Any, dy: Any) -> Any:
        y = self.unreduced(self.output_array())
        return on_device_arrays(_deviation_of_root, x.dtype, x, means, dy, y, self._scale() / 2)


@elementwise
def _deviation(x: Tensor, mean: Tensor, dy: Tensor, scale: float) -> Tensor:
    return (x - mean) * (dy * scale)


@elementwise
def _deviation_of_root(x: Tensor, mean: Tensor, dy: Tensor, y: Tensor, scale: float) -> Tensor:
    return (x - mean) * where(eq(y, 0), 0, dy / y * scale)


class VarianceAndMean(Variance):
    """The variance, and the mean that it is taken around."""

    name = "var_mean"
    operator = "var"

    def forward(self, x: Any) -> Any:
        means = total(x, self.dims)
        np.divide(means, self.count(x.shape), out=means)
        return super().forward(x), self.shaped(cast_array(means, x.dtype), x.shape)

    def forward_cuda(self, x: Any) -> Any:
        if x.dtype.kind == "c":  # results of two dtypes
            return super().forward_cuda(x), self.reduced_cuda(x, "mean")
        return self.reduced_cuda(x, self.operator, p=self.correction, other=True)

    def backward(self, dy: Tensor, dmean: Tensor) -> Tensor:  # type: ignore[override]
        share = div(self.unreduced(computed(dmean)), self.count(self._inputs_meta[0][0]))
        return add(super().backward(dy), share)

    def backward_cpu(self, dy: Any, dmean: Any) -> Any:  # type: ignore[override]
        dx = super().backward_cpu(dy)
        share = widen(self.unreduced(dmean)) / self.count(dx.shape)
        return np.add(dx, share, out=dx, casting="unsafe")

    def backward_cuda(self, dy: Any, dmean: Any) -> Any:  # type: ignore[override]
        dx = super().backward_cuda(dy)
        share = 1 / self.count(dx.shape) if dx.size else 0.0
        return on_device_arrays(_plus_scaled, dx.dtype, dx, self.unreduced(dmean), share)


class DeviationAndMean(VarianceAndMean, Deviation):  # type: ignore[misc]
    """The standard deviation, and the mean that it is taken around."""

    name = "std_mean"
    operator = "std"


@elementwise
def _plus_scaled(a: Tensor, b: Tensor, scale: float) -> Tensor:
    return a + b * scale


# --- public ---------------------------------------------------------------------------------------


def _spread(op: type[Variance], input: Tensor, dim: Dims | bool, unbiased: bool | None,
            keepdim: bool, correction: float | None) -> Any:
    """A variance or deviation; `dim` may be PyTorch's older positional `unbiased`."""
    if isinstance(dim, bool):
        if unbiased is not None:
            raise TypeError(f"{op.name}: dim must be ints, got {dim}")
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise TypeError(f"{op.name}: takes either unbiased or correction, got both")
    if correction is None:
        correction = 0 if unbiased is False else 1
    check_inexact(op.name, input)
    made = op(reduced_dims(op.name, input, dim), keepdim, correction)
    if made.count(input.shape) <= correction:
        warnings.warn(f"{op.name}: a correction of {correction} leaves no degree of freedom for "
                      f"{made.count(input.shape)} elements", stacklevel=3)
    return run(made, input)


def var(input: Tensor, dim: Dims | bool = None, unbiased: bool | None = None,
        keepdim: bool = False, *, correction: float | None = None) -> Tensor:
    """sum |x - mean|^2 / max(0, n - correction) over `dim`: var(x), var(x, dim), var(x, unbiased).

    `correction` is 1 by default, 0 for unbiased=False.  Real for complex input.  Warns where
    n <= correction.  DTypeError for integers.  In two passes, so it is exact for a large mean.
    """
    return _spread(Variance, input, dim, unbiased, keepdim, correction)  # type: ignore[no-any-return]


def std(input: Tensor, dim: Dims | bool = None, unbiased: bool | None = None,
        keepdim: bool = False, *, correction: float | None = None) -> Tensor:
    """The square root of `var`, with gradient 0 where that is 0."""
    return _spread(Deviation, input, dim, unbiased, keepdim, correction)  # type: ignore[no-any-return]


def var_mean(input: Tensor, dim: Dims | bool = None, unbiased: bool | None = None,
             keepdim: bool = False, *, correction: float | None = None) -> tuple[Tensor, Tensor]:
    """(var, mean) over `dim`."""
    return _spread(VarianceAndMean, input, dim, unbiased, keepdim, correction)  # type: ignore[no-any-return]


def std_mean(input: Tensor, dim: Dims | bool = None, unbiased: bool | None = None,
             keepdim: bool = False, *, correction: float | None = None) -> tuple[Tensor, Tensor]:
    """(std, mean) over `dim`."""
    return _spread(DeviationAndMean, input, dim, unbiased, keepdim, correction)  # type: ignore[no-any-return]
