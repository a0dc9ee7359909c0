"""The memory that programs of the CUDA runtime know: of devices, pinned and managed.

Pointers are addresses of the simulated devices (sim/memory.py), far above any of the process's own;
pinned and managed memory lies in the process, at its real address, and kernels may access it too.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.mempools import Pool
from mlgpu.sim.errors import SimError
from mlgpu.sim.memory import INIT, AddressSpace, Region, padded

Array = np.ndarray[Any, Any]

# Each device has a slot of addresses of its own.
DEVICE_BASE, DEVICE_SLOT = 1 << 56, 1 << 55
STEP = 1 << 24  # between allocations: room for two billion of them
HOST, DEVICE, MANAGED = 1, 2, 3  # cudaMemoryType
NAMES = {HOST: "pinned", DEVICE: "a device's", MANAGED: "managed"}
LINE = 64  # bytes by which regions are aligned


@dataclass
class Block:
    """What was allocated, and where."""

    region: Region
    device: int
    kind: int  # HOST, DEVICE or MANAGED
    registered: bool = False  # the program's own memory, which it has pinned
    pool: Pool | None = None  # that cudaMallocAsync took it from
    leaving: bool = False  # a stream will free it


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
        for device, space in enumerate(spaces):
            space.others.append(self.host)
            space.hint = partial(self._hint, device)
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
        """Pinned or managed memory.  CudaError where the computer has not enough."""
        try:
            data = padded(max(size, 1))
            region = Region(data.ctypes.data, max(size, 1), "", where, data)
        except MemoryError:
            raise CudaError(errors.OUT_OF_MEMORY, f"this computer cannot give {size:,} bytes of "
                            f"{NAMES[kind]} memory") from None
        return self._adopt(Block(region, device, kind))

    def register(self, device: int, address: int, size: int, where: str) -> None:
        """Pin memory that the program has, from the line of 64 bytes on in which it begins."""
        if not address or size <= 0:
            raise CudaError(errors.INVALID_VALUE, f"cudaHostRegister: {size} bytes at {address:#x}")
        start, end = address & -LINE, address + size
        if any(r.start < -(-end // LINE) * LINE and r.end > start for r in self.host.regions):
            raise CudaError(errors.HOST_REGISTERED)
        data = host_bytes(start, -(-end // LINE) * LINE - start)
        self._adopt(Block(Region(start, end - start, "", where, data), device, HOST, True))

    def _adopt(self, block: Block) -> int:
        block.region.marks[:] = INIT  # what the program writes is not seen
        self.host.adopt(block.region)
        self.blocks[block.region.start] = block
        return block.region.start

    def unregister(self, address: int, where: str) -> None:
        """Undo `register`."""
        block = self.blocks.get(address & -LINE)
        if block is None or not block.registered:
            raise CudaError(errors.HOST_NOT_REGISTERED)
        self._drop(block, where)

    def check_free(self, address: int, kinds: tuple[int, ...], what: str) -> Block:
        """The block at an address that is to be freed.  CudaError unless that is right."""
        block = self.blocks.get(address)
        if block is not None and block.kind in kinds and not block.registered and (
                not block.leaving):
            return block
        freed = self.was_freed(address)
        inside = self.find(address)
        if block is not None and block.leaving:
            why = "cudaFreeAsync has it already"
        elif block is not None:
            right = ("cudaHostUnregister" if block.registered else
                     "cudaFreeHost" if block.kind == HOST else "cudaFree")
            why = f"it is {NAMES[block.kind]} memory, which {right} gives back"
        elif inside is not None:
            why = (f"it is {address - inside.region.start:,} bytes into the allocation made at "
                   f"{inside.region.made_at}; only its first address can be given back")
        elif freed is not None:
            why = f"it was freed at {freed.freed_at} already"
        else:
            why = "it was not allocated"
        raise CudaError(errors.INVALID_VALUE, f"{what} of {address:#x}: {why}")

    def free(self, address: int, kinds: tuple[int, ...], where: str,
             what: str = "cudaFree") -> None:
        """Give memory back.  CudaError where it is not the beginning of an allocation."""
        self._drop(self.check_free(address, kinds, what), where)

    def free_block(self, block: Block, where: str) -> None:
        """Give a block back, unless that is done."""
        if self.blocks.get(block.region.start) is block:
            self._drop(block, where)

    def _drop(self, block: Block, where: str) -> None:
        del self.blocks[block.region.start]
        space = self.spaces[block.device] if block.kind == DEVICE else self.host
        space.free(block.region, where)

    def find(self, address: int, size: int = 1) -> Block | None:
        """The block that holds all bytes from the address on."""
        space = self.host if address < DEVICE_BASE else self._space(address)
        if space is None:
            return None
        region = space.find(address, address + max(size, 1))
        if region is None:
            return None
        block = self.blocks.get(region.start)  # a module's variables have none
        return block or Block(region, (region.start - DEVICE_BASE) // DEVICE_SLOT, DEVICE)

    def was_freed(self, address: int) -> Region | None:
        """The freed memory in which an address was."""
        space = self.host if address < DEVICE_BASE else self._space(address)
        return None if space is None else space.was_freed(address)

    def _space(self, address: int) -> AddressSpace | None:
        """The device's memory in which an address would lie."""
        device = (address - DEVICE_BASE) // DEVICE_SLOT
        return self.spaces[device] if 0 <= device < len(self.spaces) else None

    def _hint(self, device: int, address: int) -> str:
        """What there is to say of an address that a device's kernels may not access."""
        if 4096 <= address < DEVICE_BASE and not self.host.was_freed(address):
            return (": the program's own memory, if any; kernels may access it only when it is "
                    "pinned or managed")
        space = self._space(address)
        if space is None or space is self.spaces[device] or space in self.spaces[device].others:
            return ""
        return (f": memory of device {self.spaces.index(space)}, to which device {device} has no "
                "access; it gets it from cudaDeviceEnablePeerAccess")

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
        space = self._space(address)
        if space is None:
            return ""
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


def copy_marks(to: Block | None, at: int, size: int, of: Block | None = None,
               source: int = 0) -> None:
    """Bytes that a copy or memset has written are initialised, unless those copied were not."""
    if to is None:
        return
    start = at - to.region.start
    marks = to.region.marks[start:start + size]
    marks |= INIT
    if of is not None:
        start = source - of.region.start
        marks &= of.region.marks[start:start + size] | ~np.uint8(INIT)
