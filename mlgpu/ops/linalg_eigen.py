"""Eigenvalues and eigenvectors.

Gradients of eigenvectors exist where the eigenvalues are distinct, and for complex vectors only if
the result does not depend on their phase.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.autograd import is_grad_enabled
from mlgpu.cpu import lapack
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.errors import ShapeError
from mlgpu.op import Op, run
from mlgpu.ops.complex import conj, real
from mlgpu.ops.linalg_check import check_floating, check_square
from mlgpu.ops.linalg_decompose import check_phase
from mlgpu.ops.linalg_solve import solve
from mlgpu.ops.matmul import conj_transpose, matmul
from mlgpu.tensor import Tensor

__all__ = ["eig", "eigh", "eigvals", "eigvalsh"]


class Eigh(Op):
    """Eigenvalues and orthonormal eigenvectors of a Hermitian matrix, from one triangle."""

    name = "linalg.eigh"
    saved_outputs = (0, 1)

    def __init__(self, uplo: str) -> None:
        self.uplo = uplo

    def forward(self, a: Any) -> Any:
        return lapack.eigh(self.name, a, self.uplo)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.eigh(self.name, a, self.uplo)

    def backward(self, dvalues: Tensor, dvectors: Tensor) -> Tensor:
        values, vectors = self.output(0), self.output(1)
        vh = conj_transpose(vectors)
        inner = matmul(vh, dvectors)
        if vectors.is_complex():
            check_phase(self.name, inner)
        eye = values.new_zeros(values.shape[-1], values.shape[-1]).fill_diagonal_(1)
        gaps = values.unsqueeze(-2) - values.unsqueeze(-1) + eye
        skew = (inner - conj_transpose(inner)) * 0.5
        middle = skew * (1 - eye) / gaps + dvalues.diag_embed()
        return matmul(matmul(vectors, middle), vh)


class EigvalsH(Op):
    """The eigenvalues of a Hermitian matrix alone."""

    name = "linalg.eigvalsh"
    differentiable = False

    def __init__(self, uplo: str) -> None:
        self.uplo = uplo

    def forward(self, a: Any) -> Any:
        return lapack.eigvalsh(self.name, a, self.uplo)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.eigvalsh(self.name, a, self.uplo)


class Eig(Op):
    """Eigenvalues and eigenvectors of norm 1 of a square matrix."""

    name = "linalg.eig"
    saved_outputs = (0, 1)

    def forward(self, a: Any) -> Any:
        return lapack.eig(self.name, a)

    def forward_cuda(self, a: Any) -> Any:
        return cuda_linalg.eig(self.name, a)

    def backward(self, dvalues: Tensor, dvectors: Tensor) -> Tensor:
        values, vectors = self.output(0), self.output(1)
        vh = conj_transpose(vectors)
        inner = matmul(vh, dvectors)
        check_phase(self.name, inner)
        # Norm 1 keeps each vector from growing: the diagonal of `inner` counts through V^H V.
        length = real(inner.diagonal(0, -2, -1)).to(inner.dtype).unsqueeze(-2)
        inner = inner - matmul(vh, vectors) * length
        n = values.shape[-1]
        eye = vectors.new_zeros(n, n).fill_diagonal_(1)
        gaps = conj(values.unsqueeze(-2) - values.unsqueeze(-1)) + eye
        middle = inner * (1 - eye) / gaps + dvalues.diag_embed()
        return solve(vh, matmul(middle, vh))


class EighResult(NamedTuple):
    """eigenvalues, ascending, and eigenvectors."""

    eigenvalues: Tensor
    eigenvectors: Tensor


class EigResult(NamedTuple):
    """eigenvalues, in no particular order, and eigenvectors."""

    eigenvalues: Tensor
    eigenvectors: Tensor


def _check_hermitian(op: str, a: Tensor, uplo: str) -> str:
    check_floating(op, a)
    check_square(op, a)
    if uplo not in ("L", "U", "l", "u"):
        raise ShapeError(f"{op}: UPLO must be 'L' or 'U', got {uplo!r}")
    return uplo.upper()


def eigh(input: Tensor, UPLO: str = "L") -> EighResult:
    """Eigenvalues (..., n), ascending and real, and eigenvectors (..., n, n) of Hermitian matrices.

    Reads the lower ("L") or upper ("U") triangle.  Raises LinAlgError for inf or NaN, ShapeError,
    DTypeError.
    """
    return EighResult(*run(Eigh(_check_hermitian("linalg.eigh", input, UPLO)), input))


def eigvalsh(input: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of Hermitian matrices, ascending: (..., n, n) to (..., n)."""
    uplo = _check_hermitian("linalg.eigvalsh", input, UPLO)
    if input.requires_grad and is_grad_enabled():
        return eigh(input, uplo).eigenvalues
    return run(EigvalsH(uplo), input)  # type: ignore[no-any-return]


def eig(input: Tensor) -> EigResult:
    """Complex eigenvalues (..., n) and eigenvectors (..., n, n), of norm 1, of square matrices."""
    check_floating("linalg.eig", input)
    check_square("linalg.eig", input)
    return EigResult(*run(Eig(), input))


def eigvals(input: Tensor) -> Tensor:
    """The complex eigenvalues of square matrices: (..., n, n) to (..., n)."""
    return eig(input).eigenvalues
