"""The CUDA runtime: how operations ask for device memory, and `DeviceRuntime` on CuPy.

Operations import this file at start-up, so CuPy is loaded by the first call, not here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from mlgpu.cpu.runtime import laid_like
from mlgpu.cuda import faults
from mlgpu.cuda.context import context
from mlgpu.device import Device, device_of


@functools.cache
def _arrays() -> ModuleType:
    from mlgpu.cuda import arrays

    return arrays


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """An uninitialised array on the current device: how every operation asks for memory.

    Raises OutOfMemoryError before allocating what a limit or budget forbids.
    """
    return _arrays().empty(shape, dtype)


def zeros(shape: Sequence[int], dtype: Any) -> Any:
    """As `empty`, filled with zeros."""
    array = empty(shape, dtype)
    if array.size:
        array.data.memset_async(0, array.nbytes)
    return array


def full(shape: Sequence[int], value: Any, dtype: Any) -> Any:
    """As `empty`, filled with `value`."""
    from mlgpu.cuda.copy import fill

    array = empty(shape, dtype)
    fill(array, value)
    return array


def empty_like(array: Any, dtype: Any = None, others: Sequence[Any] = ()) -> Any:
    """As `empty`, with the shape of `array`, its memory order and its dtype.

    Dimensions along which it was broadcast are put in order by `others` (of the same shape).
    """
    return laid_like(empty, array, dtype, others)


def copy(array: Any) -> Any:
    """A C-contiguous copy."""
    from mlgpu.cuda.copy import copy_into

    out = empty(array.shape, array.dtype)
    copy_into(out, array)
    return out


def contiguous(array: Any) -> Any:
    """`array` itself if its elements lie in order without gaps, else such a copy."""
    return array if array._c_contiguous else copy(array)  # `flags` would make an object


def view_possible(array: Any, shape: Sequence[int]) -> bool:
    """Whether `array` can be seen under another shape without a copy."""
    # NumPy decides, on a view of the same strides in no memory.
    twin = np.lib.stride_tricks.as_strided(_NOWHERE, array.shape, [
        s // array.itemsize for s in array.strides])
    try:
        twin.reshape(shape, copy=False)
    except ValueError:
        return False
    return True


def reshaped(array: Any, shape: Sequence[int]) -> Any:
    """`array` under another shape: a view where possible, else a copy."""
    if not (array._c_contiguous or view_possible(array, shape)):
        array = copy(array)
    return array.reshape(shape)


_NOWHERE = np.empty(1, np.int8)


class CudaRuntime:
    """Implements `mlgpu.device.DeviceRuntime` on CuPy."""

    forward = "forward_cuda"
    backward = "backward_cuda"
    into = "forward_into_cuda"

    def __init__(self) -> None:
        self._runtime = _arrays().cupy.cuda.runtime
        self._current = self._runtime.getDevice

    def device_count(self) -> int:
        return int(self._runtime.getDeviceCount())

    def current_index(self) -> int:
        """The index that "cuda" means in this thread."""
        return int(self._current())

    def empty(self, shape: Sequence[int], dtype: Any, device: Device) -> Any:
        return self.call(functools.partial(empty, shape, dtype), (), device)

    def copy_into(self, out: Any, array: Any) -> None:
        from mlgpu.cuda.copy import copy_into

        self.call(copy_into, (out, array), device_of(out.data.device_id), 1)

    def fill(self, out: Any, value: Any) -> None:
        from mlgpu.cuda.copy import fill

        self.call(lambda out: fill(out, value), (out,),
                  device_of(out.data.device_id), 1)

    def call(self, function: Callable[..., Any], arrays: Sequence[Any], device: Device,
             written: int = 0) -> Any:
        index = device.index
        assert index is not None
        before = self._current()
        if before != index:
            self._runtime.setDevice(index)
        try:
            stream, capture = context.streams.get(index), context.capture
            for position, array in enumerate(arrays):
                if array is not None:
                    block = array.data.mem
                    if capture is not None:
                        capture.use(block, position < written)
                    elif block.writer is not stream or (position < written and block.readers):
                        block.use(stream, position < written)
            result = function(*arrays)
            if faults.BLOCKING:
                self._runtime.deviceSynchronize()
                faults.raise_recorded(index)
            return result
        finally:
            if before != index:
                self._runtime.setDevice(before)

    def reads(self, array: Any) -> None:
        block, capture = array.data.mem, context.capture
        if capture is not None:
            capture.use(block, False)
            return
        stream = context.streams.get(block.device_id)
        if block.writer is not stream:
            block.use(stream, False)

    def alone(self, holder: Any) -> bool:
        return bool(_arrays().alone(holder))

    def from_host(self, array: Any, device: Device, non_blocking: bool) -> Any:
        from mlgpu.cuda import transfer

        return self.call(lambda: transfer.from_host(array, non_blocking), (), device)

    def to_host(self, array: Any, non_blocking: bool) -> Any:
        from mlgpu.cuda import transfer

        return self.call(lambda a: transfer.to_host(a, non_blocking), (array,),
                         device_of(array.data.device_id))

    def peer_copy(self, array: Any, device: Device, non_blocking: bool) -> Any:
        from mlgpu.cuda import transfer

        return transfer.between(self, array, device)

    def pin(self, array: Any) -> Any:
        from mlgpu.cuda import transfer

        return transfer.pinned(array)

    def synchronize(self, device: Device) -> None:
        assert device.index is not None
        with _arrays().cupy.cuda.Device(device.index):
            self._runtime.deviceSynchronize()
        faults.raise_recorded(device.index)

    def cached(self, device: Device) -> int:
        with _arrays().cupy.cuda.Device(device.index):
            return int(_arrays().cupy.get_default_memory_pool().free_bytes())

    def empty_cache(self, device: Device) -> None:
        with _arrays().cupy.cuda.Device(device.index):
            _arrays().cupy.get_default_memory_pool().free_all_blocks()
