"""Layers that learn the size of their input from the first one, as torch.nn.LazyLinear and others.

Until then their parameters are `UninitializedParameter`s, which an optimizer may have already: the
first call, or loading a state dict, gives them their memory.  The layer is then one of the plain
class.
"""

from __future__ import annotations

from typing import Any, ClassVar

from mlgpu.device import DeviceLike
from mlgpu.dtypes import DTypeLike
from mlgpu.errors import ShapeError
from mlgpu.nn.batchnorm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from mlgpu.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from mlgpu.nn.init import skipped
from mlgpu.nn.linear import Linear
from mlgpu.nn.module import Module
from mlgpu.nn.parameter import Parameter
from mlgpu.ops.creation import empty
from mlgpu.tensor import Tensor

__all__ = ["LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d",
           "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d",
           "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LazyLinear",
           "UninitializedParameter"]


_GROUPS = 5  # where `groups` stands among the arguments of convolutions after the input's size


class UninitializedParameter(Parameter):
    """A parameter without elements yet, of a layer that waits for its first input."""


class _Lazy(Module):
    """`_plain` is the class that the layer becomes, `_size` its attribute of the input's size."""

    _plain: ClassVar[type[Any]]
    _size: ClassVar[str]

    def __init__(self, *args: Any, **options: Any) -> None:
        groups = options.get("groups", 1)
        if self._size == "in_channels" and len(args) > _GROUPS:
            groups = args[_GROUPS]
        with skipped():  # nothing is drawn for what is not there
            initialize: Any = super().__init__  # the plain layer's, which stands behind
            initialize(groups, *args, **options)
        self._given = args, options
        setattr(self, self._size, 0)
        for parameter in self.parameters():
            parameter.data = empty(0, device=parameter.device, dtype=parameter.dtype)
            parameter.__class__ = UninitializedParameter

    def has_uninitialized_params(self) -> bool:
        """Whether there was no input yet."""
        return True

    def initialize_parameters(self, input: Tensor) -> None:
        """Take the size from an input, and become the plain layer."""
        channel = -1 if self._plain is Linear else 1
        dims = getattr(self, "_dims", None) or (
            (self._spatial + 1, self._spatial + 2) if hasattr(self, "_spatial") else None)
        if dims is not None:
            if input.ndim not in dims:
                raise ShapeError(f"{type(self).__name__}: expected {' or '.join(map(str, dims))} "
                                 f"dimensions, got {tuple(input.shape)}")
            channel = 0 if input.ndim == min(dims) and self._unbatched() else 1
        self._become(input.shape[channel])

    def _unbatched(self) -> bool:
        """Whether inputs of the fewest dimensions are without a batch."""
        return "BatchNorm" not in self._plain.__name__

    def _become(self, size: int) -> None:
        args, options = self._given
        made = self._plain(size, *args, **options)
        for name, parameter in self.named_parameters():
            fresh = made.get_parameter(name)
            parameter.data = fresh.data.to(parameter.device, parameter.dtype)
            parameter.__class__ = Parameter
        for name, buffer in self.named_buffers():
            fresh = made.get_buffer(name)
            buffer.data = fresh.data.to(buffer.device, buffer.dtype)
        setattr(self, self._size, size)
        del self._given
        self.__class__ = self._plain

    def forward(self, input: Tensor, *args: Any, **options: Any) -> Tensor:
        """Take the size from the input, then compute what the plain layer does."""
        self.initialize_parameters(input)
        result: Tensor = self.forward(input, *args, **options)
        return result

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        size = self._size_in(state_dict, prefix)
        if size == 0:
            super()._load_from_state_dict(state_dict, prefix, *rest)
        else:
            self._become(size)
            self._load_from_state_dict(state_dict, prefix, *rest)  # the plain layer's

    def _size_in(self, state: dict[str, Any], prefix: str) -> int:
        """The size in a state dict; 0 where that is of a layer that waits as well."""
        weight = state.get(f"{prefix}weight", state.get(f"{prefix}running_mean"))
        if not isinstance(weight, Tensor) or weight.numel() == 0:
            return 0
        if self._size == "num_features" or "Transpose" in self._plain.__name__:
            return weight.shape[0]
        return weight.shape[1] * getattr(self, "groups", 1)


class LazyLinear(_Lazy, Linear):
    """Linear, whose in_features are the last dimension of the first input."""

    _plain, _size = Linear, "in_features"


class LazyConv1d(_Lazy, Conv1d):
    """Conv1d, whose in_channels are those of the first input."""

    _plain, _size = Conv1d, "in_channels"


class LazyConv2d(_Lazy, Conv2d):
    """Conv2d, whose in_channels are those of the first input."""

    _plain, _size = Conv2d, "in_channels"


class LazyConv3d(_Lazy, Conv3d):
    """Conv3d, whose in_channels are those of the first input."""

    _plain, _size = Conv3d, "in_channels"


class LazyConvTranspose1d(_Lazy, ConvTranspose1d):
    """ConvTranspose1d, whose in_channels are those of the first input."""

    _plain, _size = ConvTranspose1d, "in_channels"


class LazyConvTranspose2d(_Lazy, ConvTranspose2d):
    """ConvTranspose2d, whose in_channels are those of the first input."""

    _plain, _size = ConvTranspose2d, "in_channels"


class LazyConvTranspose3d(_Lazy, ConvTranspose3d):
    """ConvTranspose3d, whose in_channels are those of the first input."""

    _plain, _size = ConvTranspose3d, "in_channels"


class LazyBatchNorm1d(_Lazy, BatchNorm1d):
    """BatchNorm1d, whose num_features are the channels of the first input."""

    _plain, _size = BatchNorm1d, "num_features"


class LazyBatchNorm2d(_Lazy, BatchNorm2d):
    """BatchNorm2d, whose num_features are the channels of the first input."""

    _plain, _size = BatchNorm2d, "num_features"


class LazyBatchNorm3d(_Lazy, BatchNorm3d):
    """BatchNorm3d, whose num_features are the channels of the first input."""

    _plain, _size = BatchNorm3d, "num_features"


class _LazyInstanceNorm(_Lazy):
    """With weights and running statistics by default, unlike the plain layer; as PyTorch's."""

    def __init__(self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
                 track_running_stats: bool = True, device: DeviceLike | None = None,
                 dtype: DTypeLike | None = None) -> None:
        super().__init__(eps, momentum, affine, track_running_stats, device, dtype)


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):
    """InstanceNorm1d, whose num_features are the channels of the first input."""

    _plain, _size = InstanceNorm1d, "num_features"


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):
    """InstanceNorm2d, whose num_features are the channels of the first input."""

    _plain, _size = InstanceNorm2d, "num_features"


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):
    """InstanceNorm3d, whose num_features are the channels of the first input."""

    _plain, _size = InstanceNorm3d, "num_features"
