"""Special functions as graphs of simpler primitives: one definition for the CPU and for CUDA.

All are computed in double precision, whatever the dtype, and rounded once: what float32 lacks for
the phase of an oscillation or the exponent of a decay, no rearrangement gives back.  What is left
after singular factors, zeros and asymptotic forms are split off is a polynomial (tables.py).
A graph has no branches: every form is computed, and one selected.

Derivatives are written with functions of the same families, so there are some of any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from mlgpu.expr import graph, primitives, tables
from mlgpu.expr.graph import Expr
from mlgpu.expr.primitives import COMPOSED, Composed, Partials

# A checker does not see the operators of expressions, which are bound at run time.
call: Any = graph.call
where: Any = primitives.where

_ROOT_PI = math.sqrt(math.pi)
_ROOT_HALF = math.sqrt(0.5)


def register(name: str, body: Callable[..., Any], partials: Partials | None,
             adjoint: Partials | None = None) -> None:
    """Make `name` something that expressions can call; its derivative is as of primitives."""
    COMPOSED[name] = Composed(name, body, partials, adjoint, wide=True)


def refused(message: str) -> Expr:
    """A derivative that there is none of: DerivativeError where it is asked for."""
    return Expr("refused", (), message)


def polynomial(t: Any, table: tables.Table) -> Any:
    """The table's polynomial at t."""
    shift, scale, coefficients = table
    u = (t - shift) * scale
    total: Any = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * u + c
    return total


def odd(x: Any, positive: Any) -> Any:
    """An odd function of x from its value at |x|."""
    return where(x < 0, -positive, positive)


def _exp(x: Any) -> Any:
    return call("exp", x)


def _split(x: Any) -> tuple[Any, Any]:
    """x as a sum of two numbers of half its digits (Dekker)."""
    scaled = x * 134217729.0
    high = scaled - (scaled - x)
    return high, x - high


def _product(x: Any, y: Any) -> tuple[Any, Any]:
    """x y and what rounding took of it."""
    (a, b), (c, d), product = _split(x), _split(y), x * y
    return product, ((a * c - product) + a * d + b * c) + b * d


def exp_of_square(x: Any, factor: float) -> Any:
    """exp(factor x^2) for x up to 50: the rounding of x^2 would be magnified.

    `factor` is a power of two, with either sign.
    """
    square, rest = _product(x, x)
    return _exp(square * factor) * (rest * factor + 1)


def _ldexp(x: Any, n: Any) -> Any:
    # In two steps: 2^n alone may overflow, or be 0.
    half = call("floor", 0.5 * n)
    return (x * call("exp2", half)) * call("exp2", n - half)


register("ldexp", _ldexp, None, lambda dy, y, x, n: (
    call("ldexp", dy, n), dy * (y * math.log(2))))

# --- error functions ------------------------------------------------------------------------------


def scaled_erfc(a: Any) -> Any:
    """exp(a^2) erfc(a) for a >= 0, over all of it at once: M. M. Shepherd, J. G. Laframboise,
    Chebyshev approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf, Math. Comp. 36 (1981)."""
    t = 1 - 7.5 / (a + 3.75)
    return polynomial(t, tables.ERFCX) / (1 + 2 * a)


def _erfcx(x: Any) -> Any:
    a = call("abs", x)
    right = scaled_erfc(a)
    return where(x < 0, 2 * exp_of_square(call("minimum", a, 30), 1.0) - right, right)


register("erfcx", _erfcx, lambda y, x: (2 * x * y - 2 / _ROOT_PI,))


def _log_ndtr(x: Any) -> Any:
    a = call("abs", x)
    scaled = 0.5 * scaled_erfc(a * _ROOT_HALF)
    beyond = scaled * exp_of_square(call("minimum", a, 50), -0.5)
    return where(x < 0, call("log", scaled) - 0.5 * (x * x), call("log1p", -beyond))


register("log_ndtr", _log_ndtr,
          lambda y, x: (math.sqrt(2 / math.pi) / call("erfcx", x * -_ROOT_HALF),))


def _ndtri(p: Any) -> Any:
    q = p - 0.5
    # Not 0.5 - |q|, which has no digits left where p is small.
    outside = call("minimum", p, 1 - p)
    r = call("sqrt", -call("log", outside))
    tail = where(r < 3, polynomial(r, tables.QUANTILE_NEAR), where(
        r < 8, polynomial(r, tables.QUANTILE_MIDDLE), polynomial(r, tables.QUANTILE_FAR)))
    tail = where(outside == 0, math.inf, tail)
    return where(call("abs", q) <= 0.3, q * polynomial(q * q, tables.QUANTILE), odd(q, tail))


register("ndtri", _ndtri,
          lambda y, p: (math.sqrt(2 * math.pi) * _exp(0.5 * (y * y)),))

# --- Bessel functions -----------------------------------------------------------------------------


def _beside(a: Any, zero: tuple[float, float]) -> Any:
    """a^2 less the square of a zero, with all its digits beside the zero."""
    high, low = zero
    return ((a - high) - low) * (a + high)


def _oscillating(a: Any, order: int, second: bool) -> Any:
    """J, or Y if `second`, for a >= 5: the modulus' parts times a cosine and a sine.

    The phase is not formed by subtraction, which for large a would lose it.
    """
    p, q = (tables.J1_P, tables.J1_Q) if order else (tables.J0_P, tables.J0_Q)
    inverse = 5.0 / a
    p, q = polynomial(inverse * inverse, p), polynomial(inverse * inverse, q) * inverse
    c, s = call("cos", a), call("sin", a)
    cosine, sine = (s - c, -(s + c)) if order else (c + s, s - c)
    wave = p * sine + q * cosine if second else p * cosine - q * sine
    return where(a == math.inf, 0.0, wave / call("sqrt", math.pi * a))


def _j0_near(a: Any) -> Any:
    return _beside(a, tables.J0_ZERO) * polynomial(a * a, tables.J0)


def _j1_near(a: Any) -> Any:
    return a * (_beside(a, tables.J1_ZERO) * polynomial(a * a, tables.J1))


def _bessel_j0(x: Any) -> Any:
    a = call("abs", x)
    return where(a < 1e-8, 1.0, where(a < 5, _j0_near(a), _oscillating(a, 0, False)))


def _bessel_j1(x: Any) -> Any:
    a = call("abs", x)
    return odd(x, where(a < 5, _j1_near(a), _oscillating(a, 1, False)))


def _bessel_y0(x: Any) -> Any:
    near = (2 / math.pi) * (call("log", x) * _j0_near(x)) + polynomial(x * x, tables.Y0)
    return where(x < 5, near, _oscillating(x, 0, True))


def _bessel_y1(x: Any) -> Any:
    singular = (2 / math.pi) * (call("log", x) * _j1_near(x) - 1 / x)
    near = singular + x * polynomial(x * x, tables.Y1)
    return where(x == 0, -math.inf, where(x < 5, near, _oscillating(x, 1, True)))


register("bessel_j0", _bessel_j0, lambda y, x: (-call("bessel_j1", x),))
register("bessel_j1", _bessel_j1,
          lambda y, x: (where(x == 0, 0.5, call("bessel_j0", x) - y / x),))
register("bessel_y0", _bessel_y0, lambda y, x: (-call("bessel_y1", x),))
register("bessel_y1", _bessel_y1, lambda y, x: (call("bessel_y0", x) - y / x,))

# --- modified Bessel functions --------------------------------------------------------------------


def _grown(x: Any, order: int, scaled: bool) -> Any:
    """I(x), or exp(-|x|) I(x) if `scaled`."""
    a = call("abs", x)
    near, far = (tables.I1, tables.I1_FAR) if order else (tables.I0, tables.I0_FAR)
    low, high = polynomial(a * a, near), polynomial(8 / a, far) / call("sqrt", a)
    if order:
        low = a * low
    if scaled:
        low = low * _exp(-a)
    else:
        # The exponential overflows before the function does: half of it at a time.
        half = _exp(0.5 * a)
        high = where(a == math.inf, a, half * (half * high))
    found = where(a < 8, low, high)
    return odd(x, found) if order else found


def _sunk(x: Any, order: int, scaled: bool) -> Any:
    """K(x), or exp(x) K(x) if `scaled`."""
    log, square, inverse = call("log", 0.5 * x), x * x, 1 / x
    if order:
        near = polynomial(square, tables.K1) * inverse + log * (x * polynomial(square, tables.I1))
        middle, far = tables.K1_MIDDLE, tables.K1_FAR
    else:
        near = polynomial(square, tables.K0) - log * polynomial(square, tables.I0)
        middle, far = tables.K0_MIDDLE, tables.K0_FAR
    beyond = where(x < 8, polynomial(inverse, middle), polynomial(inverse, far)) / call("sqrt", x)
    if scaled:
        near = near * _exp(x)
    else:
        beyond = _exp(-x) * beyond
    return where(x == 0, math.inf, where(x < 2, near, beyond))


register("i0", lambda x: _grown(x, 0, False), lambda y, x: (call("i1", x),))
register("i1", lambda x: _grown(x, 1, False),
          lambda y, x: (where(x == 0, 0.5, call("i0", x) - y / x),))
register("i0e", lambda x: _grown(x, 0, True),
          lambda y, x: (call("i1e", x) - call("sign", x) * y,))
register("i1e", lambda x: _grown(x, 1, True),
          lambda y, x: (where(x == 0, 0.5, call("i0e", x) - y * (call("sign", x) + 1 / x)),))
register("k0", lambda x: _sunk(x, 0, False), lambda y, x: (-call("k1", x),))
register("k1", lambda x: _sunk(x, 1, False), lambda y, x: (-(call("k0", x) + y / x),))
register("k0e", lambda x: _sunk(x, 0, True), lambda y, x: (y - call("k1e", x),))
register("k1e", lambda x: _sunk(x, 1, True), lambda y, x: (y * (1 - 1 / x) - call("k0e", x),))

# --- spherical Bessel functions -------------------------------------------------------------------


def _spherical_j0(x: Any) -> Any:
    whole = call("sin", x) / x
    return where(x == 0, 1.0, where(call("abs", x) == math.inf, 0.0, whole))


# j1(x) / x in powers of x^2.
_SPHERICAL = (0.0, 1.0, tuple(
    (-1) ** k * (2 * k + 2) / math.factorial(2 * k + 3) for k in range(12)))


def _spherical_j1(x: Any) -> Any:
    a = call("abs", x)
    whole = (call("sin", x) / x - call("cos", x)) / x
    return where(a < 1.5, x * polynomial(x * x, _SPHERICAL), where(a == math.inf, 0.0, whole))


register("spherical_bessel_j0", _spherical_j0, lambda y, x: (-call("spherical_bessel_j1", x),))
register("spherical_bessel_j1", _spherical_j1, lambda y, x: (
    where(x == 0, 1 / 3, call("spherical_bessel_j0", x) - 2 * y / x),))

# --- Airy's function ------------------------------------------------------------------------------


def _three_halves(a: Any) -> tuple[Any, Any]:
    """2/3 a^(3/2) and what rounding took of it, for a decay's exponent or a phase."""
    root = call("sqrt", a)
    square, rest = _product(root, root)
    lacking = ((a - square) - rest) / (2 * root)
    product, rest = _product(a, root)
    third = product * (2 / 3)
    # 2 product - 3 third, exactly.
    remainder = (2 * product - 2 * third) - third
    return third, (remainder + 2 * (rest + a * lacking)) / 3


def _airy(x: Any, slope: bool) -> Any:
    """Ai(x), or its derivative if `slope`."""
    sunk, above, below, zeros, p, q = (
        (tables.AI_SLOPE_SUNK, tables.AI_SLOPE_ABOVE, tables.AI_SLOPE_BELOW, tables.AI_SLOPE_ZEROS,
         tables.AI_SLOPE_P, tables.AI_SLOPE_Q) if slope else
        (tables.AI_SUNK, tables.AI_ABOVE, tables.AI_BELOW, tables.AI_ZEROS, tables.AI_P,
         tables.AI_Q))
    # Beyond 120 the decay is 0; what is held there does not matter.
    a = where(x > 120, 120.0, call("abs", x))
    z, rest = _three_halves(a)
    root = call("sqrt", call("sqrt", a))
    inverse = 1 / z
    decay = _exp(-z) * (1 - rest) * polynomial(inverse, sunk) * (0.5 / _ROOT_PI)
    inverse = 6 * inverse
    p, q = polynomial(inverse * inverse, p), polynomial(inverse * inverse, q) * inverse
    c, s = call("cos", z), call("sin", z)
    c, s = c - rest * s, s + rest * c
    wave = (p * (s - c) - q * (c + s)) if slope else (p * (c + s) + q * (s - c))
    wave = wave * (_ROOT_HALF / _ROOT_PI)
    far, decay = (wave * root, -decay * root) if slope else (wave / root, decay / root)
    near = polynomial(x, below)
    for high, low in zeros:
        near = near * ((x - high) - low)
    return where(x > 2, decay, where(x >= 0, polynomial(x, above), where(
        x > -4.5, near, where(x == -math.inf, math.nan if slope else 0.0, far))))


register("airy_ai", lambda x: _airy(x, False), lambda y, x: (call("airy_ai_slope", x),))
register("airy_ai_slope", lambda x: _airy(x, True), lambda y, x: (x * call("airy_ai", x),))
