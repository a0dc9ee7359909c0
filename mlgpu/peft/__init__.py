"""Training a part of a model, or for fewer bits: LoRA, QLoRA, pruning, by patterns of names.

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
from mlgpu.peft.prune import prune, prune_n_m, remove_pruning, sparsity
from mlgpu.peft.qat import QuantizedLayer, fake_quantize, finish_qat, prepare_qat

__all__ = ["LoraSettings", "QuantizedLayer", "add_lora", "dequantize", "disabled", "fake_quantize",
           "finish_qat", "freeze", "load_adapters", "merge", "nf4_values", "param_groups",
           "prepare_qat", "prune", "prune_n_m", "quantize", "remove_lora", "remove_pruning",
           "save_adapters", "sparsity", "unfreeze", "unmerge"]
