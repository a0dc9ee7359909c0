"""Errors that kernels find in values: recorded on the device, raised at the next waiting call.

A kernel that meets an index out of range skips the access and writes what it saw into its
device's cell (kernels/fault.cuh); the first stays.  Under MLGPU_LAUNCH_BLOCKING=1 every operation
looks.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from mlgpu.cuda.context import context
from mlgpu.errors import PositionError

BLOCKING = os.environ.get("MLGPU_LAUNCH_BLOCKING", "0") not in ("", "0")

_cells: dict[int, Any] = {}
_watched: set[int] = set()  # devices on which a kernel that may report was launched since we looked
_sites: dict[str, int] = {}
_messages: list[tuple[str, type[Exception]]] = []
_lock = threading.Lock()


def fault() -> Any:
    """The current device's cell, for the kernel parameter `ml_fault* fault`."""
    from mlgpu.cuda.arrays import cupy

    index = cupy.cuda.runtime.getDevice()
    cell = _cells.get(index)
    if cell is None:
        with _lock:
            cell = _cells.get(index)
            if cell is None:
                cell = cupy.zeros(3, "int64")  # of the device, not of any tensor: not on the books
                cupy.cuda.get_current_stream().synchronize()
                _cells[index] = cell
    watch(index)
    if context.capture is not None:
        context.capture.reports = True
    return cell


def watch(index: int) -> None:
    """Look into a device's cell when it is next waited for."""
    _watched.add(index)


def site(message: str, error: type[Exception] = PositionError) -> int:
    """A number for a message such as "gather: index {value} is out of range for size {bound}".

    `error` is what it is raised as.
    """
    number = _sites.get(message)
    if number is None:
        with _lock:
            number = _sites.setdefault(message, len(_messages))
            if number == len(_messages):
                _messages.append((message, error))
    return number


def raise_recorded(index: int) -> None:
    """Raise what a kernel recorded on this device, which is then forgotten.

    Waits for the device's work where a kernel that may report was launched since the last look.
    """
    if index not in _watched:
        return
    from mlgpu.cuda.arrays import cupy

    with cupy.cuda.Device(index) as device:
        device.synchronize()
        _watched.discard(index)
        raised, value, bound = _cells[index].get().tolist()
        if raised & 0xFFFFFFFF:
            _cells[index].fill(0)
            device.synchronize()
            message, error = _messages[raised >> 32]
            raise error(message.format(value=value, bound=bound))
