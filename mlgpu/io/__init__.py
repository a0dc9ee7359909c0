"""Files: `save` and `load` (one safetensors file for nested values), and PyTorch's own format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlgpu.io.checkpoint import load, save

if TYPE_CHECKING:
    from mlgpu.io.pytorch import load_pytorch, save_pytorch

__all__ = ["load", "load_pytorch", "save", "save_pytorch"]


def __getattr__(name: str) -> Any:
    if name in ("load_pytorch", "save_pytorch"):  # with what reads zip archives
        from mlgpu.io import pytorch

        return getattr(pytorch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
