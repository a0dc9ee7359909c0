"""mlgpu.cuda: NVIDIA GPUs under PyTorch's names (torch.cuda).

Importing it loads nothing: CuPy comes with the first use of a device, and so do the modules of this
package that the operations name (`from mlgpu.cuda import gemm`), which a program on the CPU never
needs.  `unavailable_reason()` says why there is no device.  MLGPU_CUDA=sim gives simulated ones.
"""

from __future__ import annotations

import functools
import importlib
import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlgpu.device import DeviceRuntime
from mlgpu.errors import DeviceError, MissingExtraError

if TYPE_CHECKING:
    from mlgpu.cuda.custom import ctype, kernel
    from mlgpu.cuda.facts import (
        current_device,
        device,
        empty_cache,
        get_device_capability,
        get_device_name,
        get_device_properties,
        max_memory_allocated,
        mem_get_info,
        memory_allocated,
        memory_reserved,
        reset_peak_memory_stats,
        set_device,
        synchronize,
        temperature,
        utilization,
    )
    from mlgpu.cuda.graphs import CUDAGraph, graph, is_current_stream_capturing
    from mlgpu.cuda.streams import (
        Event,
        Stream,
        current_stream,
        default_stream,
        set_stream,
        stream,
    )

_HOMES = {
    "custom": "ctype kernel",
    "facts": """current_device device empty_cache get_device_capability get_device_name
        get_device_properties max_memory_allocated mem_get_info memory_allocated memory_reserved
        reset_peak_memory_stats set_device synchronize temperature utilization""",
    "graphs": "CUDAGraph graph is_current_stream_capturing",
    "streams": "Event Stream current_stream default_stream set_stream stream",
}
_HOME = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = ["CUDAGraph", "Event", "Stream", "ctype", "current_device", "current_stream",
           "default_stream", "device", "device_count", "empty_cache", "get_device_capability",
           "get_device_name", "get_device_properties", "graph", "is_available",
           "is_current_stream_capturing", "kernel", "max_memory_allocated", "mem_get_info",
           "memory_allocated", "memory_reserved", "reset_peak_memory_stats", "set_device",
           "set_stream", "stream", "synchronize", "temperature", "unavailable_reason",
           "utilization"]


class _Later:
    """Stands for a module of this package, which is imported when something of it is first used."""

    __slots__ = ("_module", "_name")  # and no `__dict__`: that is the module's too

    _module: ModuleType | None
    _name: str

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_module", None)

    def _imported(self) -> ModuleType:
        module = importlib.import_module(self._name)
        object.__setattr__(self, "_module", module)
        return module

    def __getattr__(self, name: str) -> Any:
        # Who imported it early holds on to this, so it must not take long.
        return getattr(self._module or self._imported(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._imported(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._imported(), name)

    def __dir__(self) -> list[str]:
        return dir(self._imported())

    def __repr__(self) -> str:
        return f"<module {self._name!r}, imported when first used>"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        if not name.startswith("_") and find_spec(f"mlgpu.cuda.{name}") is not None:
            if f"{__name__}.arrays" in sys.modules:  # CUDA is in use
                return importlib.import_module(f"{__name__}.{name}")
            # Only until the module is imported: then it takes this place itself.
            return globals().setdefault(name, _Later(f"mlgpu.cuda.{name}"))
        raise AttributeError(f"module 'mlgpu.cuda' has no attribute {name!r}")
    if find_spec("cupy") is None:  # where only a device is missing, the call says so
        raise DeviceError(f"cuda.{name}: no device can be used: {unavailable_reason()}")
    value = globals()[name] = getattr(importlib.import_module(f"mlgpu.cuda.{_HOME[name]}"), name)
    return value


@functools.cache
def unavailable_reason() -> str | None:
    """Why CUDA devices cannot be used, or None where they can."""
    if find_spec("cupy") is None:
        return "CuPy is not installed (pip install 'mlgpu[cuda12]')"
    from mlgpu.cuda.loading import load

    try:
        runtime = load().cuda.runtime
    except MissingExtraError as error:
        return str(error)
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return f"there is no usable GPU or driver ({str(error).partition(':')[0]})"
    return None if count else "no GPU is visible"


def is_available() -> bool:
    """Whether tensors can live on a CUDA device."""
    return unavailable_reason() is None


def device_count() -> int:
    """How many CUDA devices can be used."""
    if not is_available():
        return 0
    from mlgpu.cuda.loading import load

    return int(load().cuda.runtime.getDeviceCount())


def load_runtime() -> DeviceRuntime:
    """The CUDA runtime.  Raises DeviceError where there is none."""
    problem = unavailable_reason()
    if problem is not None:
        raise DeviceError(f"cuda: no device can be used: {problem}")
    from mlgpu.cuda.runtime import CudaRuntime

    return CudaRuntime()
