"""Kernels that users write: `mlgpu.cuda.kernel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu import dtypes
from mlgpu.autograd.mode import mode
from mlgpu.cuda import types
from mlgpu.cuda.launch import Kernel, Size, Strided
from mlgpu.device import Device, runtime
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import DeviceError, GraphError, KernelError, ReleasedError
from mlgpu.tensor import Tensor


def ctype(dtype: DTypeLike) -> str:
    """How a dtype is written in CUDA C++: "float", "__half", "long long" ..."""
    return types.ctype(dtypes.as_dtype(dtype).numpy)


def kernel(source: str, name: str, *, options: Sequence[str] = (),
           filename: str = "kernel.cu") -> CustomKernel:
    """A kernel of your own, launched on tensors: `k = kernel(source, "scale")`.

    `source` is CUDA C++ as NVRTC takes it; it may include "common.cuh" and CUDA's headers.  `name`
    is the kernel's name, for a template with its arguments, such as "scale<float, 4>".  `options`
    are NVRTC's.  It is compiled when first launched, and kept in the cache.  Raises KernelError
    where the source declares no such kernel.
    """
    return CustomKernel(Kernel(source, name, filename, None, tuple(options)))


class CustomKernel:
    """What `kernel` returns: call it with a grid, a block and the arguments."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._written = [p.written for p in kernel.parameters]

    def __call__(self, grid: Size, block: Size, arguments: Sequence[Any], shared: int = 0) -> None:
        """Launch on the current stream of the tensors' device.

        Pointers take tensors of exactly the declared type, contiguous and on one device (wrap one
        in `Strided` where the kernel takes its strides), or None; numbers take Python's.  `shared`
        are bytes of dynamic shared memory.  Tensors behind pointers to non-const count as changed
        in place.  Raises KernelError for a wrong number of arguments, DTypeError, ShapeError,
        DeviceError or TypeError for a wrong one, and GraphError where a gradient would get lost:
        a launch is not recorded, so wrap it in a `mlgpu.autograd.Function`.
        """
        kernel = self._kernel
        if len(arguments) != len(self._written):
            named = ", ".join(p.name for p in kernel.parameters)
            raise KernelError(f"{kernel.expression}: takes {len(self._written)} arguments "
                              f"({named}), got {len(arguments)}")
        written: list[Tensor] = []
        read: list[Tensor] = []
        given = [self._array(value, writes, written, read)
                 for value, writes in zip(arguments, self._written, strict=True)]
        tensors = written + read
        if not tensors:
            raise TypeError(f"{kernel.expression}: no argument is a tensor, so there is no device "
                            "to run on")
        device = self._device(tensors)
        engine = runtime(device)
        engine.call(lambda *_: kernel(grid, block, given, shared), [t._array for t in tensors],
                    device, len(written))
        for tensor in written:
            tensor._storage.version += 1
            if mode.capture is not None:
                mode.capture.versions.append(tensor._storage)

    def _array(self, value: Any, writes: bool, written: list[Tensor], read: list[Tensor]) -> Any:
        tensor = value.array if type(value) is Strided else value
        if not isinstance(tensor, Tensor):
            return value
        if tensor._storage.released:
            raise ReleasedError(f"{self._kernel.expression}: a tensor of shape "
                                f"{tuple(tensor.shape)} was released")
        if mode.grad and tensor.requires_grad:
            raise GraphError(f"{self._kernel.expression}: a tensor requires grad, and a launch is "
                             "not recorded; launch in the forward of a mlgpu.autograd.Function, or "
                             "under no_grad()")
        (written if writes else read).append(tensor)
        return Strided(tensor._array) if type(value) is Strided else tensor._array

    def _device(self, tensors: Sequence[Tensor]) -> Device:
        devices = {tensor.device for tensor in tensors}
        if len(devices) > 1:
            raise DeviceError(f"{self._kernel.expression}: tensors are on "
                              f"{' and '.join(sorted(map(str, devices)))}; move one with .to()")
        device = devices.pop()
        if device.type != "cuda":
            raise DeviceError(f"{self._kernel.expression}: kernels run on CUDA devices, and the "
                              f"tensors are on {device}; move them with .cuda()")
        return device
