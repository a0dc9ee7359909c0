"""Storage: one block of memory, and what all tensors on it have in common.

It owns the memory, its place in the books, the version that in-place changes raise, and whether it
was released; all views share it.
"""

from __future__ import annotations

import threading
import weakref
from time import monotonic
from typing import Any

import numpy as np

from mlgpu import memory
from mlgpu.autograd.mode import mode
from mlgpu.device import CPU, Device
from mlgpu.errors import ReleasedError


def root_of(array: Any) -> Any:
    """What owns the memory that an array is a view of: an array, on CUDA a block."""
    kind = type(array)
    if kind is not np.ndarray:
        return array.data.mem
    while array.base is not None:
        base = array.base
        if type(base) is not kind:
            base = getattr(base, "base", None)  # as_strided puts a holder in between
            if type(base) is not kind:
                return array
        array = base
    return array


def address(array: Any) -> int:
    """Where the first element of an array is."""
    if type(array) is np.ndarray:
        return int(array.__array_interface__["data"][0])  # .ctypes would import it
    return int(array.data.ptr)


def is_contiguous(array: Any) -> bool:
    """Whether the elements lie in C order, without gaps."""
    if type(array) is np.ndarray:
        return array.flags.c_contiguous
    return bool(array._c_contiguous)  # CuPy's flags are an object made anew: 10 times as long


def may_share_memory(a: Any, b: Any) -> bool:
    """Whether the extents of two arrays in memory overlap."""
    if type(a) is np.ndarray and type(b) is np.ndarray:
        return bool(np.may_share_memory(a, b))
    if not (a.size and b.size):
        return False
    (first, end), (start, last) = _extent(a), _extent(b)
    return first < last and start < end


def _extent(array: Any) -> tuple[int, int]:
    reach = sum(s * (n - 1) for s, n in zip(array.strides, array.shape, strict=True))
    start = address(array)
    return start, start + reach + int(array.itemsize)


def as_strided(array: Any, shape: tuple[int, ...], strides: tuple[int, ...]) -> Any:
    """A view from an array's first element on, with these strides in bytes."""
    if type(array) is np.ndarray:
        return np.lib.stride_tricks.as_strided(array, shape, strides)
    return type(array)(shape, array.dtype, memptr=array.data, strides=strides)


RELEASED = -1  # the version of what is no more: nothing that was saved has it


# A thread's holder must not get lost while another forgets dead ones.  Re-entrant: a collection in
# the midst may run what makes tensors.
_joining = threading.RLock()


class Storage:
    """One block of memory and what all tensors on it have in common."""

    __slots__ = ("__weakref__", "array", "charge", "claimed", "device", "exclusive", "first",
                 "inference", "others", "pending", "prune_at", "released", "version")

    def __init__(self, device: Device, charge: memory.Charge, claimed: bool, array: Any = None
                 ) -> None:
        self.device = device
        self.array = array  # all of it, on the CPU
        self.charge: memory.Charge | None = charge
        self.claimed = claimed  # allocated through the runtime, so certainly nobody else's
        self.version = 0
        self.released = False
        self.exclusive = False  # a gradient that only the backward pass sees: may be written into
        self.inference = mode.inference
        self.pending: Any = None  # the event of a copy to or from a device that is under way
        # Holders of arrays on this memory, for `release`: most results have one all their life.
        self.first: weakref.ref[Any] | None = None
        self.others: list[weakref.ref[Any]] | None = None

    @classmethod
    def owning(cls, array: Any, device: Device) -> Storage:
        """The storage of a fresh array; its memory is charged now unless its allocation was."""
        root = root_of(array)
        if device.type == "cuda":
            first, root.owned = not root.owned, True
            return cls(device, root.charge, first)
        charge = memory.claim(root)
        if charge is not None:
            return cls(device, charge, True, array)
        return cls(device, memory.Charge(memory.account(CPU), root.nbytes, array.shape,
                                         array.dtype), False, array)

    @classmethod
    def foreign(cls, array: Any, device: Device) -> Storage:
        """The storage of memory that belongs to someone else: NumPy, DLPack, a mapped file."""
        books = memory.account(device)
        charge = memory.Charge(books, array.nbytes, array.shape, array.dtype, mapped=True)
        return cls(device, charge, False, None if device.type == "cuda" else array)

    def wait_for(self, event: Any) -> None:
        """Let every use of this host memory wait for a copy that is under way, if one is."""
        self.pending = event
        if event is not None:
            for holder in self.holders():
                holder._layout = None

    @property
    def root(self) -> Storage:
        """Itself; for one that stands for another (mlgpu.as_torch.data), that one."""
        return self

    def settle(self) -> None:
        """Wait for a copy of this host memory that is under way."""
        event, self.pending = self.pending, None
        if event is not None:
            event.synchronize()

    def join(self, holder: Any) -> None:
        """Remember (weakly) a holder of an array on this memory, for `release`."""
        if self.first is None:  # before any other thread can know of this storage
            self.first = weakref.ref(holder)
            return
        with _joining:
            if self.others is None:
                self.others, self.prune_at = [], 8
            self.others.append(weakref.ref(holder))
            if len(self.others) > self.prune_at:  # those that have died are forgotten
                self.others = [ref for ref in self.others if ref() is not None]
                self.prune_at = 2 * len(self.others) + 8

    def holders(self) -> list[Any]:
        """Those that joined and live."""
        found = [ref() for ref in (self.first, *(self.others or ())) if ref is not None]
        return [holder for holder in found if holder is not None]

    def release(self) -> None:
        """Give the memory back now; every holder raises ReleasedError from here on."""
        self.released = True
        self.version = RELEASED
        for holder in self.holders():
            # One that was given other memory since (`data = ...`) keeps that; a saved value that
            # hooks have taken has none.
            if holder._storage is not None and holder._storage.root is self:
                holder._array = _Released(holder._array)
                holder._layout = None
        self.array = _Released(self.array) if type(self.array) is np.ndarray else None
        self.first = self.others = None
        self.charge = None


class Layout:
    """Shape and dtype of small C-contiguous CPU tensors: one object for all that have both."""

    __slots__ = ("dtype", "nbytes", "shape", "size")

    def __init__(self, shape: tuple[int, ...], dtype: Any, size: int) -> None:
        self.shape, self.dtype, self.size = shape, dtype, size
        self.nbytes: int = size * dtype.itemsize


_books = memory.account(CPU)
_live = _books.live
_new = object.__new__


class Small(Storage):
    """The storage of a small CPU result, which stands in the books itself.

    `entry` is its number there, or the charge that has taken the number over, or None.
    """

    __slots__ = ("entry", "nbytes")

    entry: int | memory.Charge | None
    nbytes: int
    device = CPU
    claimed = True
    inference = False

    @classmethod
    def of(cls, array: np.ndarray[Any, Any], layout: Layout) -> Small:
        """The storage of a fresh array of that layout, while nothing is `memory.watched`."""
        nbytes = layout.nbytes
        record = nbytes, layout.shape, layout.dtype, monotonic(), None
        self: Small = _new(Small)
        self.entry = self.pending = None
        self.released = self.exclusive = False
        self.version = 0
        self.first = self.others = None
        self.array = array
        self.nbytes = nbytes
        # As in `Charge`: lines without a call, which the interpreter runs in one go.
        books = _books
        books.allocated = now = books.allocated + nbytes
        if now > books.peak:
            books.peak = now
        books.allocations = self.entry = number = books.allocations + 1
        _live[number] = record
        return self

    @property
    def charge(self) -> memory.Charge | None:
        """For those who keep the memory on the books longer than this storage lives."""
        entry = self.entry
        if isinstance(entry, int):
            entry = self.entry = memory.Charge.taken_over(_books, self.nbytes, entry)
        return entry

    @charge.setter
    def charge(self, value: memory.Charge | None) -> None:
        self.__del__()
        self.entry = value

    def __del__(self) -> None:
        entry = self.entry
        if type(entry) is int:
            del _live[entry]
            _books.allocated -= self.nbytes


class _Released:
    """Stands where a released tensor's array was: shape and dtype are still known, data is not."""

    __slots__ = ("dtype", "ndim", "shape", "size")

    def __init__(self, array: Any) -> None:
        self.shape, self.dtype, self.ndim, self.size = (array.shape, array.dtype, array.ndim,
                                                        array.size)

    def __getattr__(self, attribute: str) -> Any:
        raise ReleasedError(f"tensor: use of a tensor of shape {self.shape} after release()")


class Exported:
    """Memory lent to NumPy: keeps it alive and on the books until the last array of it dies."""

    __slots__ = ("__array_interface__", "_array", "_charge")

    def __init__(self, array: np.ndarray[Any, Any], charge: memory.Charge | None) -> None:
        self._array = array
        self._charge = charge
        interface = dict(array.__array_interface__)
        if array.dtype.kind == "V" or interface["typestr"][1] == "V":
            interface["typestr"] = f"<u{array.dtype.itemsize}"  # bfloat16: a view gives it back
            interface.pop("descr", None)
        self.__array_interface__ = interface
