"""Selection, extremes of two operands, and clamping, element by element.

One line each: see expr/primitives.py.  Operands broadcast and promote as in PyTorch; an operand
may be a Python number.
"""

from __future__ import annotations

import math
from typing import Any, overload

from mlgpu import dtypes
from mlgpu.errors import DTypeError, GraphError, ShapeError
from mlgpu.expr.graph import Expr, call
from mlgpu.ops.elementwise import elementwise, inplace, symbolic
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = ["clamp", "clamp_max", "clamp_min", "clip", "fmax", "fmin", "maximum", "minimum",
           "nan_to_num", "nan_to_num_", "where"]


@elementwise
def _where(condition: Any, input: Any, other: Any) -> Any:
    return call("where", condition, input, other)


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(condition: Tensor | Expr, input: Operand, other: Operand) -> Tensor: ...
@symbolic
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` holds, else `other`; with the condition alone, its nonzero places.

    The gradient of the operand that is not chosen is 0, even if its value is not finite.
    Raises DTypeError unless the condition is bool.
    """
    if input is None and other is None:
        return condition.nonzero(as_tuple=True)
    if isinstance(condition, Tensor) and condition.dtype is not dtypes.bool_:
        raise DTypeError(f"where: the condition must be bool, got {condition.dtype!r}; compare "
                         "first, or .bool()")
    return _where(condition, input, other)


@elementwise
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two; NaN if either is.  Equal operands share the gradient."""
    return call("maximum", input, other)  # type: ignore[return-value]


@elementwise
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two; NaN if either is.  Equal operands share the gradient."""
    return call("minimum", input, other)  # type: ignore[return-value]


@elementwise
def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two; the other one if one is NaN."""
    return call("fmax", input, other)  # type: ignore[return-value]


@elementwise
def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two; the other one if one is NaN."""
    return call("fmin", input, other)  # type: ignore[return-value]


@elementwise
def clamp_min(input: Tensor, min: Operand) -> Tensor:
    """input, but at least `min`; the gradient passes at the bound."""
    return call("clamp_min", input, min)  # type: ignore[return-value]


@elementwise
def clamp_max(input: Tensor, max: Operand) -> Tensor:
    """input, but at most `max`; the gradient passes at the bound."""
    return call("clamp_max", input, max)  # type: ignore[return-value]


@elementwise
def _clamp(input: Any, low: Any, high: Any) -> Any:
    return call("clamp_max", call("clamp_min", input, low), high)


@symbolic
def clamp(input: Tensor, min: Operand | None = None, max: Operand | None = None) -> Tensor:
    """input held within [min, max], either of which may be None, a number or a tensor.

    Where min > max the result is max.  The gradient passes at the bounds.
    """
    if min is not None and max is not None:
        return _clamp(input, min, max)  # type: ignore[no-any-return]
    if min is not None:
        return clamp_min(input, min)
    if max is not None:
        return clamp_max(input, max)
    raise ShapeError("clamp: at least one of min and max must be given")


@elementwise
def _replaced(input: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    # Each number meets the input, whose dtype it takes; two numbers would meet in the default one.
    replaced = where(call("isnan", input), nan, input)
    replaced = where(call("eq", input, -math.inf), neginf, replaced)
    return where(call("eq", input, math.inf), posinf, replaced)


@symbolic
def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:
    """NaN as `nan` (0), infinities as `posinf` and `neginf` (the dtype's largest and smallest)."""
    if isinstance(input, Tensor):
        if not input.is_floating_point():
            if input.is_complex():
                raise DTypeError("nan_to_num: complex tensors are not supported; apply it to "
                                 ".real and .imag")
            return input.clone()
        limits = dtypes.finfo(input.dtype)
        posinf = limits.max if posinf is None else posinf
        neginf = limits.min if neginf is None else neginf
    elif posinf is None or neginf is None:
        raise GraphError("nan_to_num: inside an expression the dtype is not known yet; give "
                         "posinf and neginf")
    return _replaced(input, 0.0 if nan is None else nan, posinf, neginf)  # type: ignore[no-any-return]


_nan_to_num_ = inplace(nan_to_num)


def nan_to_num_(input: Tensor, nan: float | None = None, posinf: float | None = None,
                neginf: float | None = None) -> Tensor:
    """`nan_to_num` in place."""
    if not input.is_floating_point():
        return input
    limits = dtypes.finfo(input.dtype)
    return _nan_to_num_(input, nan, limits.max if posinf is None else posinf,  # type: ignore[no-any-return]
                        limits.min if neginf is None else neginf)


clip = clamp
