"""Circular and hyperbolic functions, their inverses, and angles, element by element.

One line each: see expr/primitives.py.  Operands broadcast and promote as in PyTorch; an operand
may be a Python number.
"""

from __future__ import annotations

from typing import Any

from mlgpu import dtypes
from mlgpu.expr.graph import call
from mlgpu.ops.elementwise import elementwise, symbolic
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = ["acos", "acosh", "angle", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2",
           "arctanh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "deg2rad", "hypot",
           "rad2deg", "sin", "sinc", "sinh", "tan", "tanh"]

_PI = 3.141592653589793


@elementwise
def sin(input: Tensor) -> Tensor:
    """The sine of an angle in radians."""
    return call("sin", input)  # type: ignore[return-value]


@elementwise
def cos(input: Tensor) -> Tensor:
    """The cosine of an angle in radians."""
    return call("cos", input)  # type: ignore[return-value]


@elementwise
def tan(input: Tensor) -> Tensor:
    """The tangent of an angle in radians."""
    return call("tan", input)  # type: ignore[return-value]


@elementwise
def asin(input: Tensor) -> Tensor:
    """The angle in radians whose sine is input; NaN outside [-1, 1]."""
    return call("asin", input)  # type: ignore[return-value]


@elementwise
def acos(input: Tensor) -> Tensor:
    """The angle in radians whose cosine is input; NaN outside [-1, 1]."""
    return call("acos", input)  # type: ignore[return-value]


@elementwise
def atan(input: Tensor) -> Tensor:
    """The angle in radians whose tangent is input."""
    return call("atan", input)  # type: ignore[return-value]


@elementwise
def atan2(input: Operand, other: Operand) -> Tensor:
    """The angle in radians of the point (other, input), by its quadrant."""
    return call("atan2", input, other)  # type: ignore[return-value]


@elementwise
def sinh(input: Tensor) -> Tensor:
    """The hyperbolic sine."""
    return call("sinh", input)  # type: ignore[return-value]


@elementwise
def cosh(input: Tensor) -> Tensor:
    """The hyperbolic cosine."""
    return call("cosh", input)  # type: ignore[return-value]


@elementwise
def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return call("tanh", input)  # type: ignore[return-value]


@elementwise
def asinh(input: Tensor) -> Tensor:
    """The inverse hyperbolic sine."""
    return call("asinh", input)  # type: ignore[return-value]


@elementwise
def acosh(input: Tensor) -> Tensor:
    """The inverse hyperbolic cosine; NaN below 1."""
    return call("acosh", input)  # type: ignore[return-value]


@elementwise
def atanh(input: Tensor) -> Tensor:
    """The inverse hyperbolic tangent; NaN outside [-1, 1]."""
    return call("atanh", input)  # type: ignore[return-value]


@elementwise
def hypot(input: Operand, other: Operand) -> Tensor:
    """sqrt(input^2 + other^2), without overflow."""
    return call("hypot", input, other)  # type: ignore[return-value]


@elementwise
def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return input * (_PI / 180)


@elementwise
def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return input * (180 / _PI)


@elementwise
def sinc(input: Tensor) -> Tensor:
    """sin(pi x) / (pi x), 1 at 0."""
    return call("sinc", input)  # type: ignore[return-value]


@elementwise
def _angle(input: Any) -> Any:
    return call("angle", input)


@symbolic
def angle(input: Tensor) -> Tensor:
    """The argument of complex numbers in radians; 0 or pi for real ones."""
    if isinstance(input, Tensor) and input.dtype.kind in ("bool", "int"):
        input = input.to(dtypes.get_default_dtype())
    return _angle(input)  # type: ignore[no-any-return]


arccos, arccosh, arcsin, arcsinh = acos, acosh, asin, asinh
arctan, arctan2, arctanh = atan, atan2, atanh
