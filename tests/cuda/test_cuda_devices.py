"""CUDA devices: naming one, moving tensors there and back, and books of their own."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import simulated

import mlgpu
from mlgpu import Device, memory
from mlgpu.device import _local
from mlgpu.errors import DeviceError
from mlgpu.sim.cuda.install import installed, real_devices


def test_there_are_devices() -> None:
    for name in simulated.missing():
        pytest.skip(f"{name} is not installed: no test of CUDA devices runs")
    assert mlgpu.cuda.is_available()
    assert mlgpu.cuda.device_count() == (real_devices() or len(installed().devices))


@pytest.fixture
def two_devices(monkeypatch):
    """The second of two devices is the current one, and no other test's device is."""
    if mlgpu.cuda.device_count() < 2:
        pytest.skip("there is one CUDA device only")
    monkeypatch.setitem(_local.__dict__, "stack", [])
    with mlgpu.cuda.device(1):
        yield
    mlgpu.set_default_device(None)


def test_resolving(two_devices):
    assert str(Device("auto")) == "cuda"
    assert mlgpu.zeros(1, device="auto").device == Device("cuda:1")  # the current one
    assert mlgpu.zeros(1, device="cuda:0").device == Device("cuda:0")
    with pytest.raises(DeviceError, match=r"cuda:99 does not exist; there are \d+"):
        mlgpu.zeros(1, device="cuda:99")


def test_transfers_are_explicit(two_devices):
    x = mlgpu.tensor([1.0, 2.0], requires_grad=True)
    there = x.to("cuda:0")
    assert (there.device, there.get_device(), there.is_cuda) == (Device("cuda:0"), 0, True)
    assert there.to("cuda:0") is there
    back = there.to("cuda:1").cpu()
    assert back.tolist() == [1, 2]
    assert there[1].item() == 2
    back.backward(mlgpu.tensor([3.0, 4.0]))
    assert x.grad.device == Device("cpu")
    assert x.grad.tolist() == [3, 4]


@pytest.mark.parametrize("mix", [
    lambda a, b: a + b, lambda a, b: a @ b, lambda a, b: mlgpu.cat([a, b]),
    lambda a, b: a.add_(b), lambda a, b: a.copy_(b), lambda a, b: a.mul(2).sub(b),
    lambda a, b: mlgpu.where(a > 0, a, b), lambda a, b: a.__setitem__(0, b[0]),
    lambda a, b: mlgpu.stack([a, b]), lambda a, b: mlgpu.nn.functional.mse_loss(a, b),
])
def test_tensors_on_two_devices_are_refused(two_devices, mix):
    a, b = mlgpu.ones(3), mlgpu.ones(3, device="cuda:0")
    with pytest.raises(DeviceError, match=r"are on cpu and cuda:0; move one with .to\(\)"):
        mix(a, b)
    assert a.tolist() == [1, 1, 1]


def test_host_access_is_refused_elsewhere(two_devices):
    x = mlgpu.ones(3, device="cuda:0")
    for reach in (lambda: x.numpy(), lambda: np.asarray(x), lambda: x.pin_memory()):
        with pytest.raises(DeviceError, match="is on cuda:0"):
            reach()
    assert x.numpy(force=True).tolist() == [1, 1, 1]
    assert x.tolist() == [1, 1, 1]


def test_books_are_kept_per_device(two_devices):
    before = memory.stats("cuda:0"), memory.stats("cuda:1"), memory.stats("cpu")
    x = mlgpu.empty(1000, device="cuda:0")
    assert memory.stats("cuda:0").allocated == before[0].allocated + 4000
    assert memory.stats("cuda:1") == before[1]
    assert memory.stats("cpu") == before[2]
    assert memory.snapshot("cuda:0")[0].nbytes == x.nbytes


def test_the_current_device_is_a_context(two_devices):
    with Device("cuda:0"):
        assert mlgpu.zeros(1).device == mlgpu.get_default_device() == Device("cuda:0")
        with Device("cpu"):
            assert mlgpu.zeros(1).is_cpu
        with Device("cuda"):
            assert mlgpu.zeros(1).device == Device("cuda:1")
        with pytest.raises(KeyError), Device("cuda"):
            {}["nothing"]
        assert mlgpu.tensor([1.0]).device == Device("cuda:0")
        assert mlgpu.zeros(1, device="cpu").is_cpu
    assert mlgpu.zeros(1).is_cpu


def test_the_default_device(two_devices):
    mlgpu.set_default_device("cuda:0")
    assert mlgpu.get_default_device() == Device("cuda:0")
    assert mlgpu.arange(2).device == Device("cuda:0")
    with Device("cpu"):
        assert mlgpu.zeros(1).is_cpu
    with pytest.raises(DeviceError):
        mlgpu.set_default_device("cuda:77")
    assert mlgpu.zeros(1).device == Device("cuda:0")
    mlgpu.set_default_device(None)
    assert mlgpu.zeros(1).is_cpu


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_context_and_default_belong_to_their_thread(two_devices):
    mlgpu.set_default_device("cuda:0")
    with Device("cuda:1"):
        assert in_thread(mlgpu.get_default_device) == Device("cpu")
    in_thread(lambda: mlgpu.set_default_device("cuda:1"))
    assert mlgpu.get_default_device() == Device("cuda:0")
