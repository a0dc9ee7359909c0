"""Integrals of sampled functions, and covariances of sampled variables."""

from __future__ import annotations

import warnings
from typing import Any

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.ops.complex import conj
from mlgpu.ops.reduce import mean
from mlgpu.ops.scan import cumsum, diff
from mlgpu.ops.view import dim_index
from mlgpu.tensor import Tensor

__all__ = ["corrcoef", "cov", "cumulative_trapezoid", "trapezoid", "trapz"]


def _areas(name: str, y: Tensor, x: Tensor | None, dx: Any, dim: int) -> Tensor:
    """The area under each step along `dim`."""
    at = dim_index(name, dim, y.ndim)
    n = y.shape[at]
    heights = y.narrow(at, 1, max(n - 1, 0)) + y.narrow(at, 0, max(n - 1, 0))
    if x is None:
        evenly: Tensor = heights * (dx * 0.5)
        return evenly
    if x.ndim == 1:
        if x.shape[0] != n:
            raise ShapeError(f"{name}: {x.shape[0]} places for {n} values along dimension {dim}")
        return heights * (diff(x) / 2).view(-1, *[1] * (y.ndim - 1 - at))
    return heights * (diff(x, dim=dim if dim < 0 else dim - y.ndim) / 2)


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1) -> Tensor:
    """The integral of `y` along `dim` by the trapezoidal rule, at places `x` or `dx` apart.

    Raises ShapeError where `x` has another length.
    """
    return _areas("trapezoid", y, x, dx, dim).sum(dim)


trapz = trapezoid


def cumulative_trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = 1, dim: int = -1
                         ) -> Tensor:
    """As `trapezoid`, up to each value but the first."""
    return cumsum(_areas("cumulative_trapezoid", y, x, dx, dim), dim)


def cov(input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
        aweights: Tensor | None = None) -> Tensor:
    """The covariance matrix of variables in the rows of `input`, observations in its columns.

    `fweights`: how often each observation was made; `aweights`: how much it counts.  Raises
    ShapeError for more than two dimensions or weights of another length.
    """
    if input.ndim > 2:
        raise ShapeError(f"cov: expected at most two dimensions, got {tuple(input.shape)}")
    rows = input.reshape(1, -1) if input.ndim < 2 else input
    rows = rows if rows.is_floating_point() or rows.is_complex() else rows.float()
    if fweights is not None and fweights.dtype.kind != "int":
        raise DTypeError(f"cov: fweights are counts, integers, got {fweights.dtype.name}")
    if aweights is not None and not aweights.is_floating_point():
        raise DTypeError(f"cov: aweights must be floating, got {aweights.dtype.name}")
    for name, given in (("fweights", fweights), ("aweights", aweights)):
        if given is not None and bool((given < 0).any()):
            raise ShapeError(f"cov: {name} must not be negative")
    kind = rows.dtype if aweights is None else dtypes.promote_types(rows.dtype, aweights.dtype)
    rows = rows.to(dtypes.compute_dtype(kind))
    weights: Tensor | None = None
    for given in (fweights, aweights):
        if given is not None:
            if tuple(given.shape) != (rows.shape[1],):
                raise ShapeError(f"cov: {rows.shape[1]} observations and weights of shape "
                                 f"{tuple(given.shape)}")
            weights = given if weights is None else weights * given
    if weights is None:
        centred = rows - mean(rows, 1, keepdim=True)
        count: Any = rows.shape[1] - correction
        product = centred @ conj(centred).mT
    else:
        rows = rows.to(dtypes.promote_types(rows.dtype, kind))
        weights = weights.to(rows.dtype)
        total = weights.sum()
        centred = rows - (rows * weights).sum(1, keepdim=True) / total
        spread = 1 if aweights is None else (weights * aweights).sum() / total
        count = total - correction * spread
        product = (centred * weights) @ conj(centred).mT
    if (count if isinstance(count, int) else count.item().real) <= 0:
        warnings.warn("cov: degrees of freedom is <= 0; correction should be less than the number "
                      "of observations", stacklevel=2)
        count = 0
    found: Tensor = (product / count).to(kind)
    return found.reshape(()) if len(rows) == 1 else found


def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables in the rows of `input`, from -1 to 1."""
    c = cov(input)
    if c.ndim == 0:
        return c / c
    scale = c.diagonal().sqrt() if not c.is_complex() else c.diagonal().real.sqrt()
    c = c / scale[:, None] / scale[None, :]
    return c if c.is_complex() else c.clamp(-1, 1)
