"""Bessel functions of orders 0 and 1, and Airy's, element by element.

Real operands of any dtype, integers as the default dtype; all are computed in float64 and rounded
once, within a few units in the last place of the envelope.  Derivatives of any order (PyTorch has
the first of i0, i0e, i1, i1e only).  At infinities the limits.
"""

from __future__ import annotations

from mlgpu.expr import special as special  # registers what is called here
from mlgpu.expr.graph import call
from mlgpu.ops.elementwise import elementwise
from mlgpu.tensor import Tensor

__all__ = ["airy_ai", "bessel_j0", "bessel_j1", "bessel_y0", "bessel_y1", "i0", "i0e", "i1", "i1e",
           "modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1",
           "scaled_modified_bessel_k0", "scaled_modified_bessel_k1", "spherical_bessel_j0"]


@elementwise
def airy_ai(input: Tensor) -> Tensor:
    """Airy's function Ai, the solution of y'' = x y that goes to 0 on the right."""
    return call("airy_ai", input)  # type: ignore[return-value]


@elementwise
def bessel_j0(input: Tensor) -> Tensor:
    """J0, the Bessel function of the first kind of order 0."""
    return call("bessel_j0", input)  # type: ignore[return-value]


@elementwise
def bessel_j1(input: Tensor) -> Tensor:
    """J1, the Bessel function of the first kind of order 1."""
    return call("bessel_j1", input)  # type: ignore[return-value]


@elementwise
def bessel_y0(input: Tensor) -> Tensor:
    """Y0, the Bessel function of the second kind of order 0: -inf at 0, NaN below."""
    return call("bessel_y0", input)  # type: ignore[return-value]


@elementwise
def bessel_y1(input: Tensor) -> Tensor:
    """Y1, the Bessel function of the second kind of order 1: -inf at 0, NaN below."""
    return call("bessel_y1", input)  # type: ignore[return-value]


@elementwise
def i0(input: Tensor) -> Tensor:
    """I0, the modified Bessel function of the first kind of order 0."""
    return call("i0", input)  # type: ignore[return-value]


@elementwise
def i1(input: Tensor) -> Tensor:
    """I1, the modified Bessel function of the first kind of order 1."""
    return call("i1", input)  # type: ignore[return-value]


@elementwise
def i0e(input: Tensor) -> Tensor:
    """exp(-|input|) I0(input), which does not overflow."""
    return call("i0e", input)  # type: ignore[return-value]


@elementwise
def i1e(input: Tensor) -> Tensor:
    """exp(-|input|) I1(input), which does not overflow."""
    return call("i1e", input)  # type: ignore[return-value]


modified_bessel_i0, modified_bessel_i1 = i0, i1


@elementwise
def modified_bessel_k0(input: Tensor) -> Tensor:
    """K0, the modified Bessel function of the second kind of order 0: inf at 0, NaN below."""
    return call("k0", input)  # type: ignore[return-value]


@elementwise
def modified_bessel_k1(input: Tensor) -> Tensor:
    """K1, the modified Bessel function of the second kind of order 1: inf at 0, NaN below."""
    return call("k1", input)  # type: ignore[return-value]


@elementwise
def scaled_modified_bessel_k0(input: Tensor) -> Tensor:
    """exp(input) K0(input), which does not vanish."""
    return call("k0e", input)  # type: ignore[return-value]


@elementwise
def scaled_modified_bessel_k1(input: Tensor) -> Tensor:
    """exp(input) K1(input), which does not vanish."""
    return call("k1e", input)  # type: ignore[return-value]


@elementwise
def spherical_bessel_j0(input: Tensor) -> Tensor:
    """sin(input) / input, 1 at 0: the spherical Bessel function of order 0."""
    return call("spherical_bessel_j0", input)  # type: ignore[return-value]
