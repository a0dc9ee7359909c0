"""Numbers as integers of a few bits say them: (q - zero_point) scale, with q of a range."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import DerivativeError, DTypeError, ShapeError
from mlgpu.expr.graph import call
from mlgpu.ops.choice import where
from mlgpu.ops.elementwise import elementwise
from mlgpu.ops.rounding import round
from mlgpu.tensor import Tensor

__all__ = ["fake_quantize_per_channel_affine", "fake_quantize_per_tensor_affine"]


@elementwise
def codes(input: Any, scale: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """The integers, as floating numbers."""
    return call("hardtanh", round(input * (1 / scale)) + zero_point, low, high)


@elementwise
def fake_quantize(input: Any, scale: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """(q - zero_point) scale of the integers q, whatever the scale broadcasts from."""
    q = round(input * (1 / scale)) + zero_point
    value: Any = (call("hardtanh", q, low, high) - zero_point) * scale
    # NaN is in no range, and stays NaN.
    inside = call("logical_and", call("ge", q, low), call("le", q, high))
    straight: Any = call("straight", value, input)
    return where(inside, straight, value)


def fake_quantize_per_tensor_affine(input: Tensor, scale: float | Tensor, zero_point: int | Tensor,
                                    quant_min: int, quant_max: int) -> Tensor:
    """(q - zero_point) scale, with q = round(input / scale) + zero_point in [quant_min, quant_max].

    As torch.fake_quantize_per_tensor_affine; scale and zero point are numbers or tensors of one.
    The gradient passes the rounding as if it were not there, and is 0 where q was cut (Jacob et
    al. 2018).  Halves are rounded to even; NaN stays NaN.

    Raises DTypeError for an input that is not floating, ShapeError, a ValueError, for a range that
    is empty or without the zero point, DerivativeError for a scale that requires a gradient.
    """
    name = "fake_quantize_per_tensor_affine"
    _check(name, input, scale, zero_point, quant_min, quant_max)
    if not isinstance(zero_point, Tensor) and not quant_min <= zero_point <= quant_max:
        raise ShapeError(f"{name}: zero_point must be within [{quant_min}, {quant_max}], got "
                         f"{zero_point}")
    step, zero = (value.reshape(()) if isinstance(value, Tensor) else value
                  for value in (scale, zero_point))
    return fake_quantize(input, step, zero, quant_min, quant_max)  # type: ignore[no-any-return]


def fake_quantize_per_channel_affine(input: Tensor, scale: Tensor, zero_point: Tensor, axis: int,
                                     quant_min: int, quant_max: int) -> Tensor:
    """As `fake_quantize_per_tensor_affine`, with a scale and a zero point for each slice of `axis`.

    scale, zero_point: (input.shape[axis],).  Raises ShapeError for others.
    """
    _check("fake_quantize_per_channel_affine", input, scale, zero_point, quant_min, quant_max)
    found = fake_quantize(input, _along(input, scale, axis), _along(input, zero_point, axis),
                          quant_min, quant_max)
    return found.to(input.dtype)  # type: ignore[no-any-return]


def _along(input: Tensor, values: Tensor, axis: int) -> Tensor:
    """A value for each slice of `axis`, shaped to meet it."""
    name = "fake_quantize_per_channel_affine"
    if not -input.ndim <= axis < input.ndim:
        raise ShapeError(f"{name}: axis {axis} of an input of shape {tuple(input.shape)}")
    axis %= input.ndim
    if values.shape != (input.shape[axis],):
        raise ShapeError(f"{name}: scale and zero_point must have the shape "
                         f"({input.shape[axis]},) of axis {axis}, got {tuple(values.shape)}")
    return values.reshape(-1, *[1] * (input.ndim - axis - 1))


def _check(name: str, input: Tensor, scale: Any, zero_point: Any, low: int, high: int) -> None:
    if not input.dtype.is_floating_point:
        raise DTypeError(f"{name}: input must be floating, got {input.dtype.name}; convert with "
                         ".to()")
    if low > high:
        raise ShapeError(f"{name}: quant_min must not be above quant_max, got {low} and {high}")
    if any(isinstance(value, Tensor) and value.requires_grad for value in (scale, zero_point)):
        raise DerivativeError(f"{name}: the gradient of scale and zero_point is not defined; "
                              "detach() them")
