"""Products of matrices and vectors.

Every one of them is `MatMul` (or, with a summand, `AddMatMul`) on matrices with leading batch
dimensions that broadcast, or `VecDot` on vectors; vectors become matrices of one row or column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from mlgpu.cpu.gemm import adjoint, cast, contiguous, gemm, widen
from mlgpu.cpu.runtime import empty
from mlgpu.cuda import gemm as cuda_gemm
from mlgpu.cuda import runtime as cuda_runtime
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.complex import conj
from mlgpu.tensor import Tensor

__all__ = ["bmm", "chain_matmul", "dot", "ger", "inner", "matmul", "mm", "multi_dot", "mv", "outer",
           "vdot", "vecdot"]


class MatMul(Op):
    """a @ b for matrices; leading dimensions broadcast."""

    left = 0  # the position of `a` among the inputs

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (self.left,) * needs[self.left + 1] + (self.left + 1,) * needs[self.left]

    def forward(self, a: Any, b: Any) -> Any:
        self.rows_fold = b.ndim == 2 and a.ndim > 2
        return gemm(a, b)

    def forward_cuda(self, a: Any, b: Any) -> Any:
        self.rows_fold = b.ndim == 2 and a.ndim > 2
        return cuda_gemm.gemm(a, b)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, ...]:
        return self.factor_gradients(dy)

    def backward_cpu(self, dy: Any) -> tuple[Any, ...]:
        return self.factor_gradients_cpu(dy)

    def backward_cuda(self, dy: Any) -> tuple[Any, ...]:
        return self.factor_gradients_cuda(dy)

    def factor_gradients(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        da = db = None
        if self.needs[self.left]:
            da = run(MatMul(), dy, conj_transpose(self.input(self.left + 1)))
        if self.needs[self.left + 1]:
            a = self.input(self.left)
            if self.rows_fold:
                rows = math.prod(a.shape[:-1])
                a, dy = a.reshape(rows, a.shape[-1]), dy.reshape(rows, dy.shape[-1])
            db = run(MatMul(), conj_transpose(a), dy)
        return da, db

    def factor_gradients_cpu(self, dy: Any) -> tuple[Any, Any]:
        da = db = None
        dy = widen(dy)
        if self.needs[self.left]:
            da = gemm(dy, adjoint(widen(self.input_array(self.left + 1))))
        if self.needs[self.left + 1]:
            a = widen(self.input_array(self.left))
            if self.rows_fold:
                # b's gradient summed over the batch is one GEMM, with no full-size intermediate.
                rows = math.prod(a.shape[:-1])
                a = contiguous(a).reshape(rows, a.shape[-1])
                dy = contiguous(dy).reshape(rows, dy.shape[-1])
            db = gemm(adjoint(a), dy)
        return da, db

    def factor_gradients_cuda(self, dy: Any, alpha: complex = 1) -> tuple[Any, Any]:
        da = db = None
        if self.needs[self.left]:
            da = cuda_gemm.gemm(dy, cuda_gemm.adjoint(self.input_array(self.left + 1)),
                                alpha=alpha)
        if self.needs[self.left + 1]:
            a = self.input_array(self.left)
            if self.rows_fold:
                rows = math.prod(a.shape[:-1])
                a = cuda_runtime.reshaped(a, (rows, a.shape[-1]))
                dy = cuda_runtime.reshaped(dy, (rows, dy.shape[-1]))
            db = cuda_gemm.gemm(cuda_gemm.adjoint(a), dy, alpha=alpha)
        return da, db


class VecDot(Op):
    """sum(conj(x) * y) over the last dimension; the others broadcast."""

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        return (0,) * needs[1] + (1,) * needs[0]

    def forward(self, x: Any, y: Any) -> Any:
        wide_x, wide_y = widen(x), widen(y)
        out = empty(np.broadcast_shapes(x.shape[:-1], y.shape[:-1]), wide_x.dtype)
        np.vecdot(wide_x, wide_y, out=out)
        return cast(out, x.dtype)

    def forward_cuda(self, x: Any, y: Any) -> Any:
        product = cuda_gemm.gemm(cuda_gemm.conjugate(x)[..., None, :], y[..., None])
        return product.reshape(product.shape[:-2])

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        dy = dy.unsqueeze(-1)
        dx = conj(dy) * self.input(1) if self.needs[0] else None
        return dx, dy * self.input(0) if self.needs[1] else None


def conj_transpose(x: Tensor) -> Tensor:
    """The conjugate transpose of the matrices in the last two dimensions."""
    return conj(x.mT)


def check_same_dtype(op: str, *tensors: Tensor) -> None:
    """Raise DTypeError unless all have one dtype that products are defined for (not bool)."""
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise DTypeError(f"{op}: expected tensors, got {type(tensor).__name__}")
    first = tensors[0].dtype
    for tensor in tensors:
        if tensor.dtype is not first:
            raise DTypeError(f"{op}: all arguments must have one dtype, got {first.name} and "
                             f"{tensor.dtype.name}; convert one with .to()")
    if first.kind == "bool":
        raise DTypeError(f"{op}: not defined for bool; convert with .to(), e.g. to int64")


def check_dims(op: str, **dims: tuple[Tensor, int]) -> None:
    """Raise ShapeError unless each named tensor has the number of dimensions given with it."""
    for name, (tensor, ndim) in dims.items():
        if tensor.ndim != ndim:
            raise ShapeError(f"{op}: {name} must have {ndim} dimension{'s' * (ndim > 1)}, "
                             f"got shape {tuple(tensor.shape)}")


def check_product(op: str, a: Tensor, b: Tensor) -> None:
    """Raise ShapeError unless the matrices fit each other and their batch dimensions broadcast."""
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"{op}: columns of the first must equal rows of the second, got shapes "
                         f"{tuple(a.shape)} and {tuple(b.shape)}")
    if a.ndim + b.ndim > 4:
        try:
            np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        except ValueError:
            raise ShapeError(f"{op}: batch dimensions must broadcast, got shapes "
                             f"{tuple(a.shape)} and {tuple(b.shape)}") from None


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """input @ other: (..., n, k) and (..., k, m) to (..., n, m); leading dimensions broadcast.

    A 1-d `input` is one row, a 1-d `other` one column, and that dimension is absent from the
    result; two vectors give their (unconjugated) inner product.  Raises DTypeError for different
    dtypes and bool, ShapeError for 0-d inputs and shapes that do not fit.
    """
    if _are_matrices(input, other):
        return run(MatMul(), input, other)  # type: ignore[no-any-return]
    check_same_dtype("matmul", input, other)
    if input.ndim == 0 or other.ndim == 0:
        raise ShapeError("matmul: both arguments must have at least 1 dimension, got shapes "
                         f"{tuple(input.shape)} and {tuple(other.shape)}; multiply with *")
    a = input.unsqueeze(0) if input.ndim == 1 else input
    b = other.unsqueeze(1) if other.ndim == 1 else other
    check_product("matmul", a, b)
    product: Tensor = run(MatMul(), a, b)
    if other.ndim == 1:
        product = product.squeeze(-1)
    return product.squeeze(-2 if other.ndim > 1 else -1) if input.ndim == 1 else product


def _are_matrices(a: Tensor, b: Tensor) -> bool:
    """Whether these are two floating matrices that fit: the usual case, with nothing to explain."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)):
        return False
    x, y = a._array, b._array
    return bool(x.ndim == y.ndim == 2 and x.dtype == y.dtype and x.dtype.kind in "fc"
                and x.shape[1] == y.shape[0])


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices: (n, k) and (k, m) to (n, m)."""
    if _are_matrices(input, mat2):
        return run(MatMul(), input, mat2)  # type: ignore[no-any-return]
    check_dims("mm", input=(input, 2), mat2=(mat2, 2))
    check_same_dtype("mm", input, mat2)
    check_product("mm", input, mat2)
    return run(MatMul(), input, mat2)  # type: ignore[no-any-return]


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of pairs of matrices: (b, n, k) and (b, k, m) to (b, n, m), no broadcasting."""
    check_dims("bmm", input=(input, 3), mat2=(mat2, 3))
    check_same_dtype("bmm", input, mat2)
    if input.shape[0] != mat2.shape[0]:
        raise ShapeError("bmm: both must hold the same number of matrices, got shapes "
                         f"{tuple(input.shape)} and {tuple(mat2.shape)}; matmul broadcasts")
    check_product("bmm", input, mat2)
    return run(MatMul(), input, mat2)  # type: ignore[no-any-return]


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector: (n, k) and (k,) to (n,)."""
    check_dims("mv", input=(input, 2), vec=(vec, 1))
    check_same_dtype("mv", input, vec)
    if input.shape[1] != vec.shape[0]:
        raise ShapeError(f"mv: the vector must have {input.shape[1]} elements to match the matrix "
                         f"{tuple(input.shape)}, got {vec.shape[0]}")
    return run(MatMul(), input, vec.unsqueeze(1)).squeeze(1)  # type: ignore[no-any-return]


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors of one length; complex ones are not conjugated."""
    _check_vectors("dot", input, tensor)
    return run(VecDot(), conj(input), tensor)  # type: ignore[no-any-return]


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The inner product of two vectors of one length, the first conjugated."""
    _check_vectors("vdot", input, other)
    return run(VecDot(), input, other)  # type: ignore[no-any-return]


def _check_vectors(op: str, a: Tensor, b: Tensor) -> None:
    check_dims(op, input=(a, 1), other=(b, 1))
    check_same_dtype(op, a, b)
    if a.shape != b.shape:
        raise ShapeError(f"{op}: both vectors must have the same length, got {a.shape[0]} and "
                         f"{b.shape[0]}")


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """sum(conj(x) * y) along `dim` after broadcasting; floating or complex tensors of one dtype."""
    check_same_dtype("linalg.vecdot", x, y)
    if x.dtype.kind == "int":
        raise DTypeError("linalg.vecdot: expected floating or complex tensors, got "
                         f"{x.dtype.name}; use (x * y).sum(dim)")
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ShapeError(f"linalg.vecdot: shapes must broadcast, got {tuple(x.shape)} and "
                         f"{tuple(y.shape)}") from None
    if not shape:
        return conj(x) * y
    x, y = x.expand(shape).movedim(dim, -1), y.expand(shape).movedim(dim, -1)
    return run(VecDot(), x, y)  # type: ignore[no-any-return]


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Inner products over the last dimensions: (..., k) and (***, k) to (..., ***).

    A 0-d argument just scales the other.  Raises ShapeError where the last dimensions differ.
    """
    if input.ndim == 0 or other.ndim == 0:
        return input * other
    check_same_dtype("inner", input, other)
    if input.shape[-1] != other.shape[-1]:
        raise ShapeError("inner: the last dimensions must agree, got shapes "
                         f"{tuple(input.shape)} and {tuple(other.shape)}")
    if input.ndim == 1 and other.ndim == 1:
        return dot(input, other)
    rows, columns = input.flatten(0, -2), other.flatten(0, -2)
    product: Tensor = run(MatMul(), _matrix(rows), _matrix(columns).mT)
    return product.reshape(*input.shape[:-1], *other.shape[:-1])


def _matrix(x: Tensor) -> Tensor:
    return x.unsqueeze(0) if x.ndim == 1 else x


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """input[i] * vec2[j]: (n,) and (m,) to (n, m), with type promotion."""
    check_dims("outer", input=(input, 1), vec2=(vec2, 1))
    return input.unsqueeze(1) * vec2.unsqueeze(0)


ger = outer


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of a chain of matrices, in the order that needs the fewest multiplications."""
    if len(matrices) == 1 and matrices[0].ndim == 2:
        return matrices[0]
    for position, matrix in enumerate(matrices):
        check_dims("chain_matmul", **{f"matrix {position}": (matrix, 2)})
    return multi_dot(matrices)


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices, in the order that needs the fewest multiplications.

    The first may be a vector (a row), the last too (a column).  Raises ShapeError where neighbours
    do not fit or another is not a matrix.
    """
    chain = list(tensors)
    if len(chain) < 2:
        raise ShapeError(f"multi_dot: needs at least 2 tensors, got {len(chain)}")
    row, column = chain[0].ndim == 1, chain[-1].ndim == 1
    if row:
        chain[0] = chain[0].unsqueeze(0)
    if column:
        chain[-1] = chain[-1].unsqueeze(1)
    for position, matrix in enumerate(chain):
        check_dims("multi_dot", **{f"tensor {position}": (matrix, 2)})
    check_same_dtype("multi_dot", *chain)
    for a, b in pairwise(chain):
        check_product("multi_dot", a, b)
    splits = _cheapest_splits([m.shape[0] for m in chain] + [chain[-1].shape[1]])
    product = _multiply_chain(chain, splits, 0, len(chain) - 1)
    if column:
        product = product.squeeze(-1)
    return product.squeeze(0) if row else product


def _cheapest_splits(sizes: list[int]) -> dict[tuple[int, int], int]:
    """For each stretch of matrices i..j, after which one to split it (dynamic programming)."""
    n = len(sizes) - 1
    cost = {(i, i): 0 for i in range(n)}
    splits = {}
    for length in range(1, n):
        for i in range(n - length):
            j = i + length
            cost[i, j], splits[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + sizes[i] * sizes[k + 1] * sizes[j + 1], k)
                for k in range(i, j))
    return splits


def _multiply_chain(chain: list[Tensor], splits: dict[tuple[int, int], int], i: int,
                    j: int) -> Tensor:
    if i == j:
        return chain[i]
    k = splits[i, j]
    return run(MatMul(), _multiply_chain(chain, splits, i, k),  # type: ignore[no-any-return]
               _multiply_chain(chain, splits, k + 1, j))
