"""Accounting for device memory: statistics, limits, budgets, and a snapshot of what is alive.

Every block of memory a tensor, a saved value or a workspace uses is held by one `Charge`.  The
charge is made *before* the memory is asked for, so limits and budgets refuse in time, and undone
when the last holder drops it: there is no other path by which the figures change.
"""

from __future__ import annotations

import functools
import numbers
import re
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any

from mlgpu.autograd.mode import heed
from mlgpu.device import CPU, Device, resolve, runtime
from mlgpu.errors import OutOfMemoryError, ShapeError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
          "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def parse_bytes(size: int | str) -> int:
    """Bytes in `size`: an int, or text such as "2 GiB", "1.5GB", "4096".

    Raises ShapeError (a ValueError) for anything else.
    """
    if isinstance(size, numbers.Integral) and not isinstance(size, bool) and size >= 0:
        return int(size)  # NumPy's integers are welcome, too
    if isinstance(size, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size)
        if match and match[2].upper() in _UNITS:
            return int(float(match[1]) * _UNITS[match[2].upper()])
    raise ShapeError(f"memory: expected a size such as 1048576 or '2 GiB', got {size!r}")


def format_bytes(n: int) -> str:
    """`n` bytes for people: "512 B", "1.50 MiB"."""
    value = float(n)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024 or unit == "GiB":
            return f"{n} B" if unit == "B" else f"{value:.2f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


@dataclass(frozen=True)
class MemoryStats:
    """Bytes of one device, in the library's hands at one moment."""

    allocated: int  # live bytes of tensors, saved values and workspaces
    peak: int  # the largest `allocated` since the start or the last reset_peak()
    count: int  # live blocks
    allocations: int  # blocks ever made
    mapped: int  # live bytes that are file mappings or belong to someone else (NumPy, DLPack)
    limit: int | None  # see limit()
    cached: int = 0  # bytes, in no other figure, that the allocator keeps for the next blocks


@dataclass(frozen=True)
class Block:
    """One live block in a snapshot."""

    nbytes: int
    shape: tuple[int, ...]
    dtype: str
    age: float  # seconds since it was made
    where: str | None  # "file:line" that made it, when tracing was on

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        place = f" at {self.where}" if self.where else ""
        return f"{format_bytes(self.nbytes)} {self.dtype} [{shape}], {self.age:.1f} s old{place}"


class _Budget:
    __slots__ = ("account", "maximum", "used")

    def __init__(self, account: Account, maximum: int) -> None:
        self.account = account
        self.maximum = maximum
        self.used = 0


class _Local(threading.local):
    budgets: tuple[_Budget, ...] = ()


_local = _Local()
_tracing = 0

# How many limits, budgets, traces and profiles there are: where there are none, nothing has to be
# asked before memory is taken.
watched = 0


def watch(change: int) -> None:
    """Count one more (1) or one less (-1) that wants to know of every operation."""
    global watched
    watched += change  # in one go, as the figures of an `Account`
    heed(change)


# What a snapshot shows of a block: bytes, shape, dtype, when it was made, and where, if traced.
Record = tuple[int, tuple[int, ...], Any, float, "str | None"]


class Account:
    """The books of one device.

    Its figures are changed by straight lines without a call or a loop, which the interpreter runs
    in one go: neither another thread nor a collection of garbage nor a fork comes in between.  So
    there is no lock, which would cost as much as all of the rest.
    """

    __slots__ = ("allocated", "allocations", "device", "limit", "live", "mapped", "peak",
                 "reliefs", "withdrawn")

    def __init__(self, device: str) -> None:
        self.device = device
        self.allocated = self.peak = self.mapped = 0
        self.allocations = self.withdrawn = 0  # the number of the last block; those taken back
        self.limit: int | None = None
        self.live: dict[int, Record] = {}  # by number; the books never keep a block alive
        self.reliefs: tuple[Callable[[int], None], ...] = ()  # make room for so many bytes

    def check(self, nbytes: int) -> tuple[_Budget, ...]:
        """This thread's budgets, if they and the limit allow a block; OutOfMemoryError if not."""
        for relieve in self.reliefs:
            relieve(nbytes)
        if self.limit is not None and self.allocated + nbytes > self.limit:
            raise self.refuse(nbytes, "limit", self.limit, self.allocated)
        budgets = tuple([b for b in _local.budgets if b.account is self])
        for budget in budgets:
            if budget.used + nbytes > budget.maximum:
                raise self.refuse(nbytes, "budget", budget.maximum, budget.used)
        return budgets

    def workspace(self, nbytes: int) -> None:
        """What one calculation takes and gives back before anything else: it shows in the peak."""
        if watched:
            self.check(nbytes)
        now = self.allocated + nbytes
        if now > self.peak:
            self.peak = now

    def refuse(self, nbytes: int, what: str, maximum: int, used: int) -> OutOfMemoryError:
        """The error that says what was asked for, what is in use and what holds most of it."""
        largest = "\n  ".join(map(str, self.snapshot()[:5])) or "nothing"
        return OutOfMemoryError(
            f"memory: {format_bytes(nbytes)} ({nbytes} bytes) asked for on {self.device}, but "
            f"{format_bytes(used)} of the {what} of {format_bytes(maximum)} are in use; release "
            f"tensors or raise the {what}. Largest live blocks:\n  {largest}")

    def snapshot(self) -> list[Block]:
        """The live blocks, largest first."""
        now = monotonic()
        blocks = [Block(nbytes, shape, str(getattr(dtype, "name", dtype)), now - made, where)
                  for nbytes, shape, dtype, made, where in list(self.live.values())]
        return sorted(blocks, key=lambda block: -block.nbytes)


_cpu = Account("cpu")
_accounts: dict[str, Account] = {"cpu": _cpu}


def account(device: Device) -> Account:
    """The books of a resolved device."""
    if device is CPU:
        return _cpu
    key = str(device)
    found = _accounts.get(key)
    return _accounts.setdefault(key, Account(key)) if found is None else found


class Charge:
    """A block of memory on the books, from the moment it is asked for until nobody holds it."""

    __slots__ = ("_account", "_budgets", "_number", "mapped", "nbytes")

    def __init__(self, books: Account, nbytes: int, shape: tuple[int, ...], dtype: Any,
                 mapped: bool = False) -> None:
        self._number = 0  # nothing to undo if the check below refuses
        where = None
        budgets: tuple[_Budget, ...] = ()
        if watched:
            if not mapped:
                budgets = books.check(nbytes)
            where = _caller() if _tracing else None
        record = (nbytes, shape, dtype, monotonic(), where)
        self._account = books
        self.nbytes = nbytes
        self.mapped = mapped
        self._budgets = budgets
        if mapped:
            books.mapped += nbytes
        else:
            books.allocated = now = books.allocated + nbytes
            if now > books.peak:
                books.peak = now
        books.allocations = self._number = number = books.allocations + 1
        books.live[number] = record
        for budget in budgets:
            budget.used += nbytes

    @classmethod
    def taken_over(cls, books: Account, nbytes: int, number: int) -> Charge:
        """The charge of a block that is on the books already, with its number."""
        self = object.__new__(cls)
        self._account, self.nbytes, self.mapped, self._budgets = books, nbytes, False, ()
        self._number = number
        return self

    def withdraw(self, peak: int) -> None:
        """Leave the books as if never asked for: there was no such memory.  `peak`: before it."""
        self.__del__()
        self._number = 0
        books = self._account
        books.withdrawn += 1
        books.peak = max(peak, books.peak - self.nbytes)

    def __del__(self) -> None:
        if self._number:
            books = self._account
            del books.live[self._number]
            if self.mapped:
                books.mapped -= self.nbytes
            else:
                books.allocated -= self.nbytes
                for budget in self._budgets:
                    budget.used -= self.nbytes


def _caller() -> str | None:
    """The nearest frame outside the library, as "file:line"."""
    frame: Any = sys._getframe(1)
    here = __name__.partition(".")[0]
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == here:
        frame = frame.f_back
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- blocks that an operation has asked for and nobody owns yet -----------------------------------

# By the array's id: the charge, and a weak reference that takes both away as the array dies.
_pending: dict[int, tuple[Charge, weakref.ref[Any]]] = {}


def expect(array: Any, charge: Charge) -> None:
    """Hold `charge` for a fresh array until `claim` finds its owner or the array dies."""
    key = id(array)
    _pending[key] = charge, weakref.ref(array, functools.partial(_pending.pop, key))


def claim(root: Any) -> Charge | None:
    """The charge made for this array when it was allocated, if it was."""
    found = _pending.pop(id(root), None)
    return None if found is None else found[0]


# --- public ---------------------------------------------------------------------------------------


def stats(device: Device | str | None = None) -> MemoryStats:
    """Live, peak and mapped bytes and block counts of a device (default: the current one)."""
    device = resolve(device)
    books, cached = account(device), runtime(device).cached(device)
    return MemoryStats(books.allocated, books.peak, len(books.live),
                       books.allocations - books.withdrawn, books.mapped, books.limit, cached)


def empty_cache(device: Device | str | None = None) -> None:
    """Give the memory that a device's allocator keeps for its next blocks to the system."""
    device = resolve(device)
    runtime(device).empty_cache(device)


def cache_limit(size: int | str) -> None:
    """Let the allocator of CPU tensors keep at most `size` for its next blocks.

    The default is a quarter of the machine's memory.  It never keeps more than what brings it to
    the most that tensors have held at once; 0 turns it off.  Blocks below 64 KiB are the C
    library's.
    """
    from mlgpu.cpu import pool

    pool.bound(parse_bytes(size))


def reset_peak(device: Device | str | None = None) -> None:
    """Let `peak` start again from what is allocated now."""
    books = account(resolve(device))
    books.peak = books.allocated


def limit(size: int | str | None, device: Device | str | None = None) -> None:
    """Refuse allocations that would bring a device's live bytes above `size`; None lifts it.

    `size` is bytes or text such as "2 GiB".  The refusal is an OutOfMemoryError raised before
    anything is allocated.
    """
    books = account(resolve(device))
    before, books.limit = books.limit, None if size is None else parse_bytes(size)
    watch((books.limit is not None) - (before is not None))


@contextmanager
def budget(size: int | str, device: Device | str | None = None) -> Iterator[None]:
    """Within the block, what this thread allocates on `device` and still holds stays below `size`.

    Raises OutOfMemoryError before allocating what would exceed it.  Tensors made before the block
    do not count; budgets nest.
    """
    outer = _local.budgets
    _local.budgets = (*outer, _Budget(account(resolve(device)), parse_bytes(size)))
    watch(1)
    try:
        yield
    finally:
        watch(-1)
        _local.budgets = outer


def snapshot(device: Device | str | None = None) -> list[Block]:
    """The live blocks of a device, largest first: bytes, shape, dtype, age, origin if traced."""
    return account(resolve(device)).snapshot()


@contextmanager
def trace() -> Iterator[None]:
    """Within the block, remember for each new block of memory the line of code that made it.

    Applies to all threads; costs a walk up the stack per allocation.
    """
    global _tracing
    watch(1)
    _tracing += 1
    try:
        yield
    finally:
        _tracing -= 1
        watch(-1)
