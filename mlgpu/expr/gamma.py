"""Hurwitz's zeta and the incomplete gamma functions, as graphs: see special.py."""

from __future__ import annotations

import math
from typing import Any

from mlgpu.expr import tables
from mlgpu.expr.special import call, polynomial, refused, register, scaled_erfc, where

# --- zeta -----------------------------------------------------------------------------------------

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _zeta(s: Any, q: Any) -> Any:
    whole = call("floor", q)
    right = q > 0
    # Beyond, all powers are 0, 1 or infinite; within, no product of powers of s overflows.
    held = call("minimum", s, 1e18)
    # Left of 0, for whole s: the sums over all k on both sides of 0, less what is too much.
    found = call("hurwitz", held, where(right, q, q - whole))
    odd = s - 2 * call("floor", 0.5 * s)
    beyond = call("hurwitz", held, where(right, 2.0, 1 - q))
    missing = call("hurwitz", held, (whole + 1) - q) - beyond
    left = where(call("floor", s) == s, found + (1 - 2 * odd) * missing, math.nan)
    left = where(q == whole, math.inf, left)
    found = where(q == math.inf, 0.0, found)
    return where(s > 1, where(right, found, where(q <= 0, left, q)),
                 where(s == 1, math.inf, math.nan))


register("zeta", _zeta, lambda y, s, q: (
    refused("zeta: has no derivative with respect to input; detach() it"),
    -s * call("zeta", s + 1, q)))

# --- incomplete gamma functions -------------------------------------------------------------------

_SHIFT = 10  # terms of the series that are summed before what is left is integrated
_LARGE = 100  # from where on Temme's expansion holds near x = a
_EXPONENT = 40.0  # where an integrand that falls from 1 ends


def _log_lacks(a: Any, x: Any) -> Any:
    """t - log(1 + t) of t = x / a - 1."""
    t = (x - a) / a
    near = t * t * polynomial(t, tables.LOG_LACKS)
    return where(call("logical_and", t > -0.4, t < 0.6), near, t - call("log", x / a))


def _stirling(a: Any) -> Any:
    """What lgamma(a) has beside (a - 1/2) log a - a + log(2 pi) / 2, for a >= 10."""
    inverse = 1 / a
    square = inverse * inverse
    total: Any = 0.0
    for k in range(8, 0, -1):
        total = total * square + _BERNOULLI[k - 1] / (2 * k * (2 * k - 1))
    return total * inverse


def _factor(a: Any, x: Any) -> Any:
    """x^a exp(-x) / gamma(a + 1)."""
    held, small = call("minimum", x, 1000), call("minimum", a, 10)
    below = call("pow", held, small) * call("exp", -held) * call("exp", -call("lgamma", small + 1))
    far = call("exp", -a * _log_lacks(a, x) - _stirling(a)) / call(
        "sqrt", (2 * math.pi) * a)
    return where(a < 10, below, far)


def _integral(a: Any, x: Any, below: Any) -> Any:
    """gamma(a) Q(a, x) / (x^a exp(-x)), or with P where `below`, from t = x exp(s) or exp(-s).

    The integrand is exp(a s - x expm1(s)), which falls from 1 and is smooth everywhere; Gauss and
    Legendre integrate it up to where it has ended.
    """
    gap = x - a
    width = 2 * _EXPONENT / (gap + call("sqrt", gap * gap + (2 * _EXPONENT) * x))
    width = call("minimum", width, call("log1p", (_EXPONENT + 4 * a) / x))
    b = -2 * gap - _EXPONENT
    back = (-b + call("sqrt", b * b + (8 * _EXPONENT) * a)) / (2 * a)
    signed = where(below, -back, width)
    total: Any = 0.0
    for node, weight in zip(tables.NODES, tables.WEIGHTS, strict=True):
        s = signed * node
        total = total + weight * call("exp", a * s - x * call("expm1", s))
    return total * call("abs", signed)


def _upper_small(a: Any, x: Any) -> Any:
    """Q(a, x) where both are small, without a difference of numbers that are nearly equal."""
    log = call("log", x)
    grown = a * (log - polynomial(a, tables.LGAMMA))  # the logarithm of x^a / gamma(1 + a)
    total: Any = 0.0
    power: Any = 1.0
    for n in range(1, 20):
        power = power * (x * (-1 / n))
        total = total + power / (a + n)
    return -call("expm1", grown) - a * total * call("exp", grown)


def _uniform(a: Any, x: Any, upper: bool) -> Any:
    """Q, or P unless `upper`, for large a near x = a, by Temme's expansion."""
    lacks = _log_lacks(a, x)
    size = call("sqrt", 2 * lacks)
    eta = where(x < a, -size, size)
    total: Any = 0.0
    for row in reversed(tables.TEMME):
        inner = polynomial(eta, (0.0, 1.0, row)) if len(row) > 1 else row[0]
        total = total * (1 / a) + inner
    rest = total / call("sqrt", (2 * math.pi) * a)
    decay = call("exp", -a * lacks)
    # The side that x is on is the tail; the other one is 1 less it.
    tail = decay * (0.5 * scaled_erfc(size * call("sqrt", 0.5 * a)) + where(x < a, -rest, rest))
    return where(x < a, 1 - tail, tail) if upper else where(x < a, tail, 1 - tail)


def _incomplete(a: Any, x: Any, upper: bool) -> Any:
    """Q(a, x), or P(a, x) unless `upper`."""
    small = call("logical_and", x < 1.1, a < 1.1)
    below = call("logical_or", x < a, small)
    factor = _factor(a, x)
    # P as some terms of its series, and the rest as P of a + _SHIFT.
    term: Any = 1.0
    series: Any = 1.0
    for k in range(1, _SHIFT):
        term = term * (x / (a + k))
        series = series + term
    integral = _integral(where(below, a + _SHIFT, a), x, below)
    left = factor * (series + term * x * integral)
    right = factor * a * integral
    if upper:
        found = where(small, _upper_small(a, x), where(below, 1 - left, right))
    else:
        found = where(below, left, 1 - right)
    near = call("logical_and", a > _LARGE, call("abs", x - a) < 0.25 * a)
    found = where(near, _uniform(a, x, upper), found)
    # All of it is below x, or all above; large numbers that differ are far apart.
    large = a > 1e100
    found = where(call("logical_and", large, a == x), 0.5, found)
    under = call("logical_or", call("logical_or", a == 0, x == math.inf),
                 call("logical_and", large, a < x))
    over = call("logical_or", call("logical_or", x == 0, a == math.inf),
                call("logical_and", large, x < a))
    found = where(under, 0.0 if upper else 1.0, where(over, 1.0 if upper else 0.0, found))
    wrong = call("logical_or", call("logical_and", under, over), call("minimum", a, x) < 0)
    return where(wrong, math.nan, found)


def _density(a: Any, x: Any) -> Any:
    inside = _factor(a, x) * a / x
    at_zero = where(a < 1, math.inf, where(a == 1, 1.0, 0.0))
    return where(x == 0, at_zero, where(x < 0, math.nan, where(x == math.inf, 0.0, inside)))


_SHAPE = "{}: has no derivative with respect to input; detach() it"
register("igamma", lambda a, x: _incomplete(a, x, False), lambda y, a, x: (
    refused(_SHAPE.format("igamma")), call("gamma_density", a, x)))
register("igammac", lambda a, x: _incomplete(a, x, True), lambda y, a, x: (
    refused(_SHAPE.format("igammac")), -call("gamma_density", a, x)))
register("gamma_density", _density, lambda y, a, x: (
    y * (call("log", x) - call("digamma", a)), y * ((a - 1) / x - 1)))
