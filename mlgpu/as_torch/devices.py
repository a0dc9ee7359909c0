"""What PyTorch lets lie on different devices: the source of `copy_`, indices, single numbers.

mlgpu's own operations raise there, as nothing moves between devices unless a program says so.
Programs for PyTorch count on it: `x_on_cuda[torch.randperm(n)]`, `torch.tensor(2.0) * x_on_cuda`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from mlgpu.device import Device
from mlgpu.errors import DeviceError
from mlgpu.guard import guard
from mlgpu.ops.cast import copy_ as _copy_
from mlgpu.ops.elementwise import ElementwiseFunction
from mlgpu.ops.index import getitem as _getitem
from mlgpu.ops.index import setitem as _setitem
from mlgpu.tensor import Tensor

_call = ElementwiseFunction.__call__


def _moved(value: Any, device: Device) -> Any:
    """A tensor on the device; what is in a tuple or list likewise."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (tuple, list):
        return type(value)(_moved(part, device) for part in value)
    return value


def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Overwrite the tensor with `src`, moved to its device, broadcast and cast."""
    if isinstance(src, Tensor) and src.device != self.device:
        src = src.to(self.device, non_blocking=non_blocking)
    return _copy_(self, src, non_blocking)


def getitem(self: Tensor, key: Any) -> Tensor:
    """`self[key]`, the indices moved to its device."""
    return _getitem(self, key if self.is_cpu else _moved(key, self.device))


def setitem(self: Tensor, key: Any, value: Any) -> None:
    """`self[key] = value`, the indices and a single number moved to its device."""
    if not self.is_cpu:
        key = _moved(key, self.device)
        value = _beside(value, self.device)
    _setitem(self, key, value)


def _beside(value: Any, device: Device) -> Any:
    """A tensor of no dimensions on the CPU, moved; anything else as it is."""
    alone = isinstance(value, Tensor) and value.ndim == 0 and value.is_cpu
    return value.to(device) if alone else value


def _elementwise(self: Any, *args: Any, **kwargs: Any) -> Any:
    """An elementwise function, tensors of no dimensions on the CPU beside others on CUDA moved."""
    try:
        return _call(self, *args, **kwargs)
    except DeviceError:
        devices = {a.device for a in (*args, *kwargs.values())
                   if isinstance(a, Tensor) and not (a.ndim == 0 and a.is_cpu)}
        if len(devices) != 1:
            raise
        device, = devices
    return _call(self, *[_beside(a, device) for a in args],
                 **{name: _beside(a, device) for name, a in kwargs.items()})


# Kinds of devices that programs compare with; using one raises DeviceError.
_NAMED = ("meta", "mps", "xpu", "hpu", "mtia", "xla", "npu", "mlu", "musa", "ipu", "privateuseone")


def install() -> None:
    """Give Tensor and elementwise functions these forms."""
    names: Any = import_module("mlgpu.device")  # mlgpu.device is the class
    names.TYPES = (*names.TYPES, *_NAMED)
    forms: dict[str, Callable[..., Any]] = {"copy_": copy_, "__getitem__": getitem,
                                            "__setitem__": setitem}
    for name, form in forms.items():
        setattr(Tensor, name, guard(form))
    ElementwiseFunction.__call__ = _elementwise  # type: ignore[method-assign]
