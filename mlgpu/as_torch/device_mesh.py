"""torch.distributed.device_mesh: devices in rows and columns, of which a model has one."""

from __future__ import annotations

from typing import Any

from mlgpu.errors import DeviceError


class DeviceMesh:
    """Devices in rows and columns; making one raises DeviceError."""

    def __init__(self, *args: Any, **options: Any) -> None:
        raise DeviceError("DeviceMesh: mlgpu runs a model on one device")


def init_device_mesh(*args: Any, **options: Any) -> DeviceMesh:
    """DeviceError: there is one device."""
    return DeviceMesh()
