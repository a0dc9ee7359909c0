"""Device memory: blocks on the books, and the arrays that lie in them.

Memory comes from CuPy's pools, charged before it is asked for.  A block knows which streams read
and wrote it: work on another stream waits for what it depends on, and the block is not given out
again before all of them are done with it.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlgpu import memory
from mlgpu.cuda.context import context
from mlgpu.cuda.loading import load
from mlgpu.device import device_of
from mlgpu.errors import OutOfMemoryError

if TYPE_CHECKING:
    from mlgpu.cuda.streams import Stream

cupy = load()
_runtime = cupy.cuda.runtime
_current = _runtime.getDevice
_ndarray, _Pointer = cupy.ndarray, cupy.cuda.MemoryPointer
_pools: Any = cupy.cuda.alloc
_Full = cupy.cuda.memory.OutOfMemoryError
_Error = cupy.cuda.runtime.CUDARuntimeError
_own = cupy.cuda.memory.UnownedMemory.__init__

_books: dict[int, memory.Account] = {}


def _account(index: int) -> memory.Account:
    found = _books.get(index)
    if found is None:
        found = _books[index] = memory.account(device_of(index))
    return found


class Block(cupy.cuda.memory.UnownedMemory):  # type: ignore[misc, name-defined]
    """A piece of a pool's memory, its place in the books, and the streams that use it."""

    __slots__ = ("__weakref__", "capture", "charge", "home", "inner", "lent", "owned", "readers",
                 "writer")

    def __init__(self, inner: Any, nbytes: int, device: int, charge: memory.Charge | None,
                 stream: Stream | None) -> None:
        _own(self, inner.ptr, nbytes, inner, device)
        self.inner = inner
        self.charge = charge
        self.home = stream  # the pool gives the memory out again to work on this stream
        self.writer = stream
        self.readers: dict[Stream | None, bool] = {}
        self.owned = False  # whether a storage has been made of it: one gradient is nobody else's
        self.lent = False  # to another library, whose streams are not known
        capture = context.capture
        # A weak reference to the one that it was made in.
        self.capture: Any = None if capture is None else weakref.ref(capture)

    def use(self, stream: Stream | None, write: bool) -> None:
        """Order work on `stream` behind the work of others that it depends on."""
        if write:
            for other in {self.writer, *self.readers}:
                if other is not stream:
                    _wait(stream, other, self.device_id)
            self.writer, self.readers = stream, {}
        elif stream is not self.writer and stream not in self.readers:
            _wait(stream, self.writer, self.device_id)
            self.readers[stream] = True

    def __del__(self, finalizing: Any = sys.is_finalizing) -> None:
        if finalizing() or context.capture is not None:  # as the process ends, or: see _wait
            return
        if self.lent:
            self._drain()
        elif self.readers or self.writer is not self.home:
            users = {self.home, self.writer, *self.readers}
            if any(stream is not None and getattr(stream.raw, "gone", False) for stream in users):
                self._drain()  # a collector took a stream first, which is in the same cycle
                return
            for other in users:
                if other is not self.home:
                    _wait(self.home, other, self.device_id)

    def _drain(self) -> None:
        with cupy.cuda.Device(self.device_id):
            _runtime.deviceSynchronize()


def _wait(stream: Stream | None, other: Stream | None, device: int) -> None:
    """Let further work on `stream` start after all that `other` has been given so far."""
    if context.capture is not None:
        return  # the capture began with the device at rest, and its streams join among themselves
    with cupy.cuda.Device(device):
        event = cupy.cuda.Event(disable_timing=True)
        event.record(_raw(other))
        _raw(stream).wait_event(event)


def _raw(stream: Stream | None) -> Any:
    return cupy.cuda.Stream.null if stream is None else stream.raw


def allocate(nbytes: int, shape: tuple[int, ...] = (), dtype: Any = "bytes") -> Any:
    """A pointer to fresh memory on the current device, for the current stream.

    Raises OutOfMemoryError where a limit or budget forbids it, before anything is allocated, and
    where the device has no more.
    """
    index = _current()
    books = _books.get(index) or _account(index)
    peak = books.peak
    charge = memory.Charge(books, nbytes, shape, dtype)
    capture = context.capture
    try:
        inner = _pools(nbytes or 1) if capture is None else capture.pool.malloc(nbytes or 1)
    except (_Full, _Error) as error:
        charge.withdraw(peak)
        raise _exhausted(books, nbytes, error) from error
    block = Block(inner, nbytes, index, charge, context.streams.get(index))
    if capture is not None:
        capture.use(block, True)
    return _Pointer(block, 0)


def _exhausted(books: memory.Account, nbytes: int, error: Any) -> Exception:
    if not isinstance(error, _Full) and error.status != 2:  # cudaErrorMemoryAllocation
        return error  # type: ignore[no-any-return]
    free, total = _runtime.memGetInfo()
    largest = "\n  ".join(map(str, books.snapshot()[:5])) or "nothing"
    return OutOfMemoryError(
        f"memory: {memory.format_bytes(nbytes)} ({nbytes} bytes) asked for on {books.device}, "
        f"which has {memory.format_bytes(free)} of {memory.format_bytes(total)} free; "
        f"{memory.format_bytes(books.allocated)} are tensors'. Release tensors or compute in "
        f"smaller parts. Largest live blocks:\n  {largest}")


def empty(shape: Sequence[int], dtype: Any) -> Any:
    """An uninitialised array on the current device, accounted for before it is allocated."""
    shape = tuple(shape)
    nbytes = math.prod(shape) * dtype.itemsize
    return _ndarray(shape, dtype, allocate(nbytes, shape, dtype))


def maker(array: Any) -> Callable[[], Any]:
    """What makes uninitialised arrays as that one, of its shape, dtype and order in memory."""
    nbytes, shape, dtype = array.nbytes, array.shape, array.dtype
    strides = None if array.flags.c_contiguous else array.strides
    return lambda: _ndarray(shape, dtype, allocate(nbytes, shape, dtype), strides)


def adopt(array: Any) -> Any:
    """An array that CuPy made in memory of its own, in a block that is on the books."""
    if type(array.data.mem) is Block:
        return array
    index = array.data.device_id
    books = _account(index)
    root = array.data.mem
    charge = memory.Charge(books, root.size, array.shape, array.dtype)
    block = Block(array.data, root.size, index, charge, context.streams.get(index))
    return _ndarray(array.shape, array.dtype, memptr=_Pointer(block, 0), strides=array.strides)


def alone(holder: Any) -> bool:
    """Whether `holder._array` is the only reference to its memory, all of which it covers.

    It is found out by letting go: whoever else could read the memory, be it a tensor, a view, a
    saved value, a kernel's arguments or another library, keeps the block alive.  Then the holder
    gets it back, else a new block of the same memory.  Memory that a graph finds at a fixed address
    counts only within the capture that it was made in, whose replays make its values anew.
    """
    array = holder._array
    block = array.data.mem
    made_in = None if block.capture is None else block.capture()
    if (block.lent or block.charge is None or block.charge.mapped
            or made_in is not context.capture or not array.flags.c_contiguous
            or array.nbytes != block.size):
        return False
    shape, dtype, size, index = array.shape, array.dtype, block.size, block.device_id
    inner, charge, home, existing = block.inner, block.charge, block.home, weakref.ref(block)
    holder._array = None
    del array, block
    block = existing()
    gone = block is None
    if gone:
        # What others did with the memory comes before what its home stream does from here on.
        block = Block(inner, size, index, charge, home)
        if context.capture is None:
            block.use(context.streams.get(index), True)
        else:
            context.capture.use(block, True)
    holder._array = _ndarray(shape, dtype, memptr=_Pointer(block, 0))
    return gone
