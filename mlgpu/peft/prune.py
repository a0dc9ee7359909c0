"""Pruning: weights that are kept at zero, by magnitude or N of every M, while the rest is trained.

A pruned module has its weight as torch.nn.utils.prune has it: the parameter `weight_orig`, which is
the very object that an optimizer knows, and the buffer `weight_mask` of zeros and ones; `weight` is
their product.  So state dicts of either are those of the other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import MlgpuError, ShapeError
from mlgpu.nn.module import Module
from mlgpu.ops.creation import zeros
from mlgpu.ops.join import cat
from mlgpu.peft.lora import Adapted
from mlgpu.peft.pattern import matching
from mlgpu.tensor import Tensor


class Pruned(Module):
    """What the classes of pruned modules have in common."""

    weight_mask: Tensor


def prune(model: Module, patterns: Sequence[str], amount: float = 0.5, *, scope: str = "layer"
          ) -> list[str]:
    """Keep the smallest weights of the modules whose names match at zero; returns the names.

    `amount`: the fraction of weights, of each module or, with scope="global", of all of them
    together (Han et al. 2015).  Again with a larger amount, it prunes further.  `remove_pruning`
    makes it final.

    Raises MlgpuError for a pattern that matches no module with a weight of two dimensions or more.
    """
    if not 0 <= amount < 1:
        raise ValueError(f"prune: amount must be in [0, 1), got {amount}")
    if scope not in ("layer", "global"):
        raise ValueError(f"prune: scope must be 'layer' or 'global', got {scope!r}")
    modules = _chosen("prune", model, patterns)
    with no_grad():
        sizes = [module.weight.detach().abs().reshape(-1) for module in modules.values()]
        if scope == "global":
            masks = list(_kept(cat(sizes), amount).split([size.numel() for size in sizes]))
        else:
            masks = [_kept(size, amount) for size in sizes]
        for module, mask in zip(modules.values(), masks, strict=True):
            _mask(module, mask)
    return list(modules)


def prune_n_m(model: Module, patterns: Sequence[str], n: int = 2, m: int = 4) -> list[str]:
    """Keep the n largest of every m weights that lie side by side, the others at zero.

    Along the inputs of a Linear (2 of 4 is what sparse tensor cores take), along all but the first
    dimension of others (Mishra et al. 2021).  Raises ShapeError where m does not divide them.
    """
    if not 0 < n < m:
        raise ValueError(f"prune_n_m: expected 0 < n < m, got {n} and {m}")
    modules = _chosen("prune_n_m", model, patterns)
    for name, module in modules.items():
        columns = math.prod(module.weight.shape[1:])
        if columns % m:
            raise ShapeError(f"prune_n_m: {m} does not divide the {columns} weights in a row of "
                             f"{name!r}; leave it out of the patterns")
    with no_grad():
        for module in modules.values():
            groups = module.weight.detach().abs().reshape(-1, m)
            order = groups.argsort(1, descending=True, stable=True)
            mask = zeros(groups.shape, device=groups.device, dtype=groups.dtype)
            _mask(module, mask.scatter(1, order[:, :n], 1.0))
    return list(modules)


def remove_pruning(model: Module) -> list[str]:
    """Make pruning final: plain modules, whose pruned weights are zero; returns their names."""
    found: dict[str, Any] = {name: module for name, module in model.named_modules()
                             if isinstance(module, Pruned)}
    for module in found.values():
        weight = module._parameters.pop("weight_orig")
        with no_grad():
            weight.mul_(module.weight_mask)
        del module._buffers["weight_mask"]
        module.__class__ = type(module).__mro__[2]
        module._parameters = {"weight": weight, **module._parameters}
    return list(found)


def sparsity(model: Module) -> dict[str, float]:
    """The fraction of weights that are zero, by the name of the module."""
    return {name: 1.0 - module.weight.detach().ne(0).float().mean().item()
            for name, module in model.named_modules() if _prunable(module)}


def _chosen(function: str, model: Module, patterns: Sequence[str]) -> dict[str, Any]:
    modules: dict[str, Any] = {name: module for name, module in model.named_modules()
                               if _prunable(module)}
    names = matching(function, patterns, modules, "module with a weight of two dimensions")
    for name in names:
        if isinstance(modules[name], Adapted):
            raise MlgpuError(f"{function}: {name!r} is adapted; remove_lora(model) first")
        if hasattr(modules[name], "input_range"):
            raise MlgpuError(f"{function}: {name!r} computes with rounded values; "
                             "finish_qat(model) first")
    return {name: modules[name] for name in names}


def _prunable(module: Any) -> bool:
    weight = module._parameters.get("weight_orig" if isinstance(module, Pruned) else "weight")
    return weight is not None and weight.ndim >= 2


def _kept(sizes: Tensor, amount: float) -> Tensor:
    """Ones, and zeros for the smallest; of equal ones, the first."""
    mask = zeros(sizes.shape, device=sizes.device, dtype=sizes.dtype) + 1
    order = sizes.argsort(stable=True)
    mask[order[:round(amount * sizes.numel())]] = 0
    return mask


def _mask(module: Any, mask: Tensor) -> None:
    if not isinstance(module, Pruned):
        kind: Any = type(module)
        weight = module._parameters.pop("weight")
        module.__class__ = _pruned_class(kind)
        module.register_parameter("weight_orig", weight)
        module.register_buffer("weight_mask", mask.reshape(weight.shape))
    else:
        module.weight_mask.copy_(mask.reshape(module.weight_mask.shape))


@functools.cache
def _pruned_class(kind: Any) -> Any:
    """The class of the pruned modules of a class."""
    return type(f"Pruned{kind.__name__}", (Pruned, kind),
                {"weight": property(_product), "__module__": __name__})


def _product(module: Any) -> Tensor:
    product: Tensor = module._parameters["weight_orig"] * module._buffers["weight_mask"]
    return product
