"""LU factorisations: the factors in one matrix, apart, and systems that are solved with them.

Gradients follow de Hoog, Anderssen and Lukas, "Differentiation of matrix functionals using
triangular factorization" (2011).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu import dtypes
from mlgpu.cpu import lu as cpu_lu
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.errors import DTypeError, LinAlgError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.creation import eye
from mlgpu.ops.join import cat
from mlgpu.ops.linalg_check import batch_shape, check_floating, check_matrix, check_square
from mlgpu.ops.linalg_solve import solve_triangular
from mlgpu.ops.matmul import conj_transpose, matmul
from mlgpu.ops.scatter import gather
from mlgpu.ops.sort import argsort
from mlgpu.tensor import Tensor

__all__ = ["lu", "lu_factor", "lu_factor_ex", "lu_solve", "lu_unpack", "triangular_solve"]


class LUFactor(Op):
    """Unit lower L and upper U of P^T A = L U in one matrix; pivots and info.

    With M = L^-1 P^T dA U^-1, which is L^-1 dL + dU U^-1, its part below the diagonal gives dL and
    the rest dU; the rows or columns beyond a square follow from their own equations.
    """

    name = "linalg.lu_factor"
    saved_outputs = (0, 1)
    nondifferentiable_outputs = (1, 2)
    materialize = False

    def __init__(self, pivot: bool) -> None:
        self.pivot = pivot

    def forward(self, a: Any) -> Any:
        return cpu_lu.lu(a, self.pivot)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.lu_factor(self.name, a, self.pivot)

    def backward(self, dy: Tensor, *unused: None) -> Tensor:
        packed, pivots = self.output(0), self.output(1)
        m, n = packed.shape[-2:]
        k = min(m, n)
        lower, upper = packed[..., :k], packed[..., :k, :]
        square_l, square_u = _unit(lower[..., :k, :]), upper[..., :k].triu()
        dl, du = dy[..., :k].tril(-1), dy[..., :k, :].triu()
        middle = (matmul(conj_transpose(square_l), dl[..., :k, :]).tril(-1)
                  + matmul(du[..., :k], conj_transpose(square_u)).triu())
        beyond = None
        if n > k:
            wide, dwide = upper[..., k:], du[..., k:]
            middle = middle - matmul(dwide, conj_transpose(wide)).tril(-1)
            beyond = solve_triangular(conj_transpose(square_l), dwide, upper=True,
                                      unitriangular=True)
        if m > k:
            tall, dtall = lower[..., k:, :], dl[..., k:, :]
            middle = middle - matmul(conj_transpose(tall), dtall).triu()
            beyond = solve_triangular(conj_transpose(square_u), dtall, upper=False, left=False)
        da = solve_triangular(conj_transpose(square_l), middle, upper=True, unitriangular=True)
        da = solve_triangular(conj_transpose(square_u), da, upper=False, left=False)
        if beyond is not None:
            da = cat([da, beyond], -1 if n > k else -2)
        return _rows(da, argsort(permutation(pivots, m), -1))


class Permutation(Op):
    """Which row each row comes from, after the exchanges that pivots say; found on the host."""

    name = "lu_unpack"
    differentiable = False

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def forward(self, pivots: Any) -> Any:
        return cpu_lu.permutation(pivots, self.rows)

    def forward_cuda(self, pivots: Any) -> Any:
        return cuda_linalg.on_host(self.name, self.forward, pivots)


def permutation(pivots: Tensor, rows: int) -> Tensor:
    """int64 (..., rows), counted from 0, of pivots (..., k), counted from 1."""
    return run(Permutation(rows), pivots)  # type: ignore[no-any-return]


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """The rows of (..., n, k) in this order, (..., n), whose batch is the same."""
    return gather(x, -2, order.unsqueeze(-1).expand(*order.shape, x.shape[-1]))


def _unit(x: Tensor) -> Tensor:
    """The unit lower triangle of (..., m, n), m >= n."""
    return x.tril(-1) + eye(*x.shape[-2:], dtype=x.dtype, device=x.device)


class LUResult(NamedTuple):
    """P, L and U."""

    P: Tensor
    L: Tensor
    U: Tensor


class LUFactorResult(NamedTuple):
    """Both factors in one matrix, and the pivots."""

    LU: Tensor
    pivots: Tensor


class LUFactorExResult(NamedTuple):
    """Both factors in one matrix, the pivots, and the place of a zero on U's diagonal."""

    LU: Tensor
    pivots: Tensor
    info: Tensor


class TriangularResult(NamedTuple):
    """The solution, and a copy of the matrix."""

    solution: Tensor
    cloned_coefficient: Tensor


def lu_factor_ex(A: Tensor, *, pivot: bool = True, check_errors: bool = False) -> LUFactorExResult:
    """LU (..., m, n), pivots and info of P L U = A; pivots are int32 (..., min(m, n)).

    L is the part of LU below its diagonal, with a diagonal of ones; U the rest.  Row i was
    exchanged with row pivots[i], counted from 1; without `pivot` none is, also on the CPU.  info is
    int32 (...): 0, or the place, counted from 1, of the first zero on U's diagonal, where the
    gradient ends; with `check_errors` that is a LinAlgError.  Raises ShapeError, DTypeError.
    """
    check_floating("linalg.lu_factor", A)
    check_matrix("linalg.lu_factor", A)
    result = LUFactorExResult(*run(LUFactor(pivot), A))
    if check_errors and bool((result.info != 0).any()):
        raise LinAlgError("linalg.lu_factor: U has a zero on its diagonal, so no system can be "
                          f"solved with it; its place, counted from 1: {result.info.tolist()}; "
                          "lu_factor_ex gives the factors all the same")
    return result


def lu_factor(A: Tensor, *, pivot: bool = True) -> LUFactorResult:
    """LU and pivots of `lu_factor_ex`; LinAlgError where U has a zero on its diagonal."""
    return LUFactorResult(*lu_factor_ex(A, pivot=pivot, check_errors=True)[:2])


def lu_unpack(LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True,
              unpack_pivots: bool = True) -> LUResult:
    """P (..., m, m), L (..., m, k) and U (..., k, n) of `lu_factor`'s results, k = min(m, n).

    What is not asked for is empty.  On CUDA the pivots are read on the host.  Raises ShapeError,
    and DTypeError unless pivots are int32.
    """
    check_floating("lu_unpack", LU_data)
    check_matrix("lu_unpack", LU_data)
    _check_pivots("lu_unpack", LU_data, LU_pivots)
    m, n = LU_data.shape[-2:]
    k = min(m, n)
    p = lower = upper = LU_data.new_empty(0)
    if unpack_pivots:
        order = permutation(LU_pivots, m)
        p = eye(m, dtype=LU_data.dtype, device=LU_data.device)[order].mT
    if unpack_data:
        lower, upper = _unit(LU_data[..., :k]), LU_data[..., :k, :].triu()
    return LUResult(p, lower, upper)


def _check_pivots(op: str, data: Tensor, pivots: Tensor) -> None:
    if pivots.dtype is not dtypes.int32:
        raise DTypeError(f"{op}: pivots must be int32, as lu_factor gives them, got "
                         f"{pivots.dtype.name}")
    wanted = (*data.shape[:-2], min(data.shape[-2:]))
    if tuple(pivots.shape) != wanted:
        raise ShapeError(f"{op}: pivots must be {wanted} for factors {tuple(data.shape)}, got "
                         f"{tuple(pivots.shape)}")


def lu(A: Tensor, *, pivot: bool = True) -> LUResult:
    """P, L and U with P L U = A: (..., m, n) to (..., m, m), (..., m, k) and (..., k, n).

    L has a diagonal of ones, U may be singular; without `pivot` P is empty.  Raises ShapeError,
    DTypeError.
    """
    packed, pivots, _ = lu_factor_ex(A, pivot=pivot)
    return lu_unpack(packed, pivots, unpack_pivots=pivot)


def lu_solve(LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False
             ) -> Tensor:
    """X with A X = B (or X A = B), given `lu_factor(A)`; with `adjoint` of A^H.

    LU (..., n, n) and pivots (..., n) with B (..., n, k), or (..., k, n) where not `left`; batches
    broadcast.  On CUDA the pivots are read on the host.  Raises LinAlgError where U has a zero on
    its diagonal (PyTorch returns inf), ShapeError, DTypeError.
    """
    op = "linalg.lu_solve"
    check_floating(op, LU, B)
    check_square(op, LU)
    check_matrix(op, B)
    _check_pivots(op, LU, pivots)
    if B.shape[-2 if left else -1] != LU.shape[-1]:
        raise ShapeError(f"{op}: {'rows' if left else 'columns'} of B must equal the size of A for "
                         f"{'AX' if left else 'XA'} = B, got A {tuple(LU.shape)} and B "
                         f"{tuple(B.shape)}")
    batch = batch_shape(op, LU, B)
    if not left:
        return conj_transpose(lu_solve(LU, pivots, conj_transpose(B), adjoint=not adjoint))
    n = LU.shape[-1]
    order = permutation(pivots, n)
    if adjoint:
        half = solve_triangular(conj_transpose(LU), B, upper=False)
        x = solve_triangular(conj_transpose(LU), half, upper=True, unitriangular=True)
        return _rows(x, argsort(order, -1).expand(*batch, n))
    rows = _rows(B.expand(*batch, *B.shape[-2:]), order.expand(*batch, n))
    return solve_triangular(LU, solve_triangular(LU, rows, upper=False, unitriangular=True),
                            upper=True)


def triangular_solve(b: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
                     unitriangular: bool = False) -> TriangularResult:
    """X with A X = b (or A^T X = b) for triangular A, and a copy of A: the older form of
    `linalg.solve_triangular`, with b first.
    """
    x = solve_triangular(A.mT if transpose else A, b, upper=upper != transpose,
                         unitriangular=unitriangular)
    return TriangularResult(x, A.clone())
