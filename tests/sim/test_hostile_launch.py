"""Launches, arguments and arrays that are no good, and a machine that outlives all of them."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from sim.hostile import ADD, kernel, ptx, run

from mlgpu import sim
from mlgpu.sim.arch import ARCHS
from mlgpu.sim.launch import PARAMETERS


def refused(words: str, call: Callable[..., Any], *args: Any, **named: Any) -> None:
    """The call raises a LaunchError or a SimError with these words."""
    with pytest.raises(sim.SimError, match=words) as caught:
        call(*args, **named)
    assert not isinstance(caught.value, sim.Finding)


# -- the machine ----------------------------------------------------------------------------------

@pytest.mark.parametrize("given", [
    {"arch": None}, {"arch": 90}, {"arch": "90"}, {"arch": "sm_10"}, {"arch": "sm_9x"},
    {"arch": ""}, {"findings": "ignore"}, {"findings": None}, {"checks": "memcheck"},
    {"checks": ("memchek",)}, {"checks": 5}, {"checks": [[]]}, {"watchdog": 0}, {"watchdog": -1},
    {"watchdog": 1.5}, {"watchdog": True}, {"watchdog": None}, {"memory": 0}, {"memory": "8G"},
    {"schedule": "warp"}, {"schedule": None}])
def test_machines(given: dict[str, Any]) -> None:
    refused("Machine: |arch: ", sim.Machine, **given)


# -- dimensions -----------------------------------------------------------------------------------

@pytest.mark.parametrize("dim", [
    0, -1, (1, 0), (1, 1, -1), (), (1, 1, 1, 1), [], None, "3", "x", 2.0, 1.5, float("nan"),
    float("inf"), True, np.True_, (True, 1), (1, None), {"x": 1}, object(), np.float32(1), (1, "1"),
    np.zeros((2, 2)), 1 << 70, -(1 << 70), [[1]]])
@pytest.mark.parametrize("which", ["grid", "block"])
def test_dimensions(which: str, dim: Any) -> None:
    k = kernel("ret;", params="")
    dims = {"grid": 1, "block": 32, which: dim}
    refused(f"k: {which}=", k.launch, **dims)
    assert k.launch(1, 32).findings == []


@pytest.mark.parametrize("dim", [
    2, (2,), [2, 1], (1, 2, 1), np.int32(2), (np.int64(1), np.uint8(2)), np.array([2, 1]),
    np.array(2)])
def test_dimensions_that_are_fine(dim: Any) -> None:
    k = kernel("ret;", params="")
    assert k.launch(dim, 32).findings == k.launch(1, dim).findings == []


@pytest.mark.parametrize(("grid", "block", "words"), [
    ((1 << 31, 1), 1, "x must be 1 to 2,147,483,647"), ((1, 65536), 1, "y must be 1 to 65,535"),
    ((1, 1, 65536), 1, "z must be 1 to 65,535"), (1, 1025, "x must be 1 to 1,024"),
    (1, (1, 1025), "y must be 1 to 1,024"), (1, (1, 1, 65), "z must be 1 to 64"),
    (1, (32, 33), "1056 threads; at most 1024"), (1, (1024, 1024, 64), "at most 1024")])
def test_limits_of_grid_and_block(grid: Any, block: Any, words: str) -> None:
    refused(words, kernel("ret;", params="").launch, grid, block)


def test_launch_bounds() -> None:
    k = kernel("ret;", params="", directives=".maxntid 99999999999, 99999999999, 99999999999")
    assert k.launch(1, 1024).findings == []
    k = kernel("ret;", params="", directives=".maxntid 64, 2")
    assert k.launch(1, 128).findings == []
    refused("129 threads; the kernel was compiled for at most 128", k.launch, 1, 129)
    k = kernel("ret;", params="", directives=".reqntid 64")
    refused("32 threads; the kernel was compiled for 64", k.launch, 1, 32)


def test_clusters() -> None:
    k = kernel("ret;", params="", directives=".explicitcluster .reqnctapercluster 2, 1, 1")
    refused("clusters", k.launch, 2, 32)
    k = kernel("ret;", params="", directives=".reqnctapercluster 1, 1, 1")
    assert k.launch(2, 32).findings == []


# -- memory ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("arch", [f"sm_{a}{b}" for a, b in ARCHS])
def test_limits_of_shared_memory(arch: str) -> None:
    m = sim.Machine(arch=arch)
    optin = m.arch.shared_optin
    outer = ".extern .shared .align 16 .b8 dynamic[];"
    store = "mov.u32 %r1, dynamic; st.shared.u8 [%r1+{}], 1;"
    k = kernel(store.format(optin - 65), m, params="", outer=outer, target=arch)  # 64 are static
    assert k.launch(1, 1, shared_mem=optin - 64).findings == []
    refused(f"{optin + 1:,} bytes of shared memory for a block .64 static, {optin - 63:,} dynamic"
            f".*at most {optin:,}", k.launch, 1, 1, shared_mem=optin - 63)
    for size, fits in ((49088, True), (49089, False), (1 << 40, False)):
        k = kernel("st.shared.u8 [large], 1;", m, params="", target=arch,
                   outer=f".shared .b8 large[{size}];")
        if fits:
            assert k.launch(1, 1).findings == []
        else:
            refused(f"{size + 64:,} bytes of .*shared memory", k.launch, 1, 1)


@pytest.mark.parametrize("size", [-1, -(1 << 40), 1 << 40, 1 << 80, 1.5, None, "16", True, [16]])
def test_dynamic_shared_memory(size: Any) -> None:
    refused("shared_mem|shared memory", kernel("ret;", params="").launch, 1, 32, shared_mem=size)


def test_limits_of_local_memory() -> None:
    for size, fits in ((512 * 1024 - 64, True), (512 * 1024 + 1, False), (1 << 45, False)):
        k = kernel(f".local .b8 large[{size}]; st.local.u8 [large+7], 1;", params="")
        if fits:
            assert k.launch(20, 32).findings == []  # in batches that fit this computer
        else:
            refused("bytes of local memory for a thread; at most 524,288", k.launch, 1, 32)


def test_cooperative_grids() -> None:
    m = sim.Machine(arch="sm_90")
    k = kernel("ret;", m, params="")
    most = m.arch.sms * 2  # of blocks of 1,024 threads
    assert k.launch(most, 1024, cooperative=True).findings == []
    refused(f"{most + 1} blocks; at most {most}", k.launch, most + 1, 1024, cooperative=True)
    assert k.launch(most + 1, 1024).findings == []


def test_device_memory() -> None:
    m = sim.Machine(memory=1 << 20)
    first = m.empty(1 << 19, np.uint8)
    refused("out of memory: 524,289 bytes, but only 524,288", m.empty, (1 << 19) + 1, np.uint8)
    refused("out of memory", m.zeros, 1 << 60)
    refused("out of memory", m.array, np.zeros(1 << 20, np.uint8))
    m.empty(1 << 19, np.uint8)
    first.free()
    assert m.zeros(1 << 19, np.uint8).nbytes == 1 << 19


def test_memory_that_the_computer_lacks() -> None:
    refused("out of memory", sim.Machine(memory=1 << 62).empty, 1 << 60, np.uint8)


# -- arrays ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [
    -1, (2, -3), True, (1, True), 1.5, "3", None, (1, None), object(), (2,) * 40, np.array([1.5]),
    {"a": 1}])
def test_shapes(shape: Any) -> None:
    m = sim.Machine()
    refused("empty: the shape", m.empty, shape)
    refused("zeros: the shape", m.zeros, shape)
    assert m.space.used == 0


@pytest.mark.parametrize("shape", [0, (0,), (3, 0, 2), (), np.int32(3), [np.uint8(2), 2],
                                   np.array([2, 3])])
def test_shapes_that_are_fine(shape: Any) -> None:
    m = sim.Machine()
    expected = np.zeros(shape, np.float32)
    buffer = m.zeros(shape)
    assert buffer.shape == expected.shape
    np.testing.assert_array_equal(buffer.numpy(), expected)
    buffer.set(np.ones(shape, np.float32))
    np.testing.assert_array_equal(buffer.numpy(), np.ones(shape))
    buffer.free()


@pytest.mark.parametrize("dtype", [object, "U3", "S3", "M8[s]", "m8[ns]", np.longdouble,
                                   [("a", "i4"), ("b", "O")], "nonsense", 3, "i3"])
def test_dtypes(dtype: Any) -> None:
    m = sim.Machine()
    refused("empty: ", m.empty, 4, dtype)
    refused("zeros: ", m.zeros, 4, dtype)


@pytest.mark.parametrize("values", [
    np.array([None, 1]), np.array(["a"]), ["a", "b"], [[1], [1, 2]], object(), None, {1, 2},
    np.array(["2020-01-01"], "M8[D]"), lambda: 0])
def test_values(values: Any) -> None:
    m = sim.Machine()
    refused("array: ", m.array, values)
    refused("set: ", m.zeros(2).set, values)
    assert m.space.used == 8


@pytest.mark.parametrize("dtype", [">i4", ">f8", ">c8", [("a", ">i2"), ("b", "<f4")]])
def test_the_other_byte_order(dtype: Any) -> None:
    m = sim.Machine()
    values = np.zeros(3, dtype)
    if values.dtype.names:
        values["a"], values["b"] = [1, 2, 3], [4, 5, 6]
    else:
        values[:] = [1, 2, 3]
    buffer = m.array(values)
    assert buffer.dtype.isnative
    np.testing.assert_array_equal(buffer.numpy(), values)
    buffer.set(values[::-1])
    np.testing.assert_array_equal(buffer.numpy(), values[::-1])
    refused("other way round", m.empty, 3, dtype)


@pytest.mark.parametrize("dtype", [
    np.bool_, np.int8, np.uint64, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn,
    np.complex64, np.complex128, [("a", "i4"), ("b", "f4", 3)]])
def test_arrays_of_every_kind(dtype: Any) -> None:
    m = sim.Machine()
    values = np.zeros((4, 6), dtype)
    values[1, 2:] = np.ones((), dtype)
    for view in (values, values.T, values[::2, ::-3], values[:0], np.asfortranarray(values)):
        buffer = m.array(view)
        assert (buffer.shape, buffer.dtype) == (view.shape, view.dtype)
        assert buffer.numpy().tobytes() == np.ascontiguousarray(view).tobytes()


def test_set() -> None:
    m = sim.Machine()
    buffer = m.zeros((2, 2), np.float32)
    buffer.set([[1, 2], [3, 4]])  # Python numbers take the buffer's dtype
    np.testing.assert_array_equal(buffer.numpy(), [[1, 2], [3, 4]])
    buffer.set(np.arange(4, dtype=np.float32).view(np.uint8))
    np.testing.assert_array_equal(buffer.numpy(), [[0, 1], [2, 3]])
    refused("set: float64 for a buffer of float32", buffer.set, np.zeros(2))
    refused("set: int32 for a buffer of float32", buffer.set, np.zeros(4, np.int32))
    refused("set: 12 bytes for a buffer of 16", buffer.set, np.zeros(3, np.float32))
    refused("set: ", m.zeros(1, np.uint8).set, [300])
    m.zeros(4, np.int32).set(np.zeros(4, np.uint32))


def test_symbols() -> None:
    mod = sim.Machine().module(ptx("ret;", outer=".global .u32 g[3]; .const .b8 c[6];"))
    mod.symbol("g").set(np.array([1, -2, 3], np.int32))
    np.testing.assert_array_equal(mod.symbol("g", np.int32).numpy(), [1, -2, 3])
    for dtype in (np.float64, "V0", object, ">i4"):
        refused("symbol: ", mod.symbol, "g", dtype)
    refused("symbol: c has 6 bytes", mod.symbol, "c", np.int32)
    refused("variable of a module", mod.symbol("g").free)


def test_freed_twice() -> None:
    m = sim.Machine()
    buffer = m.zeros(4)
    buffer.free()
    for call in (buffer.free, buffer.numpy, lambda: buffer.set([1, 2, 3, 4])):
        with pytest.raises(sim.Finding, match="freed"):
            call()


# -- arguments ------------------------------------------------------------------------------------

PARAMS = ".param .u64 p, .param .u32 u, .param .f32 f, .param .align 8 .b8 s[24], .param .u8 b"


def arguments(m: sim.Machine) -> list[Any]:
    return [m.zeros(4), np.int32(1), np.float32(2), bytes(24), np.bool_(True)]


def test_arguments_that_are_fine() -> None:
    m = sim.Machine()
    k = kernel("ret;", m, params=PARAMS)
    struct = np.zeros((), [("p", "u8"), ("f", "f4", 4)])
    for change in ((0, 0), (0, 1 << 63), (0, -1), (0, np.uint64(5)), (0, m.zeros(2).ptr + 4),
                   (1, np.uint32(3)), (1, np.array(3, np.int32)), (3, struct), (3, struct[()]),
                   (3, np.zeros(6, np.float32)), (3, np.zeros((2, 3), ">f4")),
                   (4, np.uint8(3)), (4, np.int8(-1)), (1, b"abcd"), (3, bytearray(24))):
        args = arguments(m)
        args[change[0]] = change[1]
        if isinstance(change[1], bytearray):
            refused("bytearray", k.launch, 1, 1, args)
        else:
            assert k.launch(1, 1, tuple(args)).findings == []


@pytest.mark.parametrize(("number", "value", "words"), [
    (0, None, "NoneType"), (0, 1.0, "float 1.0, which could be"), (0, True, "bool True"),
    (0, "x", "str"), (0, 1 << 64, "64 bits"), (0, -(1 << 64), "64 bits"),
    (0, np.zeros(1), "pass Machine.array"), (0, np.zeros(2, np.float32), "pass Machine.array"),
    (0, np.float64(3), "float64; the parameter is .u64"), (0, np.int32(1), "4 bytes"),
    (0, [1], "list"), (0, b"abc", "3 bytes"),
    (1, 1, "int 1, which stands for an address of 8 bytes; the parameter has 4"),
    (1, np.int64(1), "8 bytes"), (1, np.int16(1), "2 bytes"), (1, np.float32(1), "float32"),
    (1, np.zeros(1, np.int32), "NumPy array"), (1, 1j, "complex"), (1, False, "np.bool_"),
    (2, 2.0, "np.float32"), (2, np.int32(2), "int32"), (2, np.float64(2), "8 bytes"),
    (2, np.float16(2), "2 bytes"), (2, ml_dtypes.bfloat16(2), "2 bytes"),
    (3, bytes(23), "23 bytes; the parameter is a struct or array of 24"), (3, bytes(25), "25"),
    (3, np.zeros((), [("a", "u8"), ("b", "u8")]), "16 bytes"), (3, np.array([None] * 3), "object"),
    (3, np.array("abcdef"), "does not exist on a GPU"), (3, 5, "int 5"), (3, b"", "0 bytes"),
    (4, 1, "int 1"), (4, np.int32(1), "4 bytes"), (4, True, "np.bool_"),
])
def test_arguments(number: int, value: Any, words: str) -> None:
    m = sim.Machine()
    k = kernel("ret;", m, params=PARAMS)
    args = arguments(m)
    args[number] = value
    refused(f"k: argument {number}.*{words}", k.launch, 1, 1, args)


def test_a_buffer_where_none_belongs() -> None:
    m = sim.Machine()
    k = kernel("ret;", m, params=PARAMS)
    for number in range(1, 5):
        args = arguments(m)
        args[number] = args[0]
        refused(f"argument {number} is a buffer", k.launch, 1, 1, args)
    refused("a buffer of another machine", k.launch, 1, 1, arguments(sim.Machine()))
    double = kernel("ret;", m, params=".param .f64 d")
    refused(r"buffer.*\.f64", double.launch, 1, 1, (m.zeros(1),))
    refused(r"int 3.*\.f64", double.launch, 1, 1, (3,))


@pytest.mark.parametrize("args", [
    None, 5, "abcde", b"abcde", {1: 2}, {1, 2}, np.zeros(5), object()])
def test_what_is_no_list_of_arguments(args: Any) -> None:
    m = sim.Machine()
    refused("args is .*tuple or list", kernel("ret;", m, params=PARAMS).launch, 1, 1, args)
    refused("args is Buffer", kernel("ret;", m).launch, 1, 1, m.zeros(1))


@pytest.mark.parametrize("count", [0, 1, 4, 6, 100])
def test_wrong_numbers_of_arguments(count: int) -> None:
    m = sim.Machine()
    refused(f"{count} arguments; the kernel has 5 parameters",
            kernel("ret;", m, params=PARAMS).launch, 1, 1, [0] * count)
    refused("1 arguments; the kernel has 0", kernel("ret;", m, params="").launch, 1, 1, [0])


def test_arrays_of_no_bytes() -> None:
    m = sim.Machine()
    empty = m.array(np.zeros(0, np.float32))
    assert kernel("ret;", m).launch(1, 1, (empty,)).findings == []
    read = kernel("ld.param.u64 %rd1, [out]; ld.global.u8 %r1, [%rd1];", m)
    with pytest.raises(sim.Finding) as caught:
        read.launch(1, 1, (empty,))
    assert caught.value.kind == "out of bounds"
    assert caught.value.allocation is not None
    assert caught.value.allocation.size == 0


# -- a machine outlives what is wrong -------------------------------------------------------------

FAULT = """ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4;
    add.u64 %rd3, %rd1, %rd2; ld.global.u32 %r2, [%rd3]; add.u32 %r2, %r2, 1;
    bar.sync 0; st.global.u32 [%rd3], %r2; bar.sync 0; atom.global.add.u32 %r3, [%rd1], 1;
    mov.u64 %rd4, 8; setp.eq.u32 %p1, %r1, 40; @%p1 st.global.u32 [%rd4], 7;"""


def usable(m: sim.Machine, buffers: list[sim.Buffer]) -> None:
    """Launches on the machine give right results with no finding, on these buffers too."""
    add = m.module(ADD).kernel("k")
    for buffer in (*buffers, m.array(np.arange(64, dtype=np.uint32))):
        before = buffer.numpy()
        assert add.launch(2, 32, (buffer, np.uint32(64))).findings == []
        np.testing.assert_array_equal(buffer.numpy(), before + 1)
    for region in m.space.regions:
        assert not region.touched
        assert region.race is None
        assert not (region.marks & ~np.uint8(1)).any()


def test_after_a_finding() -> None:
    m = sim.Machine()
    out = m.array(np.arange(64, dtype=np.uint32))
    k = kernel(FAULT, m)
    regions = len(m.space.regions)
    for _ in range(3):
        with pytest.raises(sim.Finding):
            k.launch(1, 64, (out,))
        usable(m, [out])
        with pytest.raises(sim.LaunchError):
            k.launch(1, 64, ())
    assert [r for r in m.space.regions if r.name == PARAMETERS] == []
    assert len(m.space.regions) == regions + 3


def test_parameters_that_are_addressed_leave_nothing_behind() -> None:
    m = sim.Machine()
    out = m.zeros(32, np.uint32)
    k = kernel("mov.u64 %rd1, out; ld.param.u64 %rd1, [%rd1]; mov.u32 %r1, %tid.x;\n"
               "mul.wide.u32 %rd2, %r1, 4; add.u64 %rd1, %rd1, %rd2; st.global.u32 [%rd1], 3;", m)
    used = m.space.used
    for _ in range(3):
        k.launch(1, 32, (out,))
    assert (out.numpy() == 3).all()
    assert m.space.used == used


@pytest.mark.parametrize("step", [1, 5, 20, 40, 60, 100, 150, 200, 400, 800])
def test_after_an_interrupt(step: int) -> None:
    """An interrupt at any of the calls of a launch leaves the machine as good as new."""
    m = sim.Machine()
    out = m.array(np.arange(64, dtype=np.uint32))
    k = kernel(FAULT.replace("@%p1 st", "@!%p4 nanosleep.u32 1; @%p4 st"), m)
    own = str(Path(sim.__file__).parent)
    calls = 0

    def count(frame: Any, event: str, arg: Any) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_filename.startswith((own, "<k>"))
        if calls == step:
            sys.setprofile(None)
            raise KeyboardInterrupt

    def launches() -> None:
        sys.setprofile(count)
        try:
            for _ in range(50):
                k.launch(1, 64, (out,))
        finally:
            sys.setprofile(None)

    k.launch(1, 64, (out,))  # finds nothing
    with pytest.raises(KeyboardInterrupt):
        launches()
    usable(m, [out])
    assert [r for r in m.space.regions if r.name == PARAMETERS] == []


def test_an_interrupt_from_outside() -> None:
    import _thread
    m = sim.Machine(watchdog=1 << 60)
    out = m.array(np.arange(64, dtype=np.uint32))
    k = kernel("ld.param.u64 %rd1, [out]; L: ld.global.u32 %r1, [%rd1]; add.u32 %r1, %r1, 0;\n"
               "bra L;", m)
    # A shell starts its background jobs, the test run perhaps, with interrupts ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, _thread.interrupt_main)
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            k.launch(1, 64, (out,))
        timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    usable(m, [out])


def test_after_an_error_in_preparation() -> None:
    m = sim.Machine()
    for body in ("frob.u32 %r1, %r2;", "add.u32 %rd1, %r1, %r2;", "call f;"):
        with pytest.raises(sim.SimError):
            kernel(body, m)
    usable(m, [])


# -- threads --------------------------------------------------------------------------------------

def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run the work in several threads at once; the first error is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def body(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(n,)) for n in range(count)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    if errors:
        raise errors[0]


def test_threads_with_machines_of_their_own() -> None:
    lop3 = "\n".join(f"lop3.b32 %r2, %r1, %r3, %r2, {n};" for n in range(1, 255, 2))

    def work(number: int) -> None:
        for _ in range(5):
            np.testing.assert_array_equal(run(
                f"mov.u32 %r3, 0x0F0F00FF; mov.u32 %r2, 0x33335555;\n{lop3}\n"
                "st.global.u32 [%rd1], %r2;"), expected)

    expected = np.zeros(32, np.uint32) + np.arange(32, dtype=np.uint32)
    a, b, c = expected, np.uint32(0x0F0F00FF), np.full(32, 0x33335555, np.uint32)
    for n in range(1, 255, 2):
        c = sum(((a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
                 for i in range(8) if n >> i & 1), np.zeros(32, np.uint32))
    expected = c
    in_threads(4, work)


def test_threads_that_share_a_machine() -> None:
    m = sim.Machine()
    shared = m.zeros(64, np.uint32)
    mod = m.module(ADD)
    faulty = kernel(FAULT, m)

    def work(number: int) -> None:
        own = m.array(np.full(64, number, np.uint32))
        for n in range(20):
            mod.kernel("k").launch(2, 32, (shared, np.uint32(64)))
            mod.kernel("k").launch(2, 32, (own, np.uint32(64)))
            if n % 5 == number:
                with pytest.raises(sim.Finding):
                    faulty.launch(1, 64, (m.zeros(64, np.uint32),))
            extra = m.module(ADD).kernel("k")
            extra.launch(2, 32, (own, np.uint32(64)))
        np.testing.assert_array_equal(own.numpy(), number + 40)
        own.free()

    in_threads(4, work)
    np.testing.assert_array_equal(shared.numpy(), 80)
    usable(m, [shared])


def test_a_launch_waits_for_another() -> None:
    """A second thread's launch does not run inside the first one's."""
    m = sim.Machine()
    out = m.zeros(64, np.uint32)
    add = m.module(ADD).kernel("k")
    order: list[str] = []

    def work() -> None:
        add.launch(2, 32, (out, np.uint32(64)))
        order.append("launch")

    thread = threading.Thread(target=work)
    with m.lock:
        thread.start()
        time.sleep(0.2)
        order.append("released")
    thread.join()
    assert order == ["released", "launch"]
    np.testing.assert_array_equal(out.numpy(), 1)
