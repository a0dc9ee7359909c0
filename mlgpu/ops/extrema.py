"""Largest, smallest and middle elements, where they are, and quantiles.

Dimensions as in `mlgpu.ops.reduce`.  NaN counts as larger and as smaller than any number, so a
result is NaN where an element is, except in `nanmedian` and `nanquantile`.  Where a result is
shared by several elements, its gradient is shared evenly among them; the forms that return indices
give it to the element at the index.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, overload

import numpy as np

from mlgpu.autograd.mode import mode as autograd_mode
from mlgpu.cpu.gemm import cast as cast_array
from mlgpu.cpu.gemm import widen
from mlgpu.cpu.runtime import empty, empty_like, zeros
from mlgpu.cpu.totals import kept, total
from mlgpu.cuda import index as cuda_index
from mlgpu.cuda import reduce as cuda_reduce
from mlgpu.cuda import runtime as cuda
from mlgpu.errors import DTypeError, PositionError, ShapeError
from mlgpu.op import on_tensors, run
from mlgpu.ops.arithmetic import div, mul
from mlgpu.ops.cast import cast
from mlgpu.ops.choice import maximum, minimum, where
from mlgpu.ops.compare import eq, isnan, logical_and, logical_or
from mlgpu.ops.creation import arange
from mlgpu.ops.elementwise import elementwise, on_device_arrays
from mlgpu.ops.part import narrow
from mlgpu.ops.reduce import Dims, Reduction, computed, reduced_dims, sum
from mlgpu.ops.scan import cummax
from mlgpu.ops.scatter import gather, scatter
from mlgpu.ops.sort import kthvalue, sort
from mlgpu.tensor import Tensor

__all__ = ["amax", "amin", "aminmax", "argmax", "argmin", "max", "median", "min", "mode",
           "nanmedian"]


class MaxResult(NamedTuple):
    """The largest elements and their indices along the dimension."""

    values: Tensor
    indices: Tensor


class MinResult(NamedTuple):
    """The smallest elements and their indices along the dimension."""

    values: Tensor
    indices: Tensor


class MedianResult(NamedTuple):
    """The medians and their indices along the dimension."""

    values: Tensor
    indices: Tensor


class ModeResult(NamedTuple):
    """The most frequent values and the last index of each along the dimension."""

    values: Tensor
    indices: Tensor


class AminmaxResult(NamedTuple):
    """The smallest and the largest elements."""

    min: Tensor
    max: Tensor


# --- values that several elements may share -------------------------------------------------------


class Attained(Reduction):
    """A value that elements over `dims` have; its gradient is shared evenly among them."""

    saved_inputs = (0,)
    saved_outputs = (0,)

    def pick(self, x: Any) -> Any:
        """The values of an array in its compute dtype, with length 1 in the reduced dimensions."""
        raise NotImplementedError

    def forward(self, x: Any) -> Any:
        return self.shaped(cast_array(self.pick(widen(x)), x.dtype), x.shape)

    def backward(self, dy: Tensor) -> Tensor:
        x, y = self.input(0).detach(), self.unreduced(self.output().detach())
        attained = logical_or(eq(x, y), logical_and(isnan(x), isnan(y)))
        share = div(computed(self.unreduced(dy)), sum(attained, self.dims, True))
        dx: Tensor = mul(share, cast(attained, share.dtype))
        return dx

    def backward_cpu(self, dy: Any) -> Any:
        x, y = self.input_array(0), self.unreduced(self.output_array())
        attained = np.equal(x, y, out=empty_like(x, np.bool_))
        missing = np.isnan(y)
        if missing.any():
            np.logical_or(attained, np.isnan(x) & missing, out=attained)
        share = np.divide(widen(self.unreduced(dy)), total(attained, self.dims))
        dx = np.multiply(attained, share, out=empty_like(x, widen(dy).dtype), casting="unsafe")
        return cast_array(dx, x.dtype)

    def backward_cuda(self, dy: Any) -> Any:
        x, y = self.input_array(0), self.unreduced(self.output_array())
        attained = on_device_arrays(_attains, np.dtype(np.bool_), x, y)
        count = cuda_reduce.reduce(attained, self.dims, "count", np.int64, True)
        return on_device_arrays(_share, x.dtype, attained, self.unreduced(dy), count)


@elementwise
def _attains(x: Tensor, y: Tensor) -> Tensor:
    return logical_or(eq(x, y), logical_and(isnan(x), isnan(y)))


@elementwise
def _share(attained: Tensor, dy: Tensor, count: Tensor) -> Tensor:
    return where(attained, dy / count, 0)


class Amax(Attained):
    """The largest element over `dims`."""

    extreme: Any = np.maximum

    def pick(self, x: Any) -> Any:
        out = empty(kept(x.shape, self.dims), x.dtype)
        return self.extreme.reduce(x, axis=self.dims, keepdims=True, out=out)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, self.name)


class Amin(Amax):
    """The smallest element over `dims`."""

    extreme = np.minimum


class Extremes(Reduction):
    """The smallest and the largest element over `dims`, where no gradient is wanted."""

    name = "aminmax"
    differentiable = False

    def forward(self, x: Any) -> tuple[Any, Any]:
        return tuple(op(self.dims, self.keepdim).forward(x)
                     for op in (Amin, Amax))

    def forward_cuda(self, x: Any) -> tuple[Any, Any]:
        return self.reduced_cuda(x, "minmax", other=True)  # type: ignore[no-any-return]


class MedianOfAll(Attained):
    """The lower median of all elements; NaN of none."""

    name = "median"

    def __init__(self, ignore_nan: bool, ndim: int) -> None:
        super().__init__(tuple(range(ndim)), False)
        self.find = _nanmedian_index if ignore_nan else _median_index

    def pick(self, x: Any) -> Any:
        out = empty((1,) * x.ndim, x.dtype)
        flat = x.reshape(-1)
        out[...] = flat[self.find(flat)] if x.size else np.nan
        return out

    def forward_cuda(self, x: Any) -> Any:
        if not x.size:
            return cuda.full((), math.nan, x.dtype)
        select = _SELECTIONS[self.find]
        return on_tensors(lambda x: select(x, 0)[0].reshape(()), cuda.reshaped(x, (x.size,)))


# --- values with indices --------------------------------------------------------------------------


class Chosen(Reduction):
    """One element along a dimension, and its index there, to which the gradient goes."""

    saved_outputs = (1,)
    nondifferentiable_outputs = (1,)
    materialize = False

    def __init__(self, dims: tuple[int, ...], keepdim: bool, name: str, find: Any) -> None:
        super().__init__(dims, keepdim)
        self.name, self.find = name, find

    def forward(self, x: Any) -> tuple[Any, Any]:
        rows = np.moveaxis(x, self.dims[0], -1) if x.ndim else x.reshape(1)
        index = empty((*rows.shape[:-1], 1), np.int64)
        index[...] = self.find(widen(rows))
        values = empty(index.shape, x.dtype)
        values[...] = np.take_along_axis(rows, index, -1)
        return self.shaped(values, x.shape), self.shaped(index, x.shape)

    def forward_cuda(self, x: Any) -> tuple[Any, Any]:
        if self.find in _EXTREMES:
            return self.reduced_cuda(x, _EXTREMES[self.find], index=True)  # type: ignore[no-any-return]
        dim = self.dims[0] if self.dims else 0
        rows = x if x.ndim else x.reshape(1)
        values, index = on_tensors(lambda x: _SELECTIONS[self.find](x, dim), rows)
        return self.shaped(values, x.shape), self.shaped(index, x.shape)

    def backward(self, dy: Tensor, _: None) -> Tensor:
        if not self.dims:
            return dy
        background = dy.detach()
        zero = background.new_zeros(self._inputs_meta[0][0])
        index = self.unreduced(self.output(1))
        return scatter(zero, self.dims[0], index, self.unreduced(dy))

    def backward_cpu(self, dy: Any, _: None) -> Any:
        if not self.dims:
            return dy
        dx = zeros(self._inputs_meta[0][0], dy.dtype)
        index = self.unreduced(self.output_array(1))
        np.put_along_axis(dx, index, self.unreduced(dy), self.dims[0])
        return dx

    def backward_cuda(self, dy: Any, _: None) -> Any:
        if not self.dims:
            return dy
        index = self.unreduced(self.output_array(1))
        shape = self._inputs_meta[0][0]
        return cuda_index.spread(self.unreduced(dy), index, shape, self.dims[0], False)


class Argument(Reduction):
    """The first index of the largest or smallest element along a dimension, or among all."""

    differentiable = False

    def __init__(self, dims: tuple[int, ...], keepdim: bool, name: str, find: Any) -> None:
        super().__init__(dims, keepdim)
        self.name, self.find = name, find

    def forward(self, x: Any) -> Any:
        rows = np.moveaxis(x, self.dims[0], -1) if len(self.dims) == 1 else x.reshape(-1)
        index = empty((*rows.shape[:-1], 1), np.int64)
        index[...] = self.find(widen(rows))
        return self.shaped(index, x.shape)

    def forward_cuda(self, x: Any) -> Any:
        return self.reduced_cuda(x, self.name, values=False, index=True)


def _max_index(rows: Any) -> Any:
    return np.argmax(rows, -1, keepdims=True)


def _min_index(rows: Any) -> Any:
    return np.argmin(rows, -1, keepdims=True)


_EXTREMES = {_max_index: "argmax", _min_index: "argmin"}


def _median_index(rows: Any) -> Any:
    middle = (rows.shape[-1] - 1) // 2
    index = np.argpartition(rows, middle, -1)[..., middle:middle + 1]
    missing = np.isnan(rows)
    if missing.any():
        first = np.argmax(missing, -1, keepdims=True)
        index = np.where(missing.any(-1, keepdims=True), first, index)
    return index


def _nanmedian_index(rows: Any) -> Any:
    order = np.argsort(rows, -1, kind="stable")  # NaN comes last
    count = np.count_nonzero(rows == rows, -1, keepdims=True)
    return np.take_along_axis(order, np.maximum(count - 1, 0) // 2, -1)


def _mode_index(rows: Any) -> Any:
    order = np.argsort(rows, -1, kind="stable")
    ranked = np.take_along_axis(rows, order, -1)
    place = np.arange(rows.shape[-1])
    first = np.ones(rows.shape, np.bool_)  # of a run of equal values
    np.not_equal(ranked[..., 1:], ranked[..., :-1], out=first[..., 1:])
    run_length = place - np.maximum.accumulate(np.where(first, place, 0), -1)
    return np.take_along_axis(order, np.argmax(run_length, -1, keepdims=True), -1)


def _median_along(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """As `_median_index` along a dimension, with the values, both of length 1 there."""
    values, index = kthvalue(x, (x.shape[dim] + 1) // 2, dim, True)
    if not x.is_floating_point():
        return values, index
    most, first = max(x, dim, True)  # the first NaN, if there is one
    missing = isnan(most)
    return where(missing, most, values), where(missing, first, index)


def _nanmedian_along(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    values, index = sort(x, dim)
    count = sum(eq(x, x), dim, True)
    place = (count - 1).clamp_min(0) // 2
    return gather(values, dim, place), gather(index, dim, place)


def _mode_along(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    values, index = sort(x, dim)
    n = x.shape[dim]
    place = arange(n, device=x.device).reshape((n, *(1,) * (x.ndim - 1 - dim)))
    start = place.expand(x.shape).clone()  # of the run of equal values that an element is in
    if n > 1:
        same = eq(narrow(values, dim, 1, n - 1), narrow(values, dim, 0, n - 1))
        narrow(start, dim, 1, n - 1).masked_fill_(same, 0)
    run_length = place - cummax(start, dim).values
    at = argmax(run_length, dim, True)
    return gather(values, dim, at), gather(index, dim, at)


_SELECTIONS = {_median_index: _median_along, _nanmedian_index: _nanmedian_along,
               _mode_index: _mode_along}


# --- public ---------------------------------------------------------------------------------------


def _check_ordered(op: str, input: Tensor, bools: bool = True) -> None:
    if input.dtype.is_complex or not (bools or input.dtype.kind != "bool"):
        raise DTypeError(f"{op}: not defined for {input.dtype.name}; cast the input first")


def _check_elements(op: str, input: Tensor, dims: tuple[int, ...]) -> None:
    if input.ndim and not math.prod(input.shape[d] for d in dims):
        raise PositionError(f"{op}: must have an element to choose, got shape "
                            f"{tuple(input.shape)} "
                            f"and dimensions {dims}")


def _check_any(op: str, input: Tensor) -> None:
    if not input.numel():
        raise ShapeError(f"{op}: must have an element to choose, got shape {tuple(input.shape)}; "
                         "name a dimension with elements")


def _chosen(op: str, find: Any, input: Tensor, dim: int, keepdim: bool) -> Any:
    dims = reduced_dims(op, input, _one(op, dim))
    _check_elements(op, input, dims)
    return run(Chosen(dims, keepdim, op, find), input)


def _one(op: str, dim: Any) -> Any:
    if not hasattr(dim, "__index__"):
        raise TypeError(f"{op}: dim must be an int, got {dim!r}")
    return dim


def _extremum(op: str, input: Tensor, dim: Any, keepdim: bool, other: Tensor | None) -> Any:
    """The three forms of max and min, less the namedtuple."""
    _check_ordered(op, input)
    if isinstance(dim, Tensor):
        dim, other = None, dim
    if other is not None:
        return (maximum if op == "max" else minimum)(input, other)
    if dim is not None:
        return _chosen(op, _max_index if op == "max" else _min_index, input, dim, keepdim)
    if keepdim:
        raise TypeError(f"{op}: keepdim needs dim; use a{op} for all dimensions")
    _check_any(op, input)
    return run((Amax if op == "max" else Amin)(tuple(range(input.ndim)), False), input)


@overload
def max(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def max(input: Tensor, dim: int, keepdim: bool = False) -> MaxResult: ...
@overload
def max(input: Tensor, dim: Tensor) -> Tensor: ...
@overload
def max(input: Tensor, *, other: Tensor) -> Tensor: ...
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None
        ) -> Any:
    """max(x): the largest element; max(x, dim): (values, indices); max(x, y): `maximum`.

    Indices are int64 and the first where several elements are largest.  Raises ShapeError or
    IndexError where there is no element, DTypeError for complex numbers.
    """
    result = _extremum("max", input, dim, keepdim, other)
    return MaxResult(*result) if isinstance(result, tuple) else result


@overload
def min(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def min(input: Tensor, dim: int, keepdim: bool = False) -> MinResult: ...
@overload
def min(input: Tensor, dim: Tensor) -> Tensor: ...
@overload
def min(input: Tensor, *, other: Tensor) -> Tensor: ...
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Tensor | None = None
        ) -> Any:
    """min(x): the smallest element; min(x, dim): (values, indices); min(x, y): `minimum`.

    As `max` otherwise.
    """
    result = _extremum("min", input, dim, keepdim, other)
    return MinResult(*result) if isinstance(result, tuple) else result


def _attained(op: type[Amax], input: Tensor, dim: Dims, keepdim: bool) -> Tensor:
    name = op.name
    _check_ordered(name, input)
    dims = reduced_dims(name, input, dim)
    _check_elements(name, input, dims)
    return run(op(dims, keepdim), input)  # type: ignore[no-any-return]


def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest element over `dim`.  IndexError where there is none."""
    return _attained(Amax, input, dim, keepdim)


def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The smallest element over `dim`.  IndexError where there is none."""
    return _attained(Amin, input, dim, keepdim)


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> AminmaxResult:
    """(min, max) over one dimension or all.  ShapeError where there is no element."""
    if dim is None:
        _check_any("aminmax", input)
    if input.requires_grad and autograd_mode.grad:
        return AminmaxResult(amin(input, dim, keepdim), amax(input, dim, keepdim))
    _check_ordered("aminmax", input)
    dims = reduced_dims("aminmax", input, dim)
    _check_elements("aminmax", input, dims)
    return AminmaxResult(*run(Extremes(dims, keepdim), input))


def _argument(op: str, find: Any, input: Tensor, dim: int | None, keepdim: bool) -> Tensor:
    _check_ordered(op, input, bools=False)
    dims = reduced_dims(op, input, dim if dim is None else _one(op, dim))
    _check_elements(op, input, dims)
    return run(Argument(dims, keepdim, op, find), input)  # type: ignore[no-any-return]


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The first index, int64, of the largest element along `dim`, or in the flattened input.

    IndexError where there is no element; DTypeError for bool and complex numbers.
    """
    return _argument("argmax", _max_index, input, dim, keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The first index, int64, of the smallest element; see `argmax`."""
    return _argument("argmin", _min_index, input, dim, keepdim)


def _median(op: str, find: Any, input: Tensor, dim: int | None, keepdim: bool) -> Any:
    _check_ordered(op, input, bools=False)
    if dim is not None:
        return MedianResult(*_chosen(op, find, input, dim, keepdim))
    if keepdim:
        raise TypeError(f"{op}: keepdim needs dim")
    if not input.dtype.is_floating_point:
        _check_any(op, input)
    return run(MedianOfAll(find is _nanmedian_index, input.ndim), input)


@overload
def median(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def median(input: Tensor, dim: int, keepdim: bool = False) -> MedianResult: ...
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median of all elements, or (values, indices) along `dim`; the lower of two.

    NaN where an element is, and of nothing; IndexError for nothing along `dim`.
    """
    return _median("median", _median_index, input, dim, keepdim)


@overload
def nanmedian(input: Tensor, dim: None = None) -> Tensor: ...
@overload
def nanmedian(input: Tensor, dim: int, keepdim: bool = False) -> MedianResult: ...
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The `median` of what is not NaN."""
    return _median("nanmedian", _nanmedian_index, input, dim, keepdim)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> ModeResult:
    """(values, indices): the most frequent value along `dim`, the smallest of several.

    The index is the last of that value; each NaN is a value of its own.
    """
    _check_ordered("mode", input)
    return ModeResult(*_chosen("mode", _mode_index, input, dim, keepdim))
