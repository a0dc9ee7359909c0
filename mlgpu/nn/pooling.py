"""Pooling layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlgpu.errors import ShapeError
from mlgpu.nn import functional as F
from mlgpu.nn.conv import Sizes, per_dim
from mlgpu.nn.module import Module
from mlgpu.tensor import Tensor

__all__ = ["AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d", "AdaptiveMaxPool1d",
           "AdaptiveMaxPool2d", "AdaptiveMaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
           "FractionalMaxPool2d", "FractionalMaxPool3d", "LPPool1d", "LPPool2d", "LPPool3d",
           "MaxPool1d", "MaxPool2d", "MaxPool3d"]

OutputSize = int | tuple[int | None, ...] | None


class _MaxPool(Module):
    """The maximum over sliding windows, with their positions too if `return_indices`."""

    _spatial: int

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
                 dilation: Sizes = 1, return_indices: bool = False, ceil_mode: bool = False
                 ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self._spatial - 1]
        return pool(input, self.kernel_size, self.stride, self.padding, self.dilation,
                    ceil_mode=self.ceil_mode, return_indices=self.return_indices)

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")


class MaxPool1d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    _spatial = 1


class MaxPool2d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    _spatial = 2


class MaxPool3d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    _spatial = 3


class _FractionalMaxPool(Module):
    """The maximum over windows at random places: `output_size` of them, or `output_ratio` of the
    input's size (between 0 and 1); with their positions too if `return_indices`.  Graham 2015.
    """

    _spatial: int
    _random_samples: Tensor | None

    def __init__(self, kernel_size: Sizes, output_size: Sizes | None = None,
                 output_ratio: float | Sequence[float] | None = None, return_indices: bool = False,
                 _random_samples: Tensor | None = None) -> None:
        super().__init__()
        name = type(self).__name__
        if (output_size is None) == (output_ratio is None):
            raise ShapeError(f"{name}: give either output_size or output_ratio")
        self.kernel_size = per_dim(kernel_size, self._spatial)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else per_dim(output_size, self._spatial)
        self.output_ratio: tuple[float, ...] | None = None
        if output_ratio is not None:
            self.output_ratio = ((output_ratio,) * self._spatial
                                 if isinstance(output_ratio, (int, float)) else tuple(output_ratio))
            if not all(0 < ratio < 1 for ratio in self.output_ratio):
                raise ShapeError(f"{name}: output_ratio must lie between 0 and 1, got "
                                 f"{output_ratio}")

    def forward(self, input: Tensor) -> Any:
        pool = F.fractional_max_pool2d if self._spatial == 2 else F.fractional_max_pool3d
        return pool(input, self.kernel_size, self.output_size, self.output_ratio,
                    self.return_indices, self._random_samples)


class FractionalMaxPool2d(_FractionalMaxPool):
    __doc__ = _FractionalMaxPool.__doc__
    _spatial = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    __doc__ = _FractionalMaxPool.__doc__
    _spatial = 3


class _AvgPool(Module):
    """The mean over sliding windows; `divisor_override` replaces the number of elements."""

    _spatial: int

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True,
                 divisor_override: int | None = None) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        pool = F.avg_pool2d if self._spatial == 2 else F.avg_pool3d
        return pool(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                    self.count_include_pad, self.divisor_override)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean over sliding windows."""

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0,
                 ceil_mode: bool = False, count_include_pad: bool = True) -> None:
        super().__init__(per_dim(kernel_size, 1), None if stride is None else per_dim(stride, 1),
                         per_dim(padding, 1), ceil_mode, count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad)


class AvgPool2d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    _spatial = 2


class AvgPool3d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    _spatial = 3


class _LPPool(Module):
    """(sum of x^norm_type)^(1 / norm_type) over sliding windows."""

    _spatial: int

    def __init__(self, norm_type: float, kernel_size: Sizes, stride: Sizes | None = None,
                 ceil_mode: bool = False) -> None:
        super().__init__()
        self.norm_type = norm_type
        self.kernel_size = kernel_size
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        pool = (F.lp_pool1d, F.lp_pool2d, F.lp_pool3d)[self._spatial - 1]
        return pool(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, ceil_mode={self.ceil_mode}")


class LPPool1d(_LPPool):
    __doc__ = _LPPool.__doc__
    _spatial = 1


class LPPool2d(_LPPool):
    __doc__ = _LPPool.__doc__
    _spatial = 2


class LPPool3d(_LPPool):
    __doc__ = _LPPool.__doc__
    _spatial = 3


class _AdaptiveAvgPool(Module):
    """The mean over windows that divide the input into `output_size` parts; None keeps a size."""

    _spatial: int

    def __init__(self, output_size: OutputSize) -> None:
        super().__init__()
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        pool = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d,
                F.adaptive_avg_pool3d)[self._spatial - 1]
        return pool(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__
    _spatial = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__
    _spatial = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__
    _spatial = 3


class _AdaptiveMaxPool(Module):
    """The maximum over windows that divide the input into `output_size` parts."""

    _spatial: int

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        super().__init__()
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        pool = (F.adaptive_max_pool1d, F.adaptive_max_pool2d,
                F.adaptive_max_pool3d)[self._spatial - 1]
        return pool(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__
    _spatial = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__
    _spatial = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__
    _spatial = 3
