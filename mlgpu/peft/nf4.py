"""NF4: weights of frozen Linear layers in 4 bits, which products make on their way.

Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023.  A weight is cut into blocks
of 64; a block is a scale, its largest magnitude, and 4 bits a weight, which number one of 16 values
in [-1, 1]: quantiles of the normal distribution, 0 among them.  Scales are float32, 4.5 bits a
weight altogether; or, with double quantisation, their differences from their mean are 8-bit floats
(4 bits of exponent, 3 of mantissa) in units of a float32 for each 256: 4.13 bits.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import ml_dtypes
import numpy as np

from mlgpu.autograd.mode import mode
from mlgpu.cpu.nf4 import eighths
from mlgpu.errors import MlgpuError
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import tensor
from mlgpu.ops.linear import _activate
from mlgpu.ops.nf4 import Layout, product, whole
from mlgpu.peft.lora import THIN, Adapted, _class_for, _linear
from mlgpu.peft.pattern import matching
from mlgpu.tensor import Tensor

Values = np.ndarray[Any, np.dtype[np.float32]]
_BUFFERS = ("weight_codes", "weight_scales", "weight_scale_units", "weight_scale_mean",
            "weight_values")


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

    _nf4: Layout
    weight_codes: Tensor
    weight_scales: Tensor  # float32, or bytes beside the next two
    weight_scale_units: Tensor
    weight_scale_mean: Tensor
    weight_values: Tensor  # the two values of each byte, (256, 2)

    def forward(self, input: Tensor, *, activation: str | None = None,
                residual: Tensor | None = None) -> Tensor:
        """As Linear, of what the codes mean; nothing of the weight's size is made or kept."""
        casting = mode.autocast
        result: Tensor = (_product(input, self) if casting is None else
                          casting.call("linear", _product, (input, self), {}))
        if self.bias is not None:
            result = result + self.bias
        result = _activate(result, activation)
        return result if residual is None else result + residual

    def extra_repr(self) -> str:
        """The module's own, and the kind of weight."""
        return f"{super().extra_repr()}, weight=nf4"


def _parts(module: Quantised) -> tuple[Tensor, ...]:
    """The weight as `mlgpu.ops.nf4` has it."""
    parts = module.weight_codes, module.weight_scales, module.weight_values
    if "weight_scale_units" not in module._buffers:
        return parts
    return *parts, module.weight_scale_units, module.weight_scale_mean


def _product(x: Tensor, module: Quantised) -> Tensor:
    return product(x, module._nf4, _parts(module))


def _whole(module: Quantised) -> Tensor:
    return whole(module._nf4, _parts(module))


THIN[Quantised.forward] = _linear


def quantize(model: Module, patterns: Sequence[str], *, block: int = 64,
             double_quant: bool = False) -> list[str]:
    """Hold the weights of the Linear layers whose names match in NF4; returns their names.

    In their place, where the model stands, as `add_lora`, which comes after it.  They are then no
    parameters: what trains beside them are adapters and biases.  `block`: weights to a scale;
    `double_quant`: scales in 8 bits, with float32 units for 256 each.

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
        _quantize(modules[name], block, double_quant)
    return names


def dequantize(model: Module) -> list[str]:
    """Make the NF4 weights parameters again, frozen, with the values that they have now.

    Returns the modules' names.  Adapters stay.
    """
    found = [(name, module) for name, module in model.named_modules()
             if isinstance(module, Quantised)]
    for _, module in found:
        weight = Parameter(_whole(module), requires_grad=False)
        adapted = isinstance(module, Adapted)
        quantised: Any = type(module).__mro__[2] if adapted else type(module)
        plain: Any = quantised.__mro__[2]
        for name in _BUFFERS:
            if name in module._buffers:
                delattr(module, name)
        del module.__dict__["_nf4"]
        module.__class__ = _class_for(plain) if adapted else plain
        # In the place that a Linear has it: before its bias.
        module._parameters = {"weight": weight, **module._parameters}
    return [name for name, _ in found]


def _quantize(module: Any, block: int, double_quant: bool) -> None:
    weight = module._parameters.pop("weight")
    values = weight.detach().cpu().float().numpy().reshape(-1)
    padded = np.zeros(-(-values.size // block) * block, np.float32)
    padded[:values.size] = values
    blocks = padded.reshape(-1, block)
    scales = np.abs(blocks).max(1)
    kept = {"weight_scales": scales}
    if double_quant:
        codes, units, mean = _quantised_scales(scales)
        kept = {"weight_scales": codes, "weight_scale_units": units, "weight_scale_mean": mean}
        # Weights are the nearest values times the scales that there will be.
        scales = eighths()[codes] * np.repeat(units, 256)[:len(codes)] + mean
    table = nf4_values()
    between = (table[1:] + table[:-1]) / 2
    shares = blocks / np.where(scales != 0, scales, 1)[:, None]
    numbers = np.searchsorted(between, shares.reshape(-1)).astype(np.uint8)
    pairs = np.stack([np.tile(table, 16), np.repeat(table, 16)], 1)
    object.__setattr__(module, "_nf4", Layout(tuple(weight.shape), block, weight.dtype))
    kind: Any = type(module)
    module.__class__ = _quantised_class(kind)
    for name, array in {"weight_codes": numbers[::2] | numbers[1::2] << 4, **kept}.items():
        module.register_buffer(name, tensor(array, device=weight.device))
    module.register_buffer("weight_values", tensor(pairs, device=weight.device), persistent=False)


def _quantised_scales(scales: Values) -> tuple[Any, Values, Any]:
    """Bytes, a unit for each 256 of them, and the mean."""
    mean = scales.mean(dtype=np.float32)
    padded = np.full(-(-scales.size // 256) * 256, mean, np.float32)
    padded[:scales.size] = scales
    centred = (padded - mean).reshape(-1, 256)
    units = np.abs(centred).max(1) / np.float32(448)
    shares = centred / np.where(units > 0, units, 1)[:, None]
    codes = shares.astype(ml_dtypes.float8_e4m3fn).view(np.uint8)
    return codes.reshape(-1)[:scales.size], units, np.asarray(mean)


@functools.cache
def _quantised_class(kind: Any) -> Any:
    """The class of the quantised modules of a class."""
    return type(f"Nf4{kind.__name__}", (Quantised, kind) if kind is not Linear else (Quantised,),
                {"weight": property(_whole), "__module__": __name__})
