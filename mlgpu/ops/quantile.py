"""Quantiles along a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import sort as cuda_sort
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.arithmetic import lerp, mul, sub
from mlgpu.ops.cast import cast
from mlgpu.ops.choice import clamp_min
from mlgpu.ops.compare import isnan, logical_not
from mlgpu.ops.creation import scalar_tensor
from mlgpu.ops.mask import masked_fill
from mlgpu.ops.reduce import any as any_of
from mlgpu.ops.reduce import sum as sum_of
from mlgpu.ops.rounding import ceil, floor
from mlgpu.ops.rounding import round as rounded
from mlgpu.ops.scatter import gather
from mlgpu.ops.view import dim_index, expand, movedim, reshape, squeeze, unsqueeze
from mlgpu.tensor import Tensor

__all__ = ["nanquantile", "quantile"]

_ROUNDING: dict[str, Any] = {"lower": floor, "higher": ceil, "nearest": rounded}
_BETWEEN = ("linear", "midpoint")


class Ascending(Op):
    """The indices that sort along the last dimension, NaN last."""

    differentiable = False

    def forward(self, x: Any) -> Any:
        order = empty(x.shape, np.int64)
        order[...] = np.argsort(x, -1)
        return order

    def forward_cuda(self, x: Any) -> Any:
        return cuda_sort.sort(x, values=False)[1]


def quantile(input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:
    """The values below which fractions `q` of the elements along `dim` (None: of all) lie.

    q: a number or a tensor of 0 or 1 dimensions in [0, 1], of the input's dtype; a 1-d one adds a
    leading dimension to the result.  interpolation: linear, lower, higher, midpoint or nearest.
    NaN where an element is.  Raises DTypeError unless float32 or float64, ShapeError for no
    elements.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


def nanquantile(input: Tensor, q: float | Tensor, dim: int | None = None, keepdim: bool = False,
                *, interpolation: str = "linear") -> Tensor:
    """The `quantile` of what is not NaN; NaN where all is."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


def _check(op: str, input: Tensor, q: float | Tensor, interpolation: str) -> Tensor:
    """`q` as a tensor, all arguments being valid."""
    if interpolation not in (*_BETWEEN, *_ROUNDING):
        raise ShapeError(f"{op}: interpolation must be one of linear, lower, higher, midpoint, "
                         f"nearest, got {interpolation!r}")
    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise DTypeError(f"{op}: expected float32 or float64, got {input.dtype.name}; cast it")
    if not input.numel():
        raise ShapeError(f"{op}: must have elements, got shape {tuple(input.shape)}")
    number = None if isinstance(q, Tensor) else q
    if not isinstance(q, Tensor):
        q = scalar_tensor(q, dtype=input.dtype, device=input.device)
    if q.ndim > 1:
        raise ShapeError(f"{op}: q must have 0 or 1 dimensions, got shape {tuple(q.shape)}")
    if q.dtype is not input.dtype:
        raise DTypeError(f"{op}: q must have the input's dtype {input.dtype.name}, got "
                         f"{q.dtype.name}")
    fractions: Any = q.tolist() if number is None else number
    for fraction in fractions if q.ndim else [fractions]:
        if not 0 <= fraction <= 1:
            raise ShapeError(f"{op}: q must be in [0, 1], got {fraction}")
    return q


def _quantile(op: str, input: Tensor, q: float | Tensor, dim: int | None, keepdim: bool,
              interpolation: str, ignore_nan: bool) -> Tensor:
    q = _check(op, input, q, interpolation)
    at = None if dim is None else dim_index(op, dim, input.ndim)
    rows = reshape(input, -1) if at is None or not input.ndim else movedim(input, at, -1)
    values = _between(rows, _ranks(rows, reshape(q, -1), ignore_nan), interpolation)
    if keepdim and at is None:
        values = reshape(values, *(1,) * input.ndim, q.numel())
    elif keepdim and at is not None and input.ndim:
        values = unsqueeze(values, at)
    return movedim(values, -1, 0) if q.ndim else squeeze(values, -1)


def _ranks(rows: Tensor, q: Tensor, ignore_nan: bool) -> Tensor:
    """The fractional positions of the quantiles in each sorted row: (..., number of q)."""
    last = rows.shape[-1] - 1
    if ignore_nan:
        count = cast(sum_of(logical_not(isnan(rows)), -1, True), q.dtype)
        of_numbers: Tensor = clamp_min(mul(q, sub(count, 1)), 0)
        return of_numbers
    ranks = expand(mul(q, last), (*rows.shape[:-1], q.numel()))
    return masked_fill(ranks, any_of(isnan(rows), -1, True), last)  # where NaN was sorted to


def _between(rows: Tensor, ranks: Tensor, interpolation: str) -> Tensor:
    """The elements of the sorted rows at fractional positions."""
    order = run(Ascending(), rows)

    def element(place: Tensor) -> Tensor:
        return gather(rows, -1, gather(order, -1, cast(place, dtypes.int64)))

    if interpolation in _ROUNDING:
        return element(_ROUNDING[interpolation](ranks))
    below = floor(ranks.detach())
    weight = 0.5 if interpolation == "midpoint" else sub(ranks, below)
    values: Tensor = lerp(element(below), element(ceil(ranks.detach())), weight)
    return values
