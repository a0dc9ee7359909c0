"""Which streams are captured, and what is forbidden meanwhile.

The rules are those of "Stream capture" in the CUDA C++ Programming Guide; where it leaves open
which error a call gives and whether the capture survives it, an H200 with CUDA 13.0 was asked.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.capture import Capture
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.streams import Event, Stream

GLOBAL, THREAD_LOCAL, RELAXED = range(3)  # cudaStreamCaptureMode
EXTERNAL = 1  # cudaEventWaitExternal


class Captures:
    """All captures under way, and what they forbid."""

    def __init__(self) -> None:
        self.active: list[Capture] = []

    # -- begin and end ----------------------------------------------------------------------------

    def begin(self, stream: Stream, mode: int) -> None:
        """From now on, write down what the stream is to do."""
        if not GLOBAL <= mode <= RELAXED:
            raise CudaError(errors.INVALID_VALUE, "cudaStreamBeginCapture: there is no mode "
                                                  f"{mode}")
        if stream.handle == 0:
            raise CudaError(errors.CAPTURE_UNSUPPORTED, "cudaStreamBeginCapture: the default "
                            "stream cannot be captured; use a stream of your own")
        if stream.capture is not None:
            raise CudaError(errors.ILLEGAL_STATE, f"cudaStreamBeginCapture: {stream} is captured "
                                                  "already")
        capture = Capture(stream, mode, threading.get_ident(), heads={stream: ()})
        stream.capture = capture
        self.active.append(capture)

    def end(self, stream: Stream) -> Capture:
        """What was written down is complete."""
        capture: Capture | None = stream.capture
        if capture is None:
            raise CudaError(errors.ILLEGAL_STATE, f"cudaStreamEndCapture: {stream} is not captured")
        if capture.origin is not stream:
            self._refuse(errors.CAPTURE_UNMATCHED, "cudaStreamEndCapture", f"the capture began on "
                         f"{capture.origin} and ends there, not on {stream}", [capture])
        if capture.mode != RELAXED and capture.thread != threading.get_ident():
            self._leave(capture)
            raise CudaError(errors.CAPTURE_WRONG_THREAD, "cudaStreamEndCapture: a capture ends in "
                            "the thread that began it, unless its mode is relaxed")
        joined, others = capture.joined(), [str(s) for s in capture.heads if s is not stream]
        self._leave(capture, joined and not capture.broken)
        capture.check()
        if not joined:
            raise CudaError(errors.CAPTURE_UNJOINED, "cudaStreamEndCapture: work on "
                            f"{' or '.join(others)} is not awaited by {stream}; record an event "
                            "after it and have the stream wait for that before the capture ends")
        return capture

    def _leave(self, capture: Capture, well: bool = False) -> None:
        capture.ended = True
        for stream in capture.heads:
            stream.capture = None
        capture.heads.clear()
        capture.recorded.clear()
        self.active.remove(capture)
        if not well:
            for act in capture.after:
                act()

    def clear(self) -> None:
        """Give up all captures."""
        for capture in list(self.active):
            self._leave(capture)

    def destroyed(self, stream: Stream) -> None:
        """A stream is gone; with the first one, its capture is."""
        capture: Capture | None = stream.capture
        if capture is None:
            return
        if capture.origin is stream:
            self._leave(capture)
        else:
            del capture.heads[stream]

    def state(self, stream: Stream) -> int:
        """1 while the stream is captured.  RuntimeError, as CuPy has it, if the capture is invalid.
        """
        capture: Capture | None = stream.capture
        if capture is not None and capture.broken:
            raise RuntimeError(f"{stream} was capturing, but an illegal call has made the capture "
                               f"invalid: {capture.broken}")
        if stream.handle == 0 and self._beside(stream):
            raise CudaError(errors.CAPTURE_IMPLICIT, "cudaStreamIsCapturing: a stream that takes "
                                                     "turns with the default stream is captured")
        return int(capture is not None)

    # -- events -----------------------------------------------------------------------------------

    def record(self, event: Event, stream: Stream) -> bool:
        """An event marks a place in a capture.  False where the stream is not captured."""
        capture: Capture | None = stream.capture
        if capture is not None:
            capture.check()
            capture.recorded[event] = capture.heads[stream]
        event.captured, event.work = capture, event.work if capture is None else None
        return capture is not None

    def wait(self, stream: Stream, event: Event, flags: int, where: str) -> bool:
        """A stream waits for an event within a capture.  False where none is concerned."""
        into: Capture | None = stream.capture
        of: Capture | None = event.captured
        what = "cudaStreamWaitEvent"
        if into is not None:
            into.check()
        if of is None:
            if into is None:
                return False
            if flags & EXTERNAL:
                into.add(stream, None, "wait for an event", where, event)
            elif event.work is not None:
                self._refuse(errors.CAPTURE_ISOLATION, what, f"the event was recorded outside "
                             f"{stream}'s capture, which cannot depend on it", [into])
            return True
        if of.ended or of.broken:
            self._refuse(errors.INVALID_VALUE, what, "the event was recorded in a capture that "
                         "has ended or is invalid, and stands for no work; record it again",
                         [] if into is None else [into])
        if stream.handle == 0:
            self._refuse(errors.CAPTURE_IMPLICIT, what, "the default stream cannot join a capture",
                         [of])
        if into not in (None, of):
            self._refuse(errors.CAPTURE_MERGE, what, "the event belongs to another capture, and "
                         "two captures cannot become one", [c for c in (into, of) if c is not None])
        of.join(stream, event)
        return True

    def check_event(self, what: str, event: Event) -> None:
        """Waiting for an event, or asking for it."""
        self._check_captured(what, event, True)
        self.check_unsafe(what)

    def check_time(self, what: str, event: Event) -> None:
        """Asking an event for its time, which no capture minds."""
        self._check_captured(what, event, False)

    def _check_captured(self, what: str, event: Event, breaks: bool) -> None:
        capture: Capture | None = event.captured
        if capture is None:
            return
        if capture.ended or capture.broken:
            raise CudaError(errors.INVALID_VALUE, f"{what}: the event was recorded in a capture, "
                                                  "and stands for no work; record it again")
        self._refuse(errors.CAPTURED_EVENT, what, "the event was recorded in a capture, whose work "
                     "is only written down", [capture] if breaks else [])

    # -- what captures forbid ---------------------------------------------------------------------

    def check_wait(self, what: str, stream: Stream) -> None:
        """Waiting for a stream, or asking for it."""
        if stream.capture is not None:
            self.refuse(what, "its work is only written down", stream)
        self.check_default(what, stream)
        self.check_unsafe(what)

    def check_device(self, what: str, device: int) -> None:
        """Waiting for a device."""
        found = [c for c in self.active if any(s.device == device for s in c.heads)]
        if found:
            self._refuse(errors.CAPTURE_UNSUPPORTED, what, f"{found[0].origin} is being captured; "
                         "nothing may wait for the device meanwhile", found)

    def check_default(self, what: str, stream: Stream) -> None:
        """Any use of a default stream, which takes turns with streams that may be captured."""
        found = self._beside(stream) if stream.handle == 0 and self.active else []
        if found:
            self._refuse(errors.CAPTURE_IMPLICIT, what, f"{found[0].origin} is being captured and "
                         "takes turns with the default stream, which therefore cannot be used; "
                         "capture a stream made with non_blocking=True", found)

    def _beside(self, stream: Stream) -> list[Capture]:
        """The captures that a default stream would take turns with."""
        return [c for c in self.active
                if any(s.blocking and s.device == stream.device for s in c.heads)]

    def check_unsafe(self, what: str) -> None:
        """A call that may wait for work by itself, such as cudaMalloc."""
        thread = threading.get_ident()
        found = [c for c in self.active
                 if c.mode == GLOBAL or (c.mode == THREAD_LOCAL and c.thread == thread)]
        if found:
            self._refuse(errors.CAPTURE_UNSUPPORTED, what, f"{found[0].origin} is being captured; "
                         "this call is allowed meanwhile only if the capture's mode is relaxed",
                         found)

    def refuse(self, what: str, why: str, stream: Stream) -> None:
        """Raise the error of a call that a captured stream cannot take; its capture is invalid."""
        self._refuse(errors.CAPTURE_UNSUPPORTED, what, f"{stream} is being captured: {why}",
                     [stream.capture])

    def _refuse(self, status: int, what: str, why: str, broken: Iterable[Capture]) -> None:
        for capture in broken:
            capture.broken = capture.broken or f"{what}: {why}"
        raise CudaError(status, f"{what}: {why}")
