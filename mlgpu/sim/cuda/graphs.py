"""CUDA graphs: captured work, submitted again at every launch, in any order that it allows."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.asides import Aside
from mlgpu.sim.cuda.capture import Capture, Node
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.graph_memory import GraphMemory
from mlgpu.sim.cuda.memory import DEVICE_BASE, Block, copy_marks
from mlgpu.sim.cuda.streams import NON_BLOCKING, Stream, Work
from mlgpu.sim.errors import Finding

if TYPE_CHECKING:
    from mlgpu.sim.cuda.system import System

Array = np.ndarray[Any, Any]
VERBOSE = 1  # cudaGraphDebugDotFlagsVerbose


class Graph:
    """A graph."""

    def __init__(self, capture: Capture) -> None:
        self.nodes, capture.nodes = capture.nodes, []  # each behind those that it needs
        self.after, capture.after = capture.after, []
        self.memory, capture.memory = capture.memory, []
        self.handles = 1  # its own, and those of executable graphs
        self.ends: list[Work] = []  # of the latest launches of executable graphs that are gone

    def forgotten(self, end: Work | None = None) -> None:
        """One handle less; after the last, and when all launches are done, it is left alone."""
        self.handles -= 1
        if end is not None:
            self.ends.append(end)
        if not self.handles:
            for act in self.after:
                Aside(act, self.ends)


class Executable:
    """An executable graph; its launches come one after the other."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        graph.handles += 1
        awaited = {n for node in graph.nodes for n in node.needs}
        self.leaves = [n for n in graph.nodes if n not in awaited]
        self.branches: dict[Stream, Stream] = {}  # its own, by the one that was captured
        self.last: Work | None = None  # the end of the latest launch


class Graphs:
    """All graphs by handle."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.graphs: dict[int, Graph] = {}
        self.executables: dict[int, Executable] = {}
        self.memory = GraphMemory(system)
        self._handles = itertools.count(0x6AF0_0000, 0x10)

    def add(self, capture: Capture) -> int:
        """A graph of captured work."""
        handle = next(self._handles)
        self.graphs[handle] = Graph(capture)
        return handle

    def graph(self, handle: int) -> Graph:
        """A graph.  CudaError where there is none."""
        if handle not in self.graphs:
            raise CudaError(errors.INVALID_VALUE, f"{handle:#x} is no graph, or is destroyed")
        return self.graphs[handle]

    def instantiate(self, graph: int) -> int:
        """An executable graph."""
        handle = next(self._handles)
        self.executables[handle] = Executable(self.graph(graph))
        return handle

    def executable(self, handle: int) -> Executable:
        """An executable graph.  CudaError where there is none."""
        if handle not in self.executables:
            raise CudaError(errors.INVALID_VALUE, f"{handle:#x} is no executable graph, or is "
                                                  "destroyed")
        return self.executables[handle]

    def destroy(self, graph: int) -> None:
        """Forget a graph."""
        self.graph(graph).forgotten()
        del self.graphs[graph]

    def destroy_executable(self, handle: int) -> None:
        """Forget an executable graph; what was launched comes to be done."""
        found = self.executable(handle)
        for branch in found.branches.values():
            self.system.streams.destroy(branch.handle)
        del self.executables[handle]
        found.graph.forgotten(found.last)

    # -- launching --------------------------------------------------------------------------------

    def launch(self, handle: int, stream: Stream, where: str) -> None:
        """Submit a graph's work, after the stream's earlier work and before its later work."""
        found, streams = self.executable(handle), self.system.streams
        self.system.captures.check_default("cudaGraphLaunch", stream)
        self.memory.launched(found.graph.memory)
        needs = [] if found.last is None else [found.last]
        start = self.system.submit(stream, None, "a graph's launch", needs)
        works: dict[Node, Work | None] = {}
        for node in found.graph.nodes:
            before = [works[n] for n in node.needs] or [start]
            if node.event is not None:
                before.append(node.event.work)
            works[node] = streams.submit(
                self._branch(found, node.stream), node.run, node.what,
                f"{node.where}, in the graph launched at {where}",
                [w for w in before if w is not None], **node.more)
        ends = [w for n in found.leaves if (w := works[n]) is not None]
        found.last = self.system.submit(stream, None, "the end of a graph's launch", ends)

    def _branch(self, executable: Executable, captured: Stream) -> Stream:
        branch = executable.branches.get(captured)
        if branch is None:
            branch = executable.branches[captured] = self.system.streams.create(
                captured.device, NON_BLOCKING)
        return branch

    # -- nodes that look their memory up at every launch ------------------------------------------

    def copying(self, device: int, dst: int, src: int, size: int) -> Callable[[], None]:
        """A copy as a node's work."""
        def run() -> None:
            target = self._memory(device, "write", dst, size)
            source = self._memory(device, "read", src, size)
            if target is not None and source is not None:
                target[0][:] = source[0]
                copy_marks(target[1], dst, size, source[1], src)
        return run

    def filling(self, device: int, address: int, value: int, size: int) -> Callable[[], None]:
        """A memset as a node's work."""
        def run() -> None:
            target = self._memory(device, "write", address, size)
            if target is not None:
                target[0][:] = value & 255
                copy_marks(target[1], address, size)
        return run

    def _memory(self, device: int, access: str, address: int,
                size: int) -> tuple[Array, Block] | None:
        """The bytes at an address; None where they are not there any more, which is a fault."""
        block = self.system.memory.find(address, size)
        if block is not None:
            at = address - block.region.start
            return block.region.data[at:at + size], block
        work = self.system.streams.running
        if address < DEVICE_BASE and work is not None:  # of a device's, guard.py has found it
            file, _, line = work.where.split(", ")[0].rpartition(":")
            self.system.failed(device, Finding(
                "memcheck", "use after free", f"{access} of {size:,} bytes at {address:#x}, which "
                "are no pinned memory any more", kernel=work.what, file=file, line=int(line),
                access=access, space="global", size=size, address=address, launched=work.where))
        return None

    # -- looking ----------------------------------------------------------------------------------

    def write(self, graph: int, path: str, flags: int) -> None:
        """A graph in the language DOT."""
        nodes = self.graph(graph).nodes
        number = {node: n for n, node in enumerate(nodes)}
        lines = [f'digraph "graph {graph:#x}" {{']
        for node in nodes:
            label = [str(number[node]), node.what]
            if flags & VERBOSE:
                label += [f"captured on {node.stream}", node.where]
            text = "\\n".join(part.replace("\\", "\\\\").replace('"', '\\"') for part in label)
            lines.append(f'  n{number[node]} [shape=box, label="{text}"];')
        lines += [f"  n{number[before]} -> n{number[node]};"
                  for node in nodes for before in node.needs]
        Path(path).write_text("\n".join([*lines, "}"]) + "\n", encoding="utf-8")
