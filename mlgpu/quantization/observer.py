"""Observers: modules that see tensors pass, and say which scale and zero point fit them.

As torch.ao.quantization's, without its qscheme: `symmetric` is that of per_tensor_symmetric and
per_channel_symmetric.  What was seen is kept in the buffers min_val and max_val, on the device;
nothing waits for it.
"""

from __future__ import annotations

import math
from typing import Any

from mlgpu import dtypes
from mlgpu.autograd import no_grad
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DTypeError, MlgpuError, ShapeError
from mlgpu.nn.module import Module
from mlgpu.ops.choice import where
from mlgpu.ops.creation import full_like, tensor
from mlgpu.tensor import Tensor


class MinMaxObserver(Module):
    """The least and the largest value of all that passed.

    dtype: uint8 (0 to 255) or int8 (-128 to 127), or `quant_min` to `quant_max`, integers.
    symmetric: the range lies around 0, whose integer is in the middle.  eps: the least scale.
    Raises DTypeError, or ShapeError, a ValueError, for an empty range.
    """

    min_val: Tensor
    max_val: Tensor

    def __init__(self, dtype: DType = dtypes.uint8, symmetric: bool = False,
                 quant_min: int | None = None, quant_max: int | None = None,
                 eps: float = dtypes.finfo(dtypes.float32).eps) -> None:
        super().__init__()
        if dtype not in (dtypes.uint8, dtypes.int8):
            raise DTypeError(f"{type(self).__name__}: dtype must be uint8 or int8, got {dtype!r}")
        info = dtypes.iinfo(dtype)
        custom = quant_min is not None or quant_max is not None
        self.dtype, self.symmetric, self.eps = dtype, symmetric, eps
        self.quant_min = info.min if quant_min is None else quant_min
        self.quant_max = info.max if quant_max is None else quant_max
        if self.quant_min >= self.quant_max:
            raise ShapeError(f"{type(self).__name__}: quant_min must be below quant_max, got "
                             f"{self.quant_min} and {self.quant_max}")
        self.zero_code = 0 if dtype is dtypes.int8 else (
            (self.quant_min + self.quant_max) // 2 if custom else 128)  # where symmetric
        self.register_buffer("min_val", tensor(math.inf))
        self.register_buffer("max_val", tensor(-math.inf))

    def forward(self, x_orig: Tensor) -> Tensor:
        """See a tensor pass; it is returned as it is."""
        if x_orig.numel():
            with no_grad():
                low, high = self.ends(x_orig.detach())
                self.see(low.to(self.min_val.dtype), high.to(self.max_val.dtype))
        return x_orig

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The least and the largest value of one tensor."""
        found: Any = x.aminmax()
        return found[0], found[1]

    def see(self, low: Tensor, high: Tensor) -> None:
        """Take one tensor's range into account."""
        self._keep(low.minimum(self.min_val), high.maximum(self.max_val))

    def _keep(self, low: Tensor, high: Tensor) -> None:
        if low.shape == self.min_val.shape:  # in place, so that a captured graph goes on with it
            self.min_val.copy_(low)
            self.max_val.copy_(high)
        else:
            self.min_val, self.max_val = low, high

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:
        """Scale (float32) and zero point (int32) for what was seen; 0 is exactly one of the values.

        MlgpuError where nothing was.
        """
        if not self.has_seen():
            raise MlgpuError(f"{type(self).__name__}: nothing has been observed")
        return self.qparams()

    def has_seen(self) -> bool:
        """Whether anything passed; it waits for the device."""
        return bool((self.min_val <= self.max_val).all())

    def qparams(self) -> tuple[Tensor, Tensor]:
        """As `calculate_qparams`, without the look at whether anything was seen."""
        low, high = self.min_val.clamp(max=0.0), self.max_val.clamp(min=0.0)
        if self.symmetric:
            scale = (-low).maximum(high) / ((self.quant_max - self.quant_min) / 2)
            scale = scale.clamp(min=self.eps)
            zero = full_like(scale, self.zero_code)
        else:
            scale = ((high - low) / (self.quant_max - self.quant_min)).clamp(min=self.eps)
            zero = (self.quant_min - (low / scale).round()).clamp(self.quant_min, self.quant_max)
        return scale, zero.to(dtypes.int32)

    def reset_min_max_vals(self) -> None:
        """Forget what was seen."""
        self._keep(full_like(self.min_val, math.inf), full_like(self.max_val, -math.inf))

    def extra_repr(self) -> str:
        """The range of integers."""
        return (f"quant_min={self.quant_min}, quant_max={self.quant_max}, "
                f"symmetric={self.symmetric}")


class _Averaged(MinMaxObserver):
    """What the observers of moving averages have in common; the first tensor sets the ends."""

    averaging_constant: float

    def see(self, low: Tensor, high: Tensor) -> None:
        """Move both ends towards one tensor's."""
        self._keep(self._moved(self.min_val, low), self._moved(self.max_val, high))

    def _moved(self, end: Tensor, seen: Tensor) -> Tensor:
        first = end.isinf()
        before = where(first, 0.0, end)  # infinity less itself would be NaN
        moved: Tensor = where(first, seen, before + self.averaging_constant * (seen - before))
        return moved


class MovingAverageMinMaxObserver(_Averaged):
    """Moving averages of each tensor's least and largest value; else as MinMaxObserver.

    averaging_constant: the share of a new tensor.
    """

    def __init__(self, averaging_constant: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.averaging_constant = averaging_constant


class PerChannelMinMaxObserver(MinMaxObserver):
    """The least and the largest value of each slice along `ch_axis`; else as MinMaxObserver."""

    def __init__(self, ch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ch_axis = ch_axis

    def ends(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(x.shape[ch_axis],) each."""
        slices = x.movedim(self.ch_axis, 0).reshape(x.shape[self.ch_axis], -1)
        return slices.amin(1), slices.amax(1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}min_val")
        if isinstance(saved, Tensor):  # before the first tensor there are no slices
            size = self.min_val.new_zeros(saved.shape)
            self.min_val, self.max_val = size, size.clone()
        super()._load_from_state_dict(state_dict, prefix, *rest)


class MovingAveragePerChannelMinMaxObserver(PerChannelMinMaxObserver, _Averaged):
    """Moving averages of each slice's least and largest value; else as MinMaxObserver."""

    def __init__(self, averaging_constant: float = 0.01, ch_axis: int = 0, **kwargs: Any) -> None:
        super().__init__(ch_axis, **kwargs)
        self.averaging_constant = averaging_constant
