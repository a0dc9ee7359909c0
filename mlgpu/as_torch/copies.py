"""`Tensor.copy_` as PyTorch has it: the source may be on another device.

mlgpu's own raises there, as nothing moves between devices unless a program says so; programs for
PyTorch say it with `copy_`.
"""

from __future__ import annotations

from mlgpu.ops.cast import copy_ as _copy_
from mlgpu.tensor import Tensor


def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Overwrite the tensor with `src`, moved to its device, broadcast and cast."""
    if isinstance(src, Tensor) and src.device != self.device:
        src = src.to(self.device, non_blocking=non_blocking)
    return _copy_(self, src, non_blocking)


def install() -> None:
    """Give Tensor this `copy_`."""
    Tensor.copy_ = copy_  # type: ignore[method-assign]
