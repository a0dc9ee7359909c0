"""Races between pieces of work: each planted bug is found, and its repaired twin is not blamed."""

from __future__ import annotations

import random
import re
import threading

import cupy
import numpy as np
import pytest

from mlgpu.sim.cuda.hazards import Extent
from mlgpu.sim.cuda.install import installed

runtime = cupy.cuda.runtime
CUDAError = runtime.CUDARuntimeError
N = 256

if installed() is None:
    pytest.skip("of simulated devices", allow_module_level=True)


@pytest.fixture(scope="module")
def code():
    return r"""
extern "C" __global__ void put(float* x, float v) { x[threadIdx.x] = v; }
extern "C" __global__ void take(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }
extern "C" __global__ void tally(int* x) { atomicAdd(x, 1); }
extern "C" __global__ void peek(const int* x, int* y) { *y = *x; }
extern "C" __global__ void watch(volatile int* x, int* y) { *y = *x; }
extern "C" __global__ void reset(int* x) { *x = 0; }
extern "C" __global__ void touch(unsigned char* x, int first, int step, int count, int how) {
    int i = threadIdx.x;
    if (i >= count) return;
    i = first + i * step;
    if (how & 1 && x[i] == 255) x[i] = 3;
    if (how & 2) x[i] = i;
}"""


@pytest.fixture
def kernels(code):
    module = cupy.RawModule(code=code)
    return {name: module.get_function(name) for name in (
        "put", "take", "tally", "peek", "watch", "reset", "touch")}


@pytest.fixture(params=[0, 1, 2])
def seed(request):
    """The order in which streams run."""
    streams = installed().streams
    streams.hurt, streams.chance = request.param == 0, random.Random(request.param)
    yield request.param
    streams.hurt = True


@pytest.fixture
def two():
    return [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]


def arrays(*values):
    made = [cupy.full(N, v, np.float32) for v in values]
    cupy.cuda.Device().synchronize()
    return made


def wait():
    for n in range(2):
        with cupy.cuda.Device(n):
            cupy.cuda.Device().synchronize()


def found():
    """The finding that waiting for all raises."""
    with pytest.raises(CUDAError, match="cudaErrorLaunchFailure") as raised:
        wait()
    assert raised.value.__cause__ is next(iter(installed().findings))
    return raised.value.__cause__


def clean():
    wait()
    assert not list(installed().findings)
    assert not installed().hazards.kept


def pinned(values):
    values = np.asarray(values)
    memory = cupy.cuda.alloc_pinned_memory(values.nbytes)
    array = np.frombuffer(memory, values.dtype, values.size).reshape(values.shape)
    array[...] = values
    return array


# -- a missing event -------------------------------------------------------------------------------

@pytest.mark.parametrize("repaired", [False, True])
@pytest.mark.parametrize("kind", ["read after write", "write after read", "write after write"])
def test_a_missing_event(kernels, two, seed, kind, repaired):
    a, b = two
    x, y, z = arrays(1, 0, 0)
    put, take = (kernels["put"], (x, np.float32(2))), (kernels["take"], (x, y))
    first, second = {"read after write": (put, take), "write after read": (take, put),
                     "write after write": (put, (kernels["take"], (z, x)))}[kind]
    first[0]((1,), (N,), first[1], stream=a)
    if repaired:
        b.wait_event(a.record())
    second[0]((1,), (N,), second[1], stream=b)
    if repaired:
        clean()
        assert (y.get() == {"read after write": 2, "write after read": 1}.get(kind, 0)).all()
        return
    finding = found()
    assert (finding.tool, finding.kind) == ("racecheck", kind)


def test_a_finding_names_both(kernels, two):
    a, b = two
    x, y = arrays(1, 0)
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    kernels["take"]((1,), (128,), (x[64:], y), stream=b)
    finding = found()
    text = str(finding)
    lines = {int(line) for line in re.findall(rf"{re.escape(__file__)}:(\d+)", text)}
    assert (finding.kernel, finding.other.kernel) == ("take", "put")
    assert finding.file == finding.other.file == __file__
    assert finding.line == finding.other.line + 1
    assert {finding.line, finding.other.line} < lines
    assert (finding.access, finding.other.access) == ("read", "write")
    assert finding.address == x.data.ptr + 256
    assert f"{finding.address:#x}" in text
    assert f"take on stream {b.ptr:#x} of device 0" in text
    assert f"put on stream {a.ptr:#x} of device 0" in text
    assert (finding.allocation.address, finding.allocation.size) == (x.data.ptr, x.nbytes)
    assert finding.allocation.made_at.startswith(f"{__file__}:")
    assert "nothing orders the two" in text


def test_a_missing_event_shows_in_the_result_too(kernels, two):
    a, b = two
    x, y = arrays(1, 0)
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    kernels["take"]((1,), (N,), (x, y), stream=b)
    b.synchronize()
    out = pinned(np.zeros(N, np.float32))
    y.data.copy_to_host_async(out.ctypes.data, y.nbytes, b)
    b.synchronize()
    assert (out == 1).all()
    found()


def test_an_event_of_too_early(kernels, two, seed):
    """Recorded before the work that it should stand for."""
    a, b = two
    x, y = arrays(1, 0)
    early = a.record()
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    b.wait_event(early)
    kernels["take"]((1,), (N,), (x, y), stream=b)
    assert found().kind == "read after write"


@pytest.mark.parametrize("repaired", [False, True])
def test_the_default_stream_and_one_that_does_not_wait_for_it(kernels, seed, repaired):
    stream = cupy.cuda.Stream(non_blocking=not repaired)
    x, y = arrays(1, 0)
    kernels["put"]((1,), (N,), (x, np.float32(2)))
    kernels["take"]((1,), (N,), (x, y), stream=stream)
    if repaired:
        clean()
        assert (y.get() == 2).all()
    else:
        assert "the default stream" in str(found())


@pytest.mark.parametrize("repaired", [False, True])
def test_a_copy_that_waits_has_not_come_for_other_streams(kernels, seed, repaired):
    """cudaMemcpy from memory that is not pinned returns before the bytes are there."""
    stream = cupy.cuda.Stream(non_blocking=True)
    x, y = arrays(1, 0)
    source = np.full(N, 5, np.float32)
    x.data.copy_from_host(source.ctypes.data, x.nbytes)
    if repaired:
        stream.wait_event(cupy.cuda.Stream.null.record())
    kernels["take"]((1,), (N,), (x, y), stream=stream)
    if repaired:
        clean()
        assert (y.get() == 5).all()
    else:
        assert found().other.kernel == "copy to the device"


@pytest.mark.parametrize("repaired", [False, True])
def test_a_missing_wait_between_devices(kernels, seed, repaired):
    x, = arrays(1)
    a = cupy.cuda.Stream(non_blocking=True)
    with cupy.cuda.Device(1):
        b = cupy.cuda.Stream(non_blocking=True)
        y, = arrays(0)
        kernels["put"]((1,), (N,), (y, np.float32(0)), stream=b)
        b.synchronize()
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    event = a.record()
    with cupy.cuda.Device(1):
        if repaired:
            b.wait_event(event)
        y.data.copy_from_device_async(x.data, x.nbytes, b)
    if repaired:
        clean()
        assert (y.get() == 2).all()
    else:
        finding = found()
        assert finding.kind == "read after write"
        assert "of device 0" in str(finding)
        assert "of device 1" in str(finding)


# -- reading back ----------------------------------------------------------------------------------

@pytest.mark.parametrize("repaired", [False, True])
def test_a_missing_synchronize_before_reading_back(kernels, two, repaired):
    x, = arrays(1)
    out = pinned(np.zeros(N, np.float32))
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=two[0])
    x.data.copy_to_host_async(out.ctypes.data, x.nbytes, two[0])
    if repaired:
        two[0].synchronize()
    assert (out == 2).all() == repaired
    clean()


@pytest.mark.parametrize("repaired", [False, True])
def test_reading_back_on_another_stream(kernels, two, seed, repaired):
    a, b = two
    x, = arrays(1)
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    if repaired:
        a.synchronize()
        assert (x.get(stream=b) == 2).all()
        clean()
        return
    with b:
        x.get()
    assert found().kernel == "copy to the host"


@pytest.mark.parametrize("repaired", [False, True])
def test_a_host_function_that_comes_too_early(kernels, two, repaired):
    a, b = two
    x, = arrays(3)
    out, seen = pinned(np.zeros(N, np.float32)), []
    x.data.copy_to_host_async(out.ctypes.data, x.nbytes, a)
    if repaired:
        b.wait_event(a.record())
    b.launch_host_func(lambda _: seen.append(float(out[0])), None)
    clean()
    assert seen == [3.0 if repaired else 0.0]


# -- pinned memory ---------------------------------------------------------------------------------

@pytest.mark.parametrize("repaired", [False, True])
def test_pinned_memory_used_again_too_early(two, repaired):
    x, y = arrays(0, 0)
    source = pinned(np.ones(N, np.float32))
    x.data.copy_from_host_async(source.ctypes.data, x.nbytes, two[0])
    line = 2 + test_pinned_memory_used_again_too_early.__code__.co_firstlineno
    if repaired:
        two[0].synchronize()
    source[:] = 2
    y.data.copy_from_host_async(source.ctypes.data, x.nbytes, two[0])
    if repaired:
        clean()
        assert (x.get() == 1).all()
        assert (y.get() == 2).all()
        return
    finding = found()
    assert "pinned memory changed before the copy" in finding.message
    assert finding.allocation.address == finding.address == source.ctypes.data
    assert finding.line in range(line, line + 5)


def test_pinned_memory_that_work_fills_is_no_fault(kernels, two):
    x, y = arrays(4, 0)
    between = pinned(np.zeros(N, np.float32))
    a = two[0]
    x.data.copy_to_host_async(between.ctypes.data, x.nbytes, a)
    y.data.copy_from_host_async(between.ctypes.data, x.nbytes, a)
    clean()
    assert (y.get() == 4).all()

    def fill(_):
        between[:] = 6

    a.launch_host_func(fill, None)
    y.data.copy_from_host_async(between.ctypes.data, x.nbytes, a)
    clean()
    assert (y.get() == 6).all()
    kernels["put"]((1,), (N,), (np.intp(between.ctypes.data), np.float32(8)), stream=a)
    y.data.copy_from_host_async(between.ctypes.data, x.nbytes, a)
    clean()
    assert (y.get() == 8).all()


@pytest.mark.parametrize("repaired", [False, True])
def test_pinned_memory_of_two_streams(two, seed, repaired):
    x, y = arrays(4, 0)
    between = pinned(np.zeros(N, np.float32))
    a, b = two
    x.data.copy_to_host_async(between.ctypes.data, x.nbytes, a)
    if repaired:
        b.wait_event(a.record())
    y.data.copy_from_host_async(between.ctypes.data, x.nbytes, b)
    if repaired:
        clean()
    else:
        assert found().kind == "read after write"


# -- memory that is freed --------------------------------------------------------------------------

@pytest.mark.parametrize("repaired", [False, True])
def test_memory_freed_and_used_again_on_another_stream(kernels, two, seed, repaired):
    a, b = two
    y, = arrays(0)
    with a:
        x = cupy.full(N, 1, np.float32)
    a.synchronize()
    address = x.data.ptr
    kernels["take"]((1,), (N,), (x, y), stream=b)
    if repaired:
        a.wait_event(b.record())
    del x  # the pool gives it to the next one of stream a, whatever b does
    with a:
        z = cupy.full(N, 9, np.float32)
    assert z.data.ptr == address
    if repaired:
        clean()
        assert (y.get() == 1).all()
    else:
        finding = found()  # in one order take reads what is not written yet
        assert finding.tool in ("racecheck", "initcheck")
        assert finding.kernel == "take" or finding.other.kernel == "take"


@pytest.mark.parametrize("repaired", [False, True])
def test_memory_freed_in_the_order_of_another_stream(kernels, two, seed, repaired):
    a, b = two
    y, = arrays(0)
    address = runtime.mallocAsync(4 * N, a.ptr)
    kernels["put"]((1,), (N,), (np.intp(address), np.float32(3)), stream=a)
    b.wait_event(a.record())
    kernels["take"]((1,), (N,), (np.intp(address), y), stream=b)
    if repaired:
        a.wait_event(b.record())
    runtime.freeAsync(address, a.ptr)
    if repaired:
        clean()
        return
    with pytest.raises(CUDAError) as raised:
        wait()
    finding = raised.value.__cause__
    # in one order the kernel comes too late, in the other the memory goes while it may still run
    assert (finding.tool, finding.kernel) in {("memcheck", "take"), ("racecheck", "free")}


@pytest.mark.parametrize("repaired", [False, True])
def test_memory_allocated_in_the_order_of_another_stream(kernels, two, seed, repaired):
    a, b = two
    address = runtime.mallocAsync(4 * N, a.ptr)
    if repaired:
        b.wait_event(a.record())
    kernels["put"]((1,), (N,), (np.intp(address), np.float32(3)), stream=b)
    a.wait_event(b.record())
    runtime.freeAsync(address, a.ptr)
    if repaired:
        clean()
    else:
        finding = found()
        assert (finding.kernel, finding.other.kernel) == ("put", "allocation")


# -- programs that are right -----------------------------------------------------------------------

def test_fork_and_join(kernels, two, seed):
    x, *parts = arrays(1, 0, 0, 0)
    streams = [*two, cupy.cuda.Stream(non_blocking=True)]
    main = cupy.cuda.Stream(non_blocking=True)
    for round in range(3):
        kernels["put"]((1,), (N,), (x, np.float32(round)), stream=main)
        fork = main.record()
        for stream, part in zip(streams, parts, strict=True):
            stream.wait_event(fork)
            kernels["take"]((1,), (N,), (x, part), stream=stream)
            main.wait_event(stream.record())
    clean()
    assert all((p.get() == 2).all() for p in parts)


def test_two_buffers_in_turn(kernels, two, seed):
    a, b = two
    buffers, out = arrays(0, 0), arrays(*[0] * 6)
    filled, emptied = ([cupy.cuda.Event() for _ in "01"] for _ in "ab")
    for n in range(6):
        k = n % 2
        a.wait_event(emptied[k])
        kernels["put"]((1,), (N,), (buffers[k], np.float32(n)), stream=a)
        filled[k].record(a)
        b.wait_event(filled[k])
        kernels["take"]((1,), (N,), (buffers[k], out[n]), stream=b)
        emptied[k].record(b)
    clean()
    assert [float(o[0]) for o in out] == list(range(6))


def test_two_buffers_in_turn_without_the_way_back(kernels, two, seed):
    a, b = two
    buffers, out = arrays(0, 0), arrays(*[0] * 6)
    filled = [cupy.cuda.Event() for _ in "01"]
    for n in range(6):
        k = n % 2
        kernels["put"]((1,), (N,), (buffers[k], np.float32(n)), stream=a)
        filled[k].record(a)
        b.wait_event(filled[k])
        kernels["take"]((1,), (N,), (buffers[k], out[n]), stream=b)
    assert found().kind == "write after read"


def test_one_event_recorded_again_and_again(kernels, two, seed):
    a, b = two
    x, y = arrays(0, 0)
    there, back = cupy.cuda.Event(), cupy.cuda.Event()
    for n in range(8):
        kernels["put"]((1,), (N,), (x, np.float32(n)), stream=a)
        there.record(a)
        b.wait_event(there)
        kernels["take"]((1,), (N,), (x, y), stream=b)
        back.record(b)
        a.wait_event(back)
    clean()
    assert (y.get() == 7).all()


@pytest.mark.parametrize("how", ["stream", "event", "device", "poll", "through a third stream",
                                 "the default stream's turn"])
def test_what_orders(kernels, two, seed, how):
    a, b = two if how != "the default stream's turn" else [cupy.cuda.Stream() for _ in range(2)]
    x, y, z = arrays(1, 0, 0)
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    event = a.record()
    if how == "stream":
        a.synchronize()
    elif how == "event":
        event.synchronize()
    elif how == "device":
        cupy.cuda.Device().synchronize()
    elif how == "poll":
        while not a.done:
            pass
    elif how == "through a third stream":
        third = cupy.cuda.Stream(non_blocking=True)
        third.wait_event(event)
        b.wait_event(third.record())
    else:
        kernels["put"]((1,), (N,), (z, np.float32(1)))
    kernels["take"]((1,), (N,), (x, y), stream=b)
    clean()
    assert (y.get() == 2).all()


def test_neighbours_do_not_meet(kernels, two, seed):
    """Even bytes on one stream, odd ones on the other; and two halves."""
    x = cupy.zeros(2 * N, np.uint8)
    cupy.cuda.Device().synchronize()
    for first, stream in enumerate(two):
        kernels["touch"]((1,), (N,), (x, *map(np.int32, (first, 2, N, 2))), stream=stream)
    clean()
    for first, stream in enumerate(two):
        kernels["touch"]((1,), (N,), (x, *map(np.int32, (first * N, 1, N, 2))), stream=stream)
    clean()
    for first, stream in enumerate(two):
        kernels["touch"]((1,), (N,), (x, *map(np.int32, (first, 3, 100, 2))), stream=stream)
    clean()
    for first, stream in enumerate(two):
        kernels["touch"]((1,), (N,), (x, *map(np.int32, (4 * first, 3 - first, 100, 2))),
                         stream=stream)
    assert found().address == x.data.ptr + 6


def test_reads_do_not_race(kernels, two, seed):
    x, y, z = arrays(1, 0, 0)
    for stream, out in zip(two, (y, z), strict=True):
        kernels["take"]((1,), (N,), (x, out), stream=stream)
    clean()


def test_atomics_race_with_all_but_atomics(kernels, two, seed):
    a, b = two
    x = cupy.zeros(1, np.int32)
    cupy.cuda.Device().synchronize()
    for stream in two:
        kernels["tally"]((2,), (32,), (x,), stream=stream)
    clean()
    assert int(x[0]) == 128
    kernels["tally"]((1,), (32,), (x,), stream=a)
    kernels["reset"]((1,), (1,), (x,), stream=b)
    assert found().kind == "write after write"


@pytest.mark.parametrize("how", ["watch", "peek"])
def test_what_atomics_do_may_be_watched_but_not_read(kernels, two, seed, how):
    a, b = two
    x, y = cupy.zeros(1, np.int32), cupy.zeros(1, np.int32)
    cupy.cuda.Device().synchronize()
    kernels["tally"]((1,), (32,), (x,), stream=a)
    kernels[how]((1,), (1,), (x, y), stream=b)
    if how == "watch":
        clean()
    else:
        assert found().kind == "read after write"


def test_threads_with_streams_of_their_own(kernels, seed):
    shared, = arrays(3)
    failed, out = [], []

    def work():
        try:
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                y = cupy.zeros(N, np.float32)
                for _ in range(5):
                    kernels["take"]((1,), (N,), (shared, y))
                    y += 1
            out.append(y.get(stream=stream))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all((o == 4).all() for o in out)
    clean()


def test_arrays_of_cupy_on_two_streams(two, seed):
    """Its kernels, reductions, copies and its pool."""
    a, b = two
    with a:
        x = cupy.arange(1000, dtype=np.float32)
        x = cupy.sqrt(x * x + 0) + cupy.zeros(1000, np.float32)
        total = x.sum()
    b.wait_event(a.record())
    with b:
        y = (x - total / 1000).astype(np.float64).reshape(10, 100).max(axis=1)
        host = cupy.asnumpy(y)
    assert host[-1] == pytest.approx(999 - 499.5)
    clean()


@pytest.mark.parametrize("repaired", [False, True])
def test_branches_of_a_graph(kernels, two, seed, repaired):
    a, b = two
    x, y = arrays(1, 0)
    a.begin_capture()
    kernels["put"]((1,), (N,), (y, np.float32(1)), stream=a)
    b.wait_event(a.record())
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    if repaired:
        b.wait_event(a.record())
    kernels["take"]((1,), (N,), (x, y), stream=b)
    a.wait_event(b.record())
    graph = a.end_capture()
    for _ in range(2):
        graph.launch(a)
    if repaired:
        clean()
        assert (y.get() == 2).all()
    else:
        finding = found()
        assert finding.kind == "read after write"
        assert "in the graph launched at" in str(finding)


@pytest.mark.parametrize("repaired", [False, True])
def test_a_graph_and_another_stream(kernels, two, seed, repaired):
    a, b = two
    x, y = arrays(1, 0)
    a.begin_capture()
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=a)
    graph = a.end_capture()
    graph.launch(a)
    if repaired:
        b.wait_event(a.record())
    kernels["take"]((1,), (N,), (x, y), stream=b)
    if repaired:
        clean()
        assert (y.get() == 2).all()
    else:
        assert found().kernel == "take"


@pytest.mark.parametrize("repaired", [False, True])
def test_library_calls(kernels, two, seed, repaired):
    a, b = two
    x, y = (cupy.ones((16, 16), np.float32) for _ in "xy")
    wait()
    with a:
        z = x @ y
    if repaired:
        b.wait_event(a.record())
    kernels["put"]((1,), (N,), (x, np.float32(2)), stream=b)
    if repaired:
        clean()
        assert (z.get() == 16).all()
    else:
        finding = found()
        assert finding.kind == "write after read"
        assert "gemm" in finding.other.kernel.lower()


# -- against an oracle -----------------------------------------------------------------------------

@pytest.mark.parametrize("number", range(12))
def test_random_programs(kernels, number, monkeypatch):
    """Exactly the pairs of launches are found that race by a reckoning of their own."""
    system = installed()
    chance = random.Random(number)
    streams = [cupy.cuda.Stream.null, cupy.cuda.Stream(),
               *(cupy.cuda.Stream(non_blocking=True) for _ in range(2))]
    x = cupy.zeros(2 * N, np.uint8)
    wait()
    monkeypatch.setattr(system, "collects", True)
    monkeypatch.setattr(system.streams, "hurt", number % 2 == 0)
    system.streams.chance.seed(number)
    pairs = set()
    monkeypatch.setattr(system.hazards, "_found", lambda region, first, second, *rest: pairs.add(
        (ages[first.age], ages[second.age])))
    ages, launches, events, expected = {}, [], [], set()
    done = set()  # launches that the host knows to be done
    tails = {s: set() for s in streams}  # what comes before the next one of each stream
    for n in range(24):
        stream = chance.choice(streams)
        for _ in range(chance.choice((0, 0, 0, 1))):
            if events:
                event, before = chance.choice(events)
                stream.wait_event(event)
                tails[stream] = tails[stream] | before | turn(stream, tails, streams)
        before = tails[stream] | turn(stream, tails, streams) | done
        first, step, count = chance.randrange(40), chance.choice((1, 2, 3, 4)), chance.randint(1, 9)
        how = chance.choice((1, 1, 2))
        kernels["touch"]((1,), (32,), (x, *map(np.int32, (first, step, count, how))),
                         stream=stream)
        ages[system.streams.default_of(0).last.age if stream is streams[0]
             else system.stream(stream.ptr).last.age] = n
        bytes_ = {first + i * step for i in range(count)}
        expected |= {(k, n) for k, (others, other_how) in enumerate(launches)
                     if k not in before and others & bytes_ and max(how, other_how) == 2}
        launches.append((bytes_, how))
        tails[stream] = before | {n}
        if chance.random() < 0.3:
            events.append((stream.record(), frozenset(before | {n})))
            tails[stream] = tails[stream] | turn(stream, tails, streams)
        if chance.random() < 0.1:
            stream.synchronize()
            done |= tails[stream] | turn(stream, tails, streams)
    wait()
    assert pairs == expected
    assert not system.hazards.kept


def turn(stream, tails, streams):
    """What comes before the next work of a stream besides its own."""
    default, blocking = streams[:2]
    if stream is default:
        return set(tails[blocking])
    return set(tails[default]) if stream is blocking else set()


def test_extents_meet_where_their_bytes_do():
    chance = random.Random(5)
    for _ in range(300):
        sets = []
        for _ in "ab":
            low, high = sorted(chance.sample(range(90), 2))
            marks = np.zeros(96, np.uint8)
            marks[low:high] = [chance.choice((0, 4, 5)) for _ in range(low, high)] if (
                chance.random() < 0.7) else 4
            marks[low] |= 4
            start = chance.choice((0, 3, 8, 11))
            sets.append((Extent.of(marks & 4 != 0, start),
                         {start + int(k) for k in np.flatnonzero(marks & 4)}))
        (a, in_a), (b, in_b) = sets
        assert a.meets(b) == b.meets(a) == min(in_a & in_b, default=None)


def test_nothing_is_kept_of_one_stream(kernels):
    x, y = arrays(1, 0)
    wait()
    for n in range(20):
        kernels["put"]((1,), (N,), (x, np.float32(n)))
        kernels["take"]((1,), (N,), (x, y))
        assert not installed().hazards.kept
    assert (y.get() == 19).all()
    assert not installed().hazards.kept
