"""Devices: naming them, choosing the current one, and the protocol their runtimes implement.

`cpu/` and `cuda/` are loaded here, on the first use of such a device, and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from mlgpu.errors import DeviceError

if TYPE_CHECKING:
    from typing_extensions import Self

TYPES = ("cpu", "cuda")


class DeviceRuntime(Protocol):
    """What a device has to offer: memory, movement of bytes, order, and where its maths stands."""

    forward: str  # the Op method that computes on this device: "forward" or "forward_cuda"
    backward: str  # the Op method with the fast gradient: "backward_cpu" or "backward_cuda"
    into: str  # the Op method that writes its result into the first array given

    def device_count(self) -> int:
        """How many devices of this type can be used."""

    def empty(self, shape: Sequence[int], dtype: Any, device: Device) -> Any:
        """An uninitialised array; accounted for before it is allocated."""

    def copy_into(self, out: Any, array: Any) -> None:
        """Overwrite `out` with the values of `array`, broadcast and cast."""

    def fill(self, out: Any, value: Any) -> None:
        """Overwrite all elements of `out` with a number."""

    def call(self, function: Callable[..., Any], arrays: Sequence[Any], device: Device,
             written: int = 0) -> Any:
        """Run an operation's maths on arrays, the first `written` of which it overwrites.

        `device` is current meanwhile, and the work comes after what it depends on.
        """

    def reads(self, array: Any) -> None:
        """Order the current stream's further work behind what an array's values come from."""

    def alone(self, holder: Any) -> bool:
        """Whether `holder._array` is the only reference to the whole memory it lies in."""

    def from_host(self, array: Any, device: Device, non_blocking: bool) -> tuple[Any, Any]:
        """A fresh device array with the values of a NumPy array.

        And the event after which the NumPy array may change, None where it may at once.
        """

    def to_host(self, array: Any, non_blocking: bool) -> tuple[Any, Any]:
        """A fresh NumPy array with the values of a device array.

        And the event after which it holds them, None where it does already.
        """

    def peer_copy(self, array: Any, device: Device, non_blocking: bool) -> Any:
        """A fresh array on `device`, of this type, with the values of one on another device."""

    def pin(self, array: Any) -> Any:
        """A copy of a NumPy array in page-locked memory; DeviceError where there is none."""

    def synchronize(self, device: Device) -> None:
        """Wait until everything asked of the device is done; raise what it recorded."""

    def cached(self, device: Device) -> int:
        """Bytes that no tensor has and that the allocator keeps for the next one."""

    def empty_cache(self, device: Device) -> None:
        """Give those bytes to the system."""


class Device:
    """`Device("cpu")`, `Device("cuda:1")`, `Device("cuda", 1)`, `Device(1)` or `Device("auto")`.

    "cuda" without an index means the current CUDA device; "auto" is CUDA where usable, else CPU.
    Compares equal by type and index, hashes, and works as a context manager that makes it the
    default of this thread for new tensors.  Raises DeviceError for a name that is no device.
    """

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: str | int | Device, index: int | None = None) -> None:
        if isinstance(type, Device):
            name, parsed = type.type, type.index
        elif isinstance(type, str):
            name, parsed = _parse(type)
        elif isinstance(type, int) and not isinstance(type, bool) and type >= 0:
            name, parsed = "cuda", type
        else:
            raise DeviceError(f"device: expected a string such as 'cuda:0', got {type!r}")
        if index is not None:
            if parsed is not None:
                raise DeviceError(f"device: {type!r} already has an index; drop the {index}")
            if isinstance(index, bool) or not isinstance(index, int) or index < 0:
                raise DeviceError(f"device: the index must be an int >= 0, got {index!r}")
            parsed = index
        if name == "cpu" and parsed not in (None, 0):
            raise DeviceError(f"device: there is one CPU, cpu or cpu:0, got index {parsed}")
        self.type = name
        self.index = parsed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        index = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{index})"

    def __reduce__(self) -> tuple[Any, tuple[str, int | None]]:
        return Device, (self.type, self.index)

    def __enter__(self) -> Self:
        _local.__dict__.setdefault("stack", []).append(resolve(self))
        return self

    def __exit__(self, *exception: object) -> None:
        _local.stack.pop()


def _parse(text: str) -> tuple[str, int | None]:
    if text == "auto":
        return ("cuda" if cuda_problem() is None else "cpu"), None
    name, colon, number = text.partition(":")
    if name not in TYPES:
        raise DeviceError(f"device: unknown type {name!r} in {text!r}; use one of cpu, cuda, auto")
    if not colon:
        return name, None
    if not (number.isascii() and number.isdecimal()) or (len(number) > 1 and number[0] == "0"):
        raise DeviceError(f"device: the index in {text!r} must be a number, as in '{name}:0'")
    return name, int(number)


_local = threading.local()
CPU = Device("cpu")


def current_device() -> Device:
    """The device on which this thread creates tensors when none is named."""
    stack = _local.__dict__.get("stack")
    if stack:
        top: Device = stack[-1]
        return top
    default: Device = _local.__dict__.get("default", CPU)
    return default


def get_default_device() -> Device:
    """The device on which new tensors are made, as torch.get_default_device."""
    return current_device()


def set_default_device(device: Device | str | None) -> None:
    """Make `device` this thread's default for new tensors; None goes back to the CPU."""
    _local.default = CPU if device is None else resolve(device)


# What a `device` argument takes: a Device, its name, or the index of a CUDA device.
DeviceLike = Device | str | int


def resolve(device: DeviceLike | None) -> Device:
    """The concrete device meant: current if None, with its index if CUDA.

    Raises DeviceError where the device does not exist.
    """
    if device is None:
        return current_device()
    if not isinstance(device, Device):
        device = Device(device)
    if device.type == "cpu":
        return CPU
    if device.type != "cuda":
        raise DeviceError(f"device: mlgpu has no {device.type!r} devices; use one of cpu, cuda, "
                          "auto")
    problem = cuda_problem()
    if problem is not None:
        raise DeviceError(f"device: {device} was asked for, but {problem}; use device='cpu' or "
                          "device='auto'")
    loaded = runtime(device)
    count = loaded.device_count()
    index = device.index if device.index is not None else loaded.current_index()  # type: ignore[attr-defined]
    if index >= count:
        raise DeviceError(f"device: cuda:{index} does not exist; there are {count} CUDA devices")
    return device_of(index)


_cuda: dict[int, Device] = {}


def device_of(index: int) -> Device:
    """The one Device object of an index, so that most comparisons are of identity."""
    found = _cuda.get(index)
    return _cuda.setdefault(index, Device("cuda", index)) if found is None else found


def cuda_problem() -> str | None:
    """Why CUDA cannot be used here, in words; None where it can."""
    from mlgpu import cuda

    return cuda.unavailable_reason()


_runtimes: dict[str, DeviceRuntime] = {}


def runtime(device: Device) -> DeviceRuntime:
    """The runtime that serves this device's type, loaded on first use."""
    found = _runtimes.get(device.type)
    if found is None:
        if device.type == "cpu":
            from mlgpu.cpu.runtime import CpuRuntime

            found = CpuRuntime()
        else:
            from mlgpu import cuda

            found = cuda.load_runtime()
        _runtimes[device.type] = found
    return found
