"""Training for quantisation: a model learns while it computes with the values of a few bits.

Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018.  A module stays the object that it is and becomes of a class that derives from its
own, whose `weight` is rounded and which rounds what comes in; so the names of the model's
parameters stay, and whoever reads the weight sees the rounded one.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from mlgpu.dtypes import uint8
from mlgpu.errors import MlgpuError
from mlgpu.nn import functional as F
from mlgpu.nn.attention import MultiheadAttention
from mlgpu.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.ops.choice import where
from mlgpu.ops.quantize import fake_quantize
from mlgpu.peft.pattern import matching
from mlgpu.quantization.fake_quantize import FakeQuantize
from mlgpu.tensor import Tensor

# The dimension of the weight that is the layer's outputs.
_OUTPUTS: dict[type[Module], int] = {
    **dict.fromkeys((Linear, Conv1d, Conv2d, Conv3d), 0),
    **dict.fromkeys((ConvTranspose1d, ConvTranspose2d, ConvTranspose3d), 1)}


class Prepared(Module):
    """What the classes of prepared modules have in common."""

    _bits: int
    input_fake_quant: FakeQuantize | None

    def extra_repr(self) -> str:
        """The module's own, and the bits of its weight."""
        return f"{super().extra_repr()}, bits={self._bits}"


def prepare_qat(model: Module, patterns: Sequence[str], *, bits: int = 8, inputs: bool = True,
                averaging_constant: float = 0.01) -> list[str]:
    """Let Linear and convolution layers whose names match compute with rounded values.

    `prepare_qat(model, ["encoder.*", "head"])`, where the model stands, and an optimizer goes on.
    Weights are rounded to 2^bits - 1 values around 0, with a scale for each output that follows the
    weight.  Inputs (unless not `inputs`), to 2^bits values within a range that is a moving average
    in training mode and stays in evaluation.  The gradient passes the rounding straight.  The
    projections of MultiheadAttention are left alone.  Returns the names; see `convert`.

    Raises MlgpuError for a pattern that matches no such layer, or one whose weight is not a plain
    parameter: prepared already, adapted, pruned or parametrized.
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"prepare_qat: bits must be between 2 and 8, got {bits}")
    # Attention reads the weight of its projection, but does not call it.
    read = {id(module.out_proj) for module in model.modules()
            if isinstance(module, MultiheadAttention)}
    modules: dict[str, Any] = {name: module for name, module in model.named_modules()
                               if isinstance(module, tuple(_OUTPUTS)) and id(module) not in read}
    names = list(matching("prepare_qat", patterns, modules, "Linear or convolution"))
    for name in names:
        if "weight" not in modules[name]._parameters or hasattr(type(modules[name]), "weight"):
            raise MlgpuError(f"prepare_qat: the weight of {name!r} is no plain parameter, but "
                             "prepared already, adapted, pruned or parametrized; take that away "
                             "first, or leave it out of the patterns")
    for name in names:
        module = modules[name]
        object.__setattr__(module, "_bits", bits)
        kind: Any = type(module)
        module.__class__ = _class_for(kind)
        rounds = FakeQuantize(dtype=uint8, quant_min=0, quant_max=2**bits - 1,
                              averaging_constant=averaging_constant) if inputs else None
        if rounds is not None:
            rounds.to(module._parameters["weight"].device).train(module.training)
        module.register_module("input_fake_quant", rounds)
    return names


def weight_scale(module: Any) -> Tensor:
    """The scale of each output's weights, shaped to meet the weight; 1 where all of them are 0."""
    weight, most = module._parameters["weight"].detach(), largest_code(module)
    outputs = next(dim for kind, dim in _OUTPUTS.items() if isinstance(module, kind))
    others = [dim for dim in range(weight.ndim) if dim != outputs]
    size = weight.abs().amax(others, keepdim=True)
    scale: Tensor = where(size > 0, size / most, 1.0)
    return scale


def largest_code(module: Any) -> int:
    """What the weights' integers reach, on both sides of 0."""
    largest: int = 2 ** (module._bits - 1) - 1
    return largest


def round_by(make_weight: Any, round_input: Any, common: type[Module], kind: Any, prefix: str
             ) -> Any:
    """A class derived from a layer's: its weight is made, and what comes in is rounded."""
    def forward(self: Any, input: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super(common, self).forward(round_input(self, input), *args, **kwargs)

    def linear(self: Any, input: Tensor, *, activation: str | None = None,
               residual: Tensor | None = None) -> Tensor:
        # Not by Linear's own forward, which takes a weight among the parameters as it is.
        return F.linear(round_input(self, input), self.weight, self.bias, activation=activation,
                        residual=residual)

    return type(f"{prefix}{kind.__name__}", (common, kind), {
        "weight": property(make_weight), "__module__": __name__,
        "forward": linear if kind.forward is Linear.forward else forward})


@functools.cache
def _class_for(kind: Any) -> Any:
    """The class of the prepared modules of a class."""
    return round_by(_rounded_weight, _rounded_input, Prepared, kind, "QAT")


def _rounded_weight(module: Any) -> Tensor:
    most = largest_code(module)
    rounded: Tensor = fake_quantize(module._parameters["weight"], weight_scale(module), 0, -most,
                                    most)
    return rounded


def _rounded_input(module: Any, x: Tensor) -> Tensor:
    rounds = module.input_fake_quant
    return x if rounds is None else rounds(x)
