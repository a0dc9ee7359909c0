"""The CPU's runtime: NumPy arrays, accounted for before they are allocated."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Literal

import numpy as np

from mlgpu import memory
from mlgpu.cpu import pool
from mlgpu.device import CPU, Device, cuda_problem
from mlgpu.errors import DeviceError, OutOfMemoryError

_books = memory.account(CPU)

# IEEE results (inf, nan) are values to operations, not events: NumPy must not warn about them.
# NumPy keeps what it is to do about events in the context; a context of one's own costs a tenth of
# `np.errstate`.  Each use takes a copy, because no context can be entered twice.
_quiet = Context()
_quiet.run(np.seterr, all="ignore")
quiet = _quiet.copy


def empty(shape: Sequence[int], dtype: Any, order: Literal["C", "F"] = "C"
          ) -> np.ndarray[Any, Any]:
    """An uninitialised array: the way every operation asks for results and workspaces.

    Raises OutOfMemoryError before allocating what a limit or budget forbids.
    """
    shape = tuple(shape)
    dtype = np.dtype(dtype)
    peak = _books.peak
    nbytes = int(math.prod(shape)) * dtype.itemsize
    charge = memory.Charge(_books, nbytes, shape, dtype)
    try:
        array = (np.empty(shape, dtype, order) if nbytes < pool.SMALLEST
                 else pool.array(shape, dtype, nbytes, order))
    except MemoryError as error:
        charge.withdraw(peak)
        raise OutOfMemoryError(f"memory: the system has no {charge.nbytes} bytes for an array of "
                               f"shape {shape} {dtype.name}: {error}") from error
    memory.expect(array, charge)
    return array


def zeros(shape: Sequence[int], dtype: Any) -> np.ndarray[Any, Any]:
    """As `empty`, filled with zeros."""
    array = empty(shape, dtype)
    array.fill(0)
    return array


def full(shape: Sequence[int], value: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """As `empty`, filled with `value`."""
    array = empty(shape, dtype)
    array.fill(value)
    return array


def empty_like(array: np.ndarray[Any, Any], dtype: Any = None,
               others: Sequence[np.ndarray[Any, Any]] = ()) -> np.ndarray[Any, Any]:
    """As `empty`, with the shape of `array`, its memory order and its dtype.

    Dimensions along which it was broadcast are put in order by `others` (of the same shape).
    """
    return laid_like(empty, array, dtype, others)  # type: ignore[no-any-return]


def laid_like(empty: Callable[..., Any], array: Any, dtype: Any, others: Sequence[Any]) -> Any:
    """What `empty` makes, of any device, in the memory order of `array`; see `empty_like`."""
    dtype = array.dtype if dtype is None else dtype
    if array.flags.c_contiguous or array.ndim < 2:
        return empty(array.shape, dtype)
    order = _memory_order((array, *others))
    flat = empty([array.shape[d] for d in order], dtype)
    return flat.transpose([order.index(d) for d in range(array.ndim)])


def _memory_order(arrays: Sequence[np.ndarray[Any, Any]]) -> list[int]:
    """The dimensions, outermost first, of a result of these operands: PyTorch's insertion sort.

    Each pair is put in the order of the first array that tells them apart, else left as it is.
    """
    order = list(reversed(range(arrays[0].ndim)))
    for start in range(1, len(order)):
        at = start
        for inner in reversed(range(start)):
            swap = _should_swap(arrays, order[inner], order[at])
            if swap is None:
                continue
            if not swap:
                break
            order[inner], order[at] = order[at], order[inner]
            at = inner
    return order[::-1]


def _should_swap(arrays: Sequence[np.ndarray[Any, Any]], inner: int, outer: int) -> bool | None:
    for array in arrays:
        a, b = abs(array.strides[inner]), abs(array.strides[outer])
        if a and b and (a != b or array.shape[inner] > array.shape[outer]):
            return a >= b
    return None


def copy(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A C-contiguous copy in accounted memory."""
    out = empty(array.shape, array.dtype)
    np.copyto(out, array)
    return out


class CpuRuntime:
    """Implements `mlgpu.device.DeviceRuntime` on NumPy."""

    forward = "forward"
    backward = "backward_cpu"
    into = "forward_into"

    def device_count(self) -> int:
        return 1

    def empty(self, shape: Sequence[int], dtype: Any, device: Device) -> np.ndarray[Any, Any]:
        return empty(shape, dtype)

    def copy_into(self, out: Any, array: Any) -> None:
        np.copyto(out, array, casting="unsafe")

    def fill(self, out: Any, value: Any) -> None:
        out.fill(value)

    def call(self, function: Callable[..., Any], arrays: Sequence[Any], device: Device,
             written: int = 0) -> Any:
        return quiet().run(function, *arrays)

    def reads(self, array: Any) -> None:
        """NumPy computes in order."""

    def alone(self, holder: Any) -> bool:
        return False  # an array is its own memory here: letting go of it would lose it

    def from_host(self, array: Any, device: Device, non_blocking: bool) -> tuple[Any, Any]:
        return copy(array), None

    def to_host(self, array: Any, non_blocking: bool) -> tuple[Any, Any]:
        return copy(array), None

    def peer_copy(self, array: Any, device: Device, non_blocking: bool) -> Any:
        return copy(array)

    def pin(self, array: Any) -> Any:
        problem = cuda_problem()
        if problem is not None:
            raise DeviceError(f"pin_memory: page-locked memory needs CUDA, and {problem}; leave "
                              "pin_memory out on the CPU")
        from mlgpu.cuda.transfer import pinned

        return pinned(array)

    def synchronize(self, device: Device) -> None:
        """NumPy has finished when it returns."""

    def cached(self, device: Device) -> int:
        return pool.cached()

    def empty_cache(self, device: Device) -> None:
        pool.empty()
