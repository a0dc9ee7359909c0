"""Activation functions: one line of maths each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.expr.graph import Expr, call
from mlgpu.ops.arithmetic import abs
from mlgpu.ops.choice import clamp_min, where
from mlgpu.ops.elementwise import elementwise, symbolic
from mlgpu.ops.elementwise import inplace as _inplace
from mlgpu.ops.exponential import exp, expm1, log1p
from mlgpu.ops.special import sigmoid
from mlgpu.ops.trigonometry import tanh
from mlgpu.tensor import Tensor

__all__ = ["celu", "celu_", "elu", "elu_", "gelu", "glu", "hardshrink", "hardsigmoid", "hardswish",
           "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "logsigmoid", "mish", "prelu",
           "relu", "relu6", "relu_", "rrelu", "rrelu_", "selu", "selu_", "sigmoid", "silu",
           "softplus", "softshrink", "softsign", "tanh", "tanhshrink", "threshold", "threshold_"]

_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946


def _optionally_inplace(function: Any, input: Any, args: tuple[Any, ...], in_place: bool) -> Any:
    if in_place and not isinstance(input, Expr):
        return _inplace_form(function)(input, *args)
    return function(input, *args)


_forms: dict[int, Callable[..., Any]] = {}


def _inplace_form(function: Any) -> Callable[..., Any]:
    form = _forms.get(id(function))
    if form is None:
        form = _forms[id(function)] = _inplace(function)
    return form


@elementwise
def _relu(input: Any) -> Any:
    return call("relu", input)


@symbolic
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); derivative 0 at 0."""
    if not inplace:
        return _relu(input)  # type: ignore[no-any-return]
    return _optionally_inplace(_relu, input, (), True)  # type: ignore[no-any-return]


@symbolic
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6); derivative 0 at both bounds."""
    return hardtanh(input, 0.0, 6.0, inplace)


@elementwise
def _hardtanh(input: Any, low: Any, high: Any) -> Any:
    return call("hardtanh", input, low, high)


@symbolic
def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0,
             inplace: bool = False) -> Tensor:
    """x held within [min_val, max_val]; derivative 0 at both bounds.

    Raises ValueError if min_val > max_val.
    """
    if min_val > max_val:
        raise ShapeError(f"hardtanh: min_val must not exceed max_val, got {min_val} and {max_val}")
    if isinstance(input, Tensor) and input.dtype.kind == "int":  # which it stays
        min_val, max_val = int(min_val), int(max_val)
    return _optionally_inplace(_hardtanh, input, (min_val, max_val), inplace)  # type: ignore[no-any-return]


@elementwise
def _leaky_relu(input: Any, slope: Any) -> Any:
    return where(input > 0, input, input * slope)


@symbolic
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x for positive x, else negative_slope * x."""
    return _optionally_inplace(_leaky_relu, input, (negative_slope,), inplace)  # type: ignore[no-any-return]


@elementwise
def _prelu(input: Any, weight: Any) -> Any:
    return where(input > 0, input, weight * input)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x for positive x, else weight * x; one weight, or one per channel (dimension 1).

    Raises ShapeError for another number of weights.
    """
    if weight.numel() == 1:
        return _prelu(input, weight.reshape(()))  # type: ignore[no-any-return]
    channels = input.shape[1] if input.ndim > 1 else input.numel() if input.ndim else 1
    if weight.ndim != 1 or weight.numel() != channels:
        raise ShapeError(f"prelu: weight must have 1 or {channels} elements, one per channel of "
                         f"the input, got shape {tuple(weight.shape)}")
    spread = (1, -1) + (1,) * (input.ndim - 2) if input.ndim > 1 else (-1,)
    return _prelu(input, weight.reshape(spread))  # type: ignore[no-any-return]


@elementwise
def _elu(input: Any, alpha: Any) -> Any:
    return where(input > 0, input, alpha * expm1(input))


@symbolic
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x for positive x, else alpha * (exp(x) - 1) (Clevert et al., 2016)."""
    return _optionally_inplace(_elu, input, (alpha,), inplace)  # type: ignore[no-any-return]


@elementwise
def _selu(input: Any) -> Any:
    return _SELU_SCALE * where(input > 0, input, _SELU_ALPHA * expm1(input))


@symbolic
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The self-normalising ELU (Klambauer et al., 2017)."""
    return _optionally_inplace(_selu, input, (), inplace)  # type: ignore[no-any-return]


@elementwise
def _celu(input: Any, alpha: Any) -> Any:
    return where(input > 0, input, alpha * expm1(input / alpha))


@symbolic
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x for positive x, else alpha * (exp(x / alpha) - 1) (Barron, 2017)."""
    if alpha == 0:
        raise ZeroDivisionError("celu: alpha must not be 0")
    return _optionally_inplace(_celu, input, (alpha,), inplace)  # type: ignore[no-any-return]


@elementwise
def _gelu(input: Any) -> Any:
    return call("gelu", input)


@elementwise
def _gelu_tanh(input: Any) -> Any:
    return call("gelu_tanh", input)


@symbolic
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x times the normal distribution function at x (Hendrycks & Gimpel, 2016).

    approximate="tanh" takes the paper's approximation of it.  Raises ValueError for another name.
    """
    if approximate not in ("none", "tanh"):
        raise ShapeError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return (_gelu if approximate == "none" else _gelu_tanh)(input)  # type: ignore[no-any-return]


@elementwise
def _silu(input: Any) -> Any:
    return call("silu", input)


@symbolic
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x) (Elfwing et al., 2017)."""
    return _optionally_inplace(_silu, input, (), inplace)  # type: ignore[no-any-return]


@elementwise
def _softplus(input: Any, beta: Any, threshold: Any) -> Any:
    scaled = input * beta
    return where(scaled > threshold, input, log1p(exp(scaled)) / beta)


@symbolic
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x > threshold."""
    return _softplus(input, beta, threshold)  # type: ignore[no-any-return]


@elementwise
def _mish(input: Any) -> Any:
    return input * tanh(clamp_min(input, 0) + log1p(exp(-abs(input))))


@symbolic
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)) (Misra, 2019)."""
    return _optionally_inplace(_mish, input, (), inplace)  # type: ignore[no-any-return]


@elementwise
def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)), without overflow."""
    return call("logsigmoid", input)  # type: ignore[return-value]


@elementwise
def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|)."""
    return input / (1 + abs(input))


@elementwise
def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x)."""
    return input - tanh(input)


@elementwise
def _hardsigmoid(input: Any) -> Any:
    held: Any = call("hardtanh", input + 3, 0, 6)
    return held / 6


@symbolic
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x / 6 + 1/2 held within [0, 1] (Courbariaux et al., 2015)."""
    return _optionally_inplace(_hardsigmoid, input, (), inplace)  # type: ignore[no-any-return]


@elementwise
def _hardswish(input: Any) -> Any:
    return where(input <= -3, 0, where(input < 3, input * (input + 3) / 6, input))


@symbolic
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * hardsigmoid(x) (Howard et al., 2019)."""
    return _optionally_inplace(_hardswish, input, (), inplace)  # type: ignore[no-any-return]


@elementwise
def _hardshrink(input: Any, lambd: Any) -> Any:
    return where(call("logical_and", input >= -lambd, input <= lambd), 0, input)


@symbolic
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x outside [-lambd, lambd], 0 within."""
    return _hardshrink(input, lambd)  # type: ignore[no-any-return]


@elementwise
def _softshrink(input: Any, lambd: Any) -> Any:
    inside = where(call("isnan", input), input, 0)
    return where(input > lambd, input - lambd, where(input < -lambd, input + lambd, inside))


@symbolic
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by lambd, 0 within [-lambd, lambd].  ValueError for a negative lambd."""
    if lambd < 0:
        raise ShapeError(f"softshrink: lambd must not be negative, got {lambd}")
    return _softshrink(input, lambd)  # type: ignore[no-any-return]


@elementwise
def _threshold(input: Any, threshold: Any, value: Any) -> Any:
    return where(input <= threshold, value, input)


@symbolic
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value."""
    return _optionally_inplace(_threshold, input, (threshold, value), inplace)  # type: ignore[no-any-return]


@elementwise
def _glu(a: Any, b: Any) -> Any:
    return a * sigmoid(b)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a * sigmoid(b), where a and b are the halves of `input` along `dim` (Dauphin et al., 2017).

    Raises ShapeError unless that dimension is even.
    """
    if input.ndim == 0:
        raise ShapeError("glu: a 0-dim tensor has no halves")
    if input.shape[dim] % 2:
        raise ShapeError(f"glu: dimension {dim} must be even, got {input.shape[dim]}")
    a, b = input.chunk(2, dim)
    return _glu(a, b)  # type: ignore[no-any-return]


def rrelu(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
          inplace: bool = False) -> Tensor:
    """leaky_relu whose slope is drawn uniformly from [lower, upper] per element when training.

    Otherwise the slope is their mean (Xu et al., 2015).
    """
    if lower > upper:
        raise ShapeError(f"rrelu: lower must not be above upper, got {lower} and {upper}")
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    from mlgpu.ops.random import rand_like

    slope = rand_like(input.detach()) * (upper - lower) + lower
    return _optionally_inplace(_prelu, input, (slope,), inplace)  # type: ignore[no-any-return]


celu_, elu_, hardtanh_ = _inplace(celu), _inplace(elu), _inplace(hardtanh)
leaky_relu_, relu_, selu_ = _inplace(leaky_relu), _inplace(relu), _inplace(selu)
threshold_ = _inplace(threshold)


def rrelu_(input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3,
           training: bool = False) -> Tensor:
    """`rrelu` in place."""
    return rrelu(input, lower, upper, training, inplace=True)
