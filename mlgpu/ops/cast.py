"""Copies: to another dtype, another device, another layout, or into an existing tensor."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as host
from mlgpu.cuda import copy as cuda_copy
from mlgpu.cuda import runtime as gpu
from mlgpu.device import CPU, Device, DeviceLike, resolve, runtime
from mlgpu.dtypes import DTypeLike
from mlgpu.dtypes import dtype as DType
from mlgpu.errors import DeviceError, ShapeError
from mlgpu.inplace import run_inplace
from mlgpu.op import Op, run, start, wrap
from mlgpu.storage import may_share_memory
from mlgpu.tensor import Tensor

__all__ = ["cast", "clone", "contiguous", "copy_", "cpu", "cuda", "pin_memory", "to", "type_as"]


class Cast(Op):
    """The values in another dtype; complex to real keeps the real part."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype

    def forward(self, x: Any) -> Any:
        out = host.empty_like(x, self.dtype.numpy)
        np.copyto(out, convert(x, self.dtype), casting="unsafe")
        return out

    def forward_cuda(self, x: Any) -> Any:
        out = gpu.empty_like(x, self.dtype.numpy)
        cuda_copy.copy_into(out, x)
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return dy  # the engine casts it to the input's dtype


def convert(x: Any, dtype: DType) -> Any:
    """`x` ready for an unsafe cast to `dtype` with PyTorch's meaning."""
    if x.dtype.kind == "c" and not dtype.is_complex:
        return x != 0 if dtype.kind == "bool" else x.real
    if x.dtype.kind in "fV" and dtype.name in ("uint8", "int8", "int16", "int32"):
        # C leaves a float outside the target's range undefined; through int64 it wraps.
        return x.astype(np.int64)
    return x


class Copy(Op):
    """The values of a tensor in fresh memory, in its own order or C order."""

    name = "clone"

    def __init__(self, contiguous: Any = False) -> None:
        self.contiguous = contiguous

    def forward(self, x: Any) -> Any:
        out = host.empty(x.shape, x.dtype) if self.contiguous else host.empty_like(x)
        np.copyto(out, x)
        return out

    def forward_cuda(self, x: Any) -> Any:
        out = gpu.empty(x.shape, x.dtype) if self.contiguous else gpu.empty_like(x)
        cuda_copy.copy_into(out, x)
        return out

    def backward(self, dy: Tensor) -> Tensor:
        return dy


class CopyInto(Op):
    """The second input broadcast and cast into the first, which is overwritten."""

    name = "copy"

    def forward_into(self, out: Any, target: Any, source: Any) -> None:
        if np.may_share_memory(out, source):
            source = host.copy(source)
        np.copyto(out, convert(source, dtypes.from_numpy(out.dtype)), casting="unsafe")

    def forward_into_cuda(self, out: Any, target: Any, source: Any) -> None:
        if may_share_memory(out, source):
            source = gpu.copy(source)
        cuda_copy.copy_into(out, source)

    def backward(self, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        from mlgpu.ops.creation import zeros_like  # which builds on this file

        return zeros_like(dy) if self.needs[0] else None, dy if self.needs[1] else None


class Transfer(Op):
    """The values on another device."""

    name = "to"

    def __init__(self, device: Device, non_blocking: bool) -> None:
        self.device = device
        self.non_blocking = non_blocking
        self.origin = CPU

    def move(self, x: Tensor) -> Tensor:
        engine, storage = runtime(x.device), x._storage
        if x.device.type == self.device.type:
            return wrap(engine.peer_copy(x._array, self.device, self.non_blocking), self.device)
        if self.device.type == "cpu":
            array, pending = engine.to_host(x._array, self.non_blocking)
            moved = wrap(array, self.device)
            moved._storage.wait_for(pending)
            return moved
        storage.settle()
        array, pending = runtime(self.device).from_host(x._array, self.device, self.non_blocking)
        storage.wait_for(pending)
        return wrap(array, self.device)

    def backward(self, dy: Tensor) -> Tensor:
        return to(dy, self.origin, non_blocking=self.non_blocking)


def _warn_of_loss(source: DType, target: DType) -> None:
    """Say that imaginary parts are discarded; whether a number is 0 takes both into account."""
    if source.is_complex and not target.is_complex and target is not dtypes.bool_:
        warnings.warn("casting complex values to real discards the imaginary part; use .real",
                      stacklevel=3)


def cast(input: Tensor, dtype: DType) -> Tensor:
    """`input` in `dtype`; itself if it is that already.  Warns where imaginary parts get lost."""
    if input.dtype is dtype:
        input._check()
        return input
    _warn_of_loss(input.dtype, dtype)
    return run(Cast(dtype), input)  # type: ignore[no-any-return]


def clone(input: Tensor, *, memory_format: Any = None) -> Tensor:
    """A copy in fresh memory; gradients pass through it."""
    return run(Copy(), input)  # type: ignore[no-any-return]


def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """`input` itself if its elements lie in order without gaps, else such a copy."""
    input._check()
    return input if input.is_contiguous() else run(Copy(True), input)


def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Overwrite the tensor with `src`, broadcast to its shape and cast to its dtype.

    Raises ShapeError where `src` does not broadcast; DeviceError where it is on another device
    (PyTorch would copy silently): move it with `.to()` first.
    """
    try:
        fits = np.broadcast_shapes(tuple(self.shape), tuple(src.shape)) == tuple(self.shape)
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(f"copy_: a source of shape {tuple(src.shape)} does not broadcast to "
                         f"{tuple(self.shape)}")
    _warn_of_loss(src.dtype, self.dtype)
    return run_inplace(CopyInto(), self, src)


def _to_arguments(args: tuple[Any, ...], device: Any, dtype: Any, other: Any
                  ) -> tuple[Device | None, DType | None]:
    for value in args:
        if isinstance(value, Tensor):
            device, dtype = value.device, value.dtype
        elif isinstance(value, (str, Device)) or type(value) is int:
            device = value
        elif value is not None and not isinstance(value, bool):
            dtype = dtypes.as_dtype(value)
    if other is not None:
        device, dtype = other.device, other.dtype
    return (None if device is None else resolve(device),
            None if dtype is None else dtypes.as_dtype(dtype))


def to(input: Tensor, *args: Any, device: DeviceLike | None = None, dtype: DTypeLike | None = None,
       other: Any = None, non_blocking: bool = False, copy: bool = False, memory_format: Any = None
       ) -> Tensor:
    """`input` on another device or in another dtype: `to(device)`, `to(dtype)`, `to(other)`.

    Returns the tensor itself where nothing changes, unless `copy`.  Differentiable.
    """
    target, wanted = _to_arguments(args, device, dtype, other)
    input._check()
    result = input
    if wanted is not None:
        result = cast(result, wanted)
    if target is not None and target != result.device:
        result = _transfer(result, target, non_blocking)
    return clone(input) if copy and result is input else result


def _transfer(input: Tensor, device: Device, non_blocking: bool) -> Tensor:
    op = Transfer(device, non_blocking)
    op.origin = input.device
    start(op, (input,))
    moved = op.move(input)
    if op.recording:
        op.record_inputs((input,))
        op.record_outputs((moved,))
    return moved


def cpu(input: Tensor) -> Tensor:
    """The tensor on the CPU; itself if it is there."""
    return to(input, CPU)


def cuda(input: Tensor, device: DeviceLike | None = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a CUDA device (the current one by default).  DeviceError if there is none."""
    return to(input, "cuda" if device is None else device, non_blocking=non_blocking)


def pin_memory(input: Tensor) -> Tensor:
    """A copy in page-locked host memory, for fast transfers.  DeviceError without CUDA."""
    input._check()
    if not input.is_cpu:
        raise DeviceError(f"pin_memory: only CPU tensors can be pinned, this is on {input.device}")
    return wrap(runtime(CPU).pin(input._array), CPU)


def type_as(input: Tensor, other: Tensor) -> Tensor:
    """`input` in the dtype of `other`."""
    return cast(input, other.dtype)
