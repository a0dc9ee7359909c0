"""Tensor types by name, as PyTorch's oldest interface has them: FloatTensor, cuda.LongTensor.

Each stands for a dtype on a kind of device: called, it makes such a tensor; `isinstance` asks
whether a tensor is one; `Tensor.type` takes and returns it or its name.
"""

from __future__ import annotations

from typing import Any

from mlgpu import dtypes
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DTypeError
from mlgpu.tensor import Tensor

_NAMES = {"BFloat16Tensor": dtypes.bfloat16, "BoolTensor": dtypes.bool_,
          "ByteTensor": dtypes.uint8, "CharTensor": dtypes.int8, "DoubleTensor": dtypes.float64,
          "FloatTensor": dtypes.float32, "HalfTensor": dtypes.float16, "IntTensor": dtypes.int32,
          "LongTensor": dtypes.int64, "ShortTensor": dtypes.int16}


class TensorType(type):
    """The class of FloatTensor and the others, which have no instances of their own."""

    dtype: DType
    device: str

    def __instancecheck__(cls, instance: object) -> bool:
        return (isinstance(instance, Tensor) and instance.dtype is cls.dtype
                and instance.device.type == cls.device)

    def __call__(cls, *data: Any, **options: Any) -> Any:
        return Tensor(*data, dtype=cls.dtype, device=cls.device, **options)

    def __repr__(cls) -> str:
        return f"<class '{cls}'>"

    def __str__(cls) -> str:
        return f"torch.cuda.{cls.__name__}" if cls.device == "cuda" else f"torch.{cls.__name__}"


def _make(name: str, device: str) -> TensorType:
    made = TensorType(name, (), {"__doc__": f"A tensor of {_NAMES[name].name} on {device}."})
    made.dtype, made.device = _NAMES[name], device
    return made


CPU_CLASSES = {name: _make(name, "cpu") for name in _NAMES}
CUDA_CLASSES = {name: _make(name, "cuda") for name in _NAMES}
_BY_NAME = {str(kind): kind for classes in (CPU_CLASSES, CUDA_CLASSES)
            for kind in classes.values()}


def __getattr__(name: str) -> TensorType:
    if name not in CPU_CLASSES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return CPU_CLASSES[name]


def typed(kind: TensorType | str) -> TensorType:
    """A tensor type or its name, such as "torch.cuda.FloatTensor".  DTypeError for another."""
    found = _BY_NAME.get(str(kind))
    if found is None:
        raise DTypeError(f"type: expected one of {', '.join(_BY_NAME)}, got {kind!r}")
    return found


def cast_to(self: Tensor, dtype: DType | TensorType | str | None = None,
            non_blocking: bool = False) -> Any:
    """The name of the tensor's type; with `dtype` the tensor in that, on that kind of device.

    `dtype`: a dtype, a type such as LongTensor, or its name.  Itself where it is that already.
    Raises DTypeError for another name, DeviceError where there is no such device.
    """
    if dtype is None:
        for classes in (CPU_CLASSES, CUDA_CLASSES):
            for kind in classes.values():
                if isinstance(self, kind):
                    return str(kind)
        raise DTypeError(f"type: {self.dtype!r} has no name of this kind")
    if isinstance(dtype, (str, TensorType)):
        kind = typed(dtype)
        return self.to(kind.device, dtype=kind.dtype, non_blocking=non_blocking)
    return self.to(dtype=dtype, non_blocking=non_blocking)
