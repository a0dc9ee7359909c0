"""Recording events: where operations pass through while a profile runs.

Every operation of every device runs through `call` of the device's runtime, and every kernel
through `Kernel.start`.  Recording puts its own functions in these two places and takes them away
again, so that nothing is left in the way while no profile runs.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlgpu import memory
from mlgpu.autograd.mode import observe
from mlgpu.cpu.runtime import CpuRuntime
from mlgpu.cuda.launch import Kernel
from mlgpu.cuda.runtime import CudaRuntime
from mlgpu.device import Device
from mlgpu.errors import MlgpuError
from mlgpu.op import Op, ViewOp
from mlgpu.profiler import nvtx
from mlgpu.profiler.events import Event, MemoryPoint

if TYPE_CHECKING:
    from typing_extensions import Self

    from mlgpu.profiler.clock import DeviceClock

_recorder: Recorder | None = None  # of the profile that runs


class Recorder:
    """Takes down what all threads do between `start` and `stop`."""

    def __init__(self, *, cpu: bool = True, cuda: bool = True, shapes: bool = False,
                 memory: bool = False, stack: bool = False) -> None:
        self.cpu, self.cuda = cpu, cuda
        self.shapes, self.memory, self.stack = shapes, memory, stack
        self.events: list[Event] = []
        self.points: list[MemoryPoint] = []
        self._threads = threading.local()
        self._clock: DeviceClock | None = None
        self._restore: list[Callable[[], None]] = []
        self._begun = 0

    def start(self) -> None:
        """Begin.  MlgpuError while another profile runs."""
        global _recorder
        if _recorder is not None:
            raise MlgpuError("profile: another profile runs already; stop it first")
        _recorder = self
        self._begun = time.perf_counter_ns()
        observe(1)
        self._restore.append(lambda: observe(-1))
        for owner in (CpuRuntime, CudaRuntime):
            self._replace(owner, "call", self._around)
        self._replace(Kernel, "start", self._launching)

    def stop(self) -> None:
        """End, and read the times that the devices have taken; waits for the devices."""
        global _recorder
        for restore in self._restore:
            restore()
        self._restore = []
        _recorder = None
        if self._clock is not None:
            self._clock.read(self.events)

    def _replace(self, owner: Any, name: str, around: Callable[[Any], Any]) -> None:
        original = getattr(owner, name)
        setattr(owner, name, around(original))
        self._restore.append(lambda: setattr(owner, name, original))

    # --- operations -------------------------------------------------------------------------

    def _around(self, original: Any) -> Any:
        @functools.wraps(original)
        def call(engine: Any, function: Callable[..., Any], arrays: Sequence[Any], device: Device,
                 written: int = 0) -> Any:
            if not (self.cuda if device.type == "cuda" else self.cpu):
                return original(engine, function, arrays, device, written)
            event = self.enter(_name(function), "operator", str(device))
            if self.shapes:
                event.shapes = tuple(a.shape for a in arrays[written:] if a is not None)
            timed = function
            if device.type == "cuda":
                timed = self._device_clock().around(event, device, function)
            try:
                result = original(engine, timed, arrays, device, written)
                event.bytes = _bytes(function, arrays, result, written)
                return result
            finally:
                self.leave(event)

        return call

    def _launching(self, original: Any) -> Any:
        @functools.wraps(original)
        def launch(kernel: Kernel, *args: Any, **options: Any) -> None:
            open_events = self._stack()
            if open_events:
                open_events[-1].kernels.append(kernel.expression)
            original(kernel, *args, **options)

        return launch

    def _device_clock(self) -> DeviceClock:
        if self._clock is None:
            from mlgpu.profiler.clock import DeviceClock

            self._clock = DeviceClock(self.now)
        return self._clock

    # --- events -----------------------------------------------------------------------------

    def now(self) -> float:
        """Microseconds since the start."""
        return (time.perf_counter_ns() - self._begun) / 1e3

    def enter(self, name: str, kind: str, device: str = "cpu") -> Event:
        """Begin an event in this thread, inside the one that it is in."""
        open_events = self._stack()
        event = Event(name, kind, threading.get_ident(), device=device)
        if open_events:
            event.parent = open_events[-1]
            event.parent.children.append(event)
        open_events.append(event)
        self.events.append(event)
        if self.stack:
            event.where = memory._caller()
        event.start = self.now()
        if self.memory:
            event.memory = self._live(event.start)
        return event

    def leave(self, event: Event) -> None:
        """End an event."""
        now = self.now()
        event.time = now - event.start
        if self.memory:
            event.memory = {device: live - event.memory.get(device, 0)
                            for device, live in self._live(now).items()}
        open_events = self._stack()
        if event in open_events:  # whatever ended without its end
            del open_events[open_events.index(event):]

    def _live(self, now: float) -> dict[str, int]:
        found = {books.device: books.allocated for books in [*memory._accounts.values()]}
        self.points += [MemoryPoint(now, device, live) for device, live in found.items()]
        return found

    def _stack(self) -> list[Event]:
        found: list[Event] | None = getattr(self._threads, "open", None)
        if found is None:
            found = self._threads.open = []
        return found


def _name(function: Callable[..., Any]) -> str:
    """What an operation is called in a profile: relu, relu_ in place, relu_backward."""
    owner = getattr(function, "__self__", None)
    if isinstance(owner, Op):
        method = function.__name__
        ending = {"b": "_backward"}.get(method[0], "_" * ("_into" in method))
        return owner.name + ending
    inner = function.func if isinstance(function, functools.partial) else function
    name: str = getattr(inner, "__qualname__", type(inner).__name__)
    return name.removesuffix(".<locals>.<lambda>").rpartition(".")[2].lstrip("_")


def _bytes(function: Callable[..., Any], arrays: Sequence[Any], result: Any, written: int) -> int:
    if isinstance(getattr(function, "__self__", None), ViewOp):
        return 0
    results = () if written else result if isinstance(result, tuple) else (result,)
    return sum(int(getattr(a, "nbytes", 0)) for a in (*arrays, *results))


class record_function:
    """A range of the program under a name of its own, as torch.profiler.record_function.

    A context manager and a decorator; next to nothing while no profile runs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._entered: list[tuple[Recorder | None, Event | None]] = []

    def __enter__(self) -> Self:
        recorder = _recorder
        nvtx.push(self.name)
        event = recorder.enter(self.name, "range") if recorder is not None else None
        self._entered.append((recorder, event))
        return self

    def __exit__(self, *exception: object) -> None:
        recorder, event = self._entered.pop()
        if recorder is not None and event is not None:
            recorder.leave(event)
        nvtx.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **options: Any) -> Any:
            with record_function(self.name):
                return function(*args, **options)

        return wrapped


