"""Incomplete and multivariate gamma functions and Hurwitz's zeta, element by element.

Computed in float64 and rounded once, integers as the default dtype.  In float64 igamma and igammac
are within some units in the last place, and where they are tiny, within those times the exponent.
"""

from __future__ import annotations

import math
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.expr import gamma as gamma  # registers what is called here
from mlgpu.expr.graph import call
from mlgpu.ops.elementwise import elementwise, symbolic
from mlgpu.ops.operand import Operand
from mlgpu.ops.special import lgamma
from mlgpu.tensor import Tensor

__all__ = ["gammainc", "gammaincc", "igamma", "igammac", "multigammaln", "mvlgamma", "zeta"]


@elementwise
def igamma(input: Operand, other: Operand) -> Tensor:
    """P(input, other), the regularized lower incomplete gamma function, both not negative.

    The integral of t^(input - 1) exp(-t) from 0 to other, over gamma(input).  Differentiable with
    respect to other; asking for the derivative of input raises DerivativeError.
    """
    return call("igamma", input, other)  # type: ignore[return-value]


@elementwise
def igammac(input: Operand, other: Operand) -> Tensor:
    """Q(input, other) = 1 - P(input, other), exact where that is small.  See igamma."""
    return call("igammac", input, other)  # type: ignore[return-value]


gammainc, gammaincc = igamma, igammac


@elementwise
def zeta(input: Operand, other: Operand) -> Tensor:
    """Hurwitz's zeta function: the sum of (other + k)^-input over k >= 0, for input > 1.

    inf for input 1 and where other is 0, -1, -2 ...; NaN for input below 1, and for other below 0
    unless input is whole.  Differentiable with respect to other; asking for the derivative of input
    raises DerivativeError.
    """
    return call("zeta", input, other)  # type: ignore[return-value]


@symbolic
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p, for input > (p - 1) / 2.

    p (p - 1) / 4 log(pi), and the sum of lgamma(input - k / 2) over k from 0 to p - 1.
    """
    if p < 1:
        raise ShapeError(f"mvlgamma: p must be at least 1, got {p}")
    total: Any = lgamma(input) + p * (p - 1) / 4 * math.log(math.pi)
    for k in range(1, p):
        total = total + lgamma(input - k / 2)
    return total  # type: ignore[no-any-return]


multigammaln = mvlgamma
