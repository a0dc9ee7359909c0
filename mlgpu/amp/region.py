"""`autocast`: products in a half type, sums and losses in float32, weights as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from mlgpu import dtypes
from mlgpu.amp.casting import HALVES, Casting
from mlgpu.autograd.mode import mode
from mlgpu.dtypes import DTypeLike
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DeviceError, DTypeError

F = TypeVar("F", bound=Callable[..., Any])

_defaults = {"cuda": dtypes.float16, "cpu": dtypes.bfloat16}


class autocast:
    """Within it (or in a function decorated with it) operations choose their precision.

    device_type: `"cuda"` or `"cpu"`: whose tensors are meant.  dtype: float16 (CUDA's default) or
    bfloat16 (the CPU's); with float32 nothing changes.  Products (linear, convolution, attention,
    recurrent layers) run in it; exponentials, sums, norms and losses in float32; the rest in the
    dtypes that come (`mlgpu/amp/policy.py` is the table).  float64 is left alone.  Parameters and
    their gradients stay float32.  Backward uses the forward pass's dtypes, within it or outside.

    `enabled=False` switches it off inside another one.  `cache_enabled=False` casts a weight each
    time it is used, instead of once.  Micikevicius et al. 2018; PyTorch's torch.autocast.
    Raises DeviceError for another device type, DTypeError for another dtype.
    """

    def __init__(self, device_type: str, dtype: DTypeLike | None = None, enabled: bool = True,
                 cache_enabled: bool | None = None) -> None:
        self.device = checked(device_type)
        self.dtype = get_autocast_dtype(self.device) if dtype is None else dtypes.as_dtype(dtype)
        if enabled and self.dtype not in (*HALVES, dtypes.float32):
            raise DTypeError("autocast: dtype must be float16, bfloat16 or, for nothing to change, "
                             f"float32, got {self.dtype.name}")
        self.enabled = enabled and self.dtype is not dtypes.float32
        self.cache_enabled = True if cache_enabled is None else cache_enabled
        self._before: list[Casting | None] = []

    def __enter__(self) -> None:
        before: Casting | None = mode.autocast
        self._before.append(before)
        lower = dict(before.lower) if before is not None else {}
        lower.pop(self.device, None)
        if self.enabled:
            lower[self.device] = self.dtype
        # One store of casts for all that are nested, which goes with the outermost.
        kept = before.kept if before is not None and before.kept is not None else {}
        mode.autocast = Casting(lower, kept if self.cache_enabled else None) if lower else None

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        mode.autocast = self._before.pop()

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with autocast(self.device, self.dtype, self.enabled, self.cache_enabled):
                return function(*args, **kwargs)

        return wrapped  # type: ignore[return-value]


def checked(device_type: str) -> str:
    """The device type, if autocast knows it.  DeviceError otherwise."""
    if device_type not in _defaults:
        raise DeviceError(f"autocast: device_type must be 'cuda' or 'cpu', got {device_type!r}")
    return device_type


def is_autocast_available(device_type: str) -> bool:
    """Whether `autocast` knows that device type."""
    return device_type in _defaults


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread is within `autocast` for that device type."""
    return mode.autocast is not None and checked(device_type) in mode.autocast.lower


def get_autocast_dtype(device_type: str) -> DType:
    """The half type in use on that device type, or the one that `autocast` takes by default."""
    known = _defaults[checked(device_type)]
    return known if mode.autocast is None else mode.autocast.lower.get(device_type, known)


def set_autocast_dtype(device_type: str, dtype: DTypeLike) -> None:
    """What `autocast` takes by default on that device type.  DTypeError for another dtype."""
    wanted = dtypes.as_dtype(dtype)
    if wanted not in HALVES:
        raise DTypeError("set_autocast_dtype: dtype must be float16 or bfloat16, got "
                         f"{wanted.name}")
    _defaults[checked(device_type)] = wanted
