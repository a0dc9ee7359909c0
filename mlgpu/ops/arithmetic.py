"""Sums, products and their kin, element by element.

One line each: see expr/primitives.py.  Operands broadcast and promote as in PyTorch; an operand
may be a Python number.
"""

from __future__ import annotations

from typing import Any

from mlgpu import dtypes
from mlgpu.errors import DTypeError, ShapeError
from mlgpu.expr.graph import Expr, call
from mlgpu.ops.choice import where
from mlgpu.ops.elementwise import elementwise, symbolic
from mlgpu.ops.operand import Number, Operand
from mlgpu.tensor import Tensor

__all__ = ["abs", "absolute", "add", "addcdiv", "addcmul", "div", "divide", "floor_divide", "fmod",
           "lerp", "mul", "multiply", "neg", "negative", "positive", "reciprocal", "remainder",
           "rsub", "sub", "subtract", "true_divide"]


@elementwise
def _add(input: Any, other: Any) -> Any:
    return call("add", input, other)


@elementwise
def _sub(input: Any, other: Any) -> Any:
    return call("sub", input, other)


@elementwise
def _add_scaled(input: Any, other: Any, alpha: Any) -> Any:
    return input + alpha * other


@elementwise
def _sub_scaled(input: Any, other: Any, alpha: Any) -> Any:
    return input - alpha * other


@symbolic
def add(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input + alpha * other."""
    if alpha == 1:
        return _add(input, other)  # type: ignore[no-any-return]
    return _add_scaled(input, other, alpha)  # type: ignore[no-any-return]


@symbolic
def sub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other.  Raises DTypeError for bool: use logical_xor."""
    if alpha == 1:
        return _sub(input, other)  # type: ignore[no-any-return]
    return _sub_scaled(input, other, alpha)  # type: ignore[no-any-return]


@symbolic
def rsub(input: Operand, other: Operand, *, alpha: Number = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha)


@elementwise
def mul(input: Operand, other: Operand) -> Tensor:
    """input * other."""
    return call("mul", input, other)  # type: ignore[return-value]


@elementwise
def _div(input: Any, other: Any) -> Any:
    return call("div", input, other)


@elementwise
def _div_trunc(input: Any, other: Any) -> Any:
    return call("trunc_divide", input, other)


@elementwise
def floor_divide(input: Operand, other: Operand) -> Tensor:
    """The quotient rounded down.  Raises MlgpuError for integers divided by zero."""
    return call("floor_divide", input, other)  # type: ignore[return-value]


@symbolic
def div(input: Operand, other: Operand, *, rounding_mode: str | None = None) -> Tensor:
    """input / other; `rounding_mode` "trunc" rounds the quotient towards zero, "floor" down.

    Without it integers become floating.  Raises ValueError for another mode.
    """
    if rounding_mode is None:
        return _div(input, other)  # type: ignore[no-any-return]
    if rounding_mode == "trunc":
        return _div_trunc(input, other)  # type: ignore[no-any-return]
    if rounding_mode == "floor":
        return floor_divide(input, other)
    raise ShapeError("div: rounding_mode must be None, 'trunc' or 'floor', got "
                     f"{rounding_mode!r}")


@elementwise
def remainder(input: Operand, other: Operand) -> Tensor:
    """What floor_divide leaves: it has the sign of `other`, as Python's %."""
    return call("remainder", input, other)  # type: ignore[return-value]


@elementwise
def fmod(input: Operand, other: Operand) -> Tensor:
    """What division rounded towards zero leaves: it has the sign of `input`, as C's fmod."""
    return call("fmod", input, other)  # type: ignore[return-value]


@elementwise
def neg(input: Tensor) -> Tensor:
    """-input.  Raises DTypeError for bool."""
    return call("neg", input)  # type: ignore[return-value]


@symbolic
def positive(input: Tensor) -> Tensor:
    """`input` itself.  Raises DTypeError for bool."""
    if isinstance(input, Tensor) and input.dtype is dtypes.bool_:
        raise DTypeError("positive: not defined for bool; cast first")
    return input


@elementwise
def abs(input: Tensor) -> Tensor:
    """The absolute value; of complex numbers a real one.  Derivative 0 at 0."""
    return call("abs", input)  # type: ignore[return-value]


@elementwise
def reciprocal(input: Tensor) -> Tensor:
    """1 / input."""
    return call("reciprocal", input)  # type: ignore[return-value]


@elementwise
def _addcmul(input: Any, tensor1: Any, tensor2: Any, value: Any) -> Any:
    return input + value * tensor1 * tensor2


@symbolic
def addcmul(input: Tensor, tensor1: Operand, tensor2: Operand, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    return _addcmul(input, tensor1, tensor2, value)  # type: ignore[no-any-return]


@elementwise
def _addcdiv(input: Any, tensor1: Any, tensor2: Any, value: Any) -> Any:
    return input + value * (tensor1 / tensor2)


@symbolic
def addcdiv(input: Tensor, tensor1: Operand, tensor2: Operand, *, value: Number = 1) -> Tensor:
    """input + value * tensor1 / tensor2.  Raises DTypeError if all are integers."""
    if not any(isinstance(x, (float, complex, Expr)) or (isinstance(x, Tensor) and (
            x.is_floating_point() or x.is_complex())) for x in (input, tensor1, tensor2)):
        raise DTypeError("addcdiv: not defined for integers; use div and add")
    return _addcdiv(input, tensor1, tensor2, value)  # type: ignore[no-any-return]


@elementwise
def _lerp_near(input: Any, end: Any, weight: Any) -> Any:
    return input + weight * (end - input)


@elementwise
def _lerp_far(input: Any, end: Any, weight: Any) -> Any:
    return end - (end - input) * (1 - weight)


@elementwise
def _lerp(input: Any, end: Any, weight: Any) -> Any:
    return where(abs(weight) < 0.5, _lerp_near(input, end, weight), _lerp_far(input, end, weight))


@symbolic
def lerp(input: Tensor, end: Tensor, weight: Operand) -> Tensor:
    """input + weight * (end - input), from the nearer end: weight 1 gives `end`."""
    if isinstance(weight, (Tensor, Expr)):
        return _lerp(input, end, weight)  # type: ignore[no-any-return]
    near = -0.5 < _absolute(weight) < 0.5
    return (_lerp_near if near else _lerp_far)(input, end, weight)  # type: ignore[no-any-return]


def _absolute(number: Number) -> float:
    return number.__abs__()


absolute = abs


divide = true_divide = div


multiply = mul
negative = neg
subtract = sub
