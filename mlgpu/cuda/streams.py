"""Streams and events under PyTorch's names.

Operations run on the thread's current stream.  Tensors may be used on any stream: each operation
waits for the work its inputs come from, and memory is given out again only when every stream that
used it is done with it (`arrays.Block`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlgpu.cuda.arrays import cupy
from mlgpu.cuda.context import context
from mlgpu.device import Device, DeviceLike, device_of, resolve
from mlgpu.errors import DeviceError

if TYPE_CHECKING:
    from typing_extensions import Self


def cuda_device(name: str, device: DeviceLike | None) -> int:
    """The index of a CUDA device, the current one for None.  DeviceError for the CPU."""
    found = resolve("cuda" if device is None else device)
    if found.index is None:
        raise DeviceError(f"{name}: expected a CUDA device, got {found}")
    return found.index


class _Owned(cupy.cuda.Stream):  # type: ignore[misc, name-defined]
    """CuPy's stream, which tells when CUDA has none any more: its handle must not be used then."""

    gone = False

    def __del__(self) -> None:
        self.gone = True
        super().__del__()


class _Address:
    """An address of CUDA's under the protocol that CuPy takes."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


class Stream:
    """Work in order on one device, as torch.cuda.Stream.

    `priority` below 0 is more urgent.  A stream does not wait for the default stream by itself; the
    tensors that operations use do that.
    """

    def __init__(self, device: DeviceLike | None = None, priority: int = 0) -> None:
        self._index = cuda_device("Stream", device)
        with cupy.cuda.Device(self._index):
            self.raw = _Owned(non_blocking=True, priority=priority)
        self._entered: list[tuple[Any, Stream | None]] = []

    @classmethod
    def from_external(cls, stream: Any, device: DeviceLike | None = None) -> Stream:
        """A stream that CuPy, PyTorch or another library made (`__cuda_stream__` or its address).

        Its owner must keep it alive.
        """
        self = object.__new__(cls)
        self._index = cuda_device("Stream", device)
        if isinstance(stream, int):
            stream = _Address(stream)
        if isinstance(stream, cupy.cuda.Stream):
            self.raw = stream
        elif hasattr(stream, "__cuda_stream__"):
            with cupy.cuda.Device(self._index):
                self.raw = cupy.cuda.Stream.from_external(stream)
        else:
            raise TypeError(f"Stream.from_external: expected a stream, got "
                            f"{type(stream).__name__}")
        self._entered = []
        return self

    @property
    def device(self) -> Device:
        """The device it belongs to."""
        return device_of(self._index)

    @property
    def cuda_stream(self) -> int:
        """CUDA's handle."""
        return int(self.raw.ptr)

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream

    def synchronize(self) -> None:
        """Wait until all its work is done; raise what kernels recorded."""
        from mlgpu.cuda.faults import raise_recorded

        self.raw.synchronize()
        raise_recorded(self._index)

    def query(self) -> bool:
        """Whether all its work is done."""
        return bool(self.raw.done)

    def wait_event(self, event: Event) -> None:
        """Let further work here start after the event."""
        self.raw.wait_event(event.recorded("wait_event"))

    def wait_stream(self, stream: Stream) -> None:
        """Let further work here start after all that `stream` has been given so far."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        """An event that comes when the work given so far is done."""
        event = event or Event()
        event.record(self)
        return event

    def __enter__(self) -> Self:
        """Make it this thread's current stream on its device, and that the current device."""
        runtime = cupy.cuda.runtime
        before = runtime.getDevice()
        runtime.setDevice(self._index)
        self._entered.append((before, context.streams.get(self._index)))
        _make_current(self._index, self)
        return self

    def __exit__(self, *exception: object) -> None:
        device, stream = self._entered.pop()
        _make_current(self._index, stream)
        cupy.cuda.runtime.setDevice(device)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and (self._index, self.cuda_stream) == (
            other._index, other.cuda_stream)

    def __hash__(self) -> int:
        return hash((self._index, self.cuda_stream))

    def __repr__(self) -> str:
        return f"<mlgpu.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


def _make_current(index: int, stream: Stream | None) -> None:
    if stream is None or stream.raw.ptr == 0:
        context.streams.pop(index, None)
        cupy.cuda.Stream.null.use()
    else:
        context.streams[index] = stream
        stream.raw.use()


_defaults: dict[int, Stream] = {}


def default_stream(device: DeviceLike | None = None) -> Stream:
    """The stream that work goes to where no other was chosen."""
    index = cuda_device("default_stream", device)
    if index not in _defaults:
        made = object.__new__(Stream)
        made._index, made.raw, made._entered = index, cupy.cuda.Stream.null, []
        _defaults.setdefault(index, made)
    return _defaults[index]


def current_stream(device: DeviceLike | None = None) -> Stream:
    """This thread's current stream on a device (default: the current one)."""
    index = cuda_device("current_stream", device)
    return context.streams.get(index) or default_stream(device_of(index))


def set_stream(stream: Stream) -> None:
    """Make `stream` current in this thread for good; `with mlgpu.cuda.stream(s):` is the rule."""
    with cupy.cuda.Device(stream._index):
        _make_current(stream._index, stream)


class stream:
    """`with mlgpu.cuda.stream(s):` runs what is inside on `s`; None changes nothing."""

    def __init__(self, stream: Stream | None) -> None:
        if stream is not None and not isinstance(stream, Stream):
            stream = Stream.from_external(stream)
        self.stream = stream

    def __enter__(self) -> Stream | None:
        return None if self.stream is None else self.stream.__enter__()

    def __exit__(self, *exception: object) -> None:
        if self.stream is not None:
            self.stream.__exit__(*exception)


class Event:
    """A mark in a stream's work, as torch.cuda.Event."""

    def __init__(self, enable_timing: bool = False, blocking: bool = False,
                 interprocess: bool = False) -> None:
        if interprocess and enable_timing:
            raise DeviceError("Event: an event for other processes cannot take times")
        self._options = {"block": blocking, "disable_timing": not enable_timing,
                         "interprocess": interprocess}
        self._timing = enable_timing
        self.raw: Any = None  # made on the device of the first stream that records it
        self._index = 0

    def record(self, stream: Stream | None = None) -> None:
        """Put the mark behind what `stream` (default: the current one) has been given so far."""
        stream = stream or current_stream()
        with cupy.cuda.Device(stream._index):
            if self.raw is None or self._index != stream._index:
                self.raw, self._index = cupy.cuda.Event(**self._options), stream._index
            self.raw.record(stream.raw)

    def recorded(self, name: str) -> Any:
        """CuPy's event.  DeviceError where it was never recorded."""
        if self.raw is None:
            raise DeviceError(f"{name}: the event was not recorded in any stream; call record()")
        return self.raw

    def wait(self, stream: Stream | None = None) -> None:
        """Let further work on `stream` (default: the current one) start after this."""
        (stream or current_stream()).wait_event(self)

    def query(self) -> bool:
        """Whether what lies before it is done; True where it was never recorded."""
        return self.raw is None or bool(self.raw.done)

    def synchronize(self) -> None:
        """Wait until what lies before it is done; raise what kernels recorded."""
        from mlgpu.cuda.faults import raise_recorded

        if self.raw is not None:
            self.raw.synchronize()
            raise_recorded(self._index)

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this event to another.  Both need enable_timing=True."""
        if not (self._timing and end_event._timing):
            raise DeviceError("elapsed_time: both events need enable_timing=True")
        return float(cupy.cuda.get_elapsed_time(self.recorded("elapsed_time"),
                                                end_event.recorded("elapsed_time")))


_beside: dict[int, Stream] = {}  # the stream of copies, by device


def beside(device: Device) -> stream:
    """A context in which copies of a device run beside what the program computes on it.

    Tensors are ordered by their use, as always: a copy starts when its source has been computed,
    and who uses its result waits for it.
    """
    index = cuda_device("beside", device)
    found = _beside.get(index)
    if found is None:
        found = _beside.setdefault(index, Stream(device))
    return stream(found)
