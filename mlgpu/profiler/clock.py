"""Times on CUDA devices: marks in the stream before and after each operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from mlgpu.cuda.arrays import cupy
from mlgpu.cuda.context import context
from mlgpu.device import Device
from mlgpu.profiler.events import Event


class DeviceClock:
    """Marks of operations, and when they lie on the host's clock.

    What is recorded into a graph takes no time and gets no marks.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._bases: dict[int, tuple[Any, float]] = {}  # a mark of each device, and its time

    def around(self, event: Event, device: Device, function: Callable[..., Any],
               ) -> Callable[..., Any]:
        """`function`, to be called with the device current, between two marks."""
        index = device.index
        assert index is not None
        if context.capture is not None:
            return function

        def timed(*arrays: Any) -> Any:
            base = self._bases.get(index)
            if base is None:  # at rest, so that both clocks show the same moment
                cupy.cuda.runtime.deviceSynchronize()
                base = self._bases[index] = (_mark(), self._now())
            first = _mark()
            event.stream = cupy.cuda.get_current_stream().ptr
            try:
                return function(*arrays)
            finally:
                event.marks = (base, first, _mark())

        return timed

    def read(self, events: Iterable[Event]) -> None:
        """Fill in the devices' times; waits for them."""
        for event in events:
            if event.marks is not None:
                (base, time), first, last = event.marks
                last.synchronize()
                event.device_start = time + 1e3 * cupy.cuda.get_elapsed_time(base, first)
                event.device_time = 1e3 * cupy.cuda.get_elapsed_time(first, last)
                event.marks = None


def _mark() -> Any:
    event = cupy.cuda.Event()
    event.record()
    return event
