"""Elementwise functions that NumPy has not, or has not as PyTorch means them, as steps.

Each takes arrays of one dtype (float32, float64, a complex or an integer dtype) and writes `out`,
which may be one of its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlgpu.cpu.runtime import empty
from mlgpu.errors import MlgpuError

# --- arithmetic -----------------------------------------------------------------------------------


def refuse_zero(divisor: Any) -> None:
    """Integers have no value for division by zero; PyTorch raises a RuntimeError there."""
    if np.asarray(divisor).dtype.kind in "iu" and not np.all(divisor):
        raise MlgpuError("ZeroDivisionError: integer division by zero")


def trunc_divide(x: Any, y: Any, out: Any) -> None:
    """Division rounded towards zero."""
    if out.dtype.kind not in "iu":
        np.trunc(np.divide(x, y, out=out), out=out)
        return
    refuse_zero(y)
    # The remainder has the sign of x, so what is left divides exactly.
    np.floor_divide(np.subtract(x, np.fmod(x, y)), y, out=out)


def power(x: Any, y: Any, out: Any) -> None:
    """x to the power of y; a negative power of an integer is an error, as in PyTorch."""
    if out.dtype.kind in "iu" and np.any(np.less(y, 0)):
        raise MlgpuError("pow: integers to negative integer powers are not allowed; cast to a "
                         "floating dtype first")
    np.power(x, y, out=out)


def reciprocal(x: Any, out: Any) -> None:
    """1 / x."""
    np.divide(out.dtype.type(1), x, out=out)


def rsqrt(x: Any, out: Any) -> None:
    """1 / sqrt(x)."""
    np.divide(out.dtype.type(1), np.sqrt(x, out=out), out=out)


def sigmoid(x: Any, out: Any) -> None:
    """1 / (1 + exp(-x)): exp overflows to inf for very negative x, whose result is then 0."""
    np.negative(x, out=out)
    np.exp(out, out=out)
    np.add(out, out.dtype.type(1), out=out)
    np.divide(out.dtype.type(1), out, out=out)


def logsigmoid(x: Any, out: Any) -> None:
    """min(x, 0) - log(1 + exp(-|x|))."""
    tail = np.log1p(np.exp(-np.abs(x)))
    np.subtract(np.minimum(x, out.dtype.type(0)), tail, out=out)


def sinc(x: Any, out: Any) -> None:
    """sin(pi x) / (pi x), 1 at 0."""
    scaled = np.asarray(x * out.dtype.type(np.pi))
    zero = scaled == 0
    scaled[zero] = 1
    np.divide(np.sin(scaled), scaled, out=out)
    out[zero] = 1


def hardtanh(x: Any, low: Any, high: Any, out: Any) -> None:
    """x within [low, high], NaN kept."""
    # Where one side is a single number, NumPy's clip is vector code, its maximum is not: 3 times
    # the time of one, 6 times for both.
    if out.dtype.kind == "f" and np.size(low) == np.size(high) == 1:
        x.clip(low, high, out=out)
    else:
        np.minimum(np.maximum(x, low, out=out), high, out=out)


def relu(x: Any, out: Any) -> None:
    """max(x, 0), NaN kept."""
    if out.dtype.kind == "f":
        np.clip(x, out.dtype.type(0), out.dtype.type(np.inf), out=out)
    else:
        np.maximum(x, out.dtype.type(0), out=out)


def rounding(function: Any) -> Any:
    """A NumPy function that rounds, on floating values; integers and bool are whole already."""
    def rounded(x: Any, out: Any) -> None:
        if out.dtype.kind in "biu":
            np.copyto(out, x)
        else:
            function(x, out=out)

    return rounded


def mantissa(x: Any, out: Any) -> None:
    """The fraction of x, of a size in [0.5, 1), by a power of two."""
    np.frexp(x, out, None)


def exponent(x: Any, out: Any) -> None:
    """The power of two that goes with the mantissa: 0 for 0 and for what is not finite."""
    np.frexp(x, None, out)
    out[...] = np.where(np.isfinite(x), out, 0)


def sign(x: Any, out: Any) -> None:
    """-1, 0 or 1; x / |x| for complex numbers; bool as it is.  0 for NaN, as PyTorch."""
    if out.dtype.kind == "b":
        np.copyto(out, x)
    elif out.dtype.kind == "c":
        size = np.abs(x)
        zero = size == 0
        size[zero] = 1
        out[...] = np.where(zero, 0, x / size)
    elif out.dtype.kind == "f":
        out[...] = np.greater(x, 0).astype(out.dtype) - np.less(x, 0)
    else:
        np.sign(x, out=out)


def where(condition: Any, x: Any, y: Any, out: Any) -> None:
    """x where the condition holds, else y."""
    # By memory, not by identity: in place, the result and an argument are two views of one block.
    if out.dtype.kind in "fi" and out.itemsize in (4, 8) and out.ndim and out.size > 1:
        _where_bits(condition, x, y, out)
        return
    if np.may_share_memory(out, x) or np.may_share_memory(out, condition):
        out[...] = np.where(condition, x, y)
        return
    if out is not y:
        np.copyto(out, y)
    np.copyto(out, x, where=condition)


def _where_bits(condition: Any, x: Any, y: Any, out: Any) -> None:
    """y with those bits turned in which x differs, where the condition holds: vector code, which a
    copy of some elements is not."""
    bits = np.dtype(f"i{out.itemsize}")
    x, y = (np.asarray(v, out.dtype).view(bits) for v in (x, y))
    chosen = empty(out.shape, bits)
    np.copyto(chosen, condition, casting="unsafe")
    if not x.ndim and not x:
        np.subtract(chosen, 1, out=chosen)
        np.bitwise_and(chosen, y, out=out.view(bits))
        return
    np.negative(chosen, out=chosen)
    if not y.ndim and not y:
        np.bitwise_and(chosen, x, out=out.view(bits))
        return
    turned = np.bitwise_xor(x, y, out=empty(out.shape, bits))
    np.bitwise_and(turned, chosen, out=turned)
    np.bitwise_xor(turned, y, out=out.view(bits))


def isnan(x: Any, out: Any) -> None:
    """Whether x is NaN: never, for integers."""
    if x.dtype.kind in "fc":
        np.isnan(x, out=out)
    else:
        out.fill(False)


def isinf(x: Any, out: Any) -> None:
    """Whether x is infinite: never, for integers."""
    if x.dtype.kind in "fc":
        np.isinf(x, out=out)
    else:
        out.fill(False)


def left_shift(x: Any, y: Any, out: Any) -> None:
    """x << y; 0 where y is negative or not less than the width."""
    bits = out.dtype.itemsize * 8
    valid = (np.asarray(y) >= 0) & (np.asarray(y) < bits)
    shifted = np.left_shift(x, np.where(valid, y, 0).astype(out.dtype))
    out[...] = np.where(valid, shifted, 0)


def right_shift(x: Any, y: Any, out: Any) -> None:
    """x >> y, arithmetic; a y that is negative or too large shifts everything out."""
    bits = out.dtype.itemsize * 8
    valid = (np.asarray(y) >= 0) & (np.asarray(y) < bits)
    shifted = np.right_shift(x, np.where(valid, y, 0).astype(out.dtype))
    gone = np.where(np.less(x, 0), -1, 0).astype(out.dtype)
    out[...] = np.where(valid, shifted, gone)


def real(x: Any, out: Any) -> None:
    """The real part."""
    np.copyto(out, x.real)


def imag(x: Any, out: Any) -> None:
    """The imaginary part."""
    np.copyto(out, x.imag)


def angle(x: Any, out: Any) -> None:
    """The argument; for real numbers 0 or pi, NaN kept."""
    if x.dtype.kind == "c":
        np.arctan2(x.imag, x.real, out=out)
    else:
        out[...] = np.where(np.isnan(x), x, np.where(np.less(x, 0), math.pi, 0.0))


# --- error functions ------------------------------------------------------------------------------


def _ratio(x: Any, above: Sequence[float], below: Sequence[float]) -> Any:
    """A rational function in x, highest powers first."""
    return _polynomial(x, above) / _polynomial(x, below)


def _polynomial(x: Any, coefficients: Sequence[float]) -> Any:
    total = np.asarray(np.multiply(x, x.dtype.type(coefficients[0])))  # 0-d stays an array
    for c in coefficients[1:-1]:
        np.add(total, x.dtype.type(c), out=total)
        np.multiply(total, x, out=total)
    return np.add(total, x.dtype.type(coefficients[-1]), out=total)


# W. J. Cody, Rational Chebyshev approximations for the error function, Math. Comp. 23 (1969).
_ERF_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560e0, 1.13864154151050156e2,
     3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3))
_ERFC_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0,
     6.61191906371416295e1, 2.98635138197400131e2, 8.81952221241769090e2,
     1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3,
     3.43936767414372164e3, 1.23033935480374942e3))
_ERFC_FAR = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242e0, 1.87295284992346725e0, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3))
_INV_ROOT_PI = 1.0 / math.sqrt(math.pi)


def _erfc_positive(a: Any) -> Any:
    """erfc for a >= 0.46875, float64."""
    near = np.minimum(a, 4.0)
    result = _ratio(near, *_ERFC_MIDDLE)
    far = a > 4.0
    if far.any():
        inverse = 1.0 / np.square(np.where(far, a, 5.0))
        tail = (_INV_ROOT_PI - inverse * _ratio(inverse, *_ERFC_FAR)) / np.where(far, a, 5.0)
        result = np.where(far, tail, result)
    # exp(-a*a) with a split so that the square is exact: the error of a*a would be magnified.
    high = np.trunc(a * 16.0) / 16.0
    low = (a - high) * (a + high)
    with np.errstate(all="ignore"):
        return np.exp(-high * high) * np.exp(-low) * result


def _erf64(x: Any) -> Any:
    a = np.abs(x)
    result = np.multiply(x, _ratio(np.square(np.minimum(a, 0.5)), *_ERF_NEAR))
    outside = a > 0.46875
    if outside.any():
        tail = 1.0 - _erfc_positive(np.where(outside, np.minimum(a, 30.0), 1.0))
        result = np.where(outside, np.copysign(tail, x), result)
    return result


def _erfc64(x: Any) -> Any:
    a = np.abs(x)
    result = 1.0 - _erf64(x)
    outside = a > 0.46875
    if outside.any():
        tail = _erfc_positive(np.where(outside, np.minimum(a, 30.0), 1.0))
        result = np.where(outside, np.where(x < 0, 2.0 - tail, tail), result)
    return np.where(np.isnan(x), x, result)


class _Odd:
    """x over(x**2) / under(x**2) in float32, with x no further from 0 than `bound`."""

    def __init__(self, bound: float, over: Sequence[float], under: Sequence[float]) -> None:
        """Coefficients of the lowest powers come first."""
        # As arrays without dimensions, which NumPy's ufuncs take in the least time.
        self.least, self.most = np.asarray(-bound, np.float32), np.asarray(bound, np.float32)
        self.over, self.under = [[np.asarray(c, np.float32) for c in coefficients]
                                 for coefficients in (over, under)]

    def __call__(self, x: Any) -> Any:
        """The value, in memory of its own."""
        held, square, over, under = [empty(x.shape, np.float32) for _ in range(4)]
        np.square(x.clip(self.least, self.most, out=held), out=square)
        for total, (*lower, highest) in ((over, self.over), (under, self.under)):
            np.multiply(square, highest, out=total)
            for c in lower[:0:-1]:
                np.multiply(np.add(total, c, out=total), square, out=total)
            np.add(total, lower[0], out=total)
        return np.multiply(np.divide(over, under, out=over), held, out=over)


# Fitted to the smallest largest relative error, 2.5e-8, by reweighted least squares against double
# precision.
_ERF32 = _Odd(4.0, (1.128379139e+00, 1.935462230e-01, 5.310190806e-02, 3.883396157e-03,
                    2.845674481e-04, 1.986778251e-06),
              (1.0, 5.048584295e-01, 1.153504876e-01, 1.520735534e-02, 1.185584491e-03,
               3.742021368e-05))

# What the normal distribution is above one half at x, over x; and so its sum with x times the
# density: quotients of polynomials in x**2.  From the bound on they are one half, or more by the
# rounding of the first.
ABOVE = ((0.39894225568, 0.033757872257, 0.0046710416988, 0.0001677883645, 6.3383435407e-06,
          2.2785311663e-08),
         (1.0, 0.25128454522, 0.028590484664, 0.0018786958666, 7.3277242707e-05,
          1.1975123271e-06))
SLOPE = ((0.79788454783, -0.022670331161, 0.013869269829, 0.00019717622234, 3.4099763419e-05,
          9.0661114078e-07, 1.6863036609e-08),
         (1.0, 0.30492003271, 0.044023408873, 0.0039561463672, 0.00024388471434, 1.0241651111e-05,
          3.338431182e-07, 1.304953395e-09))
_ABOVE32, _SLOPE32 = _Odd(5.6, *ABOVE), _Odd(6.0, *SLOPE)
_HALF32 = np.asarray(0.5, np.float32)


def erf(x: Any, out: Any) -> None:
    """The error function: within 2 ulp in float64, 7 in float32 (one rational form)."""
    if out.dtype == np.float64:
        out[...] = _erf64(x)
        return
    _ERF32(x).clip(np.float32(-1.0), np.float32(1.0), out=out)


def gelu(x: Any, out: Any) -> None:
    """x times the normal distribution function at x."""
    if out.dtype == np.float64:
        np.multiply(_normal64(x), x, out=out)
        return
    above = _ABOVE32(x)
    above.clip(-_HALF32, _HALF32, out=above)
    np.multiply(np.add(above, _HALF32, out=above), x, out=out)


def gelu_slope(x: Any, out: Any) -> None:
    """The normal distribution function at x, plus x times the density."""
    if out.dtype == np.float64:
        density = np.exp(np.square(x) * -0.5) * (1 / math.sqrt(2 * math.pi))
        np.add(_normal64(x), density * x, out=out)
        return
    above = _SLOPE32(x)
    # Infinity times a density of 0 has no value.
    np.add(np.add(above, np.subtract(x, x, out=out), out=above), _HALF32, out=out)


def _normal64(x: Any) -> Any:
    """The normal distribution function."""
    return (_erf64(np.multiply(x, math.sqrt(0.5))) + 1.0) * 0.5


def erfc(x: Any, out: Any) -> None:
    """1 - erf(x), also where that is tiny."""
    out[...] = _erfc64(np.asarray(x, np.float64))


def erfinv(x: Any, out: Any) -> None:
    """The inverse of erf: Winitzki's start, then Halley's method on erf or erfc."""
    y = np.asarray(x, np.float64)
    inner = np.clip(y, -1 + 1e-16, 1 - 1e-16)
    log = np.log1p(-inner * inner)
    a = 0.147
    b = 2 / (math.pi * a) + log / 2
    guess = np.copysign(np.sqrt(np.maximum(np.sqrt(b * b - log / a) - b, 0)), inner)
    size = np.abs(inner)
    for _ in range(3):
        # Near 1 the difference is taken between the complements, which keep their digits.
        error = np.where(size > 0.5, np.sign(inner) * ((1 - size) - _erfc64(np.abs(guess))),
                         _erf64(guess) - inner)
        step = error / (2 * _INV_ROOT_PI * np.exp(-np.square(guess)))
        guess = guess - step / (1 + guess * step)
    edge = np.where(np.abs(y) == 1, np.copysign(np.inf, y), np.nan)
    out[...] = np.where(np.abs(y) < 1, guess, edge)


# --- gamma functions ------------------------------------------------------------------------------

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def _stirling(x: Any) -> Any:
    """log gamma(x) for x >= 10 by Stirling's series."""
    inverse = 1.0 / x
    square = inverse * inverse
    series = np.zeros_like(x)
    for k in range(len(_BERNOULLI), 0, -1):
        series = series * square + _BERNOULLI[k - 1] / (2 * k * (2 * k - 1))
    return (x - 0.5) * np.log(x) - x + 0.5 * math.log(2 * math.pi) + series * inverse


# log gamma near its zeros at 1 and 2: Taylor series with zeta values, which keeps small results.
_EULER = 0.57721566490153286061


def _zeta(n: int) -> float:
    """Riemann's zeta at an integer >= 2, by Euler-Maclaurin summation."""
    end, rising = 40.0, float(n)
    total = sum(k ** -n for k in range(1, 40)) + end ** (1 - n) / (n - 1) + 0.5 * end ** -n
    for k in range(1, 4):
        total += _BERNOULLI[k - 1] / math.factorial(2 * k) * rising * end ** (1 - n - 2 * k)
        rising *= (n + 2 * k - 1) * (n + 2 * k)
    return float(total)


_SERIES = tuple((-1) ** n * (_zeta(n) - 1) / n for n in range(2, 44))


def _near_two(t: Any) -> Any:
    """log gamma(2 + t) for |t| <= 0.5."""
    total = np.zeros_like(t)
    for c in reversed(_SERIES):
        total = (total + c) * t
    return t * ((1 - _EULER) + total)


def lgamma(x: Any, out: Any) -> None:
    """log |gamma(x)|: a series near 1 and 2, Stirling elsewhere, reflection below 0.5."""
    value = np.asarray(x, np.float64)
    reflect = value < 0.5
    z = np.where(reflect, 1.0 - value, value)
    z = np.where(np.isfinite(z), z, 20.0)
    product, moved = np.ones_like(z), z.copy()
    for _ in range(8):  # up to 10, where Stirling's series is exact to the last digit
        low = (moved < 10.0) & (z > 2.5)
        product = np.where(low, product * moved, product)
        moved = np.where(low, moved + 1.0, moved)
    shifted = z < 1.5
    t = np.clip(np.where(shifted, z - 1.0, z - 2.0), -0.5, 0.5)
    with np.errstate(all="ignore"):
        small = _near_two(t) - np.where(shifted, np.log1p(t), 0.0)
        result = np.where(z <= 2.5, small, _stirling(np.maximum(moved, 3.0)) - np.log(product))
        sine = np.abs(np.sin(math.pi * np.remainder(value, 1.0)))
        result = np.where(reflect, math.log(math.pi) - np.log(sine) - result, result)
    pole = (value <= 0) & (value == np.floor(value))
    result = np.where(pole | np.isinf(value), np.inf, result)
    out[...] = np.where(np.isnan(value), value, result)


def digamma(x: Any, out: Any) -> None:
    """The derivative of log gamma: recurrence up to 10, asymptotic series, reflection below 0."""
    value = np.asarray(x, np.float64)
    reflect = value < 0
    z = np.where(reflect, 1.0 - value, value)
    total, moved = np.zeros_like(z), z.copy()
    with np.errstate(all="ignore"):
        for _ in range(10):
            low = moved < 10.0
            total = np.where(low, total - 1.0 / moved, total)
            moved = np.where(low, moved + 1.0, moved)
        square = 1.0 / np.square(moved)
        series = np.zeros_like(z)
        for k in range(len(_BERNOULLI), 0, -1):
            series = (series + _BERNOULLI[k - 1] / (2 * k)) * square
        result = total + np.log(moved) - 0.5 / moved - series
        fraction = value - np.rint(value)  # exact, and never near another pole of the tangent
        result = np.where(reflect, result - math.pi / np.tan(math.pi * fraction), result)
    result = np.where(reflect & (value == np.floor(value)), np.nan, result)
    result = np.where(value == 0, -np.copysign(np.inf, value), result)
    out[...] = result


def polygamma(n: int, x: Any, out: Any) -> None:
    """The n-th derivative of digamma, n >= 1, as (-1)**(n+1) n! zeta(n+1, x); reflected below 0."""
    value = np.asarray(x, np.float64)
    result = (-1) ** (n + 1) * math.factorial(n) * hurwitz(n + 1, np.where(value > 0, value,
                                                                            1.0 - value))
    if np.any(value <= 0):
        mirrored = (-1) ** n * result - math.pi * _cotangent_derivative(n, value)
        result = np.where(value > 0, result, mirrored)
    pole = (value <= 0) & (value == np.floor(value)) & np.isfinite(value)
    out[...] = np.where(pole, np.inf if n % 2 else np.nan, result)


def hurwitz(s: Any, q: Any) -> Any:
    """sum over k >= 0 of (k + q)**-s for q > 0, by Euler-Maclaurin summation."""
    total, moved = np.zeros_like(q), q.copy()
    for _ in range(12):
        total = total + moved ** -s
        moved = moved + 1.0
    total = total + moved ** (1 - s) / (s - 1) + 0.5 * moved ** -s
    factor = 1.0 * s
    power = moved ** (-s - 1)
    for k in range(1, len(_BERNOULLI) + 1):
        total = total + _BERNOULLI[k - 1] / math.factorial(2 * k) * factor * power
        factor = factor * (s + 2 * k - 1) * (s + 2 * k)
        power = power / np.square(moved)
    return total


def _cotangent_derivative(n: int, x: Any) -> Any:
    """The n-th derivative of cot(pi x): a polynomial in the cotangent, times pi**n."""
    coefficients = np.array([0.0, 1.0])  # c, lowest power first; c' = -pi (1 + c**2)
    for _ in range(n):
        slope = coefficients[1:] * np.arange(1, len(coefficients))
        coefficients = -np.polynomial.polynomial.polymul(slope, (1.0, 0.0, 1.0))
    with np.errstate(all="ignore"):
        cotangent = 1.0 / np.tan(math.pi * (x - np.rint(x)))
        return math.pi ** n * np.polynomial.polynomial.polyval(cotangent, coefficients)
