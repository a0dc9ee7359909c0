"""Sums, products, means and logical reductions over any dimensions.

`dim` is an int, a sequence of ints, or None (and mostly also ()) for all; ShapeError where one is
named twice, IndexError where one is out of range.  Half types are accumulated in float32 and
rounded once; integers and bool are summed in int64.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import cast as cast_array
from mlgpu.cpu.gemm import widen
from mlgpu.cpu.runtime import empty, empty_like
from mlgpu.cpu.totals import kept, total
from mlgpu.cuda import reduce as cuda_reduce
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.arithmetic import div, mul, sub
from mlgpu.ops.cast import cast
from mlgpu.ops.choice import where
from mlgpu.ops.compare import isnan, logical_not
from mlgpu.ops.complex import conj
from mlgpu.ops.elementwise import elementwise, on_device_arrays
from mlgpu.ops.exponential import exp
from mlgpu.ops.join import cat
from mlgpu.ops.mask import masked_fill
from mlgpu.ops.view import dim_index, expand, movedim, reshape
from mlgpu.storage import as_strided
from mlgpu.tensor import Tensor

__all__ = ["all", "any", "count_nonzero", "logsumexp", "mean", "nanmean", "nansum", "prod", "sum"]

Dims = int | Sequence[int] | None
DType = dtypes.dtype


def reduced_dims(op: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    """The dimensions `dim` names, counted from the front; all for None and ().

    Raises ShapeError where one is named twice, IndexError where one is out of range.
    """
    ndim = input.ndim
    if dim is None:
        return tuple(range(ndim))
    dims: tuple[int, ...]
    if isinstance(dim, SupportsIndex):
        dims = (dim_index(op, operator.index(dim), ndim),)
    else:
        dims = tuple(dim_index(op, operator.index(d), ndim) for d in dim)
        if len(set(dims)) != len(dims):
            raise ShapeError(f"{op}: dimensions must be different, got {tuple(dim)}")
    return dims if ndim and dims else tuple(range(ndim))


class Reduction(Op):
    """What all reductions share: the dimensions, and the shapes with and without them."""

    def __init__(self, dims: tuple[int, ...], keepdim: bool) -> None:
        self.dims, self.keepdim = dims, keepdim

    def shaped(self, values: Any, shape: Sequence[int]) -> Any:
        """Values with length 1 in the reduced dimensions of `shape`, as the result has them."""
        if self.keepdim:
            return values.reshape(kept(shape, self.dims))
        return values.reshape([n for d, n in enumerate(shape) if d not in self.dims])

    def count(self, shape: Sequence[int]) -> int:
        """The number of elements that one result is made of."""
        return math.prod(shape[d] for d in self.dims)

    def unreduced(self, t: Any) -> Any:
        """A result or its gradient, tensor or array, with length 1 in the reduced dimensions."""
        return t.reshape(kept(self._inputs_meta[0][0], self.dims))

    def spread(self, dy: Tensor) -> Tensor:
        """One value per result as one per element of the input."""
        return expand(self.unreduced(dy), self._inputs_meta[0][0])

    def spread_array(self, dy: Any) -> Any:
        """As `spread`, on arrays."""
        return np.broadcast_to(self.unreduced(dy), self._inputs_meta[0][0])

    def reduced_cuda(self, x: Any, op: str, dtype: Any = None, **options: Any) -> Any:
        """The reduction by an operator of kernels/reduce.cuh."""
        return cuda_reduce.reduce(x, self.dims, op, dtype, self.keepdim, **options)


class Sum(Reduction):
    """The sum over `dims`, in `dtype`."""

    def __init__(self, dims: tuple[int, ...], keepdim: bool, dtype: DType) -> None:
        super().__init__(dims, keepdim)
        self.dtype = dtype

    def forward(self, x: Any) -> Any:
        return self.shaped(cast_array(total(x, self.dims), self.dtype.numpy), x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, "sum", self.dtype.numpy)

    def backward(self, dy: Tensor) -> Tensor:
        return self.spread(dy)

    def backward_cpu(self, dy: Any) -> Any:
        return self.spread_array(dy)

    def backward_cuda(self, dy: Any) -> Any:
        shape, dims = self._inputs_meta[0][0], self.dims
        rest = iter(dy.strides)
        strides = [0 if d in dims and not self.keepdim else next(rest) for d in range(len(shape))]
        return as_strided(dy, shape, tuple([0 if d in dims else s for d, s in enumerate(strides)]))


class NanSum(Sum):
    """The sum over `dims` of what is not NaN, whose gradient is 0 where NaN is."""

    name = "nansum"
    saved_inputs = (0,)

    def forward(self, x: Any) -> Any:
        numbers = empty_like(x)
        np.copyto(numbers, x)
        numbers[np.isnan(x)] = 0
        return super().forward(numbers)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, "nansum", self.dtype.numpy)

    def backward(self, dy: Tensor) -> Tensor:
        return masked_fill(self.spread(dy), isnan(self.input(0)), 0)

    def backward_cpu(self, dy: Any) -> Any:
        x = self.input_array(0)
        dx = empty_like(x)
        np.copyto(dx, self.spread_array(dy), casting="unsafe")
        dx[np.isnan(x)] = 0
        return dx

    def backward_cuda(self, dy: Any) -> Any:
        x = self.input_array(0)
        return on_device_arrays(_where_number, x.dtype, x, self.unreduced(dy))


@elementwise
def _where_number(x: Tensor, dy: Tensor) -> Tensor:
    return where(isnan(x), 0, dy)


class Mean(Reduction):
    """The sum over `dims` divided by the number of elements; NaN of none."""

    def forward(self, x: Any) -> Any:
        sums = total(x, self.dims)
        np.divide(sums, self.count(x.shape), out=sums)
        return self.shaped(cast_array(sums, x.dtype), x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, "mean")

    def backward(self, dy: Tensor) -> Tensor:
        return self.spread(div(dy, self.count(self._inputs_meta[0][0])))

    def backward_cpu(self, dy: Any) -> Any:
        count = self.count(self._inputs_meta[0][0])
        # Not in memory of the runtime's: the engine must not take the view for one to write into.
        return self.spread_array(np.divide(dy, count, dtype=dy.dtype))


def computed(x: Tensor) -> Tensor:
    """`x` in the dtype that arithmetic on it runs in."""
    return cast(x, dtypes.compute_dtype(x.dtype))


class Prod(Reduction):
    """The product over `dims`, in `dtype`."""

    saved_inputs = (0,)

    def __init__(self, dims: tuple[int, ...], keepdim: bool, dtype: DType) -> None:
        super().__init__(dims, keepdim)
        self.dtype = dtype

    def forward(self, x: Any) -> Any:
        wide = np.int64 if x.dtype.kind in "biu" else dtypes.compute_dtype(self.dtype).numpy
        out = empty(kept(x.shape, self.dims), wide)
        np.multiply.reduce(x, axis=self.dims, dtype=wide, keepdims=True, out=out)
        return self.shaped(cast_array(out, self.dtype.numpy), x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, "prod", self.dtype.numpy)

    def backward(self, dy: Tensor) -> Tensor:
        x, shape = computed(self.input(0)), self._inputs_meta[0][0]
        if not x.numel():
            return x
        factors = conj(x) if x.is_complex() else x
        if len(self.dims) == 1:
            factors, dy = movedim(factors, self.dims[0], 0), movedim(
                self.unreduced(computed(dy)), self.dims[0], 0)
            return movedim(_times_others(factors, dy, cat), 0, self.dims[0])
        flat = _times_others(reshape(factors, -1), reshape(computed(dy), 1), cat)
        return reshape(flat, shape)

    def backward_cpu(self, dy: Any) -> Any:
        x = self.input_array(0)
        if not x.size:
            return empty(x.shape, x.dtype)
        factors, dy = np.conjugate(widen(x)), widen(dy)
        if len(self.dims) == 1:
            factors, dy = np.moveaxis(factors, self.dims[0], 0), np.moveaxis(
                self.unreduced(dy), self.dims[0], 0)
            dx = np.moveaxis(_times_others(factors, dy, _concatenated), 0, self.dims[0])
        else:
            dx = _times_others(factors.reshape(-1), dy.reshape(1), _concatenated).reshape(x.shape)
        return cast_array(dx, x.dtype)


def _concatenated(parts: Sequence[Any]) -> Any:
    length = builtins.sum(len(part) for part in parts)
    out = empty((length, *parts[0].shape[1:]), parts[0].dtype)
    return np.concatenate(parts, out=out)


def _times_others(x: Any, dy: Any, join: Callable[[Sequence[Any]], Any]) -> Any:
    """dy times the product of all other elements, for each element along axis 0.

    Products of pairs, of pairs of those, and so on form a tree; on the way down each node hands
    the product of its sibling to the other.  Nothing is divided, so zeros are exact, and it works
    on tensors as on arrays, so it can be differentiated any number of times.
    """
    levels = [x]
    while len(levels[-1]) > 1:
        level = levels[-1]
        half = len(level) // 2
        pairs = level[:half] * level[half:2 * half]
        levels.append(join((pairs, level[2 * half:])) if len(level) % 2 else pairs)
    for level in reversed(levels[:-1]):
        half = len(level) // 2
        parts = [level[half:2 * half] * dy[:half], level[:half] * dy[:half]]
        dy = join((*parts, dy[half:]) if len(level) % 2 else parts)
    return dy


class LogSumExp(Reduction):
    """log sum exp x over `dims`, shifted by the largest x; -inf of nothing."""

    name = "logsumexp"
    saved_inputs = (0,)
    saved_outputs = (0,)

    def forward(self, x: Any) -> Any:
        x_wide = widen(x)
        real = x_wide.real
        out = empty(kept(x.shape, self.dims), real.dtype)
        np.maximum.reduce(real, axis=self.dims, keepdims=True, initial=-np.inf, out=out)
        out[~np.isfinite(out)] = 0
        powers = np.subtract(x_wide, out, out=empty_like(x, x_wide.dtype))
        sums = total(np.exp(powers, out=powers), self.dims)
        np.add(np.log(sums, out=sums), out, out=sums)
        return self.shaped(cast_array(sums, x.dtype), x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, "logsumexp")

    def backward(self, dy: Tensor) -> Tensor:
        y = self.unreduced(computed(self.output()))
        share = exp(sub(computed(self.input(0)), y))
        dx: Tensor = mul(self.unreduced(dy), conj(share) if share.is_complex() else share)
        return dx

    def backward_cpu(self, dy: Any) -> Any:
        x, y = self.input_array(0), widen(self.unreduced(self.output_array()))
        dx = np.subtract(x, y, out=empty_like(x, y.dtype), dtype=y.dtype)
        np.exp(dx, out=dx)
        if dx.dtype.kind == "c":
            np.conjugate(dx, out=dx)
        return cast_array(np.multiply(dx, widen(self.unreduced(dy)), out=dx), x.dtype)

    def backward_cuda(self, dy: Any) -> Any:
        x, y = self.input_array(0), self.unreduced(self.output_array())
        if x.dtype.kind == "c":
            return on_tensors(_conjugate_weighted, x, y, self.unreduced(dy))
        return on_device_arrays(_weighted, x.dtype, x, y, self.unreduced(dy))


@elementwise
def _weighted(x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
    return dy * exp(x - y)


def _conjugate_weighted(x: Tensor, y: Tensor, dy: Tensor) -> Tensor:
    return mul(dy, conj(exp(sub(x, y))))


class AllTrue(Reduction):
    """Whether all elements over `dims` are nonzero; uint8 for uint8, else bool."""

    name = "all"
    differentiable = False
    logical: Any = np.logical_and

    def forward(self, x: Any) -> Any:
        truth = x if x.dtype.kind == "b" else np.not_equal(x, 0, out=empty_like(x, np.bool_))
        out = empty(kept(x.shape, self.dims), np.bool_)
        self.logical.reduce(truth, axis=self.dims, keepdims=True, out=out)
        if x.dtype == np.uint8:
            out = cast_array(out, np.uint8)
        return self.shaped(out, x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, self.name, np.uint8 if x.dtype == np.uint8 else np.bool_)


class AnyTrue(AllTrue):
    """Whether any element over `dims` is nonzero; uint8 for uint8, else bool."""

    name = "any"
    logical = np.logical_or


class CountNonzero(Reduction):
    """The number of nonzero elements over `dims`, in int64."""

    differentiable = False

    def forward(self, x: Any) -> Any:
        truth = x if x.dtype.kind == "b" else np.not_equal(x, 0, out=empty_like(x, np.bool_))
        return self.shaped(total(truth, self.dims), x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, "count", np.int64)


# --- public ---------------------------------------------------------------------------------------


def _summed(input: Tensor, dtype: DType | None) -> tuple[Tensor, DType]:
    """The input to add or multiply up, and the result's dtype."""
    whole = input.dtype.kind in ("bool", "int")
    if dtype is None:
        return input, dtypes.int64 if whole else input.dtype
    if dtype is not input.dtype and not (whole and dtype.kind == "int"):  # int64 wraps around alike
        input = cast(input, dtype)
    return input, dtype


def sum(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
        ) -> Tensor:
    """The sum over `dim`; 0 of nothing.  The input is cast to `dtype` first, if given.

    Added in short blocks, so that the rounding error hardly grows with the number of elements.
    """
    dims = reduced_dims("sum", input, dim)
    input, dtype = _summed(input, dtype)
    return run(Sum(dims, keepdim, dtype), input)  # type: ignore[no-any-return]


def check_inexact(op: str, input: Tensor) -> None:
    """Raise DTypeError for integers and bool."""
    if input.dtype.kind in ("bool", "int"):
        raise DTypeError(f"{op}: expected a floating or complex tensor, got {input.dtype.name}; "
                         "cast it first")


def mean(input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
         ) -> Tensor:
    """The mean over `dim`; NaN of nothing.  Cast to `dtype` first; DTypeError for integers."""
    dims = reduced_dims("mean", input, dim)
    if dtype is not None:
        input = cast(input, dtype)
    check_inexact("mean", input)
    return run(Mean(dims, keepdim), input)  # type: ignore[no-any-return]


def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *,
           dtype: DType | None = None) -> Tensor:
    """The sum over `dim` of what is not NaN.  DTypeError for complex numbers."""
    if input.dtype.is_complex:
        raise DTypeError(f"nansum: not defined for complex numbers, got {input.dtype.name}")
    if not input.dtype.is_floating_point:
        return sum(input, dim, keepdim, dtype=dtype)
    return _number_sum("nansum", input, dim, keepdim, dtype or input.dtype)


def _number_sum(op: str, input: Tensor, dim: Dims, keepdim: bool, dtype: DType) -> Tensor:
    dims = reduced_dims(op, input, dim)
    if not dtype.is_floating_point:
        input = masked_fill(input, isnan(input), 0)
        return sum(input, dims, keepdim, dtype=dtype)
    return run(NanSum(dims, keepdim, dtype), cast(input, dtype))  # type: ignore[no-any-return]


def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *,
            dtype: DType | None = None) -> Tensor:
    """The mean over `dim` of what is not NaN; NaN where all is.  DTypeError unless floating."""
    check_inexact("nanmean", input)
    if input.dtype.is_complex:
        raise DTypeError(f"nanmean: not defined for complex numbers, got {input.dtype.name}")
    result = input.dtype if dtype is None else dtype
    compute = dtypes.compute_dtype(result)
    count = sum(logical_not(isnan(input)), dim, keepdim)
    return cast(div(_number_sum("nanmean", input, dim, keepdim, compute), count), result)


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *,
         dtype: DType | None = None) -> Tensor:
    """The product over one dimension or all; 1 of nothing; cast to `dtype` first, if given.

    The gradient is the product of the other elements, exact also where elements are 0.
    """
    if dim is not None and not isinstance(dim, SupportsIndex):
        raise TypeError(f"prod: dim must be an int, got {dim!r}")
    dims = reduced_dims("prod", input, dim)
    input, dtype = _summed(input, dtype)
    return run(Prod(dims, keepdim, dtype), input)  # type: ignore[no-any-return]


def logsumexp(input: Tensor, dim: Dims, keepdim: bool = False) -> Tensor:
    """log sum exp(input) over `dim` without overflow; -inf of nothing.

    Integers become the default floating dtype.
    """
    dims = reduced_dims("logsumexp", input, dim)
    if input.dtype.kind in ("bool", "int"):
        input = cast(input, dtypes.get_default_dtype())
    return run(LogSumExp(dims, keepdim), input)  # type: ignore[no-any-return]


def _logical_dims(op: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    """As `reduced_dims`, but () is no dimension, as PyTorch has it for all and any."""
    nothing = dim is not None and not isinstance(dim, SupportsIndex) and not len(dim)
    return () if nothing else reduced_dims(op, input, dim)


def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether all elements over `dim` are nonzero (NaN is); bool, or uint8 for uint8."""
    return run(AllTrue(_logical_dims("all", input, dim), keepdim), input)  # type: ignore[no-any-return]


def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element over `dim` is nonzero (NaN is); bool, or uint8 for uint8."""
    return run(AnyTrue(_logical_dims("any", input, dim), keepdim), input)  # type: ignore[no-any-return]


def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """The number of elements over `dim` that are not 0 (NaN is not), in int64."""
    return run(CountNonzero(reduced_dims("count_nonzero", input, dim), False), input)  # type: ignore[no-any-return]
