"""Quantisation: training for weights and inputs of a few bits, and models that hold int8 weights.

    quantization.prepare_qat(model, ["*"])     # where the model stands; training goes on
    ...
    quantization.convert(model)                # int8 weights, the same outputs

Observers and FakeQuantize are those of torch.ao.quantization, for models that place them
themselves.
"""

from mlgpu.quantization.convert import convert
from mlgpu.quantization.fake_quantize import FakeQuantize
from mlgpu.quantization.observer import (
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    PerChannelMinMaxObserver,
)
from mlgpu.quantization.qat import prepare_qat

__all__ = ["FakeQuantize", "MinMaxObserver", "MovingAverageMinMaxObserver",
           "MovingAveragePerChannelMinMaxObserver", "PerChannelMinMaxObserver", "convert",
           "prepare_qat"]
