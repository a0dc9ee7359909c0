"""What a stream is to do while it is captured: written down instead of done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.graph_memory import Owned
from mlgpu.sim.cuda.streams import Event, Stream


@dataclass(eq=False, slots=True)
class Node:
    """A piece of captured work, which every launch of the graph does once more."""

    stream: Stream  # that it was captured on
    run: Callable[[], Any] | None
    what: str
    where: str
    needs: tuple[Node, ...]
    event: Event | None = None  # outside the graph, to be waited for
    more: dict[str, Any] = field(default_factory=dict)  # what else Streams.submit takes


@dataclass(eq=False, slots=True)
class Capture:
    """One capture under way, of one stream and of those that wait for its events."""

    origin: Stream
    mode: int
    thread: int
    nodes: list[Node] = field(default_factory=list)
    heads: dict[Stream, tuple[Node, ...]] = field(default_factory=dict)  # the next node's needs
    recorded: dict[Event, tuple[Node, ...]] = field(default_factory=dict)
    after: list[Callable[[], None]] = field(default_factory=list)  # once nothing can launch it
    memory: list[Owned] = field(default_factory=list)  # that it allocates
    broken: str = ""  # which call has made it invalid
    ended: bool = False

    def add(self, stream: Stream, run: Callable[[], Any] | None, what: str, where: str,
            event: Event | None = None, **more: Any) -> Node:
        """Write work down at the end of one of the streams."""
        self.check()
        node = Node(stream, run, what, where, self.heads[stream], event, more)
        self.nodes.append(node)
        self.heads[stream] = (node,)
        return node

    def check(self) -> None:
        """CudaError where the capture has become invalid."""
        if self.broken:
            raise CudaError(errors.CAPTURE_INVALIDATED, "the stream's capture is invalid since an "
                            f"illegal call: {self.broken}; end_capture takes its streams out of it")

    def join(self, stream: Stream, event: Event) -> None:
        """What the stream does next comes after the event, too."""
        stream.capture = self
        known = self.heads.get(stream, ())
        self.heads[stream] = known + tuple(n for n in self.recorded[event] if n not in known)

    def joined(self) -> bool:
        """Whether all work comes before the end of the first stream."""
        found = set(self.heads[self.origin])
        stack = list(found)
        while stack:
            for node in stack.pop().needs:
                if node not in found:
                    found.add(node)
                    stack.append(node)
        return len(found) == len(self.nodes)
