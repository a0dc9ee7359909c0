"""Moving Python objects between processes through shared memory.

An object is pickled with its arrays out of band (protocol 5), and pickle and arrays are laid into
a `Segment`, memory that both processes map; only a few numbers go through the pipe.  So sending
never blocks on a full pipe, and a segment, once mapped, is used again for later batches.
"""

from __future__ import annotations

import io
import mmap
import os
import pickle
import secrets
import socket
import tempfile
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from mlgpu import dtypes
from mlgpu.cpu import runtime as cpu
from mlgpu.device import CPU
from mlgpu.errors import DeviceError, GraphError
from mlgpu.storage import Storage
from mlgpu.tensor import Tensor

_ALIGNMENT = 64
_NAMED = os.name == "nt"  # Windows shares memory by name, POSIX by file descriptor


class Segment:
    """Memory that two processes map; it is freed when the last of them has closed or died."""

    def __init__(self, capacity: int, handle: int | str, private: bool = False) -> None:
        self.capacity = capacity
        self.handle = handle
        access = mmap.ACCESS_COPY if private else mmap.ACCESS_WRITE
        if isinstance(handle, str):
            self.map = mmap.mmap(-1, capacity, tagname=handle, access=access)  # type: ignore[call-arg, unused-ignore]
        else:
            self.map = mmap.mmap(handle, capacity, access=access)

    @classmethod
    def create(cls, capacity: int) -> Segment:
        """New memory of this many bytes."""
        if _NAMED:
            return cls(capacity, f"mlgpu-{secrets.token_hex(8)}")
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("mlgpu")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        try:
            os.ftruncate(descriptor, capacity)
            return cls(capacity, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def share(self, connection: Connection[Any, Any]) -> None:
        """Let the process at the other end map it, too, by `receive`."""
        if isinstance(self.handle, str):
            connection.send((self.capacity, self.handle))
            return
        connection.send((self.capacity, None))
        with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as plain:
            socket.send_fds(plain, [b"\0"], [self.handle])

    @classmethod
    def receive(cls, connection: Connection[Any, Any], private: bool = False) -> Segment:
        """The segment that the other end shares; `private` keeps our writes to ourselves."""
        capacity, name = connection.recv()
        if name is not None:
            return cls(capacity, name, private)
        with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as plain:
            _, descriptors, _, _ = socket.recv_fds(plain, 1, 1)
        if len(descriptors) != 1:
            raise EOFError("the other end has closed")
        segment = cls(capacity, descriptors[0], private)
        segment.close_handle()
        return segment

    def close_handle(self) -> None:
        """Keep only the mapping; the segment cannot be shared any more."""
        if isinstance(self.handle, int) and self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


class Packed:
    """A pickled object with its arrays apart: `sizes` of the parts, to be laid into a segment."""

    def __init__(self, value: object) -> None:
        stream = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
        self._parts = [stream.getbuffer(), *(buffer.raw() for buffer in buffers)]
        self.sizes = [part.nbytes for part in self._parts]
        self.nbytes = _offsets(self.sizes)[-1]

    def write(self, segment: Segment) -> None:
        """Lay the parts into a segment of at least `nbytes`."""
        target = np.frombuffer(segment.map, np.uint8)
        for part, size, offset in zip(self._parts, self.sizes, _offsets(self.sizes), strict=False):
            target[offset:offset + size] = np.frombuffer(part, np.uint8)


def _offsets(sizes: list[int]) -> list[int]:
    offsets = [0]
    for size in sizes:
        offsets.append(offsets[-1] + size + -size % _ALIGNMENT)
    return offsets


def unpack(segment: Segment, sizes: list[int], copy: bool) -> Any:
    """The object whose parts, of these `sizes`, were written to the segment.

    With `copy`, its arrays are in accounted memory of their own and the segment can be used again;
    without, they are views of it.
    """
    source = np.frombuffer(segment.map, np.uint8)
    views = [source[offset:offset + size]
             for size, offset in zip(sizes, _offsets(sizes), strict=False)]
    arrays = [cpu.copy(view) for view in views[1:]] if copy else views[1:]
    return pickle.loads(views[0].data, buffers=arrays)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        if value.grad_fn is not None:
            raise GraphError("DataLoader: a tensor with a graph cannot leave its process; "
                             "detach() it in the dataset or collate_fn")
        if not value.is_cpu:
            raise DeviceError(f"DataLoader: a worker made a tensor on {value.device}; workers "
                              "return CPU tensors, move the batch with .to() where it is used")
        value._check()
        dense = np.ascontiguousarray(value._array).reshape(-1).view(np.uint8)
        return _rebuild, (type(value), pickle.PickleBuffer(dense.data), value.dtype,
                          tuple(value.shape), value.requires_grad)


def _rebuild(kind: type[Tensor], buffer: Any, dtype: dtypes.dtype, shape: tuple[int, ...],
             requires_grad: bool) -> Tensor:
    data = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
    array = data.view(dtype.numpy).reshape(shape)
    # A view of a segment stays the segment's memory; a copy of it is ours.
    storage = Storage.owning(array, CPU) if data.base is None else Storage.foreign(array, CPU)
    tensor: Tensor = kind._make(array, storage)
    tensor._requires = requires_grad
    return tensor
