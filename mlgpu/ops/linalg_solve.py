"""Inverses and linear systems."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu import lapack
from mlgpu.cpu.gemm import adjoint, gemm
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.errors import ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.linalg_check import batch_shape, check_floating, check_matrix, check_square
from mlgpu.ops.matmul import MatMul, conj_transpose
from mlgpu.tensor import Tensor

__all__ = ["cholesky_inverse", "cholesky_solve", "inv", "inverse", "solve", "solve_triangular"]


class Inv(Op):
    """The inverse: d(A^-1) = -A^-1 dA A^-1."""

    name = "linalg.inv"
    saved_outputs = (0,)

    def forward(self, a: Any) -> Any:
        return lapack.inv(self.name, a)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.inv(self.name, a)

    def backward(self, dy: Tensor) -> Tensor:
        inverse = conj_transpose(self.output())
        return -run(MatMul(), inverse, run(MatMul(), dy, inverse))  # type: ignore[no-any-return]

    def backward_cpu(self, dy: Any) -> Any:
        inverse = adjoint(self.output_array())
        return -gemm(inverse, gemm(dy, inverse))


class Solve(Op):
    """X with A X = B."""

    name = "linalg.solve"
    saved_inputs = (0,)

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        self.saved_outputs = (0,) if needs[0] else ()  # type: ignore[misc]
        return (0,)

    def forward(self, a: Any, b: Any) -> Any:
        return lapack.solve(self.name, a, b)

    def forward_cuda(self, a: Any, b: Any) -> Any:
        return cuda_linalg.solve(self.name, a, b)

    def backward(self, dx: Tensor) -> tuple[Tensor | None, Tensor]:
        db = run(Solve(), conj_transpose(self.input(0)), dx)
        return -run(MatMul(), db, conj_transpose(self.output())) if self.needs[0] else None, db

    def backward_cpu(self, dx: Any) -> tuple[Any, Any]:
        db = lapack.solve(self.name, adjoint(self.input_array(0)), dx)
        return -gemm(db, adjoint(self.output_array())) if self.needs[0] else None, db


class SolveTriangular(Op):
    """X with A X = B for triangular A, of which only that triangle is read."""

    name = "linalg.solve_triangular"

    def __init__(self, upper: bool, unit: bool) -> None:
        self.upper, self.unit = upper, unit

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        self.saved_outputs = (0,) if needs[0] else ()  # type: ignore[misc]
        return (0,)

    def forward(self, a: Any, b: Any) -> Any:
        return lapack.solve_triangular(self.name, a, b, self.upper, self.unit)

    def forward_cuda(self, a: Any, b: Any) -> Any:
        return cuda_linalg.solve_triangular(self.name, a, b, self.upper, self.unit)

    def backward(self, dx: Tensor) -> tuple[Tensor | None, Tensor]:
        db = run(SolveTriangular(not self.upper, self.unit), conj_transpose(self.input(0)), dx)
        if not self.needs[0]:
            return None, db
        da = -run(MatMul(), db, conj_transpose(self.output()))
        return da.triu(int(self.unit)) if self.upper else da.tril(-int(self.unit)), db


def inv(A: Tensor) -> Tensor:
    """The inverses of square matrices (..., n, n).

    Raises LinAlgError for a singular matrix, naming the batch element; ShapeError, DTypeError.
    """
    check_floating("linalg.inv", A)
    check_square("linalg.inv", A)
    return run(Inv(), A)  # type: ignore[no-any-return]


inverse = inv


def _as_columns(op: str, A: Tensor, B: Tensor, left: bool) -> tuple[Tensor, bool]:
    """B as matrices, and whether it came as vectors (by PyTorch's rule)."""
    vectors = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    if vectors:
        B = B.unsqueeze(-1)
    n = A.shape[-1]
    if B.ndim < 2 or B.shape[-2 if left else -1] != n:
        raise ShapeError(f"{op}: {'rows' if left else 'columns'} of B must equal the size of A for "
                         f"{'AX' if left else 'XA'} = B, got A {tuple(A.shape)} and B "
                         f"{tuple(B.shape)}")
    batch_shape(op, A, B)
    return B, vectors


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B (or X A = B): (..., n, n) and (..., n, k) to (..., n, k).

    B of shape (n,) or A.shape[:-1] is a vector or a batch of them.  Raises LinAlgError for a
    singular matrix, naming the batch element; ShapeError, DTypeError.
    """
    check_floating("linalg.solve", A, B)
    check_square("linalg.solve", A)
    B, vectors = _as_columns("linalg.solve", A, B, left)
    if not left:
        return run(Solve(), A.mT, B.mT).mT  # type: ignore[no-any-return]
    x: Tensor = run(Solve(), A, B)
    return x.squeeze(-1) if vectors else x


def solve_triangular(input: Tensor, B: Tensor, *, upper: bool, left: bool = True,
                     unitriangular: bool = False) -> Tensor:
    """X with A X = B (or X A = B) for triangular A: (..., n, n) and (..., n, k) to (..., n, k).

    The other triangle of A, and with `unitriangular` its diagonal (taken as ones), is not read.
    Raises LinAlgError where the diagonal holds a zero (PyTorch returns inf), ShapeError,
    DTypeError.
    """
    op = "linalg.solve_triangular"
    check_floating(op, input, B)
    check_square(op, input)
    check_matrix(op, B)
    if B.shape[-2 if left else -1] != input.shape[-1]:
        raise ShapeError(f"{op}: {'rows' if left else 'columns'} of B must equal the size of A for "
                         f"{'AX' if left else 'XA'} = B, got A {tuple(input.shape)} and B "
                         f"{tuple(B.shape)}")
    batch_shape(op, input, B)
    if left:
        return run(SolveTriangular(upper, unitriangular), input, B)  # type: ignore[no-any-return]
    return run(SolveTriangular(not upper, unitriangular),  # type: ignore[no-any-return]
               input.mT, B.mT).mT


def cholesky_solve(input: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X with A X = `input`, given the Cholesky factor L of A (A = L L^H, or L^H L if `upper`)."""
    check_floating("cholesky_solve", input, L)
    check_square("cholesky_solve", L)
    check_matrix("cholesky_solve", input)
    lower = conj_transpose(L) if upper else L
    half = solve_triangular(lower, input, upper=False)
    return solve_triangular(conj_transpose(lower), half, upper=True)


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of A, given its Cholesky factor L."""
    check_square("cholesky_inverse", L)
    n = L.shape[-1]
    eye = L.new_zeros(n, n).fill_diagonal_(1)
    return cholesky_solve(eye, L, upper)
