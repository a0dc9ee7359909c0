"""Powers, exponentials and logarithms, element by element.

One line each: see expr/primitives.py.  Operands broadcast and promote as in PyTorch; an operand
may be a Python number.
"""

from __future__ import annotations

from typing import Any

from mlgpu import dtypes
from mlgpu.expr.graph import Expr, call
from mlgpu.ops.arithmetic import reciprocal
from mlgpu.ops.choice import where
from mlgpu.ops.elementwise import elementwise, symbolic
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = [
    "exp",
    "exp2",
    "expm1",
    "float_power",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logaddexp2",
    "pow",
    "rsqrt",
    "sqrt",
    "square",
    "xlogy",
]

_LN2 = 0.6931471805599453


@elementwise
def _pow(input: Any, exponent: Any) -> Any:
    return call("pow", input, exponent)


@elementwise
def square(input: Tensor) -> Tensor:
    """input * input."""
    return call("mul", input, input)  # type: ignore[return-value]


@elementwise
def _cube(input: Any) -> Any:
    return input * input * input


@elementwise
def sqrt(input: Tensor) -> Tensor:
    """The square root; NaN for negative real numbers."""
    return call("sqrt", input)  # type: ignore[return-value]


@elementwise
def rsqrt(input: Tensor) -> Tensor:
    """1 / sqrt(input)."""
    return call("rsqrt", input)  # type: ignore[return-value]


# Powers that are one or two products, or a root, of a floating input.
_POWERS: dict[Any, Any] = {2: square, 3: _cube, 0.5: sqrt, -0.5: rsqrt, -1: reciprocal}


@symbolic
def pow(input: Operand, exponent: Operand) -> Tensor:
    """input to the power of exponent.  MlgpuError for integers with negative integer powers."""
    if isinstance(exponent, (int, float)) and isinstance(input, (Tensor, Expr)):
        short = _POWERS.get(exponent)
        if short is not None and (isinstance(input, Expr) or input.is_floating_point()):
            return short(input)  # type: ignore[no-any-return]
    return _pow(input, exponent)  # type: ignore[no-any-return]


def float_power(input: Operand, exponent: Operand) -> Tensor:
    """input to the power of exponent, computed in float64 (complex128 for complex operands)."""
    operands = [x for x in (input, exponent) if isinstance(x, Tensor)]
    wide = dtypes.complex128 if dtypes.result_type(input, exponent).is_complex else dtypes.float64
    cast = {id(x): x.to(wide) for x in operands}
    return pow(cast.get(id(input), input), cast.get(id(exponent), exponent))


@elementwise
def exp(input: Tensor) -> Tensor:
    """e to the power of input."""
    return call("exp", input)  # type: ignore[return-value]


@elementwise
def exp2(input: Tensor) -> Tensor:
    """2 to the power of input."""
    return call("exp2", input)  # type: ignore[return-value]


@elementwise
def expm1(input: Tensor) -> Tensor:
    """exp(input) - 1, exact near 0."""
    return call("expm1", input)  # type: ignore[return-value]


@elementwise
def log(input: Tensor) -> Tensor:
    """The natural logarithm."""
    return call("log", input)  # type: ignore[return-value]


@elementwise
def log2(input: Tensor) -> Tensor:
    """The logarithm to base 2."""
    return call("log2", input)  # type: ignore[return-value]


@elementwise
def log10(input: Tensor) -> Tensor:
    """The logarithm to base 10."""
    return call("log10", input)  # type: ignore[return-value]


@elementwise
def log1p(input: Tensor) -> Tensor:
    """log(1 + input), exact near 0."""
    return call("log1p", input)  # type: ignore[return-value]


@elementwise
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """log(exp(input) + exp(other)), without overflow."""
    return call("logaddexp", input, other)  # type: ignore[return-value]


@elementwise
def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """log2(2^input + 2^other), without overflow."""
    return logaddexp(input * _LN2, other * _LN2) / _LN2


@elementwise
def xlogy(input: Operand, other: Operand) -> Tensor:
    """input * log(other), 0 where input is 0 and other is not NaN."""
    product: Any = call("mul", input, call("log", other))
    zero = call("logical_and", call("eq", input, 0), call("logical_not", call("isnan", other)))
    return where(zero, 0, product)
