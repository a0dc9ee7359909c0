"""Softmax, its logarithm, and softmin, along one dimension."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import fast
from mlgpu.cpu.rows import as_rows, dots, each_block, powers, sums
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import softmax as cuda_softmax
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import DTypeError
from mlgpu.op import Op, run
from mlgpu.ops.cast import cast
from mlgpu.ops.view import dim_index
from mlgpu.tensor import Tensor

__all__ = ["log_softmax", "softmax", "softmin"]


def _form(name: str, rows: Any) -> Callable[..., None] | None:
    """The compiled form, where there is one: for rows whose numbers lie side by side."""
    loops = fast.load("softmax", rows.size) if rows.ndim == 2 else None
    return None if loops is None else getattr(loops, name)


class Softmax(Op):
    """y = exp(x - max x) / sum exp(x - max x) along `dim`."""

    saved_outputs = (0,)

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        y = empty(x.shape, x.dtype)
        if y.size:
            rows = as_rows(y, self.dim)
            form = _form("softmax", rows)
            each_block(form or _softmax, rows, as_rows(x, self.dim), loop=form is not None)
        return y

    def forward_cuda(self, x: Any) -> Any:
        return cuda_softmax.forward(x, self.dim)

    def backward(self, dy: Tensor) -> Tensor:
        y = self.output()
        return y * (dy - (dy * y).sum(self.dim, keepdim=True))

    def backward_cpu(self, dy: Any) -> Any:
        y = self.output_array()
        dx = empty(y.shape, y.dtype)
        if not dx.size:
            return dx
        rows = as_rows(dx, self.dim)
        form = _form("softmax_backward", rows)
        each_block(form or _softmax_backward, rows, as_rows(dy, self.dim), as_rows(y, self.dim),
                   last_first=True, loop=form is not None)
        return dx

    def backward_cuda(self, dy: Any) -> Any:
        return cuda_softmax.backward(dy, self.output_array(), self.dim)


def _softmax(y: Any, x: Any) -> None:
    _, total = powers(x, y)
    np.multiply(y, np.reciprocal(total), out=y)


def _softmax_backward(dx: Any, dy: Any, y: Any) -> None:
    np.subtract(dy, dots(dy, y, dx), out=dx)
    np.multiply(dx, y, out=dx)


class LogSoftmax(Op):
    """y = x - max x - log sum exp(x - max x) along `dim`."""

    saved_outputs = (0,)

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        y = empty(x.shape, x.dtype)
        if not y.size:
            return y
        rows, source = as_rows(y, self.dim), as_rows(x, self.dim)
        form = _form("log_softmax", rows)
        if form is None:
            each_block(_log_softmax, rows, source, scratch=1)
        else:
            each_block(form, rows, source, loop=True)
        return y

    def forward_cuda(self, x: Any) -> Any:
        return cuda_softmax.forward(x, self.dim, log=True)

    def backward(self, dy: Tensor) -> Tensor:
        return dy - self.output().exp() * dy.sum(self.dim, keepdim=True)

    def backward_cpu(self, dy: Any) -> Any:
        y = self.output_array()
        dx = empty(y.shape, y.dtype)
        if dx.size:
            rows = as_rows(dx, self.dim)
            form = _form("log_softmax_backward", rows)
            each_block(form or _log_softmax_backward, rows, as_rows(dy, self.dim),
                       as_rows(y, self.dim), last_first=True, loop=form is not None)
        return dx

    def backward_cuda(self, dy: Any) -> Any:
        return cuda_softmax.backward(dy, self.output_array(), self.dim, log=True)


def _log_softmax(y: Any, x: Any, power: Any) -> None:
    np.subtract(x, np.maximum.reduce(x, 1, keepdims=True), out=y)
    np.subtract(y, np.log(sums(np.exp(y, out=power))), out=y)


def _log_softmax_backward(dx: Any, dy: Any, y: Any) -> None:
    np.exp(y, out=dx)
    np.multiply(dx, sums(dy), out=dx)
    np.subtract(dy, dx, out=dx)


def softmax(input: Tensor, dim: int | None = None, dtype: DTypeLike | None = None, *,
            _stacklevel: int = 3) -> Tensor:
    """exp(input) / sum exp(input) along `dim`; computed in `dtype` if given.

    A row of -inf gives NaN, as in PyTorch.  Leaving `dim` out is PyTorch's old form: it warns and
    takes dimension 0 for 0, 1 and 3 dimensions, else 1.  Raises DTypeError unless floating.
    """
    return _apply("softmax", Softmax, input, dim, dtype, _stacklevel)


def log_softmax(input: Tensor, dim: int | None = None, dtype: DTypeLike | None = None, *,
                _stacklevel: int = 3) -> Tensor:
    """log(softmax(input, dim)) without overflow; see `softmax`."""
    return _apply("log_softmax", LogSoftmax, input, dim, dtype, _stacklevel)


def softmin(input: Tensor, dim: int | None = None, dtype: DTypeLike | None = None, *,
            _stacklevel: int = 3) -> Tensor:
    """softmax(-input, dim)."""
    return _apply("softmin", Softmax, -input, dim, dtype, _stacklevel)


def _apply(name: str, op: type[Softmax | LogSoftmax], input: Tensor, dim: int | None,
           dtype: Any, stacklevel: int) -> Tensor:
    if dim is None:
        warnings.warn(f"Implicit dimension choice for {name} has been deprecated. Change the call "
                      "to include dim=X as an argument.", stacklevel=stacklevel)
        dim = 0 if input.ndim in (0, 1, 3) else 1
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype))
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{name}: expected a floating tensor, got {input.dtype.name}; pass dtype=")
    return run(op(dim_index(name, dim, input.ndim)), input)  # type: ignore[no-any-return]
