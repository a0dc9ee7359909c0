"""Ordinary CuPy on simulated devices: streams, events, memory, several devices, exchange."""

from __future__ import annotations

import gc
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import cupy as cp
import cupyx
import numpy as np
import pytest

from mlgpu.sim.cuda.install import installed

ADD = cp.RawKernel(r"""
extern "C" __global__ void add(float* x, float value) { x[threadIdx.x] += value; }
""", "add")

two_devices = pytest.mark.skipif(cp.cuda.runtime.getDeviceCount() < 2, reason="one device")


@pytest.fixture
def pool() -> Iterator[cp.cuda.MemoryPool]:
    """A memory pool of the test's own."""
    own = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(own.malloc):
        yield own


# -- streams and events ---------------------------------------------------------------------------

def test_work_in_a_stream() -> None:
    stream = cp.cuda.Stream()
    with stream:
        assert cp.cuda.get_current_stream() == stream
        x = cp.arange(1000, dtype="f4")
        y = cp.sqrt(x) + 1
    stream.synchronize()
    assert stream.done
    np.testing.assert_allclose(y.get(stream), np.sqrt(np.arange(1000, dtype="f4")) + 1, rtol=1e-6)
    assert cp.cuda.get_current_stream() == cp.cuda.Stream.null


def test_streams_wait_for_events() -> None:
    first, second = cp.cuda.Stream(non_blocking=True), cp.cuda.Stream(non_blocking=True)
    x = cp.zeros(32, "f4")
    cp.cuda.Device().synchronize()
    for step in range(6):
        mine, other = (first, second) if step % 2 else (second, first)
        mine.wait_event(other.record())
        with mine:
            ADD((1,), (32,), (x, cp.float32(step)))
    cp.cuda.Device().synchronize()
    assert x.tolist() == [15.0] * 32


def test_events() -> None:
    start, stop = cp.cuda.Event(), cp.cuda.Event()
    start.record()
    x = cp.ones(100000, "f4")
    for _ in range(3):
        x = x * 2
    stop.record()
    stop.synchronize()
    assert start.done
    assert stop.done
    assert cp.cuda.get_elapsed_time(start, stop) >= 0
    assert float(x[0]) == 8.0


def test_events_without_time() -> None:
    event = cp.cuda.Event(disable_timing=True)
    event.record()
    event.synchronize()
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidResourceHandle"):
        cp.cuda.get_elapsed_time(event, event)


def test_host_functions() -> None:
    stream, seen = cp.cuda.Stream(), []
    with stream:
        x = cp.arange(10)
        stream.launch_host_func(seen.append, "one")
        x += 1
        stream.launch_host_func(seen.append, "two")
    stream.synchronize()
    assert seen == ["one", "two"]


def test_priorities_and_flags() -> None:
    stream = cp.cuda.Stream(non_blocking=True, priority=-1)
    assert stream.priority == -1
    assert not stream.is_capturing()
    if installed() is not None:  # a real driver follows the pointer
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError):
            cp.cuda.runtime.streamSynchronize(0x1234)


def test_external_stream() -> None:
    own = cp.cuda.Stream()
    with cp.cuda.Stream.from_external(own) as stream:
        x = cp.arange(5) * 2
        stream.synchronize()
    assert x.tolist() == [0, 2, 4, 6, 8]


def test_streams_of_threads() -> None:
    """The current stream is each thread's own."""
    seen: list[Any] = []
    with cp.cuda.Stream():
        thread = threading.Thread(target=lambda: seen.append(cp.cuda.get_current_stream()))
        thread.start()
        thread.join()
    assert seen == [cp.cuda.Stream.null]


# -- memory ---------------------------------------------------------------------------------------

def test_pool_counts(pool: cp.cuda.MemoryPool) -> None:
    x = cp.zeros(1000, "f4")
    assert pool.used_bytes() == 4096
    y = cp.zeros(1000, "f8")
    assert pool.used_bytes() == pool.total_bytes() == 4096 + 8192
    del x
    gc.collect()
    assert (pool.used_bytes(), pool.free_bytes(), pool.n_free_blocks()) == (8192, 4096, 1)
    z = cp.ones(10, "f4")  # of the free block
    assert pool.total_bytes() == 4096 + 8192
    assert float(z.sum()) == 10
    del y, z
    gc.collect()
    cp.cuda.Device().synchronize()
    pool.free_all_blocks()
    assert pool.total_bytes() == 0


def test_pool_gives_memory_back(pool: cp.cuda.MemoryPool) -> None:
    free, total = cp.cuda.Device().mem_info
    x = cp.empty(1 << 20, "f4")
    assert cp.cuda.Device().mem_info == (free - (4 << 20), total)
    del x
    pool.free_all_blocks()
    assert cp.cuda.Device().mem_info == (free, total)


def test_pool_limit(pool: cp.cuda.MemoryPool) -> None:
    pool.set_limit(1 << 20)
    assert pool.get_limit() == 1 << 20
    held = cp.empty(1 << 19, "u1")
    with pytest.raises(cp.cuda.memory.OutOfMemoryError, match="limit"):
        cp.empty((1 << 19) + 1, "u1")
    pool.set_limit(fraction=0.5)
    assert pool.get_limit() == cp.cuda.Device().mem_info[1] // 2
    assert cp.empty_like(held).nbytes == 1 << 19


def test_out_of_memory(pool: cp.cuda.MemoryPool) -> None:
    with pytest.raises(cp.cuda.memory.OutOfMemoryError):
        cp.empty(1 << 44, "u1")
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="cudaErrorMemoryAllocation"):
        cp.cuda.runtime.malloc(1 << 44)
    assert cp.ones(3).sum() == 3  # nothing sticks


def test_no_pool() -> None:
    with cp.cuda.using_allocator(None):
        x = cp.arange(100)
        y = x[::2] + 1
    assert y.tolist() == list(range(1, 101, 2))


def test_stream_ordered_memory() -> None:
    with cp.cuda.using_allocator(cp.cuda.MemoryAsyncPool().malloc):
        x = cp.arange(1000)
        total = int((x * 2).sum())
        del x
    assert total == 999000


def test_managed_memory() -> None:
    with cp.cuda.using_allocator(cp.cuda.malloc_managed):
        x = cp.arange(10, dtype="f4")
        ADD((1,), (10,), (x, cp.float32(1)))
    cp.cuda.Device().synchronize()
    assert x.tolist() == list(range(1, 11))


def test_advice_on_managed_memory() -> None:
    memory = cp.cuda.malloc_managed(1024).mem
    memory.advise(1, cp.cuda.Device())  # cudaMemAdviseSetReadMostly
    memory.prefetch(cp.cuda.Stream())
    if cp.cuda.runtime.runtimeGetVersion() < 13000:
        memory.prefetch(cp.cuda.Stream(), device_id=-1)  # to the host
    else:  # CuPy does not say that -1 is no device's number
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="InvalidDevice"):
            memory.prefetch(cp.cuda.Stream(), device_id=-1)
    for wrong in (lambda: memory.advise(99, cp.cuda.Device()),
                  lambda: memory.prefetch(cp.cuda.Stream(), device_id=99)):
        with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalid"):
            wrong()


def test_a_stream_ordered_pool_reserves_more_than_it_uses() -> None:
    """It grows in steps and gives back what is not in use when told to."""
    pool = cp.cuda.MemoryAsyncPool()
    pool.free_all_blocks()
    before = pool.total_bytes(), pool.used_bytes()
    first = pool.malloc(512)
    total = pool.total_bytes()
    second = pool.malloc(2048)
    assert pool.used_bytes() == before[1] + 2560
    assert pool.total_bytes() == total > pool.used_bytes()
    assert pool.free_bytes() == total - pool.used_bytes()
    del first, second
    assert pool.total_bytes() == total
    pool.free_all_blocks()
    assert (pool.total_bytes(), pool.used_bytes()) == before


def test_pointers_and_own_memory() -> None:
    memory = cp.cuda.alloc(64)
    a, b = (cp.ndarray(8, "f4", memory + at) for at in (0, 32))
    a[...], b[...] = 1, 2
    both = cp.ndarray(16, "f4", memory)
    assert both.tolist() == [1.0] * 8 + [2.0] * 8
    attributes = cp.cuda.runtime.pointerGetAttributes(memory.ptr)
    assert (attributes.device, attributes.devicePointer) == (0, memory.ptr)
    foreign = cp.cuda.MemoryPointer(cp.cuda.UnownedMemory(memory.ptr, 64, memory), 0)
    assert cp.ndarray(16, "f4", foreign).sum() == 24


def test_pinned_memory() -> None:
    pinned = cupyx.empty_pinned((100,), "f4")
    pinned[:] = np.arange(100)
    stream = cp.cuda.Stream(non_blocking=True)
    x = cp.empty(100, "f4")
    x.set(pinned, stream)
    back = cupyx.zeros_like_pinned(pinned)
    x.get(stream, out=back, blocking=False)
    stream.synchronize()
    np.testing.assert_array_equal(back, pinned)
    kinds = {cp.cuda.runtime.pointerGetAttributes(p).type for p in (pinned.ctypes.data, x.data.ptr)}
    assert kinds == {1, 2}


def test_memset_and_copies() -> None:
    x = cp.arange(10, dtype="i4")
    x.data.memset(0, 8)
    y = cp.empty_like(x)
    y.data.copy_from_device(x.data, x.nbytes)
    assert y.tolist() == [0, 0, *range(2, 10)]
    out = np.empty(10, "i4")
    y.data.copy_to_host(out.ctypes.data, out.nbytes)
    np.testing.assert_array_equal(out, y.get())


def test_copies_of_rows() -> None:
    x, y = cp.arange(12, dtype="u1").reshape(3, 4), cp.zeros((3, 6), "u1")
    cp.cuda.runtime.memcpy2D(y.data.ptr, 6, x.data.ptr, 4, 3, 3, 3)
    assert y[:, :4].tolist() == [[0, 1, 2, 0], [4, 5, 6, 0], [8, 9, 10, 0]]


# -- devices --------------------------------------------------------------------------------------

def test_properties() -> None:
    device = cp.cuda.Device()
    properties = cp.cuda.runtime.getDeviceProperties(device.id)
    assert device.attributes["WarpSize"] == properties["warpSize"] == 32
    assert device.compute_capability == f"{properties['major']}{properties['minor']}"
    assert properties["multiProcessorCount"] == device.attributes["MultiProcessorCount"] > 0
    assert cp.cuda.is_available()
    assert device.mem_info[1] == properties["totalGlobalMem"]
    assert cp.cuda.runtime.deviceGetByPCIBusId(device.pci_bus_id) == device.id


def test_no_such_device() -> None:
    with pytest.raises(cp.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidDevice"):
        cp.cuda.Device(99).use()


@two_devices
def test_arrays_on_two_devices() -> None:
    with cp.cuda.Device(1):
        x = cp.arange(10.0)
        assert x.device.id == 1
        assert (x + 1).sum() == 55
    y = cp.asarray(x)  # a copy to the current device
    assert y.device.id == 0
    assert x.get().tolist() == y.tolist()
    x.data.copy_from_device(y.data, 8)
    with cp.cuda.Device(1):
        assert x.copy().device.id == 1


@two_devices
def test_raw_kernel_on_each_device() -> None:
    results = []
    for number in range(2):
        with cp.cuda.Device(number):
            x = cp.full(32, number, "f4")
            ADD((1,), (32,), (x, cp.float32(5)))
            results.append(x)
    assert [r.get().sum() for r in results] == [160.0, 192.0]


@two_devices
def test_peers() -> None:
    assert cp.cuda.runtime.deviceCanAccessPeer(0, 1)
    with cp.cuda.Device(1):
        other = cp.arange(32, dtype="f4")
        cp.cuda.Device(1).synchronize()
    mine = cp.empty(32, "f4")
    cp.cuda.runtime.memcpyPeer(mine.data.ptr, 0, other.data.ptr, 1, 128)
    assert mine.tolist() == list(range(32))


@two_devices
@pytest.mark.filterwarnings("ignore::cupy._util.PerformanceWarning")
def test_a_ufunc_of_two_devices() -> None:
    with cp.cuda.Device(1):
        other = cp.arange(32, dtype="f4")
        cp.cuda.Device(1).synchronize()
    assert (cp.ones(32, "f4") + other).tolist() == list(range(1, 33))


@two_devices
def test_streams_belong_to_a_device() -> None:
    with cp.cuda.Device(1):
        stream = cp.cuda.Stream()
    assert stream.device_id == 1
    with pytest.raises(RuntimeError), stream:
        pass


# -- exchange -------------------------------------------------------------------------------------

def test_dlpack() -> None:
    x = cp.arange(12, dtype="f4").reshape(3, 4)
    again = cp.from_dlpack(x)
    assert again.data.ptr == x.data.ptr
    again[0, 0] = 9
    assert float(x[0, 0]) == 9
    assert x.__dlpack_device__() == (2, 0)
    np.testing.assert_array_equal(np.from_dlpack(x, device="cpu"), x.get())


def test_array_interface() -> None:
    class Other:
        def __init__(self, array: cp.ndarray) -> None:
            self.__cuda_array_interface__ = array.__cuda_array_interface__

    x = cp.arange(5)
    assert cp.asarray(Other(x)).data.ptr == x.data.ptr


def test_to_and_from_numpy() -> None:
    host = np.arange(6.0).reshape(2, 3)
    x = cp.asarray(host)
    assert cp.asarray(x) is x
    out = np.empty((2, 3))
    assert cp.asnumpy(x, out=out) is out
    np.testing.assert_array_equal(out, host)
    x.set(host * 2)
    assert x.tolist() == (host * 2).tolist()
    assert cp.asnumpy(host) is host
    np.testing.assert_array_equal(cp.asarray(np.asfortranarray(host)).get(), host)


def test_pickle() -> None:
    x = cp.arange(6, dtype="f2").reshape(2, 3)
    again = pickle.loads(pickle.dumps(x))
    assert isinstance(again, cp.ndarray)
    assert again.dtype == x.dtype
    assert again.tolist() == x.tolist()


def test_array_modules() -> None:
    assert cp.get_array_module(cp.ones(1)) is cp
    assert cp.get_array_module(np.ones(1)) is np
    x = np.sum(cp.arange(4))  # NumPy's functions go to CuPy's
    assert isinstance(x, cp.ndarray)
    assert x == 6


@pytest.mark.filterwarnings("ignore:`ndarray.scatter_:DeprecationWarning")
def test_scatter_add() -> None:
    x = cp.zeros(4, "f4")
    cupyx.scatter_add(x, cp.array([0, 2, 2, 2]), cp.array([1, 2, 3, 4], "f4"))
    cupyx.scatter_max(x, cp.array([3, 3]), cp.array([5, 4], "f4"))
    assert x.tolist() == [1, 0, 9, 5]


def test_memoize() -> None:
    calls = []

    @cp.memoize(for_each_device=True)
    def number(n: int) -> int:
        calls.append(n)
        return cp.cuda.Device().id * 10 + n

    assert [number(1), number(1), number(2)] == [1, 1, 2]
    for device in range(1, cp.cuda.runtime.getDeviceCount()):
        with cp.cuda.Device(device):
            assert number(1) == 10 * device + 1
    assert calls[:2] == [1, 2]


def test_files(tmp_path: Any) -> None:
    x = cp.arange(6).reshape(2, 3)
    cp.save(tmp_path / "x.npy", x)
    cp.savez(tmp_path / "x.npz", x=x)
    assert cp.load(tmp_path / "x.npy").tolist() == x.tolist()
    with cp.load(tmp_path / "x.npz") as files:
        assert files["x"].tolist() == x.tolist()


def test_printing() -> None:
    x = cp.arange(3)
    assert (repr(x), str(x), f"{x.sum()}") == ("array([0, 1, 2])", "[0 1 2]", "3")
    assert bool(x.any())
    assert len(x) == 3
    assert [int(v) for v in x] == [0, 1, 2]
    assert float(cp.float32(2)) + float(x[1]) == 3.0


def test_profiling_functions() -> None:
    from cupyx.profiler import benchmark, time_range

    result = benchmark(lambda: cp.ones(10), n_repeat=2, n_warmup=1)
    assert result.gpu_times.shape == (1, 2)
    with time_range("a range"):
        cp.ones(1)


def test_contexts() -> None:
    """A thread has one once it has used a device; each device's is another."""
    contexts = []

    def work() -> None:
        contexts.append(cp.cuda.driver.ctxGetCurrent())
        cp.cuda.Device().use()
        contexts.append(cp.cuda.driver.ctxGetCurrent())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    stream = cp.cuda.Stream()
    assert contexts == [0, cp.cuda.driver.streamGetCtx(stream.ptr)]
    assert contexts[1] == cp.cuda.driver.ctxGetCurrent()


def test_pickled_errors() -> None:
    with pytest.raises(cp.cuda.driver.CUDADriverError) as caught:
        cp.RawModule(code="").get_function("none")
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, cp.cuda.driver.CUDADriverError)
    assert str(again) == str(cp.cuda.driver.CUDADriverError(500))
    assert "CUDA_ERROR_NOT_FOUND" in str(again)
