"""Chebyshev, Hermite, Laguerre and Legendre polynomials and their derivatives: see special.py."""

from __future__ import annotations

from typing import Any

from mlgpu.cpu.recurrence import FAMILIES, Derivative
from mlgpu.expr.graph import Expr, call
from mlgpu.expr.primitives import COMPOSED
from mlgpu.expr.special import refused, register


def orthogonal(family: str, order: int, x: Any, n: Any) -> Expr:
    """The derivative of that order of the family's polynomial of degree n at x."""
    name = f"{family} {order}"
    if name not in COMPOSED:
        attr = Derivative(FAMILIES[family], order)
        register(name, lambda x, n: call("recurrence", x, n, attr=attr), lambda y, x, n: (
            orthogonal(family, order + 1, x, n),
            refused(f"{family}: has no derivative with respect to n; detach() it")))
    return call(name, x, n)
