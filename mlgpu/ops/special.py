"""Error, gamma and logistic functions, element by element.

One line each: see expr/primitives.py.  Operands broadcast and promote as in PyTorch; an operand
may be a Python number.
"""

from __future__ import annotations

import math
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.expr.graph import call
from mlgpu.ops.choice import clamp_max, clamp_min, where
from mlgpu.ops.elementwise import elementwise, symbolic
from mlgpu.ops.exponential import log
from mlgpu.ops.operand import Operand
from mlgpu.tensor import Tensor

__all__ = ["digamma", "entr", "erf", "erfc", "erfinv", "expit", "lgamma", "logit", "ndtr",
           "polygamma", "sigmoid", "xlog1py"]

_SQRT_HALF = math.sqrt(0.5)


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
def ndtr(input: Tensor) -> Tensor:
    """The standard normal distribution: the probability of a value that is not greater."""
    return 0.5 * erfc(input * -_SQRT_HALF)


@elementwise
def entr(input: Tensor) -> Tensor:
    """-input log(input): 0 at 0, -inf below."""
    inside = -(input * log(input))  # the product is floating: -input would wrap for uint8
    return where(input > 0, inside, where(input == 0, 0.0, where(input < 0, -math.inf, input)))


@elementwise
def xlog1py(input: Operand, other: Operand) -> Tensor:
    """input log(1 + other): 0 where input is 0, whatever other is but NaN."""
    product: Any = call("mul", input, call("log1p", other))
    zero = call("logical_and", call("eq", input, 0), call("logical_not", call("isnan", other)))
    return where(zero, 0, product)


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
