"""CUDA graphs: a step recorded once and launched as a whole, as torch.cuda.CUDAGraph.

While a graph is captured, operations are recorded instead of run.  Its memory comes from a pool of
its own, which lives as long as the graph, so that addresses stay.  What the host keeps beside the
device (the offset of the random numbers, the steps of an optimizer, versions of what was changed in
place) is told to the capture as an `effect`, which follows each replay; the capture itself leaves
it as it was.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import numpy as np

from mlgpu.autograd.mode import mode
from mlgpu.cuda.arrays import cupy
from mlgpu.cuda.context import context
from mlgpu.cuda.streams import Stream, cuda_device
from mlgpu.device import current_device, device_of
from mlgpu.errors import CaptureError, MlgpuError
from mlgpu.ops.creation import empty_like
from mlgpu.tensor import Tensor

P = ParamSpec("P")
R = TypeVar("R")
_runtime = cupy.cuda.runtime


class Capture:
    """What one capture collects."""

    def __init__(self, pool: Any, index: int) -> None:
        self.pool, self.index = pool, index
        self.uses: dict[int, tuple[weakref.ref[Any], bool]] = {}  # blocks, and whether written
        self.versions: list[Any] = []  # storages changed in place, once for each change
        self.before: list[Callable[[], Any]] = []  # to be done before each replay
        self.effects: list[Callable[[], Any]] = []  # and after each
        self.kept: list[Any] = []  # arrays that the graph reads and nobody else holds
        self.draws: dict[Any, Any] = {}  # by generator: its part (mlgpu.random.Replayed)
        self.settings: dict[Any, Any] = {}  # by optimizer: what schedules move (mlgpu.optim.ahead)
        self.counts: dict[int, Any] = {}  # by id of a count of steps: where it is on the device
        self.reports = False  # whether a kernel may report a fault

    def use(self, block: Any, write: bool) -> None:
        """Note that the graph reads or writes a block."""
        known = self.uses.get(id(block))
        # The number of a block that is gone may be another's.
        if known is None or known[0]() is not block or (write and not known[1]):
            self.uses[id(block)] = weakref.ref(block), write


def upload(values: np.ndarray[Any, Any]) -> Any:
    """A small array on the current device, during a capture too: the graph will find it there.

    For tables that kernels read, such as addresses; not for data.
    """
    from mlgpu.cuda import transfer

    capture = context.capture
    if capture is None:
        return transfer.from_host(values, False)[0]
    side = _side_stream(capture.index)
    context.capture = None
    try:
        with side:
            made = transfer.from_host(values, False)[0]
        side.raw.synchronize()
    finally:
        context.capture = capture
    made.data.mem.writer = made.data.mem.home
    capture.kept.append(made)
    return made


_sides: dict[int, Stream] = {}


def _side_stream(index: int) -> Stream:
    if index not in _sides:
        _sides[index] = Stream(device_of(index))
    return _sides[index]


class CUDAGraph:
    """Work that was captured; `replay()` does it again, with what then lies in the same memory."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._pool: Any = None
        self._capture: Capture | None = None
        self._stream: Stream | None = None
        self._index = 0

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "relaxed") -> None:
        """Record what this thread does on the current stream, which must not be the default one.

        `pool` is another graph's `pool()`, to share memory with it where they never run at once.
        CaptureError where this thread captures already, or this graph was captured before.
        """
        modes = {"relaxed": _runtime.streamCaptureModeRelaxed,
                 "thread_local": _runtime.streamCaptureModeThreadLocal,
                 "global": _runtime.streamCaptureModeGlobal}
        if capture_error_mode not in modes:
            raise CaptureError(f"capture_begin: capture_error_mode is one of {', '.join(modes)}, "
                               f"got {capture_error_mode!r}")
        if context.capture is not None:
            raise CaptureError("capture_begin: this thread is capturing a graph already")
        if self._graph is not None:
            raise CaptureError("capture_begin: this graph was captured; reset() it first")
        index = _runtime.getDevice()
        stream = context.streams.get(index)
        if stream is None:
            raise CaptureError("capture_begin: the default stream cannot be captured; use "
                               "mlgpu.cuda.graph, or mlgpu.cuda.stream(s)")
        from mlgpu.device import runtime

        runtime(device_of(index)).synchronize(device_of(index))
        self._index, self._stream = index, stream
        self._pool = pool if pool is not None else cupy.cuda.MemoryPool()
        stream.raw.begin_capture(modes[capture_error_mode])
        context.capture = self._capture = Capture(self._pool, index)
        mode.capture = self._capture

    def capture_end(self) -> None:
        """End the recording.  What was recorded has not run: the first `replay()` does that."""
        capture, stream = self._capture, self._stream
        if capture is None or stream is None or context.capture is not capture:
            raise CaptureError("capture_end: no capture of this graph is under way in this thread")
        context.capture = None
        mode.capture = None
        try:
            self._graph = stream.raw.end_capture()
        except _runtime.CUDARuntimeError as error:
            self._forget()
            raise CaptureError(f"capture_end: the capture is invalid: {error}; an operation that "
                               "waits or reads on the host was part of it") from error
        self._graph.upload(stream.raw)
        for storage in capture.versions:  # nothing has been changed yet
            storage.version -= 1

    def _abandon(self) -> None:
        """End a capture in which something went wrong."""
        context.capture = None
        mode.capture = None
        try:
            assert self._stream is not None
            self._stream.raw.end_capture()
        except _runtime.CUDARuntimeError:
            pass  # it is invalid already, which is what the error under way says
        self._forget()

    def _forget(self) -> None:
        self._graph = self._capture = self._pool = None

    def replay(self) -> None:
        """Launch the graph on the current stream, and bring what the host keeps up to date."""
        capture = self._capture
        if self._graph is None or capture is None:
            raise CaptureError("replay: nothing was captured")
        if context.capture is not None:
            raise CaptureError("replay: a graph cannot be launched while another is captured")
        with cupy.cuda.Device(self._index):
            for prepare in capture.before:
                prepare()
            stream = context.streams.get(self._index)
            for reference, write in capture.uses.values():
                block = reference()
                if block is not None and (block.writer is not stream or (write and block.readers)):
                    block.use(stream, write)
            self._graph.launch(cupy.cuda.Stream.null if stream is None else stream.raw)
        if capture.reports:
            from mlgpu.cuda import faults

            faults.watch(self._index)
        for storage in capture.versions:
            storage.version += 1
        for effect in capture.effects:
            effect()

    def pool(self) -> Any:
        """Its memory pool, for `mlgpu.cuda.graph(..., pool=)` of another graph."""
        return self._pool

    def reset(self) -> None:
        """Forget what was captured; tensors made in it stay until they are dropped."""
        self._forget()

    def debug_dump(self, debug_path: str) -> None:
        """Write the graph's nodes to a file in Graphviz's language."""
        if self._graph is None:
            raise CaptureError("debug_dump: nothing was captured")
        with open(debug_path, "w") as file:
            file.write(self._graph.debug_dot_str())


class _Capturing:
    """`with mlgpu.cuda.graph(g):`."""

    def __init__(self, graph: CUDAGraph, pool: Any, stream: Stream | None,
                 capture_error_mode: str) -> None:
        self._graph, self._pool, self._mode = graph, pool, capture_error_mode
        self._stream = stream or Stream()

    def __enter__(self) -> CUDAGraph:
        self._stream.__enter__()
        try:
            self._graph.capture_begin(self._pool, self._mode)
        except BaseException:
            self._stream.__exit__()
            raise
        return self._graph

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if error is None:
                self._graph.capture_end()
            else:
                self._graph._abandon()
        finally:
            self._stream.__exit__()


class Captured(Generic[P, R]):
    """A step that runs as one graph, from its second call on; see `graph`."""

    def __init__(self, function: Callable[P, R], warmup: int, pool: Any) -> None:
        self.function = function
        self.graph: CUDAGraph | None = None
        self._warmup, self._pool, self._calls = warmup, pool, 0
        self._inputs: list[Tensor] = []
        self._result: Any = None
        self._key: Any = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        found: list[Tensor] = []
        shape = _mapped((args, kwargs), lambda tensor: found.append(tensor))
        device = next((t.device for t in found), current_device())
        if device.type == "cpu":
            return self.function(*args, **kwargs)
        key = (shape, [(t.shape, t.dtype, t.device) for t in found])
        if self._key is not None and key != self._key:
            raise CaptureError("graph: the step was captured for other shapes, dtypes or numbers; "
                               "a captured step takes the same every time (pad the last batch)")
        self._key = key
        self._calls += 1
        with cupy.cuda.Device(cuda_device("graph", device)):
            if self._calls <= self._warmup:
                return self.function(*args, **kwargs)
            if self.graph is None:
                self._record(args, kwargs, found)
            assert self.graph is not None
            from mlgpu.autograd import no_grad

            with no_grad():
                for static, given in zip(self._inputs, found, strict=True):
                    static.copy_(given)
            self.graph.replay()
        return self._result  # type: ignore[no-any-return]

    def _record(self, args: Any, kwargs: Any, found: Sequence[Tensor]) -> None:
        self._inputs = [empty_like(t, requires_grad=t.requires_grad) for t in found]
        fresh = iter(self._inputs)
        args, kwargs = _mapped((args, kwargs), lambda _: next(fresh))
        graph = CUDAGraph()
        with _Capturing(graph, self._pool, None, "relaxed"):
            result = self.function(*args, **kwargs)
            self._result = _mapped(result, lambda tensor: tensor.detach())
        self.graph = graph


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    """Nested lists, tuples and dicts with each tensor replaced."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: _mapped(item, function) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_mapped(item, function) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def graph(cuda_graph: Any, pool: Any = None, stream: Stream | None = None,
          capture_error_mode: str = "relaxed", *, warmup: int = 1) -> Any:
    """Capture work: `with mlgpu.cuda.graph(g):`, as PyTorch, or `step = mlgpu.cuda.graph(step)`.

    With a CUDAGraph, what runs inside the block is recorded into it, on `stream` or one of its own.

    With a function, returns one that does the same: it runs as it is for the first `warmup` calls
    (which compile kernels and make what is made once) and is then captured; from there on a call
    copies its tensors into those that were captured and replays, which is one launch.  Every call
    is one step, whichever way it ran; the result's tensors are overwritten by the next call.  On
    the CPU it always runs as it is.  Its tensors say which device that is, and without any the
    current default device does.

    Raises CaptureError for what cannot be part of a graph: reading on the host (`item`, `bool`,
    printing), results whose size depends on values, copies from and to the host, calls that
    CuPy's libraries refuse; and for a call with other shapes than those captured.
    """
    if isinstance(cuda_graph, CUDAGraph):
        return _Capturing(cuda_graph, pool, stream, capture_error_mode)
    if not callable(cuda_graph):
        raise TypeError(f"graph: expected a CUDAGraph or a function, got "
                        f"{type(cuda_graph).__name__}")
    if warmup < 0:
        raise MlgpuError(f"graph: warmup must be at least 0, got {warmup}")
    return Captured(cuda_graph, warmup, pool)


def is_current_stream_capturing() -> bool:
    """Whether this thread captures a graph, as torch.cuda.is_current_stream_capturing."""
    return context.capture is not None
