"""Memory that a graph allocates: cudaMallocAsync and cudaFreeAsync on a stream that is captured.

It has its address from the capture on, which every launch finds again; what is in it lasts from the
allocation's node to the free, be that a node of the graph or a later call of the program's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.memory import DEVICE, Block

if TYPE_CHECKING:
    from mlgpu.sim.cuda.capture import Capture
    from mlgpu.sim.cuda.streams import Stream
    from mlgpu.sim.cuda.system import System


@dataclass(eq=False)
class Owned:
    """An allocation of a graph."""

    address: int
    size: int
    block: Block
    capture: Capture
    where: str
    freed: bool = False  # by the graph itself
    live: bool = False  # a launch has allocated it, and nobody freed it

    def wipe(self) -> None:
        """Nothing has been written to it."""
        self.block.region.data[:] = 255
        self.block.region.marks[:] = 0


class GraphMemory:
    """All allocations of graphs."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.owned: dict[int, Owned] = {}  # by address

    def allocate(self, stream: Stream, size: int, where: str) -> int:
        """Write an allocation down on a captured stream."""
        capture: Capture = stream.capture
        capture.check()
        memory = self.system.memory
        address = memory.allocate(stream.device, size, where)
        owned = Owned(address, size, memory.blocks[address], capture, where)
        capture.add(stream, owned.wipe, "allocation", where, writes=((address, size),))
        capture.memory.append(owned)
        capture.after.append(lambda: self._leave(owned))
        self.owned[address] = owned
        return address

    def free_captured(self, address: int, stream: Stream, where: str) -> None:
        """Write a free down on a captured stream."""
        capture: Capture = stream.capture
        capture.check()
        owned = self.owned.get(address)
        if owned is None or owned.capture is not capture or owned.freed:
            raise CudaError(errors.INVALID_VALUE, f"cudaFreeAsync: {stream} is being captured, and "
                            "a graph frees only memory that it allocated, and once; "
                            f"{address:#x} is none of that")
        owned.freed = True
        capture.add(stream, owned.wipe, "free", where, writes=((address, owned.size),))

    def free(self, address: int) -> Owned | None:
        """The program frees what a launch has allocated.  None where it is no graph's memory."""
        owned = self.owned.get(address)
        if owned is not None:
            if not owned.live:
                raise CudaError(errors.INVALID_VALUE, f"{address:#x} belongs to a graph, and no "
                                                      "launch has allocated it since it was freed")
            owned.live = False
        return owned

    def launched(self, owned: list[Owned]) -> None:
        """A graph's allocations come to be.  CudaError where one is still there."""
        lasting = [o for o in owned if not o.freed]
        for o in lasting:
            if o.live:
                raise CudaError(errors.INVALID_VALUE, f"cudaGraphLaunch: memory at {o.address:#x}, "
                                f"whose allocation was captured at {o.where}, was not freed since "
                                "the last launch")
        for o in lasting:
            o.live = True

    def _leave(self, owned: Owned) -> None:
        """Its graph is gone; what is still allocated is the program's to free."""
        del self.owned[owned.address]
        if not owned.live:
            self.system.memory.free(owned.address, (DEVICE,), owned.where)
