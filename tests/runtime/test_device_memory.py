"""Memory of the CUDA runtime: of devices, managed, pinned, from pools, of peers."""

from __future__ import annotations

import subprocess
import sys

import cupy
import cupyx
import numpy as np
import pytest
from cupy_backends.cuda.api import runtime

from mlgpu.sim.cuda import errors
from mlgpu.sim.cuda.install import installed

if installed() is None:
    pytest.skip("of simulated devices", allow_module_level=True)

CUDAError = runtime.CUDARuntimeError
HERE = __file__
KIB, MIB = 1 << 10, 1 << 20

CODE = r"""
extern "C" __global__ void add(int* p, int n, int v) { if (threadIdx.x < n) p[threadIdx.x] += v; }
extern "C" __global__ void follow(int* const* p, int* out) { out[threadIdx.x] = *p[threadIdx.x]; }
extern "C" __global__ void spread(int* const* p) { *p[threadIdx.x] += threadIdx.x; }
"""


@pytest.fixture(scope="module")
def kernels():
    return cupy.RawModule(code=CODE)


def line():
    """The line that calls."""
    return sys._getframe(1).f_lineno


def fault():
    """The finding that waiting brings."""
    with pytest.raises(CUDAError) as caught:
        cupy.cuda.Device().synchronize()
    return caught.value.finding


def status(call, *args):
    """The status and the text of an error."""
    with pytest.raises(CUDAError) as caught:
        call(*args)
    return caught.value.status, str(caught.value)


def run(program):
    """What a program prints that has devices of its own."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True,
                          text=True)
    assert not done.stderr, done.stderr
    return done.stdout.split("\n")[:-1]


# -- cudaMalloc -----------------------------------------------------------------------------------

def test_malloc_and_free():
    free, total = runtime.memGetInfo()
    p, q = runtime.malloc(1000), runtime.malloc(24)
    assert runtime.memGetInfo() == (free - 1024, total)
    assert total == 4 << 30
    assert p != q
    assert p % 512 == q % 512 == 0
    runtime.free(p)
    runtime.free(q)
    assert runtime.memGetInfo() == (free, total)
    runtime.free(0)
    assert runtime.malloc(0) == 0


def test_devices_have_memory_of_their_own():
    free = [cupy.cuda.Device(n).mem_info[0] for n in (0, 1)]
    with cupy.cuda.Device(1):
        p = runtime.malloc(4096)
        assert runtime.pointerGetAttributes(p).device == 1
    assert [cupy.cuda.Device(n).mem_info[0] for n in (0, 1)] == [free[0], free[1] - 4096]
    runtime.free(p)


def test_out_of_memory():
    out = run("""
from mlgpu.sim.cuda.install import install
install(devices=2, memory="160 KiB")
import cupy
runtime, pool = cupy.cuda.runtime, cupy.get_default_memory_pool()
try:
    runtime.malloc(170 << 10)
except runtime.CUDARuntimeError as error:
    print(error.status, *str(error).split("\\n"), sep="|")
keep = cupy.empty(100 << 10, "u1")
try:
    cupy.empty(70 << 10, "u1")
except cupy.cuda.memory.OutOfMemoryError as error:
    print(error)
with cupy.cuda.Device(1):
    print(cupy.ones(70 << 10, "u1").sum() == 70 << 10)
del keep
print(pool.total_bytes() >> 10, cupy.empty(70 << 10, "u1").nbytes >> 10)  # what the pool kept goes
""")
    code, cuda, text = out[0].split("|")
    assert (int(code), cuda) == (errors.OUT_OF_MEMORY, "cudaErrorMemoryAllocation: out of memory")
    assert text == (f"out of memory: {170 * KIB:,} bytes, but only {160 * KIB:,} of the device's "
                    f"{160 * KIB:,} are free; mlgpu.sim.install(memory=...) sets how many it has")
    assert out[1:] == [
        f"Out of memory allocating {70 * KIB:,} bytes (allocated so far: {100 * KIB:,} bytes).",
        "True", "100 70"]


def test_what_cannot_be_freed():
    p = runtime.malloc(100)
    made = line() - 1
    host = runtime.hostAlloc(64, 0)
    wrong = errors.INVALID_VALUE
    code, text = status(runtime.free, p + 8)
    assert code == wrong
    assert f"8 bytes into the allocation made at {HERE}:{made}" in text
    assert "was not allocated" in status(runtime.free, 1 << 57)[1]
    assert "pinned memory, which cudaFreeHost gives back" in status(runtime.free, host)[1]
    assert "a device's memory, which cudaFree gives back" in status(runtime.freeHost, p)[1]
    runtime.free(p)
    code, text = status(runtime.free, p)
    assert code == wrong
    assert f"it was freed at {HERE}:{line() - 3} already" in text
    runtime.freeHost(host)
    assert status(runtime.freeHost, host)[0] == wrong


def test_a_kernel_after_the_free(kernels):
    p = runtime.malloc(400)
    runtime.memset(p, 0, 400)
    kernels.get_function("add")((1,), (100,), (p, np.int32(100), np.int32(1)))
    runtime.free(p)  # waits for the device
    freed = line() - 1
    kernels.get_function("add")((1,), (1,), (p, np.int32(1), np.int32(1)))
    found = fault()
    assert found.kind == "use after free"
    assert f"freed at {HERE}:{freed}" in found.message
    installed().reset()
    code, text = status(runtime.memcpy, p, p, 4, 3)
    assert code == errors.INVALID_VALUE
    assert f"freed at {HERE}:{freed}" in text


def test_fresh_memory_is_uninitialised(kernels):
    p = runtime.malloc(400)
    kernels.get_function("add")((1,), (1,), (p, np.int32(1), np.int32(1)))
    assert fault().tool == "initcheck"
    runtime.free(p)


def test_the_exact_end(kernels):
    p = runtime.malloc(12)
    runtime.memset(p, 0, 12)
    kernels.get_function("add")((1,), (4,), (p, np.int32(4), np.int32(1)))
    found = fault()
    assert found.thread == (3, 0, 0)
    assert found.allocation.size == 12


# -- managed memory -------------------------------------------------------------------------------

@pytest.fixture
def managed():
    with cupy.cuda.using_allocator(cupy.cuda.malloc_managed):
        yield


def on_host(array):
    """The managed memory of an array, as the program sees it."""
    import ctypes

    kind = ctypes.c_uint8 * array.nbytes
    return np.ctypeslib.as_array(kind.from_address(array.data.ptr)).view(array.dtype)


@pytest.mark.usefixtures("managed")
def test_host_and_kernels_see_managed_memory(kernels):
    x = cupy.empty(8, np.int32)
    assert isinstance(x.data.mem, cupy.cuda.ManagedMemory)
    host = on_host(x)
    host[:] = np.arange(8)
    kernels.get_function("add")((1,), (8,), (x, np.int32(8), np.int32(10)))
    cupy.cuda.Stream.null.synchronize()
    assert host.tolist() == list(range(10, 18))
    assert (x * 2).get().tolist() == [2 * v for v in range(10, 18)]
    kernels.get_function("add")((1,), (9,), (x, np.int32(9), np.int32(10)))
    assert fault().allocation.size == 32


@pytest.mark.usefixtures("managed")
def test_managed_memory_is_no_devices(kernels):
    cupy.ones(10)  # its kernel's variables are the device's
    free = runtime.memGetInfo()[0]
    x = cupy.ones(1000)
    assert runtime.memGetInfo()[0] == free
    found = runtime.pointerGetAttributes(x.data.ptr)
    assert (found.type, found.device) == (runtime.memoryTypeManaged, 0)
    assert found.devicePointer == found.hostPointer == x.data.ptr
    x.data.mem.prefetch(cupy.cuda.Stream.null)
    x.data.mem.advise(runtime.cudaMemAdviseSetReadMostly, cupy.cuda.Device(0))
    assert status(runtime.memAdvise, runtime.malloc(8), 8, 1, 0)[0] == errors.INVALID_VALUE
    cupy.cuda.Stream.null.synchronize()
    with cupy.cuda.Device(1):  # every device may access it
        kernels.get_function("add")((1,), (4,), (x.data.ptr, np.int32(4), np.int32(1)))
        cupy.cuda.Stream.null.synchronize()
    assert on_host(x).view(np.int32)[:5].tolist() == [1, (1023 << 20) + 1, 1, (1023 << 20) + 1, 0]


def test_a_pool_of_managed_memory(kernels):
    pool = cupy.cuda.MemoryPool(cupy.cuda.malloc_managed)
    with cupy.cuda.using_allocator(pool.malloc):
        x = cupy.empty(8, np.int32)
        on_host(x)[:] = 5
        kernels.get_function("add")((1,), (8,), (x, np.int32(8), np.int32(1)))
        assert x.get().tolist() == [6] * 8
        kernels.get_function("add")((1,), (9,), (x, np.int32(9), np.int32(1)))
        assert fault().allocation.size == 32


# -- pinned memory --------------------------------------------------------------------------------

def test_kernels_access_pinned_memory(kernels):
    x = cupyx.zeros_pinned(8, np.int32)
    y = cupyx.empty_pinned((2, 4), np.int32)
    y[:] = 7
    for array in (x, y):
        kernels.get_function("add")((1,), (8,), (array.ctypes.data, np.int32(8), np.int32(3)))
    cupy.cuda.Stream.null.synchronize()
    assert x.tolist() == [3] * 8
    assert y.tolist() == [[10] * 4] * 2
    found = runtime.pointerGetAttributes(x.ctypes.data)
    assert (found.type, found.hostPointer) == (runtime.memoryTypeHost, x.ctypes.data)


def test_the_end_of_pinned_memory(kernels):
    p = runtime.hostAlloc(32, 0)
    kernels.get_function("add")((1,), (9,), (p, np.int32(9), np.int32(3)))
    found = fault()
    assert (found.kind, found.address) == ("out of bounds", p + 32)
    runtime.freeHost(p)


def test_the_end_of_pinned_memory_where_more_was_freed(kernels):
    """An address is past the end of what is there, whatever was there before."""
    held = np.zeros(64, np.int32)
    p = -(-held.ctypes.data // 64) * 64
    runtime.hostRegister(p, 128, 0)
    runtime.hostUnregister(p)
    runtime.hostRegister(p, 32, 0)
    kernels.get_function("add")((1,), (9,), (p, np.int32(9), np.int32(3)))
    found = fault()
    assert (found.kind, found.address) == ("out of bounds", p + 32)


def test_a_pinned_pool():
    pool = cupy.cuda.PinnedMemoryPool()
    a = pool.malloc(1000)
    address = a.ptr
    assert runtime.pointerGetAttributes(address).type == runtime.memoryTypeHost
    del a
    assert pool.n_free_blocks() == 1
    assert pool.malloc(1000).ptr == address
    pool.free_all_blocks()
    assert pool.n_free_blocks() == 0


def test_the_programs_own_memory_is_not_the_kernels(kernels):
    x = np.zeros(8, np.int32)
    kernels.get_function("add")((1,), (8,), (x.ctypes.data, np.int32(8), np.int32(3)))
    found = fault()
    assert found.kind == "out of bounds"
    assert "the program's own memory, if any; kernels may access it only when" in found.message


@pytest.mark.parametrize("size", [64, 1001, 5])
def test_registered_memory(kernels, size):
    whole = np.zeros(2000, np.uint8)
    x = whole[100:100 + size]
    address = x.ctypes.data
    runtime.hostRegister(address, size, 0)
    assert runtime.pointerGetAttributes(address).type == runtime.memoryTypeHost
    assert status(runtime.hostRegister, address, size, 0)[0] == errors.HOST_REGISTERED
    d = cupy.full(size, 9, np.uint8)
    runtime.memcpyAsync(address, d.data.ptr, size, runtime.memcpyDeviceToHost, 0)
    cupy.cuda.Stream.null.synchronize()
    assert x.tolist() == [9] * size
    assert int(whole.sum()) == 9 * size
    wrong, _ = status(runtime.freeHost, address)
    assert wrong == errors.INVALID_VALUE
    runtime.hostUnregister(address)
    assert status(runtime.hostUnregister, address)[0] == errors.HOST_NOT_REGISTERED
    assert runtime.pointerGetAttributes(address).type == runtime.memoryTypeUnregistered
    start = address & -64
    for at in {start, address + size - 1}:
        kernels.get_function("add")((1,), (1,), (at & -4, np.int32(1), np.int32(3)))
        assert fault().kind == "use after free"
        installed().reset()


def test_unknown_pointers():
    x = np.zeros(4)
    found = runtime.pointerGetAttributes(x.ctypes.data)
    assert (found.type, found.device, found.devicePointer) == (0, -2, 0)


# -- pools of cudaMallocAsync ---------------------------------------------------------------------

def test_an_async_pool_counts():
    pool = cupy.cuda.MemoryAsyncPool()
    pool.free_all_blocks()  # what other tests have left
    before, reserved = pool.used_bytes(), pool.total_bytes()
    x, y = pool.malloc(40 * MIB), pool.malloc(512)
    assert isinstance(x.mem, cupy.cuda.MemoryAsync)
    assert pool.used_bytes() == before + 40 * MIB + 512
    assert pool.total_bytes() == 64 * MIB  # in steps of 32 MiB
    assert pool.total_bytes() == pool.used_bytes() + pool.free_bytes()
    pool.set_limit(size=MIB)  # the release threshold
    assert pool.get_limit() == MIB
    del x
    cupy.cuda.Stream.null.synchronize()
    assert (pool.used_bytes(), pool.total_bytes()) == (before + 512, 32 * MIB)
    del y
    assert (pool.used_bytes(), pool.total_bytes()) == (before, 32 * MIB)
    pool.free_all_blocks()
    assert pool.total_bytes() == reserved  # which what others hold keeps


def test_attributes_of_async_pools():
    pool = runtime.deviceGetDefaultMemPool(0)
    assert pool == runtime.deviceGetMemPool(0) != runtime.deviceGetDefaultMemPool(1)
    most = runtime.cudaMemPoolAttrUsedMemHigh
    runtime.memPoolSetAttribute(pool, most, 0)
    now = runtime.memPoolGetAttribute(pool, runtime.cudaMemPoolAttrUsedMemCurrent)
    runtime.freeAsync(runtime.mallocAsync(4096, 0), 0)
    assert runtime.memPoolGetAttribute(pool, most) == now + 4096
    assert status(runtime.memPoolSetAttribute, pool, most, 5)[0] == errors.INVALID_VALUE
    assert status(runtime.memPoolGetAttribute, pool, 99)[0] == errors.INVALID_VALUE
    assert status(runtime.memPoolDestroy, pool)[0] == errors.INVALID_VALUE


def test_a_pool_of_the_programs_own():
    props = runtime.MemPoolProps(runtime.cudaMemAllocationTypePinned, runtime.cudaMemHandleTypeNone,
                                 runtime.cudaMemLocationTypeDevice, 0)
    pool, stream = runtime.memPoolCreate(props), cupy.cuda.Stream(non_blocking=True)
    p = runtime.mallocFromPoolAsync(128, pool, stream.ptr)
    assert runtime.memPoolGetAttribute(pool, runtime.cudaMemPoolAttrUsedMemCurrent) == 128
    default = runtime.deviceGetDefaultMemPool(0)
    runtime.deviceSetMemPool(0, pool)
    q = runtime.mallocAsync(64, stream.ptr)
    assert runtime.memPoolGetAttribute(pool, runtime.cudaMemPoolAttrUsedMemCurrent) == 192
    runtime.memPoolDestroy(pool)
    assert runtime.deviceGetMemPool(0) == default
    for pointer in (p, q):
        runtime.freeAsync(pointer, stream.ptr)
    assert status(runtime.memPoolTrimTo, pool, 0)[0] == errors.INVALID_VALUE


def test_memory_is_freed_when_the_stream_comes_to_it(kernels):
    stream = cupy.cuda.Stream(non_blocking=True)
    p = runtime.mallocAsync(400, stream.ptr)
    runtime.memsetAsync(p, 0, 400, stream.ptr)
    with stream:
        kernels.get_function("add")((1,), (100,), (p, np.int32(100), np.int32(1)))
    runtime.freeAsync(p, stream.ptr)
    freed = line() - 1
    assert "cudaFreeAsync has it already" in status(runtime.freeAsync, p, stream.ptr)[1]
    stream.synchronize()
    assert f"freed at {HERE}:{freed} already" in status(runtime.free, p)[1]
    kernels.get_function("add")((1,), (1,), (p, np.int32(1), np.int32(1)))
    assert fault().kind == "use after free"


def test_async_memory_that_is_freed_too_early(kernels):
    """Another stream uses it, and nothing puts that before the free."""
    a, b = (cupy.cuda.Stream(non_blocking=True) for _ in "ab")
    for first, second in ((a, b), (b, a)):
        p = runtime.mallocAsync(400, a.ptr)
        runtime.memsetAsync(p, 0, 400, a.ptr)
        a.synchronize()
        with b:
            kernels.get_function("add")((1,), (1,), (p, np.int32(1), np.int32(1)))
        runtime.freeAsync(p, a.ptr)
        first.synchronize()
        with pytest.raises(CUDAError) as caught:
            second.synchronize()
        assert caught.value.finding.kind in ("use after free", "write after read",
                                             "write after write")
        installed().reset()


def test_out_of_async_memory_waits_for_what_is_freed():
    out = run("""
from mlgpu.sim.cuda.install import install
install(devices=1, memory="16 KiB")
import cupy
runtime = cupy.cuda.runtime
with cupy.cuda.using_allocator(cupy.cuda.malloc_async):
    for n in range(10):
        x = cupy.full(5 << 10, n, "u1")
        y = x + 1
        del x
        assert int(y[0]) == n + 1
        del y
    x = cupy.zeros(10 << 10, "u1")
    try:
        cupy.zeros(7 << 10, "u1")
    except runtime.CUDARuntimeError as error:
        print(error.status)
""")
    assert out == [str(errors.OUT_OF_MEMORY)]


# -- several regions and devices ------------------------------------------------------------------

def test_threads_that_access_memory_of_every_kind(kernels):
    pinned = cupyx.zeros_pinned(4, np.int32)
    with cupy.cuda.using_allocator(cupy.cuda.malloc_managed):
        managed = cupy.zeros(4, np.int32)
    own = [cupy.zeros(4, np.int32) for _ in range(3)]
    with cupy.cuda.Device(1):
        other = cupy.zeros(4, np.int32)
        cupy.cuda.Stream.null.synchronize()
    runtime._deviceEnsurePeerAccess(1)
    try:
        address = [pinned.ctypes.data, managed.data.ptr, *(x.data.ptr for x in own),
                   other.data.ptr + 4]
        pointers = cupy.asarray(np.array(address, np.uint64))
        kernels.get_function("spread")((1,), (6,), (pointers,))
        out = cupy.zeros(6, np.int32)
        kernels.get_function("follow")((1,), (6,), (pointers, out))
        assert out.get().tolist() == [0, 1, 2, 3, 4, 5]
        assert pinned[0] == 0
        assert [int(x[0]) for x in (managed, *own)] == [1, 2, 3, 4]
        with cupy.cuda.Device(1):
            assert other.get().tolist() == [0, 5, 0, 0]
    finally:
        runtime.deviceDisablePeerAccess(1)


def test_no_peer_access(kernels):
    with cupy.cuda.Device(1):
        other = cupy.zeros(4, np.int32)
    kernels.get_function("add")((1,), (4,), (other.data.ptr, np.int32(4), np.int32(1)))
    found = fault()
    assert found.kind == "out of bounds"
    assert ("memory of device 1, to which device 0 has no access; it gets it from "
            "cudaDeviceEnablePeerAccess") in found.message
    with cupy.cuda.Device(1):
        cupy.cuda.Device(1).synchronize()
        assert int(other.sum()) == 0


def test_peer_access(kernels):
    with cupy.cuda.Device(1):
        other = cupy.zeros(4, np.int32)
        cupy.cuda.Stream.null.synchronize()
    assert runtime.deviceCanAccessPeer(0, 1) == 1
    runtime.deviceEnablePeerAccess(1)
    try:
        assert status(runtime.deviceEnablePeerAccess, 1)[0] == errors.PEER_ACCESS_ALREADY
        with cupy.cuda.Device(1):  # both ways, and an address that neither has
            runtime.deviceEnablePeerAccess(0)
        kernels.get_function("add")((1,), (4,), (other.data.ptr, np.int32(4), np.int32(1)))
        cupy.cuda.Stream.null.synchronize()
        with cupy.cuda.Device(1):
            assert other.get().tolist() == [1] * 4
        kernels.get_function("add")((1,), (5,), (other.data.ptr, np.int32(5), np.int32(1)))
        assert fault().allocation.size == 16
        installed().reset()
        kernels.get_function("add")((1,), (1,), (1 << 58, np.int32(1), np.int32(1)))
        assert fault().kind == "out of bounds"
        installed().reset()
    finally:
        runtime.deviceDisablePeerAccess(1)
        with cupy.cuda.Device(1):
            runtime.deviceDisablePeerAccess(0)
    assert status(runtime.deviceDisablePeerAccess, 1)[0] == errors.PEER_ACCESS_NOT
    assert status(runtime.deviceEnablePeerAccess, 0)[0] == errors.INVALID_DEVICE


def test_copies_between_devices_need_no_peer_access():
    x = cupy.arange(100)
    with cupy.cuda.Device(1):
        y = cupy.empty(100, x.dtype)
        runtime.memcpyPeer(y.data.ptr, 1, x.data.ptr, 0, x.nbytes)
        assert y.get().tolist() == list(range(100))
        z = cupy.asarray(x)
        assert z.device.id == 1
        assert z.get().tolist() == list(range(100))
