"""Captured work: graphs as PyTorch has them, and steps that run as one."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import mlgpu
from mlgpu.cuda import CUDAGraph, graph
from mlgpu.errors import CaptureError


def test_a_graph_runs_again_on_the_same_memory():
    x = mlgpu.zeros(1000, device="cuda")
    (x * 2 + 1).relu()  # what is compiled, is compiled before
    g = CUDAGraph()
    with graph(g):
        y = (x * 2 + 1).relu()
    for value in (1.0, -3.0, 5.0):
        x.fill_(value)
        g.replay()
        assert y.tolist() == [max(2 * value + 1, 0)] * 1000


def test_temporaries_of_a_graph_are_nobody_elses():
    x = mlgpu.full((1 << 12,), 3.0, device="cuda")
    x * 2
    g = CUDAGraph()
    with graph(g):
        y = x
        for _ in range(6):
            y = y * 2  # each but the last is dropped, and its memory used again in the graph
    others = [mlgpu.full((1 << 12,), 7.0, device="cuda") for _ in range(20)]
    g.replay()
    assert y[::1000].tolist() == [192.0] * 5
    assert all(t[::1000].tolist() == [7.0] * 5 for t in others)
    del y, g
    gc.collect()
    assert all(t[::1000].tolist() == [7.0] * 5 for t in others)


def test_replays_on_another_stream_come_after_what_they_depend_on():
    side = mlgpu.cuda.Stream()
    x = mlgpu.zeros(4096, device="cuda")
    x * 2
    g = CUDAGraph()
    with graph(g):
        y = x * 2
    for value in (1.0, 2.0):
        with mlgpu.cuda.stream(side):
            x.fill_(value)
        g.replay()
        assert (y - 2 * value).abs().max().item() == 0
        with mlgpu.cuda.stream(side):
            total = y.sum()
        g.replay()
        assert total.item() == 2 * value * 4096


def test_versions_follow_the_replays():
    x = mlgpu.zeros(3, device="cuda")
    x.add_(1)
    g = CUDAGraph()
    before = x._version
    with graph(g):
        x.add_(1)
        x.mul_(2)
    assert x._version == before
    g.replay()
    g.replay()
    assert x._version == before + 4
    assert x.tolist() == [10.0] * 3


def step_function(device):
    mlgpu.manual_seed(1)
    w = mlgpu.linspace(-1, 1, 12, device=device).reshape(4, 3).requires_grad_()

    def step(x, scale=1.0):
        w.grad = None
        loss = ((x.unsqueeze(1) * w).sum(-1).sigmoid() * scale).sum()
        loss.backward()
        with mlgpu.no_grad():
            w.sub_(w.grad * 0.1)
        return {"loss": loss}

    return w, step


def test_a_captured_step_is_the_step():
    w, step = step_function("cpu")
    there, other = step_function("cuda")
    captured = graph(other)
    for k in range(6):
        x = mlgpu.linspace(0, 1 + k, 6).reshape(2, 3)
        loss = step(x)["loss"]
        found = captured(x.cuda())["loss"]
        np.testing.assert_allclose(found.item(), loss.item(), rtol=1e-6)
        np.testing.assert_allclose(there.cpu().detach().numpy(), w.detach().numpy(), rtol=1e-5)
        assert there._version == w._version
    assert captured.graph is not None


def test_on_the_cpu_it_is_the_function():
    captured = graph(step_function("cpu")[1])
    for _ in range(3):
        assert captured(mlgpu.ones(2, 3))["loss"].requires_grad
    assert captured.graph is None


def test_without_tensors_the_default_device_decides():
    x = mlgpu.zeros(3, device="cuda")
    captured = graph(lambda: x.add_(1).detach())
    captured()
    assert captured.graph is None
    with mlgpu.Device("cuda"):
        for _ in range(3):
            captured()
    assert captured.graph is not None
    assert x.tolist() == [4.0] * 3


def test_other_shapes_and_numbers_are_refused():
    captured = graph(step_function("cuda")[1])
    for _ in range(2):
        captured(mlgpu.ones(2, 3, device="cuda"), scale=1.0)
    for arguments in [(mlgpu.ones(3, 3, device="cuda"), 1.0),
                      (mlgpu.ones(2, 3, device="cuda"), 2.0),
                      (mlgpu.ones(2, 3, device="cuda", dtype=mlgpu.float64), 1.0)]:
        with pytest.raises(CaptureError, match="captured for other"):
            captured(arguments[0], scale=arguments[1])
    captured(mlgpu.ones(2, 3, device="cuda"), scale=1.0)


REFUSED = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0] > 0),
    "print": lambda x: repr(x),
    "from the host": lambda x: x + mlgpu.tensor([1.0, 2.0, 3.0], device="cuda"),
    "to the host": lambda x: x.cpu(),
    "tolist": lambda x: x.tolist(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_captured_says_so(what):
    x = mlgpu.ones(3, device="cuda")
    x + x
    g = CUDAGraph()
    def capture():
        with graph(g):
            x + x
            REFUSED[what](x)

    with pytest.raises(CaptureError, match="cannot be part of a captured graph"):
        capture()
    assert not mlgpu.cuda.is_current_stream_capturing()
    with pytest.raises(CaptureError, match="nothing was captured"):
        g.replay()
    assert (x + x).tolist() == [2.0] * 3  # and the device goes on
    with graph(g):
        y = x + x
    g.replay()
    assert y.tolist() == [2.0] * 3


def test_misuse():
    g = CUDAGraph()
    with pytest.raises(CaptureError, match="nothing was captured"):
        g.replay()
    with pytest.raises(CaptureError, match="default stream"):
        g.capture_begin()
    with pytest.raises(CaptureError, match="no capture"):
        g.capture_end()
    with pytest.raises(CaptureError, match="capturing a graph already"), graph(g):
        CUDAGraph().capture_begin()
    with pytest.raises(TypeError, match="expected a CUDAGraph or a function"):
        graph(3)
    with pytest.raises(CaptureError, match="capture_error_mode"), graph(
            g, capture_error_mode="nice"):
        pass
    x = mlgpu.ones(3, device="cuda")
    with graph(g):
        x.add_(1)
    with pytest.raises(CaptureError, match="reset"), graph(g):
        pass
    g.reset()
    with graph(g):
        x.add_(1)


def test_kernels_of_ones_own_are_captured():
    kernel = mlgpu.cuda.kernel("__global__ void twice(float* x) { x[threadIdx.x] *= 2; }", "twice")
    x = mlgpu.ones(32, device="cuda")
    kernel(1, 32, (x,))
    before = x._version
    g = CUDAGraph()
    with graph(g):
        kernel(1, 32, (x,))
    g.replay()
    g.replay()
    assert x.tolist() == [8.0] * 32
    assert x._version == before + 2


def trained(capture: bool, steps: int = 50):
    """Parameters, state and random state after steps of AdamW, warm-up and cosine, clipping and
    dropout."""
    from mlgpu import nn
    from mlgpu.optim import lr_scheduler

    mlgpu.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Dropout(0.2),
                          nn.Linear(12, 1)).to("cuda")
    optimizer = mlgpu.optim.AdamW(model.parameters(), lr=0.02)
    schedule = lr_scheduler.SequentialLR(optimizer, [
        lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5),
        lr_scheduler.CosineAnnealingLR(optimizer, steps - 5)], milestones=[5])

    def step(x, y):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        return loss

    run = graph(step) if capture else step
    generator = mlgpu.Generator().manual_seed(3)
    losses = []
    for _ in range(steps):
        x = mlgpu.rand(8, 6, generator=generator).cuda()
        losses.append(run(x, x.sum(1, keepdim=True)).item())
    state = [optimizer.state[p] for p in model.parameters()]
    return {
        "losses": losses, "model": {n: t.tolist() for n, t in model.state_dict().items()},
        "state": [{n: t.tolist() for n, t in s.items()} for s in state],
        "rate": [g["lr"] for g in optimizer.param_groups], "epoch": schedule.last_epoch,
        "random": mlgpu.get_rng_state().tolist(),
        "versions": [p._version for p in model.parameters()]}


def test_a_captured_run_is_the_eager_run_to_the_bit():
    before, mlgpu.backends.cuda.gemm = mlgpu.backends.cuda.gemm, "own"
    try:
        eager, captured = trained(False), trained(True)
    finally:
        mlgpu.backends.cuda.gemm = before
    assert captured == eager
    assert eager["losses"][-1] < eager["losses"][0]
