"""Determinants."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mlgpu.cpu import lapack
from mlgpu.cpu.gemm import adjoint, gemm
from mlgpu.op import Op, run
from mlgpu.ops.complex import complex, conj, imag
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

    def backward(self, dy: Tensor) -> Tensor:
        a = self.input(0)
        if (self.output_array() != 0).all():
            scale = (dy * conj(self.output())).unsqueeze(-1).unsqueeze(-1)
            return scale * conj_transpose(run(Inv(), a))
        # A singular matrix has an adjugate, but no inverse: take it from the singular values.
        u, s, vh = svd(a, full_matrices=False)
        phase = conj(det(u) * det(vh)) * dy
        others = s.unsqueeze(-2).expand(*s.shape, s.shape[-1])
        eye = s.new_zeros(s.shape[-1], s.shape[-1]).fill_diagonal_(1)
        products = (others * (1 - eye) + eye).prod(-1)
        return matmul(u * (phase.unsqueeze(-1) * products).unsqueeze(-2), vh)

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

    def backward(self, dsign: Tensor, dlog: Tensor) -> Tensor:
        scale = dlog
        if self.phase:
            scale = complex(dlog, -imag(conj(dsign) * self.output(0)))
        inverse = conj_transpose(run(Inv(), self.input(0)))
        return scale.unsqueeze(-1).unsqueeze(-1) * inverse


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
