"""The memory that programs of the CUDA runtime know: of devices, pinned and managed.

Pointers are addresses of the simulated devices (sim/memory.py), far above any of the process's own;
pinned and managed memory lies in the process, at its real address, and kernels may access it too.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.errors import SimError
from mlgpu.sim.memory import INIT, AddressSpace, Region

Array = np.ndarray[Any, Any]

# Each device has a slot of addresses of its own.
DEVICE_BASE, DEVICE_SLOT = 1 << 56, 1 << 55
STEP = 1 << 24  # between allocations: room for two billion of them
HOST, DEVICE, MANAGED = 1, 2, 3  # cudaMemoryType


@dataclass
class Block:
    """What was allocated, and where."""

    region: Region
    device: int
    kind: int  # HOST, DEVICE or MANAGED


def space_of(device: int, limit: int) -> AddressSpace:
    """The memory of a device."""
    space = AddressSpace(limit, DEVICE_BASE + device * DEVICE_SLOT, STEP)
    space.setting = "mlgpu.sim.install(memory=...)"
    return space


class Memory:
    """All memory by address."""

    def __init__(self, spaces: list[AddressSpace]) -> None:
        self.spaces = spaces
        self.host = AddressSpace(1 << 62)  # pinned and managed memory
        for space in spaces:
            space.others.append(self.host)
        self.blocks: dict[int, Block] = {}  # by first address

    def allocate(self, device: int, size: int, where: str) -> int:
        """Memory of a device.  CudaError where there is not enough."""
        space = self.spaces[device]
        try:
            region = space.allocate(max(size, 1), "", where)
        except SimError as error:
            raise CudaError(errors.OUT_OF_MEMORY, str(error)) from None
        region.data[:] = 255
        self.blocks[region.start] = Block(region, device, DEVICE)
        return region.start

    def allocate_host(self, device: int, size: int, where: str, kind: int = HOST) -> int:
        """Pinned or managed memory."""
        data = np.zeros(-(-max(size, 1) // 64) * 64 + 64, np.uint8)
        shift = -data.ctypes.data % 64
        data = data[shift:shift + -(-max(size, 1) // 64) * 64]
        return self._adopt(device, data, size, where, kind)

    def register(self, device: int, address: int, size: int, where: str) -> None:
        """Pin memory that the program has."""
        if address in self.blocks or self.host.find(address, address + 1) is not None:
            raise CudaError(errors.HOST_REGISTERED)
        self._adopt(device, host_bytes(address, size), size, where, HOST)

    def _adopt(self, device: int, data: Array, size: int, where: str, kind: int) -> int:
        region = Region(data.ctypes.data, max(size, 1), "", where, data)
        if kind == HOST:
            region.marks[:] = INIT  # what the program does to it is not seen
        self.host.adopt(region)
        self.blocks[region.start] = Block(region, device, kind)
        return region.start

    def free(self, address: int, kinds: tuple[int, ...], where: str) -> None:
        """Give memory back.  CudaError where it is not the beginning of an allocation."""
        block = self.blocks.get(address)
        if block is None or block.kind not in kinds:
            raise CudaError(errors.INVALID_VALUE, f"{address:#x} was not allocated, or is freed "
                                                  "already")
        del self.blocks[address]
        space = self.spaces[block.device] if block.kind == DEVICE else self.host
        space.free(block.region, where)

    def find(self, address: int, size: int = 1) -> Block | None:
        """The block that holds all bytes from the address on."""
        if address >= DEVICE_BASE:
            device = (address - DEVICE_BASE) // DEVICE_SLOT
            if device >= len(self.spaces):
                return None
            region = self.spaces[device].find(address, address + max(size, 1))
            return None if region is None else Block(region, device, DEVICE)
        region = self.host.find(address, address + max(size, 1))
        return None if region is None else self.blocks.get(region.start)

    def bytes(self, address: int, size: int, what: str) -> tuple[Array, Block | None]:
        """The bytes at an address, and the block they are in (None: the program's own memory)."""
        block = self.find(address, size)
        if block is not None:
            at = address - block.region.start
            return block.region.data[at:at + size], block
        if address >= DEVICE_BASE:
            raise CudaError(errors.INVALID_VALUE, f"{what}: {size:,} bytes at {address:#x} are not "
                                                  f"within one allocation{self._near(address)}")
        return host_bytes(address, size), None

    def _near(self, address: int) -> str:
        device = (address - DEVICE_BASE) // DEVICE_SLOT
        if device >= len(self.spaces):
            return ""
        space = self.spaces[device]
        region = space.was_freed(address)
        if region is not None:
            return f": they were freed at {region.freed_at}"
        region = space.nearest(address)
        return "" if region is None else (f": the nearest has {region.size:,} bytes at "
                                          f"{region.start:#x} and was made at {region.made_at}")


def host_bytes(address: int, size: int) -> Array:
    """A view of the process's own memory."""
    if not size:
        return np.empty(0, np.uint8)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


def copy_marks(to: Block | None, at: int, size: int) -> None:
    """Bytes that a copy or memset has written are initialised."""
    if to is not None:
        start = at - to.region.start
        to.region.marks[start:start + size] |= INIT
