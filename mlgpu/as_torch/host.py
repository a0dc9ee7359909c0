"""torch.cpu: the host as a device among others, on which everything is done when it was asked."""

from __future__ import annotations

from typing import Any


def is_available() -> bool:
    """True."""
    return True


def is_initialized() -> bool:
    """True."""
    return True


def device_count() -> int:
    """1."""
    return 1


def current_device() -> str:
    """The only one."""
    return "cpu"


def synchronize(device: Any = None) -> None:
    """Nothing."""


def empty_cache() -> None:
    """Give bytes that no tensor has to the system."""
    from mlgpu import memory

    memory.empty_cache()
