"""What Tensor has in PyTorch for kinds of memory and of tensors that mlgpu does not have.

`install()` adds it, so that programs which ask get the answer of a dense tensor.
"""

from __future__ import annotations

from typing import Any

import mlgpu
from mlgpu.as_torch.names import TypedStorage
from mlgpu.layout import strided
from mlgpu.nn import Module
from mlgpu.tensor import RemovableHandle, Tensor

_FALSE = """is_mkldnn is_mps is_xpu is_mtia is_ipu is_maia is_xla is_vulkan is_nested is_sparse_csr
    is_hpu""".split()


def storage(self: Tensor) -> TypedStorage:
    """The block of memory that the tensor lies on, counted in elements."""
    return TypedStorage(self)


def share_memory_(self: Tensor) -> Tensor:
    """The tensor: workers of a DataLoader share memory of their own accord."""
    return self


def is_shared(self: Tensor) -> bool:
    """Whether other processes see the memory: those of a CUDA device."""
    return self.is_cuda


def dim_order(self: Tensor, ambiguity_check: Any = False) -> tuple[int, ...]:
    """The dimensions from that of the longest steps in memory to that of the shortest."""
    strides = self.stride()
    return tuple(sorted(range(self.ndim), key=lambda d: -strides[d]))


def to_dense(self: Tensor, dtype: Any = None, *, masked_grad: bool = True) -> Tensor:
    """The tensor, which is dense; in another dtype where one is asked for."""
    return self if dtype is None else self.to(dtype)


def record_stream(self: Tensor, stream: Any) -> None:
    """Nothing: memory is given out again only when every stream that used it is done."""


def map_(self: Tensor, tensor: Tensor, callable: Any) -> Tensor:
    """Overwrite each element by `callable(own, other)` of numbers; on the CPU, one by one."""
    other = tensor.expand_as(self).reshape(-1).tolist()
    made = [callable(a, b) for a, b in zip(self.reshape(-1).tolist(), other, strict=True)]
    return self.copy_(self.new_tensor(made).view(self.shape))


def apply_(self: Tensor, callable: Any) -> Tensor:
    """Overwrite each element by `callable` of it, a number; on the CPU, one by one."""
    made = [callable(a) for a in self.reshape(-1).tolist()]
    return self.copy_(self.new_tensor(made).view(self.shape))


def array_wrap(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
    """The result of a function of NumPy's that was given the tensor, as a tensor."""
    import numpy as np

    return mlgpu.from_numpy(np.asarray(array))


def share_memory(self: Module) -> Module:
    """The module: see `share_memory_`."""
    return self


def compile_module(self: Module, *args: Any, **kwargs: Any) -> None:
    """Nothing: mlgpu runs the module as it is."""


def _register_load_state_dict_pre_hook(self: Module, hook: Any, with_module: bool = False
                                       ) -> RemovableHandle:
    """As `register_load_state_dict_pre_hook`; the hook gets the module only if `with_module`."""
    if with_module:
        return self.register_load_state_dict_pre_hook(hook)
    return self.register_load_state_dict_pre_hook(lambda module, *given: hook(*given))


def _register_state_dict_hook(self: Module, hook: Any) -> RemovableHandle:
    """As `register_state_dict_post_hook`."""
    return self.register_state_dict_post_hook(hook)


def _hooks(kind: str) -> property:
    """A module's own hooks of a kind, as its table."""
    return property(lambda self: getattr(self._ensure_hooks(), kind))


def install() -> None:
    """Give Tensor these; what mlgpu has by now stays its own."""
    for name in _FALSE:
        if not hasattr(Tensor, name):
            setattr(Tensor, name, False)
    for form in (storage, share_memory_, is_shared, dim_order, to_dense, record_stream, map_,
                 apply_):
        if not hasattr(Tensor, form.__name__):
            setattr(Tensor, form.__name__, form)
    Tensor.__array_wrap__ = array_wrap  # type: ignore[attr-defined]
    Tensor.layout = strided  # type: ignore[attr-defined]
    Module._register_load_state_dict_pre_hook = (  # type: ignore[attr-defined]
        _register_load_state_dict_pre_hook)
    Module._register_state_dict_hook = _register_state_dict_hook  # type: ignore[attr-defined]
    for name, kind in (("_forward_hooks", "forward"), ("_forward_pre_hooks", "forward_pre"),
                       ("_backward_hooks", "backward"), ("_backward_pre_hooks", "backward_pre")):
        setattr(Module, name, _hooks(kind))
    Module.share_memory = share_memory  # type: ignore[attr-defined]
    Module.compile = compile_module  # type: ignore[attr-defined]
