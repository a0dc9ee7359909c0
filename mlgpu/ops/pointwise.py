"""Arithmetic and mathematics, element by element.  One line each: see expr/primitives.py.

Operands broadcast and promote as in PyTorch; an operand may be a Python number.  Integers become
the default floating dtype where the result is not whole.
"""

from __future__ import annotations

import math
from typing import Any, overload

from mlgpu import dtypes
from mlgpu.errors import DTypeError, GraphError, ShapeError
from mlgpu.expr.graph import Expr, call
from mlgpu.ops.elementwise import elementwise, inplace, symbolic
from mlgpu.tensor import Tensor

__all__ = ["abs", "absolute", "acos", "acosh", "add", "addcdiv", "addcmul", "angle", "arccos",
           "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "asin", "asinh", "atan",
           "atan2", "atanh", "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or",
           "bitwise_right_shift", "bitwise_xor", "ceil", "clamp", "clamp_max", "clamp_min", "clip",
           "copysign", "cos", "cosh", "deg2rad", "digamma", "div", "divide", "erf", "erfc",
           "erfinv", "exp", "exp2", "expit", "expm1", "fix", "float_power", "floor", "floor_divide",
           "fmax", "fmin", "fmod", "frac", "heaviside", "hypot", "lerp", "lgamma", "log", "log1p",
           "log2", "log10", "logaddexp", "logaddexp2", "logit", "maximum", "minimum", "mul",
           "multiply", "nan_to_num", "nan_to_num_", "neg", "negative", "nextafter", "polygamma",
           "positive", "pow", "rad2deg", "reciprocal", "remainder", "round", "rsqrt", "rsub", "sgn",
           "sigmoid", "sign", "sin", "sinc", "sinh", "sqrt", "square", "sub", "subtract", "tan",
           "tanh", "true_divide", "trunc", "where", "xlogy"]

Number = complex | float | int | bool
Operand = Tensor | Number

_LN2 = 0.6931471805599453
_PI = 3.141592653589793


# --- sums and products ----------------------------------------------------------------------------


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


# --- powers and exponentials ----------------------------------------------------------------------


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


# --- trigonometry ---------------------------------------------------------------------------------


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
def angle(input: Tensor) -> Tensor:
    """The argument of complex numbers in radians; 0 or pi for real ones."""
    return call("angle", input)  # type: ignore[return-value]


# --- special functions ----------------------------------------------------------------------------


@elementwise
def erf(input: Tensor) -> Tensor:
    """The error function."""
    return call("erf", input)  # type: ignore[return-value]


@elementwise
def erfc(input: Tensor) -> Tensor:
    """1 - erf(input), exact where that is small."""
    return call("erfc", input)  # type: ignore[return-value]


@elementwise
def erfinv(input: Tensor) -> Tensor:
    """The inverse of erf, on (-1, 1)."""
    return call("erfinv", input)  # type: ignore[return-value]


@elementwise
def lgamma(input: Tensor) -> Tensor:
    """log |gamma(input)|."""
    return call("lgamma", input)  # type: ignore[return-value]


@elementwise
def digamma(input: Tensor) -> Tensor:
    """The derivative of lgamma."""
    return call("digamma", input)  # type: ignore[return-value]


@symbolic
def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma, n >= 0."""
    if n < 0:
        raise ShapeError(f"polygamma: n must not be negative, got {n}")
    if n == 0:
        return digamma(input)
    return _polygamma(n)(input)  # type: ignore[no-any-return]


def _polygamma(n: int) -> Any:
    def polygamma(input: Any) -> Any:
        return call("polygamma", input, attr=n)

    return elementwise(polygamma)


@elementwise
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + exp(-input))."""
    return call("sigmoid", input)  # type: ignore[return-value]


expit = sigmoid


@elementwise
def _logit(input: Any) -> Any:
    return log(input / (1 - input))


@symbolic
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(x / (1 - x)), of x clamped to [eps, 1 - eps] if eps is given.

    The clamp cuts the gradient outside.
    """
    if eps is None:
        return _logit(input)  # type: ignore[no-any-return]
    return _logit_clamped(input, eps, 1 - eps)  # type: ignore[no-any-return]


@elementwise
def _logit_clamped(input: Any, low: Any, high: Any) -> Any:
    return _logit(clamp_max(clamp_min(input, low), high))


# --- rounding and sign ----------------------------------------------------------------------------


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
    return where(call("eq", input, 0), values, where(call("gt", input, 0), 1, 0))


# --- choice ---------------------------------------------------------------------------------------


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


# --- bits -----------------------------------------------------------------------------------------


@elementwise
def bitwise_and(input: Operand, other: Operand) -> Tensor:
    """Bits set in both; logical and for bool."""
    return call("bitwise_and", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_or(input: Operand, other: Operand) -> Tensor:
    """Bits set in either; logical or for bool."""
    return call("bitwise_or", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_xor(input: Operand, other: Operand) -> Tensor:
    """Bits set in one of the two; logical xor for bool."""
    return call("bitwise_xor", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_not(input: Tensor) -> Tensor:
    """All bits inverted; logical not for bool."""
    return call("bitwise_not", input)  # type: ignore[return-value]


@elementwise
def bitwise_left_shift(input: Operand, other: Operand) -> Tensor:
    """input * 2^other; 0 where other is negative or not less than the width."""
    return call("left_shift", input, other)  # type: ignore[return-value]


@elementwise
def bitwise_right_shift(input: Operand, other: Operand) -> Tensor:
    """input / 2^other rounded down; the sign alone where other is out of range."""
    return call("right_shift", input, other)  # type: ignore[return-value]


absolute = abs
arccos, arccosh, arcsin, arcsinh = acos, acosh, asin, asinh
arctan, arctan2, arctanh = atan, atan2, atanh
clip = clamp
divide = true_divide = div
fix = trunc
multiply = mul
negative = neg
subtract = sub
