"""PyTorch's module paths for what mlgpu keeps elsewhere: `utils.data`, `utils.checkpoint`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("checkpoint", "data"):
        from importlib import import_module

        return import_module(f"mlgpu.utils.{name}")
    raise AttributeError(f"module 'mlgpu.utils' has no attribute {name!r}")
