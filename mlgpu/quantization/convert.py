"""Models that hold their weights as int8, with a scale for each output."""

from __future__ import annotations

import functools
import math
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.dtypes import int8
from mlgpu.errors import MlgpuError
from mlgpu.nn.module import Module
from mlgpu.ops.quantize import codes, fake_quantize
from mlgpu.quantization.qat import Prepared, largest_code, round_by, weight_scale
from mlgpu.tensor import Tensor


class Int8Weight(Module):
    """What the classes of converted modules have in common.

    weight_int8: of the weight's shape; weight_scale: shaped to meet it.  input_scale and
    input_zero_point: (), or None where inputs are not rounded.
    """

    _bits: int
    _ready = False  # whether the scale of inputs is known to be there
    weight_int8: Tensor
    weight_scale: Tensor
    input_scale: Tensor | None
    input_zero_point: Tensor | None

    def extra_repr(self) -> str:
        """The module's own, and the kind of weight."""
        return f"{super().extra_repr()}, weight=int8"


def convert(model: Module) -> list[str]:
    """Hold the weights of the layers that `prepare_qat` prepared as int8; returns their names.

    They are no parameters any more, and take a quarter of float32's memory and files; the ranges of
    inputs stay as they are.  Outputs are those of the prepared model in evaluation, bit for bit:
    each forward makes the weights floating numbers for the moment of a product, which is of the
    usual kind, so this saves memory and no time.  A state dict of such a model loads into one that
    was prepared and converted in the same way, be it untrained.

    Raises MlgpuError where nothing is prepared; the model does, when it is used, where no inputs
    were observed and no state was loaded.
    """
    found: dict[str, Any] = {name: module for name, module in model.named_modules()
                             if isinstance(module, Prepared)}
    if not found:
        raise MlgpuError("convert: no module is prepared; prepare_qat(model, patterns) first")
    for module in found.values():
        _convert(module)
    return list(found)


def _convert(module: Any) -> None:
    rounds, most = module.input_fake_quant, largest_code(module)
    with no_grad():
        of_input: Any = (None, None)
        if rounds is not None:
            scale, zero = rounds.activation_post_process.qparams()
            of_input = scale if rounds.has_observed() else scale * math.nan, zero
        scale = weight_scale(module)
        whole = codes(module._parameters["weight"], scale, 0, -most, most).to(int8)
    del module._parameters["weight"], module._modules["input_fake_quant"]
    module.__class__ = _class_for(type(module).__mro__[2])  # what prepare_qat derived from
    module.register_buffer("weight_int8", whole)
    module.register_buffer("weight_scale", scale)
    module.register_buffer("input_scale", of_input[0])
    module.register_buffer("input_zero_point", of_input[1])


@functools.cache
def _class_for(kind: Any) -> Any:
    """The class of the converted modules of a class."""
    return round_by(_weight, _input, Int8Weight, kind, "Int8")


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.weight_int8.to(module.weight_scale.dtype) * module.weight_scale
    return weight


def _input(module: Any, x: Tensor) -> Tensor:
    if module.input_scale is None:
        return x
    if not module._ready:  # looked at once, as it waits for the device
        if bool(module.input_scale.isnan()):
            raise MlgpuError("convert: the inputs of this layer were never observed; train the "
                             "model before it is converted, or load the state of one that was")
        object.__setattr__(module, "_ready", True)
    rounded: Tensor = fake_quantize(x, module.input_scale, module.input_zero_point, 0,
                                    2**module._bits - 1)
    return rounded
