"""Pseudoinverse, least squares and rank: what singular values decide."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import lapack
from mlgpu.cpu.gemm import adjoint, gemm
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.errors import ShapeError
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.linalg_check import batch_shape, check_floating, check_matrix, check_square
from mlgpu.ops.linalg_decompose import svd, svdvals
from mlgpu.ops.linalg_eigen import eigh, eigvalsh
from mlgpu.ops.matmul import conj_transpose, matmul
from mlgpu.tensor import Tensor

__all__ = ["lstsq", "matrix_rank", "pinv", "pinverse"]

Tolerance = float | Tensor | None
DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


class PInv(Op):
    """The Moore-Penrose pseudoinverse P.

    dP = -P dA P + P P^H dA^H (1 - A P) + (1 - P A) dA^H P^H P, where the rank stays as it is
    (Golub and Pereyra, 1973).
    """

    name = "linalg.pinv"
    saved_inputs = (0,)
    saved_outputs = (0,)

    def __init__(self, cutoff: Cutoff, hermitian: bool) -> None:
        self.cutoff, self.hermitian = cutoff, hermitian

    def forward(self, a: Any) -> Any:
        if self.hermitian:
            values, vectors = lapack.eigh(self.name, a, "L")
            u, s, vh = vectors, values, adjoint(vectors)
        else:
            u, s, vh = lapack.svd(self.name, a, False)
        kept = np.abs(s) > self.cutoff(np.abs(s), a.shape)
        inverse = np.where(kept, 1 / np.where(kept, s, 1), 0).astype(s.dtype)
        return gemm(adjoint(vh) * inverse[..., None, :], adjoint(u))

    def forward_cuda(self, a: Any) -> Any:
        return on_tensors(self._of, a)

    def _of(self, a: Tensor) -> Tensor:
        if self.hermitian:
            s, u = eigh(a)
            vh = conj_transpose(u)
        else:
            u, s, vh = svd(a, full_matrices=False)
        return matmul(conj_transpose(vh) * _inverses(s, self.cutoff, a.shape).unsqueeze(-2),
                      conj_transpose(u))

    def backward(self, dp: Tensor) -> Tensor:
        a, p = self.input(0), self.output()
        return pinv_gradient(a, p, dp)


def pinv_gradient(a: Tensor, p: Tensor, dp: Tensor) -> Tensor:
    """The gradient of `a` from that of its pseudoinverse `p`."""
    ph, dph = conj_transpose(p), conj_transpose(dp)
    first = matmul(matmul(ph, dp), ph)
    right = matmul(matmul(dph, p), ph)
    left = matmul(matmul(ph, p), dph)
    return right - matmul(a, matmul(p, right)) + left - matmul(matmul(left, p), a) - first


class MatrixRank(Op):
    """How many singular values (or absolute eigenvalues) exceed the tolerance."""

    name = "linalg.matrix_rank"
    differentiable = False

    def __init__(self, cutoff: Cutoff, hermitian: bool) -> None:
        self.cutoff, self.hermitian = cutoff, hermitian

    def forward(self, a: Any) -> Any:
        values = (np.abs(lapack.eigvalsh(self.name, a, "L")) if self.hermitian
                  else lapack.svdvals(self.name, a))
        if not values.shape[-1]:
            return np.zeros(a.shape[:-2], np.int64)
        return np.asarray(np.count_nonzero(values > self.cutoff(values, a.shape), axis=-1))

    def forward_cuda(self, a: Any) -> Any:
        return on_tensors(self._of, a)

    def _of(self, a: Tensor) -> Tensor:
        values = eigvalsh(a).abs() if self.hermitian else svdvals(a)
        return (values > self.cutoff.tensor(values, a.shape)).sum(-1)


class LstSq(Op):
    """The least-squares solution of least norm, ranks and singular values."""

    name = "linalg.lstsq"
    saved_inputs = (0, 1)
    nondifferentiable_outputs = (1, 2)
    materialize = False

    def __init__(self, rcond: float) -> None:
        self.rcond = rcond

    def forward(self, a: Any, b: Any) -> Any:
        return lapack.lstsq(self.name, a, b, self.rcond)

    def forward_cuda(self, a: Any, b: Any) -> Any:
        cuda_linalg.check_finite(self.name, a)
        cuda_linalg.check_finite(self.name, b)
        return on_tensors(self._of, a, b)

    def _of(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u, s, vh = svd(a, full_matrices=False)
        inverse = _inverses(s, Cutoff(None, self.rcond), a.shape)
        x = matmul(conj_transpose(vh), inverse.unsqueeze(-1) * matmul(conj_transpose(u), b))
        batch = x.shape[:-2]
        rank = (inverse != 0).sum(-1)
        return x, rank.expand(batch), s.expand(*batch, s.shape[-1])

    def backward(self, dx: Tensor, *unused: None) -> tuple[Tensor | None, Tensor | None]:
        a, b = self.input(0), self.input(1)
        p = pinv(a, rtol=self.rcond)
        da = None
        if self.needs[0]:
            da = pinv_gradient(a, p, matmul(dx, conj_transpose(b)))
        return da, matmul(conj_transpose(p), dx) if self.needs[1] else None


def _value(tolerance: Tolerance) -> Any:
    if isinstance(tolerance, Tensor):
        return tolerance.detach()._array[..., None]
    return tolerance


class Cutoff:
    """The tolerance as a function of the values and the matrices' shape."""

    def __init__(self, atol: Tolerance, rtol: Tolerance) -> None:
        self.atol, self.rtol = atol, rtol

    def __call__(self, values: Any, shape: tuple[int, ...]) -> Any:
        absolute, relative = _value(self.atol), _value(self.rtol)
        eps = max(shape[-2:]) * np.finfo(values.dtype).eps
        if relative is not None:
            rel = relative
        elif absolute is None:
            rel = eps
        else:
            rel = np.where(absolute > 0, 0, eps)
        largest = values.max(-1, keepdims=True, initial=0)
        return np.maximum(0 if absolute is None else absolute, rel * largest)

    def tensor(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The same, of tensors."""
        eps = max(shape[-2:]) * dtypes.finfo(values.dtype).eps
        absolute, rel = (t.detach().unsqueeze(-1) if isinstance(t, Tensor) else t
                         for t in (self.atol, self.rtol))
        if rel is None:
            rel = (eps if absolute is None or (not isinstance(absolute, Tensor) and absolute <= 0)
                   else 0.0 if not isinstance(absolute, Tensor)
                   else absolute.new_full((), eps).masked_fill(absolute > 0, 0))
        if not values.shape[-1]:
            return values
        relative = values.amax(-1, keepdim=True) * rel
        if absolute is None:
            return relative
        return (relative.maximum(absolute) if isinstance(absolute, Tensor)
                else relative.clamp_min(absolute))


def _inverses(values: Tensor, cutoff: Cutoff, shape: tuple[int, ...]) -> Tensor:
    """1 / values, and 0 for those up to the tolerance."""
    size = values.abs()
    negligible = size <= cutoff.tensor(size, shape)
    return (1 / values.masked_fill(negligible, 1)).masked_fill(negligible, 0)


def pinv(input: Tensor, rcond: Tolerance = None, hermitian: bool = False, *,
         atol: Tolerance = None, rtol: Tolerance = None) -> Tensor:
    """The pseudoinverse: (..., m, n) to (..., n, m).

    Singular values up to max(atol, rtol * largest) count as 0; rtol (or `rcond`) is by default
    max(m, n) * eps, or 0 if atol > 0 is given.  Differentiable where the rank does not change.
    Raises LinAlgError for inf or NaN, ShapeError, DTypeError.
    """
    check_floating("linalg.pinv", input)
    (check_square if hermitian else check_matrix)("linalg.pinv", input)
    cutoff = Cutoff(atol, rcond if rtol is None else rtol)
    return run(PInv(cutoff, hermitian), input)  # type: ignore[no-any-return]


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """`linalg.pinv` with the relative tolerance 1e-15."""
    return pinv(input, rcond)


def matrix_rank(input: Tensor, tol: Tolerance = None, hermitian: bool = False, *,
                atol: Tolerance = None, rtol: Tolerance = None) -> Tensor:
    """How many singular values exceed max(atol, rtol * largest): (..., m, n) to (...), int64.

    `tol` is an absolute tolerance; the defaults are those of `pinv`.
    """
    check_floating("linalg.matrix_rank", input)
    (check_square if hermitian else check_matrix)("linalg.matrix_rank", input)
    if tol is not None:
        atol, rtol = tol, 0.0
    return run(MatrixRank(Cutoff(atol, rtol), hermitian), input)  # type: ignore[no-any-return]


class LstSqResult(NamedTuple):
    """solution, residuals, rank and singular_values; what was not computed is empty."""

    solution: Tensor
    residuals: Tensor
    rank: Tensor
    singular_values: Tensor


def lstsq(input: Tensor, b: Tensor, rcond: float | None = None, *,
          driver: str | None = None) -> LstSqResult:
    """X of least norm that minimises |A X - B|: (..., m, n) and (..., m, k) to (..., n, k).

    B of shape A.shape[:-1] is a (batch of) vector(s).  Computed by singular values whatever the
    `driver`, which only decides what is returned, as in PyTorch: ranks for all but "gels", singular
    values for "gelsd" and "gelss"; residuals (squared, per column) with those and "gels" where
    m > n and every matrix has full rank.  Singular values up to `rcond` times the largest (default
    max(m, n) * eps) count as 0.  Raises LinAlgError, ShapeError, DTypeError.
    """
    op = "linalg.lstsq"
    check_floating(op, input, b)
    check_matrix(op, input)
    if driver is not None and driver not in DRIVERS:
        raise ShapeError(f"{op}: driver must be one of {', '.join(DRIVERS)}, got {driver!r}")
    vectors = b.ndim == 1 or (b.ndim == input.ndim - 1 and b.shape == input.shape[:-1])
    if vectors:
        b = b.unsqueeze(-1)
    rows, columns = input.shape[-2:]
    if b.shape[-2] != rows:
        raise ShapeError(f"{op}: A and B must have the same number of rows, got shapes "
                         f"{tuple(input.shape)} and {tuple(b.shape)}")
    batch_shape(op, input, b)
    if rcond is None:
        rcond = dtypes.finfo(input.dtype).eps * max(rows, columns)
    solution, rank, values = run(LstSq(rcond), input, b)
    full_rank = rows > columns and bool((rank == columns).all())
    residuals = input.new_empty(0, dtype=input.dtype.to_real())
    if full_rank and driver in ("gels", "gelsd", "gelss"):
        residuals = (matmul(input, solution) - b).abs().square().sum(-2)
    if driver == "gels":
        rank = rank.new_empty(0)
    if driver not in ("gelsd", "gelss"):
        values = values.new_empty(0)
    return LstSqResult(solution.squeeze(-1) if vectors else solution, residuals, rank, values)
