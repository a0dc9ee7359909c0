"""Devices: naming, equality, the current one per thread, and what happens without CUDA."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import mlgpu
from mlgpu import Device, cuda, errors, memory
from mlgpu import device as device_class
from mlgpu.errors import DeviceError

NAMES = {
    "cpu": ("cpu", None), "cpu:0": ("cpu", 0), "cuda": ("cuda", None), "cuda:0": ("cuda", 0),
    "cuda:12": ("cuda", 12),
}


# --- naming ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NAMES)
def test_names(text):
    kind, index = NAMES[text]
    device = Device(text)
    assert (device.type, device.index) == (kind, index)
    assert str(device) == text
    assert Device(device) == device == Device(kind, index)
    assert eval(repr(device), {"device": Device}) == device
    for twin in (pickle.loads(pickle.dumps(device)), copy.deepcopy(device)):
        assert twin == device
        assert hash(twin) == hash(device)


def test_equality_is_by_type_and_index():
    devices = [Device(text) for text in NAMES]
    assert len(set(devices)) == len(NAMES)
    assert Device("cuda") != Device("cuda:0")
    assert Device("cpu") != "cpu"
    assert device_class is Device
    assert Device(3) == Device("cuda:3")  # as PyTorch: a bare index means CUDA


@pytest.mark.parametrize("arguments", [
    ("",), ("gpu",), ("CPU",), ("cuda:",), ("cuda:-1",), ("cuda:x",), ("cuda:01",), ("cuda:1:2",),
    ("cuda: 1",), ("cuda:٣",), ("cpu:1",), ("cuda:1", 1), ("cuda", -1), ("cuda", True),
    ("cuda", 1.0), (None,), (1.5,), (-1,), (True,), (b"cpu",), ("auto:0",),
], ids=str)
def test_what_is_no_device(arguments):
    with pytest.raises(DeviceError, match="device: ") as raised:
        Device(*arguments)
    assert isinstance(raised.value, RuntimeError)


def test_attributes_of_tensors():
    x = mlgpu.ones(2)
    assert x.device == Device("cpu")
    assert (x.is_cpu, x.is_cuda, x.get_device()) == (True, False, -1)
    assert x.to("cpu:0") is x
    assert x.cpu() is x


# --- without CUDA ---------------------------------------------------------------------------------


def module():
    return mlgpu.nn.Linear(2, 2)


ENTRIES = {
    "tensor": lambda: mlgpu.tensor([1.0], device="cuda"),
    "index": lambda: mlgpu.tensor([1.0], device=0),
    "as_tensor": lambda: mlgpu.as_tensor(np.ones(2), device="cuda"),
    "zeros": lambda: mlgpu.zeros(2, device="cuda:0"),
    "arange": lambda: mlgpu.arange(2, device=Device("cuda")),
    "new_zeros": lambda: mlgpu.ones(2).new_zeros(2, device="cuda"),
    "ones_like": lambda: mlgpu.ones_like(mlgpu.ones(2), device="cuda"),
    "eye": lambda: mlgpu.eye(2, device="cuda"),
    "linspace": lambda: mlgpu.linspace(0, 1, 3, device="cuda"),
    "rand": lambda: mlgpu.rand(2, device="cuda"),
    "randperm": lambda: mlgpu.randperm(2, device="cuda"),
    "from_dlpack": lambda: mlgpu.from_dlpack(np.ones(2), device="cuda"),
    "to": lambda: mlgpu.ones(2).to("cuda"),
    "to dtype": lambda: mlgpu.ones(2).to("cuda:1", mlgpu.float64),
    "to keyword": lambda: mlgpu.ones(2).to(device="cuda"),
    "cuda": lambda: mlgpu.ones(2).cuda(),
    "cuda index": lambda: mlgpu.ones(2).cuda(1),
    "Module.to": lambda: module().to("cuda"),
    "Module.cuda": lambda: module().cuda(),
    "Linear": lambda: mlgpu.nn.Linear(2, 2, device="cuda"),
    "Generator": lambda: mlgpu.Generator(device="cuda"),
    "set_default_device": lambda: mlgpu.set_default_device("cuda"),
    "context": lambda: Device("cuda").__enter__(),
    "stats": lambda: memory.stats("cuda"),
    "limit": lambda: memory.limit("1 GiB", "cuda"),
    "budget": lambda: memory.budget("1 GiB", "cuda").__enter__(),
    "snapshot": lambda: memory.snapshot("cuda"),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_cuda_asked_for_where_there_is_none(no_cuda, entry):
    """The error says what was asked for, why it cannot be, and what to do."""
    with pytest.raises(DeviceError, match=r"cuda(:\d)? was asked for.*CuPy is not installed.*"
                                          r"pip install.*device='cpu'.*'auto'"):
        ENTRIES[entry]()
    assert mlgpu.ones(1).device == Device("cpu")


def test_a_failed_move_leaves_the_module_as_it_was(no_cuda):
    model = module()
    before = [p.data_ptr() for p in model.parameters()]
    with pytest.raises(DeviceError):
        model.to("cuda", mlgpu.float64)
    assert [p.data_ptr() for p in model.parameters()] == before
    assert all(p.dtype is mlgpu.float32 for p in model.parameters())


@pytest.mark.parametrize("pin", [
    lambda: mlgpu.ones(2).pin_memory(), lambda: mlgpu.tensor([1.0], pin_memory=True),
    lambda: mlgpu.empty(2, pin_memory=True),
])
def test_pinned_memory_needs_cuda(no_cuda, pin):
    allocated = memory.stats().allocated
    with pytest.raises(DeviceError, match=r"pin_memory: .*needs CUDA"):
        pin()
    assert memory.stats().allocated == allocated


def test_auto_is_the_cpu_and_says_so(no_cuda):
    assert str(Device("auto")) == "cpu"
    assert mlgpu.tensor([1.0], device="auto").device == Device("cpu")
    assert mlgpu.ones(2).to("auto").device.type == "cpu"
    assert not cuda.is_available()
    assert cuda.device_count() == 0


def test_loading_the_runtime_is_refused(no_cuda):
    with pytest.raises(DeviceError, match="CuPy is not installed"):
        cuda.load_runtime()


def test_errors_are_exported():
    assert mlgpu.DeviceError is errors.DeviceError
