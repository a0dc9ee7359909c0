"""Approximate singular values from random projections: Halko, Martinsson and Tropp, "Finding
structure with randomness: probabilistic algorithms for constructing approximate matrix
decompositions" (2009), algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from mlgpu.errors import ShapeError
from mlgpu.ops.linalg_check import check_floating, check_matrix
from mlgpu.ops.linalg_decompose import qr, svd
from mlgpu.ops.linalg_svd import SVDResult
from mlgpu.ops.matmul import conj_transpose, matmul
from mlgpu.ops.random import randn
from mlgpu.tensor import Tensor

__all__ = ["pca_lowrank", "svd_lowrank"]


def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None
                ) -> SVDResult:
    """U (..., m, q), S (..., q) and V (..., n, q) of A - M, of which U diag(S) V^H is near.

    q: how many singular values, somewhat more than the rank that is looked for; niter: how often
    the random projection is multiplied by A A^H again.  Random numbers are mlgpu's, not PyTorch's,
    and the signs of vectors are open.  Raises ShapeError, DTypeError.
    """
    op = "svd_lowrank"
    check_floating(op, A)
    check_matrix(op, A)
    q, niter = 6 if q is None else q, 2 if niter is None else niter
    if not 0 <= q <= min(A.shape[-2:]) or niter < 0:
        raise ShapeError(f"{op}: q must be from 0 to {min(A.shape[-2:])} for A {tuple(A.shape)} "
                         f"and niter not negative, got {q} and {niter}")
    if M is not None:
        A = A - M.expand(A.shape)
    wide = A.shape[-2] < A.shape[-1]
    if wide:
        A = conj_transpose(A)
    projected = matmul(A, randn(A.shape[-1], q, dtype=A.dtype, device=A.device))
    basis = qr(projected).Q
    for _ in range(niter):
        basis = qr(matmul(conj_transpose(A), basis)).Q
        basis = qr(matmul(A, basis)).Q
    u, s, vh = svd(matmul(conj_transpose(basis), A), full_matrices=False)
    left, right = matmul(basis, u), conj_transpose(vh)
    return SVDResult(right, s, left) if wide else SVDResult(left, s, right)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2
                ) -> SVDResult:
    """The principal components of m rows of n features, (..., m, n): `svd_lowrank` of A less its
    columns' means (A itself without `center`).

    V (..., n, q) has the principal directions, S**2 / (m - 1) the variances along them.  q is by
    default min(6, m, n).  Raises ShapeError, DTypeError.
    """
    check_floating("pca_lowrank", A)
    check_matrix("pca_lowrank", A)
    smallest = min(A.shape[-2:])
    q = min(6, smallest) if q is None else q
    if not 0 <= q <= smallest or niter < 0:
        raise ShapeError(f"pca_lowrank: q must be from 0 to {smallest} for A {tuple(A.shape)} and "
                         f"niter not negative, got {q} and {niter}")
    return svd_lowrank(A - A.mean(-2, keepdim=True) if center else A, q, niter)
