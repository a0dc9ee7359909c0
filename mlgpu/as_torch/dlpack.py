"""torch.utils.dlpack: tensors handed to and from other libraries without a copy."""

from __future__ import annotations

from typing import Any

from mlgpu import Tensor
from mlgpu import from_dlpack as from_dlpack


def to_dlpack(tensor: Tensor) -> Any:
    """The tensor as a capsule that another library's `from_dlpack` takes, once."""
    return tensor.__dlpack__()
