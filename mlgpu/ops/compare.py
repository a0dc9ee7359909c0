"""Comparisons and logic: results are bool, and no gradient passes."""

from __future__ import annotations

from typing import Any

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.expr.graph import call
from mlgpu.ops.elementwise import elementwise
from mlgpu.tensor import Tensor

__all__ = ["allclose", "eq", "equal", "ge", "greater", "greater_equal", "gt", "isclose", "isfinite",
           "isinf", "isnan", "isneginf", "isposinf", "isreal", "le", "less", "less_equal",
           "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "ne", "not_equal",
           "signbit"]

Operand = Tensor | complex | float | int | bool


@elementwise
def eq(input: Operand, other: Operand) -> Tensor:
    """input == other."""
    return call("eq", input, other)  # type: ignore[return-value]


@elementwise
def ne(input: Operand, other: Operand) -> Tensor:
    """input != other."""
    return call("ne", input, other)  # type: ignore[return-value]


@elementwise
def lt(input: Operand, other: Operand) -> Tensor:
    """input < other.  Real numbers."""
    return call("lt", input, other)  # type: ignore[return-value]


@elementwise
def le(input: Operand, other: Operand) -> Tensor:
    """input <= other.  Real numbers."""
    return call("le", input, other)  # type: ignore[return-value]


@elementwise
def gt(input: Operand, other: Operand) -> Tensor:
    """input > other.  Real numbers."""
    return call("gt", input, other)  # type: ignore[return-value]


@elementwise
def ge(input: Operand, other: Operand) -> Tensor:
    """input >= other.  Real numbers."""
    return call("ge", input, other)  # type: ignore[return-value]


greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne


@elementwise
def logical_and(input: Tensor, other: Tensor) -> Tensor:
    """Whether both are not zero."""
    return call("logical_and", input, other)  # type: ignore[return-value]


@elementwise
def logical_or(input: Tensor, other: Tensor) -> Tensor:
    """Whether either is not zero."""
    return call("logical_or", input, other)  # type: ignore[return-value]


@elementwise
def logical_xor(input: Tensor, other: Tensor) -> Tensor:
    """Whether exactly one is not zero."""
    return call("logical_xor", input, other)  # type: ignore[return-value]


@elementwise
def logical_not(input: Tensor) -> Tensor:
    """Whether it is zero."""
    return call("logical_not", input)  # type: ignore[return-value]


@elementwise
def isnan(input: Tensor) -> Tensor:
    """Whether it is NaN (either part, for complex numbers)."""
    return call("isnan", input)  # type: ignore[return-value]


@elementwise
def isinf(input: Tensor) -> Tensor:
    """Whether it is infinite (either part, for complex numbers)."""
    return call("isinf", input)  # type: ignore[return-value]


@elementwise
def isfinite(input: Tensor) -> Tensor:
    """Whether it is neither infinite nor NaN."""
    return call("logical_not", call("logical_or", isinf(input), isnan(input)))  # type: ignore[return-value]


@elementwise
def isposinf(input: Tensor) -> Tensor:
    """Whether it is +inf."""
    return call("logical_and", isinf(input), call("gt", input, 0))  # type: ignore[return-value]


@elementwise
def isneginf(input: Tensor) -> Tensor:
    """Whether it is -inf."""
    return call("logical_and", isinf(input), call("lt", input, 0))  # type: ignore[return-value]


@elementwise
def isreal(input: Tensor) -> Tensor:
    """Whether the imaginary part is zero."""
    return call("eq", call("imag", input), 0)  # type: ignore[return-value]


@elementwise
def signbit(input: Tensor) -> Tensor:
    """Whether the sign bit is set, as for -0.0."""
    return call("signbit", input)  # type: ignore[return-value]


@elementwise
def _isclose(input: Any, other: Any, rtol: Any, atol: Any) -> Any:
    difference = call("abs", input - other)
    within = difference <= atol + call("abs", rtol * other)
    finite = call("logical_not", call("logical_or", call("isinf", difference),
                                      call("isnan", difference)))
    return call("logical_or", call("eq", input, other), call("logical_and", finite, within))


@elementwise
def _both_nan(input: Any, other: Any) -> Any:
    return call("logical_and", call("isnan", input), call("isnan", other))


def isclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
            equal_nan: bool = False) -> Tensor:
    """|input - other| <= atol + rtol * |other|, element by element; infinities equal themselves.

    Raises DTypeError where the dtypes differ, ValueError for a negative tolerance.
    """
    if input.dtype is not other.dtype:
        raise DTypeError(f"isclose: both must have one dtype, got {input.dtype!r} and "
                         f"{other.dtype!r}")
    if rtol < 0 or atol < 0:
        raise ShapeError(f"isclose: tolerances must not be negative, got rtol={rtol}, atol={atol}")
    if input.dtype is dtypes.bool_ or (rtol == 0 and atol == 0):
        close: Tensor = eq(input, other)
    else:
        wide = (input, other) if input.is_floating_point() or input.is_complex() else (
            input.to(dtypes.float64), other.to(dtypes.float64))
        close = _isclose(*wide, rtol, atol)
    return logical_or(close, _both_nan(input, other)) if equal_nan else close


def allclose(input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08,
             equal_nan: bool = False) -> bool:
    """Whether all elements are close; see `isclose`."""
    return bool(isclose(input, other, rtol, atol, equal_nan).all())


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all values are equal, after promotion to one dtype."""
    return input.shape == other.shape and bool(eq(input, other).all())
