"""LDL factorisations of symmetric and Hermitian matrices that need not be definite."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu import dtypes
from mlgpu.cpu import lu as cpu_lu
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.errors import DTypeError, LinAlgError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.complex import conj
from mlgpu.ops.creation import eye
from mlgpu.ops.linalg_check import batch_shape, check_floating, check_matrix, check_square
from mlgpu.ops.linalg_solve import solve, solve_triangular
from mlgpu.ops.matmul import conj_transpose
from mlgpu.ops.scatter import gather
from mlgpu.ops.sort import argsort
from mlgpu.tensor import Tensor

__all__ = ["ldl_factor", "ldl_factor_ex", "ldl_solve"]


class LDLFactor(Op):
    """L and D in one lower triangle; pivots and info."""

    name = "linalg.ldl_factor"

    def __init__(self, hermitian: bool) -> None:
        self.hermitian = hermitian

    def forward(self, a: Any) -> Any:
        return cpu_lu.ldl(a, self.hermitian and a.dtype.kind == "c")

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.ldl_factor(self.name, a, self.hermitian)


class LDLOrder(Op):
    """The order of rows, the row of each element of L, and where D has blocks of two."""

    name = "linalg.ldl_solve"
    differentiable = False

    def forward(self, pivots: Any) -> Any:
        return cpu_lu.ldl_order(pivots)

    def forward_cuda(self, pivots: Any) -> Any:
        return cuda_linalg.on_host(self.name, self.forward, pivots)


class LDLFactorResult(NamedTuple):
    """Both factors in one matrix, and the pivots."""

    LD: Tensor
    pivots: Tensor


class LDLFactorExResult(NamedTuple):
    """Both factors in one matrix, the pivots, and the place of a zero in D."""

    LD: Tensor
    pivots: Tensor
    info: Tensor


def ldl_factor_ex(A: Tensor, *, hermitian: bool = False, check_errors: bool = False
                  ) -> LDLFactorExResult:
    """LD (..., n, n), pivots and info of A = L D L^T, or L D L^H if `hermitian`.

    Reads A's lower triangle.  D has blocks of one and two rows (Bunch and Kaufman's pivoting, as
    LAPACK's sytrf and hetrf leave it).  info is int32 (...): 0, or the place, counted from 1, of a
    zero in D; with `check_errors` that is a LinAlgError.  Has no gradient.  Raises ShapeError,
    DTypeError; DeviceError for complex Hermitian matrices on CUDA.
    """
    check_floating("linalg.ldl_factor", A)
    check_square("linalg.ldl_factor", A)
    result = LDLFactorExResult(*run(LDLFactor(hermitian), A))
    if check_errors and bool((result.info != 0).any()):
        raise LinAlgError("linalg.ldl_factor: D has a zero on its diagonal, so no system can be "
                          f"solved with it; its place, counted from 1: {result.info.tolist()}; "
                          "ldl_factor_ex gives the factors all the same")
    return result


def ldl_factor(A: Tensor, *, hermitian: bool = False) -> LDLFactorResult:
    """LD and pivots of `ldl_factor_ex`; LinAlgError where D has a zero on its diagonal."""
    return LDLFactorResult(*ldl_factor_ex(A, hermitian=hermitian, check_errors=True)[:2])


def ldl_solve(LD: Tensor, pivots: Tensor, B: Tensor, *, hermitian: bool = False) -> Tensor:
    """X with A X = B, given `ldl_factor(A)`: (..., n, n), (..., n) and (..., n, k) to (..., n, k).

    Batches broadcast.  On CUDA the pivots are read on the host.  Raises LinAlgError where D is
    singular, ShapeError, and DTypeError also unless pivots are int32.
    """
    op = "linalg.ldl_solve"
    check_floating(op, LD, B)
    check_square(op, LD)
    check_matrix(op, B)
    if pivots.dtype is not dtypes.int32:
        raise DTypeError(f"{op}: pivots must be int32, as ldl_factor gives them, got "
                         f"{pivots.dtype.name}")
    if pivots.shape != LD.shape[:-1] or B.shape[-2] != LD.shape[-1]:
        raise ShapeError(f"{op}: expected pivots {tuple(LD.shape[:-1])} and B with {LD.shape[-1]} "
                         f"rows, got {tuple(pivots.shape)} and {tuple(B.shape)}")
    batch, n = batch_shape(op, LD, B), LD.shape[-1]
    order, places, pairs = run(LDLOrder(), pivots)
    below = LD.diagonal(-1, -2, -1) * pairs[..., :max(n - 1, 0)].to(LD.dtype)
    beside = below.diag_embed(-1) if n > 1 else LD * 0
    lower = (gather(LD.tril(-1) - beside, -2, places)
             + eye(n, dtype=LD.dtype, device=LD.device))
    upper = conj_transpose(lower) if hermitian else lower.mT
    across = conj(beside).mT if hermitian else beside.mT
    d = LD.diagonal(0, -2, -1).diag_embed() + beside + across
    x = _rows(B.expand(*batch, *B.shape[-2:]), order)
    x = solve_triangular(lower, x, upper=False, unitriangular=True)
    x = solve_triangular(upper, solve(d, x), upper=True, unitriangular=True)
    return _rows(x, argsort(order, -1))


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """The rows of (..., n, k) in this order, (..., n), whose batch may be smaller."""
    return gather(x, -2, order.unsqueeze(-1).expand(x.shape))
