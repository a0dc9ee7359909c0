"""CuPy on simulated devices holds: refusals, threads, processes, exit, errors through C, leaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mlgpu.sim import SimError
from mlgpu.sim.cuda import binding, signatures
from mlgpu.sim.cuda.install import installed

cp: Any = pytest.importorskip("cupy")
np: Any = pytest.importorskip("numpy")

pytestmark = pytest.mark.skipif(installed() is None, reason="a real GPU")

START = "from mlgpu.sim.cuda.install import install\nsystem = install(devices=2)\n"


def run(source: str, *args: str, file: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own; warnings are errors."""
    environment = {k: v for k, v in os.environ.items() if k != "MLGPU_CUDA"}
    program = ["-c", source]
    if file is not None:
        file.write_text(source)
        program = [str(file)]
    return subprocess.run([sys.executable, "-W", "error", *program, *args], text=True,
                          capture_output=True, timeout=300, env=environment, check=False)


def quiet(result: subprocess.CompletedProcess[str], output: str = "") -> None:
    """It came to its end, and said this and nothing more."""
    assert (result.returncode, result.stdout, result.stderr) == (0, output, "")


# -- refusals -------------------------------------------------------------------------------------

def test_installing_after_cupy_was_imported() -> None:
    quiet(run("""
import cupy
import mlgpu.sim
try:
    mlgpu.sim.install()
except mlgpu.sim.SimError as error:
    print(error)
"""), "install: CuPy is imported already; call mlgpu.sim.install before any import of cupy\n")


def test_without_llvmlite() -> None:
    quiet(run("""
import sys
import mlgpu.sim
sys.modules["llvmlite"] = None
for _ in range(2):  # the first time has left nothing half done
    try:
        mlgpu.sim.install()
    except mlgpu.errors.MissingExtraError as error:
        print("llvmlite" in str(error) and "mlgpu[sim]" in str(error))
print([m for m in sys.modules if m.startswith("cupy")])
"""), "True\nTrue\n[]\n")


def test_installing_twice() -> None:
    from mlgpu.sim.cuda.install import install

    with pytest.raises(SimError, match="are installed already"):
        install()


@pytest.mark.parametrize(("change", "message"), [
    (lambda table: table.update(malloc=signatures.Signature("intptr_t (int)", 0)),
     "malloc is declared 'intptr_t .size_t, int __pyx_skip_dispatch.', not 'intptr_t .int.'"),
    (lambda table: table.update(mallocNew=signatures.Signature("intptr_t (int)", 0)),
     "mallocNew is missing"),
    (lambda table: table.pop("malloc"), "malloc is not known")])
def test_a_version_that_is_not_known(change: Any, message: str) -> None:
    """Every signature is compared; any difference is a version to be refused."""
    table = dict(signatures.RUNTIME)
    module = sys.modules[binding.RUNTIME]
    binding._check(module, table)
    change(table)
    with pytest.raises(SimError, match=message) as caught:
        binding._check(module, table)
    assert "cupy-cuda12x==14.2.*" in str(caught.value)


# -- threads, processes ---------------------------------------------------------------------------

SQUARE = r"""
extern "C" __global__ void square(float* x) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    x[i] = x[i] * x[i] + 1;
}
"""


def test_threads() -> None:
    """Eight threads on two devices, each with streams of its own, all have the right results."""
    kernel = cp.RawKernel(SQUARE, "square")
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with cp.cuda.Device(number % 2), cp.cuda.Stream(non_blocking=number % 3 > 0) as stream:
                for step in range(6):
                    host = np.arange(256, dtype="f4") + number * 10 + step
                    x = cp.asarray(host)
                    y = cp.zeros(256, "f4")
                    kernel((2,), (128,), (x,))
                    y[::2] = x[::2] * 2
                    got = y.get(stream)
                    want = np.zeros(256, "f4")
                    want[::2] = (host * host + 1)[::2] * 2
                    np.testing.assert_array_equal(got, want)
                    assert x.device.id == number % 2
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_children(tmp_path: Path) -> None:
    """A spawned child has simulated devices if it installs them, and else none; none crashes."""
    quiet(run("""
import multiprocessing

def without(queue):
    import cupy
    queue.put(cupy.cuda.is_available())
    try:
        cupy.zeros(3)
    except cupy.cuda.runtime.CUDARuntimeError:
        queue.put("no device")

def with_three(queue):
    from mlgpu.sim.cuda.install import install
    install(devices=3)
    import cupy
    queue.put(cupy.cuda.runtime.getDeviceCount())
    queue.put(int(cupy.arange(5).sum()))

if __name__ == "__main__":
    from mlgpu.sim.cuda.install import install
    install(devices=2)
    import cupy
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    for target in (without, with_three):
        child = context.Process(target=target, args=(queue,))
        child.start()
        print(queue.get(timeout=60), queue.get(timeout=60))
        child.join()
        assert child.exitcode == 0
    print(int(cupy.arange(4).sum()))
""", file=tmp_path / "children.py"), "False no device\n3 10\n6\n")


# -- the end --------------------------------------------------------------------------------------

END = START + """
import sys, threading
import cupy, cupyx
source = 'extern "C" __global__ void k(float* x, int at) { x[threadIdx.x + at] += 1; }'
kernel = cupy.RawKernel(source, "k")
x = cupy.zeros(32, "f4")
stream, event = cupy.cuda.Stream(), cupy.cuda.Event()
pinned = cupyx.empty_pinned(10, "f4")
module = cupy.RawModule(code=source)
function = module.get_function("k")
recorder = cupy.cuda.Stream(non_blocking=True)
recorder.begin_capture()
with recorder:
    kernel((1,), (32,), (x, 0))
graph = recorder.end_capture()
class Kept:
    def method(self): pass
kept = Kept()
kept.itself, kept.array, Kept.bound = kept, cupy.ones(3), kept.method
with stream:
    kernel((1,), (32,), (x, 0))
    graph.launch(stream)
    y = x * 2
    event.record()
    stream.launch_host_func(lambda _: None, None)
"""
ENDINGS = {
    "live objects and work that waits": "",
    "a capture": "recorder.begin_capture()",
    "an error that sticks": """
kernel((1,), (32,), (x, 1000))
try:
    cupy.cuda.Device().synchronize()
except cupy.cuda.runtime.CUDARuntimeError:
    pass
""",
    "threads": """
def loop(count):
    for _ in range(count):
        cupy.ones(10) + 1
threading.Thread(target=loop, args=(5,)).start()
for _ in range(3):
    threading.Thread(target=loop, args=(10**9,), daemon=True).start()
"""}


@pytest.mark.parametrize("ending", ENDINGS)
def test_exit(ending: str) -> None:
    quiet(run(END + ENDINGS[ending]))


def test_exit_that_tells() -> None:
    """The fault of a launch that nothing has waited for is told at the end."""
    result = run(END + "kernel((1,), (32,), (x, 1000))")
    assert result.returncode == 0
    assert "ended without waiting" in result.stderr
    assert "out of bounds" in result.stderr


def test_exit_after_tests_that_keep_arrays(tmp_path: Path) -> None:
    """Arrays that only Python's very last collection frees, when modules are gone."""
    (tmp_path / "test_kept.py").write_text("""
import cupy

class TestKept:
    def setup_method(self):
        self.array = cupy.ones(3)

    def test_sum(self):
        assert self.array.sum() == 3
""")
    result = run(START + "import sys, pytest\nsys.exit(pytest.main(['-q', '-p', 'no:cacheprovider',"
                         f" '--rootdir', {str(tmp_path)!r}, {str(tmp_path / 'test_kept.py')!r}]))")
    assert (result.returncode, result.stderr) == (0, "")


# -- errors through C -----------------------------------------------------------------------------

FORCED = r"""
import sys, warnings
from mlgpu.sim.cuda.driver import Driver
from mlgpu.sim.cuda.errors import CudaError
from mlgpu.sim.cuda.runtime import Runtime

broken, called = set(), set()

def breakable(name, function):
    def call(self, *args, **kwargs):
        if name in broken:
            called.add(name)
            raise CudaError(46, f"forced in {name}")
        return function(self, *args, **kwargs)
    call.__name__ = name
    return call

for kind in (Runtime, Driver):
    for base in kind.__mro__[:-1]:
        for name, function in list(vars(base).items()):
            if callable(function) and not name.startswith("__"):
                setattr(base, name, breakable(name, function))

from mlgpu.sim.cuda.install import install
system = install(devices=2)
import cupy, numpy
from cupy.cuda import driver, runtime
warnings.simplefilter("ignore")
sys.unraisablehook = lambda _: None  # of streams whose constructor fails

source = 'extern "C" { __device__ int v; __global__ void NAME(float* x) { x[threadIdx.x] += 1; } }'
def fresh():
    fresh.count += 1
    name = f"k{fresh.count}"
    return cupy.RawKernel(source.replace("NAME", name), name)
fresh.count = 0
kernel, other = fresh(), fresh()
together = cupy.RawKernel(source.replace("NAME", "t"), "t", enable_cooperative_groups=True)
module = cupy.RawModule(code=source.replace("NAME", "m"))
x, host = cupy.zeros(32, "f4"), numpy.zeros(32, "f4")
with cupy.cuda.Device(1):
    far = cupy.zeros(32, "f4")
managed = cupy.cuda.malloc_managed(64)
stream, event = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event()
event.record()
for k in (kernel, other, together):
    k((1,), (32,), (x,))
module.get_function("m")
pool, ordered = cupy.cuda.MemoryPool(), cupy.cuda.MemoryAsyncPool()
cupy.cuda.Device().synchronize()

def captured():
    own = cupy.cuda.Stream(non_blocking=True)
    own.begin_capture()
    with own:
        kernel((1,), (32,), (x,))
    try:
        return own.end_capture()
    finally:
        broken.clear()
        if own.is_capturing():
            own.end_capture()
graph = captured()

calls = {
    "malloc": lambda: pool.malloc(64), "mallocAsync": lambda: cupy.cuda.malloc_async(64),
    "mallocManaged": lambda: cupy.cuda.malloc_managed(64),
    "hostAlloc": lambda: cupy.cuda.alloc_pinned_memory(1 << 20),
    "memGetInfo": lambda: cupy.cuda.Device().mem_info,
    "memcpy": lambda: x.data.copy_to_host(host.ctypes.data, 128),
    "memcpyAsync": lambda: x.data.copy_to_host_async(host.ctypes.data, 128),
    "memset": lambda: x.data.memset(0, 128), "memsetAsync": lambda: x.data.memset_async(0, 128),
    "streamCreateWithPriority": lambda: cupy.cuda.Stream(),
    "streamSynchronize": lambda: stream.synchronize(), "streamQuery": lambda: stream.done,
    "streamWaitEvent": lambda: stream.wait_event(event),
    "streamGetPriority": lambda: stream.priority,
    "streamIsCapturing": lambda: stream.is_capturing(),
    "streamBeginCapture": lambda: stream.begin_capture(), "streamEndCapture": captured,
    "graphInstantiate": captured, "graphLaunch": lambda: graph.launch(stream),
    "graphUpload": lambda: graph.upload(stream),
    "launchHostFunc": lambda: stream.launch_host_func(print, 1),
    "streamAddCallback": lambda: stream.add_callback(print, 1),
    "eventCreateWithFlags": lambda: cupy.cuda.Event(), "eventRecord": lambda: event.record(),
    "eventSynchronize": lambda: event.synchronize(), "eventQuery": lambda: event.done,
    "eventElapsedTime": lambda: cupy.cuda.get_elapsed_time(event, event),
    "getDevice": lambda: cupy.empty(3), "setDevice": lambda: cupy.cuda.Device(1).use(),
    "deviceSynchronize": lambda: cupy.cuda.Device().synchronize(),
    "deviceGetPCIBusId": lambda: cupy.cuda.Device().pci_bus_id,
    "deviceGetByPCIBusId": lambda: cupy.cuda.Device.from_pci_bus_id("0000:01:00.0"),
    "deviceCanAccessPeer": lambda: x + far, "_deviceEnsurePeerAccess": lambda: x + far,
    "pointerGetAttributes": lambda: cupy.cuda.UnownedMemory(x.data.ptr, 128, x),
    "pointerGetMemoryType": lambda: x.__dlpack__(),
    "memAdvise": lambda: managed.mem.advise(1, cupy.cuda.Device(0)),
    "memPrefetchAsync": lambda: managed.mem.prefetch(stream),
    "deviceGetMemPool": lambda: cupy.cuda.MemoryAsyncPool("current"),
    "memPoolGetAttribute": lambda: ordered.used_bytes(),
    "memPoolTrimTo": lambda: ordered.free_all_blocks(),
    "memPoolSetAttribute": lambda: cupy.cuda.MemoryAsyncPool(),
    "_ensure_context": lambda: fresh().compile(), "moduleLoadData": lambda: fresh().compile(),
    "moduleGetFunction": lambda: module.get_function("none"),
    "moduleGetGlobal": lambda: module.get_global("v"),
    "moduleLoad": lambda: cupy.RawModule(path="none.ptx").get_function("k"),
    "funcGetAttribute": lambda: other.num_regs,
    "funcSetAttribute": lambda: setattr(kernel, "max_dynamic_shared_size_bytes", 100),
    "launchKernel": lambda: kernel((1,), (32,), (x,)),
    "launchCooperativeKernel": lambda: together((1,), (32,), (x,)),
    "occupancyMaxActiveBlocksPerMultiprocessor": lambda: together((1,), (32,), (x,)),
}
for name, call in calls.items():
    broken.add(name)
    try:
        call()
        print(name, "raised nothing")
    except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
        if error.status != 46 or f"forced in {name}" not in str(error):
            print(name, repr(error))
    except BaseException as error:
        print(name, repr(error))
    broken.clear()
    if name not in called:
        print(name, "was not called")
    system.reset()
    runtime.setDevice(0)
"""


def test_errors_come_through_c() -> None:
    """What fails in a function that CuPy's C code calls is raised by what called CuPy.

    Which value a function gives where it fails is in no capsule: this is its test.
    """
    quiet(run(FORCED))


# -- leaks, interrupts ----------------------------------------------------------------------------

LEAKS = START + r"""
import gc, tracemalloc
import cupy
kernel = cupy.RawKernel('extern "C" __global__ void k(float* x) { x[threadIdx.x] += 1; }', "k")
stream, x = cupy.cuda.Stream(non_blocking=True), cupy.zeros(32, "f4")
cupy.cuda.Device().synchronize()

def once():
    other, event = cupy.cuda.Stream(non_blocking=True), cupy.cuda.Event()
    with stream:
        kernel((1,), (32,), (x,))
        y = cupy.empty(1000, "f4")
        y.fill(3)
        event.record()
    other.wait_event(event)
    y[:10].get(other)
    with other:
        cupy.ones(100, "f4")
    pinned = cupy.cuda.alloc_pinned_memory(64)
    cupy.cuda.runtime.free(cupy.cuda.runtime.malloc(5000))
    with stream:
        stream.begin_capture()
        kernel((1,), (32,), (x,))
        graph = stream.end_capture()
        graph.launch(stream)
    stream.synchronize()
    if not once.count % 50:
        step = once.count % 100
        source = 'extern "C" __global__ void k(float* x) { x[threadIdx.x] += %d; }' % step
        cupy.RawModule(code=source).get_function("k")((1,), (32,), (x,), stream=stream)
    once.count += 1
once.count = 0

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

def several(count):
    for _ in range(count):
        once()
    gc.collect()

several(150)
tracemalloc.start()
several(20)
traced, before = tracemalloc.get_traced_memory()[0], resident()
several(200)
print("traced", tracemalloc.get_traced_memory()[0] - traced)
tracemalloc.stop()
several(800)
print("resident", resident() - before)
"""


def test_leaks() -> None:
    result = run(LEAKS)
    assert result.stderr == ""
    grown = {k: int(v) for k, v in (line.split() for line in result.stdout.splitlines())}
    # The last 4,096 freed allocations are remembered, with less than a KiB each.
    assert grown["traced"] < 400_000, grown
    assert grown["resident"] < 8 << 20, grown


def test_interrupts() -> None:
    """Ctrl-C in the midst of a launch raises KeyboardInterrupt, and leaves the device usable."""
    kernel = cp.RawKernel(r"""
    extern "C" __global__ void slow(float* x, int steps) {
        for (int i = 0; i < steps; ++i) x[threadIdx.x] += 1;
    }""", "slow")
    x = cp.zeros(32, "f4")
    kernel((1,), (32,), (x, 1))
    cp.cuda.Device().synchronize()

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def wait(delay: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, delay)
        cp.cuda.Device().synchronize()

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in (0.02, 0.033, 0.05, 0.1):
            kernel((1,), (32,), (x, 10**6))
            with pytest.raises(KeyboardInterrupt):
                wait(delay)
            x.fill(1)
            kernel((1,), (32,), (x, 3))
            assert x.tolist() == [4.0] * 32
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
