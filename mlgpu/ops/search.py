"""Searching sorted sequences, membership, and counting."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.rows import wide
from mlgpu.cpu.runtime import empty, full, zeros
from mlgpu.cuda import index as cuda_index
from mlgpu.cuda import runtime as cuda
from mlgpu.cuda import search as cuda_search
from mlgpu.cuda import sort as cuda_sort
from mlgpu.cuda.copy import copy_into as cuda_copy_into
from mlgpu.errors import DerivativeError, DTypeError, MlgpuError, ShapeError
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.cast import cast
from mlgpu.ops.extrema import aminmax
from mlgpu.ops.pick import Array, TakeAlong
from mlgpu.tensor import Tensor

__all__ = ["bincount", "bucketize", "histc", "isin", "searchsorted"]

Number = float | int | bool


def _tensor(value: Tensor | Number, like: Tensor) -> Tensor:
    """`value` as a tensor on the device of `like`."""
    from mlgpu.ops.creation import tensor

    if isinstance(value, Tensor):
        return value
    return tensor(value, dtype=dtypes.scalar_dtype(value), device=like.device)


def _check_order(name: str, *tensors: Tensor) -> None:
    for each in tensors:
        if each.dtype.kind not in ("int", "float"):
            raise DTypeError(f"{name}: expected integers or floats, got {each.dtype.name}; "
                             "cast first")


# --- searching ------------------------------------------------------------------------------------


class Searchsorted(Op):
    """Where to insert the second input's elements into the first's ascending rows."""

    differentiable = False

    def __init__(self, right: bool, dtype: Any) -> None:
        self.right, self.dtype = right, dtype

    def forward(self, sequence: Any, values: Any) -> Any:
        out = empty(values.shape, self.dtype)
        sequence = sequence.astype(wide(sequence.dtype), copy=False)
        values = values.astype(wide(values.dtype), copy=False)
        if sequence.ndim == 1:
            out[...] = np.searchsorted(sequence, values, "right" if self.right else "left")
        elif values.size:
            rows = math.prod(sequence.shape[:-1])
            out[...] = self._bisect(sequence.reshape(rows, -1), values.reshape(rows, -1)
                                    ).reshape(values.shape)
        return out

    def forward_cuda(self, sequence: Any, values: Any) -> Any:
        return cuda_search.searchsorted(sequence, values, self.right, self.dtype)

    def _bisect(self, sequence: Array, values: Array) -> Array:
        """All rows at once: one step of every bisection is one pass."""
        rows, n = sequence.shape
        low, high = zeros(values.shape, np.int64), full(values.shape, n, np.int64)
        first = (np.arange(rows) * n)[:, None]
        flat = sequence.reshape(-1)
        reached = np.greater if self.right else np.greater_equal
        for _ in range(n.bit_length()):
            middle = (low + high) >> 1
            # A finished search has low = high = middle, which may be n.
            pivot = np.take(flat, first + np.minimum(middle, n - 1))
            stop = reached(pivot, values) | (low == high)
            low, high = np.where(stop, low, middle + 1), np.where(stop, middle, high)
        return low


def searchsorted(sorted_sequence: Tensor, input: Tensor | Number, *, out_int32: bool = False,
                 right: bool = False, side: str | None = None, sorter: Tensor | None = None
                 ) -> Tensor:
    """Where to insert `input` into `sorted_sequence` so that its last dimension stays ascending.

    Index i has sequence[i-1] < v <= sequence[i], or <= and < with `right` (side="right").  A 1-d
    sequence takes any input, also a number; otherwise all dimensions but the last must agree.
    `sorter` is the order that sorts the sequence.  int64, or int32 with `out_int32`.
    Raises ShapeError, DTypeError for bool and complex, ValueError for a contradictory side.
    """
    if side not in (None, "left", "right"):
        raise ShapeError(f"searchsorted: side must be 'left' or 'right', got {side!r}")
    if side == "left" and right:
        raise ShapeError("searchsorted: side='left' contradicts right=True; give one of them")
    if sorted_sequence.ndim == 0:
        raise ShapeError("searchsorted: the sequence must have a dimension, got a 0-d tensor")
    values = _tensor(input, sorted_sequence)
    have, want = tuple(values.shape[:-1]), tuple(sorted_sequence.shape[:-1])
    if sorted_sequence.ndim > 1 and (have != want or values.ndim == 0):
        raise ShapeError("searchsorted: all dimensions but the last must agree, got a sequence of "
                         f"shape {tuple(sorted_sequence.shape)} and input {tuple(values.shape)}")
    _check_order("searchsorted", sorted_sequence, values)
    kind = dtypes.result_type(sorted_sequence, input) if not isinstance(input, Tensor) else (
        dtypes.promote_types(sorted_sequence.dtype, values.dtype))
    if sorter is not None:
        sorted_sequence = _ordered(sorted_sequence, sorter)
    op = Searchsorted(right or side == "right", np.int32 if out_int32 else np.int64)
    return run(op, cast(sorted_sequence, kind), cast(values, kind))  # type: ignore[no-any-return]


def _ordered(sequence: Tensor, sorter: Tensor) -> Tensor:
    from mlgpu.ops.scatter import gather

    if sorter.dtype is not dtypes.int64:
        raise DTypeError(f"searchsorted: sorter must be int64, got {sorter.dtype.name}")
    if sorter.shape != sequence.shape:
        raise ShapeError(f"searchsorted: sorter must have the sequence's shape "
                         f"{tuple(sequence.shape)}, got {tuple(sorter.shape)}")
    return gather(sequence, -1, sorter)


def bucketize(input: Tensor | Number, boundaries: Tensor, *, out_int32: bool = False,
              right: bool = False) -> Tensor:
    """The bucket between ascending 1-d `boundaries` that each element lies in.

    Bucket i has boundaries[i-1] < v <= boundaries[i], or <= and < with `right`.
    """
    if boundaries.ndim != 1:
        raise ShapeError(f"bucketize: boundaries must be 1-d, got shape {tuple(boundaries.shape)}")
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


# --- membership -----------------------------------------------------------------------------------


class Isin(Op):
    """Whether each element of the first input occurs in the second."""

    differentiable = False

    def __init__(self, assume_unique: bool, invert: bool) -> None:
        self.assume_unique, self.invert = assume_unique, invert

    def forward(self, elements: Any, tests: Any) -> Any:
        out = empty(elements.shape, np.bool_)
        out[...] = np.isin(elements.astype(wide(elements.dtype), copy=False),
                           tests.astype(wide(tests.dtype), copy=False),
                           assume_unique=self.assume_unique, invert=self.invert)
        return out

    def forward_cuda(self, elements: Any, tests: Any) -> Any:
        ordered = cuda_sort.sort(tests.reshape(-1), index=False)[0]
        return cuda_search.is_in(elements, ordered, self.invert)


def isin(elements: Tensor | Number, test_elements: Tensor | Number, *, assume_unique: bool = False,
         invert: bool = False) -> Tensor:
    """Whether each element is one of `test_elements` (is none of them with `invert`); bool.

    One of the two may be a number.  `assume_unique` promises that neither repeats a value.  NaN
    equals nothing.  Raises DTypeError for bool and complex tensors.
    """
    tensors = [t for t in (elements, test_elements) if isinstance(t, Tensor)]
    if not tensors:
        raise TypeError("isin: one of elements and test_elements must be a Tensor")
    left, right = _tensor(elements, tensors[0]), _tensor(test_elements, tensors[0])
    _check_order("isin", left, right)
    kind = dtypes.result_type(elements, test_elements)
    return run(Isin(assume_unique, invert), cast(left, kind), cast(right, kind))  # type: ignore[no-any-return]


# --- counting -------------------------------------------------------------------------------------


def _counts(index: Array, weights: Array | None, minlength: int, dtype: Any) -> Array:
    length = max(minlength, int(index.max()) + 1) if index.size else minlength
    out = empty((length,), dtype)
    out[...] = np.bincount(index, weights, length)
    return out


class Bincount(Op):
    """How often each of 0, 1, 2, ... occurs."""

    differentiable = False

    def __init__(self, minlength: int, length: int) -> None:
        self.minlength, self.length = minlength, length

    def forward(self, index: Any) -> Any:
        return _counts(index, None, self.minlength, np.int64)

    def forward_cuda(self, index: Any) -> Any:
        return cuda_search.count_places(index, max(self.minlength, self.length))


class WeightedBincount(Op):
    """The sum of the weights at each of 0, 1, 2, ..."""

    name = "bincount"

    def __init__(self, index: Array, minlength: int, length: int) -> None:
        self.index, self.minlength, self.length = index, minlength, length

    def forward(self, weights: Any) -> Any:
        dtype = np.float32 if weights.dtype == np.float32 else np.float64
        return _counts(self.index, weights.astype(np.float64, copy=False), self.minlength, dtype)

    def forward_cuda(self, weights: Any) -> Any:
        dtype = np.dtype(np.float32 if weights.dtype == np.float32 else np.float64)
        exact = cuda.empty(weights.shape, np.dtype(np.float64))
        cuda_copy_into(exact, weights)
        shape = (max(self.minlength, self.length),)
        sums = cuda_index.spread(exact, self.index, shape, 0, True)
        if sums.dtype == dtype:
            return sums
        out = cuda.empty(shape, dtype)
        cuda_copy_into(out, sums)
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return run(TakeAlong(self.index, 0, True), dy)  # type: ignore[no-any-return]


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of 0, 1, 2, ... occurs in a 1-d integer tensor, or the sum of its weights.

    int64 without weights, float32 with float32 weights, otherwise float64; the weights are
    differentiable.  Without elements the result is int64, as in PyTorch.  Raises ShapeError unless
    1-d, MlgpuError for negative elements.
    """
    if input.dtype.kind != "int":
        raise DTypeError(f"bincount: expected integers, got {input.dtype.name}")
    if input.ndim != 1:
        raise ShapeError(f"bincount: expected a 1-d tensor, got shape {tuple(input.shape)}")
    if minlength < 0:
        raise ShapeError(f"bincount: minlength must not be negative, got {minlength}")
    if weights is not None and weights.shape != input.shape:
        raise ShapeError(f"bincount: weights must have the shape {tuple(input.shape)}, got "
                         f"{tuple(weights.shape)}")
    least, most = (int(t.item()) for t in aminmax(input)) if input.numel() else (0, -1)
    if least < 0:
        raise MlgpuError(f"bincount: elements must not be negative, got {least}")
    if weights is None or not input.numel():
        return run(Bincount(minlength, most + 1), input)  # type: ignore[no-any-return]
    if weights.dtype.is_complex:
        raise DTypeError(f"bincount: weights must be real, got {weights.dtype.name}")
    index = cast(input, dtypes.int64)._array
    return run(WeightedBincount(index, minlength, most + 1), weights)  # type: ignore[no-any-return]


class Histc(Op):
    """Counts of the elements in equal bins between two bounds."""

    def __init__(self, bins: int, low: float, high: float) -> None:
        self.bins, self.low, self.high = bins, low, high

    def forward(self, x: Any) -> Any:
        out = empty((self.bins,), x.dtype)
        x = x.reshape(-1).astype(wide(x.dtype), copy=False)
        low, high = x.dtype.type(self.low), x.dtype.type(self.high)
        if self.low == self.high and x.size:
            low, high = x.min(), x.max()
        if not (np.isfinite(low) and np.isfinite(high)):
            raise MlgpuError(f"histc: the range [{low}, {high}] is not finite; give min and max")
        if low == high:
            low, high = low - 1, high + 1
        inside = x[(x >= low) & (x <= high)]
        place = ((inside - low) * x.dtype.type(self.bins) / (high - low)).astype(np.int64)
        np.minimum(place, self.bins - 1, out=place)
        np.copyto(out, np.bincount(place, minlength=self.bins), casting="unsafe")
        return out

    def forward_cuda(self, x: Any) -> Any:
        low, high = self.low, self.high
        if low == high and x.size:
            low, high = on_tensors(lambda x: tuple(aminmax(x)), x)
            low, high = (float(cuda_search.on_host(bound)) for bound in (low, high))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise MlgpuError(f"histc: the range [{low}, {high}] is not finite; give min and max")
        if low == high:
            low, high = low - 1, high + 1
        out = cuda.empty((self.bins,), x.dtype)
        cuda_copy_into(out, cuda_search.count_bins(x, self.bins, low, high))
        return out

    def backward(self, dy: Tensor) -> Tensor:
        raise DerivativeError("histc: has no derivative; detach() its input")


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` equal bins from `min` to `max`, both included.

    With min = max the range is that of the data.  Elements outside, and NaN with a range given,
    are not counted.  The dtype is the input's.  Raises DTypeError unless floating, ShapeError for
    bins < 1 or min > max, MlgpuError for a range that is not finite.
    """
    if not input.dtype.is_floating_point:
        raise DTypeError(f"histc: expected a floating tensor, got {input.dtype.name}")
    if bins < 1:
        raise ShapeError(f"histc: bins must be positive, got {bins}")
    if min > max:
        raise ShapeError(f"histc: max must not be less than min, got {min} and {max}")
    return run(Histc(bins, min, max), input)  # type: ignore[no-any-return]
