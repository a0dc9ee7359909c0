"""Determinants."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlgpu.autograd import enable_grad, grad, is_grad_enabled
from mlgpu.cpu import lapack
from mlgpu.cpu.gemm import adjoint, gemm
from mlgpu.cuda import linalg as cuda_linalg
from mlgpu.cuda import runtime as on_cuda
from mlgpu.dtypes import finfo
from mlgpu.op import Op, on_tensors, run
from mlgpu.ops.complex import complex, conj, imag
from mlgpu.ops.creation import arange
from mlgpu.ops.linalg_check import check_floating, check_square
from mlgpu.ops.linalg_decompose import svd
from mlgpu.ops.linalg_solve import Inv
from mlgpu.ops.matmul import conj_transpose, matmul
from mlgpu.tensor import Tensor

__all__ = ["det", "logdet", "slogdet"]


class Det(Op):
    """The determinant: its gradient is the conjugate transpose of the adjugate."""

    name = "linalg.det"
    saved_inputs = (0,)
    saved_outputs = (0,)

    def forward(self, a: Any) -> Any:
        return lapack.det(a)

    def forward_cuda(self, a: Any) -> Any:
        if not a.size:
            return on_cuda.full(a.shape[:-2], 1, a.dtype)
        return on_tensors(_det_of_lu, *cuda_linalg.lu(self.name, a))

    def backward(self, dy: Tensor) -> Tensor | None:
        a = self.input(0)
        if _clearly_regular(a.detach(), self.output().detach()):
            scale = (dy * conj(self.output())).unsqueeze(-1).unsqueeze(-1)
            return scale * conj_transpose(run(Inv(), a))
        # A singular matrix has an adjugate, but no inverse; near one, derivatives of the inverse
        # are large and cancel.
        recorded = is_grad_enabled()
        with enable_grad():
            a = a if recorded else a.detach().requires_grad_()
            return grad(_singular_det(a), a, dy, create_graph=recorded)[0]

    def backward_cpu(self, dy: Any) -> Any:
        a, value = self.input_array(0), self.output_array()
        regular = value != 0
        if regular.all():
            return (dy * value.conj())[..., None, None] * adjoint(lapack.inv(self.name, a))
        da = np.empty_like(a)
        if regular.any():
            inverse = adjoint(lapack.inv(self.name, a[regular]))
            da[regular] = (dy * value.conj())[regular][..., None, None] * inverse
        u, s, vh = lapack.svd(self.name, a[~regular], False)
        phase = (lapack.det(u) * lapack.det(vh)).conj() * dy[~regular]
        others = np.where(np.eye(s.shape[-1], dtype=bool), 1, s[..., None, :]).prod(-1)
        da[~regular] = gemm(u * (phase[..., None] * others)[..., None, :], vh)
        return da


def _clearly_regular(a: Tensor, value: Tensor) -> bool:
    """Whether no determinant is rounding noise beside Hadamard's bound, the norms' product."""
    bound = a.abs().square().sum(-1).sqrt().prod(-1)
    return bool((value.abs() > a.shape[-1] * finfo(a.dtype).eps * bound).all())


def _singular_det(a: Tensor) -> Tensor:
    """The determinants near singular matrices, to be differentiated any number of times.

    In constant bases that make `a` diagonal now, with p its regular part, det [[p, q], [r, t]] is
    det(p) det(t - r inv(p) q), of which the second is a polynomial of a few values near 0.
    """
    u, s, vh = svd(a.detach())
    n = s.shape[-1]
    negligible = s <= n * finfo(s.dtype).eps * s[..., :1]
    k = n - max(1, int(negligible.sum(-1).max().item()))
    b = matmul(conj_transpose(u), matmul(a, conj_transpose(vh)))
    p, q, r, t = b[..., :k, :k], b[..., :k, k:], b[..., k:, :k], b[..., k:, k:]
    constant = det(u) * det(vh)
    if not k:
        return constant * _polynomial_det(t)
    return constant * det(p) * _polynomial_det(t - matmul(r, matmul(run(Inv(), p), q)))


def _polynomial_det(a: Tensor) -> Tensor:
    """By the recurrence of Faddeev and LeVerrier, which divides by no value."""
    n = a.shape[-1]
    eye = a.new_zeros(n, n).fill_diagonal_(1)
    product, coefficient = a, -a.diagonal(0, -2, -1).sum(-1)
    for k in range(2, n + 1):
        product = matmul(a, product + coefficient.unsqueeze(-1).unsqueeze(-1) * eye)
        coefficient = -product.diagonal(0, -2, -1).sum(-1) / k
    return -coefficient if n % 2 else coefficient


class SlogDet(Op):
    """Sign and logarithm of the absolute value of the determinant."""

    name = "linalg.slogdet"
    saved_inputs = (0,)

    def __init__(self, phase: bool) -> None:
        self.phase = phase  # whether the sign varies continuously: it does for complex matrices

    def keeps(self, needs: tuple[bool, ...]) -> tuple[int, ...]:
        self.saved_outputs = (0,) if self.phase else ()  # type: ignore[misc]
        return (0,)

    def forward(self, a: Any) -> Any:
        return lapack.slogdet(a)

    def forward_cuda(self, a: Any) -> Any:
        if not a.size:
            batch = a.shape[:-2]
            return on_cuda.full(batch, 1, a.dtype), on_cuda.zeros(batch, a.real.dtype)
        return on_tensors(_slogdet_of_lu, *cuda_linalg.lu(self.name, a))

    def backward(self, dsign: Tensor, dlog: Tensor) -> Tensor:
        scale = dlog
        if self.phase:
            scale = complex(dlog, -imag(conj(dsign) * self.output(0)))
        inverse = conj_transpose(run(Inv(), self.input(0)))
        return scale.unsqueeze(-1).unsqueeze(-1) * inverse


def _parity(pivots: Tensor) -> Tensor:
    """-1 where the rows of a factorisation were swapped an odd number of times, else 1."""
    rows = arange(1, pivots.shape[-1] + 1, dtype=pivots.dtype, device=pivots.device)
    return 1 - 2 * ((pivots != rows).sum(-1) % 2)


def _det_of_lu(factors: Tensor, pivots: Tensor) -> Tensor:
    return factors.diagonal(0, -2, -1).prod(-1) * _parity(pivots)


def _slogdet_of_lu(factors: Tensor, pivots: Tensor) -> tuple[Tensor, Tensor]:
    diagonal = factors.diagonal(0, -2, -1)
    return diagonal.sgn().prod(-1) * _parity(pivots), diagonal.abs().log().sum(-1)


class SlogDetResult(NamedTuple):
    """sign and logabsdet: the determinant is sign * exp(logabsdet)."""

    sign: Tensor
    logabsdet: Tensor


def det(A: Tensor) -> Tensor:
    """The determinants of square matrices: (..., n, n) to (...); 1 for n = 0.

    Differentiable at singular matrices too.  Raises ShapeError, DTypeError.
    """
    check_floating("linalg.det", A)
    check_square("linalg.det", A)
    return run(Det(), A)  # type: ignore[no-any-return]


def slogdet(A: Tensor) -> SlogDetResult:
    """Sign (or phase) and log of the absolute value of the determinant: (..., n, n) to (...) each.

    A singular matrix gives (0, -inf); its gradient raises LinAlgError.
    """
    check_floating("linalg.slogdet", A)
    check_square("linalg.slogdet", A)
    return SlogDetResult(*run(SlogDet(A.is_complex()), A))


def logdet(input: Tensor) -> Tensor:
    """log(det(input)): NaN where a real determinant is negative, -inf where it is 0."""
    check_floating("logdet", input)
    check_square("logdet", input)
    sign, logabsdet = slogdet(input)
    if input.is_complex():
        return logabsdet + sign.log()
    return logabsdet.masked_fill(sign < 0, float("nan"))
