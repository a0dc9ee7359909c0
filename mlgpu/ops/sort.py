"""Sorting and selecting along a dimension.

NaN counts as the largest value: last in ascending order, first in descending.  Every order is
stable, whether asked for or not.  Gradients go back to the elements that were taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import order
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import sort as cuda_sort
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import run
from mlgpu.ops.pick import Array, Pick, Picked, pick, take
from mlgpu.ops.view import dim_index
from mlgpu.tensor import Tensor

__all__ = ["argsort", "kthvalue", "msort", "sort", "topk"]


def _last(x: Array, dim: int) -> Array:
    """x as C-contiguous (rows, n) with axis `dim` last; a view where it is that already."""
    if x.ndim == 0:
        return x.reshape(1, 1)
    moved = np.moveaxis(x, dim, -1)
    n = moved.shape[-1]
    if moved.flags.c_contiguous:
        return moved.reshape(x.size // n if n else 0, n)
    out = empty(moved.shape, x.dtype)
    np.copyto(out, moved)
    return out.reshape(x.size // n if n else 0, n)


def _back(rows: Array, shape: tuple[int, ...], dim: int) -> Array:
    """(rows, n) in the layout of `shape`, whose axis `dim` has the length n."""
    if not shape or dim == len(shape) - 1:
        return rows.reshape(shape)
    out = empty(shape, rows.dtype)
    target = np.moveaxis(out, dim, -1)
    np.copyto(target, rows.reshape(target.shape))
    return out


class _Selection(Pick):
    """The elements at positions that `positions` finds along `dim`."""

    def forward(self, x: Any) -> Any:
        k = self.count(x.shape[self.dim] if x.ndim else 1)
        shape = (*x.shape[:self.dim], k, *x.shape[self.dim + 1:]) if x.ndim else ()
        if 0 in shape:
            return empty(shape, x.dtype), empty(shape, np.int64)
        rows = _last(x, self.dim)
        found = empty((len(rows), k), np.int64)
        self.positions(rows, found)
        indices = _back(found, shape, self.dim)
        return self.shaped(take(x, indices, self.dim)), self.shaped(indices)

    def count(self, n: int) -> int:
        raise NotImplementedError

    def positions(self, rows: Array, out: Array) -> None:
        raise NotImplementedError

    def shaped(self, array: Array) -> Array:
        return array


class Sort(_Selection):
    """All elements in order."""

    def __init__(self, dim: int, descending: bool) -> None:
        self.dim, self.descending = dim, descending

    def count(self, n: int) -> int:
        return n

    def positions(self, rows: Array, out: Array) -> None:
        order.argsort(rows, self.descending, out)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_sort.sort(x, self.dim, self.descending)


class Topk(_Selection):
    """The first k elements in order."""

    def __init__(self, k: int, dim: int, largest: bool, ordered: bool) -> None:
        self.k, self.dim, self.largest, self.ordered = k, dim, largest, ordered

    def count(self, n: int) -> int:
        return self.k

    def positions(self, rows: Array, out: Array) -> None:
        order.argselect(rows, self.k, self.largest, self.ordered, out)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_sort.topk(x, self.k, self.dim, self.largest)


class Kthvalue(_Selection):
    """The k-th smallest element, counted from 1."""

    def __init__(self, k: int, dim: int, keepdim: bool) -> None:
        self.k, self.dim, self.keepdim = k, dim, keepdim

    def count(self, n: int) -> int:
        return 1

    def positions(self, rows: Array, out: Array) -> None:
        order.argkth(rows, self.k - 1, out[:, 0])

    def forward_cuda(self, x: Any) -> Any:
        values, indices = cuda_sort.kth(x, self.k - 1, self.dim)
        return self.shaped(values), self.shaped(indices)

    def shaped(self, array: Array) -> Array:
        return array if self.keepdim or not array.ndim else array.squeeze(self.dim)


class Argsort(Sort):
    """The order alone."""

    differentiable = False

    def forward(self, x: Any) -> Any:
        indices = empty(x.shape, np.int64)
        if not x.size:
            return indices
        rows = _last(x, self.dim)
        found = empty(rows.shape, np.int64)
        self.positions(rows, found)
        return _back(found, x.shape, self.dim)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_sort.sort(x, self.dim, self.descending, values=False)[1]


# --- public functions -----------------------------------------------------------------------------


def _check(name: str, input: Tensor, dim: int) -> int:
    at = dim_index(name, dim, input.ndim)
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: complex numbers have no order, got {input.dtype.name}")
    return at


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Picked:
    """(values, indices) of the elements in order along `dim`; equal ones keep their order.

    `stable` is accepted for PyTorch's sake: the order is always stable.  Raises DTypeError for
    complex tensors.
    """
    return pick(Sort(_check("sort", input, dim), bool(descending)), input)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False
            ) -> Tensor:
    """The int64 indices that `sort` returns."""
    return run(Argsort(_check("argsort", input, dim), bool(descending)), input)  # type: ignore[no-any-return]


def msort(input: Tensor) -> Tensor:
    """The values in ascending order along the first dimension."""
    return sort(input, 0).values


def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Picked:
    """(values, indices) of the k largest (smallest) elements along `dim`, in order if `sorted`.

    Raises ShapeError unless 0 <= k <= length, DTypeError for bool and complex tensors.
    """
    at = _check("topk", input, dim)
    if input.dtype is dtypes.bool_:
        raise DTypeError("topk: bool is not supported; use sort, or cast to uint8")
    n = input.shape[at] if input.ndim else 1
    if not 0 <= k <= n:
        raise ShapeError(f"topk: k must be in 0..{n} for dimension {at}, got {k}")
    return pick(Topk(k if input.ndim else 1, at, bool(largest), bool(sorted)), input)


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Picked:
    """(values, indices) of the k-th smallest element along `dim`, counted from 1.

    Raises ShapeError unless 1 <= k <= length, DTypeError for bool and complex tensors.
    """
    at = _check("kthvalue", input, dim)
    if input.dtype is dtypes.bool_:
        raise DTypeError("kthvalue: bool is not supported; cast to uint8")
    n = input.shape[at] if input.ndim else 1
    if not 1 <= k <= n:
        raise ShapeError(f"kthvalue: k must be in 1..{n} for dimension {at}, got {k}")
    return pick(Kthvalue(k, at, bool(keepdim)), input)
