"""float64 arithmetic that NumPy does not have: fused multiply-add, and rounding by every mode.

What an operation lost is found with error-free transformations (Dekker's product, Knuth's sum).
They need room in the exponent; the few elements without it are done in exact rationals.

All functions expect `np.errstate(all="ignore")` around them.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import reduce
from math import inf, isinf

import numpy as np

from mlgpu.sim.numeric.rounding import Array, step, to_odd, two_sum

_LEAST, _LOW, _HIGH, _TOP = 2.0 ** -960, 2.0 ** -900, 2.0 ** 900, 2.0 ** 990


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """The nearest float64 of a * b, and exactly what it lost."""
    p = a * b
    a_high, b_high = _high(a), _high(b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _high(a: Array) -> Array:
    """The upper 26 bits of each significand."""
    t = a * 134217729.0
    return t - (t - a)


def _roomy(*values: Array) -> Array:
    """Where no error term of these can overflow or be subnormal."""
    sizes = [np.abs(value) for value in values]
    return reduce(np.logical_and, [(size > _LOW) & (size < _HIGH) for size in sizes])


# -- operations -----------------------------------------------------------------------------------

def fma64(a: Array, b: Array, c: Array) -> Array:
    """a * b + c, rounded once to nearest.

    The exact value is s + (lost + low) of three float64.  Rounding the small sum can matter only
    where the large one is then a tie; those few are done again, and so is what has no room (a NaN
    or infinity comes out as NaN, and is among them).
    """
    p, low = two_product(a, b)
    s, lost = two_sum(p, c)
    low = low + lost
    r: Array = s + low
    rest = low - (r - s)
    doubtful = rest * (1 + 2.0 ** -20) + r != r
    size = np.abs(p)
    if not size.min(initial=1) >= _LEAST:  # or NaN
        doubtful |= (size < _LEAST) & (a != 0) & (b != 0)
    zero = r == 0
    if zero.any():  # -0 + -0 has become +0 on the way
        r = np.where(zero & (low == 0), s, r)
    places = np.flatnonzero(doubtful)
    if places.size:
        x, y, z = (np.broadcast_to(v, r.shape).reshape(-1).take(places) for v in (a, b, c))
        np.put(r, places, fma64_to(x, y, z, "rn"))
    return r


def fma64_to(a: Array, b: Array, c: Array, mode: str) -> Array:
    """a * b + c, rounded once by any mode.

    Boldo and Melquiond: the exact value is a sum of three float64; the two small ones are added by
    rounding to odd, so that the last addition rounds as if it had seen everything.
    """
    a, b, c = np.broadcast_arrays(a, b, c)
    high, low = two_product(a, b)
    t_high, t_low = two_sum(c, low)
    v_high, v_low = two_sum(high, t_high)
    r, lost = two_sum(v_high, to_odd(*two_sum(t_low, v_low)))
    if mode != "rn":
        r = step(r, lost < 0, lost > 0, mode)
    factors = np.isfinite(a) & np.isfinite(b)
    zero = (a == 0) | (b == 0)
    simple = zero | ~(factors & np.isfinite(c))
    r = np.where(simple, np.where(factors & ~zero, 0, high) + c, r)
    room = _roomy(high) & (np.abs(a) < _TOP) & (np.abs(b) < _TOP) & (_roomy(c) | (c == 0))
    hard = np.flatnonzero(~(room | simple))
    for i, x, y, z in zip(hard, *(v.reshape(-1)[hard].tolist() for v in (a, b, c)), strict=True):
        exact = Fraction(x) * Fraction(y) + Fraction(z)
        nearest = _nearest(exact) if exact else -0.0 if mode == "rm" else 0.0
        r.flat[i] = nearest if mode == "rn" else _directed(nearest, exact, mode)
    if mode == "rm":  # an exact zero sum is -0 unless both terms are +0
        exactly = (r == 0) & (zero | room)
        r = np.where(exactly & (np.signbit(high) | np.signbit(c)), -0.0, r)
    return r


def add64_to(a: Array, b: Array, mode: str) -> Array:
    """a + b by any mode."""
    s, lost = two_sum(a, b)
    finite = np.isfinite(a) & np.isfinite(b)
    lost = np.where(finite & np.isinf(s), -s, lost)  # more than the largest, less than infinity
    known = finite & ~np.isnan(lost)
    r = _settle(s, known, lost, ~finite, lambda x, y: Fraction(x) + Fraction(y), (a, b), mode)
    if mode == "rm":
        r = np.where((s == 0) & (np.signbit(a) | np.signbit(b)), -0.0, r)
    return r


def mul64_to(a: Array, b: Array, mode: str) -> Array:
    """a * b by any mode."""
    p, lost = two_product(a, b)
    simple = (a == 0) | (b == 0) | ~(np.isfinite(a) & np.isfinite(b))
    known = _roomy(p) & (np.abs(a) < _TOP) & (np.abs(b) < _TOP)
    return _settle(p, known, lost, simple, lambda x, y: Fraction(x) * Fraction(y), (a, b), mode)


def div64_to(a: Array, b: Array, mode: str) -> Array:
    """a / b by any mode."""
    q = a / b
    high, low = two_product(q, b)
    lost = ((a - high) - low) * np.where(np.signbit(b), -1.0, 1.0)
    simple = (a == 0) | (b == 0) | ~(np.isfinite(a) & np.isfinite(b))
    known = _roomy(q, a, b)
    return _settle(q, known, lost, simple, lambda x, y: Fraction(x) / Fraction(y), (a, b), mode)


def sqrt64_to(a: Array, mode: str) -> Array:
    """The square root by any mode.

    Any exponent does: scaled by an even power of two, a root is the same to the bit.
    """
    power = np.where(np.abs(a) < 1, 2.0 ** 600, 2.0 ** -600)
    scaled = a * power
    s = np.sqrt(scaled)
    high, low = two_product(s, s)
    lost = (scaled - high) - low
    plain = np.sqrt(a)
    moved = step(s, lost < 0, lost > 0, mode) / np.sqrt(power)
    return np.where((a > 0) & np.isfinite(a), moved, plain)


def _settle(r: Array, known: Array, lost: Array, simple: Array,
            exactly: Callable[[float, float], Fraction], operands: tuple[Array, Array],
            mode: str) -> Array:
    """r rounded by the mode, given what it lost where `known`; r itself where `simple`."""
    signs = np.where(known & ~simple, np.sign(lost), 0.0)
    hard = np.flatnonzero(~(known | simple))
    if hard.size:
        a, b = (np.broadcast_to(v, r.shape).reshape(-1)[hard].tolist() for v in operands)
        flat = signs.reshape(-1)
        for i, x, y, nearest in zip(hard, a, b, r.reshape(-1)[hard].tolist(), strict=True):
            flat[i] = _sign(nearest, exactly(x, y))
        signs = flat.reshape(r.shape)
    return step(r, signs < 0, signs > 0, mode)


# -- exact rationals ------------------------------------------------------------------------------

def _nearest(value: Fraction) -> float:
    """The nearest float64, ties to even."""
    try:
        return value.numerator / value.denominator
    except OverflowError:
        return inf if value > 0 else -inf


def _sign(r: float, exact: Fraction) -> int:
    """The sign of what r lost."""
    if isinf(r):
        return -1 if r > 0 else 1
    return (exact > Fraction(r)) - (exact < Fraction(r))


def _directed(r: float, exact: Fraction, mode: str) -> float:
    """The value by the mode, given the nearest one."""
    sign = _sign(r, exact)
    value = np.array([r])
    return float(step(value, np.array([sign < 0]), np.array([sign > 0]), mode)[0])
