"""A caching pool under CPU tensors: memory that was let go serves the next request of its size.

Fresh pages from the system cost about as much as the arithmetic of a large elementwise operation.
A block returns here when the last array on it dies, and goes to the system where the pool would
otherwise hold much more than tensors ever held at once (so it adds little to a program's peak), or
more than its bound, or when `mlgpu.memory.empty_cache()` asks for it.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import OrderedDict
from typing import Any, Literal

import numpy as np

# Below this, the C library's own free lists are as fast.
SMALLEST = 1 << 16
# Blocks begin at a cache line, which is also the widest vector register, and one after another at
# different places of a page: a processor takes a load for one of what has just been stored where
# the two lie at the same place of theirs, and rows of a whole number of pages would all do so.
_PAGE = 4096
_starts = itertools.count(0, 640)  # next() is atomic

# Bytes that may wait beyond what tensors ever held at once: an eighth of that, and so many.  A step
# that trains asks for some sizes on its way forward and for others back; were there no room for
# both, each would be given to the system to make room for the other, in every step anew.
_SPARE = 32 << 20

_base = np.ndarray.base


class _Memory(np.ndarray[Any, Any]):
    """Bytes of the system.  A type of its own: NumPy skips what is a plain array in a view's base,
    and would then hold these bytes without the `_Lease` that notices their end."""

    __slots__ = ()


class _Lease(np.ndarray[Any, Any]):
    """What the array handed out keeps as its base; its end brings the bytes back to the pool."""

    __slots__ = ()

    base = None  # the way from a view to what owns its memory ends here

    def __del__(self) -> None:
        give_back(_base.__get__(self))


class Pool:
    """Free blocks by size, the least recently returned first."""

    def __init__(self) -> None:
        # Re-entrant: a garbage collection may end a lease while this thread holds the lock.
        self.lock = threading.RLock()
        self.free: OrderedDict[int, list[_Memory]] = OrderedDict()
        self.bound = _physical_memory() // 4
        self.cached = 0  # bytes that wait here
        self.leased = 0  # bytes that arrays have
        self.peak = 0  # the largest `leased` ever

    def take(self, size: int) -> _Memory:
        """A block of at least `size` bytes (a result of `_rounded`)."""
        with self.lock:
            waiting = self.free.get(size)
            if waiting:
                block = waiting.pop()
                if not waiting:
                    del self.free[size]
                self.cached -= size
                self.leased += size
                return block
            most = self.peak + self.peak // 8 + _SPARE
            self._trim(min(self.bound, max(most - self.leased - size, 0)))
        try:
            block = _new(size)
        except MemoryError:  # what waits here may make the room
            self.empty()
            block = _new(size)
        with self.lock:
            self.leased += size
            self.peak = max(self.peak, self.leased)
        return block

    def give_back(self, block: _Memory) -> None:
        """Take a block back; the pool keeps it where its bounds allow."""
        size = block.nbytes
        with self.lock:
            self.leased -= size
            self.cached += size
            self.free.setdefault(size, []).append(block)
            self.free.move_to_end(size)
            if self.cached > self.bound:
                self._trim(self.bound)

    def empty(self) -> None:
        """Give everything that waits here to the system."""
        with self.lock:
            self._trim(0)

    def _trim(self, most: int) -> None:
        while self.cached > most:
            size, waiting = next(iter(self.free.items()))
            waiting.pop(0)
            self.cached -= size
            if not waiting:
                del self.free[size]


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not POSIX
        return 8 << 30


def _new(size: int) -> _Memory:
    raw = np.empty(size + _PAGE, np.uint8)
    start = (next(_starts) - raw.__array_interface__["data"][0]) % _PAGE  # .ctypes imports ctypes
    return raw[start:start + size].view(_Memory)


def _rounded(nbytes: int) -> int:
    """The size of the block for a request: at most an eighth more, so that near sizes share."""
    step = 1 << max(nbytes.bit_length() - 4, 0)
    return -(-nbytes // step) * step


_pool = Pool()


def array(shape: tuple[int, ...], dtype: Any, nbytes: int, order: Literal["C", "F"] = "C"
          ) -> np.ndarray[Any, Any]:
    """An uninitialised array of `nbytes` >= SMALLEST.  Raises MemoryError."""
    return np.ndarray(shape, dtype, _pool.take(_rounded(nbytes)).view(_Lease), order=order)


def give_back(block: Any) -> None:
    """Called as the last array on a block dies, in any thread, even as the interpreter ends."""
    _pool.give_back(block)


def cached() -> int:
    """Bytes that wait for the next request."""
    return _pool.cached


def empty() -> None:
    """Give what waits to the system."""
    _pool.empty()


def bound(size: int) -> None:
    """Let at most `size` bytes wait."""
    with _pool.lock:
        _pool.bound = size
        _pool._trim(size)


def _forked() -> None:
    """A child starts with nothing waiting, and a lock that no thread of its parent holds.

    Holding the lock over the fork would not do: a thread may wait for it, in a garbage collection,
    while it holds another one that the fork waits for.
    """
    _pool.lock = threading.RLock()
    _pool.free = OrderedDict()
    _pool.cached = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
