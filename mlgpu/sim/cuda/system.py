"""The simulated system: its devices, their memory and their work."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.capture_rules import Captures
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.findings import Findings
from mlgpu.sim.cuda.graphs import Graphs
from mlgpu.sim.cuda.hazards import Hazards
from mlgpu.sim.cuda.lock import Lock
from mlgpu.sim.cuda.memory import Memory, space_of
from mlgpu.sim.cuda.properties import attributes
from mlgpu.sim.cuda.streams import LEGACY, PER_THREAD, Event, Ranges, Stream, Streams, Work
from mlgpu.sim.errors import Finding
from mlgpu.sim.launch import Launch
from mlgpu.sim.machine import Machine, Module

HERE = str(Path(__file__).parents[2]) + os.sep  # the package mlgpu


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
        self.told = False  # the program knows of the error
        self.limits: dict[int, int] = {0: 1024, 1: 1 << 20, 2: 8 << 20, 3: 2, 4: 2048, 5: 64}


class System:
    """All that the CUDA runtime of this process stands for."""

    def __init__(self, devices: int, arch: str, memory: int, seed: int = 0,
                 **options: Any) -> None:
        self.lock = Lock()
        self.closed = False  # the program has ended; what is still freed needs nobody
        self.devices = [Device(n, arch, memory, **options) for n in range(devices)]
        self.memory = Memory([d.space for d in self.devices])
        self.streams = Streams(seed)
        self.hazards = Hazards(self.streams, self.memory,
                               lambda work, finding: self.failed(work.stream.device, finding))
        if "racecheck" in self.devices[0].machine.checks:
            self.streams.watch = self.hazards
        self.in_host_function = False
        self.captures = Captures()
        self.graphs = Graphs(self)
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

    @property
    def has_context(self) -> bool:
        """Whether the calling thread has used its device."""
        return hasattr(self.threads, "device")

    def device(self, number: int) -> Device:
        """A device by number.  CudaError where there is none."""
        if not 0 <= number < len(self.devices):
            raise CudaError(errors.INVALID_DEVICE, f"device {number}: there are "
                                                   f"{len(self.devices)} simulated devices")
        return self.devices[number]

    def check(self) -> None:
        """Raise the error that sticks to the calling thread's device."""
        self.permitted()
        device = self.threads.device = self.current  # from now on it has a context
        self._raise(device)

    def _raise(self, device: int) -> None:
        error = self.devices[device].error
        if error is not None:  # a new one: what is raised keeps all frames it comes through
            self.devices[device].told = True
            raise CudaError(error.status, error.text, error.finding)

    def permitted(self) -> None:
        """CudaError within a host function."""
        if self.in_host_function:
            raise CudaError(errors.NOT_PERMITTED, "a host function, which a stream calls, must "
                            "not call CUDA: have it tell the program's own threads what to do")

    def reset(self) -> None:
        """Forget findings, and errors that stick; what waits is dropped."""
        with self.lock:
            self.streams.drop()
            self.captures.clear()
            for device in self.devices:
                device.error, device.told = None, False
            self.findings.clear()

    # -- handles ----------------------------------------------------------------------------------

    def stream(self, handle: int) -> Stream:
        """A stream by handle.  CudaError where there is none."""
        if handle in (0, LEGACY):
            return self.streams.default_of(self.current)
        if handle == PER_THREAD:
            own: OwnStreams = self.threads.__dict__.setdefault("streams", OwnStreams())
            return own.of_device(self.streams, self.current)
        stream = self.streams.streams.get(handle)
        if stream is None:
            if handle in self.streams.issued:  # a GPU's driver may crash in place of an error
                where, _, line = caller().rpartition(":")
                self.findings.add(Finding("memcheck", "use after free", f"the stream {handle:#x} "
                                          "was destroyed before", file=where,
                                          line=int(line) if line.isdecimal() else 0))
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
               needs: Iterable[Work] = (), reads: Ranges = (),
               writes: Ranges = ()) -> Work | None:
        """Put work at a stream's end.  None where that is captured: then it is only written down.

        - `needs`: work that it comes after, besides what the stream has.
        - `reads`, `writes`: addresses and sizes of the memory that it uses, but for launches,
          whose accesses are seen.
        """
        self.permitted()
        if stream.capture is not None:
            stream.capture.add(stream, run, what, caller(), reads=reads, writes=writes)
            return None
        self.captures.check_default(what, stream)
        return self.streams.submit(stream, run, what, caller(), needs, reads, writes)

    def notice(self) -> None:
        """See to what the program has freed by now."""
        if self.streams.notice is not None:
            self.streams.notice()

    def finish(self, *works: Work | None) -> None:
        """Wait for work.  CudaError where some of it fails; the error sticks to the device."""
        wanted = [w for w in works if w is not None]
        self.streams.finish(wanted)
        self.check()
        for work in wanted:
            self._raise(work.stream.device)

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

    def close(self) -> None:
        """The program ends: do what nothing has waited for, and tell of what no call has told."""
        with self.lock:
            told = set(self.findings)
            told -= {d.error.finding for d in self.devices if d.error is not None and not d.told}
            problems: list[Exception] = []
            try:
                self.streams.finish([w for n, device in enumerate(self.devices)
                                     if device.error is None for w in self.streams.of_device(n)])
            except Exception as error:
                problems.append(error)
            for problem in (*(f for f in self.findings if f not in told), *problems):
                print("mlgpu: the program has ended without waiting for all its work, which has "
                      f"this fault:\n{problem}", file=sys.stderr)
            self.closed = True

    def failed(self, device: int, finding: Finding) -> None:
        """A kernel is at fault.  No later call on the device succeeds, unless findings collect."""
        self.findings.add(finding)
        found = self.devices[device]
        if found.error is None and not self.collects:
            found.error = CudaError(errors.status_of(finding), str(finding), finding)


class OwnStreams:
    """A thread's own default streams, which go when it ends."""

    def __init__(self) -> None:
        self._streams: dict[int, Stream] = {}  # by device

    def of_device(self, streams: Streams, device: int) -> Stream:
        """The thread's stream on a device."""
        if device not in self._streams:
            stream = self._streams[device] = streams.create(device)
            weakref.finalize(self, streams.abandon, stream.handle).atexit = False
        return self._streams[device]


def caller() -> str:
    """The "file:line" outside CuPy and mlgpu that called."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        name = frame.f_code.co_filename
        if not name.startswith(HERE) and _CUPY not in name and "/cupyx/" not in name:
            break
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


_CUPY = "/site-packages/cupy"
