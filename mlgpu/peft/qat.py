"""Training for quantisation: a model learns while it computes with the values of a few bits.

Weights are rounded to 2^bits values around 0, with a scale for each output; what comes into a layer
to 2^bits values between a lower and an upper end, which follow what has been seen.  The gradient
passes the rounding as if it were not there, and stops where values are beyond the ends (Jacob et
al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
2018).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import MlgpuError
from mlgpu.nn import functional as F
from mlgpu.nn.conv import Conv1d, Conv2d, Conv3d
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.ops.choice import where
from mlgpu.ops.creation import zeros
from mlgpu.ops.join import stack
from mlgpu.peft.pattern import matching
from mlgpu.tensor import Tensor

_KINDS = (Linear, Conv1d, Conv2d, Conv3d)
_MOMENTUM = 0.01  # of a new range against those before


@dataclass(frozen=True)
class QuantizedLayer:
    """What a layer came to: for integers q, weights are q scale, inputs (q - zero_point) scale."""

    bits: int
    weight_scale: Tensor  # (outputs,)
    input_scale: float | None  # None where inputs were left alone
    input_zero_point: int | None


class FakeQuantized(Module):
    """What the classes of modules that compute with rounded values have in common."""

    _bits: int
    input_range: Tensor | None  # lower and upper end; both 0 before the first batch


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor | int, low: int, high: int
                  ) -> Tensor:
    """x as integers between low and high can say it: (q - zero_point) scale; of x's shape.

    `scale` and `zero_point` broadcast against x.  The gradient of x passes where q is not cut.
    """
    with no_grad():
        whole = (x / scale).round() + zero_point
        rounded = (whole.clamp(low, high) - zero_point) * scale
        inside = (whole >= low) & (whole <= high)
        rest = where(inside, rounded - x, rounded)
    return where(inside, x, 0.0) + rest


def prepare_qat(model: Module, patterns: Sequence[str], *, bits: int = 8, inputs: bool = True
                ) -> list[str]:
    """Let the Linear and convolution layers whose names match compute with rounded values.

    In training mode the ranges of inputs follow what comes; in evaluation they stay.  `inputs`:
    whether what comes in is rounded, too.  Returns the names; `finish_qat` ends it.

    Raises MlgpuError for a pattern that matches none of these, or one that is prepared already or
    has another kind of weight (adapted, quantised, pruned).
    """
    if not 2 <= bits <= 16:
        raise ValueError(f"prepare_qat: bits must be between 2 and 16, got {bits}")
    modules: dict[str, Any] = {name: module for name, module in model.named_modules()
                               if isinstance(module, _KINDS)}
    names = list(matching("prepare_qat", patterns, modules, "Linear or convolution"))
    for name in names:
        kind: Any = type(modules[name])
        if "weight" not in modules[name]._parameters or isinstance(getattr(kind, "weight", None),
                                                                   property):
            raise MlgpuError(f"prepare_qat: the weight of {name!r} is adapted, quantised, pruned "
                             "or prepared already; take that away first")
    for name in names:
        module = modules[name]
        object.__setattr__(module, "_bits", bits)
        kind = type(module)
        module.__class__ = _class_for(kind)
        weight = module._parameters["weight"]
        module.register_buffer("input_range", zeros(2, device=weight.device, dtype=weight.dtype)
                               if inputs else None)
    return names


def finish_qat(model: Module) -> dict[str, QuantizedLayer]:
    """Plain modules again, their weights rounded; and what they came to, by name, for an export."""
    found: dict[str, Any] = {name: module for name, module in model.named_modules()
                             if isinstance(module, FakeQuantized)}
    layers = {}
    for name, module in found.items():
        weight = module._parameters["weight"]
        with no_grad():
            scale = _weight_scale(weight, module._bits)
            input_scale = zero = None
            if module.input_range is not None:
                of_input, zero_point = _input_scale(module.input_range, module._bits)
                input_scale, zero = of_input.item(), int(zero_point.item())
            layers[name] = QuantizedLayer(module._bits, scale.reshape(-1), input_scale, zero)
            weight.copy_(module.weight)
        del module._buffers["input_range"]
        del module.__dict__["_bits"]
        module.__class__ = type(module).__mro__[2]
    return layers


def _weight_scale(weight: Tensor, bits: int) -> Tensor:
    """A scale for each output, (outputs, 1, ...); 1 where all its weights are 0."""
    largest = weight.detach().abs().reshape(len(weight), -1).amax(1)
    scale = where(largest > 0, largest / (2 ** (bits - 1) - 1), 1.0)
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def _rounded_weight(module: Any) -> Tensor:
    weight, most = module._parameters["weight"], 2 ** (module._bits - 1) - 1
    return fake_quantize(weight, _weight_scale(weight, module._bits), 0, -most, most)


def _input_scale(ends: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Scale and zero point, on the device; 0 is always one of the values, as padding needs."""
    low, high = ends[0].clamp(max=0.0), ends[1].clamp(min=0.0)
    steps = 2**bits - 1
    scale = where(high > low, (high - low) / steps, 1.0)
    return scale, (-low / scale).round().clamp(0, steps)


def _rounded_input(module: Any, x: Tensor) -> Tensor:
    ends = module._buffers["input_range"]
    if ends is None:
        return x
    if module.training:
        with no_grad():
            seen = stack(list(x.detach().aminmax())).to(ends.dtype)
            followed = ends + _MOMENTUM * (seen - ends)
            ends.copy_(where((ends == 0).all(), seen, followed))  # the first batch sets it
    scale, zero = _input_scale(ends, module._bits)
    return fake_quantize(x, scale, zero, 0, 2**module._bits - 1)


@functools.cache
def _class_for(kind: Any) -> Any:
    """The class of the prepared modules of a class."""
    members = {"weight": property(_rounded_weight), "__module__": __name__,
               "forward": _linear if kind.forward is Linear.forward else _forward}
    return type(f"FakeQuantized{kind.__name__}", (FakeQuantized, kind), members)


def _forward(self: Any, input: Tensor) -> Any:
    return super(FakeQuantized, self).forward(_rounded_input(self, input))


def _linear(self: Any, input: Tensor, *, activation: str | None = None,
            residual: Tensor | None = None) -> Tensor:
    return F.linear(_rounded_input(self, input), self.weight, self.bias, activation=activation,
                    residual=residual)
