"""Families of polynomials by their three-term recurrence, and derivatives of any order.

    p_0 = 1,  p_1 = a_0 x + b_0,  p_{k+1} = (a_k x + b_k) p_k - c_k p_{k-1}

The coefficients are written once, as text in k that is both Python and C++: the step below computes
with them, and the CUDA form (mlgpu/expr/primitives.py) is made with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Family:
    """a_k, b_k and c_k for k > 0, and a_0 and b_0."""

    a: str
    b: str
    c: str
    first: tuple[int, int]


@dataclass(frozen=True)
class Derivative:
    """The derivative of some order of a family's polynomials."""

    family: Family
    order: int


FAMILIES = {
    "chebyshev_polynomial_t": Family("2", "0", "1", (1, 0)),
    "chebyshev_polynomial_u": Family("2", "0", "1", (2, 0)),
    "chebyshev_polynomial_v": Family("2", "0", "1", (2, -1)),
    "chebyshev_polynomial_w": Family("2", "0", "1", (2, 1)),
    "shifted_chebyshev_polynomial_t": Family("4", "-2", "1", (2, -1)),
    "shifted_chebyshev_polynomial_u": Family("4", "-2", "1", (4, -2)),
    "shifted_chebyshev_polynomial_v": Family("4", "-2", "1", (4, -3)),
    "shifted_chebyshev_polynomial_w": Family("4", "-2", "1", (4, -1)),
    "hermite_polynomial_h": Family("2", "0", "2 * k", (2, 0)),
    "hermite_polynomial_he": Family("1", "0", "k", (1, 0)),
    "laguerre_polynomial_l": Family("-1 / (k + 1)", "(2 * k + 1) / (k + 1)", "k / (k + 1)",
                                    (-1, 1)),
    "legendre_polynomial_p": Family("(2 * k + 1) / (k + 1)", "0", "k / (k + 1)", (1, 0)),
}


@lru_cache
def _coefficients(family: Family) -> Callable[[float], tuple[float, float, float]]:
    """a_k, b_k, c_k as a function of k."""
    of: Callable[[float], tuple[float, float, float]] = eval(
        f"lambda k: ({family.a}, {family.b}, {family.c})")
    return of


def step(attr: Derivative, x: Any, n: Any, out: Any) -> None:
    """The polynomials of degree trunc(n) at x: 0 for negative degrees and NaN, NaN for infinity."""
    degree = np.trunc(n)
    degree = np.where(degree >= 0, degree, -1.0)
    x, degree = np.broadcast_arrays(x, degree)
    finite = degree[np.isfinite(degree)]
    p = [np.zeros(x.shape) for _ in range(attr.order + 1)]
    q = [np.zeros(x.shape) for _ in p]
    p[0][...] = 1.0
    coefficients = _coefficients(attr.family)
    for k in range(int(finite.max(initial=0))):
        (a, b), c = (attr.family.first, 0.0) if k == 0 else (
            (found := coefficients(float(k)))[:2], found[2])
        more = k < degree
        for d in reversed(range(attr.order + 1)):
            # What has overflowed keeps its sign: no infinity is taken from another.
            value = (a * x + b) * p[d] - np.where(np.isinf(p[d]), 0.0, c * q[d])
            if d:
                value += d * a * p[d - 1]
            q[d] = np.where(more, p[d], q[d])
            p[d] = np.where(more, value, p[d])
    out[...] = np.where(degree < 0, 0.0, np.where(np.isinf(degree), np.nan, p[-1]))
