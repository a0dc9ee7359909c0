"""Which devices there are, what they can do, and how they fare: torch.cuda's functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlgpu import memory
from mlgpu.cuda.arrays import cupy
from mlgpu.cuda.streams import cuda_device
from mlgpu.device import DeviceLike, device_of, resolve, runtime
from mlgpu.extras import require

_runtime = cupy.cuda.runtime


@dataclass(frozen=True)
class DeviceProperties:
    """What torch.cuda.get_device_properties tells of a device; sizes are bytes."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    L2_cache_size: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    regs_per_multiprocessor: int
    max_threads_per_multi_processor: int


def current_device() -> int:
    """The index of this thread's current CUDA device, which "cuda" means."""
    return int(_runtime.getDevice())


def set_device(device: DeviceLike) -> None:
    """Make a device this thread's current one; `with mlgpu.cuda.device(i):` gives it back."""
    _runtime.setDevice(cuda_device("set_device", device))


class device:
    """`with mlgpu.cuda.device(1):` makes a device current for what is inside."""

    def __init__(self, device: DeviceLike) -> None:
        self.idx = cuda_device("device", device)
        self._before: list[int] = []

    def __enter__(self) -> None:
        self._before.append(_runtime.getDevice())
        _runtime.setDevice(self.idx)

    def __exit__(self, *exception: object) -> None:
        _runtime.setDevice(self._before.pop())


def synchronize(device: DeviceLike | None = None) -> None:
    """Wait until all work of a device is done; raise what kernels recorded."""
    found = device_of(cuda_device("synchronize", device))
    runtime(found).synchronize(found)


def get_device_properties(device: DeviceLike | None = None) -> DeviceProperties:
    """The properties of a device."""
    found = _runtime.getDeviceProperties(cuda_device("get_device_properties", device))
    return DeviceProperties(
        found["name"].decode(), found["major"], found["minor"], found["totalGlobalMem"],
        found["multiProcessorCount"], found["warpSize"], found["l2CacheSize"],
        found["sharedMemPerBlock"], found["sharedMemPerBlockOptin"],
        found["sharedMemPerMultiprocessor"], found["regsPerMultiprocessor"],
        found["maxThreadsPerMultiProcessor"])


def get_device_name(device: DeviceLike | None = None) -> str:
    """The name of a device, such as "NVIDIA H100 80GB HBM3"."""
    return get_device_properties(device).name


def get_device_capability(device: DeviceLike | None = None) -> tuple[int, int]:
    """The compute capability of a device: (9, 0) for sm_90."""
    found = get_device_properties(device)
    return found.major, found.minor


# --- memory ---------------------------------------------------------------------------------------


def memory_allocated(device: DeviceLike | None = None) -> int:
    """Bytes that tensors, saved values and workspaces take on a device."""
    return memory.stats(_found("memory_allocated", device)).allocated


def max_memory_allocated(device: DeviceLike | None = None) -> int:
    """The most that `memory_allocated` has been since the start or the last reset."""
    return memory.stats(_found("max_memory_allocated", device)).peak


def reset_peak_memory_stats(device: DeviceLike | None = None) -> None:
    """Let `max_memory_allocated` start again from what is allocated now."""
    memory.reset_peak(_found("reset_peak_memory_stats", device))


def memory_reserved(device: DeviceLike | None = None) -> int:
    """Bytes that CuPy's pool holds on a device, in use or for reuse."""
    with cupy.cuda.Device(cuda_device("memory_reserved", device)):
        return int(cupy.get_default_memory_pool().total_bytes())


def mem_get_info(device: DeviceLike | None = None) -> tuple[int, int]:
    """(free, total) bytes of a device, as its driver sees them."""
    with cupy.cuda.Device(cuda_device("mem_get_info", device)):
        free, total = _runtime.memGetInfo()
    return int(free), int(total)


def empty_cache() -> None:
    """Give what the pool holds for reuse back to the devices."""
    cupy.get_default_memory_pool().free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


def _found(name: str, device: DeviceLike | None) -> Any:
    return device_of(cuda_device(name, resolve("cuda" if device is None else device)))


# --- sensors --------------------------------------------------------------------------------------


def utilization(device: DeviceLike | None = None) -> int:
    """Per cent of the last sampling period in which kernels ran, as nvidia-smi says.

    Raises MissingExtraError without the module pynvml, DeviceError where there is no driver to ask.
    """
    nvml, handle = _nvml("utilization", device)
    return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)


def temperature(device: DeviceLike | None = None) -> int:
    """The temperature of a device in degrees Celsius; errors as `utilization`."""
    nvml, handle = _nvml("temperature", device)
    return int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))


def _nvml(name: str, device: DeviceLike | None) -> tuple[Any, Any]:
    from mlgpu.errors import DeviceError

    index = cuda_device(name, device)
    nvml = require("pynvml", "cuda12", f"cuda.{name}")
    try:
        nvml.nvmlInit()
        bus = _runtime.deviceGetPCIBusId(index)  # NVML numbers devices in another order
        return nvml, nvml.nvmlDeviceGetHandleByPciBusId(bus.encode())
    except nvml.NVMLError as error:
        raise DeviceError(f"cuda.{name}: the driver's management library does not answer for "
                          f"cuda:{index}: {error}") from error
