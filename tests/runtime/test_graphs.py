"""CUDA graphs by stream capture: replays equal NumPy, and what a capture forbids is refused."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
import pytest
from cupy.cuda import Event, Graph, Stream, alloc_pinned_memory, runtime
from cupy.cuda.runtime import CUDARuntimeError

from mlgpu.sim.cuda.install import installed

UNSUPPORTED, INVALIDATED, MERGE, UNMATCHED = 900, 901, 902, 903
UNJOINED, ISOLATION, IMPLICIT, CAPTURED_EVENT, WRONG_THREAD = 904, 905, 906, 907, 908
INVALID_VALUE, INVALID_HANDLE, ILLEGAL_STATE = 1, 400, 401
GLOBAL, THREAD_LOCAL, RELAXED = 0, 1, 2
H2D, D2H, D2D = 1, 2, 3

simulated = pytest.mark.skipif(installed() is None, reason="a GPU may do it in any order")
add_one = cupy.RawKernel('extern "C" __global__ void add_one(float* x) { x[threadIdx.x] += 1; }',
                         "add_one")


def stream() -> Stream:
    return Stream(non_blocking=True)


def status(error: pytest.ExceptionInfo[Any]) -> int:
    return error.value.status  # type: ignore[no-any-return]


def refused(code: int, call: Callable[..., Any], *args: Any) -> str:
    """The text of the error with this code that a call gives."""
    with pytest.raises((CUDARuntimeError, cupy.cuda.driver.CUDADriverError)) as error:
        call(*args)
    assert status(error) == code, str(error.value)
    return str(error.value)


def invalid(s: Stream) -> None:
    """The stream's capture is invalid, and its end leaves the stream usable."""
    with pytest.raises(RuntimeError, match="was capturing"):
        s.is_capturing()
    refused(INVALIDATED, s.end_capture)
    usable(s)


def usable(s: Stream) -> None:
    assert not s.is_capturing()
    with s:
        x = cupy.arange(3)
        x += 1
    s.synchronize()
    assert x.tolist() == [1, 2, 3]


def intact(s: Stream, value: cupy.ndarray, want: Any) -> None:
    """The stream's capture still ends well, and its graph computes what it should."""
    graph = s.end_capture()
    graph.launch(s)
    s.synchronize()
    np.testing.assert_allclose(cupy.asnumpy(value), want)


def thread(call: Callable[..., Any], *args: Any) -> Any:
    """What a call gives in another thread, or the error's code."""
    out: list[Any] = []

    def run() -> None:
        try:
            out.append(call(*args))
        except CUDARuntimeError as error:
            out.append(error.status)

    other = threading.Thread(target=run)
    other.start()
    other.join()
    return out[0]


# -- replaying ------------------------------------------------------------------------------------


def test_capture_does_nothing_and_every_launch_does_it_again() -> None:
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        assert s.is_capturing()
        add_one((1,), (8,), (x,))
        y = x * 2
        graph = s.end_capture()
    assert isinstance(graph, Graph)
    assert not s.is_capturing()
    assert cupy.asnumpy(x, stream=s).tolist() == [0] * 8
    for n in range(1, 4):
        graph.launch(s)
        assert cupy.asnumpy(y, stream=s).tolist() == [2 * n] * 8
    assert x.tolist() == [3] * 8


def test_ufuncs_reductions_and_raw_kernels_equal_numpy() -> None:
    s = stream()
    rng = np.random.default_rng(0)
    a, b = rng.random((20, 30)), rng.random(30)
    with s:
        x, y = cupy.asarray(a), cupy.asarray(b)
        total, out = cupy.empty(20), cupy.empty((20, 30))
        s.begin_capture()
        cupy.multiply(x, y, out=out)
        out += cupy.sqrt(x)
        cupy.sum(out, axis=1, out=total)
        out[:, ::3] = -1
        graph = s.end_capture()
        graph.upload()
        graph.launch()
        s.synchronize()
    want = a * b + np.sqrt(a)
    np.testing.assert_allclose(cupy.asnumpy(total), want.sum(1))
    want[:, ::3] = -1
    np.testing.assert_allclose(cupy.asnumpy(out), want)


def test_inputs_changed_in_place_are_read_at_launch() -> None:
    s = stream()
    with s:
        x = cupy.arange(5.0)
        s.begin_capture()
        y = x ** 2 + 1
        graph = s.end_capture()
        for values in ([1, 2, 3, 4, 5], [0, -1, 7, 0.5, 2]):
            x[...] = cupy.asarray(values)
            graph.launch()
            np.testing.assert_allclose(cupy.asnumpy(y), np.square(values) + 1)


def test_parameters_are_those_of_the_capture() -> None:
    scale = cupy.RawKernel('extern "C" __global__ void scale(float* x, float by)'
                           '{ x[threadIdx.x] *= by; }', "scale")
    s = stream()
    by = np.array([3], np.float32)
    with s:
        x = cupy.ones(4, np.float32)
        s.begin_capture()
        scale((1,), (4,), (x, by[0]))
        graph = s.end_capture()
        by[0] = 100
        graph.launch()
        graph.launch()
        assert x.tolist() == [9] * 4


def test_copies_and_memsets() -> None:
    s = stream()
    host = alloc_pinned_memory(64)
    view = np.frombuffer(host, np.float32, 16)
    with s:
        x, y, z = (cupy.full(16, 7, np.float32) for _ in range(3))
        s.begin_capture()
        runtime.memcpyAsync(x.data.ptr, host.ptr, 64, H2D, s.ptr)
        y.data.copy_from_device_async(x.data, 64, s)
        z.data.memset_async(0, 32, s)
        runtime.memcpyAsync(host.ptr, y.data.ptr, 32, D2H, s.ptr)
        graph = s.end_capture()
        for first in (3, 40):
            view[:] = np.arange(first, first + 16)
            z[...] = 7
            graph.launch()
            s.synchronize()
            assert y.tolist() == list(range(first, first + 16))
            assert z.tolist() == [0] * 8 + [7] * 8
            view[:] = -1
        graph.launch()
        s.synchronize()
    assert view.tolist() == [-1] * 16


def test_host_functions_run_at_every_launch() -> None:
    s = stream()
    host = alloc_pinned_memory(4)
    view = np.frombuffer(host, np.int32, 1)
    seen: list[int] = []
    with s:
        x = cupy.zeros(1, np.int32)
        s.begin_capture()
        x += 5
        runtime.memcpyAsync(host.ptr, x.data.ptr, 4, D2H, s.ptr)
        s.launch_host_func(lambda list_: list_.append(int(view[0])), seen)
        graph = s.end_capture()
    assert seen == []
    for _ in range(3):
        graph.launch(s)
    s.synchronize()
    assert seen == [5, 10, 15]


def test_any_stream_launches_also_while_an_earlier_launch_waits() -> None:
    s, t, u = stream(), stream(), Stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        add_one((1,), (8,), (x,))
        graph = s.end_capture()
    s.synchronize()
    for _ in range(5):
        for where in (s, t, u, Stream.null):
            graph.launch(where)
    for where in (s, t, u, Stream.null):
        where.synchronize()
    assert x.tolist() == [20] * 8


def test_launch_lies_between_the_streams_earlier_and_later_work() -> None:
    s, t = stream(), stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        x *= 10
        graph = s.end_capture()
    s.synchronize()
    with t:
        x += 1
        graph.launch()
        x += 2
        graph.launch()
        x += 3
    assert cupy.asnumpy(x, stream=t).tolist() == [123] * 8


def test_a_default_stream_takes_turns_with_a_launch() -> None:
    s, blocking = stream(), Stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        add_one((1,), (8,), (x,))
        graph = s.end_capture()
    s.synchronize()
    x += 1
    graph.launch(blocking)
    x *= 3
    assert x.tolist() == [6] * 8


def test_empty_graph() -> None:
    s = stream()
    s.begin_capture()
    graph = s.end_capture()
    graph.upload(s)
    graph.launch(s)
    s.synchronize()
    assert s.done


def test_two_devices_in_one_graph() -> None:
    if runtime.getDeviceCount() < 2:
        pytest.skip("needs two devices")
    s = stream()
    with cupy.cuda.Device(1):
        t = stream()
        y = cupy.zeros(8, np.float32)
        cupy.cuda.Device(1).synchronize()
    with s:
        x = cupy.arange(8, dtype=np.float32)
        s.synchronize()
        s.begin_capture()
        x += 1
        fork = s.record()
    with cupy.cuda.Device(1), t:
        t.wait_event(fork)
        runtime.memcpyPeerAsync(y.data.ptr, 1, x.data.ptr, 0, 32, t.ptr)
        y *= 2
        join = Event()
        join.record(t)
    s.wait_event(join)
    graph = s.end_capture()
    graph.launch(s)
    s.synchronize()
    assert y.tolist() == [2 * n + 2 for n in range(8)]


# -- several streams ------------------------------------------------------------------------------


def test_fork_and_join() -> None:
    s, t, u = stream(), stream(), stream()
    with s:
        x, left, right, out = (cupy.zeros(8) for _ in range(4))
        s.synchronize()
        s.begin_capture()
        cupy.add(x, 1, out=x)
        fork = s.record()
        t.wait_event(fork)
        assert t.is_capturing()
        u.wait_event(fork)
        cupy.multiply(x, 10, out=out)
    with t:
        cupy.multiply(x, 2, out=left)
    with u:
        cupy.multiply(x, 3, out=right)
    with s:
        s.wait_event(t.record())
        s.wait_event(u.record())
        out += left
        out += right
        graph = s.end_capture()
    assert not t.is_capturing()
    assert not u.is_capturing()
    for n in range(1, 4):
        graph.launch(s)
        s.synchronize()
        assert out.tolist() == [15 * n] * 8


def test_nested_forks_join_anywhere() -> None:
    s, t, u = stream(), stream(), stream()
    with s:
        x, y = cupy.zeros(8), cupy.zeros(8)
        s.synchronize()
        s.begin_capture()
        x += 1
        t.wait_event(s.record())
    with t:
        x *= 3
        u.wait_event(t.record())
        x += 10
        own = t.record()
    with u:
        u.wait_event(own)
        cupy.add(x, 0.5, out=y)
        s.wait_event(u.record())
    with s:
        y *= 2
        graph = s.end_capture()
    graph.launch(t)
    t.synchronize()
    assert y.tolist() == [27] * 8


def test_a_forked_stream_without_work_need_not_join() -> None:
    s, t = stream(), stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.synchronize()
        s.begin_capture()
        add_one((1,), (8,), (x,))
        t.wait_event(s.record())
        intact(s, x, [1] * 8)
    usable(t)


@pytest.mark.parametrize("seed", range(8))
def test_programs_of_several_streams_that_wait_rightly_equal_numpy(seed: int) -> None:
    """Each step waits for the latest steps that concern its arrays, on whatever streams."""
    rng = np.random.default_rng(seed)
    streams = [stream() for _ in range(4)]
    want = [np.full(16, n, np.float64) for n in range(5)]
    with streams[0]:
        arrays = [cupy.asarray(w) for w in want]
    streams[0].synchronize()
    steps = [(int(rng.integers(4)), *rng.permutation(5)[:3].tolist()) for _ in range(20)]
    streams[0].begin_capture()
    latest: list[list[Event]] = [[streams[0].record()] for _ in arrays]  # write, reads since
    for at, to, left, right in steps:
        s = streams[at]
        awaited = [*latest[to], latest[left][0], latest[right][0]]
        for n in rng.permutation(len(awaited)):
            s.wait_event(awaited[n])
        with s:
            cupy.subtract(arrays[left], arrays[right], out=arrays[to])
            cupy.remainder(arrays[to], 101, out=arrays[to])
        done = s.record()
        latest[to] = [done]
        latest[left].append(done)
        latest[right].append(done)
    for events in latest:
        for event in events:
            streams[0].wait_event(event)
    graph = streams[0].end_capture()
    for launch in range(3):
        graph.launch(streams[launch])
        for _, to, left, right in steps:
            want[to] = (want[left] - want[right]) % 101
    for s in streams:
        s.synchronize()
    for array, w in zip(arrays, want, strict=True):
        assert array.tolist() == w.tolist()


@simulated
def test_branches_run_in_the_order_that_hurts() -> None:
    """A dependency that was forgotten in the capture shows in the result."""
    s, t = stream(), stream()
    with s:
        x, y = cupy.zeros(8), cupy.zeros(8)
        s.synchronize()
        s.begin_capture()
        fork = s.record()
        x += 1
        t.wait_event(fork)  # recorded too early
    with t:
        cupy.add(x, 1, out=y)
    with s:
        s.wait_event(t.record())
        graph = s.end_capture()
        graph.launch()
        with pytest.raises(CUDARuntimeError) as error:
            s.synchronize()
    finding = error.value.finding
    assert finding.tool == "racecheck"
    assert "in the graph launched at" in str(finding)
    assert f"{__file__}:" in str(finding)


@simulated
def test_a_launch_on_another_stream_needs_an_event() -> None:
    s, t = stream(), stream()
    with s:
        x = cupy.zeros(8)
        s.synchronize()
        s.begin_capture()
        x += 1
        graph = s.end_capture()
    graph.launch(s)
    with t:
        x *= 5  # not after the launch
    with pytest.raises(CUDARuntimeError) as error:
        cupy.cuda.Device().synchronize()
    assert error.value.finding.tool == "racecheck"


def test_external_events_are_waited_for_at_launch() -> None:
    s, t, event = stream(), stream(), Event()
    with s:
        x, y = cupy.zeros(8), cupy.zeros(8)
        s.synchronize()
        event.record(t)
        s.begin_capture()
        runtime.streamWaitEvent(s.ptr, event.ptr, 1)
        cupy.add(x, 1, out=y)
        graph = s.end_capture()
    with t:
        x += 41
        event.record(t)
    graph.launch(s)
    s.synchronize()
    assert y.tolist() == [42] * 8


# -- what begins and ends a capture ---------------------------------------------------------------


def test_default_streams_cannot_be_captured() -> None:
    with pytest.raises(RuntimeError, match="default"):
        Stream.null.begin_capture()
    refused(UNSUPPORTED, runtime.streamBeginCapture, 0)
    refused(UNSUPPORTED, runtime.streamBeginCapture, 1)


def test_a_threads_own_default_stream_can() -> None:
    x = cupy.zeros(8, np.float32)
    cupy.cuda.Device().synchronize()
    own = Stream.ptds
    with own:
        own.begin_capture()
        add_one((1,), (8,), (x,))
        intact(own, x, [1] * 8)


def test_beginning_twice() -> None:
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        refused(ILLEGAL_STATE, runtime.streamBeginCapture, s.ptr)
        add_one((1,), (8,), (x,))
        intact(s, x, [1] * 8)


def test_unknown_mode() -> None:
    s = stream()
    refused(INVALID_VALUE, s.begin_capture, 7)
    usable(s)


def test_ending_what_did_not_begin() -> None:
    refused(ILLEGAL_STATE, stream().end_capture)


def test_ending_on_a_forked_stream() -> None:
    s, t = stream(), stream()
    s.begin_capture()
    t.wait_event(s.record())
    refused(UNMATCHED, t.end_capture)
    invalid(s)
    usable(t)


def test_ending_without_a_join() -> None:
    s, t = stream(), stream()
    with s:
        x = cupy.zeros(8)
        s.begin_capture()
        t.wait_event(s.record())
    with t:
        x += 1
    text = refused(UNJOINED, s.end_capture)
    assert installed() is None or f"{t.ptr:#x}" in text
    usable(s)
    usable(t)


def test_work_after_the_join_is_not_joined() -> None:
    s, t = stream(), stream()
    with s:
        x = cupy.zeros(8)
        s.begin_capture()
        t.wait_event(s.record())
    with t:
        x += 1
        s.wait_event(t.record())
        x += 1
    refused(UNJOINED, s.end_capture)
    usable(s)


@pytest.mark.parametrize("mode", [GLOBAL, THREAD_LOCAL])
def test_ending_in_another_thread(mode: int) -> None:
    s = stream()
    s.begin_capture(mode)
    assert thread(s.end_capture) == WRONG_THREAD
    refused(ILLEGAL_STATE, s.end_capture)
    usable(s)


def test_ending_a_relaxed_capture_in_another_thread() -> None:
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture(RELAXED)
        add_one((1,), (8,), (x,))
    graph = thread(s.end_capture)
    graph.launch(s)
    s.synchronize()
    assert x.tolist() == [1] * 8


def test_destroyed_streams_give_up_their_capture() -> None:
    s = stream()
    s.begin_capture()
    cupy.cuda.runtime.streamDestroy(s.ptr)
    s.ptr = 0
    cupy.cuda.Device().synchronize()  # nothing captures any more


def test_a_destroyed_fork_leaves_its_work() -> None:
    for works in (False, True):
        s, t = stream(), stream()
        with s:
            x = cupy.zeros(8)
            s.begin_capture()
            t.wait_event(s.record())
        if works:
            with t:
                x += 1
        del t
        gc.collect()
        if works:
            refused(UNJOINED, s.end_capture)
        else:
            intact(s, x, [0] * 8)


# -- what is illegal meanwhile --------------------------------------------------------------------


def test_synchronizing_a_captured_stream() -> None:
    s = stream()
    s.begin_capture()
    text = refused(UNSUPPORTED, s.synchronize)
    assert "cudaErrorStreamCaptureUnsupported" in text
    refused(UNSUPPORTED, s.synchronize)
    invalid(s)


def test_asking_a_captured_stream() -> None:
    s = stream()
    s.begin_capture()
    assert runtime.streamQuery(s.ptr) == UNSUPPORTED
    assert not s.done
    invalid(s)


@pytest.mark.parametrize("mode", [GLOBAL, THREAD_LOCAL, RELAXED])
@pytest.mark.parametrize("other", [False, True])
def test_synchronizing_the_device(mode: int, other: bool) -> None:
    s = stream()
    s.begin_capture(mode)
    if other:
        assert thread(runtime.deviceSynchronize) == UNSUPPORTED
    else:
        refused(UNSUPPORTED, runtime.deviceSynchronize)
    invalid(s)


def test_another_device_may_be_synchronized() -> None:
    if runtime.getDeviceCount() < 2:
        pytest.skip("needs two devices")
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        add_one((1,), (8,), (x,))
        cupy.cuda.Device(1).synchronize()
        intact(s, x, [1] * 8)


def test_captured_events() -> None:
    for use, gives in ((runtime.eventSynchronize, None), (runtime.eventQuery, CAPTURED_EVENT)):
        s, event = stream(), Event()
        s.begin_capture()
        event.record(s)
        if gives is None:
            refused(CAPTURED_EVENT, use, event.ptr)
        else:
            assert use(event.ptr) == gives
        invalid(s)


def test_the_time_of_a_captured_event() -> None:
    s, first, last = stream(), Event(), Event()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        first.record(s)
        add_one((1,), (8,), (x,))
        last.record(s)
        refused(CAPTURED_EVENT, cupy.cuda.get_elapsed_time, first, last)
        intact(s, x, [1] * 8)


def test_captured_events_after_the_end() -> None:
    s, t, event = stream(), stream(), Event()
    s.begin_capture()
    event.record(s)
    s.end_capture()
    refused(INVALID_VALUE, event.synchronize)
    assert runtime.eventQuery(event.ptr) == INVALID_VALUE
    refused(INVALID_VALUE, t.wait_event, event)
    usable(t)
    t.begin_capture()
    refused(INVALID_VALUE, t.wait_event, event)
    invalid(t)
    event.record(t)
    event.synchronize()
    assert event.done


def test_events_recorded_elsewhere_leave_the_capture() -> None:
    s, t, event = stream(), stream(), Event()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        event.record(s)
        event.record(t)
        event.synchronize()
        add_one((1,), (8,), (x,))
        intact(s, x, [1] * 8)


def test_waiting_for_an_event_from_outside() -> None:
    s, t = stream(), stream()
    for event in (t.record(), s.record()):
        s.begin_capture()
        refused(ISOLATION, s.wait_event, event)
        invalid(s)


def test_waiting_for_an_event_never_recorded() -> None:
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        s.wait_event(Event())
        add_one((1,), (8,), (x,))
        intact(s, x, [1] * 8)


def test_two_captures_do_not_merge() -> None:
    s, t = stream(), stream()
    s.begin_capture()
    t.begin_capture()
    refused(MERGE, t.wait_event, s.record())
    invalid(s)
    invalid(t)


def test_two_captures_beside_each_other() -> None:
    s, t = stream(), stream()
    x, y = cupy.zeros(8, np.float32), cupy.zeros(8, np.float32)
    cupy.cuda.Device().synchronize()
    s.begin_capture()
    t.begin_capture()
    for n in range(3):
        with s:
            add_one((1,), (8,), (x,))
        if n:
            with t:
                add_one((1,), (8,), (y,))
    intact(s, x, [3] * 8)
    intact(t, y, [2] * 8)


def test_the_default_stream_beside_a_blocking_capture() -> None:
    x = cupy.zeros(8, np.float32)
    uses: list[Callable[[], Any]] = [
        lambda: add_one((1,), (8,), (x,)), Stream.null.synchronize, Stream.null.record,
        lambda: runtime.memcpy(x.data.ptr, np.zeros(8, np.float32).ctypes.data, 32, H2D),
        lambda: runtime.memset(x.data.ptr, 0, 32)]
    for use in uses:
        s = Stream()
        s.begin_capture()
        refused(IMPLICIT, Stream.null.is_capturing)
        assert s.is_capturing()  # that alone breaks nothing
        refused(IMPLICIT, use)
        invalid(s)


def test_another_blocking_stream_beside_a_blocking_capture() -> None:
    s, t = Stream(), Stream()
    x, y = cupy.zeros(8, np.float32), cupy.zeros(8, np.float32)
    cupy.cuda.Device().synchronize()
    s.begin_capture()
    with t:
        add_one((1,), (8,), (y,))
        t.synchronize()
    with s:
        add_one((1,), (8,), (x,))
    intact(s, x, [1] * 8)
    assert y.tolist() == [1] * 8


def test_the_default_stream_beside_another_capture() -> None:
    s = stream()
    x, y = cupy.zeros(8, np.float32), cupy.zeros(8, np.float32)
    with s:
        s.begin_capture()
        add_one((1,), (8,), (x,))
    assert not Stream.null.is_capturing()
    add_one((1,), (8,), (y,))
    Stream.null.synchronize()
    assert y.tolist() == [1] * 8
    intact(s, x, [1] * 8)


def test_the_default_stream_joins_no_capture() -> None:
    s = stream()
    s.begin_capture()
    refused(IMPLICIT, Stream.null.wait_event, s.record())
    invalid(s)


def test_a_blocking_stream_that_joins_takes_turns_too() -> None:
    s, t = stream(), Stream()
    s.begin_capture()
    t.wait_event(s.record())
    refused(IMPLICIT, Stream.null.synchronize)
    invalid(s)
    usable(t)


def test_callbacks() -> None:
    s = stream()
    s.begin_capture()
    refused(UNSUPPORTED, runtime.streamAddCallback, s.ptr, lambda *args: None, 0)
    invalid(s)


def test_no_graph_within_a_graph() -> None:
    s = stream()
    s.begin_capture()
    graph = s.end_capture()
    for call in (graph.launch, graph.upload):
        s.begin_capture()
        refused(UNSUPPORTED, call, s)
        invalid(s)


@simulated
def test_copies_from_and_to_memory_that_is_not_pinned() -> None:
    """A GPU takes them, and then uses the memory at each launch, whatever it is then."""
    host = np.zeros(8, np.float32)
    with stream() as s:
        x = cupy.zeros(8, np.float32)
        for dst, src, kind in ((x.data.ptr, host.ctypes.data, H2D),
                               (host.ctypes.data, x.data.ptr, D2H)):
            s.begin_capture()
            assert "pinned" in refused(UNSUPPORTED, runtime.memcpyAsync, dst, src, 32, kind, s.ptr)
            invalid(s)


def test_what_cupy_refuses_by_itself() -> None:
    s = stream()
    with s:
        x = cupy.arange(8)
        s.begin_capture()
        for use in (x.get, lambda: bool(x[0]), lambda: cupy.where(x > 3), x.tolist):
            with pytest.raises(RuntimeError, match="captur"):
                use()
        s.end_capture()
    usable(s)


UNSAFE: dict[str, Callable[[Any], Any]] = {
    "cudaMalloc": lambda _: runtime.malloc(64),
    "cudaMallocManaged": lambda _: runtime.mallocManaged(64),
    "cudaHostAlloc": lambda _: runtime.hostAlloc(64, 0),
    "cudaFree": lambda have: runtime.free(have["memory"]),
    "cudaFreeHost": lambda have: runtime.freeHost(have["pinned"]),
    "cudaHostRegister": lambda have: runtime.hostRegister(have["host"].ctypes.data, 4096, 0),
    "cudaMallocAsync": lambda have: runtime.mallocAsync(64, have["other"].ptr),
    "cudaEventSynchronize": lambda have: have["event"].synchronize(),
    "cudaStreamSynchronize": lambda have: have["other"].synchronize(),
}


@pytest.mark.parametrize("name", UNSAFE)
@pytest.mark.parametrize("mode", [GLOBAL, THREAD_LOCAL, RELAXED])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_calls_that_may_wait(name: str, mode: int, elsewhere: bool) -> None:
    gc.collect()  # a graph of an earlier test must not be destroyed while this one is captured
    other = stream()
    have = {"memory": runtime.malloc(64), "pinned": runtime.hostAlloc(64, 0),
            "host": np.zeros(4096, np.uint8), "other": other, "event": other.record()}
    other.synchronize()
    s = stream()
    s.begin_capture(mode)
    forbidden = mode == GLOBAL or (mode == THREAD_LOCAL and not elsewhere)
    if elsewhere:
        assert (thread(UNSAFE[name], have) == UNSUPPORTED) == forbidden
    elif forbidden:
        refused(UNSUPPORTED, UNSAFE[name], have)
    else:
        UNSAFE[name](have)
    if forbidden:
        invalid(s)
    else:
        s.end_capture()
    if name == "cudaHostRegister" and not forbidden:
        runtime.hostUnregister(have["host"].ctypes.data)


def test_asking_in_a_mode_that_is_not_relaxed() -> None:
    other, s = stream(), stream()
    event = other.record()
    other.synchronize()
    for ask, handle in ((runtime.streamQuery, other.ptr), (runtime.eventQuery, event.ptr)):
        s.begin_capture(GLOBAL)
        assert ask(handle) == UNSUPPORTED
        invalid(s)


def test_what_every_mode_allows() -> None:
    x = cupy.zeros(8, np.float32)
    other = stream()
    cupy.cuda.Device().synchronize()
    s = stream()
    s.begin_capture(GLOBAL)
    with s:
        add_one((1,), (8,), (x,))
    runtime.memGetInfo()
    del other
    Event()
    stream()
    host = np.zeros(8, np.float32)
    runtime.memcpy(host.ctypes.data, x.data.ptr, 32, D2H)
    intact(s, x, [1] * 8)


def test_memory_of_the_pool_is_allocated_within_a_relaxed_capture() -> None:
    s = stream()
    pool = cupy.cuda.MemoryPool()
    with s, cupy.cuda.using_allocator(pool.malloc):
        x = cupy.ones(1000)
        s.begin_capture()
        y = x + 1
        z = y * x.sum()
        graph = s.end_capture()
        assert pool.used_bytes() >= 24_000
        graph.launch()
        assert z.tolist() == [2000] * 1000


def test_temporary_arrays_of_a_graph_are_its_own() -> None:
    """CuPy's pool has them back after the capture, and gives them to others between launches."""
    s = stream()
    with s:
        x = cupy.arange(64.0)
        s.begin_capture()
        y = cupy.sqrt(x * 2 + 1) - x
        graph = s.end_capture()
        for n in range(3):
            others = [cupy.full(64, n) for _ in range(4)]
            del others
            graph.launch()
            want = np.sqrt(np.arange(64) * 2 + 1) - np.arange(64)
            np.testing.assert_allclose(cupy.asnumpy(y), want)


@simulated
def test_an_array_of_the_capture_that_is_gone_is_missed() -> None:
    s = stream()
    with s:
        x = cupy.arange(64.0)
        s.begin_capture()
        y = x + 1
        graph = s.end_capture()
        s.synchronize()
        del y
        graph.launch()
        with pytest.raises(CUDARuntimeError, match="use after free"):
            s.synchronize()


@simulated
def test_a_destroyed_graphs_temporary_arrays_are_nobodys() -> None:
    s = stream()
    with s:
        x = cupy.zeros(64)
        s.begin_capture()
        temporary = x + 1
        at = temporary.data.ptr
        del temporary
        graph = s.end_capture()
        graph.launch()
        s.synchronize()
        reads = cupy.RawKernel('extern "C" __global__ void reads(double* to, const double* from)'
                               '{ *to = *from; }', "reads")
        reads((1,), (1,), (x, np.uintp(at)))
        s.synchronize()
        assert x[0] == 1
        del graph
        reads((1,), (1,), (x, np.uintp(at)))
        with pytest.raises(CUDARuntimeError, match="use after free"):
            s.synchronize()


@simulated
def test_graphs_where_each_array_has_its_own_memory() -> None:
    text = """
import gc
from mlgpu.sim.cuda.install import install
system = install(allocations="separate")
import cupy
s = cupy.cuda.Stream(non_blocking=True)
with s:
    x = cupy.arange(64.0)
    s.begin_capture()
    y = cupy.sqrt(x * 2 + 1) - x
    graph = s.end_capture()
    s.synchronize()
    regions = len(system.memory.blocks)
    for _ in range(3):
        graph.launch()
    assert cupy.allclose(y, cupy.sqrt(x * 2 + 1) - x)
    s.synchronize()
    del graph
    gc.collect()
    s.synchronize()
    assert len(system.memory.blocks) < regions, (len(system.memory.blocks), regions)
"""
    ended = subprocess.run([sys.executable, "-W", "error", "-c", text], capture_output=True,
                           text=True)
    assert not ended.returncode, ended.stderr


# -- memory that a graph allocates ----------------------------------------------------------------


def test_memory_allocated_and_freed_by_a_graph() -> None:
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        memory = runtime.mallocAsync(32, s.ptr)
        add_one((1,), (8,), (x,))
        runtime.memcpyAsync(memory, x.data.ptr, 32, D2D, s.ptr)
        add_one((1,), (8,), (np.uintp(memory),))
        runtime.memcpyAsync(x.data.ptr, memory, 32, D2D, s.ptr)
        runtime.freeAsync(memory, s.ptr)
        graph = s.end_capture()
        for n in (2, 4, 6):
            graph.launch()
            assert x.tolist() == [n] * 8


def test_memory_that_a_graph_leaves_to_the_program() -> None:
    s, t = stream(), stream()
    s.begin_capture()
    memory = runtime.mallocAsync(64, s.ptr)
    runtime.memsetAsync(memory, 1, 64, s.ptr)
    graph = s.end_capture()
    host = np.zeros(64, np.uint8)
    for _ in range(2):
        graph.launch(s)
        host[:] = 0
        runtime.memcpyAsync(host.ctypes.data, memory, 64, D2H, s.ptr)
        s.synchronize()
        assert host.tolist() == [1] * 64
        refused(INVALID_VALUE, graph.launch, s)
        t.wait_event(s.record())
        runtime.freeAsync(memory, t.ptr)
        s.wait_event(t.record())
    graph.launch(s)
    s.synchronize()
    runtime.free(memory)
    graph.launch(s)
    s.synchronize()
    del graph
    gc.collect()
    runtime.free(memory)


@simulated
def test_what_a_graph_finds_in_its_memory_is_undefined() -> None:
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        memory = runtime.mallocAsync(32, s.ptr)
        runtime.memsetAsync(memory, 0, 32, s.ptr)
        runtime.freeAsync(memory, s.ptr)
        graph = s.end_capture()
        graph.launch()
        s.synchronize()
        add_one((1,), (8,), (np.uintp(memory),))
        with pytest.raises(CUDARuntimeError, match="uninitialized"):
            x.tolist()


def test_a_graph_frees_only_its_own_memory() -> None:
    s = stream()
    outside = runtime.malloc(64)
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        refused(INVALID_VALUE, runtime.freeAsync, outside, s.ptr)
        add_one((1,), (8,), (x,))
        intact(s, x, [1] * 8)
    runtime.free(outside)


def test_the_pool_of_asynchronous_memory() -> None:
    s = stream()
    pool = cupy.cuda.MemoryAsyncPool()
    with s:
        x = cupy.arange(100.0)
        y = cupy.empty(100)
        with cupy.cuda.using_allocator(pool.malloc):
            s.begin_capture()
            cupy.multiply(x + 1, x - 1, out=y)
            graph = s.end_capture()
            s.begin_capture(GLOBAL)  # CuPy asks how much the pool has
            refused(UNSUPPORTED, cupy.empty, 100)
            refused(INVALIDATED, s.end_capture)
        for _ in range(2):
            graph.launch()
            np.testing.assert_allclose(cupy.asnumpy(y), np.arange(100.0) ** 2 - 1)
            x[...] = cupy.arange(100.0)


# -- an invalid capture ---------------------------------------------------------------------------


def test_nothing_goes_on_in_an_invalid_capture() -> None:
    s, t, event, later = stream(), stream(), Event(), Event()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        event.record(s)
        refused(UNSUPPORTED, s.synchronize)
        refused(INVALIDATED, add_one, (1,), (8,), (x,))
        refused(INVALIDATED, x.data.memset_async, 0, 32, s)
        refused(INVALIDATED, later.record, s)
        refused(INVALIDATED, s.wait_event, event)
    refused(INVALID_VALUE, t.wait_event, event)
    assert not t.is_capturing()
    assert runtime.eventQuery(event.ptr) == INVALID_VALUE
    assert later.done
    refused(ILLEGAL_STATE, runtime.streamBeginCapture, s.ptr)
    text = refused(INVALIDATED, s.end_capture)
    assert installed() is None or "cudaStreamSynchronize" in text
    usable(s)


def test_a_forked_stream_of_an_invalid_capture() -> None:
    s, t = stream(), stream()
    s.begin_capture()
    t.wait_event(s.record())
    refused(UNSUPPORTED, t.synchronize)
    with pytest.raises(RuntimeError, match="was capturing"):
        s.is_capturing()
    refused(UNMATCHED, t.end_capture)
    invalid(s)
    usable(t)


# -- errors of launches ---------------------------------------------------------------------------


@simulated
def test_a_kernels_fault_comes_at_launch() -> None:
    beyond = cupy.RawKernel('extern "C" __global__ void beyond(float* x) { x[1 << 20] = 1; }',
                            "beyond")
    s = stream()
    with s, cupy.cuda.using_allocator(None):
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        beyond((1,), (1,), (x,))
        graph = s.end_capture()
    s.synchronize()
    graph.launch(s)
    with pytest.raises(CUDARuntimeError, match="out of bounds") as error:
        s.synchronize()
    assert error.value.status == 700
    refused(700, graph.launch, s)


@simulated
@pytest.mark.parametrize("what", ["device", "pinned", "memset"])
def test_memory_freed_before_the_launch(what: str) -> None:
    s = stream()
    device, kept, pinned = runtime.malloc(64), runtime.malloc(64), runtime.hostAlloc(64, 0)
    s.begin_capture()
    if what == "memset":
        runtime.memsetAsync(device, 0, 64, s.ptr)
    else:
        runtime.memcpyAsync(device if what == "device" else kept, pinned, 64, H2D, s.ptr)
    graph = s.end_capture()
    if what == "pinned":
        runtime.freeHost(pinned)
    else:
        runtime.free(device)
    graph.launch(s)
    with pytest.raises(CUDARuntimeError, match="use after free") as error:
        s.synchronize()
    assert error.value.status == 700


# -- handles, the drawing, and what is left over ---------------------------------------------------


@simulated
def test_destroyed_graphs_are_refused() -> None:
    s = stream()
    runtime.streamBeginCapture(s.ptr)
    graph = runtime.streamEndCapture(s.ptr)
    executable = runtime.graphInstantiate(graph)
    runtime.graphDestroy(graph)
    runtime.graphLaunch(executable, s.ptr)  # needs the graph no more
    runtime.graphExecDestroy(executable)
    s.synchronize()
    refused(INVALID_VALUE, runtime.graphDestroy, graph)
    refused(INVALID_VALUE, runtime.graphInstantiate, graph)
    refused(INVALID_VALUE, runtime.graphDebugDotPrint, graph, "/nowhere", 0)
    for call in (runtime.graphLaunch, runtime.graphUpload):
        refused(INVALID_VALUE, call, executable, s.ptr)
    refused(INVALID_VALUE, runtime.graphExecDestroy, executable)


def test_a_graph_destroyed_while_it_waits() -> None:
    s = stream()
    with s:
        x = cupy.zeros(8, np.float32)
        s.begin_capture()
        add_one((1,), (8,), (x,))
        graph = s.end_capture()
        graph.launch()
        del graph
        gc.collect()
        assert x.tolist() == [1] * 8


def test_drawing() -> None:
    s, t = stream(), stream()
    with s:
        x, y = cupy.ones(8), cupy.ones(8)
        s.begin_capture()
        add_one((1,), (8,), (x,))
        t.wait_event(s.record())
        with t:
            cupy.sin(y, out=y)
        s.wait_event(t.record())
        x.data.memset_async(0, 64, s)
        graph = s.end_capture()
    plain, verbose = graph.debug_dot_str(), graph.debug_dot_str(1)
    assert plain != verbose
    for text in (plain, verbose):
        assert text.startswith("digraph")
        assert "add_one" in text
        assert "cupy_sin" in text
        assert re.search("memset", text, re.IGNORECASE)
    if installed() is not None:
        assert plain.count("->") == 3
        assert __file__ in verbose


@simulated
def test_a_thousand_graphs_leave_nothing() -> None:
    system = installed()
    assert system is not None
    s, t = stream(), stream()
    with s:
        x = cupy.zeros(8, np.float32)
    s.synchronize()

    def once() -> None:
        with s:
            s.begin_capture()
            fork = s.record()
            x.data.memset_async(0, 32, s)
            t.wait_event(fork)
            s.launch_host_func(int, 0)
            s.wait_event(t.record())
            graph = s.end_capture()
            graph.launch()
            graph.launch(t)
        s.synchronize()
        t.synchronize()

    for _ in range(50):
        once()
    gc.collect()
    before = len(system.streams.seen), len(system.streams.streams), len(system.streams.events)
    tracemalloc.start()
    used = tracemalloc.get_traced_memory()[0]
    for _ in range(950):
        once()
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - used
    tracemalloc.stop()
    assert before == (len(system.streams.seen), len(system.streams.streams),
                      len(system.streams.events))
    assert not system.graphs.graphs
    assert not system.graphs.executables
    assert not system.captures.active
    assert grown < 100_000
