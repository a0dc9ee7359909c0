"""Copies between host and device and between devices, ordered by events.

What comes from pageable memory is staged through page-locked memory, so that the copy runs beside
the program and the source is free at once.  Page-locked sources and targets of copies that the
program does not wait for are `pending` until an event says that the copy is done: whoever reads or
writes them waits (Storage.pending).
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Any

import numpy as np

from mlgpu.cuda import faults
from mlgpu.cuda.arrays import _runtime, cupy, empty
from mlgpu.cuda.context import context
from mlgpu.cuda.runtime import contiguous
from mlgpu.device import Device, device_of
from mlgpu.errors import CaptureError

_lock = threading.Lock()
_staged: deque[tuple[Any, Any]] = deque()  # event, page-locked memory held until then


def pinned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """An uninitialised NumPy array in page-locked memory."""
    count = math.prod(shape)
    held = cupy.cuda.alloc_pinned_memory(max(count * dtype.itemsize, 1))
    flat = np.frombuffer(held, np.uint8, count * dtype.itemsize)
    shaped: np.ndarray[Any, Any] = flat.view(dtype).reshape(shape)
    return shaped


def pinned(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A copy in page-locked memory."""
    out = pinned_empty(array.shape, array.dtype)
    np.copyto(out, array)
    return out


def is_pinned(array: np.ndarray[Any, Any]) -> bool:
    """Whether the memory of a NumPy array is page-locked."""
    if not array.size:
        return False
    attributes = _runtime.pointerGetAttributes(array.ctypes.data)
    return bool(attributes.type == _runtime.memoryTypeHost)


def _refuse_capture(what: str) -> None:
    if context.capture is not None:
        raise CaptureError(f"{what}: a copy between host and device cannot be part of a captured "
                           "graph; copy into a static tensor before the replay")


def from_host(source: np.ndarray[Any, Any], non_blocking: bool) -> tuple[Any, Any]:
    """A fresh array on the current device; and the event after which `source` may change.

    The event is None where `source` is free already.
    """
    _refuse_capture("to")
    out = empty(source.shape, source.dtype)
    if not source.size:
        return out, None
    stream = cupy.cuda.get_current_stream()
    if non_blocking and source.flags.c_contiguous and is_pinned(source):
        out.data.copy_from_host_async(source.ctypes.data, source.nbytes, stream)
        return out, _kept(source, stream)
    staged = pinned(source)
    out.data.copy_from_host_async(staged.ctypes.data, staged.nbytes, stream)
    _kept(staged, stream)
    return out, None


def _kept(memory: Any, stream: Any) -> Any:
    """The event after which a copy is done, until when its page-locked memory is held.

    Whoever asked for the copy may have let go of it: it must not be given out again before.
    """
    event = cupy.cuda.Event(block=True, disable_timing=True)
    event.record(stream)
    with _lock:
        _staged.append((event, memory))
        while _staged and _staged[0][0].done:
            _staged.popleft()
    return event


def to_host(array: Any, non_blocking: bool) -> tuple[np.ndarray[Any, Any], Any]:
    """A fresh NumPy array, and the event after which it holds the values.

    The event is None where it does already: then what kernels recorded is raised, too.
    """
    _refuse_capture("cpu")
    index = array.data.device_id
    dense = contiguous(array)
    stream = cupy.cuda.get_current_stream()
    if non_blocking:
        out = pinned_empty(array.shape, array.dtype)
    else:
        from mlgpu.cpu.runtime import empty as host_empty

        out = host_empty(array.shape, array.dtype)
    event = None
    if array.size:
        dense.data.copy_to_host_async(out.ctypes.data, dense.nbytes, stream)
        if non_blocking:
            event = _kept(out, stream)
    if event is None:
        stream.synchronize()
        faults.raise_recorded(index)
    return out, event


def between(runtime: Any, array: Any, device: Device) -> Any:
    """A fresh array on another device, by a copy between peers."""
    source = device_of(array.data.device_id)
    dense = runtime.call(contiguous, (array,), source)
    here, there = source.index, device.index
    assert here is not None
    assert there is not None
    out = runtime.empty(array.shape, array.dtype, device)
    if not array.size:
        return out
    with cupy.cuda.Device(here):
        ready = cupy.cuda.Event(disable_timing=True)
        ready.record(cupy.cuda.get_current_stream())
    with cupy.cuda.Device(there):
        stream = cupy.cuda.get_current_stream()
        stream.wait_event(ready)
        out.data.copy_from_device_async(dense.data, dense.nbytes, stream)
        done = cupy.cuda.Event(disable_timing=True)
        done.record(stream)
    with cupy.cuda.Device(here):  # the source is not written or given out again before
        cupy.cuda.get_current_stream().wait_event(done)
    return out
