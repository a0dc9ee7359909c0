"""What a library call reads and writes in the devices' memory, checked as a kernel's accesses are.

A call's work runs when the stream comes to it; only then are its operands looked up and read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.sim.cuda.memory import DEVICE_BASE, host_bytes
from mlgpu.sim.cuda.streams import Stream, Work
from mlgpu.sim.cuda.system import System, caller
from mlgpu.sim.errors import Allocation, Finding
from mlgpu.sim.memory import INIT, POISON, Region

Array = np.ndarray[Any, Any]


@dataclass
class Operand:
    """An array in memory: its elements, and for each the marks of its bytes."""

    data: Array
    marks: Array | None  # None: the program's own memory
    region: Region | None
    name: str
    operands: Operands
    reach: tuple[int, int] = (0, 0)  # addresses between which it lies

    def read(self, part: Array | None = None) -> Array:
        """The elements.  A finding where one (of the part that a mask picks) was never written."""
        self._touch(False, part)
        if self.marks is not None and self.operands.initcheck:
            never = ((self.marks & INIT) == 0).any(axis=-1)
            if part is not None:
                never &= part
            if never.any():
                index = tuple(int(i) for i in np.argwhere(never)[0])
                raise self.operands.finding(
                    "initcheck", "uninitialized read", f"{self.name}: element {index} of "
                    f"{self.data.shape} was never written", "read", self.data.itemsize,
                    self.region)
        return self.data

    def write(self, values: Any, part: Array | None = None) -> None:
        """Set the elements, or the part that a mask picks."""
        self._touch(True, part)
        if part is None:
            self.data[...] = values
        else:
            np.copyto(self.data, values, casting="unsafe", where=part)
        if self.marks is not None:
            if part is None:
                self.marks |= INIT
            else:
                self.marks[part] |= INIT

    def _touch(self, writes: bool, part: Array | None) -> None:
        """Tell of the bytes, for races between pieces of work to be found."""
        hazards = self.operands.system.hazards
        if self.region is None or not (hazards.looking or (
                writes and self.region.start < DEVICE_BASE)):
            return
        low, high = self.reach
        bytes_ = np.zeros(high - low, np.bool_)
        there: Array = np.ndarray(
            (*self.data.shape, self.data.itemsize), np.bool_, bytes_,
            self.data.ctypes.data - self.region.data.ctypes.data + self.region.start - low,
            (*self.data.strides, 1))
        there[... if part is None else part] = True
        hazards.touched(self.region, low, bytes_, writes)


class Operands:
    """The operands of one call."""

    def __init__(self, system: System, device: int, call: str) -> None:
        self.system, self.device, self.call = system, device, call
        self.where = caller()
        machine = system.devices[device].machine
        self.initcheck = "initcheck" in machine.checks
        self.memcheck = "memcheck" in machine.checks

    def array(self, name: str, address: int, dtype: Any, shape: Sequence[int],
              strides: Sequence[int] | None = None) -> Operand:
        """An array of device memory by its address; the strides are in bytes.

        Finding where it does not lie within one allocation that the device may access.
        """
        dtype = np.dtype(dtype)
        shape = tuple(shape)
        if strides is None:
            strides = _contiguous(shape, dtype.itemsize)
        strides = tuple(strides)
        if 0 in shape:
            empty = np.empty(shape, dtype)
            return Operand(empty, None, None, name, self)
        reach = [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
        low = address + sum(r for r in reach if r < 0)
        high = address + sum(r for r in reach if r > 0) + dtype.itemsize
        space = self.system.devices[self.device].space
        region = space.find(low, high)
        if region is None:
            raise self._out_of_bounds(name, low, high, shape, dtype)
        if address % dtype.itemsize:
            raise self.finding("memcheck", "misaligned", f"{name} at {address:#x} is no multiple "
                               f"of {dtype.itemsize}", "read", dtype.itemsize, region)
        at = address - region.start
        data: Array = np.ndarray(shape, dtype, region.data, at, strides)
        marks: Array = np.ndarray((*shape, dtype.itemsize), np.uint8, region.marks, at,
                                  (*strides, 1))
        if self.memcheck and region.layout is not None:
            self._check_pool(name, region, address, data, marks)
        return Operand(data, marks, region, name, self, (low, high))

    def matrix(self, name: str, address: int, dtype: Any, rows: int, columns: int,
               leading: int) -> Operand:
        """A matrix stored by columns, `leading` elements from one to the next."""
        size = np.dtype(dtype).itemsize
        return self.array(name, address, dtype, (rows, columns), (size, leading * size))

    def vector(self, name: str, address: int, dtype: Any, count: int, step: int = 1) -> Operand:
        """A vector; as in BLAS one with a negative step is given by its last element."""
        size = np.dtype(dtype).itemsize
        if step < 0:
            address += (1 - count) * step * size
        return self.array(name, address, dtype, (count,), (step * size,))

    def pointers(self, name: str, address: int, count: int) -> list[int]:
        """An array of addresses in device memory."""
        return [int(p) for p in self.array(name, address, np.uint64, (count,)).read()]

    def of(self, name: str, array: Any) -> Operand:
        """A cupy.ndarray."""
        return self.array(name, array.data.ptr, array.dtype, array.shape, array.strides)

    def host(self, name: str, address: int, dtype: Any, count: int) -> Operand:
        """An array in the program's own memory, or in device memory where the address is there."""
        if address >= DEVICE_BASE:
            return self.array(name, address, dtype, (count,))
        data = host_bytes(address, count * np.dtype(dtype).itemsize).view(dtype)
        return Operand(data, None, None, name, self)

    def _check_pool(self, name: str, region: Region, address: int, data: Array,
                    marks: Array) -> None:
        """Finding where elements lie in bytes of a memory pool that belong to no array."""
        for index in np.argwhere((marks & POISON).any(axis=-1)).tolist():
            at = address + sum(i * s for i, s in zip(index, data.strides, strict=True))
            if not region.layout.poisoned(at - region.start, data.itemsize).any():
                continue
            told = region.layout.explain(at, data.itemsize)
            raise self.finding("memcheck", told.kind, f"{name}, {_shown(data.shape, data.dtype)}: "
                               f"element {tuple(index)} at {at:#x}: {told.text}", "read",
                               data.itemsize, None, at, told.allocation)

    def _out_of_bounds(self, name: str, low: int, high: int, shape: tuple[int, ...],
                       dtype: np.dtype[Any]) -> Finding:
        space = self.system.devices[self.device].space
        freed, near = space.was_freed(low), space.nearest(low)
        what = f"{name}, {_shown(shape, dtype)}, {high - low:,} bytes at {low:#x}"
        if freed is not None:
            return self.finding("memcheck", "use after free", f"{what}: freed at {freed.freed_at}",
                                "read", dtype.itemsize, freed, low)
        if low < 4096:
            return self.finding("memcheck", "null pointer", what, "read", dtype.itemsize, None, low)
        if near is not None and near.start <= low < near.end:
            what += f": the last {high - near.end:,} bytes are beyond the end of the allocation"
        else:
            what += ": no memory that this device may access" + space.hint(low)
        return self.finding("memcheck", "out of bounds", what, "read", dtype.itemsize, near, low)

    def finding(self, tool: str, kind: str, message: str, access: str, size: int,
                region: Region | None, address: int | None = None,
                allocation: Allocation | None = None) -> Finding:
        """A finding about the call."""
        file, _, line = self.where.rpartition(":")
        if region is not None:
            allocation = Allocation(region.start, region.size, region.name, region.made_at)
        return Finding(tool, kind, message, self.call, file, int(line), None, None, access,
                       "global", size, address, None, allocation)


def _shown(shape: tuple[int, ...], dtype: np.dtype[Any]) -> str:
    return f"{'x'.join(map(str, shape)) or 'one'} of {dtype}"


def _contiguous(shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    strides, step = [], size
    for n in reversed(shape):
        strides.append(step)
        step *= n
    return tuple(reversed(strides))


def submit(system: System, stream: Stream, call: str,
           body: Callable[[Operands], None]) -> Work | None:
    """Put a call's work at a stream's end; what it finds sticks to the device as a kernel's."""
    system.check()
    operands = Operands(system, stream.device, call)

    def run() -> None:
        try:
            with np.errstate(all="ignore"):  # infinities and NaNs are results, as on a GPU
                body(operands)
        except Finding as finding:
            system.failed(stream.device, finding)

    return system.submit(stream, run, call)


def current_stream(system: System) -> Stream:
    """CuPy's current stream of the calling thread."""
    from cupy.cuda import get_current_stream

    return system.stream(get_current_stream().ptr)


def compute(system: System, call: str, function: Callable[..., Any], inputs: Sequence[Any],
            outputs: Sequence[Any]) -> None:
    """Have the current stream compute arrays from arrays (both of CuPy's) by a host function.

    The function takes the inputs as NumPy arrays and gives one result per output.
    """
    def body(operands: Operands) -> None:
        given = [operands.of(f"argument {n}", a).read() for n, a in enumerate(inputs, 1)]
        results = function(*given)
        for n, (array, result) in enumerate(zip(outputs, results, strict=True), 1):
            operands.of(f"result {n}", array).write(result)

    # The lists keep the arrays, and so their memory, until the work is done.
    submit(system, current_stream(system), call, body)
