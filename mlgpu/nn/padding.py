"""Padding layers: `padding` is one number, or (left, right) for each dimension, the last first."""

from __future__ import annotations

from mlgpu.nn import functional as F
from mlgpu.nn.conv import Sizes, per_dim
from mlgpu.nn.module import Module
from mlgpu.tensor import Tensor

__all__ = ["CircularPad1d", "CircularPad2d", "CircularPad3d", "ConstantPad1d", "ConstantPad2d",
           "ConstantPad3d", "ReflectionPad1d", "ReflectionPad2d", "ReflectionPad3d",
           "ReplicationPad1d", "ReplicationPad2d", "ReplicationPad3d", "ZeroPad1d", "ZeroPad2d",
           "ZeroPad3d"]


class _Pad(Module):
    _spatial: int
    _mode: str

    def __init__(self, padding: Sizes) -> None:
        super().__init__()
        self.padding = per_dim(padding, 2 * self._spatial)

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    _mode = "constant"

    def __init__(self, padding: Sizes, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return F.pad(input, self.padding, self._mode, self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """Pads the last dimension with `value`."""

    _spatial = 1


class ConstantPad2d(_ConstantPad):
    """Pads the last 2 dimensions with `value`."""

    _spatial = 2


class ConstantPad3d(_ConstantPad):
    """Pads the last 3 dimensions with `value`."""

    _spatial = 3


class _ZeroPad(_Pad):
    _mode = "constant"


class ZeroPad1d(_ZeroPad):
    """Pads the last dimension with zeros."""

    _spatial = 1


class ZeroPad2d(_ZeroPad):
    """Pads the last 2 dimensions with zeros."""

    _spatial = 2


class ZeroPad3d(_ZeroPad):
    """Pads the last 3 dimensions with zeros."""

    _spatial = 3


class _ReflectionPad(_Pad):
    _mode = "reflect"


class ReflectionPad1d(_ReflectionPad):
    """Pads the last dimension with its mirror image about the border elements."""

    _spatial = 1


class ReflectionPad2d(_ReflectionPad):
    """Pads the last 2 dimensions with their mirror images about the border elements."""

    _spatial = 2


class ReflectionPad3d(_ReflectionPad):
    """Pads the last 3 dimensions with their mirror images about the border elements."""

    _spatial = 3


class _ReplicationPad(_Pad):
    _mode = "replicate"


class ReplicationPad1d(_ReplicationPad):
    """Pads the last dimension with copies of its border elements."""

    _spatial = 1


class ReplicationPad2d(_ReplicationPad):
    """Pads the last 2 dimensions with copies of their border elements."""

    _spatial = 2


class ReplicationPad3d(_ReplicationPad):
    """Pads the last 3 dimensions with copies of their border elements."""

    _spatial = 3


class _CircularPad(_Pad):
    _mode = "circular"


class CircularPad1d(_CircularPad):
    """Pads the last dimension with the elements of its other end."""

    _spatial = 1


class CircularPad2d(_CircularPad):
    """Pads the last 2 dimensions with the elements of their other ends."""

    _spatial = 2


class CircularPad3d(_CircularPad):
    """Pads the last 3 dimensions with the elements of their other ends."""

    _spatial = 3
