"""NF4: weights of frozen Linear layers in 4 bits, made whole for the moment of a product.

Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023.  A weight is cut into blocks
of 64; a block is a float32, its largest magnitude, and 4 bits a weight, which number one of 16
values in [-1, 1]: quantiles of the normal distribution, 0 among them.  That is 4.5 bits a weight
(the paper's second quantisation, of the magnitudes, is not made).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from mlgpu.autograd import no_grad
from mlgpu.autograd.function import Function
from mlgpu.dtypes import dtype as DType
from mlgpu.dtypes import int64
from mlgpu.errors import MlgpuError
from mlgpu.nn import functional as F
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import tensor
from mlgpu.ops.linear import _activate
from mlgpu.peft.lora import THIN, Adapted, _class_for, _linear
from mlgpu.peft.pattern import matching
from mlgpu.tensor import Tensor

Values = np.ndarray[Any, np.dtype[np.float32]]


@functools.cache
def nf4_values() -> Values:
    """The 16 values, ascending: 7 below 0, 0, and 8 above, at evenly spaced probabilities."""
    # Half the probability that an end's value stands for lies beyond it, on either side's spacing.
    end = 1 - (1 / 32 + 1 / 30) / 2
    normal = NormalDist().inv_cdf
    above = [normal(p) for p in np.linspace(end, 0.5, 9)[:-1]]
    below = [-normal(p) for p in np.linspace(end, 0.5, 8)[:-1]]
    values = np.array(sorted([*below, 0.0, *above]))
    scaled: Values = (values / values.max()).astype(np.float32)
    return scaled


class Quantised(Linear):
    """A Linear whose weight is NF4: the buffers weight_codes, two to a byte, and weight_scales.

    Whoever reads `weight` gets it made whole, anew each time, without a gradient.
    """

    _nf4: tuple[tuple[int, ...], int, DType]  # the weight's shape and dtype, and the blocks' size
    weight_codes: Tensor
    weight_scales: Tensor
    weight_values: Tensor  # the two values of each byte, (256, 2)

    def forward(self, input: Tensor, *, activation: str | None = None,
                residual: Tensor | None = None) -> Tensor:
        """As Linear; the gradient of the input makes the weight whole once more."""
        result: Tensor = _Product.apply(input, self)
        if self.bias is not None:
            result = result + self.bias
        result = _activate(result, activation)
        return result if residual is None else result + residual

    def extra_repr(self) -> str:
        """The module's own, and the kind of weight."""
        return f"{super().extra_repr()}, weight=nf4"


def _whole(module: Quantised) -> Tensor:
    shape, block, dtype = module._nf4
    codes, scales = module.weight_codes, module.weight_scales
    pairs = F.embedding(codes.to(int64), module.weight_values)
    blocks = pairs.reshape(-1, block) * scales.to(pairs.dtype)[:, None]
    return blocks.reshape(-1)[:math.prod(shape)].reshape(shape).to(dtype)


THIN[Quantised.forward] = _linear


class _Product(Function):
    """x @ weight.T, of which nothing is kept but the codes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, module: Quantised) -> Tensor:
        ctx.module = module
        weight = _whole(module)
        return F.linear(x, weight.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ _whole(ctx.module).to(grad.dtype), None


def quantize(model: Module, patterns: Sequence[str], *, block: int = 64) -> list[str]:
    """Hold the weights of the Linear layers whose names match in NF4; returns their names.

    In their place, where the model stands, as `add_lora`, which comes after it.  They are then no
    parameters: what trains beside them are adapters and biases.  `block`: weights to a scale.

    Raises MlgpuError for a pattern that matches no Linear, for one that is quantised or adapted
    already, and for a weight that another module shares.
    """
    if block < 2 or block % 2:
        raise ValueError(f"quantize: block must be even and at least 2, got {block}")
    modules: dict[str, Any] = {name: module for name, module in model.named_modules()
                               if isinstance(module, Linear)}
    names = list(matching("quantize", patterns, modules, "Linear"))
    for name in names:
        module = modules[name]
        if isinstance(module, (Quantised, Adapted)):
            raise MlgpuError(f"quantize: {name!r} is quantised or adapted already; quantize comes "
                             "first, and once")
        if "weight" not in module._parameters:
            raise MlgpuError(f"quantize: the weight of {name!r} is computed from something else, "
                             "such as a mask or a parametrization; make it a parameter first")
        if type(module).forward is not Linear.forward:
            raise MlgpuError(f"quantize: {name!r} has a forward of its own, and is left alone; "
                             "leave it out of the patterns")
        holders = [other for other in model.modules() for parameter in other._parameters.values()
                   if parameter is module.weight]
        if len(holders) > 1:
            raise MlgpuError(f"quantize: the weight of {name!r} is shared with another module; "
                             "leave it out of the patterns")
    for name in names:
        _quantize(modules[name], block)
    return names


def dequantize(model: Module) -> list[str]:
    """Make the NF4 weights parameters again, frozen, with the values that they have now.

    Returns the modules' names.  Adapters stay.
    """
    found = [(name, module) for name, module in model.named_modules()
             if isinstance(module, Quantised)]
    for _, module in found:
        with no_grad():
            whole = Parameter(_whole(module), requires_grad=False)
        adapted = isinstance(module, Adapted)
        quantised: Any = type(module).__mro__[2] if adapted else type(module)
        plain: Any = quantised.__mro__[2]
        for name in ("weight_codes", "weight_scales", "weight_values"):
            delattr(module, name)
        del module.__dict__["_nf4"]
        module.__class__ = _class_for(plain) if adapted else plain
        # In the place that a Linear has it: before its bias.
        module._parameters = {"weight": whole, **module._parameters}
    return [name for name, _ in found]


def _quantize(module: Any, block: int) -> None:
    weight = module._parameters.pop("weight")
    values = weight.detach().cpu().float().numpy().reshape(-1)
    padded = np.zeros(-(-values.size // block) * block, np.float32)
    padded[:values.size] = values
    blocks = padded.reshape(-1, block)
    scales = np.abs(blocks).max(1)
    table = nf4_values()
    between = (table[1:] + table[:-1]) / 2
    shares = blocks / np.where(scales > 0, scales, 1)[:, None]
    codes = np.searchsorted(between, shares.reshape(-1)).astype(np.uint8)
    object.__setattr__(module, "_nf4", (tuple(weight.shape), block, weight.dtype))
    kind: Any = type(module)
    module.__class__ = _quantised_class(kind)
    module.register_buffer("weight_codes", tensor(codes[::2] | codes[1::2] << 4,
                                                  device=weight.device))
    module.register_buffer("weight_scales", tensor(scales, device=weight.device))
    pairs = np.stack([np.tile(table, 16), np.repeat(table, 16)], 1)
    module.register_buffer("weight_values", tensor(pairs, device=weight.device), persistent=False)


@functools.cache
def _quantised_class(kind: Any) -> Any:
    """The class of the quantised modules of a class."""
    return type(f"Nf4{kind.__name__}", (Quantised, kind) if kind is not Linear else (Quantised,),
                {"weight": property(_whole), "__module__": __name__})
