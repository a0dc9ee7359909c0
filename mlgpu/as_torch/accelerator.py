"""torch.accelerator: CUDA where it can be used."""

from __future__ import annotations

import mlgpu
from mlgpu import Device, cuda


def is_available() -> bool:
    """Whether there is a CUDA device."""
    return cuda.is_available()


def device_count() -> int:
    """How many CUDA devices there are."""
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Device | None:
    """The device "cuda", or None where there is none."""
    return Device("cuda") if cuda.is_available() else None


def current_device_index() -> int:
    """The index of the current CUDA device."""
    return cuda.current_device()


def set_device_index(device: int) -> None:
    """Make a CUDA device current."""
    cuda.set_device(device)


def synchronize(device: mlgpu.Device | str | int | None = None) -> None:
    """Wait for a CUDA device."""
    cuda.synchronize(device)
