"""Exact bounds in CuPy's memory pools, and memory of each array's own."""

from __future__ import annotations

import gc
import json
import pickle
import subprocess
import sys
import threading
import time
import tracemalloc

import cupy
import numpy as np
import pytest

from mlgpu.sim.cuda.install import installed
from mlgpu.sim.errors import Finding

if installed() is None:
    pytest.skip("of simulated devices", allow_module_level=True)

runtime = cupy.cuda.runtime
CUDAError = runtime.CUDARuntimeError
HERE = __file__

CODE = r"""
extern "C" __global__ void put(char* p, long long from, int size) {
    if (size == 1) p[from + threadIdx.x] = 1;
    else if (size == 4) *(int*)(p + from + 4 * threadIdx.x) = 1;
    else *(int4*)(p + from + 16 * threadIdx.x) = make_int4(1, 1, 1, 1);
}
extern "C" __global__ void get(const char* p, long long from, int size, int* out) {
    int v;
    if (size == 1) v = p[from + threadIdx.x];
    else if (size == 4) v = *(const int*)(p + from + 4 * threadIdx.x);
    else { int4 w = ((const int4*)(p + from))[threadIdx.x]; v = w.x + w.y + w.z + w.w; }
    out[threadIdx.x] = v;
}
extern "C" __global__ void count(int* p, long long at) { atomicAdd(p + at, 1); }
"""


@pytest.fixture(scope="module")
def kernels():
    return cupy.RawModule(code=CODE)


@pytest.fixture
def pool():
    """A pool of the test's own, in use."""
    gc.collect()  # memory of earlier tests, which is freed when the devices are done
    made = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(made.malloc):
        yield made


def line():
    """The line that calls."""
    return sys._getframe(1).f_lineno


def fault(stream=None) -> Finding:
    """The finding that waiting for a stream brings."""
    with pytest.raises(CUDAError) as caught:
        (stream or cupy.cuda.Stream.null).synchronize()
    finding = caught.value.finding
    assert finding.message in str(caught.value)
    return finding


def fine(stream=None):
    (stream or cupy.cuda.Stream.null).synchronize()


# -- bounds ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("access", ["put", "get"])
@pytest.mark.parametrize(("size", "at", "text"), [
    (4, 4000, "0 bytes after the end of the array"),
    (1, 4095, "95 bytes after the end of the array"),
    (16, 4000, "0 bytes after the end of the array"),
    (1, 4000, "0 bytes after the end of the array")])
def test_one_element_past_the_end(kernels, access, size, at, text):
    with cupy.cuda.using_allocator(cupy.cuda.MemoryPool().malloc):  # where it has no neighbours
        made = line() + 1
        x = cupy.zeros(1000, np.float32)
    arguments = (cupy.zeros(1, np.int32),) if access == "get" else ()
    kernels.get_function(access)((1,), (1,), (x, np.int64(at), np.int32(size), *arguments))
    found = fault()
    assert (found.tool, found.kind, found.size) == ("memcheck", "out of bounds", size)
    assert found.access == ("read" if access == "get" else "write")
    assert found.address == x.data.ptr + at
    assert text in found.message
    assert found.allocation.size == 4000
    assert found.allocation.address == x.data.ptr
    assert found.allocation.made_at == f"{HERE}:{made}"


def test_the_last_elements_are_fine(kernels):
    x = cupy.zeros(1000, np.float32)
    for size in (1, 4, 16):
        kernels.get_function("put")((1,), (16,), (x, np.int64(4000 - 16 * size), np.int32(size)))
    fine()
    assert (x.view(np.int32).get() == [0] * 936 + [1] * 64).all()


def test_an_access_that_begins_inside(kernels):
    x = cupy.zeros(1001, np.uint8)
    kernels.get_function("put")((1,), (1,), (x, np.int64(1000), np.int32(4)))
    assert "the last 3 bytes are beyond the end of the array" in fault().message


def test_an_atomic_past_the_end(kernels):
    x = cupy.zeros(3, np.int32)
    kernels.get_function("count")((1,), (1,), (x, np.int64(2)))
    fine()
    kernels.get_function("count")((1,), (1,), (x, np.int64(3)))
    found = fault()
    assert (found.kind, found.access, found.allocation.size) == ("out of bounds", "atomic", 12)


def test_an_uninitialised_atomic_is_found_as_such(kernels):
    x = cupy.empty(3, np.int32)
    kernels.get_function("count")((1,), (1,), (x, np.int64(2)))
    found = fault()
    assert (found.tool, found.allocation.size) == ("initcheck", 12)


def test_which_thread(kernels):
    x = cupy.zeros(10, np.int32)
    kernels.get_function("put")((1,), (32,), (x, np.int64(0), np.int32(4)))
    found = fault()
    assert found.thread == (10, 0, 0)
    assert found.address == x.data.ptr + 40


def test_before_the_start(pool, kernels):
    whole = pool.malloc(1024)
    address = whole.ptr
    del whole
    a, b = pool.malloc(100), pool.malloc(200)  # the two halves
    first, second = sorted((a, b), key=lambda p: p.ptr)
    assert (first.ptr, second.ptr) == (address, address + 512)
    kernels.get_function("put")((1,), (1,), (second.ptr, np.int64(-4), np.int32(4)))
    found = fault()
    assert found.kind == "out of bounds"
    assert "4 bytes before the array" in found.message
    assert found.allocation.size == (100 if second is a else 200)


def test_wholly_outside(pool, kernels):
    x = pool.malloc(512)
    kernels.get_function("put")((1,), (1,), (x.ptr, np.int64(512), np.int32(4)))
    found = fault()
    assert (found.kind, found.allocation.size) == ("out of bounds", 512)
    assert "0 bytes after the end of the allocation" in found.message


def test_wholly_outside_of_a_smaller_array(pool, kernels):
    x = pool.malloc(500)
    for at, text in ((512, "12 bytes after the end"), (-4, "4 bytes before")):
        kernels.get_function("put")((1,), (1,), (x.ptr, np.int64(at), np.int32(4)))
        found = fault()
        assert (found.kind, found.allocation.size) == ("out of bounds", 500)
        assert f": {text}" in found.message
        installed().reset()


def test_collected_findings_and_memory_that_stays_right():
    """An overrun in the room of an array changes no other."""
    program = """
import cupy, numpy as np
from mlgpu.sim.cuda.install import install
system = install(devices=1, findings="collect")
put = cupy.RawKernel('extern "C" __global__ void put(int* p) { p[threadIdx.x] = threadIdx.x; }',
                     "put")
x, y = cupy.zeros(100, np.int32), cupy.zeros(100, np.int32)
put((1,), (128,), (x,))
assert (x.get() == np.arange(100)).all() and not y.get().any()
print([(f.kind, f.thread[0]) for f in system.findings])
""".replace("import cupy, numpy as np\nfrom", "import numpy as np\nfrom").replace(
        "put = cupy", "import cupy\nput = cupy")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[('out of bounds', 100)]", done.stderr


# -- after the end --------------------------------------------------------------------------------

def test_use_after_free(kernels):
    x = cupy.zeros(100, np.float32)
    made, address = line() - 1, x.data.ptr
    del x
    freed = line() - 1
    kernels.get_function("put")((1,), (1,), (address, np.int64(0), np.int32(4)))
    found = fault()
    assert found.kind == "use after free"
    assert f"freed at {HERE}:{freed}" in found.message
    assert (found.allocation.size, found.allocation.made_at) == (400, f"{HERE}:{made}")


def test_work_before_the_free_is_fine(kernels):
    stream = cupy.cuda.Stream(non_blocking=True)
    out = cupy.zeros(16, np.int32)
    fine()
    with stream:
        x = cupy.full(16, 7, np.int32)
        kernels.get_function("get")((1,), (16,), (x, np.int64(0), np.int32(4), out))
        del x
        again = cupy.full(16, 8, np.int32)  # takes the memory over
        kernels.get_function("get")((1,), (1,), (again, np.int64(0), np.int32(4), out))
    assert out.get(stream=stream).tolist() == [8] + [7] * 15


def test_a_kernel_of_another_stream_that_was_asked_for_before_the_free(kernels):
    """Nothing takes the memory over, and so nothing is wrong with that."""
    a, b = (cupy.cuda.Stream(non_blocking=True) for _ in "ab")
    with a:
        x = cupy.zeros(16, np.int32)
    a.synchronize()
    with b:
        kernels.get_function("put")((1,), (1,), (x, np.int64(0), np.int32(4)))
    address = x.data.ptr
    del x
    a.synchronize()
    fine(b)
    with b:  # but this one is asked for when there is no array
        kernels.get_function("put")((1,), (1,), (np.uint64(address), np.int64(0), np.int32(4)))
    assert fault(b).kind == "use after free"


def test_the_end_of_an_array_that_is_gone(kernels):
    """A kernel that may still use an array must keep to its bounds."""
    a, b = (cupy.cuda.Stream(non_blocking=True) for _ in "ab")
    with a:
        x = cupy.zeros(16, np.int32)
    a.synchronize()
    with b:
        kernels.get_function("put")((1,), (1,), (x, np.int64(64), np.int32(4)))
    del x
    a.synchronize()
    assert fault(b).kind == "out of bounds"


def test_an_event_puts_it_before(kernels):
    a, b = (cupy.cuda.Stream(non_blocking=True) for _ in "ab")
    with a:
        x = cupy.zeros(16, np.int32)
    a.synchronize()
    with b:
        kernels.get_function("put")((1,), (1,), (x, np.int64(0), np.int32(4)))
    a.wait_event(b.record())
    del x
    with a:
        cupy.ones(16, np.int32)
    fine(a)
    fine(b)


@pytest.mark.usefixtures("pool")
@pytest.mark.parametrize("first", [0, 1])
def test_memory_that_is_freed_and_used_again_too_early(kernels, first):
    """In whatever order the two streams are waited for: the new array is not written yet, or is
    written while the old one may still be read."""
    streams = a, b = [cupy.cuda.Stream(non_blocking=True) for _ in "ab"]
    out = cupy.zeros(16, np.int32)
    fine()
    with a:
        x = cupy.ones(16, np.int32)
    a.synchronize()
    with b:
        kernels.get_function("get")((1,), (16,), (x, np.int64(0), np.int32(4), out))
    address = x.data.ptr
    del x
    with a:
        y = cupy.full(16, 5, np.int32)
    assert y.data.ptr == address
    freed = line() - 4

    def wait():
        for stream in (streams[first], streams[1 - first]):
            stream.synchronize()

    with pytest.raises(CUDAError) as caught:
        wait()
    found = caught.value.finding
    assert found.kind == ("uninitialized read" if first else "write after read")
    if first:
        assert ("the array is newer than this launch, which must have meant the one of 64 bytes "
                f"that was freed at {HERE}:{freed}") in found.message


def test_the_default_stream_takes_turns(kernels):
    """Memory of the default stream that a blocking one uses may be freed without any wait."""
    side = cupy.cuda.Stream()
    x = cupy.zeros(16, np.int32)
    kernels.get_function("put")((1,), (1,), (x, np.int64(0), np.int32(4)), stream=side)
    del x
    y = cupy.ones(16, np.int32)
    fine(side)
    assert y.get().tolist() == [1] * 16


def test_allocations_put_no_streams_in_order(kernels):
    """What the default stream allocates in between does not order two other streams."""
    system = installed()
    a, b = (cupy.cuda.Stream() for _ in "ab")
    x, y = cupy.zeros(4, np.int32), cupy.zeros(4, np.int32)
    fine()
    kernels.get_function("put")((1,), (1,), (x, np.int64(0), np.int32(4)), stream=a)
    cupy.empty(1000)
    kernels.get_function("put")((1,), (1,), (y, np.int64(0), np.int32(4)), stream=b)
    first, second = (system.stream(s.ptr).last for s in (a, b))
    assert not second.after(first)
    assert not first.after(second)
    fine(a)
    fine(b)


@pytest.mark.usefixtures("pool")
def test_reused_memory_is_uninitialised():
    x = cupy.ones(100, np.float32)
    address = x.data.ptr
    del x
    y = cupy.empty(100, np.float32)
    assert y.data.ptr == address
    _sum = y.sum()
    found = fault()
    assert (found.tool, found.kind) == ("initcheck", "uninitialized read")
    assert found.allocation.size == 400


@pytest.mark.usefixtures("pool")
def test_a_smaller_array_in_the_same_memory(kernels):
    x = cupy.ones(100, np.float32)
    address = x.data.ptr
    del x
    y = cupy.ones(50, np.float32)
    assert y.data.ptr == address
    kernels.get_function("put")((1,), (1,), (y, np.int64(200), np.int32(4)))
    found = fault()
    assert (found.kind, found.allocation.size) == ("out of bounds", 200)


def test_the_nearest_array_is_told_too(pool, kernels):
    whole = pool.malloc(1024)
    address = whole.ptr
    del whole
    keep = pool.malloc(500)
    other = pool.malloc(512)
    gone = address + 512 if keep.ptr == address else address
    assert other.ptr == gone
    del other
    kernels.get_function("put")((1,), (1,), (keep.ptr, np.int64(gone - keep.ptr), np.int32(4)))
    message = fault().message
    assert "freed at" in message
    assert "nearest is an array of 500 bytes" in message


# -- copies ---------------------------------------------------------------------------------------

def test_copies_and_memset_look_at_bounds():
    x, y = cupy.zeros(100, np.uint8), cupy.zeros(200, np.uint8)
    for call, access in ((lambda: runtime.memcpyAsync(x.data.ptr, y.data.ptr, 101, 3, 0), "write"),
                         (lambda: runtime.memcpyAsync(y.data.ptr, x.data.ptr, 101, 3, 0), "read"),
                         (lambda: runtime.memsetAsync(x.data.ptr, 0, 101, 0), "write")):
        call()
        found = fault()
        assert (found.kind, found.access, found.allocation.size) == ("out of bounds", access, 100)
        assert "the last 1 bytes are beyond" in found.message
        assert found.file == HERE
        installed().reset()
    runtime.memcpyAsync(y.data.ptr, x.data.ptr, 100, 3, 0)
    fine()


def test_a_copy_from_freed_memory():
    x, y = cupy.zeros(100, np.uint8), cupy.zeros(100, np.uint8)
    address = x.data.ptr
    del x
    runtime.memcpy(y.data.ptr, address, 100, 3)  # which does not wait, from device to device
    found = fault()
    assert (found.kind, found.access) == ("use after free", "read")


def test_beyond_the_allocation_is_refused_at_once(pool):
    x = pool.malloc(100)
    with pytest.raises(CUDAError, match="not within one allocation"):
        runtime.memset(x.ptr, 0, 513)


# -- CuPy's own ways stay -------------------------------------------------------------------------

def test_memory_is_the_pools_own(pool):
    assert isinstance(cupy.get_default_memory_pool(), cupy.cuda.MemoryPool)
    assert cupy.cuda.memory.MemoryPool is cupy.cuda.MemoryPool
    assert cupy.cuda.MemoryPool.__name__ == "MemoryPool"
    x = pool.malloc(1000)
    assert isinstance(x.mem, cupy.cuda.memory.PooledMemory)
    assert x.mem.size == 1024
    x.mem.free()
    x.mem.free()
    assert pool.n_free_blocks() == 1
    assert pool.malloc(0).ptr == 0


def test_statistics(pool):
    assert (pool.used_bytes(), pool.total_bytes()) == (0, 0)
    x = cupy.empty(1000, np.float32)
    y = cupy.empty(10, np.float32)
    assert (pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks()) == (4608, 4608, 0)
    del x
    assert (pool.used_bytes(), pool.free_bytes(), pool.n_free_blocks()) == (512, 4096, 1)
    z = cupy.empty(100, np.float32)  # from what x had
    assert (pool.used_bytes(), pool.free_bytes()) == (1024, 3584)
    del y, z
    pool.free_all_blocks()
    assert (pool.used_bytes(), pool.total_bytes(), pool.n_free_blocks()) == (0, 0, 0)


def test_limit(pool):
    pool.set_limit(size=10_000)
    keep = cupy.empty(8192, np.uint8)
    with pytest.raises(cupy.cuda.memory.OutOfMemoryError) as caught:
        cupy.empty(4096, np.uint8)
    assert str(caught.value) == (
        "Out of memory allocating 4,096 bytes (allocated so far: 8,192 bytes, "
        "limit set to: 10,000 bytes).")
    assert pool.used_bytes() == keep.nbytes


def test_freed_memory_goes_back_to_the_device(pool):
    free, _ = runtime.memGetInfo()
    x = cupy.empty(1 << 20, np.uint8)
    assert runtime.memGetInfo()[0] == free - (1 << 20)
    del x
    assert runtime.memGetInfo()[0] == free - (1 << 20)
    pool.free_all_blocks()
    assert runtime.memGetInfo()[0] == free


def test_views_offsets_and_pointers(kernels):
    x = cupy.arange(100, dtype=np.int32)
    view = x[10:20]
    del x
    assert view.get().tolist() == list(range(10, 20))
    again = cupy.ndarray(5, np.int32, memptr=view.data + 8)
    assert again.get().tolist() == [12, 13, 14, 15, 16]
    kernels.get_function("put")((1,), (1,), (view, np.int64(400 - 40), np.int32(4)))
    assert fault().allocation.size == 400


def test_dlpack_and_the_array_interface():
    x = cupy.arange(10)
    y = cupy.from_dlpack(x)
    z = cupy.asarray(Interface(x))
    del x
    assert y.get().tolist() == z.get().tolist() == list(range(10))
    assert np.from_dlpack(y.get()).sum() == 45


class Interface:
    """Somebody else's array."""

    def __init__(self, array):
        self.keep, self.__cuda_array_interface__ = array, array.__cuda_array_interface__


def test_pickle():
    x = pickle.loads(pickle.dumps(cupy.arange(5)))
    assert x.get().tolist() == [0, 1, 2, 3, 4]


def test_other_allocators_stay_unguarded(kernels):
    """With None each array is an allocation, with an exact end."""
    single = cupy.cuda.memory.SingleDeviceMemoryPool()
    for allocator in (None, cupy.cuda.malloc_async, cupy.cuda.malloc_managed, single.malloc,
                      cupy.cuda.MemoryPool(cupy.cuda.malloc_managed).malloc):
        with cupy.cuda.using_allocator(allocator):
            x = cupy.zeros(100, np.float32)
            assert (x + 1).sum() == 100
            kernels.get_function("put")((1,), (1,), (x, np.int64(400), np.int32(4)))
            assert fault().allocation.size == 400
            installed().reset()


def test_memory_hooks_of_the_program(pool):
    class Log(cupy.cuda.MemoryHook):
        name = "log"
        sizes = ()

        def malloc_postprocess(self, **args):
            self.sizes = (*self.sizes, args["size"])

    with Log() as log:
        cupy.empty(100, np.uint8)
    cupy.empty(200, np.uint8)
    assert log.sizes == (100,)


def test_threads(pool, kernels):
    """CuPy's hooks are each thread's own.  What a thread frees that never took anything from a pool
    is not seen, but its memory is right for the next array."""
    made = []

    def make():
        x = pool.malloc(100)
        kernels.get_function("put")((1,), (1,), (x.ptr, np.int64(100), np.int32(1)))
        made.extend([x, fault().kind])

    for target in (make, made.clear):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
        if target is make:
            installed().reset()
            assert made[1] == "out of bounds"
            address = made[0].ptr
    gc.collect()  # the frames that the error came through
    y = cupy.ndarray(60, np.uint8, memptr=pool.malloc(60))
    y.fill(1)
    assert y.data.ptr == address
    assert int(y.sum()) == 60
    kernels.get_function("put")((1,), (1,), (y, np.int64(60), np.int32(1)))
    assert fault().allocation.size == 60


def test_two_devices(kernels):
    with cupy.cuda.Device(1):
        x = cupy.zeros(100, np.uint8)
        kernels.get_function("put")((1,), (1,), (x, np.int64(100), np.int32(1)))
        assert fault().allocation.address == x.data.ptr
    assert installed().devices[0].error is None


@pytest.mark.usefixtures("pool")
def test_the_garbage_collector_may_free():
    class Cycle:
        pass

    cycle = Cycle()
    cycle.me, cycle.x = cycle, cupy.zeros(100)
    address = cycle.x.data.ptr
    del cycle
    gc.collect()
    y = cupy.ones(100)
    assert y.data.ptr == address
    assert float(y.sum()) == 100


def test_reset_leaves_memory_right(kernels):
    x = cupy.zeros(100, np.int32)
    kernels.get_function("put")((1,), (1,), (x, np.int64(0), np.int32(4)))
    del x
    y = cupy.zeros(100, np.int32)
    installed().reset()  # the launch, the free and the second memset have not run
    y.fill(3)
    assert int(y.sum()) == 300


# -- a region for each ----------------------------------------------------------------------------

SEPARATE = r"""
import json
from mlgpu.sim.cuda.install import install
system = install(devices=2, memory="8 MiB", allocations="separate")
import cupy, numpy as np
put = cupy.RawKernel('extern "C" __global__ void put(char* p, long long at) { p[at] = 1; }', "put")
pool = cupy.get_default_memory_pool()
result = {}

def fault(p, at):
    put((1,), (1,), (p, np.int64(at)))
    try:
        cupy.cuda.Stream.null.synchronize()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        system.reset()
        return [error.finding.kind, error.finding.allocation.size]

x, y = cupy.zeros(512, np.uint8), cupy.zeros(1000, np.uint8)
result["used"] = [pool.used_bytes(), pool.total_bytes(), pool.free_bytes()]
result["neighbour"] = fault(x, 512)
result["far"] = fault(x, 1_000_000)
result["near"] = [fault(y, -1), fault(y, 999), fault(y, 1000)]
address = y.data.ptr
del y
result["freed"] = [pool.used_bytes(), *fault(address, 5)]
pool.set_limit(size=2000)
try:
    cupy.empty(1500, np.uint8)
except cupy.cuda.memory.OutOfMemoryError as error:
    result["limit"] = str(error)
pool.set_limit(size=0)
for _ in range(20):  # 20 MiB in all, of 8
    z = cupy.zeros(1 << 20, np.uint8) + 1
    del z
keep = cupy.zeros(6 << 20, np.uint8)
try:
    cupy.empty(3 << 20, np.uint8)
except cupy.cuda.memory.OutOfMemoryError as error:
    result["memory"] = str(error)
del keep
with cupy.cuda.using_allocator(cupy.cuda.MemoryPool(cupy.cuda.malloc_managed).malloc):
    result["managed"] = float(cupy.ones(10).sum())
with cupy.cuda.Device(1):
    w = cupy.ones(100)
    result["other"] = [pool.used_bytes(), float(w.sum())]
s = cupy.cuda.Stream(non_blocking=True)
with s:
    a = cupy.arange(10)
    out = cupy.zeros(10, a.dtype)
    cupy.add(a * 2, 1, out=out)  # so that all is compiled
    s.synchronize()
    before = pool.used_bytes()
    s.begin_capture()
    cupy.add(a * 2, 1, out=out)  # with a temporary array
    graph = s.end_capture()
    for _ in range(2):
        out.fill(0)
        graph.launch(s)
        assert int(out.sum()) == 100
result["graph"] = pool.used_bytes() - before
print(json.dumps(result))
"""


def test_separate():
    done = subprocess.run([sys.executable, "-W", "error", "-c", SEPARATE], capture_output=True,
                          text=True)
    assert not done.stderr, done.stderr
    result = json.loads(done.stdout)
    assert result == {
        "used": [1512, 1512, 0], "neighbour": ["out of bounds", 512],
        "far": ["out of bounds", 512],
        "near": [["out of bounds", 1000], None, ["out of bounds", 1000]],
        "freed": [512, "use after free", 1000],
        "limit": "Out of memory allocating 1,500 bytes (allocated so far: 512 bytes, "
                 "limit set to: 2,000 bytes).",
        "memory": f"Out of memory allocating {3 << 20:,} bytes (allocated so far: "
                  f"{(6 << 20) + 512:,} bytes).",
        "graph": 0, "managed": 10.0, "other": [800, 100.0]}


def test_there_is_no_third_way():
    program = "from mlgpu.sim.cuda.install import install; install(allocations='mixed')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "\"pool\" keeps CuPy's memory pool" in done.stderr


def test_processes_are_asked_for_the_same(monkeypatch):
    from mlgpu.cuda import environment

    for name in ("MLGPU_CUDA", "MLGPU_SIM_ALLOCATIONS"):
        monkeypatch.setenv(name, "")  # and so again afterwards
    environment.ask({"allocations": "separate"})
    assert environment.options() == {"allocations": "separate"}


# -- what it costs --------------------------------------------------------------------------------

def test_it_costs_little_and_keeps_nothing():
    def seconds(n):
        start = time.process_time()
        for _ in range(n):
            cupy.empty(100, np.float32)
        return (time.process_time() - start) / n

    gc.disable()
    try:
        few = min(seconds(200) for _ in range(5))
        keep = [cupy.empty(100 + n, np.float32) for n in range(2000)]
        many = min(seconds(200) for _ in range(5))
    finally:
        gc.enable()
    assert few < 1e-4
    assert many < 2 * few
    del keep
    tracemalloc.start()
    seconds(1000)
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    seconds(10_000)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 20_000
