"""torch.utils beside mlgpu.utils."""

from __future__ import annotations

from typing import Any

from mlgpu.tensor import RemovableHandle as RemovableHandle


def set_module(obj: Any, module: str) -> None:
    """Say which module an object is shown in."""
    obj.__module__ = module
