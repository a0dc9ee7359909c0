"""Floating point by exact rationals, one number at a time: what the tests of instructions trust."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import copysign, inf, isfinite, isinf, isnan, isqrt, ldexp, nan

import numpy as np


@dataclass(frozen=True)
class Format:
    """A format by its bits of significand (with the first) and exponent, and what it holds."""

    name: str
    precision: int
    exponent: int
    special: str = "ieee"  # the largest exponent: "ieee", "nan" (last code only), "" (numbers)

    @property
    def bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def sign(self) -> int:
        """The bit of the sign."""
        return 1 << (self.exponent + self.precision - 1)

    @property
    def infinity(self) -> int:
        """The first code that is no finite number."""
        if self.special == "ieee":
            return ((1 << self.exponent) - 1) << (self.precision - 1)
        return self.sign - (self.special == "nan")

    @property
    def nan(self) -> int:
        return self.sign - 1

    def decode(self, bits: int) -> float:
        size = bits & (self.sign - 1)
        if size > self.infinity or (size == self.infinity and self.special == "nan"):
            value = nan
        elif size == self.infinity and self.special == "ieee":
            value = inf
        else:
            field, rest = divmod(size, 1 << (self.precision - 1))
            rest += (field > 0) << (self.precision - 1)
            value = ldexp(rest, max(field, 1) - self.bias - self.precision + 1)
        return -value if bits & self.sign else value

    def encode(self, value: float | Fraction, mode: str = "rn", finite: bool = False) -> int:
        """The code of the value rounded by rn, rz, rm, rp or rna; `finite` as .satfinite."""
        if isinstance(value, float) and isnan(value):
            return self.nan
        negative = value < 0 or (value == 0 and copysign(1, value) < 0)
        sign = self.sign if negative else 0
        if isinstance(value, float) and isinf(value):
            return sign | (self.infinity - 1 if finite or not self.special else self.infinity)
        size = abs(Fraction(value))
        above, below = size.numerator, size.denominator
        if above == 0:
            return sign
        exponent = above.bit_length() - below.bit_length()
        exponent -= above << max(-exponent, 0) < below << max(exponent, 0)
        exponent = max(exponent, 1 - self.bias)
        shift = exponent - self.precision + 1
        whole, rest = divmod(above << max(-shift, 0), below << max(shift, 0))
        half = 2 * rest - (below << max(shift, 0))  # the sign says on which side of half
        away = {"rn": half > 0 or (half == 0 and whole % 2 == 1), "rna": half >= 0, "rz": False,
                "rm": negative and rest > 0, "rp": not negative and rest > 0}[mode]
        code = ((exponent + self.bias - 1) << (self.precision - 1)) + whole + away
        if code >= self.infinity:
            toward = mode == "rz" or mode == ("rp" if negative else "rm")
            code = self.infinity - (toward or finite or not self.special)
        return sign | code


FORMATS = {f.name: f for f in (
    Format("f64", 53, 11), Format("f32", 24, 8), Format("tf32", 11, 8), Format("f16", 11, 5),
    Format("bf16", 8, 8), Format("e5m2", 3, 5), Format("e4m3", 4, 4, "nan"),
    Format("e3m2", 3, 3, ""), Format("e2m3", 4, 2, ""), Format("e2m1", 2, 2, ""))}


# -- operations: the exact result, or a float where it is a zero, an infinity or NaN ---------------

def add(x: float, y: float, mode: str) -> float | Fraction:
    if not (isfinite(x) and isfinite(y)):
        return x + y
    exact = Fraction(x) + Fraction(y)
    return exact or _zero(x, y, mode)


def _zero(x: float, y: float, mode: str) -> float:
    """The sum of two numbers that cancel, or of two zeros."""
    if x == 0 and copysign(1, x) == copysign(1, y):
        return x
    return -0.0 if mode == "rm" else 0.0


def mul(x: float, y: float, mode: str) -> float | Fraction:
    if not (isfinite(x) and isfinite(y)) or x == 0 or y == 0:
        return x * y
    return Fraction(x) * Fraction(y)


def fma(x: float, y: float, z: float, mode: str) -> float | Fraction:
    product = mul(x, y, mode)
    if isinstance(product, Fraction):
        if not isfinite(z):
            return z
        exact = product + Fraction(z)
        return exact or _zero(1.0 if product > 0 else -1.0, z, mode)
    return add(product, z, mode)


def div(x: float, y: float, mode: str) -> float | Fraction:
    if isnan(x) or isnan(y) or (isinf(x) and isinf(y)) or (x == 0 and y == 0):
        return nan
    sign = copysign(1, x) * copysign(1, y)
    if isinf(x) or y == 0:
        return sign * inf
    if isinf(y) or x == 0:
        return sign * 0.0
    return Fraction(x) / Fraction(y)


def sqrt(x: float, mode: str) -> float | Fraction:
    """The root cut far beyond any format's last bit, and not quite cut where it is not exact."""
    if isnan(x) or x < 0:
        return nan
    if x == 0 or isinf(x):
        return x
    scaled = Fraction(x) * Fraction(4) ** 1400
    assert scaled.denominator == 1
    root = isqrt(scaled.numerator)
    inexact = root * root != scaled.numerator
    return (root + Fraction(inexact, 2)) / Fraction(2) ** 1400


# -- operands -------------------------------------------------------------------------------------

def flushed(x: float, f: Format) -> float:
    """x, or a zero of its sign where it is subnormal in the format."""
    return copysign(0.0, x) if abs(x) < float(Fraction(2) ** (1 - f.bias)) else x


def special_bits(f: Format) -> list[int]:
    """Zeros, subnormals, thresholds, numbers with few or many bits, infinities, NaN: by sign."""
    one = f.bias << (f.precision - 1)
    unit = 1 << (f.precision - 1)
    codes = [0, 1, 2, unit - 1, unit, unit + 1, one - 1, one, one + 1, one + unit // 2,
             one + 2 * unit + 1, one + (f.precision + 1) * unit, one - f.precision * unit,
             f.infinity - 1, f.infinity - unit, f.infinity]
    codes += [f.infinity + 1, f.nan] if f.special == "ieee" else [f.nan]
    return sorted({c for c in codes if 0 <= c < f.sign}) + sorted(
        {c | f.sign for c in codes if 0 <= c < f.sign})


def operand_bits(f: Format, count: int, random: int, seed: int) -> np.ndarray:
    """Tuples of operands: all pairs of special ones, then random ones of which many nearly cancel.

    The result has the shape (count, n); its dtype is the unsigned integer of the format's width.
    """
    rng = np.random.default_rng(seed)
    special = np.array(special_bits(f), np.uint64)
    first, second = np.meshgrid(special, special)
    columns = [first.ravel(), second.ravel()]
    columns += [rng.choice(special, first.size) for _ in range(count - 2)]
    width = (f.sign << 1) - 1
    loose = rng.integers(0, width, (count, random), np.uint64, endpoint=True)
    half = random // 2  # near one, where sums cancel and ties occur
    few = (rng.integers(0, 1 << min(f.precision - 1, 12), (count, half), np.uint64)
           << np.uint64(max(f.precision - 13, 0)))
    near = (np.uint64(f.bias - 2) + rng.integers(0, 5, (count, half), np.uint64))
    loose[:, :half] = (few | near << np.uint64(f.precision - 1)) ^ (
        rng.integers(0, 2, (count, half), np.uint64) * np.uint64(f.sign))
    bits = np.concatenate([np.stack(columns[:count]), loose], axis=1)
    return bits.astype(f"u{max(1, (f.sign << 1).bit_length() // 8)}")
