"""Parameters computed by modules from others, at each use, as torch.nn.utils.parametrize."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlgpu.autograd import no_grad
from mlgpu.errors import ShapeError
from mlgpu.nn.containers import ModuleDict, ModuleList
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.tensor import Tensor

__all__ = ["ParametrizationList", "cached", "is_parametrized", "register_parametrization",
           "remove_parametrizations"]

_cache: dict[tuple[int, str], Tensor] | None = None


@contextmanager
def cached() -> Iterator[None]:
    """Compute each parametrized tensor once within the block, however often it is used."""
    global _cache
    before = _cache
    _cache = {} if before is None else before
    try:
        yield
    finally:
        _cache = before


class ParametrizationList(ModuleList):
    """The modules that make one tensor, and what it is made of: `original`, or `original0` ..."""

    def __init__(self, modules: list[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        made: Any = original
        with no_grad():
            for module in reversed(modules):
                if hasattr(module, "right_inverse"):
                    made = module.right_inverse(made)
        self.is_tensor = isinstance(made, Tensor)
        parts = {"original": made} if self.is_tensor else {
            f"original{i}": part for i, part in enumerate(made)}
        self.ntensors = len(parts)
        for name, part in parts.items():
            if isinstance(original, Parameter):
                self.register_parameter(name, Parameter(part.detach(), original.requires_grad))
            else:
                self.register_buffer(name, part)

    def right_inverse(self, value: Tensor) -> None:
        """Make the originals such that the tensor becomes `value`."""
        with no_grad():
            made: Any = value
            for module in reversed(list(self)):
                made = module.right_inverse(made)  # AttributeError where it has none
            if self.is_tensor:
                self.original.data.copy_(made)
            else:
                for i, part in enumerate(made):
                    getattr(self, f"original{i}").data.copy_(part)

    def forward(self) -> Tensor:
        """The tensor."""
        modules = list(self)
        parts = [self.original] if self.is_tensor else [
            getattr(self, f"original{i}") for i in range(self.ntensors)]
        made: Tensor = modules[0](*parts)
        for module in modules[1:]:
            made = module(made)
        return made


def register_parametrization(module: Module, tensor_name: str, parametrization: Module, *,
                             unsafe: bool = False) -> Module:
    """Let `module.tensor_name` be `parametrization(original)` from now on; returns the module.

    Where the parametrization has `right_inverse`, the original is that of the present value.
    Raises ShapeError where shape or dtype would change and not `unsafe`, KeyError for a name that
    is neither parameter nor buffer.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        chain: Any = module.parametrizations[tensor_name]
        value = chain()
        chain.append(parametrization)
        if hasattr(parametrization, "right_inverse"):
            chain.right_inverse(value.detach())
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise KeyError(f"register_parametrization: {type(module).__name__} has no parameter or "
                       f"buffer {tensor_name!r}")
    original: Tensor = getattr(module, tensor_name)
    made = ParametrizationList([parametrization], original, unsafe)
    with no_grad():
        result = made()
    if not unsafe and (result.shape != original.shape or result.dtype is not original.dtype):
        raise ShapeError(f"register_parametrization: {tensor_name!r} has shape "
                         f"{tuple(original.shape)} and dtype {original.dtype!r} and would become "
                         f"{tuple(result.shape)}, {result.dtype!r}; pass unsafe=True to allow it")
    if not is_parametrized(module):
        module.__class__ = type(f"Parametrized{type(module).__name__}", (type(module),),
                                {"_unparametrized": type(module)})
        module.parametrizations = ModuleDict()
    delattr(module, tensor_name)
    module.parametrizations[tensor_name] = made
    setattr(type(module), tensor_name, _computed(tensor_name))
    return module


def _computed(name: str) -> property:
    def value(self: Any) -> Tensor:
        chain = self.parametrizations[name]
        if _cache is None:
            return chain()  # type: ignore[no-any-return]
        key = id(self), name
        if key not in _cache:
            _cache[key] = chain()
        return _cache[key]

    def assign(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(value, assign)


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether the module, or one of its tensors, is computed by parametrizations."""
    found = module._modules.get("parametrizations")
    return isinstance(found, ModuleDict) and (tensor_name is None or tensor_name in found)


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True
                            ) -> Module:
    """Make the tensor one of the module's own again, with its present value or the original's.

    Raises ValueError where it is not parametrized.
    """
    if not is_parametrized(module, tensor_name):
        raise ShapeError(f"remove_parametrizations: {tensor_name!r} of {type(module).__name__} is "
                         "not parametrized")
    chain: Any = module.parametrizations[tensor_name]
    if not leave_parametrized and not chain.is_tensor:
        raise ShapeError(f"remove_parametrizations: {tensor_name!r} is made of several tensors; "
                         "only leave_parametrized=True is possible")
    with no_grad():
        value = chain().detach() if leave_parametrized else chain.original.detach()
    first = next(iter(chain.parameters(recurse=False)), None)
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if not len(module.parametrizations):
        del module.parametrizations
        module.__class__ = type(module)._unparametrized  # type: ignore[attr-defined]
    if first is None:
        module.register_buffer(tensor_name, value)
    else:
        module.register_parameter(tensor_name, Parameter(value, first.requires_grad))
    return module
