"""Files: `save` and `load` (one safetensors file for nested values), and the container itself."""

from mlgpu.io.checkpoint import load, save

__all__ = ["load", "save"]
