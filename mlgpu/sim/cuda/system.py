"""The simulated system: its devices, their memory and their work."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.findings import Findings
from mlgpu.sim.cuda.memory import Memory, space_of
from mlgpu.sim.cuda.properties import attributes
from mlgpu.sim.cuda.streams import LEGACY, PER_THREAD, Event, Stream, Streams, Work
from mlgpu.sim.errors import Finding
from mlgpu.sim.launch import Launch
from mlgpu.sim.machine import Machine, Module

HERE = str(Path(__file__).parent.parent)


class Device:
    """One simulated GPU."""

    def __init__(self, number: int, arch: str, memory: int, **options: Any) -> None:
        self.number = number
        self.machine = Machine(arch=arch, memory=memory, **options)
        self.machine.space = space_of(number, memory)
        self.space = self.machine.space
        self.memory = memory
        self.attributes = attributes(self.machine.arch, number)
        self.peers: set[int] = set()
        self.error: CudaError | None = None  # sticks until the process ends, or `reset`
        self.limits: dict[int, int] = {0: 1024, 1: 1 << 20, 2: 8 << 20, 3: 2, 4: 2048, 5: 64}


class System:
    """All that the CUDA runtime of this process stands for."""

    def __init__(self, devices: int, arch: str, memory: int, seed: int = 0,
                 **options: Any) -> None:
        self.lock = threading.RLock()
        self.devices = [Device(n, arch, memory, **options) for n in range(devices)]
        self.memory = Memory([d.space for d in self.devices])
        self.streams = Streams(seed)
        self.threads = threading.local()
        self.findings = Findings()
        self.collects = options.get("findings") == "collect"  # no error sticks then
        self.watchers: list[Callable[[Launch, Module], None]] = []  # are told of launches

    # -- the calling thread -----------------------------------------------------------------------

    @property
    def current(self) -> int:
        """The calling thread's device."""
        return getattr(self.threads, "device", 0)

    @current.setter
    def current(self, device: int) -> None:
        self.device(device)
        self.threads.device = device

    def device(self, number: int) -> Device:
        """A device by number.  CudaError where there is none."""
        if not 0 <= number < len(self.devices):
            raise CudaError(errors.INVALID_DEVICE, f"device {number}: there are "
                                                   f"{len(self.devices)} simulated devices")
        return self.devices[number]

    def check(self) -> None:
        """Raise the error that sticks to the calling thread's device."""
        error = self.devices[self.current].error
        if error is not None:
            raise error

    def reset(self) -> None:
        """Forget findings, and errors that stick; what waits is dropped."""
        with self.lock:
            for work in list(self.streams.waiting):
                work.done, work.run = True, None
            self.streams.waiting.clear()
            for device in self.devices:
                device.error = None
            self.findings.clear()

    # -- handles ----------------------------------------------------------------------------------

    def stream(self, handle: int) -> Stream:
        """A stream by handle.  CudaError where there is none."""
        if handle in (0, LEGACY):
            return self.streams.default_of(self.current)
        if handle == PER_THREAD:
            own: dict[int, Stream] = self.threads.__dict__.setdefault("streams", {})
            if self.current not in own:
                own[self.current] = self.streams.create(self.current)
            return own[self.current]
        stream = self.streams.streams.get(handle)
        if stream is None:
            raise CudaError(errors.INVALID_HANDLE, f"{handle:#x} is no stream, or is destroyed")
        return stream

    def event(self, handle: int) -> Event:
        """An event by handle.  CudaError where there is none."""
        event = self.streams.events.get(handle)
        if event is None:
            raise CudaError(errors.INVALID_HANDLE, f"{handle:#x} is no event, or is destroyed")
        return event

    # -- work -------------------------------------------------------------------------------------

    def submit(self, stream: Stream, run: Callable[[], Any] | None, what: str,
               needs: Iterable[Work] = ()) -> Work:
        """Put work at a stream's end."""
        return self.streams.submit(stream, run, what, caller(), needs)

    def finish(self, *works: Work | None) -> None:
        """Wait for work.  CudaError where some of it fails; the error sticks to the device."""
        self.streams.finish([w for w in works if w is not None])
        self.check()

    def drain(self) -> None:
        """Run all that waits, of whatever stream.  An exception of a piece of work goes on to the
        caller, who may call again for the rest.
        """
        with self.lock:
            while self.streams.waiting:
                self.streams.finish(list(self.streams.waiting))

    def finish_device(self, device: int) -> None:
        """Wait for all work of a device."""
        self.finish(*self.streams.of_device(device))

    def failed(self, device: int, finding: Finding) -> None:
        """A kernel is at fault.  No later call on the device succeeds, unless findings collect."""
        self.findings.add(finding)
        found = self.devices[device]
        if found.error is None and not self.collects:
            found.error = CudaError(errors.status_of(finding), str(finding), finding)


def caller() -> str:
    """The "file:line" outside CuPy and this package that called."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if not name.startswith(HERE) and _CUPY not in name and "/cupyx/" not in name:
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_CUPY = "/site-packages/cupy"
