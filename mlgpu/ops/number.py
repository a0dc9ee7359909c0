"""Common divisors of whole numbers, and the parts of floating ones, element by element."""

from __future__ import annotations

from typing import Any, NamedTuple

from mlgpu.expr import special as special  # registers ldexp
from mlgpu.expr.graph import call
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = ["frexp", "gcd", "lcm", "ldexp"]


@elementwise
def gcd(input: Operand, other: Operand) -> Tensor:
    """The greatest common divisor of integers, not negative; gcd(0, 0) is 0."""
    return call("gcd", input, other)  # type: ignore[return-value]


@elementwise
def lcm(input: Operand, other: Operand) -> Tensor:
    """The least common multiple of integers, not negative; 0 where one is 0."""
    return call("lcm", input, other)  # type: ignore[return-value]


@elementwise
def ldexp(input: Operand, other: Operand) -> Tensor:
    """input times 2 to the power of other; integers give the default dtype.

    Exact wherever the result is a normal number, also where 2^other alone would overflow.
    """
    return call("ldexp", input, other)  # type: ignore[return-value]


class Frexp(NamedTuple):
    """What frexp returns."""

    mantissa: Tensor
    exponent: Tensor


@elementwise
def _frexp(input: Any) -> Any:
    return call("mantissa", input), call("exponent", input)


def frexp(input: Tensor) -> Frexp:
    """mantissa and exponent (int32) with input = mantissa 2^exponent, |mantissa| in [0.5, 1).

    For 0 and what is not finite the mantissa is input, the exponent 0.  DTypeError for integers.
    """
    return Frexp(*_frexp(input))
