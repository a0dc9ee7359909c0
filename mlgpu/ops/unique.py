"""Distinct elements, of a whole tensor or along a dimension."""

from __future__ import annotations

import math
from typing import Any, NoReturn

import numpy as np

from mlgpu.cpu import order
from mlgpu.cpu.gemm import contiguous
from mlgpu.cpu.runtime import copy, empty
from mlgpu.cuda import index as cuda_index
from mlgpu.cuda import runtime as cuda
from mlgpu.cuda import search as cuda_search
from mlgpu.cuda import sort as cuda_sort
from mlgpu.errors import DerivativeError, DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.pick import Array
from mlgpu.ops.view import dim_index
from mlgpu.tensor import Tensor

__all__ = ["unique", "unique_consecutive"]


class Unique(Op):
    """The first of each group of equal elements (rows, with `dim`), in order with `ordered`.

    Also, where asked for, the group of every element, and the groups' sizes.
    """

    nondifferentiable_outputs = (1, 2)

    def __init__(self, dim: int | None, ordered: bool, inverse: bool, counts: bool) -> None:
        self.dim, self.ordered, self.inverse, self.counts = dim, ordered, inverse, counts

    def forward(self, x: Any) -> Any:
        moved = x.reshape(-1) if self.dim is None else np.moveaxis(x, self.dim, 0)
        table = contiguous(moved).reshape(len(moved), math.prod(moved.shape[1:]))
        places = None
        if self.ordered and self._values_alone(x):
            table = copy(table)
            table.reshape(-1).sort()
        elif self.ordered and table.size:
            places = _row_order(table)
            table = np.take(table, places, axis=0, out=empty(table.shape, x.dtype), mode="clip")
        starts = empty((len(table),), np.bool_)
        starts[:1] = True
        np.not_equal(table[1:], table[:-1]).any(axis=1, out=starts[1:])
        results = [self._values(table[starts], moved.shape[1:])]
        if self.inverse:
            groups = np.cumsum(starts, dtype=np.int64, out=empty(starts.shape, np.int64))
            groups -= 1
            inverse = groups
            if places is not None:
                inverse = empty(groups.shape, np.int64)
                inverse[places] = groups
            results.append(inverse.reshape(x.shape) if self.dim is None else inverse)
        if self.counts:
            ends = np.append(np.flatnonzero(starts), len(table))
            results.append(ends[1:] - ends[:-1])
        return tuple(results)

    def forward_cuda(self, x: Any) -> Any:
        dims = tuple(range(x.ndim))
        first = () if self.dim is None else (self.dim, *dims[:self.dim], *dims[self.dim + 1:])
        moved = x.reshape(-1) if self.dim is None else x.transpose(first)
        rest = moved.shape[1:]
        table = cuda.contiguous(moved).reshape(len(moved), math.prod(rest))
        places = None
        if self.ordered and table.size:
            table, places = _in_order(table, self.inverse)
        values, inverse, counts = cuda_search.groups(table, places, self.inverse, self.counts)
        if self.dim is None:
            results = [values.reshape(-1)]
        else:
            back = tuple(first.index(d) for d in dims)
            results = [cuda.copy(values.reshape(len(values), *rest).transpose(back))]
        if inverse is not None:
            results.append(inverse.reshape(x.shape) if self.dim is None else inverse)
        if counts is not None:
            results.append(counts)
        return tuple(results)

    def _values_alone(self, x: Array) -> bool:
        return self.dim is None and not self.inverse and x.dtype.kind in "biuf"

    def _values(self, rows: Array, rest: tuple[int, ...]) -> Array:
        if self.dim is None:
            return rows.reshape(-1)
        values = np.moveaxis(rows.reshape(len(rows), *rest), 0, self.dim)
        out = empty(values.shape, values.dtype)
        np.copyto(out, values)
        return out

    def backward(self, *grads: Tensor) -> NoReturn:
        raise DerivativeError(f"{self.name}: has no derivative; take elements by index instead")


class UniqueConsecutive(Unique):
    """`Unique` for groups of neighbours."""


def _in_order(table: Any, where: bool) -> tuple[Any, Any]:
    """The rows of a device table in stable lexicographic order and, if asked, where they were."""
    rows, width = table.shape
    if width == 1:
        values, places = cuda_sort.sort(table.reshape(1, rows), index=where)
        return values.reshape(rows, 1), places.reshape(rows) if where else None
    places = None
    for column in reversed(range(width)):
        keys = table[:, column]
        if places is None:
            places = cuda_sort.sort(keys, values=False)[1]
        else:
            order = cuda_sort.sort(cuda_index.take_along(keys, places, 0), values=False)[1]
            places = cuda_index.take_along(places, order, 0)
    gathered = cuda_index.gather_rows(table.reshape(1, rows, width), places, None)
    return gathered.reshape(rows, width), places


def _row_order(table: Array) -> Array:
    """The stable lexicographic order of the rows."""
    n, width = table.shape
    places: Array = empty((n,), np.int64)
    if width == 1:
        order.argsort(table.reshape(1, n), False, places.reshape(1, n))
        return places
    keys = order.keys(table, False)
    # Big-endian unsigned keys compare as bytes do.
    rows = np.ascontiguousarray(keys.astype(keys.dtype.newbyteorder(">")))
    places[...] = np.argsort(rows.view(f"V{width * keys.itemsize}")[:, 0], kind="stable")
    return places


def unique(input: Tensor, sorted: bool = True, return_inverse: bool = False,
           return_counts: bool = False, dim: int | None = None) -> Any:
    """The distinct elements in ascending order; with `dim` the distinct slices along it.

    Gives values, or (values[, inverse][, counts]): inverse says for every element (slice) which
    value it is, counts how often each occurs.  Every NaN is distinct.  `sorted=False` sorts, too.
    Raises ShapeError for a tensor without elements whose slices are empty, DTypeError for complex.
    """
    return _unique("unique", Unique, True, input, return_inverse, return_counts, dim)


def unique_consecutive(input: Tensor, return_inverse: bool = False, return_counts: bool = False,
                       dim: int | None = None) -> Any:
    """The elements without those equal to their predecessor; see `unique`."""
    return _unique("unique_consecutive", UniqueConsecutive, False, input, return_inverse,
                   return_counts, dim)


def _unique(name: str, op: type[Unique], ordered: bool, input: Tensor, inverse: bool,
            counts: bool, dim: int | None) -> Any:
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: complex numbers have no order, got {input.dtype.name}")
    at = None
    if dim is not None:
        if input.ndim == 0:
            raise IndexError(f"{name}: a 0-d tensor has no dimension {dim}")
        at = dim_index(name, dim, input.ndim)
        if 0 in (*input.shape[:at], *input.shape[at + 1:]):
            raise ShapeError(f"{name}: slices along dimension {at} are empty, got shape "
                             f"{tuple(input.shape)}")
    results = run(op(at, ordered, bool(inverse), bool(counts)), input)
    return results if len(results) > 1 else results[0]
