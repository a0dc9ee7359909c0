"""Orthogonal polynomials of degree n, element by element; n may be a tensor.

Degrees are cut to whole numbers; those below 0 give 0, as in PyTorch.  Computed by recurrence in
float64 and rounded once: the time is proportional to the largest degree.  There are derivatives of
any order with respect to input (PyTorch has none); asking for one of n raises DerivativeError.
"""

from __future__ import annotations

from mlgpu.expr.orthogonal import orthogonal
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = ["chebyshev_polynomial_t", "chebyshev_polynomial_u", "chebyshev_polynomial_v",
           "chebyshev_polynomial_w", "hermite_polynomial_h", "hermite_polynomial_he",
           "laguerre_polynomial_l", "legendre_polynomial_p", "shifted_chebyshev_polynomial_t",
           "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_v",
           "shifted_chebyshev_polynomial_w"]


@elementwise
def chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """T, the Chebyshev polynomial of the first kind: cos(n t) at cos(t)."""
    return orthogonal("chebyshev_polynomial_t", 0, input, n)  # type: ignore[return-value]


@elementwise
def chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """U, the Chebyshev polynomial of the second kind: sin((n + 1) t) / sin(t) at cos(t)."""
    return orthogonal("chebyshev_polynomial_u", 0, input, n)  # type: ignore[return-value]


@elementwise
def chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """V, the Chebyshev polynomial of the third kind: cos((n + 1/2) t) / cos(t / 2) at cos(t)."""
    return orthogonal("chebyshev_polynomial_v", 0, input, n)  # type: ignore[return-value]


@elementwise
def chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """W, the Chebyshev polynomial of the fourth kind: sin((n + 1/2) t) / sin(t / 2) at cos(t)."""
    return orthogonal("chebyshev_polynomial_w", 0, input, n)  # type: ignore[return-value]


@elementwise
def shifted_chebyshev_polynomial_t(input: Operand, n: Operand) -> Tensor:
    """T at 2 input - 1, for inputs from 0 to 1."""
    return orthogonal("shifted_chebyshev_polynomial_t", 0, input, n)  # type: ignore[return-value]


@elementwise
def shifted_chebyshev_polynomial_u(input: Operand, n: Operand) -> Tensor:
    """U at 2 input - 1, for inputs from 0 to 1."""
    return orthogonal("shifted_chebyshev_polynomial_u", 0, input, n)  # type: ignore[return-value]


@elementwise
def shifted_chebyshev_polynomial_v(input: Operand, n: Operand) -> Tensor:
    """V at 2 input - 1, for inputs from 0 to 1."""
    return orthogonal("shifted_chebyshev_polynomial_v", 0, input, n)  # type: ignore[return-value]


@elementwise
def shifted_chebyshev_polynomial_w(input: Operand, n: Operand) -> Tensor:
    """W at 2 input - 1, for inputs from 0 to 1."""
    return orthogonal("shifted_chebyshev_polynomial_w", 0, input, n)  # type: ignore[return-value]


@elementwise
def hermite_polynomial_h(input: Operand, n: Operand) -> Tensor:
    """H, the physicist's Hermite polynomial, orthogonal under exp(-x^2)."""
    return orthogonal("hermite_polynomial_h", 0, input, n)  # type: ignore[return-value]


@elementwise
def hermite_polynomial_he(input: Operand, n: Operand) -> Tensor:
    """He, the probabilist's Hermite polynomial, orthogonal under exp(-x^2 / 2)."""
    return orthogonal("hermite_polynomial_he", 0, input, n)  # type: ignore[return-value]


@elementwise
def laguerre_polynomial_l(input: Operand, n: Operand) -> Tensor:
    """L, the Laguerre polynomial, orthogonal under exp(-x) on the right of 0."""
    return orthogonal("laguerre_polynomial_l", 0, input, n)  # type: ignore[return-value]


@elementwise
def legendre_polynomial_p(input: Operand, n: Operand) -> Tensor:
    """P, the Legendre polynomial, orthogonal on [-1, 1]."""
    return orthogonal("legendre_polynomial_p", 0, input, n)  # type: ignore[return-value]
