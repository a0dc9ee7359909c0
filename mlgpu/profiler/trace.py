"""The events as a file for https://ui.perfetto.dev or chrome://tracing: the Trace Event Format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mlgpu.profiler.events import Event, MemoryPoint

_DEVICES = 1_000_000  # the process number that stands for the first device, above any real one


def export(path: str | os.PathLike[str], events: Sequence[Event],
           points: Iterable[MemoryPoint]) -> None:
    """Write a trace: a track for each thread, each stream of a device, and each memory."""
    process = os.getpid()
    devices = sorted({event.device for event in events if event.device_start is not None})
    number = {name: _DEVICES + i for i, name in enumerate(devices)}
    entries = [_named("process_name", process, 0, "Host"),
               *(_named("process_name", number[name], 0, name) for name in devices)]
    threads = dict.fromkeys(event.thread for event in events)
    entries += [_named("thread_name", process, thread, f"thread {i}")
                for i, thread in enumerate(threads)]
    for event in events:
        entries.append({"ph": "X", "cat": "user_annotation" if event.kind == "range" else "cpu_op",
                        "name": event.name, "pid": process, "tid": event.thread,
                        "ts": event.start, "dur": event.time, "args": _arguments(event)})
        if event.device_start is not None:
            entries.append({"ph": "X", "cat": "kernel", "name": event.name,
                            "pid": number[event.device], "tid": event.stream,
                            "ts": event.device_start, "dur": event.device_time,
                            "args": _arguments(event)})
    entries += [{"ph": "C", "cat": "memory", "name": f"memory {point.device}", "pid": process,
                 "tid": 0, "ts": point.time, "args": {"allocated": point.allocated}}
                for point in points]
    content = {"displayTimeUnit": "ms", "traceEvents": entries}
    Path(path).write_text(json.dumps(content), encoding="utf-8")


def _named(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _arguments(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = {"device": event.device, "bytes": event.bytes,
                             "input shapes": [list(shape) for shape in event.shapes],
                             "kernels": event.kernels, "memory": event.memory,
                             "where": event.where}
    return {name: value for name, value in found.items() if value}
