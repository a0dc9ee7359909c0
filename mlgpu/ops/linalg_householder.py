"""QR in LAPACK's form: reflections I - tau v v^H, whose vectors stand under R in one matrix.

The product of k reflections is I - V T V^H with T = diag(tau) (I + S diag(tau))^-1, where S is what
V^H V has above its diagonal (Schreiber and Van Loan, "A storage-efficient WY representation for
products of Householder transformations", 1989; the inverse form Puglisi, 1992).  So everything is
made of products and one triangular system, and has derivatives of every order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.cpu import lapack
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.errors import ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.creation import eye
from mlgpu.ops.linalg_check import check_floating, check_matrix
from mlgpu.ops.linalg_solve import solve_triangular
from mlgpu.ops.matmul import conj_transpose, matmul
from mlgpu.tensor import Tensor

__all__ = ["geqrf", "householder_product", "orgqr", "ormqr"]


class Geqrf(Op):
    """R with the vectors of the reflections under it, and their factors."""

    def forward(self, a: Any) -> Any:
        return lapack.geqrf(a)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.geqrf(self.name, a)


class GeqrfResult(NamedTuple):
    """a and tau."""

    a: Tensor
    tau: Tensor


def geqrf(input: Tensor) -> GeqrfResult:
    """R on and above the diagonal, the reflections' vectors under it, and their factors tau.

    (..., m, n) to the same shape and (..., min(m, n)).  Has no gradient: `linalg.qr` has.  Raises
    ShapeError, DTypeError.
    """
    check_floating("geqrf", input)
    check_matrix("geqrf", input)
    return GeqrfResult(*run(Geqrf(), input))


def _vectors(op: str, a: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """V (..., m, k) and T (..., k, k) of reflections."""
    check_floating(op, a, tau)
    check_matrix(op, a)
    m, n = a.shape[-2:]
    k = tau.shape[-1] if tau.ndim else 0
    if not tau.ndim or tau.shape[:-1] != a.shape[:-2] or k > min(m, n):
        raise ShapeError(f"{op}: expected vectors (..., m, n) and tau (..., k) with k <= min(m, n) "
                         f"and the same batch, got {tuple(a.shape)} and {tuple(tau.shape)}")
    v = a[..., :k].tril(-1) + eye(m, k, dtype=a.dtype, device=a.device)
    factors = tau.diag_embed() if k else a.new_zeros(*a.shape[:-2], 0, 0)
    inner = matmul(conj_transpose(v), v).triu(1) * tau.unsqueeze(-2)
    return v, solve_triangular(inner, factors, upper=True, left=False, unitriangular=True)


def householder_product(input: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of the product of the reflections that `geqrf` gives.

    (..., m, n), m >= n, and (..., k), k <= n, to (..., m, n).  What stands on and above the
    diagonal of `input` is not read.  Raises ShapeError, DTypeError.
    """
    v, t = _vectors("linalg.householder_product", input, tau)
    m, n = input.shape[-2:]
    if m < n:
        raise ShapeError("linalg.householder_product: the product has only as many columns as "
                         f"rows, got shape {tuple(input.shape)}")
    first = eye(m, n, dtype=input.dtype, device=input.device)
    return first - matmul(v, matmul(t, conj_transpose(v[..., :n, :])))


orgqr = householder_product


def ormqr(input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False
          ) -> Tensor:
    """Q @ `other` (or `other` @ Q), with `transpose` Q^H, for the m x m product Q of reflections.

    `input` (..., m, n) and tau (..., k) as of `geqrf`; other (..., m, p), or (..., p, m) where not
    `left`, with the same batch.  Q is not made.  Raises ShapeError, DTypeError.
    """
    v, t = _vectors("ormqr", input, tau)
    check_floating("ormqr", input, other)
    check_matrix("ormqr", other)
    m = input.shape[-2]
    if other.shape[:-2] != input.shape[:-2] or other.shape[-2 if left else -1] != m:
        raise ShapeError(f"ormqr: other must have the batch {tuple(input.shape[:-2])} and {m} "
                         f"{'rows' if left else 'columns'}, got {tuple(other.shape)}")
    t = conj_transpose(t) if transpose else t
    vh = conj_transpose(v)
    if left:
        return other - matmul(v, matmul(t, matmul(vh, other)))
    return other - matmul(matmul(matmul(other, v), t), vh)
