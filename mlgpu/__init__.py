"""mlgpu: a deep learning library for NVIDIA GPUs that one person can read and trust."""

from __future__ import annotations

from math import e as e
from math import inf as inf
from math import nan as nan
from math import pi as pi
from typing import TYPE_CHECKING, Any

from mlgpu import api as _api
from mlgpu import autograd as autograd
from mlgpu import dtypes as _dtypes
from mlgpu import errors as errors
from mlgpu import memory as memory
from mlgpu.autograd import enable_grad as enable_grad
from mlgpu.autograd import inference_mode as inference_mode
from mlgpu.autograd import is_grad_enabled as is_grad_enabled
from mlgpu.autograd import is_inference_mode_enabled as is_inference_mode_enabled
from mlgpu.autograd import no_grad as no_grad
from mlgpu.autograd import set_grad_enabled as set_grad_enabled
from mlgpu.device import Device as Device
from mlgpu.device import get_default_device as get_default_device
from mlgpu.device import set_default_device as set_default_device
from mlgpu.dtypes import bfloat16 as bfloat16
from mlgpu.dtypes import can_cast as can_cast
from mlgpu.dtypes import complex64 as complex64
from mlgpu.dtypes import complex128 as complex128
from mlgpu.dtypes import dtype as dtype
from mlgpu.dtypes import finfo as finfo
from mlgpu.dtypes import float16 as float16
from mlgpu.dtypes import float32 as float32
from mlgpu.dtypes import float64 as float64
from mlgpu.dtypes import get_default_dtype as get_default_dtype
from mlgpu.dtypes import iinfo as iinfo
from mlgpu.dtypes import int8 as int8
from mlgpu.dtypes import int16 as int16
from mlgpu.dtypes import int32 as int32
from mlgpu.dtypes import int64 as int64
from mlgpu.dtypes import promote_types as promote_types
from mlgpu.dtypes import result_type as result_type
from mlgpu.dtypes import set_default_dtype as set_default_dtype
from mlgpu.dtypes import uint8 as uint8
from mlgpu.errors import *  # noqa: F403
from mlgpu.layout import channels_last as channels_last
from mlgpu.layout import channels_last_3d as channels_last_3d
from mlgpu.layout import contiguous_format as contiguous_format
from mlgpu.layout import layout as layout
from mlgpu.layout import memory_format as memory_format
from mlgpu.layout import preserve_format as preserve_format
from mlgpu.layout import strided as strided
from mlgpu.ops.creation import tensor as tensor  # hides the module mlgpu.tensor, as PyTorch's name
from mlgpu.tensor import Size as Size
from mlgpu.tensor import Tensor as Tensor

if TYPE_CHECKING:
    from mlgpu import amp as amp
    from mlgpu import backends as backends
    from mlgpu import checkpoint as checkpoint
    from mlgpu import cuda as cuda
    from mlgpu import data as data
    from mlgpu import distributions as distributions
    from mlgpu import fft as fft
    from mlgpu import io as io
    from mlgpu import linalg as linalg
    from mlgpu import masked as masked
    from mlgpu import metrics as metrics
    from mlgpu import nn as nn
    from mlgpu import optim as optim
    from mlgpu import peft as peft
    from mlgpu import profiler as profiler
    from mlgpu import quantization as quantization
    from mlgpu import rl as rl
    from mlgpu import signal as signal
    from mlgpu import special as special
    from mlgpu import testing as testing
    from mlgpu import train as train
    from mlgpu import utils as utils
    from mlgpu import vision as vision
    from mlgpu.functions import *  # noqa: F403

__version__ = "0.1.0"

device = Device
newaxis = None
bool = _dtypes.bool_
short, int, long = int16, int32, int64
half, float, double = float16, float32, float64
cfloat, cdouble = complex64, complex128

_api.bind()

_SUBMODULES = ("amp", "backends", "checkpoint", "cuda", "data", "distributions", "fft", "io",
               "linalg", "masked", "metrics", "nn", "optim", "peft", "profiler", "quantization",
               "random", "rl", "signal", "special", "testing", "train", "utils", "vision")


if not TYPE_CHECKING:  # a checker knows all names, and reports others
    def __getattr__(name: str) -> Any:
        if name in _SUBMODULES:
            from importlib import import_module

            return import_module(f"mlgpu.{name}")
        found = _api.function(name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES, *_api.names()})
