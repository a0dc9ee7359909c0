"""Accounting for device memory: statistics, limits, budgets, and a snapshot of what is alive.

Every block of memory a tensor, a saved value or a workspace uses is held by one `Charge`.  The
charge is made *before* the memory is asked for, so limits and budgets refuse in time, and undone
when the last holder drops it: there is no other path by which the figures change.
"""

from __future__ import annotations

import numbers
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
    def __init__(self) -> None:
        self.budgets: tuple[_Budget, ...] = ()
        self.pending: dict[int, _Expected] = {}


_local = _Local()
_tracing = False


class Account:
    """The books of one device."""

    def __init__(self, device: str) -> None:
        self.device = device
        # Re-entrant: a garbage collection may free a Charge while this thread holds the lock.
        self.lock = threading.RLock()
        self.allocated = self.peak = self.count = self.allocations = self.mapped = 0
        self.limit: int | None = None
        self.live: dict[int, Charge | None] = {}

    def refuse(self, nbytes: int, what: str, maximum: int, used: int) -> OutOfMemoryError:
        """The error that says what was asked for, what is in use and what holds most of it."""
        largest = "\n  ".join(map(str, self.snapshot()[:5])) or "nothing"
        return OutOfMemoryError(
            f"memory: {format_bytes(nbytes)} ({nbytes} bytes) asked for on {self.device}, but "
            f"{format_bytes(used)} of the {what} of {format_bytes(maximum)} are in use; release "
            f"tensors or raise the {what}. Largest live blocks:\n  {largest}")

    def snapshot(self) -> list[Block]:
        """The live blocks, largest first."""
        now = time.monotonic()
        blocks = []
        for key in list(self.live):
            record = _records.get(key)
            if record is not None:
                nbytes, shape, dtype, made, where = record
                blocks.append(Block(nbytes, shape, dtype, now - made, where))
        return sorted(blocks, key=lambda block: -block.nbytes)


_cpu = Account("cpu")
_accounts: dict[str, Account] = {"cpu": _cpu}
_accounts_lock = threading.Lock()
# What a snapshot shows of a live charge, by id; kept apart so that the books never keep one alive.
_records: dict[int, tuple[int, tuple[int, ...], str, float, str | None]] = {}


def account(device: Device) -> Account:
    """The books of a resolved device."""
    if device is CPU:
        return _cpu
    key = str(device)
    found = _accounts.get(key)
    if found is None:
        with _accounts_lock:
            found = _accounts.setdefault(key, Account(key))
    return found


def _hold_all() -> None:
    _accounts_lock.acquire()
    for books in _accounts.values():
        books.lock.acquire()


def _let_go() -> None:
    for books in _accounts.values():
        books.lock.release()
    _accounts_lock.release()


# A child forked while another thread writes into the books must not inherit them locked.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold_all, after_in_parent=_let_go, after_in_child=_let_go)


class Charge:
    """A block of memory on the books, from the moment it is asked for until nobody holds it."""

    __slots__ = ("_account", "_budgets", "mapped", "nbytes")

    def __init__(self, books: Account, nbytes: int, shape: tuple[int, ...], dtype: str,
                 mapped: bool = False) -> None:
        self._account = books
        self._budgets: tuple[_Budget, ...] = ()
        self.mapped = mapped
        self.nbytes = 0  # nothing to undo if the checks below refuse
        budgets = _local.budgets
        with books.lock:
            if mapped:
                books.mapped += nbytes
            else:
                if books.limit is not None and books.allocated + nbytes > books.limit:
                    raise books.refuse(nbytes, "limit", books.limit, books.allocated)
                for budget in budgets:
                    if budget.account is books and budget.used + nbytes > budget.maximum:
                        raise books.refuse(nbytes, "budget", budget.maximum, budget.used)
                for budget in budgets:
                    if budget.account is books:
                        budget.used += nbytes
                self._budgets = budgets
                books.allocated += nbytes
                if books.allocated > books.peak:
                    books.peak = books.allocated
            books.count += 1
            books.allocations += 1
            books.live[id(self)] = None
        self.nbytes = nbytes
        _records[id(self)] = (nbytes, shape, dtype, time.monotonic(),
                              _caller() if _tracing else None)

    def withdraw(self, peak: int) -> None:
        """Leave the books as if never asked for: there was no such memory.  `peak`: before it."""
        self.__del__()
        books = self._account
        with books.lock:
            books.allocations -= 1
            books.peak = max(peak, books.peak - self.nbytes)

    def __del__(self) -> None:
        if _records.pop(id(self), None) is None:
            return
        books = self._account
        with books.lock:
            books.live.pop(id(self), None)
            books.count -= 1
            if self.mapped:
                books.mapped -= self.nbytes
            else:
                books.allocated -= self.nbytes
                for budget in self._budgets:
                    if budget.account is books:
                        budget.used -= self.nbytes


def _caller() -> str | None:
    """The nearest frame outside the library, as "file:line"."""
    frame: Any = sys._getframe(1)
    here = __name__.partition(".")[0]
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == here:
        frame = frame.f_back
    return None if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


# --- blocks that an operation has asked for and nobody owns yet -----------------------------------


class _Expected(weakref.ref[Any]):
    """A fresh array, weakly, with the charge that is dropped as it dies."""

    __slots__ = ("charge", "key")

    charge: Charge
    key: int


def _dropped(expected: _Expected, local: _Local = _local) -> None:
    # The array may die in another thread, whose entry of that id is another array's.
    if local.pending.get(expected.key) is expected:
        del local.pending[expected.key]


def expect(array: Any, charge: Charge) -> None:
    """Hold `charge` for a fresh array until `claim` finds its owner or the array dies."""
    expected = _Expected(array, _dropped)
    expected.charge, expected.key = charge, id(array)
    _local.pending[expected.key] = expected


def claim(root: Any) -> Charge | None:
    """The charge made for this array when it was allocated, if it was."""
    expected = _local.pending.pop(id(root), None)
    return expected.charge if expected is not None and expected() is root else None


# --- public ---------------------------------------------------------------------------------------


def stats(device: Device | str | None = None) -> MemoryStats:
    """Live, peak and mapped bytes and block counts of a device (default: the current one)."""
    device = resolve(device)
    books, cached = account(device), runtime(device).cached(device)
    with books.lock:
        return MemoryStats(books.allocated, books.peak, books.count, books.allocations,
                           books.mapped, books.limit, cached)


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
    with books.lock:
        books.peak = books.allocated


def limit(size: int | str | None, device: Device | str | None = None) -> None:
    """Refuse allocations that would bring a device's live bytes above `size`; None lifts it.

    `size` is bytes or text such as "2 GiB".  The refusal is an OutOfMemoryError raised before
    anything is allocated.
    """
    books = account(resolve(device))
    with books.lock:
        books.limit = None if size is None else parse_bytes(size)


@contextmanager
def budget(size: int | str, device: Device | str | None = None) -> Iterator[None]:
    """Within the block, what this thread allocates on `device` and still holds stays below `size`.

    Raises OutOfMemoryError before allocating what would exceed it.  Tensors made before the block
    do not count; budgets nest.
    """
    outer = _local.budgets
    _local.budgets = (*outer, _Budget(account(resolve(device)), parse_bytes(size)))
    try:
        yield
    finally:
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
    before = _tracing
    _tracing = True
    try:
        yield
    finally:
        _tracing = before
