"""mlgpu: a deep learning library for NVIDIA GPUs that one person can read and trust."""

from __future__ import annotations

from typing import Any

from mlgpu import api as _api
from mlgpu import autograd, errors, memory
from mlgpu.autograd import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from mlgpu.device import Device, get_default_device, set_default_device
from mlgpu.device import Device as device
from mlgpu.dtypes import (
    bfloat16,
    can_cast,
    complex64,
    complex128,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    promote_types,
    result_type,
    set_default_dtype,
    uint8,
)
from mlgpu.dtypes import bool_ as bool
from mlgpu.dtypes import complex64 as cfloat
from mlgpu.dtypes import complex128 as cdouble
from mlgpu.dtypes import float16 as half
from mlgpu.dtypes import float32 as float
from mlgpu.dtypes import float64 as double
from mlgpu.dtypes import int16 as short
from mlgpu.dtypes import int32 as int
from mlgpu.dtypes import int64 as long
from mlgpu.errors import *  # noqa: F403
from mlgpu.ops.creation import tensor  # over the module mlgpu.tensor, which PyTorch's name hides
from mlgpu.tensor import Size, Tensor

__version__ = "0.1.0"

_api.bind()

_SUBMODULES = ("cuda", "data", "fft", "io", "linalg", "nn", "optim", "special", "testing", "utils")


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        from importlib import import_module

        return import_module(f"mlgpu.{name}")
    found = _api.function(name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *_api.names()})
