"""Norms of vectors and matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu.gemm import cast, contiguous, widen
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import reduce as cuda_reduce
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.linalg_check import check_floating, check_matrix, check_square
from mlgpu.ops.linalg_decompose import svdvals
from mlgpu.ops.linalg_det import slogdet
from mlgpu.ops.linalg_solve import inv
from mlgpu.ops.view import dim_index
from mlgpu.tensor import Tensor

__all__ = ["cond", "linalg_norm", "matrix_norm", "norm", "vector_norm"]

Dims = int | Sequence[int] | None
INF = math.inf

# Orders with an operator of their own in kernels/reduce.cuh.
_NORMS = {0: "norm0", 1: "norm1", 2: "norm2", INF: "norm_inf", -INF: "norm_low"}


class VectorNorm(Op):
    """(sum |x|^p)^(1/p) over `dims`; the largest or smallest |x| for p = inf or -inf."""

    name = "linalg.vector_norm"
    saved_inputs = (0,)
    saved_outputs = (0,)

    def __init__(self, p: float, dims: tuple[int, ...], keepdim: bool) -> None:
        self.p, self.dims, self.keepdim = p, dims, keepdim

    def forward(self, x: Any) -> Any:
        self.full = tuple(1 if d in self.dims else n for d, n in enumerate(x.shape))
        kept = [d for d in range(x.ndim) if d not in self.dims]
        shape = tuple(x.shape[d] for d in kept)
        length = math.prod(x.shape[d] for d in self.dims)
        packed = contiguous(widen(x).transpose([*kept, *self.dims])).reshape(*shape, length)
        out = empty(shape, packed.real.dtype)
        _vector_norm(packed, self.p, out)
        return cast(out, x.real.dtype).reshape(self.full if self.keepdim else shape)

    def forward_cuda(self, x: Any) -> Any:
        self.full = tuple(1 if d in self.dims else n for d, n in enumerate(x.shape))
        op = _NORMS.get(self.p, "norm")
        return cuda_reduce.reduce(x, self.dims, op, dtypes.from_numpy(x.dtype).to_real().numpy,
                                  self.keepdim, p=self.p)

    def backward(self, dy: Tensor) -> Tensor | None:
        if self.p == 0:  # a count: no gradient, as in PyTorch
            return None
        return _norm_gradient(self.input(0), self.output().reshape(self.full),
                              dy.reshape(self.full), self.p, self.dims)


def _vector_norm(x: Any, p: float, out: Any) -> None:
    """The norms of the rows of `x`, along its last axis."""
    if not out.size:
        return
    if p == 2:
        squares = np.vecdot(x, x)
        np.sqrt(squares.real, out=out)
        return
    size = np.abs(x)
    if p == INF:
        np.maximum.reduce(size, axis=-1, out=out)
    elif p == -INF:
        np.minimum.reduce(size, axis=-1, out=out)
    elif p == 0:
        np.add.reduce(size != 0, axis=-1, dtype=out.dtype, out=out)
    elif p == 1:
        np.add.reduce(size, axis=-1, out=out)
    else:
        np.power(size, p, out=size)
        np.add.reduce(size, axis=-1, out=out)
        np.power(out, 1 / p, out=out)


def _norm_gradient(x: Tensor, y: Tensor, dy: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    """dy * d|x|/dx, 0 where the norm is 0; inf-norms share it among all that attain them."""
    if x.dtype in (dtypes.float16, dtypes.bfloat16):
        x, y, dy = x.to(dtypes.float32), y.to(dtypes.float32), dy.to(dtypes.float32)
    zero = y == 0
    if p == 2:
        return x * (dy / y.masked_fill(zero, 1)).masked_fill(zero, 0)
    size = x.abs()
    nothing = size == 0
    sign = x / size.masked_fill(nothing, 1) if x.is_complex() else x.sign()
    if p == 1:
        return sign * dy
    if math.isinf(p):
        attained = ((size == y) | (size != size)).to(size.dtype)
        return sign * (dy / attained.sum(dims, keepdim=True) * attained)
    if p < 1:
        power = size.masked_fill(nothing, 1).pow(p - 1).masked_fill(nothing, 0)
        return sign * power * dy * y.pow(1 - p)
    scale = (dy / y.masked_fill(zero, 1).pow(p - 1)).masked_fill(zero, 0)
    return (sign * size.pow(p - 1) if p < 2 else x * size.pow(p - 2)) * scale


def _dims(op: str, input: Tensor, dim: Dims) -> tuple[int, ...]:
    given = () if dim is None else (dim,) if isinstance(dim, int) else tuple(dim)
    dims = tuple(dim_index(op, d, input.ndim) for d in given)
    if len(set(dims)) != len(dims):
        raise ShapeError(f"{op}: dimensions must be different, got {dim}")
    return dims if dims and input.ndim else tuple(range(input.ndim))


def _converted(op: str, input: Tensor, dtype: dtypes.dtype | None) -> Tensor:
    check_floating(op, input, half=True)
    if dtype is None or dtype is input.dtype:
        return input
    if dtype.is_complex != input.is_complex() or dtype.kind in ("bool", "int"):
        raise DTypeError(f"{op}: dtype must be {'complex' if input.is_complex() else 'real'} and "
                         f"floating as the input is, got {dtype.name}")
    if dtypes.promote_types(input.dtype, dtype) is not dtype:
        raise DTypeError(f"{op}: dtype must not be narrower than the input's {input.dtype.name}, "
                         f"got {dtype.name}")
    return input.to(dtype)


def vector_norm(x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False, *,
                dtype: dtypes.dtype | None = None) -> Tensor:
    """(sum |x|^ord)^(1/ord) over `dim` (default: all), real.

    inf and -inf give the largest and smallest |x|, 0 counts what is not 0.  Computed in float32
    for half types.  The gradient is 0 where the norm is 0.  Raises ShapeError for a negative or
    infinite order of nothing, DTypeError for integers.
    """
    op = "linalg.vector_norm"
    if isinstance(ord, (str, complex)):
        raise DTypeError(f"{op}: ord must be a real number, got {ord!r}")
    x = _converted(op, x, dtype)
    dims = _dims(op, x, dim)
    others = [n for d, n in enumerate(x.shape) if d not in dims]
    if (ord < 0 or ord == INF) and 0 not in others and not x.numel():
        raise ShapeError(f"{op}: order {ord} has no value for no elements, got shape "
                         f"{tuple(x.shape)} and dim {dim}")
    return run(VectorNorm(float(ord), dims, keepdim), x)  # type: ignore[no-any-return]


def matrix_norm(A: Tensor, ord: float | str = "fro", dim: Sequence[int] = (-2, -1),
                keepdim: bool = False, *, dtype: dtypes.dtype | None = None) -> Tensor:
    """A norm of the matrices in the two dimensions `dim`.

    ord: "fro" (root of the sum of squares), "nuc" (sum of singular values), inf or -inf (largest
    or smallest sum of |a| along a row), 1 or -1 (along a column), 2 or -2 (largest or smallest
    singular value).  Raises ShapeError for other orders, DTypeError for integers.
    """
    op = "linalg.matrix_norm"
    check_matrix(op, A)
    if ord not in ("fro", "nuc", 1, -1, 2, -2, INF, -INF):
        raise ShapeError(f"{op}: ord must be 'fro', 'nuc', 1, -1, 2, -2, inf or -inf, got {ord!r}")
    if isinstance(dim, int) or len(dim) != 2:
        raise ShapeError(f"{op}: dim must be two dimensions, got {dim}")
    A = _converted(op, A, dtype)
    rows, columns = _dims(op, A, dim)
    if ord == "fro":
        return vector_norm(A, 2, (rows, columns), keepdim)
    if ord in ("nuc", 2, -2):
        check_floating(op, A)
        values = svdvals(A.movedim((rows, columns), (-2, -1)))
        norms = values.sum(-1) if ord == "nuc" else _extreme(op, values, -1, ord)
        return norms.unsqueeze(min(rows, columns)).unsqueeze(max(rows, columns)) if keepdim else (
            norms)
    along, across = (rows, columns) if abs(ord) == 1 else (columns, rows)  # type: ignore[arg-type]
    norms = _extreme(op, A.abs().sum(along, keepdim=True), across, ord, keepdim=True)
    if keepdim:
        return norms
    return norms.squeeze((rows, columns))


def _extreme(op: str, values: Tensor, dim: int, ord: float | str, keepdim: bool = False) -> Tensor:
    largest = not isinstance(ord, str) and ord > 0
    if values.size(dim):
        return values.amax(dim, keepdim) if largest else values.amin(dim, keepdim)
    if not largest:
        raise ShapeError(f"{op}: order {ord} has no value for a matrix without elements")
    return values.sum(dim, keepdim=keepdim)  # the norm of nothing is 0


def linalg_norm(A: Tensor, ord: float | str | None = None, dim: Dims = None,
                keepdim: bool = False, *, dtype: dtypes.dtype | None = None) -> Tensor:
    """`vector_norm` over one dimension, `matrix_norm` over two, the 2-norm of all by default."""
    op = "linalg.norm"
    dims = None if dim is None else [dim] if isinstance(dim, int) else list(dim)
    if dims is not None and len(dims) not in (1, 2):
        raise ShapeError(f"{op}: dim must be one or two dimensions, got {dim}")
    if ord is None:
        return vector_norm(A, 2, dims, keepdim, dtype=dtype)
    if dims is None:
        if A.ndim not in (1, 2):
            raise ShapeError(f"{op}: with ord but without dim the input must be a vector or a "
                             f"matrix, got shape {tuple(A.shape)}")
        dims = list(range(A.ndim))
    if len(dims) == 2 or isinstance(ord, str):
        return matrix_norm(A, ord, dims, keepdim, dtype=dtype)
    return vector_norm(A, ord, dims, keepdim, dtype=dtype)


def norm(input: Tensor, p: float | str | None = "fro", dim: Dims = None, keepdim: bool = False,
         dtype: dtypes.dtype | None = None) -> Tensor:
    """The vector norm of order `p` over `dim` (default: all); "fro" is 2, "nuc" a matrix norm."""
    count = 1 if isinstance(dim, int) else 0 if dim is None else len(dim)
    if p is None or (p == "fro" and count <= 2):
        p = 2
    if isinstance(p, str):
        dims = tuple(range(input.ndim)) if dim is None else dim
        return matrix_norm(input, p, dims, keepdim, dtype=dtype)  # type: ignore[arg-type]
    return vector_norm(input, p, dim, keepdim, dtype=dtype)


def cond(A: Tensor, p: float | str | None = None) -> Tensor:
    """The condition number |A| |A^-1| in `matrix_norm` p (default 2); inf for a singular matrix.

    Orders None, 2 and -2 take any (..., m, n), the others square matrices.
    """
    check_floating("linalg.cond", A)
    check_matrix("linalg.cond", A)
    if p in (None, 2, -2):
        values = svdvals(A)
        if not values.shape[-1]:
            return values.sum(-1)
        first, last = (values[..., -1], values[..., 0]) if p == -2 else (
            values[..., 0], values[..., -1])
        return first / last
    check_square("linalg.cond", A)
    assert p is not None
    singular = slogdet(A.detach()).sign == 0
    masked = singular.unsqueeze(-1).unsqueeze(-1)
    eye = A.new_zeros(A.shape[-1], A.shape[-1]).fill_diagonal_(1)
    regular = A.masked_fill(masked, 0) + eye * masked.to(A.dtype)
    norms = matrix_norm(regular, p) * matrix_norm(inv(regular), p)
    return norms.masked_fill(singular, INF)
