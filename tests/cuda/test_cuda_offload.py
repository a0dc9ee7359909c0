"""Saved values and optimizer state in host memory: the same numbers, less memory on the device."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, optim
from mlgpu.checkpoint import offload, save_on_cpu
from mlgpu.errors import CaptureError, MlgpuError


@pytest.fixture(scope="module")
def device():
    with mlgpu.Device("cuda"):
        yield "cuda"


def model():
    mlgpu.manual_seed(0)
    return nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(16, 16), nn.Tanh())])


def gradients(context):
    """Of a model's parameters, and the peak of the forward and backward pass."""
    made, x = model(), mlgpu.randn(128, 16)
    gc.collect()
    mlgpu.memory.reset_peak()
    before = mlgpu.memory.stats().allocated
    with context:
        loss = made(x).square().sum()
    loss.backward()
    peak = mlgpu.memory.stats().peak - before
    return [p.grad.cpu().numpy() for p in made.parameters()], peak


def test_saved_values_are_away_meanwhile(device):
    import contextlib

    expected, needs = gradients(contextlib.nullcontext())
    for context in (offload("1 KiB", ahead=1), save_on_cpu(), save_on_cpu(pin_memory=True)):
        found, peak = gradients(context)
        for one, two in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, two)
        assert peak < 0.7 * needs, context


def test_what_is_small_or_a_parameters_stays(device):
    layer, x = nn.Linear(32, 32), mlgpu.randn(4, 32).requires_grad_()
    with offload("1 KiB") as _:
        y = layer(x)  # saves x, of 512 bytes, and the weight, of 4 KiB
    saved = y.grad_fn._saved
    assert all(s._packed.device.type == "cuda" for s in saved.values())
    y.sum().backward()
    assert x.grad is not None


def test_backward_twice(device):
    x = mlgpu.randn(1024).requires_grad_()
    with offload("1 KiB"):
        y = x.exp().sin().sum()
    (first,) = mlgpu.autograd.grad(y, x, retain_graph=True)
    (second,) = mlgpu.autograd.grad(y, x)
    np.testing.assert_array_equal(first.cpu().numpy(), second.cpu().numpy())


@pytest.mark.parametrize(("name", "options"), [("AdamW", {"weight_decay": 0.1}),
                                               ("SGD", {"momentum": 0.9})])
def test_optimizer_state_is_away_between_steps(device, name, options):
    runs = []
    for away in (False, True):
        made = model()
        optimizer = getattr(optim, name)(made.parameters(), lr=0.01, **options)
        if away:
            optimizer.offload_state("2 KiB")
        for step in range(3):
            mlgpu.manual_seed(step)
            optimizer.zero_grad()
            made(mlgpu.randn(8, 16)).square().sum().backward()
            optimizer.step()
        runs.append([p.detach().cpu().numpy() for p in made.parameters()])
        places = {value.device.type for state in optimizer.state.values()
                  for value in state.values() if value.ndim}
        assert places == ({"cpu"} if away else {"cuda"})
    for one, two in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, two)
    optimizer.load_state_dict(optimizer.state_dict())
    assert {value.device.type for state in optimizer.state.values()
            for value in state.values() if value.ndim} == {"cpu"}
    optimizer.step()


def test_a_step_with_state_away_is_not_captured(device):
    made = model()
    optimizer = optim.Adam(made.parameters())
    made(mlgpu.randn(4, 16)).sum().backward()
    optimizer.step()
    optimizer.offload_state()
    with pytest.raises(CaptureError, match="between host and device"), \
            mlgpu.cuda.graph(mlgpu.cuda.CUDAGraph()):
        optimizer.step()


def test_a_step_of_its_own_is_refused(device):
    with pytest.raises(MlgpuError, match="LBFGS: a step of its own"):
        optim.LBFGS(model().parameters()).offload_state()
