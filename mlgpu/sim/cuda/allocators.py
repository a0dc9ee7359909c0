"""CuPy's allocators on simulated devices: pools with exact bounds, or a region for each array."""

from __future__ import annotations

import gc
from importlib import import_module
from typing import Any

from mlgpu.sim.cuda.asides import Aside
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.guard import Guard
from mlgpu.sim.cuda.system import System, caller
from mlgpu.sim.errors import SimError

KINDS = ("pool", "separate")


def check(allocations: str) -> None:
    """SimError unless there is such a kind."""
    if allocations not in KINDS:
        raise SimError(f"install: allocations={allocations!r}; \"pool\" keeps CuPy's memory pool "
                       "and knows what of it belongs to each array, \"separate\" gives each array "
                       "memory far from any other's")


def follow(system: System, allocations: str) -> None:
    """Have CuPy, which is imported, take memory so from now on."""
    cupy: Any = import_module("cupy")
    memory: Any = import_module("cupy.cuda.memory")
    guard = Guard(system)
    system.streams.notice, system.streams.check = guard.notice, guard.check
    kind = _guarded(guard) if allocations == "pool" else _separate(guard)
    kind.__name__ = kind.__qualname__ = "MemoryPool"
    kind.__module__ = memory.__name__
    cupy.cuda.MemoryPool = memory.MemoryPool = kind
    cupy._default_memory_pool = kind()
    cupy.cuda.set_allocator(cupy._default_memory_pool.malloc)


def _guarded(guard: Guard) -> Any:
    """CuPy's pool, in whose threads a memory hook tells the guard."""
    memory: Any = import_module("cupy.cuda.memory")
    hooks: Any = import_module("cupy.cuda.memory_hook")

    class Bounds(hooks.MemoryHook):  # type: ignore[misc]
        name = "bounds of the simulated GPU"

        def malloc_postprocess(self, **args: Any) -> None:
            if args["mem_ptr"]:
                guard.taken(args["mem_ptr"], args["size"], args["mem_size"])

        def free_preprocess(self, **args: Any) -> None:
            guard.given_back(args["mem_ptr"])

    bounds = Bounds()

    class MemoryPool(memory.MemoryPool):  # type: ignore[misc]
        def malloc(self, size: int) -> Any:
            hooks.get_memory_hooks().setdefault(bounds.name, bounds)  # they are each thread's own
            return super().malloc(size)

    MemoryPool.__doc__ = memory.MemoryPool.__doc__
    return MemoryPool


def _separate(guard: Guard) -> Any:
    """A pool that keeps nothing: each array has a region.

    Over an allocator that is given it is as the guarded one.
    """
    system = guard.system
    memory: Any = import_module("cupy.cuda.memory")

    class MemoryPool(_guarded(guard)):  # type: ignore[misc]
        def __init__(self, allocator: Any = None) -> None:
            super().__init__(allocator)
            used: dict[int, int] = {}  # bytes by device
            self._used = None if allocator is not None else used
            if allocator is None:
                self._regions = memory.PythonFunctionAllocator(
                    lambda size, device: _region(guard, size, device, used),
                    lambda address, device: guard.given_back(address))

        def malloc(self, size: int) -> Any:
            if self._used is None or not size:
                return super().malloc(size)
            used, limit = self.used_bytes(), self.get_limit()
            if limit and used + size > limit:
                raise memory.OutOfMemoryError(size, used, limit)
            try:
                return self._regions.malloc(size)
            except CudaError as error:
                raise memory.OutOfMemoryError(size, used, limit) from error

        def used_bytes(self) -> Any:
            if self._used is None:
                return super().used_bytes()
            with system.lock:
                guard.notice()
                return self._used.get(system.current, 0)

        def total_bytes(self) -> Any:
            return super().total_bytes() if self._used is None else self.used_bytes()

    MemoryPool.__doc__ = memory.MemoryPool.__doc__
    return MemoryPool


def _region(guard: Guard, size: int, device: int, used: dict[int, int]) -> int:
    """A region for an array.  CudaError where there is not enough memory."""
    system = guard.system
    with system.lock:
        guard.notice()
        try:
            address = system.memory.allocate(device, size, caller())
        except CudaError:  # what is freed is there when the streams have come to it
            gc.collect()
            system.finish_device(device)
            address = system.memory.allocate(device, size, caller())
        stream = guard.current_stream()
        capture, block = stream.capture, system.memory.blocks[address]
        used[device] = used.get(device, 0) + size

        def back(where: str) -> None:
            used[device] -= size

            def free() -> None:
                system.memory.free_block(block, where)

            if capture is not None and not capture.ended:
                capture.after.append(free)  # its graph comes back to temporary arrays
            else:
                Aside(free, system.streams.before(stream))

        guard.held[address] = back
        return address
