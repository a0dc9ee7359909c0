"""What a profile consists of: one event for each operation and each range that a program named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Event:
    """One call of an operation, or one pass through a named range; times in microseconds.

    `start` and `device_start` count from the start of the profile.  Times of the device are those
    between two marks in the stream around the operation, so they include what it waited for there.
    """

    name: str
    kind: str  # "operator" or "range"
    thread: int
    start: float = 0.0
    time: float = 0.0  # on the host: of a CUDA operation, what its launches took
    device: str = "cpu"
    stream: int = 0
    device_start: float | None = None
    device_time: float = 0.0
    kernels: list[str] = field(default_factory=list)  # launched in it, not in its children
    bytes: int = 0  # of the arrays that it is given and gives; none of views
    memory: dict[str, int] = field(default_factory=dict)  # by device: live bytes after less before
    shapes: tuple[tuple[int, ...], ...] = ()
    where: str | None = None  # "file:line" of the program that called it
    parent: Event | None = None
    children: list[Event] = field(default_factory=list)
    marks: Any = None  # CUDA's events, until their times are read

    @property
    def self_time(self) -> float:
        """On the host, without what it called."""
        return self.time - sum(child.time for child in self.children)

    @property
    def self_device_time(self) -> float:
        """On the device, without what it called."""
        return self.device_total - sum(child.device_total for child in self.children)

    @property
    def device_total(self) -> float:
        """On the device; of a range, what its operations took there."""
        if self.device_start is not None:
            return self.device_time
        return sum(child.device_total for child in self.children)

    def self_memory(self, device: str) -> int:
        """Bytes of a device that it holds when it is done, without what it called."""
        return self.memory.get(device, 0) - sum(c.memory.get(device, 0) for c in self.children)


@dataclass(frozen=True)
class MemoryPoint:
    """How many bytes of a device were live at one moment, in microseconds from the start."""

    time: float
    device: str
    allocated: int
