"""The forward and backward of an `autograd.Function` in a precision of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mlgpu.amp.casting import HALVES
from mlgpu.amp.region import checked
from mlgpu.autograd.mode import mode
from mlgpu.dtypes import DTypeLike, as_dtype
from mlgpu.ops.cast import cast
from mlgpu.tensor import Tensor


def custom_fwd(fwd: Callable[..., Any] | None = None, *, device_type: str,
               cast_inputs: DTypeLike | None = None) -> Any:
    """Decorate `forward`: it runs under the caller's autocast, or, given `cast_inputs`, without.

    `cast_inputs`: within autocast, floating tensors of that device type (but float64) come in that
    dtype, and the body computes in what it is given.  PyTorch's torch.amp.custom_fwd.
    """
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    checked(device_type)
    wanted = None if cast_inputs is None else as_dtype(cast_inputs)

    def given(value: Any) -> Any:
        if (isinstance(value, Tensor) and value.device.type == device_type
                and (value.dtype.name == "float32" or value.dtype in HALVES)):
            return cast(value, wanted)  # type: ignore[arg-type]
        if type(value) in (list, tuple):
            return type(value)([given(v) for v in value])
        return value

    @functools.wraps(fwd)
    def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
        casting = mode.autocast
        within = casting is not None and device_type in casting.lower
        if within and wanted is not None:
            args = tuple(map(given, args))
            kwargs = {name: given(value) for name, value in kwargs.items()}
            casting = None
        ctx._casting = None if casting is None else casting.again()
        return _under(casting, fwd, ctx, *args, **kwargs)

    return forward


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Any:
    """Decorate `backward`: it runs in the precision that `forward`, under `custom_fwd`, had."""
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)
    checked(device_type)

    @functools.wraps(bwd)
    def backward(ctx: Any, *grads: Any) -> Any:
        return _under(ctx._casting, bwd, ctx, *grads)

    return backward


def _under(casting: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    before, mode.autocast = mode.autocast, casting
    try:
        return function(*args, **kwargs)
    finally:
        mode.autocast = before
