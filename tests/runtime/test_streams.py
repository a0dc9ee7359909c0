"""Streams, events and copies of simulated devices: the order that CUDA promises, and no other."""

from __future__ import annotations

import gc
import itertools
import random
import subprocess
import sys
import threading
from functools import partial
from types import SimpleNamespace

import cupy
import numpy as np
import pytest

from mlgpu.sim.cuda.install import installed
from mlgpu.sim.cuda.streams import NON_BLOCKING, QUERIES, QUEUE, Streams

runtime = cupy.cuda.runtime
CUDAError = runtime.CUDARuntimeError

if installed() is None:
    pytest.skip("of simulated devices", allow_module_level=True)


class Log:
    """Streams whose work writes down that it was done."""

    def __init__(self, seed: int = 0) -> None:
        self.streams = Streams(seed)
        self.done: list[str] = []

    def do(self, stream, name, needs=()):
        return self.streams.submit(stream, lambda: self.done.append(name), name, "here:1", needs)


@pytest.fixture
def log():
    return Log()


class Waiting:
    """Waits for all work when a collector finds it."""

    def __init__(self, log):
        self.log, self.itself = log, self

    def __del__(self):
        self.log.streams.finish(self.log.streams.all())


@pytest.mark.parametrize("amid", [True, False])
def test_finalizers_may_wait_for_work_at_any_time(log, monkeypatch, amid):
    """Amid a piece of work and between two, nothing comes before its turn, nor twice."""
    stream = log.streams.create(0)
    plain = Streams._choice

    def collect():
        thresholds = gc.get_threshold()
        Waiting(log)
        gc.set_threshold(1)
        kept = [[] for _ in range(10)]
        gc.set_threshold(*thresholds)
        return kept

    def choice(self, ready):
        if not amid:
            collect()
        return plain(self, ready)

    def work():
        if amid:
            collect()
        log.done.append("first")

    log.streams.submit(stream, work, "first", "here:1")
    log.do(stream, "second")
    last = log.do(stream, "third")
    monkeypatch.setattr(Streams, "_choice", choice)
    log.streams.finish([last])
    gc.collect()
    assert log.done == ["first", "second", "third"]


@pytest.fixture
def kernels():
    module = cupy.RawModule(code=r"""
extern "C" __global__ void fill(float* x, float v, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = v;
}
extern "C" __global__ void add(const float* x, float* y, int n, int times) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    for (int k = 0; k < times; k++) if (i < n) y[i] += x[i];
}""")
    return module.get_function("fill"), module.get_function("add")


# -- the order -------------------------------------------------------------------------------------

def test_only_what_is_waited_for_runs(log):
    a, b = (log.streams.create(0, NON_BLOCKING) for _ in "ab")
    first = log.do(a, "a0")
    log.do(a, "a1")
    log.do(b, "b0")
    assert log.done == []
    log.streams.finish([first])
    assert log.done == ["a0"]
    log.streams.finish(log.streams.tail(b))
    assert log.done == ["a0", "b0"]
    log.streams.finish(log.streams.of_device(0))
    assert log.done == ["a0", "b0", "a1"]
    assert not log.streams.live
    assert not log.streams.waiting


def test_the_latest_comes_first_where_nothing_orders(log):
    streams = [log.streams.create(0, NON_BLOCKING) for _ in range(4)]
    for n, stream in enumerate(streams):
        log.do(stream, f"{n}a")
        log.do(stream, f"{n}b")
    log.streams.finish(log.streams.of_device(0))
    assert log.done == ["3a", "3b", "2a", "2b", "1a", "1b", "0a", "0b"]


@pytest.mark.parametrize("seed", range(1, 9))
def test_every_order_is_one_that_was_asked_for(seed):
    """Random work with random needs, waited for at random times."""
    log, chance = Log(seed), random.Random(seed)
    streams = [log.streams.default_of(0)]
    streams += [log.streams.create(0, flags) for flags in (0, 0, NON_BLOCKING, NON_BLOCKING)]
    works, before = [], {}
    for n in range(60):
        stream = chance.choice(streams)
        needs = chance.sample(works, min(len(works), chance.choice((0, 0, 1, 2))))
        earlier = [w for w in works if w.stream is stream or w in needs or (
            stream.blocking and w.stream.blocking and not (w.stream.handle and stream.handle))]
        work = log.do(stream, str(n), needs)
        before[str(n)] = {w.what for w in earlier}
        assert all(work.after(w) for w in earlier)
        works.append(work)
        if chance.random() < 0.1:
            log.streams.finish([chance.choice(works)])
    log.streams.finish(log.streams.all())
    assert sorted(log.done, key=int) == [str(n) for n in range(60)]
    for at, name in enumerate(log.done):
        assert before[name] <= set(log.done[:at])


def test_seeds_give_different_orders():
    orders = set()
    for seed in range(6):
        log = Log(seed)
        for n in range(5):
            log.do(log.streams.create(0, NON_BLOCKING), str(n))
        log.streams.finish(log.streams.all())
        orders.add(tuple(log.done))
    assert len(orders) > 3


def test_the_default_stream_takes_turns_with_blocking_streams(log):
    default, other = log.streams.default_of(0), log.streams.default_of(1)
    blocking, free = log.streams.create(0), log.streams.create(0, NON_BLOCKING)
    log.do(blocking, "blocking")
    log.do(free, "free")
    log.do(other, "other device")
    log.streams.finish([log.do(default, "default")])
    assert log.done == ["blocking", "default"]
    log.do(default, "default 2")
    log.streams.finish([log.do(blocking, "blocking 2")])
    assert log.done[2:] == ["default 2", "blocking 2"]
    log.do(default, "default 3")
    log.streams.finish([log.do(free, "free 2")])
    assert log.done[4:] == ["free", "free 2"]


def test_waiting_for_the_default_stream_is_waiting_for_blocking_streams(log):
    blocking, free = log.streams.create(0), log.streams.create(0, NON_BLOCKING)
    log.do(blocking, "blocking")
    log.do(free, "free")
    log.streams.finish(log.streams.tail(log.streams.default_of(0)))
    assert log.done == ["blocking"]


def test_destroyed_streams_have_their_work_done(log):
    stream = log.streams.create(0)
    log.do(stream, "late")
    log.streams.destroy(stream.handle)
    log.streams.finish([log.do(log.streams.default_of(0), "default")])
    assert log.done == ["late", "default"]
    free = log.streams.create(0, NON_BLOCKING)
    log.do(free, "free")
    log.streams.destroy(free.handle)
    log.streams.finish(log.streams.of_device(0))
    assert log.done[2:] == ["free"]


def test_a_thousand_streams_leave_nothing(log):
    default, kept = log.streams.default_of(0), log.streams.create(0, NON_BLOCKING)
    idle = log.streams.create(0, NON_BLOCKING)  # nobody waits for it
    for n in range(1000):
        log.do(idle, "idle")
        stream = log.streams.create(0, NON_BLOCKING if n % 2 else 0)
        work = log.do(stream, "work")
        log.do(kept, "kept", [work])
        log.do(default, "default")
        if n % 3:
            log.streams.destroy(stream.handle)
        if n % 10 == 9:
            log.streams.finish([kept.last])
        if not n % 3:
            log.streams.destroy(stream.handle)
    log.streams.finish([kept.last, default.last])
    some = {default, kept, idle, *log.streams.heirs.values()}
    assert len(some) == 5
    assert set(log.do(idle, "idle").clock) <= some
    log.streams.finish(log.streams.all())
    assert len(log.done) == 4001
    assert list(log.streams.streams.values()) == [kept, idle]
    assert set(log.streams.seen) == some
    assert not log.streams.live
    assert not log.streams._destroyed
    assert set(log.do(kept, "more").clock) == some


def test_streams_that_nobody_waits_for_leave_little(log):
    """As a join that the program never looks at."""
    main = log.streams.create(0, NON_BLOCKING)
    for _ in range(1000):
        side = log.streams.create(0, NON_BLOCKING)
        work = log.do(main, "main", [log.do(side, "side")])
        log.streams.submit(side, None, "joins", "here:1", [work])
        log.streams.destroy(side.handle)
        log.streams.finish([work])
    assert len(log.streams.waiting) == 0
    assert not log.streams._destroyed
    assert len(log.do(main, "main").clock) <= 2
    assert len(log.streams.live) == 2


def test_the_queue_is_bounded_and_what_it_lets_go_is_not_known_to_be_done(log):
    a, b = (log.streams.create(0, NON_BLOCKING) for _ in "ab")
    first = log.streams.submit(a, lambda: log.streams.spend(100), "first", "here:1")
    for _ in range(QUEUE):
        log.do(a, "more")
    assert len(log.streams.waiting) == QUEUE
    assert first.done
    assert not log.done
    other = log.do(b, "b")
    assert not other.after(first)
    late = log.streams.submit(b, None, "waits", "here:1", [first])
    log.streams.finish([late])
    assert other.end < first.end < late.end
    assert log.do(b, "b").after(first)


def test_all_runs_whatever_fails(log):
    def fail(text):
        raise ValueError(text)

    stream = log.streams.create(0)
    for text in ("first", "second"):
        log.streams.submit(stream, partial(fail, text), "fails", "here:1")
    last = log.do(stream, "after")
    with pytest.raises(ValueError, match="first"):
        log.streams.finish([last])
    assert log.done == ["after"]
    assert log.do(stream, "next").after(last)


def test_what_waits_can_be_dropped(log):
    stream = log.streams.create(0)
    work = log.do(stream, "dropped")
    log.streams.drop()
    log.streams.finish([work, log.do(stream, "later")])
    assert log.done == ["later"]
    assert not log.streams.live


# -- events ----------------------------------------------------------------------------------------

def test_waits_are_for_the_recording_at_their_time(kernels):
    fill, add = kernels
    x, y, z = (cupy.zeros(64, np.float32) for _ in "xyz")
    a, b = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    event = cupy.cuda.Event()
    fill((1,), (64,), (x, np.float32(3), np.int32(64)), stream=a)
    event.record(a)
    b.wait_event(event)
    fill((1,), (64,), (z, np.float32(5), np.int32(64)), stream=a)
    event.record(a)  # moves the event, not what waits already
    add((1,), (64,), (x, y, np.int32(64), np.int32(1)), stream=b)
    b.synchronize()
    assert not event.done
    a.synchronize()
    assert event.done
    assert (y.get() == 3).all()


def test_an_event_never_recorded_is_done():
    event = cupy.cuda.Event()
    cupy.cuda.Stream().wait_event(event)
    assert event.done
    event.synchronize()


def test_polling_is_answered_in_the_end(kernels):
    x = cupy.empty(64, np.float32)
    stream = cupy.cuda.Stream()
    kernels[0]((1,), (64,), (x, np.float32(3), np.int32(64)), stream=stream)
    event = stream.record()
    assert [event.done for _ in range(QUERIES + 1)] == [False] * QUERIES + [True]
    assert stream.done
    null = cupy.cuda.Stream.null
    kernels[0]((1,), (64,), (x, np.float32(4), np.int32(64)), stream=stream)
    assert [null.done for _ in range(QUERIES + 1)] == [False] * QUERIES + [True]


def test_times_grow_with_the_work(kernels):
    x, y = cupy.ones(4096, np.float32), cupy.zeros(4096, np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    events = [stream.record()]
    for times in (1, 1, 100):
        kernels[1]((4,), (1024,), (x, y, np.int32(4096), np.int32(times)), stream=stream)
        events.append(stream.record())
    events.append(stream.record())
    stream.synchronize()
    one, two, many, none = (cupy.cuda.get_elapsed_time(a, b)
                            for a, b in itertools.pairwise(events))
    assert one == pytest.approx(two)
    assert many > 5 * one
    assert 0 < none < one
    whole = cupy.cuda.get_elapsed_time(events[0], events[-1])
    assert whole == pytest.approx(one + two + many + none)
    assert cupy.cuda.get_elapsed_time(events[-1], events[0]) == pytest.approx(-whole)


def test_streams_overlap_in_time_and_waits_do_not(kernels):
    data = cupy.ones((2, 4096), np.float32)
    out = cupy.zeros((2, 4096), np.float32)
    a, b = (cupy.cuda.Stream(non_blocking=True) for _ in "ab")
    cupy.cuda.Device().synchronize()

    def measure(wait):
        start = a.record()
        b.wait_event(start)
        end = start
        for n, stream in enumerate((a, b)):
            if wait:
                stream.wait_event(end)
            kernels[1]((4,), (1024,), (data[n], out[n], np.int32(4096), np.int32(50)),
                       stream=stream)
            end = stream.record()
        a.synchronize()
        b.synchronize()
        return cupy.cuda.get_elapsed_time(start, end)

    assert measure(True) > 1.8 * measure(False)


def test_times_that_cannot_be_told(kernels):
    silent, timed, stream = (cupy.cuda.Event(disable_timing=True), cupy.cuda.Event(),
                             cupy.cuda.Stream())
    with pytest.raises(CUDAError, match="cudaErrorInvalidResourceHandle"):
        cupy.cuda.get_elapsed_time(timed, timed)
    silent.record(stream)
    timed.record(stream)
    with pytest.raises(CUDAError, match="cudaErrorNotReady"):
        cupy.cuda.get_elapsed_time(timed, timed)
    stream.synchronize()
    assert cupy.cuda.get_elapsed_time(timed, timed) == 0
    with pytest.raises(CUDAError, match="cudaErrorInvalidResourceHandle"):
        cupy.cuda.get_elapsed_time(silent, timed)


def test_events_of_other_devices_can_be_awaited_but_not_recorded(kernels):
    fill, _ = kernels
    x = cupy.zeros(64, np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    fill((1,), (64,), (x, np.float32(3), np.int32(64)), stream=stream)
    event = stream.record()
    with cupy.cuda.Device(1):
        there = cupy.cuda.Stream(non_blocking=True)
        with pytest.raises(CUDAError, match="cudaErrorInvalidResourceHandle"):
            event.record(there)
        there.wait_event(event)
        y = cupy.empty(64, np.float32)
        y.data.copy_from_device_async(x.data, x.nbytes, there)
        there.synchronize()
        assert (y.get() == 3).all()


def test_kernels_stay_on_their_device(kernels):
    fill, _ = kernels
    x = cupy.zeros(64, np.float32)
    fill((1,), (64,), (x, np.float32(1), np.int32(64)))
    with cupy.cuda.Device(1):
        there = cupy.cuda.Stream()
    with pytest.raises(cupy.cuda.driver.CUDADriverError, match="CUDA_ERROR_INVALID_HANDLE"):
        fill((1,), (64,), (x, np.float32(2), np.int32(64)), stream=there)
    assert (x.get() == 1).all()


def test_waiting_for_another_device_s_stream_raises_its_error(kernels):
    x = cupy.zeros(8, np.float32)
    stream = cupy.cuda.Stream()
    kernels[0]((1,), (64,), (x, np.float32(1), np.int32(64)), stream=stream)
    with cupy.cuda.Device(1):
        with pytest.raises(CUDAError, match="cudaErrorIllegalAddress"):
            stream.synchronize()
        cupy.zeros(3)


def test_events_and_streams_may_go_while_work_waits(kernels):
    fill, add = kernels
    x, y = cupy.zeros(64, np.float32), cupy.zeros(64, np.float32)
    cupy.cuda.Device().synchronize()
    streams = installed().streams
    gc.collect()
    before = len(streams.streams), len(streams.events)
    a, b = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream(non_blocking=True)
    fill((1,), (64,), (x, np.float32(3), np.int32(64)), stream=a)
    b.wait_event(a.record())
    add((1,), (64,), (x, y, np.int32(64), np.int32(1)), stream=b)
    del a, b
    gc.collect()
    assert (len(streams.streams), len(streams.events)) == before
    cupy.cuda.Device().synchronize()
    assert (y.get() == 3).all()


def test_handles_that_are_gone_are_refused():
    stream, event = runtime.streamCreate(), runtime.eventCreate()
    runtime.streamDestroy(stream)
    runtime.eventDestroy(event)
    for call, handle in ((runtime.streamDestroy, stream), (runtime.streamSynchronize, stream),
                         (runtime.eventDestroy, event), (runtime.eventSynchronize, event),
                         (runtime.streamDestroy, 0)):
        with pytest.raises(CUDAError, match="cudaErrorInvalidResourceHandle"):
            call(handle)


def test_priorities_are_kept_within_what_there_is():
    for asked, got in ((-1, -1), (-99, -5), (3, 0)):
        assert cupy.cuda.Stream(priority=asked).priority == got


# -- host functions --------------------------------------------------------------------------------

def test_host_functions_come_in_turn_and_by_the_thread_that_waits(kernels):
    calls = []
    stream = cupy.cuda.Stream(non_blocking=True)
    stream.launch_host_func(lambda n: calls.append((n, threading.get_ident())), 1)
    stream.add_callback(lambda s, status, n: calls.append((n, status, s is stream)), 2)
    stream.launch_host_func(lambda n: calls.append(n), 3)
    assert calls == []
    stream.synchronize()
    assert calls == [(1, threading.get_ident()), (2, 0, True), 3]


def test_host_functions_may_not_call_cuda():
    stream = cupy.cuda.Stream()
    for call in (stream.synchronize, lambda: cupy.zeros(3), stream.record,
                 runtime.streamCreate, lambda: runtime.malloc(8)):
        found = []

        def function(_, call=call, found=found):
            try:
                call()
            except CUDAError as error:
                found.append(error)

        stream.launch_host_func(function, None)
        stream.synchronize()
        assert [e.status for e in found] == [800], call
        assert "must not call CUDA" in str(found[0])
    cupy.zeros(3)


def test_what_a_host_function_raises_comes_to_who_waits():
    def fail(_):
        raise ValueError("of the function")

    stream = cupy.cuda.Stream()
    stream.launch_host_func(fail, None)
    with pytest.raises(ValueError, match="of the function"):
        stream.synchronize()
    cupy.zeros(3)
    stream.synchronize()


def test_what_is_collected_in_the_midst_of_work_goes_afterwards():
    """The garbage collector may free memory and destroy streams while work runs."""
    system = installed()
    other = cupy.cuda.Stream(non_blocking=True)
    other.launch_host_func(lambda _: None, None)
    address, stream, busy = runtime.malloc(64), cupy.cuda.Stream(), cupy.cuda.Stream()

    def function(_):
        runtime.free(address)  # waits for the device, where it is not put off
        runtime.streamDestroy(stream.ptr)
        assert address in system.memory.blocks
        assert stream.ptr in system.streams.streams

    busy.launch_host_func(function, None)
    busy.synchronize()
    assert address not in system.memory.blocks
    assert stream.ptr not in system.streams.streams
    stream.ptr = 0


def test_a_destroyed_stream_in_use_is_found():
    """Whoever catches the error does not see to it: a GPU's driver may crash instead."""
    def at(address):
        return cupy.cuda.Stream.from_external(
            SimpleNamespace(__cuda_stream__=lambda: (0, address)))

    stream = cupy.cuda.Stream(non_blocking=True)
    view = at(stream.ptr)
    view.synchronize()
    del stream
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="handle"):
        view.synchronize()
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="handle"):
        at(0x1234).synchronize()  # never was one
    found, = installed().findings
    assert (found.tool, found.kind) == ("memcheck", "use after free")
    assert "was destroyed before" in str(found)
    assert "test_streams.py" in found.file


# -- threads ---------------------------------------------------------------------------------------

def test_threads_with_a_stream_each(kernels):
    _, add = kernels
    found, failed = {}, []

    def work(n):
        try:
            with cupy.cuda.Device(n % 2):
                stream = cupy.cuda.Stream(non_blocking=True)
                with stream:
                    x, y = cupy.full(256, n, np.float32), cupy.zeros(256, np.float32)
                    for _ in range(5):
                        add((1,), (256,), (x, y, np.int32(256), np.int32(1)))
                        y *= 1
                    found[n] = y.get()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all((found[n] == 5 * n).all() for n in range(6))
    assert not list(installed().findings)


def test_a_thread_s_own_default_stream(kernels):
    streams = installed().streams
    own, done = [], []

    def work():
        ptds = cupy.cuda.Stream.ptds
        ptds.launch_host_func(done.append, 1)
        own.append(installed().stream(ptds.ptr))
        cupy.cuda.Stream.null.launch_host_func(done.append, 2)
        cupy.cuda.Stream.null.synchronize()  # they take turns

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [1, 2]
    gc.collect()
    cupy.cuda.Stream()
    assert own[0].blocking
    assert own[0].handle not in streams.streams
    assert installed().stream(cupy.cuda.Stream.ptds.ptr) is not own[0]


OWN = """
import os, threading
os.environ["CUPY_CUDA_PER_THREAD_DEFAULT_STREAM"] = "1"
from mlgpu.sim.cuda.install import install
system = install(devices=1)
import cupy, gc
failed, seen = [], set()
def work(n):
    try:
        x = cupy.arange(1000, dtype=cupy.float32) * n
        seen.add(system.stream(cupy.cuda.get_current_stream().ptr))
        assert float((x + 1).sum()) == 499500 * n + 1000
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not failed, failed
assert len(seen) == 4
del threads, thread
gc.collect()
cupy.cuda.Stream()
assert not system.streams.streams and not list(system.findings)
"""


def test_every_thread_s_work_on_its_own_default_stream():
    ended = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.fixture
def eager():
    """The garbage collector comes all the time, and there is no memory pool."""
    threshold = gc.get_threshold()
    gc.collect()
    gc.set_threshold(20, 2, 2)
    with cupy.cuda.using_allocator(None):
        yield
    gc.set_threshold(*threshold)


def test_the_garbage_collector_may_come_at_any_step(eager):
    class Knot:
        pass

    system = installed()
    before = len(system.streams.streams), len(system.streams.events)
    streams = [cupy.cuda.Stream(non_blocking=True) for _ in range(3)]
    for n in range(20):
        knot = Knot()
        knot.own = knot
        knot.stream, knot.event = cupy.cuda.Stream(), cupy.cuda.Event()
        knot.event.record(knot.stream)
        with streams[n % 3]:
            x = cupy.arange(500, dtype=np.float32)
            knot.array = cupy.sqrt(x * x) + n
            assert float(knot.array.sum()) == pytest.approx(500 * n + 124750)
    del knot, streams, x
    gc.collect()
    assert (len(system.streams.streams), len(system.streams.events)) == before
    assert not system.lock.later
    assert system.lock.depth == 0


# -- copies ----------------------------------------------------------------------------------------

def pinned(values):
    values = np.asarray(values)
    memory = cupy.cuda.alloc_pinned_memory(values.nbytes)
    array = np.frombuffer(memory, values.dtype, values.size).reshape(values.shape)
    array[...] = values
    return array


def test_an_asynchronous_copy_from_pinned_memory_comes_late():
    x, source = cupy.zeros(64, np.float32), pinned(np.ones(64, np.float32))
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    x.data.copy_from_host_async(source.ctypes.data, x.nbytes, stream)
    source[:] = 7  # too early
    with pytest.raises(CUDAError, match="pinned memory changed before the copy"):
        stream.synchronize()
    installed().reset()
    assert (x.get() == 7).all()


def test_an_asynchronous_copy_to_pinned_memory_comes_late():
    x, target = cupy.ones(64, np.float32), pinned(np.zeros(64, np.float32))
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    x.data.copy_to_host_async(target.ctypes.data, x.nbytes, stream)
    assert (target == 0).all()
    stream.synchronize()
    assert (target == 1).all()


def test_copies_from_memory_that_is_not_pinned_have_left_it():
    x, source = cupy.zeros(64, np.float32), np.ones(64, np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    x.data.copy_from_host_async(source.ctypes.data, x.nbytes, stream)
    source[:] = 7
    stream.synchronize()
    assert (x.get() == 1).all()
    x.data.copy_from_host(source.ctypes.data, x.nbytes)
    assert installed().streams.waiting  # it has left, and need not have come
    source[:] = 9
    assert (x.get() == 7).all()


def test_a_copy_that_waits_waits_for_its_stream_first():
    x, done = cupy.zeros(64, np.float32), []
    cupy.cuda.Stream.null.launch_host_func(done.append, 1)
    x.data.copy_from_host(np.ones(64, np.float32).ctypes.data, x.nbytes)
    assert done == [1]


def test_copies_to_memory_that_is_not_pinned_have_come():
    x, target = cupy.ones(64, np.float32), np.zeros(64, np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    x.data.copy_to_host_async(target.ctypes.data, x.nbytes, stream)
    assert (target == 1).all()


def test_copies_with_pinned_memory_that_wait():
    x, host = cupy.zeros(64, np.float32), pinned(np.ones(64, np.float32))
    x.data.copy_from_host(host.ctypes.data, x.nbytes)
    host[:] = 5
    assert (x.get() == 1).all()
    x.data.copy_to_host(host.ctypes.data, x.nbytes)
    assert (host == 1).all()


def test_copies_on_the_host_are_done_at_once():
    a, b = pinned(np.ones(64, np.float32)), pinned(np.zeros(64, np.float32))
    stream = cupy.cuda.Stream(non_blocking=True)
    runtime.memcpyAsync(b.ctypes.data, a.ctypes.data, a.nbytes, runtime.memcpyHostToHost,
                        stream.ptr)
    assert (b == 1).all()


def test_copies_and_fills_on_the_device_do_not_wait():
    x, y = cupy.ones(64, np.float32), cupy.zeros(64, np.float32)
    cupy.cuda.Device().synchronize()
    y.data.copy_from_device(x.data, x.nbytes)
    x.data.memset(0, x.nbytes)
    assert len(installed().streams.waiting) == 2
    assert (y.get() == 1).all()
    assert (x.get() == 0).all()


def test_filling_pinned_memory_waits():
    host = pinned(np.ones(64, np.uint8))
    runtime.memset(host.ctypes.data, 3, 64)
    assert (host == 3).all()
    runtime.memsetAsync(host.ctypes.data, 4, 64, 0)
    assert (host == 3).all()
    cupy.cuda.Device().synchronize()
    assert (host == 4).all()


def test_a_copy_between_devices_takes_turns_with_both():
    x = cupy.ones(64, np.float32)
    stream = cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    x.data.memset_async(0, x.nbytes, stream)
    with cupy.cuda.Device(1):
        y = cupy.ones(64, np.float32)
    runtime.memcpyPeer(y.data.ptr, 1, x.data.ptr, 0, x.nbytes)
    with cupy.cuda.Device(1):
        assert (y.get() == 0).all()


def test_freeing_waits_for_the_device():
    done = []
    stream = cupy.cuda.Stream(non_blocking=True)
    address = runtime.malloc(64)
    stream.launch_host_func(done.append, 1)
    runtime.free(address)
    assert done == [1]


# -- the end of the program ------------------------------------------------------------------------

LEFT = """
from mlgpu.sim.cuda.install import install
install(devices=1)
import cupy, numpy as np
fill = cupy.RawKernel('extern "C" __global__ void fill(int* x, int n) {'
                      'int i = threadIdx.x; if (i < n) x[i] = i; }', 'fill')
x = cupy.zeros(8, np.int32)
cupy.cuda.Device().synchronize()
stream = cupy.cuda.Stream(non_blocking=True)
stream.launch_host_func(lambda _: print('called'), None)
fill((1,), (32,), (x, np.int32(COUNT)), stream=stream)
print('end')
"""


@pytest.mark.parametrize("ending", ["wait()", "raise SystemExit"])
def test_what_the_program_was_told_is_not_told_again_at_exit(ending):
    text = LEFT.replace("COUNT", "1 << 20").replace("threadIdx.x;", "threadIdx.x + 4096;") + f"""
def wait():
    try:
        stream.synchronize()
    except Exception:
        pass
{ending}
"""
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ("memcheck" in ended.stderr) == ("wait" not in ending)


@pytest.mark.parametrize("count", [8, 1 << 20])
def test_work_that_is_never_waited_for_is_done_at_exit(count):
    text = LEFT.replace("COUNT", str(count))
    if count > 8:
        text = text.replace("threadIdx.x;", "threadIdx.x + 4096;")
    ended = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["end", "called"]
    if count == 8:
        assert ended.stderr == ""
    else:
        assert ended.stderr.count("without waiting for all its work") == 1
        assert "memcheck" in ended.stderr
        assert "at fill" in ended.stderr
