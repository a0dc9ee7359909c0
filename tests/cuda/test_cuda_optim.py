"""Optimizers and the clipping of gradients on CUDA: the CPU's numbers, few launches, no waiting."""

from __future__ import annotations

import math

import numpy as np
import pytest

import mlgpu
from mlgpu import nn, optim
from mlgpu.cuda import launch as launching
from mlgpu.errors import CaptureError, MlgpuError
from mlgpu.ops.optimizer import unscale_

SHAPES = [(3, 5), (7,), (), (0, 3), (130, 130), (1, 1)]
SETTINGS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.5, "dampening": 0.3, "maximize": True}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"amsgrad": True, "maximize": True, "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.01}),
]
IDS = [f"{name}-{'-'.join(options) or 'defaults'}" for name, options in SETTINGS]


def problem(dtype, steps=3):
    rng = np.random.default_rng(0)

    def drawn(shape):
        return mlgpu.tensor(rng.standard_normal(shape)).to(dtype)

    return [drawn(s) for s in SHAPES], [[drawn(s) for s in SHAPES] for _ in range(steps)]


def parameters(start, device):
    return [nn.Parameter(value.to(device).clone()) for value in start]


def give(params, grads):
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.to(param.device).clone()


def trained(name, options, start, grads, device):
    params = parameters(start, device)
    optimizer = getattr(optim, name)(params, **options)
    for step in grads:
        give(params, step)
        optimizer.step()
    return params, optimizer


def equal(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype is e.dtype
        np.testing.assert_array_equal(a.detach().cpu().to(mlgpu.float64).numpy(),
                                      e.detach().to(mlgpu.float64).numpy())


@pytest.fixture
def launches(monkeypatch):
    """The kernels that were launched."""
    names = []
    plain = launching.Kernel.__call__

    def counted(self, grid, *rest, **options):
        if 0 not in ((grid,) if isinstance(grid, int) else grid):
            names.append(self.expression)
        return plain(self, grid, *rest, **options)

    monkeypatch.setattr(launching.Kernel, "__call__", counted)
    return names


@pytest.mark.parametrize(("name", "options", "dtype"), [
    pytest.param(*setting, dtype, id=f"{name}-{dtype!r}")
    for turn, (name, setting) in enumerate(zip(IDS, SETTINGS, strict=True))
    for dtype in (mlgpu.float32, mlgpu.float64, (mlgpu.float16, mlgpu.bfloat16)[turn % 2])])
def test_equals_the_cpu_to_the_bit(name, options, dtype):
    start, grads = problem(dtype)
    expected, host = trained(name, options, start, grads, "cpu")
    actual, optimizer = trained(name, options, start, grads, "cuda")
    equal(actual, expected)
    for a, e in zip(actual, expected, strict=True):
        for key, value in host.state[e].items():
            assert optimizer.state[a][key].device.type == ("cpu" if key == "step" else "cuda")
            equal([optimizer.state[a][key]], [value])


def test_one_launch_for_all_groups(launches):
    start, grads = problem(mlgpu.float32)
    for device in ("cpu", "cuda"):
        params = parameters(start, device)
        groups = [{"params": params[i:i + 2], "lr": 0.1 * i + 0.1, "weight_decay": 0.1 * i}
                  for i in (0, 2, 4)]
        optimizer = optim.AdamW(groups)
        for turn, step in enumerate(grads):
            give(params, step)
            if turn == 0:
                params[1].grad = None  # its steps are fewer
            launches.clear()
            optimizer.step()
        if device == "cpu":
            expected = params
        else:
            assert launches == ["adam_step<float, false>"]
            equal(params, expected)
    give(params, grads[0])
    held = [p.grad for p in params]
    launches.clear()
    for _ in range(2):
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        assert all(p.grad is g for p, g in zip(params, held, strict=True))
    assert launches == 2 * [
        "grads_norm_parts<float, 0>", "grads_norm<float, 0>", "grads_clip<float, float>",
        "adam_step<float, false>"]


def test_many_groups_and_mixed_dtypes():
    rng = np.random.default_rng(1)
    start = [mlgpu.tensor(rng.standard_normal(5)).to((mlgpu.float32, mlgpu.bfloat16)[i % 2])
             for i in range(40)]
    results = []
    for device in ("cpu", "cuda"):
        params = parameters(start, device)
        optimizer = optim.SGD([{"params": [p], "lr": 0.01 * i} for i, p in enumerate(params)])
        give(params, start)
        optimizer.step()
        results.append(params)
    equal(results[1], results[0])


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_strides_and_complex_numbers(name):
    rng = np.random.default_rng(2)
    a = mlgpu.tensor(rng.standard_normal((6, 4, 5)), dtype=mlgpu.float32)
    z = mlgpu.tensor(rng.standard_normal((6, 4)) + 1j * rng.standard_normal((6, 4)))
    results = []
    for device in ("cpu", "cuda"):
        params = [nn.Parameter(a.to(device).clone().permute(2, 0, 1)),
                  nn.Parameter(a.to(device).clone()[:, ::2]),
                  nn.Parameter(a.to(device).clone().t() if a.ndim == 2 else
                               a.to(device).clone()[0].t()),
                  nn.Parameter(z.to(device).clone())]
        optimizer = getattr(optim, name)(params, lr=0.1,
                                         **({"momentum": 0.9} if name == "SGD" else {}))
        for _ in range(2):
            for param in params:
                param.grad = mlgpu.ones_like(param) * (0.5 + 0.1j if param.is_complex() else 0.5)
            params[0].grad = params[0].grad.contiguous()
            optimizer.step()
        results.append(params)
    for actual, expected in zip(*results[::-1], strict=True):
        np.testing.assert_array_equal(actual.detach().cpu().numpy(), expected.detach().numpy())


def test_settings_on_the_device():
    """A learning rate that is a tensor, counts of steps, a factor, and steps that are left out."""
    start, grads = problem(mlgpu.float32)
    results = []
    for device in ("cpu", "cuda"):
        params = parameters(start, device)
        lr = mlgpu.tensor(0.25, device=device)
        optimizer = optim.AdamW(params, lr=lr, capturable=device == "cuda")
        optimizer.grad_factor = mlgpu.tensor(0.5, device=device)
        optimizer.found_inf = mlgpu.tensor(0.0, device=device)
        for turn, step in enumerate(grads):
            give(params, step)
            optimizer.found_inf.fill_(float(turn == 1))
            optimizer.step()
            lr.mul_(0.5)
        assert {float(optimizer.state[p]["step"]) for p in params} == {2.0}
        assert optimizer.state[params[0]]["step"].device.type == device
        results.append(params)
    for actual, expected in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(actual.detach().cpu().numpy(), expected.detach().numpy(),
                                   rtol=1e-6)


def test_saved_and_loaded_between_devices():
    start, grads = problem(mlgpu.float32)
    _, host = trained("Adam", {}, start, grads, "cpu")
    params, _ = trained("Adam", {}, start, grads, "cuda")
    optimizer = optim.Adam(params)
    optimizer.load_state_dict(host.state_dict())
    give(params, grads[0])
    optimizer.step()
    expected = [p for group in host.param_groups for p in group["params"]]
    give(expected, grads[0])
    host.step()
    equal(params, expected)


@pytest.mark.parametrize(("name", "options"), [
    ("AdamW", {"lr": 0.1}), ("AdamW", {"lr": 0.1, "capturable": True, "amsgrad": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5})])
def test_replays_are_steps(name, options):
    """After n replays all is as after n eager steps: state, counts, and a rate that changes."""
    start, grads = problem(mlgpu.float32, 6)
    params, expected = parameters(start, "cuda"), parameters(start, "cpu")
    optimizer = getattr(optim, name)(params, **options)
    host = getattr(optim, name)(expected, **options)
    schedules = [optim.lr_scheduler.ExponentialLR(o, 0.5) for o in (optimizer, host)]
    give(params, grads[0])
    graph = mlgpu.cuda.CUDAGraph()

    def step(these, chosen, schedule):
        nn.utils.clip_grad_norm_(these, 1.0)
        chosen.step()
        schedule.step()

    for turn, given in enumerate(grads):
        give(expected, given)
        step(expected, host, schedules[1])
        for param, grad in zip(params, given, strict=True):
            param.grad.copy_(grad.to(param.device))
        if turn == 0:
            step(params, optimizer, schedules[0])
            with mlgpu.cuda.graph(graph):
                step(params, optimizer, schedules[0])
        elif turn == 3:  # an eager one between
            step(params, optimizer, schedules[0])
        else:
            graph.replay()
        assert optimizer.param_groups[0]["lr"] == host.param_groups[0]["lr"]
        for actual, wanted in zip(params, expected, strict=True):
            for key, value in host.state[wanted].items():
                np.testing.assert_allclose(optimizer.state[actual][key].detach().cpu().numpy(),
                                           value.numpy(), rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(actual.detach().cpu().numpy(), wanted.detach().numpy(),
                                       rtol=1e-5, atol=1e-7, err_msg=str(turn))


def test_a_graph_can_leave_a_step_out():
    start, grads = problem(mlgpu.float32, 1)
    params = parameters(start, "cuda")
    give(params, grads[0])
    optimizer = optim.Adam(params)
    scale, optimizer.found_inf = (mlgpu.tensor(x, device="cuda") for x in (0.5, 0.0))
    optimizer.step()
    graph = mlgpu.cuda.CUDAGraph()
    with mlgpu.cuda.graph(graph):
        optimizer.found_inf.zero_()
        unscale_([p.grad for p in params], scale, optimizer.found_inf)
        optimizer.step()
    graph.replay()
    assert optimizer.state[params[0]]["step"].item() == 2
    before = [p.detach().cpu() for p in params]
    params[0].grad[0, 0] = math.inf
    graph.replay()
    equal(params, before)
    assert optimizer.state[params[0]]["step"].item() == 2


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_the_first_step_is_not_captured(name):
    param = nn.Parameter(mlgpu.ones(3, device="cuda"))
    param.grad = mlgpu.ones(3, device="cuda")
    optimizer = getattr(optim, name)([param], **({"momentum": 0.9} if name == "SGD" else {}))
    with (pytest.raises(CaptureError, match="take one before"),
          mlgpu.cuda.graph(mlgpu.cuda.CUDAGraph())):
        optimizer.step()


@pytest.mark.parametrize(("name", "options"), [
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr_decay": 0.1, "maximize": True}), ("NAdam", {}), ("RAdam", {}),
    ("ASGD", {"t0": 2, "lambd": 0.1}), ("Adan", {}), ("LAMB", {}), ("Adafactor", {}),
    ("Muon", {})])
def test_rules_and_their_replays(name, options, launches):
    """Eager and captured steps, with a schedule, are the CPU's steps; a rule is one launch."""
    start, grads = problem(mlgpu.float32, 4)
    chosen = [0] if name == "Muon" else [0, 1, 2, 4] if name != "Adafactor" else [0, 1]
    start, grads = [start[i] for i in chosen], [[step[i] for i in chosen] for step in grads]
    params, expected = parameters(start, "cuda"), parameters(start, "cpu")
    optimizer, host = (getattr(optim, name)(p, **options) for p in (params, expected))
    schedules = [optim.lr_scheduler.ExponentialLR(o, 0.5) for o in (optimizer, host)]
    graph = mlgpu.cuda.CUDAGraph()
    give(params, grads[0])
    if name != "Adagrad":  # whose state begins with the optimizer
        with (pytest.raises(CaptureError, match="take one before"),
              mlgpu.cuda.graph(mlgpu.cuda.CUDAGraph())):
            optimizer.step()
    for turn, given in enumerate(grads):
        give(expected, given)
        host.step()
        schedules[1].step()
        for param, grad in zip(params, given, strict=True):
            param.grad.copy_(grad.to(param.device))
        if turn == 0:
            launches.clear()
            optimizer.step()
            schedules[0].step()
            if name not in ("LAMB", "Adafactor", "Muon"):
                assert len([n for n in launches if "_step" in n]) == 1
            with mlgpu.cuda.graph(graph):
                optimizer.step()
                schedules[0].step()
        else:
            graph.replay()
        for actual, wanted in zip(params, expected, strict=True):
            np.testing.assert_allclose(actual.detach().cpu().numpy(), wanted.detach().numpy(),
                                       rtol=1e-2 if name == "Muon" else 1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [mlgpu.float64, mlgpu.bfloat16], ids=repr)
def test_rules_of_other_dtypes(dtype):
    start, grads = problem(dtype)
    results = [trained("RMSprop", {"centered": True}, start, grads, device)[0]
               for device in ("cpu", "cuda")]
    for actual, expected in zip(*results[::-1], strict=True):
        np.testing.assert_allclose(
            actual.detach().cpu().to(mlgpu.float64).numpy(),
            expected.detach().to(mlgpu.float64).numpy(),
            rtol=1e-13 if dtype is mlgpu.float64 else 1e-2, atol=1e-12)


@pytest.mark.parametrize("dtype", [mlgpu.float32, mlgpu.float64, mlgpu.float16], ids=repr)
@pytest.mark.parametrize("order", [2.0, 1.0, 3.5, math.inf, -math.inf, 0.0])
def test_clip_grad_norm(order, dtype, launches):
    start, _ = problem(dtype)
    start = [t for t in start if t.numel()]
    results = []
    for device in ("cpu", "cuda"):
        params = parameters(start, device)
        give(params, start)
        launches.clear()
        total = nn.utils.clip_grad_norm_(params, 1.5, order)
        assert total.device.type == device
        results.append([total, *(p.grad for p in params)])
    if order:
        assert len(launches) == 3
    for actual, expected in zip(*results[::-1], strict=True):
        assert actual.dtype is expected.dtype
        np.testing.assert_allclose(
            actual.cpu().to(mlgpu.float64).numpy(), expected.to(mlgpu.float64).numpy(),
            rtol={8: 1e-12, 4: 1e-5, 2: 1e-2}[dtype.itemsize])


def test_clipping_elsewhere(launches):
    params = parameters([mlgpu.ones(3), mlgpu.ones(2, dtype=mlgpu.float64), mlgpu.ones(4) * 1j],
                        "cuda")
    give(params, [mlgpu.ones(3) * 3, mlgpu.ones(2, dtype=mlgpu.float64) * 4, mlgpu.ones(4) * 1j])
    assert nn.utils.clip_grad_norm_(params, 1.0).item() == pytest.approx(math.sqrt(27 + 32 + 4))
    assert nn.utils.get_total_norm([p.grad for p in params]).item() == pytest.approx(1, rel=1e-5)
    empty = parameters([mlgpu.ones(0)], "cuda")
    give(empty, [mlgpu.ones(0)])
    assert nn.utils.clip_grad_norm_(empty, 1.0).item() == 0
    real = params[:2]
    give(real, [mlgpu.tensor([3.0, -5, math.nan]), mlgpu.tensor([9.0, 1]).to(mlgpu.float64)])
    launches.clear()
    nn.utils.clip_grad_value_(real, 4)
    assert len([n for n in launches if n.startswith("grads_clamp")]) == 2
    np.testing.assert_array_equal(real[0].grad.cpu().numpy(), [3, -4, math.nan])
    with pytest.raises(MlgpuError, match="total norm of order 2"):
        nn.utils.clip_grad_norm_(real, 1.0, error_if_nonfinite=True)


def test_unscale():
    start, _ = problem(mlgpu.float32)
    scale, found = (mlgpu.tensor(x, device="cuda") for x in (0.25, 0.0))
    grads = [t.to("cuda").clone() for t in start]
    unscale_(grads, scale, found)
    assert found.item() == 0
    equal(grads, [t * 0.25 for t in start])
    grads[1][3] = math.inf
    unscale_(grads, scale, found)
    assert found.item() == 1


def test_nothing_stays_on_the_books():
    before = mlgpu.cuda.memory_allocated()
    params = [nn.Parameter(mlgpu.ones(300, device="cuda")) for _ in range(3)]
    optimizer = optim.AdamW(params)
    for _ in range(2):
        for param in params:
            param.grad = mlgpu.ones(300, device="cuda")
        nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
    del params, param, optimizer
    assert mlgpu.cuda.memory_allocated() == before
