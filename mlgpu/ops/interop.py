"""Sharing memory with NumPy and, by DLPack, with other array libraries: nothing is copied.

What is lent out stays valid until the last borrower is gone, whatever becomes of the tensor; what
is borrowed keeps its owner alive.  NumPy speaks DLPack for all our dtypes but bfloat16, which goes
out and comes in as uint16 with the type code in the descriptor changed in between.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.device import CPU, Device, resolve
from mlgpu.errors import DeviceError, DTypeError, ShapeError
from mlgpu.ops.cast import clone
from mlgpu.storage import Storage
from mlgpu.tensor import Tensor

__all__ = ["__array__", "__cuda_array_interface__", "__dlpack__", "__dlpack_device__",
           "from_dlpack", "from_numpy"]


def from_numpy(ndarray: np.ndarray[Any, Any]) -> Tensor:
    """A tensor on the memory of a NumPy array: writes to one show in the other.

    A read-only array gives a tensor that in-place operations refuse.  Raises TypeError for anything
    but an ndarray, DTypeError for dtypes mlgpu has not (or of foreign byte order), ShapeError for
    negative or uneven strides.
    """
    if not isinstance(ndarray, np.ndarray):
        raise TypeError(f"from_numpy: expected np.ndarray (got {type(ndarray).__name__}); use "
                        "mlgpu.tensor to copy other data")
    return _borrow("from_numpy", ndarray.view(np.ndarray))


def _borrow(name: str, array: np.ndarray[Any, Any]) -> Tensor:
    if not array.dtype.isnative:
        raise DTypeError(f"{name}: the array's byte order is not this machine's; convert it with "
                         ".astype(a.dtype.newbyteorder('='))")
    itemsize = dtypes.from_numpy(array.dtype).itemsize
    # Where a length is 0 or 1, the stride is never used.
    strides = [s for n, s in zip(array.shape, array.strides, strict=True) if n > 1]
    if array.size and any(stride < 0 or stride % itemsize for stride in strides):
        raise ShapeError(f"{name}: tensors cannot have the strides {array.strides} of this array; "
                         "pass array.copy()")
    return Tensor._make(array, Storage.foreign(array, CPU))


def __array__(self: Tensor, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
    """The values as a NumPy array, on the same memory unless `dtype` or `copy` ask otherwise.

    Raises DeviceError on CUDA (use .cpu()) and GraphError where a gradient is required.
    """
    return np.array(self.numpy(), dtype=dtype, copy=copy)


# --- DLPack ---------------------------------------------------------------------------------------

_CPU, _CUDA, _CUDA_HOST = 1, 2, 3  # DLDeviceType
_UINT, _BFLOAT = 1, 4  # DLDataTypeCode


class _DLTensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("device_type", ctypes.c_int32),
                ("device_id", ctypes.c_int32), ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8),
                ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16), ("shape", ctypes.c_void_p),
                ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64))


class _Versioned(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint32), ("minor", ctypes.c_uint32),
                ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
                ("flags", ctypes.c_uint64), ("tensor", _DLTensor))


_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi))
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi))


def _descriptor(capsule: Any) -> _DLTensor:
    """The DLTensor inside a capsule that nobody has consumed yet."""
    if _is_valid(capsule, b"dltensor_versioned"):
        versioned = _Versioned.from_address(_pointer(capsule, b"dltensor_versioned"))
        tensor: _DLTensor = versioned.tensor
        return tensor
    if _is_valid(capsule, b"dltensor"):
        return _DLTensor.from_address(_pointer(capsule, b"dltensor"))  # its first member
    raise ValueError("from_dlpack: the capsule holds no tensor, or was consumed already")


def __dlpack__(self: Tensor, *, stream: int | None = None,
               max_version: tuple[int, int] | None = None,
               dl_device: tuple[int, int] | None = None, copy: bool | None = None) -> Any:
    """A DLPack capsule on the same memory; versioned where `max_version` allows.

    On CUDA the consumer's `stream` waits for this thread's current one.  Raises BufferError where a
    gradient is required or the memory cannot be exported as asked.
    """
    if self.requires_grad:
        raise BufferError("__dlpack__: the tensor requires grad; use .detach()")
    self._check()
    self._storage.exclusive = False
    if not self.is_cpu:
        from mlgpu.cuda import interop

        return interop.capsule(self._array, stream, max_version, dl_device, copy)
    if stream not in (None, -1):
        raise DeviceError(f"__dlpack__: the CPU has no streams, got stream={stream}")
    if dl_device is not None and tuple(dl_device) != (_CPU, 0):
        raise BufferError(f"__dlpack__: device {tuple(dl_device)} was asked for, and the tensor is "
                          "on the CPU; move it first")
    half = self.dtype is dtypes.bfloat16
    array = self.numpy().view(np.uint16) if half else self.numpy()
    capsule = array.__dlpack__(max_version=max_version, copy=copy)
    if half:
        _descriptor(capsule).code = _BFLOAT
    return capsule


def __dlpack_device__(self: Tensor) -> tuple[int, int]:
    """The device in DLPack's terms: (1, 0) for the CPU, (2, index) for CUDA."""
    return (_CPU, 0) if self.is_cpu else (_CUDA, self.get_device())


def __cuda_array_interface__(self: Tensor) -> dict[str, Any]:
    """The CUDA Array Interface (version 3), by which CuPy, Numba and others see the memory.

    Raises AttributeError on the CPU, as in PyTorch, and where a gradient is required.
    """
    if self.is_cpu:
        raise AttributeError("__cuda_array_interface__: the tensor is on the CPU; use .cuda()")
    if self.requires_grad:
        raise AttributeError("__cuda_array_interface__: the tensor requires grad; use .detach()")
    self._check()
    from mlgpu.cuda.interop import lend

    self._storage.exclusive = False
    interface: dict[str, Any] = lend(self._array).__cuda_array_interface__
    return interface


class _Producer:
    """Hands NumPy a capsule."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU, 0


def from_dlpack(ext_tensor: Any, *, device: Device | str | None = None,
                copy: bool | None = None) -> Tensor:
    """A tensor on the memory of another library's array (or of a capsule), on its device.

    `device` moves it there; `copy=True` copies in any case, `copy=False` fails where that would be
    needed.  Memory that its owner declares read-only (also: all of the old, unversioned protocol)
    gives a tensor that in-place operations refuse (on the CPU).  Raises DeviceError for memory that
    neither the CPU nor a CUDA device can reach, DTypeError for dtypes that mlgpu has not,
    BufferError where the owner refuses.
    """
    if _is_cuda(ext_tensor):
        return _from_cuda(ext_tensor, device, copy)
    # A copy is made here, where it is accounted for, not by the owner.
    capsule = _capsule_of(ext_tensor, None if copy else copy)
    descriptor = _descriptor(capsule)
    place, code = descriptor.device_type, descriptor.code
    if place not in (_CPU, _CUDA_HOST):
        raise DeviceError(f"from_dlpack: the memory is on DLPack device ({place}, "
                          f"{descriptor.device_id}); move it to the CPU first")
    half = (code, descriptor.bits, descriptor.lanes) == (_BFLOAT, 16, 1)
    if half:
        descriptor.code = _UINT
    descriptor.device_type, descriptor.device_id = _CPU, 0  # page-locked memory is the CPU's, too
    try:
        array = np.from_dlpack(_Producer(capsule))
    except RuntimeError as error:
        raise DTypeError(f"from_dlpack: type code {code} with {descriptor.bits} bits has no "
                         f"counterpart here: {error}") from error
    tensor = _borrow("from_dlpack", array.view(dtypes.bfloat16.numpy) if half else array)
    return _settled(tensor, device, copy)


def _is_cuda(ext_tensor: Any) -> bool:
    if hasattr(ext_tensor, "__dlpack_device__"):
        return int(ext_tensor.__dlpack_device__()[0]) == _CUDA
    return (type(ext_tensor).__name__ == "PyCapsule"
            and _descriptor(ext_tensor).device_type == _CUDA)


def _from_cuda(ext_tensor: Any, device: Device | str | None, copy: bool | None) -> Tensor:
    """A tensor on the memory of a CUDA device, which another library owns."""
    from mlgpu.cuda.interop import borrow, from_capsule

    return _settled(from_borrowed(*borrow(from_capsule(ext_tensor))), device, copy)


def from_borrowed(array: Any, place: Device) -> Tensor:
    """A tensor on borrowed device memory.  DTypeError for dtypes that mlgpu has not."""
    dtypes.from_numpy(array.dtype)
    return Tensor._make(array, Storage.owning(array, place))


def _settled(tensor: Tensor, device: Device | str | None, copy: bool | None) -> Tensor:
    """The tensor copied where that was asked for, and on the device that was asked for."""
    if copy:
        tensor = clone(tensor)
    if device is None or resolve(device) == tensor.device:
        return tensor
    if copy is False:
        raise ValueError(f"from_dlpack: moving to {device} needs a copy; leave copy=False out")
    return tensor.to(device)


def _capsule_of(ext_tensor: Any, copy: bool | None) -> Any:
    """The owner's capsule."""
    if type(ext_tensor).__name__ == "PyCapsule":
        return ext_tensor
    if not hasattr(ext_tensor, "__dlpack__"):
        raise TypeError(f"from_dlpack: {type(ext_tensor).__name__} does not support DLPack; use "
                        "mlgpu.tensor to copy data")
    try:
        return ext_tensor.__dlpack__(max_version=(1, 0), copy=copy)
    except TypeError:
        return ext_tensor.__dlpack__()  # from before DLPack 1.0: knows no options
