"""The formats of 8, 6 and 4 bits: what their codes are worth, and rounding to them.

All conversions are table look-ups.  A table from float32 has an entry for each bfloat16: rounding
float32 to odd there keeps what a later rounding to at most five bits needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from mlgpu.sim.numeric import rounding
from mlgpu.sim.numeric.half import (
    bfloat_to_float,
    float_to_bfloat,
    float_to_half,
    half_to_float,
)
from mlgpu.sim.numeric.rounding import Array


@dataclass(frozen=True)
class Format:
    """A small floating-point format."""

    exponent: int  # bits
    mantissa: int  # bits
    bias: int
    special: str  # what the largest exponent holds: "ieee", "nan" (last code only), "" (numbers)
    signed: bool = True

    @property
    def codes(self) -> int:
        """How many codes there are, without the sign."""
        return 1 << (self.exponent + self.mantissa)

    @property
    def largest(self) -> int:
        """The code of the largest finite number."""
        if self.special == "ieee":
            return self.codes - (1 << self.mantissa) - 1
        return self.codes - 1 - (self.special == "nan")

    @property
    def nan(self) -> int:
        """The code of the canonical NaN; the largest number where there is no NaN."""
        return self.codes - 1


FORMATS = {
    "f16": Format(5, 10, 15, "ieee"), "bf16": Format(8, 7, 127, "ieee"),
    "e4m3": Format(4, 3, 7, "nan"), "e5m2": Format(5, 2, 15, "ieee"),
    "e2m3": Format(2, 3, 1, ""), "e3m2": Format(3, 2, 3, ""), "e2m1": Format(2, 1, 1, ""),
    "ue5m3": Format(5, 3, 15, "nan", signed=False), "ue8m0": Format(8, 0, 127, "nan", signed=False),
}


@cache
def values(name: str) -> Array:
    """The float32 value of each code."""
    f = FORMATS[name]
    code = np.arange(f.codes)
    if f.mantissa == 0:  # no zero, no subnormals
        value = np.ldexp(1.0, code - f.bias)
    else:
        field, rest = code >> f.mantissa, code & ((1 << f.mantissa) - 1)
        hidden = np.where(field > 0, 1 << f.mantissa, 0)
        value = np.ldexp((hidden + rest).astype("f8"), np.maximum(field, 1) - f.bias - f.mantissa)
    if f.special == "ieee":
        value[f.largest + 1] = np.inf
        value[f.largest + 2:] = np.nan
    elif f.special == "nan":
        value[-1] = np.nan
    both: Array = np.concatenate([value, -value]) if f.signed else value
    return both.astype("f4")


def round_to(x: Array, name: str, mode: str, finite: bool, relu: bool) -> Array:
    """The codes of float32, by "rn", "rz" or "rp"; with `finite`, too large is the largest."""
    f = FORMATS[name]
    size = np.abs(x).astype("f8")
    sign = np.signbit(x) & f.signed
    grid = values(name)[:f.largest + 1].astype("f8")
    if relu:
        size = np.where(np.signbit(x), 0.0, size)
        sign = np.zeros_like(sign)
    above = np.searchsorted(grid, size, side="right")  # the first number larger
    below = np.maximum(above - 1, 0)
    low = grid[below]
    step = np.append(grid, 2 * grid[-1] - grid[-2])[below + 1] - low
    part = (size - low) / step
    if mode == "rn":
        up = (part > 0.5) | ((part == 0.5) & (below % 2 == 1))
    elif mode == "rp":
        up = part > 0
    else:
        up = np.zeros_like(below, bool)
    code = np.where(np.isinf(size), f.largest + 1, below + up)
    return _finish(code, sign, x, f, finite)


def _finish(code: Array, sign: Array, x: Array, f: Format, finite: bool) -> Array:
    """Codes with sign, after overflow and NaN."""
    over = f.largest if finite or f.special == "" else f.largest + 1
    code = np.where(np.isnan(x), f.nan, np.minimum(code, over) + sign * f.codes)
    return code.astype("u1" if f.codes <= 256 else "u2")


def stochastic(x: Array, name: str, random: Array, bits: int, finite: bool, relu: bool) -> Array:
    """The codes of float32, cut after random bits were added just below the last one kept."""
    f = FORMATS[name]
    size = np.abs(x).astype("f8")
    sign = np.signbit(x)
    if relu:
        size, sign = np.where(sign, 0.0, size), np.zeros_like(sign)
    _, exponent = np.frexp(np.where(size > 0, size, 2.0 ** -200))
    exponent = np.maximum(exponent - 1, 1 - f.bias)  # of the first bit, or of subnormal numbers
    kept = np.floor(np.ldexp(size, f.mantissa - exponent) + np.ldexp(random, -bits))
    code = kept + np.ldexp(1.0 * (exponent + f.bias - 1), f.mantissa)
    return _finish(np.where(np.isfinite(size), code, f.codes), sign, x, f, finite)


# -- by tables ------------------------------------------------------------------------------------

def from_float(x: Array, name: str, mode: str, finite: bool, relu: bool) -> Array:
    """The codes of float32."""
    u = x.view(np.uint32)
    odd: Array = u >> np.uint32(16) | ((u & np.uint32(0xffff)) != 0)
    return _encoder(name, "bf16", mode, finite, relu).take(odd)


def from_bits(x: Array, source: str, name: str, mode: str, finite: bool, relu: bool) -> Array:
    """The codes of float16 or bfloat16 (`source`) given as bits."""
    return _encoder(name, source, mode, finite, relu).take(x)


def to_bits(codes: Array, name: str, target: str, relu: bool) -> Array:
    """The bits of the float16 or bfloat16 (`target`) of each code."""
    return _decoder(name, target, relu).take(codes)


@cache
def _decoder(name: str, target: str, relu: bool) -> Array:
    """A table for each byte, whose upper bits may be unused."""
    x = np.resize(values(name), 256)
    with np.errstate(all="ignore"):
        x = rounding.relu(x) if relu else x
        half: Array = float_to_half(x).view(np.uint16)
        return half if target == "f16" else float_to_bfloat(x)


@cache
def _encoder(name: str, source: str, mode: str, finite: bool, relu: bool) -> Array:
    """A table for the bits of each float16 or bfloat16."""
    bits = np.arange(65536, dtype="u2")
    x = half_to_float(bits.view("f2")) if source == "f16" else bfloat_to_float(bits)
    with np.errstate(all="ignore"):
        return round_to(x, name, mode, finite, relu)
