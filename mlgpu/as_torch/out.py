"""`out=`: PyTorch's functions write their result into tensors that are given.

mlgpu's own functions return fresh tensors.  Here the result is computed so, and copied: the values,
the dtype rules and the errors are PyTorch's, what is saved is not memory.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import mlgpu
from mlgpu import Tensor
from mlgpu.errors import DerivativeError, DeviceError, DTypeError, ShapeError


def into(function: Callable[..., Any], out: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
         ) -> Any:
    """`function(*args, **kwargs)` written into `out`, a tensor or as many as there are results.

    A tensor of another shape is given the result's.  Raises DerivativeError for anything that
    requires grad (nothing here is part of a graph), DTypeError where the result's dtype does not
    convert to that of `out`, DeviceError for one on another device.
    """
    name = function.__name__
    single = isinstance(out, Tensor)
    targets = (out,) if single else tuple(out)
    if mlgpu.is_grad_enabled() and any(
            isinstance(t, Tensor) and t.requires_grad for t in (*targets, *args, *kwargs.values())):
        raise DerivativeError(f"{name}: out= is not part of a graph, and an argument requires "
                              "grad; leave out= away, or compute under no_grad()")
    if single and _creates(function):
        kwargs = {"dtype": out.dtype, "device": out.device, **kwargs}
    with mlgpu.no_grad():
        result = function(*args, **kwargs)
        results = (result,) if isinstance(result, Tensor) else tuple(result)
        if len(results) != len(targets):
            raise ShapeError(f"{name}: out= must be {len(results)} tensors, got {len(targets)}")
        for target, value in zip(targets, results, strict=True):
            _write(name, target, value)
    return out if single or not hasattr(result, "_fields") else type(result)(*targets)


def _creates(function: Callable[..., Any]) -> bool:
    """Whether the function makes tensors of sizes and numbers: torch.zeros, arange, randn."""
    known = inspect.signature(function).parameters
    return {"dtype", "device"} <= known.keys() and "input" not in known


def _write(name: str, target: Tensor, value: Tensor) -> None:
    if not isinstance(target, Tensor):
        raise TypeError(f"{name}: out= must be a Tensor, got {type(target).__name__}")
    if target.device != value.device:
        raise DeviceError(f"{name}: out= is on {target.device} and the result on {value.device}; "
                          "move one with .to()")
    if not mlgpu.can_cast(value.dtype, target.dtype):
        raise DTypeError(f"{name}: the result, of {value.dtype!r}, does not convert to out= of "
                         f"{target.dtype!r}")
    if target.shape != value.shape:
        target.resize_(value.shape)
    target.copy_(value)
