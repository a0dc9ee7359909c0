"""Training a part of a model: LoRA, QLoRA, freezing and grouping, by patterns of names.

    names = peft.add_lora(model, ["*.attention.*"], rank=8)
    optimizer = mlgpu.optim.AdamW(peft.param_groups(model, {"*.lora_B": {"lr": 1e-3}}), lr=1e-4)
    ...
    peft.save_adapters(model, "adapters.safetensors")
"""

from mlgpu.peft.lora import (
    LoraSettings,
    add_lora,
    disabled,
    load_adapters,
    merge,
    remove_lora,
    save_adapters,
    unmerge,
)
from mlgpu.peft.nf4 import dequantize, nf4_values, quantize
from mlgpu.peft.pattern import freeze, param_groups, unfreeze

__all__ = ["LoraSettings", "add_lora", "dequantize", "disabled", "freeze", "load_adapters", "merge",
           "nf4_values", "param_groups", "quantize", "remove_lora", "save_adapters", "unfreeze",
           "unmerge"]
