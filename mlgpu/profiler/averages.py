"""Events of one name taken together, and the table of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlgpu.errors import ShapeError
from mlgpu.memory import format_bytes
from mlgpu.profiler.events import Event


@dataclass
class EventAverage:
    """All events of a name (and of its inputs' shapes, if asked); times in microseconds.

    An event inside another of the same name counts as a call, and its time once.
    """

    key: str
    input_shapes: tuple[tuple[int, ...], ...] = ()
    count: int = 0
    cpu_time_total: float = 0.0
    self_cpu_time_total: float = 0.0
    device_time_total: float = 0.0
    self_device_time_total: float = 0.0
    cpu_memory_usage: int = 0
    self_cpu_memory_usage: int = 0
    device_memory_usage: int = 0
    self_device_memory_usage: int = 0
    kernels: int = 0  # launched by it and what it called
    bytes: int = 0

    @property
    def cpu_time(self) -> float:
        """The mean of a call on the host."""
        return self.cpu_time_total / max(self.count, 1)

    @property
    def device_time(self) -> float:
        """The mean of a call on the device."""
        return self.device_time_total / max(self.count, 1)

    def add(self, event: Event) -> None:
        """Count one more event."""
        self.count += 1
        self.self_cpu_time_total += event.self_time
        self.self_device_time_total += event.self_device_time
        self.kernels += len(event.kernels)
        self.bytes += event.bytes
        others = [name for name in event.memory if name != "cpu"]
        self.self_cpu_memory_usage += event.self_memory("cpu")
        self.self_device_memory_usage += sum(map(event.self_memory, others))
        if not _within(event):
            self.cpu_time_total += event.time
            self.device_time_total += event.device_total
            self.cpu_memory_usage += event.memory.get("cpu", 0)
            self.device_memory_usage += sum(event.memory[name] for name in others)


def _within(event: Event) -> bool:
    """Whether an event lies in another of its name."""
    outer = event.parent
    while outer is not None and outer.name != event.name:
        outer = outer.parent
    return outer is not None


# PyTorch's older names.
_ALIASES = {"cuda_time_total": "device_time_total", "cuda_time": "device_time",
            "self_cuda_time_total": "self_device_time_total",
            "cuda_memory_usage": "device_memory_usage",
            "self_cuda_memory_usage": "self_device_memory_usage"}
SORTABLE = ("count", "cpu_time", "cpu_time_total", "self_cpu_time_total", "device_time",
            "device_time_total", "self_device_time_total", "cpu_memory_usage",
            "self_cpu_memory_usage", "device_memory_usage", "self_device_memory_usage", "kernels",
            "bytes")


class EventList(list[EventAverage]):
    """The averages of a profile, in the order in which the names first came."""

    @classmethod
    def of(cls, events: Iterable[Event], by_shape: bool = False) -> EventList:
        """The averages of events."""
        found: dict[tuple[str, tuple[tuple[int, ...], ...]], EventAverage] = {}
        for event in events:
            shapes = event.shapes if by_shape else ()
            found.setdefault((event.name, shapes), EventAverage(event.name, shapes)).add(event)
        return cls(found.values())

    def table(self, sort_by: str | None = None, row_limit: int = 100,
              max_name_column_width: int = 55) -> str:
        """The averages as text, the largest first; -1 rows are all.

        `sort_by` names one of their figures, such as "self_cpu_time_total", "device_time_total" or
        "cpu_memory_usage".  Columns of which nothing is known are left out.
        """
        rows: Sequence[EventAverage] = self
        if sort_by is not None:
            key = _ALIASES.get(sort_by, sort_by)
            if key not in SORTABLE:
                raise ShapeError(f"table: sort_by must be one of {', '.join(SORTABLE)}, got "
                                 f"{sort_by!r}")
            rows = sorted(self, key=lambda row: -getattr(row, key))
        host = sum(row.self_cpu_time_total for row in self)
        device = sum(row.self_device_time_total for row in self)
        shown = [_cells(row, host, device, max_name_column_width)
                 for row in (rows if row_limit < 0 else rows[:row_limit])]
        empty = {name for name, known in self._known().items() if not known}
        heads = [name for name in _HEADS if _HEADS[name] not in empty]
        lines = [dict(zip(_HEADS, _HEADS, strict=True)), *shown]
        widths = {name: max(len(line[name]) for line in lines) for name in heads}
        text = ["  ".join(line[name].ljust(widths[name]) if name == "Name" else
                          line[name].rjust(widths[name]) for name in heads) for line in lines]
        rule = "  ".join("-" * widths[name] for name in heads)
        total = [f"CPU time total: {_duration(host)}"]
        total += [f"Device time total: {_duration(device)}"] if device else []
        return "\n".join([rule, text[0], rule, *text[1:], rule, *total, ""])

    def _known(self) -> dict[str, bool]:
        return {"device": any(row.device_time_total for row in self),
                "cpu memory": any(row.cpu_memory_usage or row.self_cpu_memory_usage
                                  for row in self),
                "device memory": any(row.device_memory_usage or row.self_device_memory_usage
                                     for row in self),
                "kernels": any(row.kernels for row in self),
                "shapes": any(row.input_shapes for row in self)}

    def total_average(self) -> EventAverage:
        """The sum of all, without counting anything twice."""
        total = EventAverage("Total")
        for row in self:
            total.count += row.count
            total.self_cpu_time_total += row.self_cpu_time_total
            total.self_device_time_total += row.self_device_time_total
            total.kernels += row.kernels
            total.bytes += row.bytes
        total.cpu_time_total = total.self_cpu_time_total
        total.device_time_total = total.self_device_time_total
        return total


# Heading -> the group of columns that are left out together.
_HEADS = {"Name": "", "Self CPU %": "", "Self CPU": "", "CPU total": "", "CPU time avg": "",
          "Self CUDA": "device", "Self CUDA %": "device", "CUDA total": "device",
          "CUDA time avg": "device", "CPU Mem": "cpu memory", "Self CPU Mem": "cpu memory",
          "CUDA Mem": "device memory", "Self CUDA Mem": "device memory", "# of Calls": "",
          "Kernels": "kernels", "Bytes": "", "Input Shapes": "shapes"}


def _cells(row: EventAverage, host: float, device: float, width: int) -> dict[str, str]:
    name = row.key if len(row.key) <= width else f"{row.key[:width - 3]}..."
    return dict(zip(_HEADS, (
        name, _percent(row.self_cpu_time_total, host), _duration(row.self_cpu_time_total),
        _duration(row.cpu_time_total), _duration(row.cpu_time),
        _duration(row.self_device_time_total), _percent(row.self_device_time_total, device),
        _duration(row.device_time_total), _duration(row.device_time),
        format_bytes(row.cpu_memory_usage), format_bytes(row.self_cpu_memory_usage),
        format_bytes(row.device_memory_usage), format_bytes(row.self_device_memory_usage),
        str(row.count), str(row.kernels), format_bytes(row.bytes),
        str([list(shape) for shape in row.input_shapes])), strict=True))


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "0.0%"


def _duration(microseconds: float) -> str:
    if abs(microseconds) >= 1e6:
        return f"{microseconds / 1e6:.3f}s"
    if abs(microseconds) >= 1e3:
        return f"{microseconds / 1e3:.3f}ms"
    return f"{microseconds:.3f}us"
