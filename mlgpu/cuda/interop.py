"""Device memory lent to CuPy, PyTorch and others, and borrowed from them: nothing is copied.

What is lent is ordered behind the work on this thread's current stream, and is given out again only
when its device has finished what borrowers asked of it.
"""

from __future__ import annotations

from typing import Any

from mlgpu import memory
from mlgpu.cuda.arrays import Block, cupy, empty
from mlgpu.cuda.context import context
from mlgpu.device import Device, device_of
from mlgpu.errors import DeviceError


def lend(array: Any) -> Any:
    """The array, in order with the current stream, its memory marked as used by others."""
    index = array.data.device_id
    with cupy.cuda.Device(index):
        array.data.mem.use(context.streams.get(index), True)
    array.data.mem.lent = True
    return array


def capsule(array: Any, stream: int | None, max_version: tuple[int, int] | None,
            dl_device: tuple[int, int] | None, copy: bool | None) -> Any:
    """A DLPack capsule; CuPy lets the consumer's `stream` wait for ours."""
    options: dict[str, Any] = {} if max_version is None else {"max_version": max_version}
    with cupy.cuda.Device(array.data.device_id):
        return lend(array).__dlpack__(stream=stream, dl_device=dl_device, copy=copy, **options)


def borrow(array: Any) -> tuple[Any, Device]:
    """Another library's array as one of ours, counted as memory that belongs to someone else."""
    index = array.data.device_id
    charge = memory.Charge(memory.account(device_of(index)), array.nbytes, array.shape,
                           array.dtype.name, mapped=True)
    if not array.size:
        return empty(array.shape, array.dtype), device_of(index)
    block = Block(array.data, array.nbytes, index, charge, context.streams.get(index))
    block.owned = True  # by its owner
    moved = cupy.ndarray(array.shape, array.dtype, memptr=cupy.cuda.MemoryPointer(block, 0),
                         strides=array.strides)
    return moved, device_of(index)


def from_capsule(ext_tensor: Any) -> Any:
    """CuPy's array on the memory of another library's; its producer's stream is waited for."""
    try:
        return cupy.from_dlpack(ext_tensor)
    except BufferError:
        raise
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"from_dlpack: CuPy cannot take it: {error}") from error
