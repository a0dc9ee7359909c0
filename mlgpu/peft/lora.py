"""LoRA: a weight W of a frozen model is learnt as W + scale B A, with A and B of a low rank.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.  A model is adapted where it
stands: a module stays the object that it is and becomes of a class that derives from its own, whose
`weight` is the sum.  So whatever calls the module or reads its weight sees the adapted one, and the
names of the model's own parameters stay.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import FormatError, MlgpuError
from mlgpu.io import load, save
from mlgpu.nn import functional as F
from mlgpu.nn import init
from mlgpu.nn.attention import MultiheadAttention
from mlgpu.nn.conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from mlgpu.nn.embedding import Embedding
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import empty
from mlgpu.ops.linear import _activate
from mlgpu.peft.pattern import freeze, matching
from mlgpu.tensor import Tensor

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
_WEIGHTS: dict[type[Module], tuple[str, ...]] = {
    Linear: ("weight",), Embedding: ("weight",), MultiheadAttention: _PROJECTIONS,
    **dict.fromkeys((Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d),
                    ("weight",))}


@dataclass(frozen=True)
class LoraSettings:
    """How a module is adapted.  The sum is scaled by alpha / rank, or alpha / sqrt(rank)."""

    rank: int
    alpha: float
    dropout: float
    rank_stabilized: bool  # by the root: Kalajdzievski 2023

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


@dataclass
class _State:
    settings: LoraSettings
    enabled: bool = True
    merged: dict[str, Tensor] = field(default_factory=dict)  # the weights as they were, by name


class Adapted(Module):
    """What the classes of adapted modules have in common."""

    _lora: _State

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self._lora.merged:
            raise MlgpuError("state_dict: the adapters are merged into the weights, so that they "
                             "would count twice when it is loaded; unmerge(model) first, or "
                             "remove_lora(model) for a plain model with merged weights")
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def extra_repr(self) -> str:
        """The module's own, and the rank."""
        own, settings = super().extra_repr(), self._lora.settings
        return f"{own}{', ' if own else ''}lora_rank={settings.rank}, lora_alpha={settings.alpha:g}"


def add_lora(model: Module, patterns: Sequence[str], rank: int = 8, *, alpha: float | None = None,
             dropout: float = 0.0, rank_stabilized: bool = False) -> list[str]:
    """Adapt the modules whose names match, and freeze everything else; returns their names.

    `add_lora(model, ["*.attention.*", "head"])`.  Linear, Embedding, convolutions and the
    projections of MultiheadAttention are adapted; other modules that a pattern matches are not.
    `alpha`: by default the rank, a scale of 1.  `dropout` acts on what goes into A.  To train
    more, such as biases, `unfreeze` it after.  The model computes at first what it did before.

    Raises MlgpuError for a pattern that matches none of these, or a module that is adapted already.
    """
    if rank < 1 or not 0 <= dropout < 1:
        raise ValueError("add_lora: rank must be at least 1 and dropout in [0, 1), got "
                         f"{rank} and {dropout}")
    settings = LoraSettings(rank, float(rank if alpha is None else alpha), dropout, rank_stabilized)
    modules = {name: module for name, module in model.named_modules() if _kind(module) is not None}
    names = list(matching("add_lora", patterns, modules, "module that can be adapted"))
    for name in names:
        _check(name, modules[name], settings)
    freeze(model)
    for name in names:
        _adapt(modules[name], settings)
    return names


def merge(model: Module) -> None:
    """Add the adapters to the weights, so that they cost nothing; `unmerge` takes it back.

    The weights as they were are kept meanwhile, and come back to the last bit.
    """
    found = list(_adapted(model, "merge"))
    for name, module in found:
        if any(module._parameters.get(weight) is None for weight in _adapted_weights(module)):
            raise MlgpuError(f"merge: the weight of {name!r} is quantised; dequantize(model) first")
    for _, module in found:
        state = module._lora
        for weight in () if state.merged else _adapted_weights(module):
            own = module._parameters[weight]
            with no_grad():
                change = _change(module, weight)
                state.merged[weight] = own.detach().clone()
                own.add_(change)


def unmerge(model: Module) -> None:
    """Take merged adapters out of the weights."""
    for _, module in _adapted(model, "unmerge"):
        with no_grad():
            for weight, original in module._lora.merged.items():
                module._parameters[weight].copy_(original)
        module._lora.merged = {}


def remove_lora(model: Module, merged: bool = True) -> None:
    """Make the model a plain one again: with the adapters in its weights, or without them.

    What was frozen stays frozen; `unfreeze(model)` to train all of it.
    """
    merge(model) if merged else unmerge(model)
    for _, module in list(_adapted(model, "remove_lora")):
        for weight in _adapted_weights(module):
            for name in _names(weight):
                del module._parameters[name]
        del module.__dict__["_lora"]
        module.__class__ = type(module).__mro__[2]  # what the class was derived from


@contextmanager
def disabled(model: Module) -> Iterator[None]:
    """Within the block the model computes as if it had no adapters.  MlgpuError where merged."""
    modules = [module for _, module in _adapted(model, "disabled")]
    if any(module._lora.merged for module in modules):
        raise MlgpuError("disabled: the adapters are merged into the weights; unmerge(model) first")
    before = [module._lora.enabled for module in modules]
    for module in modules:
        module._lora.enabled = False
    try:
        yield
    finally:
        for module, enabled in zip(modules, before, strict=True):
            module._lora.enabled = enabled


def save_adapters(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the adapters, and what else of the model is trained, to one safetensors file."""
    modules = dict(_adapted(model, "save_adapters"))
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()
                  if parameter.requires_grad or name.rpartition(".")[2].startswith("lora_")}
    save({"lora": {name: asdict(module._lora.settings) for name, module in modules.items()},
          "parameters": parameters}, path)


def load_adapters(model: Module, path: str | os.PathLike[str]) -> list[str]:
    """Adapt `model` as the file says and load its adapters; returns the names of the modules.

    A model that is adapted already must be so in the same way.  Raises FormatError for a file that
    is none, or of another model.
    """
    content = load(path)
    if not isinstance(content, dict) or set(content) != {"lora", "parameters"}:
        raise FormatError(f"load_adapters: {os.fspath(path)!r} holds no adapters")
    wanted = {name: LoraSettings(**values) for name, values in content["lora"].items()}
    present = {name: module._lora.settings for name, module in model.named_modules()
               if isinstance(module, Adapted)}
    if present and present != wanted:
        raise FormatError("load_adapters: the model has adapters of another kind; remove_lora it "
                          "first")
    if not present:
        _adapt_as(model, wanted)
    own = dict(model.named_parameters())
    for name, value in content["parameters"].items():
        if name not in own or own[name].shape != value.shape:
            raise FormatError(f"load_adapters: the model has no parameter {name!r} of shape "
                              f"{tuple(value.shape)}")
    with no_grad():
        for name, value in content["parameters"].items():
            own[name].copy_(value.to(own[name].device))
    return list(wanted)


def _adapt_as(model: Module, wanted: Mapping[str, LoraSettings]) -> None:
    modules = dict(model.named_modules())
    for name, settings in wanted.items():
        if name not in modules or _kind(modules[name]) is None:
            raise FormatError(f"load_adapters: the model has no module {name!r} that can be "
                              "adapted")
        _check(name, modules[name], settings)
    freeze(model)
    for name, settings in wanted.items():
        _adapt(modules[name], settings)


# --- one module -----------------------------------------------------------------------------------


def _kind(module: Module) -> type[Module] | None:
    return next((kind for kind in _WEIGHTS if isinstance(module, kind)), None)


def _check(name: str, module: Module, settings: LoraSettings) -> None:
    if isinstance(module, Adapted):
        raise MlgpuError(f"add_lora: {name!r} is adapted already; remove_lora(model) first")
    kind: Any = _kind(module)
    for weight in _WEIGHTS[kind]:
        computed = (weight not in module._parameters
                    or isinstance(getattr(type(module), weight, None), property))
        if computed and "_nf4" not in vars(module):
            raise MlgpuError(f"add_lora: the {weight} of {name!r} is computed from something else, "
                             "such as a mask or a parametrization; make it a parameter first "
                             "(nn.utils.prune.remove, parametrize.remove_parametrizations)")
    if isinstance(module, Embedding) and module.max_norm is not None:
        raise MlgpuError(f"add_lora: {name!r} has max_norm, which would change the frozen table; "
                         "leave it out of the patterns")
    if settings.dropout and not isinstance(module, Linear):
        raise MlgpuError(f"add_lora: dropout acts on the input of a Linear, and {name!r} is a "
                         f"{type(module).__name__}; adapt it without dropout")


def _adapt(module: Module, settings: LoraSettings) -> None:
    object.__setattr__(module, "_lora", _State(settings))
    kind: Any = type(module)  # a Module's class is hashed as any other
    module.__class__ = _class_for(kind)
    for weight in _adapted_weights(module):
        base = _base(module, weight)
        rows, columns = base.shape[0], math.prod(base.shape[1:])
        a, b = (Parameter(empty(*shape, device=base.device, dtype=base.dtype))
                for shape in ((settings.rank, columns), (rows, settings.rank)))
        init.kaiming_uniform_(a, a=math.sqrt(5))
        init.zeros_(b)  # so that nothing changes at first
        for name, parameter in zip(_names(weight), (a, b), strict=True):
            module.register_parameter(name, parameter)


@functools.cache
def _class_for(kind: Any) -> Any:
    """The class of adapted modules of a class."""
    base = next(known for known in _WEIGHTS if issubclass(kind, known))
    members: dict[str, Any] = {
        name: property(functools.partial(_effective, name=name)) for name in _WEIGHTS[base]}
    if kind.forward in THIN:
        members["forward"] = THIN[kind.forward]
    return type(f"Lora{kind.__name__}", (Adapted, kind), {**members, "__module__": __name__})


def _names(weight: str) -> tuple[str, str]:
    ending = "" if weight == "weight" else f"_{weight}"
    return f"lora_A{ending}", f"lora_B{ending}"


def _adapted_weights(module: Module) -> list[str]:
    """The names of a module's weights that it has."""
    kind = _kind(module)
    assert kind is not None
    return [name for name in _WEIGHTS[kind] if _base(module, name) is not None]


def _base(module: Any, name: str) -> Any:
    """A weight without its adapter: a parameter, or what a quantised module makes of its codes."""
    own = module._parameters
    return own[name] if name in own else getattr(super(Adapted, module), name)


def _acts(module: Any) -> bool:
    state: _State = module._lora
    return state.enabled and not state.merged


def _change(module: Any, name: str) -> Tensor:
    """scale B A, in the shape of the weight."""
    a, b = (module._parameters[which] for which in _names(name))
    change: Tensor = (b @ a) * module._lora.settings.scale
    return change.reshape(_base(module, name).shape)


def _effective(module: Any, name: str) -> Any:
    """A weight as whoever reads it sees it."""
    base = _base(module, name)
    if base is None or not _acts(module):
        return base
    if module._lora.settings.dropout and module.training:
        raise MlgpuError(f"lora: the {name} of a {type(module).__name__} is read by another "
                         "module, where its dropout cannot act; adapt it without dropout, or leave "
                         "it out of the patterns")
    return base + _change(module, name)


def _linear(self: Any, input: Tensor, *, activation: str | None = None,
            residual: Tensor | None = None) -> Tensor:
    """The frozen product and the adapter's two thin ones; the weight is never made whole."""
    plain = super(Adapted, self).forward
    if not _acts(self):
        result: Tensor = plain(input, activation=activation, residual=residual)
        return result
    settings = self._lora.settings
    x = F.dropout(input, settings.dropout, self.training) if settings.dropout else input
    thin = F.linear(F.linear(x, self._parameters["lora_A"]), self._parameters["lora_B"])
    result = _activate(plain(input) + thin * settings.scale, activation)
    return result if residual is None else result + residual


def _embedding(self: Any, input: Tensor) -> Tensor:
    # Not by the class's own forward, which reads the weight that is the sum.
    result = F.embedding(input, _base(self, "weight"), self.padding_idx,
                         scale_grad_by_freq=self.scale_grad_by_freq, sparse=self.sparse)
    if not _acts(self):
        return result
    rows = F.embedding(input, self._parameters["lora_B"], self.padding_idx)
    change: Tensor = F.linear(rows, self._parameters["lora_A"].T) * self._lora.settings.scale
    return result + change


# By what a module computes, the forward that need not make the sum.  One that a subclass defines
# itself reads the sum as its weight.
THIN: dict[Any, Any] = {Linear.forward: _linear, Embedding.forward: _embedding}


def _adapted(model: Module, function: str) -> Iterator[tuple[str, Any]]:
    found = [(name, module) for name, module in model.named_modules()
             if isinstance(module, Adapted)]
    if not found:
        raise MlgpuError(f"{function}: the model has no adapters; add_lora(model, patterns) first")
    return iter(found)
