"""Functions of the normal distribution's tails, element by element.

Real operands of any dtype, integers as the default dtype; computed in float64 and rounded once.
"""

from __future__ import annotations

from mlgpu.expr import special as special  # registers what is called here
from mlgpu.expr.graph import call
from mlgpu.ops.elementwise import elementwise
from mlgpu.tensor import Tensor

__all__ = ["erfcx", "log_ndtr", "ndtri"]


@elementwise
def erfcx(input: Tensor) -> Tensor:
    """exp(input^2) erfc(input), which does not vanish."""
    return call("erfcx", input)  # type: ignore[return-value]


@elementwise
def log_ndtr(input: Tensor) -> Tensor:
    """The logarithm of ndtr, the standard normal distribution function, also far out."""
    return call("log_ndtr", input)  # type: ignore[return-value]


@elementwise
def ndtri(input: Tensor) -> Tensor:
    """The inverse of ndtr, on [0, 1]; NaN outside."""
    return call("ndtri", input)  # type: ignore[return-value]
