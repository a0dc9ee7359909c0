"""Device memory: on the books, limited, and given back; the program goes on where there is none."""

from __future__ import annotations

import dataclasses
import gc

import pytest

import mlgpu
from mlgpu import memory
from mlgpu.errors import (
    DeviceError,
    DTypeError,
    GraphError,
    KernelError,
    OutOfMemoryError,
    ReleasedError,
    ShapeError,
)

MIB = 1 << 20


def allocated():
    return memory.stats("cuda:0").allocated


def test_the_books():
    before = allocated()
    x = mlgpu.zeros(MIB, device="cuda")
    y = x[10:20]
    assert allocated() == before + 4 * MIB == mlgpu.cuda.memory_allocated()
    assert memory.snapshot("cuda:0")[0].shape == (MIB,)
    del x
    assert allocated() == before + 4 * MIB
    del y
    assert allocated() == before
    mlgpu.cuda.reset_peak_memory_stats()
    mlgpu.zeros(MIB, device="cuda") + 1
    assert mlgpu.cuda.max_memory_allocated() == before + 8 * MIB
    assert mlgpu.cuda.memory_reserved() >= allocated()
    mlgpu.cuda.empty_cache()
    free, total = mlgpu.cuda.mem_get_info()
    assert 0 < free <= total == mlgpu.cuda.get_device_properties().total_memory


def test_a_graph_gives_its_memory_back_without_a_collector():
    gc.collect()
    x = mlgpu.ones(1000, device="cuda", requires_grad=True)
    (x * 2).exp().backward(mlgpu.ones(1000, device="cuda"))
    x.grad = None
    before = memory.stats("cuda:0")
    gc.disable()
    try:
        for _ in range(5):
            y = (x * 2).exp().sigmoid() * x
            y.backward(mlgpu.ones(1000, device="cuda"))
            x.grad = None
            del y
    finally:
        gc.enable()
    after = memory.stats("cuda:0")
    assert (after.allocated, after.count) == (before.allocated, before.count)


def test_limits_and_budgets():
    x = mlgpu.zeros(MIB, device="cuda")
    memory.limit(allocated() + MIB, "cuda:0")
    try:
        with pytest.raises(OutOfMemoryError, match=r"limit.*Largest live blocks:\n.*float32"):
            x + 1
        assert (x[:1000] + 1)[0].item() == 1
    finally:
        memory.limit(None, "cuda:0")
    with memory.budget("1 MiB", "cuda:0"):
        with pytest.raises(OutOfMemoryError, match="budget"):
            x * 2
        x[:10] * 2
    assert (x + 1)[0].item() == 1


def test_out_of_memory_leaves_the_program_able_to_go_on():
    _, total = mlgpu.cuda.mem_get_info()
    x = mlgpu.ones(1000, device="cuda", requires_grad=True)
    before = memory.stats("cuda:0")
    with pytest.raises(OutOfMemoryError, match=r"asked for on cuda:0, which has .* free") as raised:
        mlgpu.empty(2 * total, dtype=mlgpu.uint8, device="cuda")
    _, _, largest = str(raised.value).partition("Largest live blocks")
    assert largest
    assert memory.format_bytes(2 * total) not in largest
    assert dataclasses.replace(memory.stats("cuda:0"), cached=before.cached) == before
    y = (x * 2).sum()
    y.backward()
    assert y.item() == 2000
    assert x.grad[0].item() == 2


def test_release():
    x = mlgpu.zeros(MIB, device="cuda")
    view, before = x[3:], allocated()
    x.release()
    assert allocated() == before - 4 * MIB
    for use in (lambda: x + 1, lambda: view.sum(), lambda: view.cpu(), lambda: x.tolist()):
        with pytest.raises(ReleasedError):
            use()


def test_in_place_on_a_saved_value_is_found():
    x = mlgpu.ones(3, device="cuda", requires_grad=True)
    y = x.exp()
    y.mul_(2)
    with pytest.raises(GraphError, match="changed in place"):
        y.sum().backward()


# --- launches -------------------------------------------------------------------------------------

SOURCE = "__global__ void add(float* y, const float* x, int n) { if (threadIdx.x < n) y[threadIdx.x] += x[threadIdx.x]; }"  # noqa: E501


def test_wrong_launches_say_what_is_wrong():
    add = mlgpu.cuda.kernel(SOURCE, "add")
    x = mlgpu.ones(8, device="cuda")
    y = mlgpu.zeros(8, device="cuda")
    cases = [
        ((y, x), KernelError, r"takes 3 arguments \(y, x, n\), got 2"),
        ((y, x.double(), 8), DTypeError, "x must be float32, got float64"),
        ((y, x.cpu(), 8), DeviceError, "on cpu and cuda:0"),
        ((y.cpu(), x.cpu(), 8), DeviceError, "kernels run on CUDA devices"),
        ((y[::2], x, 4), ShapeError, "y must be contiguous"),
        ((y, x, 2**31), KernelError, "n must fit int32, got 2147483648"),
        ((y, 3, 8), TypeError, "x must be an array on the device, got int"),
        ((None, None, 8), TypeError, "no argument is a tensor"),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=message):
            add(1, 8, arguments)
    with pytest.raises(GraphError, match="not recorded"):
        add(1, 8, (y, x.clone().requires_grad_(), 8))
    assert y.tolist() == [0.0] * 8
    add(0, 8, (y, x, 8))  # an empty grid launches nothing
    assert y.tolist() == [0.0] * 8
    add(1, 8, (y, x, 8))
    assert y.tolist() == [1.0] * 8
    with pytest.raises(KernelError, match="declares no kernel"):
        mlgpu.cuda.kernel(SOURCE, "subtract")
    broken = mlgpu.cuda.kernel(SOURCE.replace("float* y", "float * y").replace("+=", "=+-/"), "add")
    with pytest.raises(KernelError, match="does not compile"):
        broken(1, 8, (y, x, 8))


def test_two_devices_in_a_launch():
    if mlgpu.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device only")
    add = mlgpu.cuda.kernel(SOURCE, "add")
    with pytest.raises(DeviceError, match="on cuda:0 and cuda:1"):
        add(1, 8, (mlgpu.ones(8, device="cuda:0"), mlgpu.ones(8, device="cuda:1"), 8))
    y = mlgpu.zeros(8, device="cuda:1")
    add(1, 8, (y, mlgpu.ones(8, device="cuda:1"), 8))
    assert y.tolist() == [1.0] * 8


def test_facts():
    properties = mlgpu.cuda.get_device_properties(0)
    assert mlgpu.cuda.get_device_capability() == (properties.major, properties.minor)
    assert properties.warp_size == 32
    assert mlgpu.cuda.get_device_name() == properties.name
    assert mlgpu.cuda.current_device() == 0
