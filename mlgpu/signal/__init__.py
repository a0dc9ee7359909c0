"""Signal processing, under the names of torch.signal."""

from __future__ import annotations

from mlgpu.signal import windows as windows

__all__ = ["windows"]
