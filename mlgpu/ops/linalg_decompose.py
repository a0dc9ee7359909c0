"""Cholesky, QR and singular value decompositions.

Gradients follow the usual conventions: they exist where singular values are distinct (and, for
rectangular matrices, not zero), and for complex singular vectors only if the result does not
depend on their phase.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.autograd import is_grad_enabled
from mlgpu.cpu import lapack
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.errors import DerivativeError, ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.complex import imag, real
from mlgpu.ops.creation import zeros_like
from mlgpu.ops.join import cat
from mlgpu.ops.linalg_check import check_floating, check_matrix, check_square
from mlgpu.ops.linalg_solve import solve_triangular
from mlgpu.ops.matmul import conj_transpose, matmul
from mlgpu.tensor import Tensor

__all__ = ["cholesky", "qr", "svd", "svdvals"]


class Cholesky(Op):
    """Lower triangular L with L L^H = A, from A's lower triangle."""

    name = "linalg.cholesky"
    saved_outputs = (0,)

    def forward(self, a: Any) -> Any:
        return lapack.cholesky(self.name, a)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.cholesky(self.name, a)

    def backward(self, dl: Tensor) -> Tensor:
        lower = self.output()
        upper = conj_transpose(lower)
        middle = hermitian_from_triangle(matmul(upper, dl).tril()) * 0.5
        left = solve_triangular(upper, middle, upper=True)
        return solve_triangular(lower, left, upper=False, left=False)


def hermitian_from_triangle(x: Tensor) -> Tensor:
    """The Hermitian matrix whose triangle is the given one; the diagonal's real part counts."""
    diagonal = x.diagonal(0, -2, -1)
    return x + conj_transpose(x) - real(diagonal).to(x.dtype).diag_embed()


class QR(Op):
    """A = Q R: Q with orthonormal columns, R upper triangular."""

    name = "linalg.qr"
    saved_inputs = (0,)
    saved_outputs = (0, 1)

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def forward(self, a: Any) -> Any:
        return lapack.qr(a, self.mode)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.qr(self.name, a, self.mode)

    def backward(self, dq: Tensor, dr: Tensor) -> Tensor:
        q, r = self.output(0), self.output(1)
        rows, columns = r.shape[-2], r.shape[-1]
        if rows == columns:
            return _qr_backward(q, r, dq, dr)
        if q.shape[-1] == rows < columns:
            # A = [X | Y]: X = Q R1 is a square QR, and R2 = Q^H Y follows from its Q.
            y = self.input(0)[..., rows:]
            dr1, dr2 = dr[..., :rows], dr[..., rows:]
            dq = dq + matmul(y, conj_transpose(dr2))
            dx = _qr_backward(q, r[..., :rows], dq, dr1)
            return cat([dx, matmul(q, dr2)], dim=-1)
        raise DerivativeError("linalg.qr: mode 'complete' has no derivative for more rows than "
                              "columns; use mode='reduced'")


def _qr_backward(q: Tensor, r: Tensor, dq: Tensor, dr: Tensor) -> Tensor:
    middle = matmul(dr, conj_transpose(r)) - matmul(conj_transpose(q), dq)
    inner = dq + matmul(q, hermitian_from_triangle(middle.triu()))
    return solve_triangular(conj_transpose(r), inner, upper=False, left=False)


class SVD(Op):
    """A = U diag(S) V^H."""

    name = "linalg.svd"
    saved_outputs = (0, 1, 2)
    materialize = False

    def __init__(self, full_matrices: bool) -> None:
        self.full_matrices = full_matrices

    def forward(self, a: Any) -> Any:
        return lapack.svd(self.name, a, self.full_matrices)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.svd(self.name, a, self.full_matrices)

    def backward(self, du: Tensor | None, ds: Tensor | None, dvh: Tensor | None) -> Tensor:
        s = self.output(1)
        k = s.shape[-1]
        # Columns beyond k are an arbitrary basis of what is left: they have no derivative.
        u, vh = self.output(0)[..., :k], self.output(2)[..., :k, :]
        if du is None and dvh is None:  # also where values repeat, for which vectors have none
            assert ds is not None
            return matmul(u * ds.unsqueeze(-2), vh)
        ds = zeros_like(s) if ds is None else ds
        du = zeros_like(u) if du is None else du[..., :k]
        dvh = zeros_like(vh) if dvh is None else dvh[..., :k, :]
        left = matmul(conj_transpose(u), du)
        right = matmul(vh, conj_transpose(dvh))
        if u.is_complex():
            check_phase(self.name, left + right)
        row = s.unsqueeze(-2)
        column = s.unsqueeze(-1)
        eye = s.new_zeros(k, k).fill_diagonal_(1)
        gaps = row * row - column * column + eye
        skew_left, skew_right = left - conj_transpose(left), right - conj_transpose(right)
        middle = (skew_left * row + skew_right * column) / gaps + ds.diag_embed()
        if u.is_complex():
            phase = skew_left.diagonal(0, -2, -1) / (2 * s)
            middle = middle + phase.diag_embed()
        da = matmul(matmul(u, middle), vh)
        if u.shape[-2] > k:
            da = da + matmul((du - matmul(u, left)) / row, vh)
        if vh.shape[-1] > k:
            da = da + matmul(u, (dvh - matmul(conj_transpose(right), vh)) / column)
        return da


class SVDVals(Op):
    """The singular values alone."""

    name = "linalg.svdvals"
    differentiable = False

    def forward(self, a: Any) -> Any:
        return lapack.svdvals(self.name, a)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.svdvals(self.name, a)


def check_phase(op: str, x: Tensor) -> None:
    """Raise DerivativeError if a gradient depends on the free phase of complex vectors."""
    phase = imag(x.detach().diagonal(0, -2, -1))
    if phase.numel() and phase.abs().max().item() > 1e-2:
        raise DerivativeError(f"{op}: complex vectors are determined up to a factor "
                              "exp(i phi), and what is differentiated depends on it; make the "
                              "result independent of that phase")


class QRResult(NamedTuple):
    """Q and R."""

    Q: Tensor
    R: Tensor


class SVDResult(NamedTuple):
    """U, S and V^H."""

    U: Tensor
    S: Tensor
    Vh: Tensor


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """Lower triangular L with L L^H = A (or, with `upper`, L^H): (..., n, n).

    Reads one triangle of A; its gradient is Hermitian.  Raises LinAlgError for a matrix that is
    not positive definite, naming the batch element; ShapeError, DTypeError.
    """
    check_floating("linalg.cholesky", input)
    check_square("linalg.cholesky", input)
    if upper:
        return conj_transpose(run(Cholesky(), conj_transpose(input)))
    return run(Cholesky(), input)  # type: ignore[no-any-return]


def qr(A: Tensor, mode: str = "reduced") -> QRResult:
    """Q with orthonormal columns and upper triangular R: (..., m, n) = Q (..., m, k) R (..., k, n).

    k is min(m, n) for mode "reduced", m for "complete"; "r" leaves Q empty.  Raises ShapeError,
    DTypeError.
    """
    check_floating("linalg.qr", A)
    check_matrix("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise ShapeError(f"linalg.qr: mode must be 'reduced', 'complete' or 'r', got {mode!r}")
    q, r = run(QR("reduced" if mode == "r" else mode), A)
    return QRResult(A.new_empty(0) if mode == "r" else q, r)


def svd(A: Tensor, full_matrices: bool = True) -> SVDResult:
    """U diag(S) V^H = A, S descending: (..., m, n) to U (..., m, m), S (..., k), Vh (..., n, n).

    Without `full_matrices` U is (..., m, k) and Vh (..., k, n), k = min(m, n).  Gradients of U and
    Vh count their first k vectors only.  Raises LinAlgError for inf or NaN, ShapeError, DTypeError.
    """
    check_floating("linalg.svd", A)
    check_matrix("linalg.svd", A)
    return SVDResult(*run(SVD(full_matrices), A))


def svdvals(A: Tensor) -> Tensor:
    """The singular values, descending: (..., m, n) to (..., min(m, n))."""
    check_floating("linalg.svdvals", A)
    check_matrix("linalg.svdvals", A)
    if A.requires_grad and is_grad_enabled():
        return svd(A, full_matrices=False).S
    return run(SVDVals(), A)  # type: ignore[no-any-return]
