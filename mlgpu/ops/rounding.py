"""Rounding and signs, element by element.

One line each: see expr/primitives.py.  Operands broadcast and promote as in PyTorch; an operand
may be a Python number.
"""

from __future__ import annotations

from typing import Any

from mlgpu.errors import DTypeError
from mlgpu.expr.graph import call
from mlgpu.ops.choice import where
from mlgpu.ops.elementwise import elementwise, symbolic
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = ["ceil", "copysign", "fix", "floor", "frac", "heaviside", "nextafter", "round", "sgn",
           "sign", "trunc"]


@elementwise
def ceil(input: Tensor) -> Tensor:
    """The smallest whole number not below."""
    return call("ceil", input)  # type: ignore[return-value]


@elementwise
def floor(input: Tensor) -> Tensor:
    """The largest whole number not above."""
    return call("floor", input)  # type: ignore[return-value]


@elementwise
def trunc(input: Tensor) -> Tensor:
    """The whole number next to it towards zero."""
    return call("trunc", input)  # type: ignore[return-value]


@elementwise
def frac(input: Tensor) -> Tensor:
    """input - trunc(input).  Floating tensors."""
    return input - trunc(input)


@elementwise
def _round(input: Any) -> Any:
    return call("round", input)


@elementwise
def _round_scaled(input: Any, scale: Any) -> Any:
    return call("round", input * scale) / scale


@elementwise
def _round_coarse(input: Any, scale: Any) -> Any:
    return call("round", input / scale) * scale


@symbolic
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number with `decimals` decimals, halves to even.

    Integers stay as they are; negative `decimals` rounds to tens, hundreds, ...
    """
    if decimals == 0:
        return _round(input)  # type: ignore[no-any-return]
    if isinstance(input, Tensor) and not input.is_floating_point():
        raise DTypeError(f"round: decimals are for floating tensors, got {input.dtype!r}")
    if decimals > 0:
        return _round_scaled(input, 10.0**decimals)  # type: ignore[no-any-return]
    return _round_coarse(input, 10.0**-decimals)  # type: ignore[no-any-return]


@elementwise
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1.  Real numbers; see `sgn`."""
    return call("sign", input)  # type: ignore[return-value]


@elementwise
def sgn(input: Tensor) -> Tensor:
    """The sign; for complex numbers z / |z|, 0 at 0."""
    return call("sgn", input)  # type: ignore[return-value]


@elementwise
def copysign(input: Operand, other: Operand) -> Tensor:
    """|input| with the sign of other."""
    return call("copysign", input, other)  # type: ignore[return-value]


@elementwise
def nextafter(input: Tensor, other: Tensor) -> Tensor:
    """The number of the dtype next to input in the direction of other."""
    return call("nextafter", input, other)  # type: ignore[return-value]


@elementwise
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 for negative input, 1 for positive, `values` at 0."""
    above: Any = call("gt", input, 0)
    return where(call("eq", input, 0), values, above)


fix = trunc
