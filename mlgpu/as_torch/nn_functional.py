"""torch.nn.functional beside mlgpu's: old names for what has a newer one."""

from __future__ import annotations

from typing import Any

from mlgpu import Tensor
from mlgpu.nn import functional


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate(..., mode="nearest")`."""
    return functional.interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """`interpolate(..., mode="bilinear", align_corners=True)`."""
    return functional.interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)
