"""Linear algebra that says by a number, not by an error, where a matrix has no result."""

from __future__ import annotations

from typing import NamedTuple

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.errors import LinAlgError
from mlgpu.ops.creation import eye, tensor, zeros
from mlgpu.ops.linalg_decompose import cholesky
from mlgpu.ops.linalg_lu import lu_factor_ex
from mlgpu.ops.linalg_solve import inv, solve
from mlgpu.ops.mask import masked_fill
from mlgpu.tensor import Tensor

__all__ = ["cholesky_ex", "inv_ex", "solve_ex"]


class InvExResult(NamedTuple):
    """The inverse, and what was wrong."""

    inverse: Tensor
    info: Tensor


class SolveExResult(NamedTuple):
    """The solution, and what was wrong."""

    result: Tensor
    info: Tensor


class CholeskyExResult(NamedTuple):
    """The factor, and what was wrong."""

    L: Tensor
    info: Tensor


def inv_ex(A: Tensor, *, check_errors: bool = False) -> InvExResult:
    """The inverses of square matrices (..., n, n), and an int32 for each: 0, or that of
    `lu_factor_ex` where it is singular.

    The inverse of a singular matrix is NaN, and has no gradient.  Whether one is, is read on the
    host.  With `check_errors` LinAlgError is raised, as by `inv`.
    """
    try:
        return InvExResult(inv(A), _none(A))
    except LinAlgError:
        if check_errors:
            raise
    info = lu_factor_ex(A.detach()).info
    return InvExResult(_spoilt(inv(_regular(A, info)), info), info)


def solve_ex(A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False
             ) -> SolveExResult:
    """X with A X = B (or X A = B) as of `solve`, and an int32 for each A: 0, or that of
    `lu_factor_ex` where it is singular.

    X is NaN there, and has no gradient.  With `check_errors` LinAlgError is raised.
    """
    try:
        return SolveExResult(solve(A, B, left=left), _none(A))
    except LinAlgError:
        if check_errors:
            raise
    info = lu_factor_ex(A.detach()).info
    x = solve(_regular(A, info), B, left=left)
    vectors = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    return SolveExResult(_spoilt(x, info, 1 if vectors else 2), info)


def cholesky_ex(input: Tensor, *, upper: bool = False, check_errors: bool = False
                ) -> CholeskyExResult:
    """The Cholesky factors of `cholesky`, and an int32 for each: 0, or the order of the first
    leading minor that is not positive.

    The factor is NaN there, and has no gradient.  With `check_errors` LinAlgError is raised.
    """
    try:
        return CholeskyExResult(cholesky(input, upper), _none(input))
    except LinAlgError:
        if check_errors:
            raise
    info = _first_minor(input.detach().mT.conj() if upper else input.detach())
    factor = cholesky(_regular(input, info), upper)
    spoilt = _spoilt(factor, info)
    return CholeskyExResult(spoilt.triu() if upper else spoilt.tril(), info)


def _none(A: Tensor) -> Tensor:
    return zeros(*A.shape[:-2], dtype=dtypes.int32, device=A.device)


def _regular(A: Tensor, info: Tensor) -> Tensor:
    """A with the identity in place of matrices that have no result."""
    bad = (info != 0)[..., None, None].expand(A.shape)
    identity = eye(A.shape[-1], dtype=A.dtype, device=A.device).expand(A.shape)
    return masked_fill(A, bad, 0) + masked_fill(identity, ~bad, 0)


def _spoilt(x: Tensor, info: Tensor, dims: int = 2) -> Tensor:
    """x with NaN for the matrices (or vectors) that have no result."""
    return masked_fill(x, (info != 0)[(..., *[None] * dims)].expand(x.shape), float("nan"))


@no_grad()
def _first_minor(A: Tensor) -> Tensor:
    """The order of the first leading minor that is not positive, by bisection; 0 if there is none.

    Only for what is known to have one: each step factors the matrices anew.
    """
    n = A.shape[-1]
    flat = A.reshape(-1, n, n)
    orders = [_first_of(matrix, n) for matrix in flat]
    return tensor(orders, dtype=dtypes.int32, device=A.device).reshape(A.shape[:-2])


def _first_of(matrix: Tensor, n: int) -> int:
    if _definite(matrix):
        return 0
    good, bad = 0, n
    while bad - good > 1:
        middle = (good + bad) // 2
        if _definite(matrix[:middle, :middle]):
            good = middle
        else:
            bad = middle
    return bad


def _definite(matrix: Tensor) -> bool:
    try:
        cholesky(matrix)
    except LinAlgError:
        return False
    return True
