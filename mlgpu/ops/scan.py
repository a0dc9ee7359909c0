"""Running sums, products, extremes and log-sum-exps along a dimension, and differences.

Sums and products of float32 are accumulated in float64, of half types in float32; integers and
bool in int64, which is also the result's dtype unless `dtype` names another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.rows import Scratch, as_rows, blocks, wide
from mlgpu.cpu.runtime import empty
from mlgpu.cpu.scan import accumulate, lead, recurrence, unlead
from mlgpu.cuda import scan as cuda_scan
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run
from mlgpu.ops.cast import cast, clone
from mlgpu.ops.join import cat
from mlgpu.ops.part import narrow
from mlgpu.ops.pick import Pick, Picked, pick, take
from mlgpu.ops.view import dim_index
from mlgpu.tensor import Tensor

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp"]


class Cumsum(Op):
    """y_i = x_0 + ... + x_i along `dim`; from the back with `reverse`."""

    def __init__(self, dim: int, reverse: bool = False) -> None:
        self.dim, self.reverse = dim, reverse

    def forward(self, x: Any) -> Any:
        return accumulate(np.add, x, self.dim, self.reverse)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_scan.scan(x, self.dim, "cumsum", self.reverse)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Cumsum(self.dim, not self.reverse), dy)  # type: ignore[no-any-return]


class Shift(Op):
    """y_i = x_(i + by) along `dim`, and `fill` where that is out of range."""

    def __init__(self, dim: int, by: int, fill: float = 0.0) -> None:
        self.dim, self.by, self.fill = dim, by, fill

    def forward(self, x: Any) -> Any:
        out = empty(x.shape, x.dtype)
        target, source = as_rows(out, self.dim), as_rows(x, self.dim)
        if self.by > 0:
            target[:, :-1], target[:, -1:] = source[:, 1:], self.fill
        else:
            target[:, 1:], target[:, :1] = source[:, :-1], self.fill
        return out

    def forward_cuda(self, x: Any) -> Any:
        return cuda_scan.shift(x, self.dim, self.by, self.fill)

    def backward(self, dy: Tensor) -> Tensor:
        return run(Shift(self.dim, -self.by), dy)  # type: ignore[no-any-return]


class Recurrence(Op):
    """h_i = b_i + a_i h_(i-1) along `dim`, or h_i = b_i + a_i h_(i+1) with `reverse`.

    The derivative of a running product or log-sum-exp is such a recurrence, and so is its own.
    """

    saved_inputs = (0,)
    saved_outputs = (0,)

    def __init__(self, dim: int, reverse: bool) -> None:
        self.dim, self.reverse = dim, reverse

    def forward(self, a: Any, b: Any) -> Any:
        h = recurrence(lead(a, self.dim), lead(b, self.dim), self.reverse)
        return unlead(h, b.shape, self.dim, b.dtype)

    def forward_cuda(self, a: Any, b: Any) -> Any:
        return cuda_scan.scan(b, self.dim, "recurrence", self.reverse, a)

    def backward(self, dh: Tensor) -> tuple[Tensor | None, Tensor]:
        from mlgpu.ops.complex import conj

        after = -1 if self.reverse else 1
        coefficients = run(Shift(self.dim, after), conj(self.input(0)))
        db = run(Recurrence(self.dim, not self.reverse), coefficients, dh)
        if not self.needs[0]:
            return None, db
        return db * conj(run(Shift(self.dim, -after), self.output())), db


class Cumprod(Op):
    """y_i = x_0 * ... * x_i along `dim`.

    dx_j = (x_0 ... x_(j-1)) * r_j with r_j = dy_j + x_(j+1) r_(j+1): no division, so that zeros
    are no special case.
    """

    saved_inputs = (0,)

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return accumulate(np.multiply, x, self.dim)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_scan.scan(x, self.dim, "cumprod")

    def backward(self, dy: Tensor) -> Tensor:
        from mlgpu.ops.complex import conj

        x = conj(self.input(0))
        before = run(Cumprod(self.dim), run(Shift(self.dim, -1, 1.0), x))
        after = run(Recurrence(self.dim, True), run(Shift(self.dim, 1), x), dy)
        return before * after  # type: ignore[no-any-return]

    def backward_cpu(self, dy: Any) -> Any:
        x = lead(self.input_array(0), self.dim)
        np.conjugate(x, out=x)
        moved = empty(x.shape, x.dtype)
        moved[:-1], moved[-1:] = x[1:], 0
        dx = recurrence(moved, lead(dy, self.dim), True)
        moved[1:], moved[:1] = x[:-1], 1
        dx *= np.multiply.accumulate(moved, axis=0, out=moved)
        return unlead(dx, dy.shape, self.dim, dy.dtype)


class Logcumsumexp(Op):
    """y_i = log(exp x_0 + ... + exp x_i) along `dim`, without overflow.

    dx_j = exp(x_j - y_j) r_j with r_j = dy_j + exp(y_j - y_(j+1)) r_(j+1): y never falls, so no
    exponential overflows.  Elements that are -inf get the gradient 0.
    """

    saved_inputs = (0,)
    saved_outputs = (0,)

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        return accumulate(np.logaddexp, x, self.dim)

    def forward_cuda(self, x: Any) -> Any:
        return cuda_scan.scan(x, self.dim, "logcumsumexp")

    def backward(self, dy: Tensor) -> Tensor:
        from mlgpu.ops.choice import where
        from mlgpu.ops.compare import eq, isfinite
        from mlgpu.ops.exponential import exp

        x, y = self.input(0), self.output()
        after = run(Shift(self.dim, 1, np.inf), y)
        finite = isfinite(y) & isfinite(after)
        decay = where(finite, exp(where(finite, y, 0) - where(finite, after, 0)), 0)
        sums = run(Recurrence(self.dim, True), decay, dy)
        return exp(x - where(eq(y, -np.inf), 0, y)) * sums  # type: ignore[no-any-return]

    def backward_cpu(self, dy: Any) -> Any:
        y = lead(self.output_array(), self.dim)
        decay = empty(y.shape, y.dtype)
        np.subtract(y[:-1], y[1:], out=decay[:-1])
        np.exp(decay, out=decay)
        decay[:-1][~(np.isfinite(y[:-1]) & np.isfinite(y[1:]))] = 0
        dx = recurrence(decay, lead(dy, self.dim), True)
        y[y == -np.inf] = 0
        x = lead(self.input_array(0), self.dim)
        x -= y
        dx *= np.exp(x, out=x)
        return unlead(dx, dy.shape, self.dim, dy.dtype)


class _RunningExtreme(Pick):
    """The largest (smallest) element so far, and the last place it was met; NaN wins."""

    repeats = True
    extreme: np.ufunc

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Any) -> Any:
        indices = empty(x.shape, np.int64)
        if not x.size:
            return empty(x.shape, x.dtype), indices
        source, target = as_rows(x, self.dim), as_rows(indices, self.dim)
        best, wins, isnan = (Scratch(source.shape, d) for d in (wide(x.dtype), np.bool_, np.bool_))
        order = np.arange(source.shape[1]).reshape(-1, *(1,) * (source.ndim - 2))
        for place in blocks(source.shape):
            part = source[place].astype(wide(x.dtype), copy=False)
            so_far = self.extreme.accumulate(part, axis=1, out=best.like(part))
            won = np.equal(part, so_far, out=wins.like(part))
            won |= np.not_equal(part, part, out=isnan.like(part))
            index = np.multiply(won, order, out=target[place])
            np.maximum.accumulate(index, axis=1, out=index)
        return take(x, indices, self.dim), indices

    def forward_cuda(self, x: Any) -> tuple[Any, Any]:
        return cuda_scan.scan(x, self.dim, self.name)  # type: ignore[no-any-return]

    def backward_cuda(self, dy: Any, _: None) -> Any:
        return cuda_scan.add_runs(dy, self.output_array(1), self.dim)


class Cummax(_RunningExtreme):
    extreme = np.maximum


class Cummin(_RunningExtreme):
    extreme = np.minimum


# --- public functions -----------------------------------------------------------------------------


def _summand(name: str, input: Tensor, dtype: Any) -> Tensor:
    """`input` in the dtype of the result: `dtype`, or int64 for bool and integers."""
    if dtype is not None:
        wanted = dtypes.as_dtype(dtype)
        if wanted is dtypes.bool_:
            raise DTypeError(f"{name}: the result cannot be bool; leave dtype out for int64")
        return cast(input, wanted)
    return cast(input, dtypes.int64) if input.dtype.kind in ("bool", "int") else input


def _check_inplace(name: str, input: Tensor, dtype: Any) -> None:
    if input.dtype is dtypes.bool_:
        raise DTypeError(f"{name}: a bool tensor cannot hold the result; use the function")
    if dtype is not None and dtypes.as_dtype(dtype) is not input.dtype:
        raise DTypeError(f"{name}: dtype must be the tensor's, {input.dtype!r}, got {dtype!r}; use "
                         "the function")


def cumsum(input: Tensor, dim: int, *, dtype: DTypeLike | None = None) -> Tensor:
    """Running sums along `dim`; bool and integers give int64 unless `dtype` says otherwise."""
    at = dim_index("cumsum", dim, input.ndim)
    return run(Cumsum(at), _summand("cumsum", input, dtype))  # type: ignore[no-any-return]


def cumsum_(self: Tensor, dim: int, *, dtype: DTypeLike | None = None) -> Tensor:
    """`cumsum` in place; integers wrap in their own dtype."""
    at = dim_index("cumsum_", dim, self.ndim)
    _check_inplace("cumsum_", self, dtype)
    return run_inplace(Cumsum(at), self)


def cumprod(input: Tensor, dim: int, *, dtype: DTypeLike | None = None) -> Tensor:
    """Running products along `dim`; bool and integers give int64 unless `dtype` says otherwise.

    The gradient is exact where elements are zero, in every order.
    """
    at = dim_index("cumprod", dim, input.ndim)
    return run(Cumprod(at), _summand("cumprod", input, dtype))  # type: ignore[no-any-return]


def cumprod_(self: Tensor, dim: int, *, dtype: DTypeLike | None = None) -> Tensor:
    """`cumprod` in place; integers wrap in their own dtype."""
    at = dim_index("cumprod_", dim, self.ndim)
    _check_inplace("cumprod_", self, dtype)
    return run_inplace(Cumprod(at), self)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """log of the running sums of exp(input) along `dim`.  Raises DTypeError unless floating."""
    at = dim_index("logcumsumexp", dim, input.ndim)
    if not input.dtype.is_floating_point:
        raise DTypeError(f"logcumsumexp: expected a floating tensor, got {input.dtype.name}")
    return run(Logcumsumexp(at), input)  # type: ignore[no-any-return]


def cummax(input: Tensor, dim: int) -> Picked:
    """(values, indices) of the largest element so far along `dim`; the last one among equals.

    NaN counts as largest.  Raises DTypeError for complex tensors.
    """
    return _running("cummax", Cummax, input, dim)


def cummin(input: Tensor, dim: int) -> Picked:
    """(values, indices) of the smallest element so far along `dim`; the last one among equals.

    NaN counts as smallest.  Raises DTypeError for complex tensors.
    """
    return _running("cummin", Cummin, input, dim)


def _running(name: str, op: type[_RunningExtreme], input: Tensor, dim: int) -> Picked:
    at = dim_index(name, dim, input.ndim)
    if input.dtype.is_complex:
        raise DTypeError(f"{name}: complex numbers have no order, got {input.dtype.name}")
    return pick(op(at), input)


def diff(input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
         append: Tensor | None = None) -> Tensor:
    """input[i + 1] - input[i] along `dim`, `n` times; exclusive or for bool.

    `prepend` and `append` are joined on first; n = 0 gives a copy.  Raises ShapeError for 0-d
    tensors, ValueError for negative n.
    """
    if input.ndim == 0:
        raise ShapeError("diff: expected at least one dimension, got a 0-d tensor")
    if n < 0:
        raise ShapeError(f"diff: n must not be negative, got {n}")
    at = dim_index("diff", dim, input.ndim)
    for part in (prepend, append):
        if part is not None and part.ndim != input.ndim:
            raise ShapeError("diff: prepend and append must have as many dimensions as the tensor "
                             f"({input.ndim}), got {part.ndim}")
    if n == 0:
        return clone(input)
    parts = [part for part in (prepend, input, append) if part is not None]
    result = cat(parts, at) if len(parts) > 1 else input
    n = min(n, result.shape[at])
    if n == 0:
        return clone(result)
    for _ in range(n):
        rest = result.shape[at] - 1
        result = _difference(narrow(result, at, 1, rest), narrow(result, at, 0, rest))
    return result


def _difference(after: Tensor, before: Tensor) -> Tensor:
    from mlgpu.ops.arithmetic import sub
    from mlgpu.ops.compare import logical_xor

    if after.dtype is dtypes.bool_:
        return logical_xor(after, before)
    return sub(after, before)
