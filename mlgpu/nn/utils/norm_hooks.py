"""weight_norm and spectral_norm in their first form: a hook that computes the weight before each
forward, as torch.nn.utils.weight_norm and spectral_norm.  State dicts have the names of that form.
"""

from __future__ import annotations

from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import ShapeError
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.nn.utils.parametrizations import PowerIteration, default_dim, norm_except_dim
from mlgpu.tensor import Tensor

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]


class _Computed:
    """A hook that sets an attribute of a module to what is computed from its parameters."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.weight(module))

    def weight(self, module: Module) -> Tensor:
        raise NotImplementedError

    def attach(self, module: Module, parts: dict[str, Parameter]) -> Module:
        """Put `parts` in the place of the parameter."""
        if any(isinstance(hook, type(self)) and hook.name == self.name for hook in _hooks(module)):
            raise ShapeError(f"{type(self).__name__}: {self.name!r} has such a hook already")
        del module._parameters[self.name]
        for suffix, part in parts.items():
            module.register_parameter(f"{self.name}_{suffix}", part)
        self(module, None)
        module.register_forward_pre_hook(self)
        return module

    def detach(self, module: Module, names: tuple[str, ...]) -> None:
        """Make what is computed now a parameter again."""
        with no_grad():
            weight = self.weight(module).detach().clone()
        assert module._hooks is not None
        hooks = module._hooks.forward_pre
        for key in [key for key, entry in hooks.items() if entry[0] is self]:
            del hooks[key]
        for name in (self.name, *(f"{self.name}_{suffix}" for suffix in names)):
            delattr(module, name)
        module.register_parameter(self.name, Parameter(weight))


def _hooks(module: Module) -> list[Any]:
    hooks = module._hooks
    return [] if hooks is None else [entry[0] for entry in hooks.forward_pre.values()]


def _remove(module: Module, kind: type[_Computed], name: str, names: tuple[str, ...]) -> Module:
    for hook in _hooks(module):
        if isinstance(hook, kind) and hook.name == name:
            hook.detach(module, names)
            return module
    raise ShapeError(f"{kind.__name__}: {name!r} of {type(module).__name__} has no such hook")


class WeightNorm(_Computed):
    """Computes g v / ||v||."""

    def __init__(self, name: str, dim: int | None) -> None:
        super().__init__(name)
        self.dim = dim

    def weight(self, module: Module) -> Tensor:
        """The weight, from g and v."""
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        computed: Tensor = v * (g / norm_except_dim(v, self.dim))
        return computed


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """w = g v / ||v|| (Salimans and Kingma, 2016), from the parameters `<name>_g` and `<name>_v`.

    Returns the module; ShapeError, a ValueError, where it has that already.
    """
    weight = getattr(module, name).detach()
    return WeightNorm(name, dim).attach(module, {"g": Parameter(norm_except_dim(weight, dim)),
                                                 "v": Parameter(weight.clone())})


def remove_weight_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight a parameter again, with its present value."""
    return _remove(module, WeightNorm, name, ("g", "v"))


class SpectralNorm(_Computed):
    """Computes w / sigma(w), one power iteration better at each forward in training."""

    def __init__(self, name: str, power: PowerIteration) -> None:
        super().__init__(name)
        self.power = power

    def __call__(self, module: Module, inputs: Any) -> None:
        if module.training:
            weight = getattr(module, f"{self.name}_orig")
            u, v = self.vectors(module)
            self.power.step(weight, u, v)
        super().__call__(module, inputs)

    def vectors(self, module: Module) -> tuple[Tensor, Tensor]:
        """The estimates of the first singular vectors."""
        return getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")

    def weight(self, module: Module) -> Tensor:
        """The weight, divided by its norm."""
        original: Tensor = getattr(module, f"{self.name}_orig")
        return original / self.power.norm(original, *self.vectors(module))


def spectral_norm(module: Module, name: str = "weight", n_power_iterations: int = 1,
                  eps: float = 1e-12, dim: int | None = None) -> Module:
    """The weight divided by its spectral norm (Miyato et al., 2018), from `<name>_orig`.

    The buffers `<name>_u` and `<name>_v` hold the power iteration; returns the module.
    """
    weight: Parameter = getattr(module, name)
    power = PowerIteration(default_dim(module, dim), n_power_iterations, eps, columns_first=True)
    u, v = power.start(weight)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    return SpectralNorm(name, power).attach(module, {"orig": weight})


def remove_spectral_norm(module: Module, name: str = "weight") -> Module:
    """Make the weight a parameter again, with its present value."""
    return _remove(module, SpectralNorm, name, ("orig", "u", "v"))
