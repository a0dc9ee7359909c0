"""Mixed precision on a device: some tests of test_amp.py, and steps captured in a graph."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_amp import problem
from test_amp import test_a_scaled_step_is_a_step as test_a_scaled_step_is_a_step
from test_amp import test_operations_choose_their_dtype as choose
from test_amp import test_weights_are_cast_once as test_weights_are_cast_once

import mlgpu
from mlgpu.amp import GradScaler, autocast
from mlgpu.errors import CaptureError
from mlgpu.nn import functional as F


@pytest.fixture(scope="module")
def device():
    with mlgpu.Device("cuda"):
        yield "cuda"


def test_operations_choose_their_dtype(device):
    """In one of the half types, for which the table is one; test_amp.py has both."""
    choose(device, mlgpu.bfloat16)


def test_a_captured_step_decides_at_each_replay(device):
    model, optimizer = problem("AdamW")
    scaler = GradScaler(init_scale=64.0, growth_interval=2)
    x = mlgpu.randn(8, 4)

    def step():
        optimizer.zero_grad(set_to_none=False)
        with autocast("cuda"):
            loss = F.mse_loss(model(x), mlgpu.zeros(8, 2))
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    step()
    graph = mlgpu.cuda.CUDAGraph()
    with mlgpu.cuda.graph(graph):
        step()
    graph.replay()
    assert scaler.get_scale() == 128.0
    before = model.weight.detach().cpu().numpy()
    x[0, 0] = math.inf
    graph.replay()
    assert scaler.get_scale() == 64.0
    np.testing.assert_array_equal(model.weight.detach().cpu().numpy(), before)
    x[0, 0] = 0.0
    graph.replay()
    assert (model.weight.detach().cpu().numpy() != before).any()
    late = GradScaler()
    with pytest.raises(CaptureError, match="scale a loss once"), \
            mlgpu.cuda.graph(mlgpu.cuda.CUDAGraph()):
        late.scale(x.sum())
